//! `midge image run`: the image in QEMU, with a port of this machine that leads to it.
//!
//! That `/dev/kvm` can be opened says little: on machines that emulate it a kernel stands still or dies on its
//! way. So KVM is tried, and if no response comes in time, QEMU computes itself. What computed is said.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;
use tempfile::TempDir;

use super::{Machine, Purpose, joined, put, qmp, write_firmware};
use crate::cli::{Accelerator, ImageFormat, ImageRunArgs, RunFormat};
use crate::commands::serve::catch_signals;
use crate::config::ByteSize;
use crate::output::{self, Failure};

const PROGRAM: &str = "qemu-system-x86_64";
/// Version of the JSON object.
const SCHEMA: &str = "midge/image-run/1";
/// A kernel under KVM answers within a second; under a KVM that is emulated it would take minutes.
const KVM_MAX: Duration = Duration::from_secs(10);
/// Under QEMU's own computing, firmware takes seconds.
const TCG_MAX: Duration = Duration::from_secs(120);
/// Under QEMU's own computing the processor has no timer with a deadline, and the kernel would take 0.2 s to measure the
/// one that there is, and to see that timers work at all.
const TCG_WORDS: &str = "nolapic_timer no_timer_check";
/// And a kernel that is told that bytes are as fast as words clears and copies its pages byte by byte.
const TCG_PROCESSOR: &str = "max,-erms,-fsrm";
/// How long a machine may take to switch itself off.
const OFF_MAX: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How long one try waits for the answer: a packet to a machine without a network is lost, and sent again late.
const TRY_MAX: Duration = Duration::from_millis(200);
/// The least room that the image's disk gets for data.
const DATA: ByteSize = ByteSize(64 << 20);

#[derive(Debug, Serialize)]
struct Report {
    schema: &'static str,
    accelerator: &'static str,
    address: String,
    first_response_ms: u128,
}

/// Runs the command.
///
/// # Errors
/// The image cannot be made, QEMU cannot be started, or no response came.
pub(super) fn run(args: &ImageRunArgs) -> Result<ExitCode> {
    let folder = tempfile::tempdir().context("there is no room for the image")?;
    let medium = medium(args, folder.path())?;
    let signals = catch_signals()?;
    let accelerators: &[&str] = match args.accel {
        Accelerator::Kvm => &["kvm"],
        Accelerator::Tcg => &["tcg"],
        Accelerator::Auto if Path::new("/dev/kvm").exists() => &["kvm", "tcg"],
        Accelerator::Auto => &["tcg"],
    };
    for (&accelerator, index) in accelerators.iter().zip(1..) {
        let is_last = index == accelerators.len();
        let mut guest = Guest::start(args, &folder, &medium, accelerator)?;
        let patience = if accelerator == "kvm" && !is_last { KVM_MAX } else { TCG_MAX };
        match guest.first_response(args, patience, &signals)? {
            Outcome::Responded(took) => {
                tell(args, accelerator, took)?;
                return guest.until_end(args, &signals);
            }
            Outcome::Told => return guest.off(),
            Outcome::Late if !is_last => output::complain(&format!(
                "{}: no response under {accelerator} within {} s; trying the next\n",
                output::PROGRAM,
                patience.as_secs()
            )),
            Outcome::Late => anyhow::bail!("no response came within {} s", patience.as_secs()),
        }
    }
    Ok(ExitCode::FAILURE)
}

/// What the machine starts from.
struct Medium {
    /// Arguments of QEMU's.
    words: Vec<String>,
    /// The kernel's command line, where QEMU loads the kernel.
    line: Option<String>,
}

/// Makes it, or finds the disk that was made before.
fn medium(args: &ImageRunArgs, folder: &Path) -> Result<Medium> {
    if let Some(disk) = &args.disk {
        disk.metadata().with_context(|| format!("cannot read the disk `{}`", disk.display()))?;
        return by_firmware(args, disk, ImageFormat::Disk);
    }
    let purpose = match args.format {
        RunFormat::Initrd => Purpose::Pc,
        RunFormat::Microvm => Purpose::Microvm,
        RunFormat::Disk => Purpose::Disk,
        RunFormat::Iso => Purpose::Firmware,
    };
    let machine = Machine::new(&args.parts, purpose)?;
    let path = |name: &str| folder.join(name);
    let shown = |path: PathBuf| path.display().to_string();
    if let RunFormat::Initrd | RunFormat::Microvm = args.format {
        put(&path("kernel"), machine.kernel()?)?;
        put(&path("initrd"), &machine.initrd)?;
        let (kernel, initrd) = (shown(path("kernel")), shown(path("initrd")));
        let words = ["-kernel", &kernel, "-initrd", &initrd].map(str::to_owned).into();
        return Ok(Medium { words, line: Some(machine.command_line) });
    }
    let format = if args.format == RunFormat::Disk { ImageFormat::Disk } else { ImageFormat::Iso };
    let image = path("image");
    write_firmware(format, &machine, &args.parts, DATA, &image)?;
    by_firmware(args, &image, format)
}

/// Starts from an image that firmware looks at.
fn by_firmware(args: &ImageRunArgs, image: &Path, format: ImageFormat) -> Result<Medium> {
    let firmware = args.firmware.display();
    let next = "it comes with Debian's package ovmf; another place is named by --firmware";
    args.firmware.metadata().map_err(|error| {
        Failure::new(format!("cannot read the firmware `{firmware}`"), next, error)
    })?;
    let code = format!("if=pflash,format=raw,readonly=on,file={firmware}");
    let drive = format!("if=none,id=d,format=raw,file={}", image.display());
    let device = match format {
        ImageFormat::Disk => "virtio-blk-pci,drive=d,bootindex=0",
        _ => "ide-cd,drive=d,bootindex=0",
    };
    let words = ["-drive", &code, "-drive", &drive, "-device", device].map(str::to_owned).into();
    Ok(Medium { words, line: None })
}

fn tell(args: &ImageRunArgs, accelerator: &'static str, took: Duration) -> Result<()> {
    let address = format!("http://127.0.0.1:{}", own_port(args));
    let first_response_ms = took.as_millis();
    if args.json {
        return Ok(output::print_json(&Report {
            schema: SCHEMA,
            accelerator,
            address,
            first_response_ms,
        })?);
    }
    Ok(output::print(&format!(
        "{address} answered {first_response_ms} ms after the start of QEMU, computed by {accelerator}\n"
    ))?)
}

/// The port that is asked for a response.
fn own_port(args: &ImageRunArgs) -> u16 {
    args.port.first().map_or(0, |(own, _)| *own)
}

enum Outcome {
    Responded(Duration),
    Late,
    /// A signal came first.
    Told,
}

/// A machine that runs. It ends with this.
struct Guest {
    child: Child,
    began: Instant,
    socket: PathBuf,
    has_button: bool,
}

impl Guest {
    fn start(
        args: &ImageRunArgs,
        folder: &TempDir,
        medium: &Medium,
        accelerator: &str,
    ) -> Result<Self> {
        let socket = folder.path().join("qmp");
        let is_micro = args.format == RunFormat::Microvm;
        let (machine, network) = if is_micro {
            // Without KVM's clock the old timers are what time comes from.
            ("microvm,acpi=off,pit=on,pic=on,rtc=on", "virtio-net-device,netdev=n")
        } else {
            ("q35", "virtio-net-pci,netdev=n,romfile=")
        };
        // Of the processor all that there is; under an emulated KVM one register of it ends QEMU.
        let (processor, more) = match accelerator {
            "kvm" => ("host,arch-capabilities=off", ""),
            _ => (TCG_PROCESSOR, TCG_WORDS),
        };
        let mut command = Command::new(PROGRAM);
        command.args(["-accel", accelerator, "-cpu", processor, "-M", machine, "-m"]);
        command.arg(format!("{}M", args.memory.0 >> 20)).args(["-smp", &args.cpus.to_string()]);
        command.args(["-nodefaults", "-no-user-config", "-display", "none"]);
        // What started from a disk starts anew by itself, as after an update; a microVM ends by a restart.
        if args.disk.is_none() && args.format != RunFormat::Disk {
            command.arg("-no-reboot");
        }
        command.args(["-serial", "stdio"]);
        command.args(["-qmp", &format!("unix:{},server=on,wait=off", socket.display())]);
        let forwarded =
            args.port.iter().map(|(own, guest)| format!(",hostfwd=tcp:127.0.0.1:{own}-:{guest}"));
        command.arg("-netdev").arg(format!("user,id=n{}", forwarded.collect::<String>()));
        command.args(["-device", network]).args(&medium.words);
        if let Some(line) = &medium.line {
            command.arg("-append").arg(joined(line, more));
        }
        if is_micro {
            command.args(["-global", "virtio-mmio.force-legacy=false"]);
        }
        let began = Instant::now();
        let child =
            command.stdin(Stdio::null()).stdout(std::io::stderr()).spawn().map_err(|error| {
                let next = "install it: Debian's package qemu-system-x86";
                Failure::new(format!("`{PROGRAM}` cannot be started"), next, error)
            })?;
        Ok(Self { child, began, socket, has_button: !is_micro })
    }

    /// Asks until something answers, whatever it says.
    fn first_response(
        &mut self,
        args: &ImageRunArgs,
        patience: Duration,
        signals: &Receiver<i32>,
    ) -> Result<Outcome> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, own_port(args)));
        while self.began.elapsed() < patience {
            if responds(address) {
                return Ok(Outcome::Responded(self.began.elapsed()));
            }
            if let Some(status) = self.child.try_wait()? {
                if args.accel == Accelerator::Auto && patience == KVM_MAX {
                    return Ok(Outcome::Late);
                }
                anyhow::bail!("QEMU ended before there was a response: {status}");
            }
            if signals.recv_timeout(LOOK_EVERY).is_ok() {
                return Ok(Outcome::Told);
            }
        }
        Ok(Outcome::Late)
    }

    fn until_end(mut self, args: &ImageRunArgs, signals: &Receiver<i32>) -> Result<ExitCode> {
        if args.once {
            return self.off();
        }
        while self.child.try_wait()?.is_none() {
            if signals.recv_timeout(TRY_MAX).is_ok() {
                return self.off();
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Presses its power button, and waits until it is off.
    fn off(mut self) -> Result<ExitCode> {
        // A machine without a button is ended by the drop of this.
        if !self.has_button || qmp::press_power(&self.socket).is_err() {
            return Ok(ExitCode::SUCCESS);
        }
        let until = Instant::now() + OFF_MAX;
        while Instant::now() < until {
            if self.child.try_wait()?.is_some() {
                return Ok(ExitCode::SUCCESS);
            }
            std::thread::park_timeout(LOOK_EVERY);
        }
        output::complain(&format!("{}: the machine did not switch itself off\n", output::PROGRAM));
        Ok(ExitCode::FAILURE)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn responds(address: SocketAddr) -> bool {
    let ask = || {
        let mut stream = TcpStream::connect_timeout(&address, TRY_MAX)?;
        stream.set_read_timeout(Some(TRY_MAX))?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut start = [0; 5];
        stream.read_exact(&mut start)?;
        std::io::Result::Ok(start)
    };
    ask().is_ok_and(|start| start == *b"HTTP/")
}
