//! Updates of the image that runs: the next one is put beside it on the partition that firmware starts from, and is
//! kept if it serves.
//!
//! ```text
//!   the server --socket--> signature, release, room --> EFI/Linux/midge-8-ID+2.efi --> restart
//!   systemd-boot: +2 becomes +1-1, starts it
//!      serves for a while --> the name without its count: from now on it is the one
//!      ends, or does not serve --> restart: +0-2, and then the one before it
//! ```
//!
//! The loader counts before it starts an image, so one that takes the kernel down counts as well. Of images there are
//! two: the one that runs, and the one before it or after it.
//!
//! Invariants: the image that runs is never written to or removed. What is not signed by the key in the image is not
//! used. The partition is mounted while something is looked up or written, and not otherwise.
//!
//! Not here: Secure Boot, whose keys the firmware has; an image for a machine without a partition `midge-boot`.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use midge_image::disk::BOOT_NAME;
use midge_image::entry::{self, Entry, TRIES};
use midge_image::uki;
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};

use super::console::Console;
use super::data::wait_for;
use super::places::{UPDATE_KEY, UPDATES};
use super::supervise::{Event, socket_for_others};
use super::words::Words;
use crate::doctor::Machine;
use crate::update::{Answer, BYTES_MAX, Public, read_head};

/// Where the partition is mounted.
const TARGET: &str = "/boot";
const FLAGS: MountFlags = MountFlags::NOSUID
    .union(MountFlags::NODEV)
    .union(MountFlags::NOEXEC)
    .union(MountFlags::NOATIME);
/// What an image is called until it is whole.
const UNFINISHED: &str = "midge.new";
/// Room that a file system takes for its folders besides files.
const SPARE_BYTES: u64 = 1 << 20;
/// How long the partition may be busy, and how often that is looked at.
const BUSY_MAX: Duration = Duration::from_secs(5);
const BUSY_AGAIN: Duration = Duration::from_millis(2);
/// How long the server may be silent while it hands an image over: it waits for its client.
const SILENCE_MAX: Duration = Duration::from_secs(120);

/// The images of this machine.
#[derive(Debug)]
pub(super) struct Images {
    device: PathBuf,
    /// The image that runs.
    id: String,
    release: u64,
    /// Held while the partition is mounted.
    mounted: Mutex<()>,
}

/// Looks whether the image that runs is on trial, and takes updates from then on; in a thread of its own, for the
/// disk's driver may take a moment. Does nothing where the image did not come from a disk.
pub(super) fn start(console: &Arc<Console>, words: &Words, events: Sender<Event>) {
    let Some(id) = words.image.clone() else { return };
    let (own, release) = (Arc::clone(console), words.release);
    let work = move || {
        let Some(device) = wait_for(BOOT_NAME) else {
            return own.say(&format!(
                "there is no partition `{BOOT_NAME}`: this image cannot be updated"
            ));
        };
        let images = Arc::new(Images { device, id, release, mounted: Mutex::new(()) });
        let may_be_on_trial = images.look(&own).unwrap_or_else(|error| {
            own.say(&format!("the images of this disk cannot be looked at: {error}"));
            // One that does not serve must not stay for that.
            true
        });
        if may_be_on_trial {
            // Nobody listens any more when the machine is ending.
            drop(events.send(Event::Trial(Arc::clone(&images))));
        }
        let key = fs::read_to_string(Path::new("/").join(UPDATE_KEY)).ok();
        if let Some(key) = key.as_deref().and_then(Public::parse_line) {
            match socket_for_others(&Path::new("/").join(UPDATES), UnixListener::bind) {
                Ok(listener) => images.take(&own, &listener, key, &events),
                Err(error) => own.say(&format!("updates cannot be taken: {error}")),
            }
        }
    };
    let started = thread::Builder::new().name("midge-update".into()).spawn(work);
    if let Err(error) = started {
        console.say(&format!("updates cannot be taken: {error}"));
    }
}

impl Images {
    /// Tells of an image that has failed, and whether the one that runs is on trial.
    fn look(&self, console: &Console) -> io::Result<bool> {
        let entries = self.with_folder(false, entries)?;
        for Entry { id, trial, .. } in &entries {
            if let Some((0, tries @ 1..)) = trial {
                console.say(&format!(
                    "image {id} did not serve {tries} times: {}, the one before it, is started again",
                    self.id
                ));
            }
        }
        let trial = self.own(entries)?.trial;
        if let Some((left, _)) = trial {
            console.say(&format!("image {} is on trial, {left} more starts to go", self.id));
        }
        Ok(trial.is_some())
    }

    /// Keeps the image that runs: it has served.
    pub(super) fn keep(&self, console: &Console) {
        let kept = self.with_folder(true, |folder| {
            let own = self.own(entries(folder)?)?;
            let kept = Entry { trial: None, ..own.clone() };
            fs::rename(folder.join(own.to_string()), folder.join(kept.to_string()))
        });
        match kept {
            Ok(()) => console.say(&format!("image {} serves: it is kept", self.id)),
            Err(error) => console.say(&format!("image {} cannot be kept: {error}", self.id)),
        }
    }

    /// Takes updates, one after the other, until one is installed.
    fn take(
        &self,
        console: &Console,
        listener: &UnixListener,
        key: Public,
        events: &Sender<Event>,
    ) {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { continue };
            let answer = match self.receive(&stream, key) {
                Ok(image) => self.install(&image),
                Err(answer) => answer,
            };
            console.say(&format!("update: {}", answer.text));
            // Who asked may be gone; what was done is done.
            drop(answer.write(&stream));
            if answer.status == 200 {
                drop(events.send(Event::Updated));
                return;
            }
        }
    }

    /// Reads an image, and returns it if it is signed.
    fn receive(&self, mut stream: &UnixStream, key: Public) -> Result<Vec<u8>, Answer> {
        let failed =
            |error: io::Error| Answer::new(500, format!("the image did not come: {error}"));
        stream.set_read_timeout(Some(SILENCE_MAX)).map_err(failed)?;
        stream.set_write_timeout(Some(SILENCE_MAX)).map_err(failed)?;
        let (signature, bytes) = read_head(stream).map_err(failed)?;
        // It is held in memory until its signature is known, and this process must not be the one that is ended.
        let most = BYTES_MAX.min(available_bytes() / 2);
        if most < bytes {
            let text = format!("the image has {bytes} bytes, and there is memory for {most}");
            return Err(Answer::new(413, text));
        }
        let mut image = vec![0; usize::try_from(bytes).expect("64-bit targets alone")];
        stream.read_exact(&mut image).map_err(failed)?;
        if key.has_signed(&image, &signature) {
            return Ok(image);
        }
        Err(Answer::new(
            403,
            "the signature is not that of the key which this machine was made with",
        ))
    }

    /// Puts an image beside the one that runs.
    fn install(&self, image: &[u8]) -> Answer {
        let Some((id, release)) = identity(image) else {
            return Answer::new(400, "this is no image of a disk: `midge image update` makes one");
        };
        if id == self.id {
            return Answer::new(409, format!("image {id} is the one that runs"));
        }
        if release < self.release {
            let text = format!(
                "the image is of release {release}, and {} runs here: an older one is not taken",
                self.release
            );
            return Answer::new(409, text);
        }
        let installed = self.with_folder(true, |folder| Ok(self.write(folder, &id, image)));
        match installed {
            Ok(Ok(())) => {
                Answer::new(200, format!("image {id} is installed; the machine starts anew"))
            }
            Ok(Err(answer)) => answer,
            Err(error) => Answer::new(500, format!("the image cannot be installed: {error}")),
        }
    }

    fn write(&self, folder: &Path, id: &str, image: &[u8]) -> Result<(), Answer> {
        let failed =
            |error: io::Error| Answer::new(500, format!("the image cannot be written: {error}"));
        let own = entries(folder).and_then(|all| self.own(all)).map_err(failed)?;
        if own.trial.is_some() {
            let text = "the image that runs is on trial itself: ask again once it is kept";
            return Err(Answer::new(409, text));
        }
        let others = others(folder, &own).map_err(failed)?;
        let free = rustix::fs::statvfs(folder).map_err(|error| failed(error.into()))?;
        let freed: u64 =
            others.iter().map(|path| path.metadata().map_or(0, |file| file.len())).sum();
        let room = (free.f_bavail * free.f_frsize + freed).saturating_sub(SPARE_BYTES);
        if room < image.len() as u64 {
            let text = format!(
                "the image has {} bytes, and the partition `{BOOT_NAME}` has room for {room}: make the disk anew",
                image.len()
            );
            return Err(Answer::new(507, text));
        }
        for path in others {
            fs::remove_file(path).map_err(failed)?;
        }
        let unfinished = folder.join(UNFINISHED);
        let written = File::create(&unfinished).and_then(|mut file| {
            file.write_all(image)?;
            file.sync_all()
        });
        let trial = Some((TRIES, 0));
        let name = Entry { number: own.number + 1, id: id.to_owned(), trial }.to_string();
        let installed = written.and_then(|()| fs::rename(&unfinished, folder.join(name)));
        installed.map_err(|error| {
            // The next update does it otherwise.
            drop(fs::remove_file(&unfinished));
            failed(error)
        })
    }

    /// Finds the image that runs.
    fn own(&self, entries: Vec<Entry>) -> io::Result<Entry> {
        let own = entries.into_iter().filter(|entry| entry.id == self.id);
        let own = own.max_by_key(|entry| entry.number);
        own.ok_or_else(|| io::Error::other(format!("image {} is not among them", self.id)))
    }

    /// Does something with the folder of images.
    fn with_folder<T>(
        &self,
        writes: bool,
        work: impl FnOnce(&Path) -> io::Result<T>,
    ) -> io::Result<T> {
        let _mounted = self.mounted.lock().unwrap_or_else(PoisonError::into_inner);
        fs::create_dir_all(TARGET)?;
        let flags = if writes { FLAGS } else { FLAGS | MountFlags::RDONLY };
        patiently(|| {
            rustix::mount::mount(&self.device, TARGET, "vfat", flags, c"errors=remount-ro")
        })?;
        let done = work(&Path::new(TARGET).join(entry::FOLDER));
        let unmounted = patiently(|| rustix::mount::unmount(TARGET, UnmountFlags::empty()));
        let done = done?;
        unmounted?;
        Ok(done)
    }
}

/// Does something again as long as the file system is busy: a server that is being started has every open file of this
/// process, until it becomes another program.
fn patiently(mut act: impl FnMut() -> Result<(), Errno>) -> io::Result<()> {
    let until = Instant::now() + BUSY_MAX;
    loop {
        match act() {
            Err(Errno::BUSY) if Instant::now() < until => thread::park_timeout(BUSY_AGAIN),
            done => return Ok(done?),
        }
    }
}

fn entries(folder: &Path) -> io::Result<Vec<Entry>> {
    Ok(names(folder)?.iter().filter_map(|name| Entry::parse(name)).collect())
}

fn names(folder: &Path) -> io::Result<Vec<String>> {
    let names =
        fs::read_dir(folder)?.map(|file| Ok(file?.file_name().into_string().unwrap_or_default()));
    names.collect()
}

/// Returns the images besides the one that runs, and what is left of updates that failed.
fn others(folder: &Path, own: &Entry) -> io::Result<Vec<PathBuf>> {
    let is_other =
        |name: &String| name == UNFINISHED || Entry::parse(name).is_some_and(|entry| entry != *own);
    Ok(names(folder)?.into_iter().filter(is_other).map(|name| folder.join(name)).collect())
}

/// Reads which image this is, and its release, from the words that its kernel is to be given.
fn identity(image: &[u8]) -> Option<(String, u64)> {
    let line = std::str::from_utf8(uki::section(image, uki::COMMAND_LINE)?).ok()?;
    let words = Words::parse(line, false);
    Some((words.image?, words.release))
}

fn available_bytes() -> u64 {
    Machine::this().memory_bytes("MemAvailable").unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk that was busy for a moment, while the server was started, left an image on trial for ever.
    #[test]
    fn a_disk_that_is_busy_for_a_moment_is_waited_for() {
        let mut tries = 0;
        let busy_twice = || {
            tries += 1;
            if tries < 3 { Err(Errno::BUSY) } else { Ok(()) }
        };
        patiently(busy_twice).unwrap();
        assert_eq!(tries, 3);
        let refused = patiently(|| Err(Errno::NODEV)).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(Errno::NODEV.raw_os_error()));
    }
}
