//! `midge image`: an image of a machine that serves a settings file and does nothing else.
//!
//! ```text
//!   settings, functions, program --Content--> tree --cpio--> initramfs
//!   initramfs + kernel + words --uki--> one program of the firmware's --disk, iso--> what it lies on
//! ```
//!
//! The bytes are made by the package `midge-image`; here is who is asked for what.

mod kexec; // `midge image kexec`
mod qmp; // telling QEMU
mod run; // `midge image run`
mod update; // `midge image update`

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use midge_image::disk::{self, Boot, Layout};
use midge_image::entry;
use midge_image::kernel::{self, Kernel};
use midge_image::modules::{Module, Modules};
use midge_image::program::{self, ProgramError};
use midge_image::tree::{Entry, Tree};
use midge_image::uki::{self, Parts};
use midge_image::{cpio, iso, oci};
use serde::Serialize;

use crate::boot::places;
use crate::cli::{ImageAction, ImageArgs, ImageFormat, ImageParts, InitrdCompression};
use crate::config::ByteSize;
use crate::image::Content;
use crate::output::{self, Cell, Failure, Table, Tone};
use crate::update::Public;

/// Version of the JSON object.
const SCHEMA: &str = "midge/image/1";
/// The program that runs now.
const THIS_PROGRAM: &str = "/proc/self/exe";
/// What the kernel is told on every machine: both consoles, nothing but errors, and to start anew if it fails.
const COMMAND_LINE: &str = "console=tty0 console=ttyS0 quiet panic=10";
/// The same for microVMs: no screen, and no keyboard whose controller would be waited for. A restart ends them.
const MICROVM_LINE: &str = "console=ttyS0 quiet panic=-1 reboot=t midge.off=restart";
/// Modules that virtual machines need, and buttons and the partition for data; those that are built in are none.
const MODULES: [&str; 11] = [
    "virtio_net",
    "virtio_blk",
    "virtio_rng",
    "virtio_mmio",
    "ena",
    "button",
    "evdev",
    "vfat",
    "nls_cp437",
    "nls_ascii",
    "i6300esb",
];
/// How hard zstd tries: 19 is its best without windows that take much memory to unpack.
const ZSTD_LEVEL: i32 = 19;
/// What a machine says of itself. Boot loaders would sort by a version before they look at names, and the one that was
/// installed last is the newer one, whatever it is called.
const RELEASE: &str =
    concat!("ID=midge\nNAME=midge\nPRETTY_NAME=\"midge ", env!("CARGO_PKG_VERSION"), "\"\n");

#[derive(Debug, Default, Serialize)]
struct Report {
    schema: &'static str,
    file: String,
    format: &'static str,
    bytes: u64,
    initrd_bytes: usize,
    kernel: Option<String>,
    modules: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// What is missing or refused, with what to do about it; a file that was there is unchanged then.
pub fn run(args: &ImageArgs) -> Result<ExitCode> {
    match &args.action {
        Some(ImageAction::Run(args)) => run::run(args),
        Some(ImageAction::Kexec(args)) => kexec::run(args),
        Some(ImageAction::Update(args)) => update::run(args),
        None => write(args),
    }
}

fn write(args: &ImageArgs) -> Result<ExitCode> {
    let target = args.output.clone().unwrap_or_else(|| default_target(args.format));
    let made = match args.format {
        ImageFormat::Oci => container(&args.parts, &target)?,
        ImageFormat::Initrd => {
            let parts = Machine::new(&args.parts, Purpose::Initrd)?;
            put(&target, &parts.initrd)?;
            parts.report()
        }
        ImageFormat::Microvm => {
            let parts = Machine::new(&args.parts, Purpose::Microvm)?;
            microvm(&parts, &target)?;
            parts.report()
        }
        ImageFormat::Uki | ImageFormat::Disk | ImageFormat::Iso => {
            let machine = Machine::new(&args.parts, Purpose::of_firmware(args.format))?;
            write_firmware(args.format, &machine, &args.parts, args.data_size, &target)?;
            machine.report()
        }
    };
    let bytes = size_of(&target)?;
    let (file, format) = (target.display().to_string(), name_of(args.format));
    let report = Report { schema: SCHEMA, bytes, file, format, ..made };
    show(args, report)?;
    Ok(ExitCode::SUCCESS)
}

/// What a machine is started with.
struct Machine {
    kernel: Option<Vec<u8>>,
    initrd: Vec<u8>,
    command_line: String,
    modules: Vec<String>,
    /// Which image this is, among those of a disk.
    id: String,
}

/// For what: decides on the kernel's words, and where they go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// Whoever starts it has a kernel and a command line.
    Initrd,
    /// A virtual machine without firmware.
    Microvm,
    /// A PC that is given kernel and initramfs.
    Pc,
    /// A PC that starts from a disk.
    Disk,
    /// A PC that starts from something without a partition for data.
    Firmware,
}

impl Purpose {
    const fn of_firmware(format: ImageFormat) -> Self {
        if matches!(format, ImageFormat::Disk) { Self::Disk } else { Self::Firmware }
    }

    /// Who loads it decides: a virtual machine's memory is filled faster than zstd unpacks, a disk is read more slowly.
    const fn compression(self) -> InitrdCompression {
        match self {
            Self::Initrd | Self::Disk | Self::Firmware => InitrdCompression::Zstd,
            Self::Microvm | Self::Pc => InitrdCompression::None,
        }
    }
}

impl Machine {
    fn new(parts: &ImageParts, purpose: Purpose) -> Result<Self> {
        Self::updatable(parts, purpose, None)
    }

    /// Makes one that takes updates of this key's owner, if no other key is named.
    fn updatable(parts: &ImageParts, purpose: Purpose, key: Option<Public>) -> Result<Self> {
        let named = parts.update_key.as_deref().map(Public::read).transpose()?;
        let kernel = match (&parts.kernel, purpose) {
            (Some(path), _) => Some((path, read(path)?)),
            (None, Purpose::Initrd) => None,
            (None, _) => return Err(no_kernel().into()),
        };
        if let Some((path, kernel)) = &kernel {
            Kernel::of(kernel).with_context(|| format!("cannot take `{}`", path.display()))?;
        }
        let modules = modules(parts, kernel.as_ref().map(|(_, kernel)| kernel.as_slice()))?;
        let names = modules.iter().map(|module| module.name.clone()).collect();
        let program = program(parts)?;
        let mut content = Content::of_settings(&parts.file, parts.processor)?;
        let (line, words) = match purpose {
            Purpose::Initrd => (String::new(), parts.append.clone()),
            Purpose::Microvm => (joined(MICROVM_LINE, &parts.append), String::new()),
            Purpose::Pc | Purpose::Firmware => (joined(COMMAND_LINE, &parts.append), String::new()),
            Purpose::Disk => (joined(COMMAND_LINE, &parts.append), "midge.data=wait".to_owned()),
        };
        content.add_boot(program, modules, &words)?;
        if let Some(key) = named.or(key) {
            content.add(places::UPDATE_KEY, Entry::File(key.line().into_bytes()))?;
        }
        let archive = cpio::encode(&content.into_tree())?;
        let initrd = match parts.compress.unwrap_or(purpose.compression()) {
            InitrdCompression::None => archive,
            InitrdCompression::Zstd => zstd::bulk::compress(&archive, ZSTD_LEVEL)?,
        };
        let kernel = kernel.map(|(_, kernel)| kernel);
        let id = entry::id(&[kernel.as_deref().unwrap_or_default(), &initrd, line.as_bytes()]);
        let command_line = match purpose {
            Purpose::Disk => {
                joined(&line, &format!("midge.image={id} midge.release={}", parts.release))
            }
            _ => line,
        };
        Ok(Self { kernel, initrd, command_line, modules: names, id })
    }

    fn kernel(&self) -> Result<&[u8]> {
        Ok(self.kernel.as_deref().ok_or_else(no_kernel)?)
    }

    /// Returns the unified kernel image.
    fn firmware_program(&self, stub: &Path) -> Result<Vec<u8>> {
        let content = of_systemd(stub, "stub")?;
        Ok(uki::encode(&Parts {
            stub: &content,
            kernel: self.kernel()?,
            initrd: &self.initrd,
            command_line: &self.command_line,
            release: RELEASE,
        })?)
    }

    fn report(&self) -> Report {
        let version = self.kernel.as_deref().and_then(kernel::version);
        Report {
            initrd_bytes: self.initrd.len(),
            kernel: version.map(str::to_owned),
            modules: self.modules.clone(),
            ..Report::default()
        }
    }
}

/// Reads a program of systemd-boot's.
fn of_systemd(path: &Path, what: &str) -> Result<Vec<u8>> {
    fs::read(path).map_err(|error| {
        let next = format!(
            "it comes with Debian's package systemd-boot-efi; another place is named by --{what}"
        );
        Failure::new(format!("cannot read the {what} `{}`", path.display()), next, error).into()
    })
}

fn joined(line: &str, more: &str) -> String {
    format!("{line} {more}").trim_end().to_owned()
}

fn no_kernel() -> Failure {
    Failure {
        what: "there is no kernel".into(),
        next: "name one by --kernel; tools/kernel/debian.sh unpacks Debian's, tools/kernel/build.sh makes a smaller one"
            .into(),
        is_usage: true,
        cause: None,
    }
}

/// Returns the modules to load, with what they need: all that were asked for, and of the usual ones those that
/// this kernel has.
fn modules(parts: &ImageParts, kernel: Option<&[u8]>) -> Result<Vec<Module>> {
    let beside = || {
        let version = kernel.and_then(kernel::version)?;
        let folder = parts.kernel.as_ref()?.parent()?.join("../lib/modules").join(version);
        folder.is_dir().then_some(folder)
    };
    let Some(folder) = parts.modules.clone().or_else(beside) else {
        ensure!(
            parts.wanted.is_empty(),
            "there is no folder of modules to take `{}` from; name it by --modules",
            parts.wanted[0]
        );
        return Ok(Vec::new());
    };
    let found = Modules::below(&folder)?;
    let usual = MODULES.iter().filter(|name| found.has(name)).map(|&name| name.to_owned());
    let names: Vec<String> = usual.chain(parts.wanted.iter().cloned()).collect();
    Ok(found.closure(&names)?)
}

/// Returns the program for an image.
fn program(parts: &ImageParts) -> Result<Vec<u8>> {
    let path = parts.binary.clone().unwrap_or_else(|| THIS_PROGRAM.into());
    program::bare(&read(&path)?).map_err(|error| {
        let shown =
            if parts.binary.is_some() { path.display().to_string() } else { "this program".into() };
        let next = match error {
            ProgramError::Dynamic => {
                "cargo xtask static makes one that needs no libraries; --binary names it"
            }
            _ => "name midge itself by --binary",
        };
        Failure::new(format!("{shown} cannot be in an image"), next, error).into()
    })
}

/// Writes the folder that microVMs are started from.
fn microvm(machine: &Machine, target: &Path) -> Result<()> {
    fs::create_dir_all(target).with_context(|| format!("cannot make `{}`", target.display()))?;
    put(&target.join("kernel"), machine.kernel()?)?;
    put(&target.join("initrd"), &machine.initrd)?;
    put(&target.join("cmdline"), machine.command_line.as_bytes())?;
    // Firecracker ends a machine that restarts by its keyboard's controller.
    let line = machine.command_line.replace("reboot=t", "reboot=k");
    let settings = serde_json::json!({
        "boot-source": { "kernel_image_path": "kernel", "initrd_path": "initrd", "boot_args": line },
        "drives": [],
        "machine-config": { "vcpu_count": 1, "mem_size_mib": 512 },
        "network-interfaces": [{ "iface_id": "eth0", "host_dev_name": "tap0" }],
    });
    put(&target.join("firecracker.json"), format!("{settings:#}\n").as_bytes())
}

/// Writes a program of the firmware's, or what it lies on.
fn write_firmware(
    format: ImageFormat,
    machine: &Machine,
    parts: &ImageParts,
    data: ByteSize,
    target: &Path,
) -> Result<()> {
    let image = machine.firmware_program(&parts.stub)?;
    match format {
        ImageFormat::Iso => put(target, &iso::encode(&image)?),
        ImageFormat::Disk => {
            let loader = of_systemd(&parts.loader, "loader")?;
            let layout = Layout::new(image.len() as u64, data.0);
            replace(target, |file| {
                file.set_len(layout.bytes())?;
                let own = Boot { loader: &loader, image: &image, id: &machine.id };
                Ok(disk::write(file, layout, own)?)
            })
        }
        _ => put(target, &image),
    }
}

/// Writes a container's image: the program and the settings, without what only a machine needs.
fn container(parts: &ImageParts, target: &Path) -> Result<Report> {
    let mut content = Content::of_settings(&parts.file, parts.processor)?;
    content.add("midge", Entry::Program(program(parts)?))?;
    content.add("tmp", Entry::Folder)?;
    let tree: Tree = content.into_tree();
    let start = oci::Start {
        entrypoint: &["/midge", "serve", "/etc/midge/midge.toml"],
        ports: &["8080/tcp".to_owned()],
        name: "midge",
    };
    put(target, &oci::encode(&tree, start)?)?;
    Ok(Report::default())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read `{}`", path.display()))
}

fn put(target: &Path, bytes: &[u8]) -> Result<()> {
    use std::io::Write;

    replace(target, |mut file| Ok(file.write_all(bytes)?))
}

/// Writes a file beside its place and moves it there once it is whole.
fn replace(target: &Path, write: impl FnOnce(&File) -> Result<()>) -> Result<()> {
    let shown = || format!("cannot write `{}`", target.display());
    let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty());
    let file = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(folder.unwrap_or(Path::new(".")))
        .with_context(shown)?;
    write(file.as_file()).with_context(shown)?;
    file.persist(target).map(drop).with_context(shown)
}

fn size_of(target: &Path) -> Result<u64> {
    let metadata =
        target.metadata().with_context(|| format!("cannot read `{}`", target.display()))?;
    if !metadata.is_dir() {
        return Ok(metadata.len());
    }
    let entries = fs::read_dir(target)?.map(|entry| Ok(entry?.metadata()?.len()));
    entries.sum::<Result<u64>>()
}

fn default_target(format: ImageFormat) -> PathBuf {
    match format {
        ImageFormat::Initrd => "midge.initrd",
        ImageFormat::Microvm => "midge.microvm",
        ImageFormat::Uki => "midge.efi",
        ImageFormat::Disk => "midge.img",
        ImageFormat::Iso => "midge.iso",
        ImageFormat::Oci => "midge.oci.tar",
    }
    .into()
}

const fn name_of(format: ImageFormat) -> &'static str {
    match format {
        ImageFormat::Initrd => "initrd",
        ImageFormat::Microvm => "microvm",
        ImageFormat::Uki => "uki",
        ImageFormat::Disk => "disk",
        ImageFormat::Iso => "iso",
        ImageFormat::Oci => "oci",
    }
}

fn show(args: &ImageArgs, report: Report) -> Result<()> {
    if args.json {
        return Ok(output::print_json(&report)?);
    }
    let headings = ["image", "form", "bytes", "kernel", "modules"];
    let mut table = Table::new(&headings, output::stdout_is_colourful());
    table.push(vec![
        Cell::new(report.file, Tone::Good),
        Cell::new(report.format, Tone::Plain),
        Cell::new(report.bytes.to_string(), Tone::Plain),
        Cell::new(report.kernel.as_deref().unwrap_or("-"), Tone::Plain),
        Cell::new(report.modules.len().to_string(), Tone::Plain),
    ]);
    output::print(&table.to_string())?;
    Ok(())
}
