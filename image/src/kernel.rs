//! What a kernel's file is: the compressed image that boot loaders take (Linux, `arch/x86/boot`), or the bare
//! program that microVMs start.

use crate::bytes::u16_at;

/// The magic number of a compressed image's header (Linux, `arch/x86/boot`).
const MAGIC: &[u8] = b"HdrS";
const MAGIC_OFFSET: usize = 0x202;
/// Where the header says where the version's text is, less 0x200.
const VERSION_OFFSET: usize = 0x20e;
/// Longest version that is read, the kernel's own limit of `uname` texts with its NUL included.
const VERSION_BYTES_MAX: usize = 65;

/// The form of a kernel's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// Compressed, with a header for boot loaders; the firmware can start it where it is a PE file as well.
    Compressed {
        /// It can be started by the firmware.
        has_stub: bool,
    },
    /// An ELF program, `vmlinux`.
    Bare,
}

/// A file is no kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is no kernel for x86-64: neither a bzImage nor a vmlinux")]
pub struct NoKernel;

impl Kernel {
    /// Looks at a file.
    ///
    /// # Errors
    /// [`NoKernel`].
    pub fn of(file: &[u8]) -> Result<Self, NoKernel> {
        if file.get(MAGIC_OFFSET..).is_some_and(|rest| rest.starts_with(MAGIC)) {
            return Ok(Self::Compressed { has_stub: file.starts_with(b"MZ") });
        }
        if file.starts_with(b"\x7fELF\x02\x01") && u16_at(file, 18) == Some(62) {
            return Ok(Self::Bare);
        }
        Err(NoKernel)
    }
}

/// Returns the version that a compressed kernel says of itself.
#[must_use]
pub fn version(file: &[u8]) -> Option<&str> {
    let offset = usize::from(u16_at(file, VERSION_OFFSET)?) + 0x200;
    let text = file.get(offset..)?;
    let end = text.iter().take(VERSION_BYTES_MAX).position(|&byte| byte == b' ' || byte == 0)?;
    str::from_utf8(&text[..end]).ok().filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_told_by_their_headers() {
        let mut file = vec![0; 0x400];
        assert_eq!(Kernel::of(&file), Err(NoKernel));
        file[MAGIC_OFFSET..][..4].copy_from_slice(MAGIC);
        assert_eq!(Kernel::of(&file), Ok(Kernel::Compressed { has_stub: false }));
        file[..2].copy_from_slice(b"MZ");
        assert_eq!(Kernel::of(&file), Ok(Kernel::Compressed { has_stub: true }));
        file[VERSION_OFFSET..][..2].copy_from_slice(&0x100_u16.to_le_bytes());
        assert_eq!(version(&file), None);
        file[0x300..][..8].copy_from_slice(b"6.12.1 (");
        assert_eq!(version(&file), Some("6.12.1"));
        assert_eq!(Kernel::of(b""), Err(NoKernel));
    }
}
