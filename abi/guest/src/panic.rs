//! A panic writes its message into the host's log and traps; the host answers with a 500.

use core::arch::wasm32;
use core::panic::PanicInfo;

use crate::log::{Level, line};

#[panic_handler]
fn panicked(info: &PanicInfo<'_>) -> ! {
    line(Level::Error, format_args!("{info}"));
    wasm32::unreachable()
}
