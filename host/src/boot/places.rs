//! Where things lie in an image, without the slash in front: what writes an image and what boots it agree here.

/// This program, under the name that the kernel starts.
pub const PROGRAM: &str = "init";
/// The settings.
pub const SETTINGS: &str = "etc/midge/midge.toml";
/// Folder of what the settings name.
pub const FOLDER: &str = "etc/midge";
/// Words for the boot (`words.rs`), those of the kernel's line behind them.
pub const WORDS: &str = "etc/midge/boot";
/// Folder of drivers.
pub const MODULES: &str = "lib/midge/modules";
/// The file in it with their names, one a line, in the order of loading.
pub const MODULES_ORDER: &str = "lib/midge/modules/order";
/// Certificates of authorities, where the C library's and TLS's worlds look for them.
pub const CERTIFICATES: &str = "etc/ssl/certs/ca-certificates.crt";
/// The key that updates are signed for, if there are to be any.
pub const UPDATE_KEY: &str = "etc/midge/update.pub";
/// Where the first process takes updates: a socket.
pub const UPDATES: &str = "run/midge-updates";
