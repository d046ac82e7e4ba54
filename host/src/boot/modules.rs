//! Drivers that the kernel has as modules, in the order that the image was made with.

use std::fs::{self, File};
use std::path::Path;

use rustix::io::Errno;
use rustix::system::finit_module;

use super::console::Console;
use super::places::{MODULES, MODULES_ORDER};

/// Most that are loaded.
const MODULES_MAX: usize = 256;

pub(super) fn load(console: &Console) {
    let root = Path::new("/");
    // A kernel that has everything built in comes without.
    let Ok(order) = fs::read_to_string(root.join(MODULES_ORDER)) else { return };
    for name in order.lines().take(MODULES_MAX) {
        let loaded = File::open(root.join(MODULES).join(format!("{name}.ko")))
            .and_then(|file| finit_module(&file, c"", 0).map_err(Into::into));
        match loaded {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(Errno::EXIST.raw_os_error()) => {}
            Err(error) => console.say(&format!("module {name} is not loaded: {error}")),
        }
    }
}
