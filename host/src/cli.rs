//! The command line: every command with its arguments, and the help that reads like a manual page.
//!
//! A command is a variant of [`Command`]; `main` has one arm for each.

mod external; // `midge NAME` runs the program `midge-NAME`

use std::{
    ffi::OsString,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{
    ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand, parser::ValueSource,
};
use midge_abi::manifest::{CodeForm, Isolation, Metering, Traces};
use midge_loader::engine::Processor;
use midge_loader::files::{Mapping, Scratch};
use midge_net::Networks;

pub use self::external::External;
use crate::compile::Recipe;
use crate::config::{
    BuildLimits, ByteSize, ListenAddress, Listens, LogFormat, LogLevel, Origin, Overrides,
    Quantity, RingChoice, Setting, Technique, Workers, keys, scratch,
};
use crate::grant::GrantedOrigin;

const DESCRIPTION: &str = "\
Serves WebAssembly functions, each request in an instance whose state is exactly that of a fresh one.

A command that is not listed runs the program midge-COMMAND, found beside this one or on the path.";

const MANUAL: &str = "\
Examples:
  midge demo                             serves the examples; Ctrl-C ends it
  midge new --lang rust hello            a folder with a function and how to build it
  midge dev                              builds and serves it, and again with each change
  midge run hello.wasm                   one function on every path
  midge serve midge.toml                 many functions, routes, limits
  midge build hello.wasm                 makes hello.midge, ready to be mapped
  midge invoke hello.wasm --repeat 1000  one call, and what its parts cost
  midge prove hello.wasm                 a restored instance against a truly fresh one
  midge check midge.toml                 what is wrong with the settings
  midge check midge.toml --explain       every setting in force and what set it
  midge doctor                           what this machine offers, and what would better it
  midge doctor --json | jq .findings     the same for programs
  midge image --kernel vmlinuz           a disk that boots and serves midge.toml
  midge image run --kernel vmlinuz       the same in a virtual machine, at once

Exit status:
  0  done
  1  failed: the message on stderr says what, and what to do next
  2  wrong usage
  3  midge prove found a difference

Environment:
  MIDGE_LISTEN, MIDGE_ADMIN, MIDGE_WORKERS
          as the flags of these names; a flag wins over them, they win over the file
  NO_COLOR
          if set and not empty, no colours

Files:
  midge.toml
          the settings; docs/manual/configuration.md lists them";

/// The command that hosts are started with.
const SERVE: &str = "serve";

/// A host for WebAssembly functions: a pristine instance for every request
#[derive(Debug, Parser)]
#[command(name = "midge", version, long_about = DESCRIPTION, after_long_help = MANUAL)]
#[command(propagate_version = false, disable_help_subcommand = true, max_term_width = 100)]
pub struct Cli {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the examples and show what is going on: the first minute with midge
    Demo(DemoArgs),
    /// Begin a function in a language of your own
    New(NewArgs),
    /// Build and serve a folder's functions, and again with each change
    Dev(DevArgs),
    /// Serve one function on every path
    Run(RunArgs),
    /// Serve the functions of a settings file
    Serve(ServeArgs),
    /// Make an artifact: validated, pre-initialised, compiled
    Build(BuildArgs),
    /// Look into a module or an artifact
    Inspect(InspectArgs),
    /// Call a function without a network, with the time of each phase
    Invoke(InvokeArgs),
    /// Compare a technique's instances with truly fresh ones, byte by byte
    Prove(ProveArgs),
    /// Say what is wrong with a settings file, by line and column
    Check(CheckArgs),
    /// Say what this machine offers, and what would better it
    Doctor(DoctorArgs),
    /// Make an image of a machine that serves a settings file and does nothing else
    Image(ImageArgs),
    /// Compile the module on stdin within limits: what the other commands start.
    #[command(hide = true)]
    CompileChild(CompileChildArgs),
    /// A program of its own.
    #[command(external_subcommand)]
    External(Vec<OsString>),
}

/// Arguments of `midge check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The settings
    #[arg(default_value = "midge.toml")]
    pub file: PathBuf,
    /// Show every setting in force and what set it
    #[arg(long)]
    pub explain: bool,
    /// Print one JSON object, schema midge/check/1
    #[arg(long)]
    pub json: bool,
    /// What wins over the file.
    #[command(flatten)]
    pub host: HostArgs,
}

/// Arguments of `midge doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Look at the proc and sys below this folder, a copy of another machine's
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Show what a machine image sets, applied here or not, with what is known of its effect
    #[arg(long)]
    pub tuning: bool,
    /// Print one JSON object, schema midge/doctor/1
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `midge image`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
pub struct ImageArgs {
    /// What to do with the image, if not to write it.
    #[command(subcommand)]
    pub action: Option<ImageAction>,
    /// What the image is made of.
    #[command(flatten)]
    pub parts: ImageParts,
    /// The form: a disk with UEFI, an ISO, one UEFI program, kernel and initramfs for a microVM, an initramfs alone,
    /// or a container's image
    #[arg(long, value_name = "FORM", value_enum, default_value = "disk")]
    pub format: ImageFormat,
    /// The file, or for microvm the folder; otherwise midge with an ending of the form's
    #[arg(short, long, value_name = "OUT")]
    pub output: Option<PathBuf>,
    /// Size of a disk's partition for data
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "64 MiB")]
    pub data_size: ByteSize,
    /// Print one JSON object, schema midge/image/1
    #[arg(long)]
    pub json: bool,
}

/// What can be done with an image.
#[derive(Debug, Subcommand)]
pub enum ImageAction {
    /// Start it in QEMU, and tell the time to its first response
    Run(Box<ImageRunArgs>),
    /// Change from the system that runs here into it, after saying what that means
    Kexec(Box<ImageKexecArgs>),
    /// Replace the image of a machine that runs, which goes back to the old one if the new one does not serve
    Update(Box<ImageUpdateArgs>),
}

/// Arguments of `midge image update`.
#[derive(Debug, Args)]
pub struct ImageUpdateArgs {
    /// What the image is made of.
    #[command(flatten)]
    pub parts: ImageParts,
    /// The machine's admin listener, as http://192.0.2.7:8081
    #[arg(long, value_name = "ADDRESS")]
    pub to: String,
    /// The private key that the machine's image was made for, a PEM file of Ed25519
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
}

/// Arguments of `midge image kexec`.
#[derive(Debug, Args)]
pub struct ImageKexecArgs {
    /// What the image is made of.
    #[command(flatten)]
    pub parts: ImageParts,
    /// Do it: every process of this machine ends
    #[arg(long)]
    pub yes: bool,
}

/// Arguments of `midge image run`.
#[derive(Debug, Args)]
pub struct ImageRunArgs {
    /// What the image is made of.
    #[command(flatten)]
    pub parts: ImageParts,
    /// The form that is started
    #[arg(long, value_name = "FORM", value_enum, default_value = "initrd")]
    pub format: RunFormat,
    /// A disk that was made before, in place of a new image; what the machine writes to it stays
    #[arg(long, value_name = "FILE", conflicts_with_all = ["kernel", "format"])]
    pub disk: Option<PathBuf>,
    /// Who computes: KVM, QEMU itself, or KVM if it gives a response within ten seconds
    #[arg(long, value_name = "WHO", value_enum, default_value = "auto")]
    pub accel: Accelerator,
    /// The port of this machine, and that of the guest behind it; the first of several is asked for a response
    #[arg(long, value_name = "PORT:PORT", value_parser = ports, default_value = "8080:8080")]
    pub port: Vec<(u16, u16)>,
    /// The guest's memory
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "512 MiB")]
    pub memory: ByteSize,
    /// The guest's processors
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=255))]
    pub cpus: u16,
    /// The firmware of machines that start from a disk
    #[arg(long, value_name = "FILE", default_value = "/usr/share/OVMF/OVMF_CODE_4M.fd")]
    pub firmware: PathBuf,
    /// Switch it off after the first response
    #[arg(long)]
    pub once: bool,
    /// Print one JSON object with the first response, schema midge/image-run/1
    #[arg(long)]
    pub json: bool,
}

/// What an image is made of.
#[derive(Debug, Clone, Args)]
pub struct ImageParts {
    /// The settings
    #[arg(default_value = "midge.toml")]
    pub file: PathBuf,
    /// The program, static; otherwise the one that runs
    #[arg(long, value_name = "FILE")]
    pub binary: Option<PathBuf>,
    /// The kernel: bzImage, for microVMs also vmlinux
    #[arg(long, value_name = "FILE")]
    pub kernel: Option<PathBuf>,
    /// The folder of its modules; otherwise ../lib/modules/VERSION beside the kernel, if that is there
    #[arg(long, value_name = "DIR")]
    pub modules: Option<PathBuf>,
    /// A module that is loaded, besides those of virtual machines; may be given several times
    #[arg(long = "module", value_name = "NAME")]
    pub wanted: Vec<String>,
    /// The program that firmware starts, from systemd-boot
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub"
    )]
    pub stub: PathBuf,
    /// The boot loader of disks, systemd-boot
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/usr/lib/systemd/boot/efi/systemd-bootx64.efi"
    )]
    pub loader: PathBuf,
    /// The public key of who may update the machine, a PEM file of Ed25519
    #[arg(long, value_name = "FILE")]
    pub update_key: Option<PathBuf>,
    /// The release of this image: a machine takes no update of a lower one
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub release: u64,
    /// Words for the kernel's command line, as midge.ip=10.0.0.2/24,10.0.0.1
    #[arg(long, value_name = "WORDS", default_value = "", allow_hyphen_values = true)]
    pub append: String,
    /// The processors that code is for; otherwise what the settings say, or x86-64-v3
    #[arg(long, value_name = "LEVEL", value_parser = processor)]
    pub processor: Option<Processor>,
    /// How the initramfs is made smaller
    #[arg(long, value_name = "HOW", value_enum)]
    pub compress: Option<InitrdCompression>,
}

/// The form of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ImageFormat {
    /// An initramfs
    Initrd,
    /// A folder with kernel, initramfs, command line, and settings of Firecracker
    Microvm,
    /// A unified kernel image
    Uki,
    /// A disk with partitions for it and for data
    Disk,
    /// A CD, or a USB stick
    Iso,
    /// An archive of a container's image
    Oci,
}

/// A form that can be started here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum RunFormat {
    /// Kernel and initramfs on a PC
    Initrd,
    /// Kernel and initramfs on a machine without PCI and ACPI
    Microvm,
    /// A disk, by its firmware
    Disk,
    /// A CD, by its firmware
    Iso,
}

/// Who computes for a virtual machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Accelerator {
    /// The first that gives a response
    Auto,
    /// The processor
    Kvm,
    /// QEMU
    Tcg,
}

/// How an initramfs is made smaller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum InitrdCompression {
    /// Not at all
    None,
    /// By zstd
    Zstd,
}

/// Arguments of `midge demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Print one JSON object when ready, schema midge/serve/1
    #[arg(long)]
    pub json: bool,
    /// What wins over the defaults.
    #[command(flatten)]
    pub host: HostArgs,
}

/// Arguments of `midge new`.
#[derive(Debug, Args)]
pub struct NewArgs {
    /// The folder to make; its name becomes the function's
    pub folder: PathBuf,
    /// The language
    #[arg(long, value_name = "LANGUAGE", value_enum)]
    pub lang: Language,
    /// Print one JSON object, schema midge/new/1
    #[arg(long)]
    pub json: bool,
}

/// A language that `midge new` knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Language {
    /// A component of wasi:http
    Rust,
    /// A function in the contract, with its header alone
    C,
    /// A program in the way of CGI
    Zig,
    /// A program in the way of CGI, with net/http
    Go,
    /// A component of wasi:http
    Js,
    /// A component of wasi:http
    Python,
    /// A function in the contract
    Assemblyscript,
}

/// Arguments of `midge dev`.
#[derive(Debug, Args)]
pub struct DevArgs {
    /// The folder with midge.toml and the sources
    #[arg(default_value = ".")]
    pub folder: PathBuf,
    /// The command that builds; otherwise make, where there is a Makefile
    #[arg(long, value_name = "COMMAND")]
    pub build: Option<String>,
    /// Print one JSON object when ready, schema midge/serve/1
    #[arg(long)]
    pub json: bool,
    /// What wins over the file.
    #[command(flatten)]
    pub host: HostArgs,
}

/// Arguments of `midge run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The function: .wasm, .wat or artifact; it answers every path
    pub file: PathBuf,
    /// How instances are made pristine
    #[arg(long, value_name = "NAME", value_parser = technique, default_value = "auto")]
    pub technique: Technique,
    /// How its code is made.
    #[command(flatten)]
    pub form: FormArgs,
    /// Instructions that a call may run, with --metering fuel
    #[arg(long, value_name = "COUNT", default_value_t = keys::FUEL.default, value_parser = clap::value_parser!(u32).range(i64::from(keys::FUEL.minimum)..))]
    pub fuel: u32,
    /// A server that the function may ask, as http(s)://HOST[:PORT]; may be given several times
    #[arg(long, value_name = "ORIGIN")]
    pub grant_http: Vec<GrantedOrigin>,
    /// A network that names of these may lead to, besides public addresses; may be given several times
    #[arg(long, value_name = "NETWORK", value_parser = network)]
    pub grant_network: Vec<String>,
    /// Its files.
    #[command(flatten)]
    pub files: FilesArgs,
    /// Print one JSON object when ready, schema midge/serve/1
    #[arg(long)]
    pub json: bool,
    /// What wins over the defaults.
    #[command(flatten)]
    pub host: HostArgs,
}

/// Arguments of `midge serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// The settings
    #[arg(default_value = "midge.toml")]
    pub file: PathBuf,
    /// Print one JSON object when ready, schema midge/serve/1
    #[arg(long)]
    pub json: bool,
    /// What wins over the file.
    #[command(flatten)]
    pub host: HostArgs,
}

/// Arguments of `midge build`.
#[derive(Debug, Args)]
pub struct BuildArgs {
    /// The module: .wasm or .wat
    pub file: PathBuf,
    /// The artifact; otherwise the module's name with .midge
    #[arg(short, long, value_name = "OUT")]
    pub output: Option<PathBuf>,
    /// How its code is made.
    #[command(flatten)]
    pub form: FormArgs,
    /// Its files.
    #[command(flatten)]
    pub files: FilesArgs,
    /// Print one JSON object, schema midge/build/1
    #[arg(long)]
    pub json: bool,
    /// What compiling may take.
    #[command(flatten)]
    pub limits: BuildLimitArgs,
}

/// Arguments of `midge inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// The artifact or module
    pub file: PathBuf,
    /// Print one JSON object, schema midge/inspect/1
    #[arg(long)]
    pub json: bool,
    /// What compiling may take.
    #[command(flatten)]
    pub limits: BuildLimitArgs,
}

/// Arguments of `midge invoke`.
#[derive(Debug, Args)]
pub struct InvokeArgs {
    /// The function: .wasm, .wat or artifact
    pub file: PathBuf,
    /// The body: a text, @FILE, or - for stdin
    #[arg(long, value_name = "TEXT|@FILE|-", allow_hyphen_values = true)]
    pub data: Option<BodySource>,
    /// The method; otherwise GET, or POST with --data
    #[arg(long)]
    pub method: Option<String>,
    /// The path, with its query
    #[arg(long, default_value = "/", value_parser = path)]
    pub path: String,
    /// A header; may be given several times
    #[arg(long, value_name = "NAME: VALUE", value_parser = header)]
    pub header: Vec<(String, String)>,
    /// A field behind the body; may be given several times
    #[arg(long, value_name = "NAME: VALUE", value_parser = trailer)]
    pub trailer: Vec<(String, String)>,
    /// An argument of a program; may be given several times
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub argument: Vec<String>,
    /// A variable of a program's environment; may be given several times
    #[arg(long = "env", value_name = "NAME=VALUE", value_parser = variable)]
    pub environment: Vec<String>,
    /// How the instance is made pristine
    #[arg(long, value_name = "NAME", value_parser = technique, default_value = "auto")]
    pub technique: Technique,
    /// How its code is made.
    #[command(flatten)]
    pub form: FormArgs,
    /// Instructions that a call may run, with --metering fuel
    #[arg(long, value_name = "COUNT", default_value_t = keys::FUEL.default, value_parser = clap::value_parser!(u32).range(i64::from(keys::FUEL.minimum)..))]
    pub fuel: u32,
    /// How many calls
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(REPEAT_MAX)))]
    pub repeat: u32,
    /// Its files.
    #[command(flatten)]
    pub files: FilesArgs,
    /// Print one JSON object, schema midge/invoke/1
    #[arg(long)]
    pub json: bool,
    /// What compiling may take.
    #[command(flatten)]
    pub limits: BuildLimitArgs,
}

/// How a module's code is made.
#[derive(Debug, Clone, Copy, Args)]
pub struct FormArgs {
    /// What keeps the guest inside its memory: guard-pages or bounds-checked
    #[arg(long, value_name = "NAME", value_parser = isolation, default_value = "guard-pages")]
    pub isolation: Isolation,
    /// What bounds a call: epochs, which are time, or fuel, which is instructions
    #[arg(long, value_name = "NAME", value_parser = metering, default_value = "epochs")]
    pub metering: Metering,
    /// Keep lines of the source, told by traps; the module needs DWARF (-g)
    #[arg(long)]
    pub lines: bool,
}

impl FormArgs {
    /// Returns the form.
    #[must_use]
    pub const fn form(self) -> CodeForm {
        let traces = if self.lines { Traces::Lines } else { Traces::Functions };
        CodeForm { isolation: self.isolation, metering: self.metering, traces }
    }
}

/// What compiling a module may take.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Settings")]
pub struct BuildLimitArgs {
    /// Memory for compiling a module
    #[arg(long, value_name = "SIZE", value_parser = build_memory)]
    pub build_memory: Option<ByteSize>,
    /// Time for compiling a module
    #[arg(long, value_name = "DURATION", value_parser = build_time)]
    pub build_time: Option<Duration>,
    /// The processors that code is for: native, x86-64-v2 or x86-64-v3
    #[arg(long, value_name = "LEVEL", value_parser = processor)]
    pub build_processor: Option<Processor>,
}

/// Arguments of `midge compile-child`: what its parent tells it.
#[derive(Debug, Args)]
pub struct CompileChildArgs {
    /// Name of the module, for its artifact
    pub name: String,
    /// Most bytes of memory
    #[arg(long)]
    pub memory_bytes: u64,
    /// Most seconds of CPU time
    #[arg(long)]
    pub cpu_seconds: u64,
    /// How its code is made.
    #[command(flatten)]
    pub form: FormArgs,
    /// The processors that code is for
    #[arg(long, value_parser = processor)]
    pub processor: Processor,
    /// Size of the bundle of files that comes before the module
    #[arg(long)]
    pub files_bytes: u64,
}

/// Files for a program or a component of WASI.
#[derive(Debug, Clone, Args)]
pub struct FilesArgs {
    /// Files for a WASI program or component, and their path there; may be given several times
    #[arg(long, value_name = "DIR[:PATH]")]
    pub files: Vec<Mapping>,
    /// A folder in memory that it may write to, empty for each request; its path is /tmp if none is given
    #[arg(long, value_name = "SIZE[:PATH]", value_parser = scratch)]
    pub scratch: Option<Scratch>,
}

impl FilesArgs {
    /// Returns what an artifact is made of.
    #[must_use]
    pub fn recipe<'a>(&'a self, module: &'a Path, form: CodeForm) -> Recipe<'a> {
        Recipe { module, form, files: &self.files, scratch: self.scratch.as_ref() }
    }
}

/// Arguments of `midge prove`.
#[derive(Debug, Args)]
pub struct ProveArgs {
    /// The function: .wasm, .wat or artifact
    pub file: PathBuf,
    /// A folder of files with one raw HTTP/1.1 request each, sent in the order of their names
    #[arg(long, value_name = "DIR")]
    pub requests: Option<PathBuf>,
    /// How many requests are generated
    #[arg(long, value_name = "COUNT", default_value_t = ROUNDS_DEFAULT, value_parser = clap::value_parser!(u64).range(0..=ROUNDS_MAX))]
    pub rounds: u64,
    /// The technique that is tried
    #[arg(long, value_name = "NAME", value_parser = technique, default_value = "auto")]
    pub technique: Technique,
    /// What requests, clock and chance are drawn from; otherwise drawn, and printed
    #[arg(long, value_name = "NUMBER")]
    pub seed: Option<u64>,
    /// Its files.
    #[command(flatten)]
    pub files: FilesArgs,
    /// Print one JSON object, schema midge/prove/1
    #[arg(long)]
    pub json: bool,
    /// What compiling may take.
    #[command(flatten)]
    pub limits: BuildLimitArgs,
}

/// Requests that `midge prove` generates if not told otherwise: a few seconds for a large guest.
pub const ROUNDS_DEFAULT: u64 = 200;
/// The most requests that one `midge prove` generates.
pub const ROUNDS_MAX: u64 = 100_000_000;

/// The most calls of one `midge invoke`; longer series belong into the lab.
pub const REPEAT_MAX: u32 = 10_000_000;

/// Where a body comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BodySource {
    /// The argument itself.
    Text(String),
    /// A file.
    File(PathBuf),
    /// Stdin.
    Stdin,
}

/// Settings that may be given on the command line or in the environment.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Settings")]
pub struct HostArgs {
    /// Where functions are served
    ///
    /// ADDRESS:PORT, unix:PATH, or systemd or systemd:NAME for sockets that the service manager made; several
    /// with a comma between them
    #[arg(
        long,
        value_name = "WHERE",
        env = "MIDGE_LISTEN",
        hide_env_values = true,
        value_delimiter = ','
    )]
    pub listen: Option<Vec<ListenAddress>>,
    /// Where health and metrics are served
    #[arg(long, value_name = "ADDRESS:PORT", env = "MIDGE_ADMIN", hide_env_values = true)]
    pub admin: Option<SocketAddr>,
    /// Worker threads: auto, a count, or CPUs as 1-7,9
    #[arg(
        long,
        value_name = "WORKERS",
        env = "MIDGE_WORKERS",
        hide_env_values = true,
        value_parser = Workers::parse
    )]
    pub workers: Option<Workers>,
    /// The way to the kernel: the best there is, io_uring of Linux 6.1, 6.0 or 5.19, or epoll
    #[arg(long, value_name = "TIER", env = "MIDGE_RING_TIER", hide_env_values = true, value_enum)]
    pub ring_tier: Option<RingChoice>,
    /// The least grave message that is logged
    #[arg(long, value_name = "LEVEL", value_enum, hide_possible_values = false)]
    pub log_level: Option<LogLevel>,
    /// Lines for people, or JSON objects
    #[arg(long, value_name = "FORMAT", value_enum)]
    pub log_format: Option<LogFormat>,
    /// What compiling may take.
    #[command(flatten)]
    pub build: BuildLimitArgs,
}

impl Cli {
    /// Reads the command line. The matches tell flags from environment: see [`HostArgs::overrides`].
    ///
    /// # Errors
    /// Wrong usage, or a request for help or version: clap's error knows its text and exit status.
    pub fn read(
        arguments: impl IntoIterator<Item = OsString>,
    ) -> Result<(Self, ArgMatches), clap::Error> {
        let arguments: Vec<OsString> = arguments.into_iter().collect();
        if let Some(read) = Self::read_serve(&arguments) {
            return Ok(read);
        }
        let mut command = Self::command();
        let matches = command.try_get_matches_from_mut(arguments)?;
        let cli = Self::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
        Ok((cli, matches))
    }

    /// Reads the command that hosts are started with, and makes none of the others for that: they would be a fifth of
    /// the start. What is not in order is left to the whole command line, which has help and what may be meant.
    fn read_serve(arguments: &[OsString]) -> Option<(Self, ArgMatches)> {
        if arguments.get(1)? != SERVE {
            return None;
        }
        let serve = ServeArgs::augment_args(clap::Command::new(SERVE));
        let program = clap::Command::new("midge").subcommand(serve);
        let matches = program.try_get_matches_from(arguments).ok()?;
        let (_, own) = matches.subcommand()?;
        let args = ServeArgs::from_arg_matches(own).ok()?;
        Some((Self { command: Command::Serve(args) }, matches))
    }
}

impl HostArgs {
    /// Returns what was given, with its origin. `matches` are those of the program: the command's are in them.
    #[must_use]
    pub fn overrides(&self, matches: &ArgMatches) -> Overrides {
        let own = matches.subcommand().map_or(matches, |(_, own)| own);
        let Self { listen, admin, workers, ring_tier, log_level, log_format, build } = self.clone();
        let BuildLimitArgs { build_memory, build_time, build_processor } = build;
        Overrides {
            listen: given(own, "listen", "--listen", "MIDGE_LISTEN", listen.map(Listens::from)),
            admin: given(own, "admin", "--admin", "MIDGE_ADMIN", admin),
            workers: given(own, "workers", "--workers", "MIDGE_WORKERS", workers),
            ring_tier: given(own, "ring_tier", "--ring-tier", "MIDGE_RING_TIER", ring_tier),
            build_memory: given(own, "build_memory", BUILD_MEMORY, "", build_memory),
            build_time: given(own, "build_time", BUILD_TIME, "", build_time),
            build_processor: given(own, "build_processor", BUILD_PROCESSOR, "", build_processor),
            log_level: given(own, "log_level", "--log-level", "", log_level),
            log_format: given(own, "log_format", "--log-format", "", log_format),
        }
    }
}

impl BuildLimitArgs {
    /// Returns the limits of a command without a settings file.
    #[must_use]
    pub fn limits(&self) -> BuildLimits {
        fn set<T>(given: Option<T>, flag: &'static str, default: T) -> Setting<T> {
            given.map_or(Setting::default(default), |value| Setting {
                value,
                origin: Origin::Flag(flag),
            })
        }
        BuildLimits {
            memory: set(self.build_memory, BUILD_MEMORY, keys::BUILD_MEMORY_DEFAULT),
            time: set(self.build_time, BUILD_TIME, keys::BUILD_TIME_DEFAULT),
            processor: set(self.build_processor, BUILD_PROCESSOR, Processor::Native),
        }
    }
}

const BUILD_MEMORY: &str = "--build-memory";
const BUILD_TIME: &str = "--build-time";
const BUILD_PROCESSOR: &str = "--build-processor";

fn variable(text: &str) -> Result<String, String> {
    if crate::extras::is_variable(text) {
        return Ok(text.to_owned());
    }
    Err("expected NAME=VALUE".to_owned())
}

fn network(text: &str) -> Result<String, String> {
    let read = Networks::parse([text]).map_err(|error| error.to_string());
    read.map(|_| text.to_owned())
}

fn size(text: &str) -> Result<ByteSize, String> {
    ByteSize::parse(text).map_err(|error| error.to_string())
}

fn ports(text: &str) -> Result<(u16, u16), String> {
    let read = text
        .split_once(':')
        .and_then(|(own, guest)| Some((own.parse().ok()?, guest.parse().ok()?)));
    read.ok_or_else(|| "expected two numbers, as 8080:80".to_owned())
}

fn build_memory(text: &str) -> Result<ByteSize, String> {
    keys::BUILD_MEMORY.read(text)
}

fn build_time(text: &str) -> Result<Duration, String> {
    keys::BUILD_TIME.read(text)
}

fn given<T>(
    matches: &ArgMatches,
    id: &str,
    flag: &'static str,
    variable: &'static str,
    value: Option<T>,
) -> Option<Setting<T>> {
    let origin = match matches.value_source(id) {
        Some(ValueSource::EnvVariable) => Origin::Environment(variable),
        _ => Origin::Flag(flag),
    };
    value.map(|value| Setting { value, origin })
}

impl From<&str> for BodySource {
    fn from(text: &str) -> Self {
        match (text, text.strip_prefix('@')) {
            ("-", _) => Self::Stdin,
            (_, Some(path)) => Self::File(path.into()),
            (_, None) => Self::Text(text.into()),
        }
    }
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("a header is written `name: value`")?;
    if name.is_empty() || name.contains(char::is_whitespace) {
        return Err(format!("`{name}` is no name of a header"));
    }
    Ok((name.to_ascii_lowercase(), value.trim().to_owned()))
}

fn trailer(text: &str) -> Result<(String, String), String> {
    let (name, value) = header(text)?;
    if midge_net::http::trailers::may_be_trailer(name.as_bytes()) {
        Ok((name, value))
    } else {
        Err(format!("`{name}` may not stand behind a body: it belongs into the head"))
    }
}

fn path(text: &str) -> Result<String, String> {
    if text.starts_with('/') {
        Ok(text.to_owned())
    } else {
        Err("a path starts with a slash".into())
    }
}

fn processor(name: &str) -> Result<Processor, String> {
    let names = Processor::ALL.map(Processor::name).join(" ");
    Processor::from_name(name).ok_or_else(|| format!("processors are: {names}"))
}

fn metering(name: &str) -> Result<Metering, String> {
    let names = Metering::ALL.map(Metering::name).join(" ");
    Metering::from_name(name).ok_or_else(|| format!("meterings are: {names}"))
}

fn isolation(name: &str) -> Result<Isolation, String> {
    let names = Isolation::ALL.map(Isolation::name).join(" ");
    Isolation::from_name(name).ok_or_else(|| format!("isolations are: {names}"))
}

fn technique(name: &str) -> Result<Technique, String> {
    let names = Technique::ALL.map(Technique::name).join(" ");
    Technique::from_name(name).ok_or_else(|| format!("techniques are: {names}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads arguments of one command.
    fn read<T: Args + FromArgMatches>(arguments: &[&str]) -> Result<(T, ArgMatches), clap::Error> {
        let command = T::augment_args(clap::Command::new("test"));
        command.clone().debug_assert();
        let all = ["test"].iter().chain(arguments);
        let matches = command.try_get_matches_from(all)?;
        Ok((T::from_arg_matches(&matches)?, matches))
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn serve_is_read_alone_as_with_all_others() {
        let whole = |arguments: &[OsString]| {
            let matches = Cli::command().try_get_matches_from(arguments).ok()?;
            Some((Cli::from_arg_matches(&matches).ok()?, matches))
        };
        for (arguments, is_taken) in [
            (&["midge", "serve"][..], true),
            (&["midge", "serve", "a.toml", "--json", "--workers", "1-2"], true),
            (&["midge", "serve", "--listen=0.0.0.0:80", "--log-level", "warn", "--", "b"], true),
            // A fault, help, and another command.
            (&["midge", "serve", "--workers", "many"], false),
            (&["midge", "serve", "--help"], false),
            (&["midge", "check"], false),
            (&["midge"], false),
        ] {
            let arguments: Vec<OsString> = arguments.iter().map(Into::into).collect();
            let read = Cli::read_serve(&arguments);
            assert_eq!(read.is_some(), is_taken, "{arguments:?}");
            if let Some((cli, matches)) = read {
                let shown = |cli: &Cli, matches: &ArgMatches| {
                    let Command::Serve(args) = &cli.command else { panic!("{cli:?}") };
                    let overrides = args.host.overrides(matches);
                    format!("{args:?} {overrides:?}")
                };
                let (expected, of_all) = whole(&arguments).unwrap();
                assert_eq!(shown(&cli, &matches), shown(&expected, &of_all));
            }
        }
    }

    #[test]
    fn flags_become_overrides_with_their_origin() {
        let (args, matches) =
            read::<ServeArgs>(&["--listen", "0.0.0.0:80", "--workers", "1-2"]).unwrap();
        let overrides = args.host.overrides(&matches);
        let listen = overrides.listen.unwrap();
        assert_eq!(listen.origin, Origin::Flag("--listen"));
        assert_eq!(overrides.workers.unwrap().value, Workers::Cpus(vec![1, 2]));
        assert_eq!(overrides.log_level, None);
        assert_eq!(args.file, PathBuf::from("midge.toml"));
    }

    #[test]
    fn wrong_values_are_refused() {
        assert!(read::<RunArgs>(&["a.wasm", "--workers", "many"]).is_err());
        assert!(read::<RunArgs>(&["a.wasm", "--listen", "here"]).is_err());
        assert!(read::<RunArgs>(&[]).is_err());
        assert!(read::<InvokeArgs>(&["a.wasm", "--technique", "magic"]).is_err());
        assert!(read::<InvokeArgs>(&["a.wasm", "--repeat", "0"]).is_err());
        assert!(read::<InvokeArgs>(&["a.wasm", "--header", "nothing"]).is_err());
        assert!(read::<InvokeArgs>(&["a.wasm", "--trailer", "content-length: 5"]).is_err());
        assert!(read::<InvokeArgs>(&["a.wasm", "--path", "hello"]).is_err());
    }

    #[test]
    fn bodies_come_from_text_file_or_stdin() {
        for (text, expected) in [
            ("-", BodySource::Stdin),
            ("@a.json", BodySource::File("a.json".into())),
            ("{}", BodySource::Text("{}".into())),
        ] {
            let (args, _) = read::<InvokeArgs>(&["a.wasm", "--data", text]).unwrap();
            assert_eq!(args.data, Some(expected));
        }
    }

    #[test]
    fn headers_and_techniques_are_read() {
        let arguments =
            ["a.wasm", "--header", "Accept: x", "--header", "B:", "--technique", "pool-scan"];
        let (args, _) = read::<InvokeArgs>(&arguments).unwrap();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(args.header, [pair("accept", "x"), pair("b", "")]);
        assert_eq!(args.technique, Technique::PoolScan);
    }

    #[test]
    fn other_commands_arguments_are_read() {
        let (build, _) = read::<BuildArgs>(&["a.wat", "-o", "b.midge"]).unwrap();
        assert_eq!(build.output, Some("b.midge".into()));
        assert!(read::<InspectArgs>(&["a.midge", "--json"]).unwrap().0.json);
        assert!(read::<DemoArgs>(&["--json"]).unwrap().0.json);
    }
}
