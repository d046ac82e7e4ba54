//! midge as the first process of a machine: nothing else runs there, so what a distribution's init does is done
//! here.
//!
//! ```text
//!   kernel -> /init (this program, process 1)
//!      | mounts, limits, modules, random bytes                      one after the other
//!      | network, in a thread of its own                            addresses may come later
//!      | starts itself as a child: `midge serve /etc/midge/midge.toml`
//!      |    child ends -> says why, starts it again, a little later each time
//!      | SIGTERM, power button -> child drains -> power off;  SIGINT (Ctrl-Alt-Del) -> restart
//! ```
//!
//! Invariants: process 1 serves nothing and reads nothing from the network but DHCP and signed images, so what goes wrong in a
//! guest or a worker ends a child. It never returns. Whatever it cannot have, it says on the console, and goes
//! on: a machine that serves without its watchdog is better than one that stands still. A mount that is there
//! already is left alone, so that in a container's namespaces nothing of the machine's is changed.
//!
//! Not here: users, logins, other services, name servers of its own.

mod chance; // random bytes and the time of day
pub mod places; // where things lie in an image
mod console; // where people look
mod data; // the partition for data
mod limits; // what the kernel allows
mod modules; // drivers
mod mounts; // file systems of the kernel's
mod network; // addresses, routes, names
mod power; // the button, the watchdog, the end
mod supervise; // the child that serves
mod update; // images that replace the one that runs
mod words; // settings of the boot, from the kernel's command line

use std::panic::{self, PanicHookInfo};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use self::console::Console;
use self::power::End;
use self::words::Words;

/// The name under which the kernel starts the first process.
const NAME: &str = "init";

/// Returns true if this is the first process of a machine: of its number, and called as the kernel calls it. In a
/// container midge may be process 1 as well, under its own name: then it serves as everywhere else.
#[must_use]
pub fn is_first() -> bool {
    let name = std::env::args_os().next();
    let is_init = name.is_some_and(|name| Path::new(&name).file_name() == Some(NAME.as_ref()));
    is_init && std::process::id() == 1
}

/// Runs the machine, until it is switched off.
pub fn run() -> ! {
    let began = Instant::now();
    let console = Arc::new(Console::first());
    never_die_in_silence(&console);
    mounts::mount_all(&console);
    let words = Words::read();
    let console = Arc::new(Console::all(words.log));
    never_die_in_silence(&console);
    for complaint in &words.complaints {
        console.say(complaint);
    }
    limits::set(&console);
    modules::load(&console);
    chance::wait(&console);
    let data = data::mount(&console, &words);
    network::start(&console, &words);
    let end = supervise::run(&console, &words, data.as_deref(), began);
    data::unmount(&console, data.as_deref());
    power::end(&console, &words, end)
}

/// A panic here would end process 1, and the kernel with it, before anybody could read why.
fn never_die_in_silence(console: &Arc<Console>) {
    let console = Arc::clone(console);
    panic::set_hook(Box::new(move |info: &PanicHookInfo<'_>| {
        console.say(&format!("a bug in process 1: {info}"));
        power::end(&console, &Words::default(), End::Restart)
    }));
}
