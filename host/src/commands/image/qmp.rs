//! Telling QEMU: its machine protocol, a JSON object a line (QMP).

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long QEMU may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Longest answer that is read.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// Presses the machine's power button.
///
/// # Errors
/// QEMU does not listen or does not answer.
pub(super) fn press_power(socket: &Path) -> io::Result<()> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    let mut answers = BufReader::new(stream.try_clone()?.take(ANSWER_BYTES_MAX));
    let mut line = String::new();
    answers.read_line(&mut line)?;
    for command in ["qmp_capabilities", "system_powerdown"] {
        (&stream).write_all(format!("{{\"execute\":\"{command}\"}}\n").as_bytes())?;
        line.clear();
        // Events may come first.
        while !line.contains("\"return\"") {
            line.clear();
            if answers.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
    Ok(())
}
