//! A unified kernel image: kernel, command line and initramfs as sections of one program that firmware starts
//! (the UAPI group's specification of that name). The program in front of them, the stub, is of others.
//!
//! Sections are appended to the stub's: headers into the room behind its table, contents behind its last byte,
//! addresses behind its last address. Nothing of the stub moves, so nothing in it is to be relocated.

use crate::bytes::{pad, put, u16_at, u32_at};
use crate::kernel::Kernel;

/// What an image is made of.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'a> {
    /// The stub, a PE program for x86-64 that reads the sections.
    pub stub: &'a [u8],
    /// The kernel, compressed, with a stub of its own.
    pub kernel: &'a [u8],
    /// The initramfs.
    pub initrd: &'a [u8],
    /// The kernel's command line.
    pub command_line: &'a str,
    /// What the system says of itself, as in `/etc/os-release`.
    pub release: &'a str,
}

/// Why there is no image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UkiError {
    /// The stub is another kind of file.
    #[error("the stub is no program of the firmware's for x86-64 (PE32+)")]
    Stub,
    /// Its table of sections has no room.
    #[error("the stub's table of sections has no room for {needed} more")]
    NoRoom {
        /// How many there are to be.
        needed: usize,
    },
    /// The kernel cannot be started by firmware.
    #[error("the kernel cannot be started by firmware: it is no bzImage with CONFIG_EFI_STUB")]
    Kernel,
    /// Addresses have 32 bits.
    #[error("the image is larger than 2 GiB")]
    TooLarge,
}

/// The section with the kernel's command line.
pub const COMMAND_LINE: &[u8; 8] = b".cmdline";

const SECTION_HEADER_BYTES: usize = 40;
/// Initialised data that may be read.
const READABLE_DATA: u32 = 0x4000_0040;
/// Largest image, so that no address wraps.
const IMAGE_BYTES_MAX: usize = 2 << 30;
/// Largest unit that addresses are rounded to: what linkers write is 4 KiB.
const ALIGNMENT_MAX: u32 = 1 << 20;

/// Offsets of what is read and changed in a PE file's headers (Microsoft's PE format).
struct Headers {
    coff: usize,
    optional: usize,
    table: usize,
    section_count: usize,
}

impl Headers {
    fn find(stub: &[u8]) -> Option<Self> {
        if !stub.starts_with(b"MZ") {
            return None;
        }
        let signature = usize::try_from(u32_at(stub, 0x3c)?).ok()?;
        let coff = signature.checked_add(4)?;
        let optional = coff.checked_add(20)?;
        let is_ours = stub.get(signature..)?.starts_with(b"PE\0\0")
            && u16_at(stub, coff)? == 0x8664
            && u16_at(stub, optional)? == 0x20b;
        let table = optional.checked_add(usize::from(u16_at(stub, coff + 16)?))?;
        // Up to the checksum all fields must be there.
        let is_whole = is_ours && table >= optional + 68 && stub.len() >= table;
        is_whole.then_some(Self {
            coff,
            optional,
            table,
            section_count: usize::from(u16_at(stub, coff + 2)?),
        })
    }
}

/// Returns the image.
///
/// # Errors
/// [`UkiError`].
pub fn encode(parts: &Parts<'_>) -> Result<Vec<u8>, UkiError> {
    if Kernel::of(parts.kernel) != Ok(Kernel::Compressed { has_stub: true }) {
        return Err(UkiError::Kernel);
    }
    let headers = Headers::find(parts.stub).ok_or(UkiError::Stub)?;
    let sections: [(&[u8; 8], &[u8]); 4] = [
        (b".osrel\0\0", parts.release.as_bytes()),
        (COMMAND_LINE, parts.command_line.as_bytes()),
        (b".initrd\0", parts.initrd),
        (b".linux\0\0", parts.kernel),
    ];
    let content: usize = sections.iter().map(|(_, content)| content.len()).sum();
    if parts.stub.len() + content > IMAGE_BYTES_MAX {
        return Err(UkiError::TooLarge);
    }
    let field = |offset| u32_at(parts.stub, headers.optional + offset).ok_or(UkiError::Stub);
    let unit_of = |unit: u32| (unit.is_power_of_two() && unit <= ALIGNMENT_MAX).then_some(unit);
    let section_unit = unit_of(field(32)?).ok_or(UkiError::Stub)?;
    let file_unit = unit_of(field(36)?).ok_or(UkiError::Stub)?;
    let (mut address, headers_end) = (field(56)?, field(60)?);
    let table_end = headers.table + headers.section_count * SECTION_HEADER_BYTES;
    let new_end = table_end + sections.len() * SECTION_HEADER_BYTES;
    let room = parts.stub.get(table_end..new_end).filter(|room| room.iter().all(|&byte| byte == 0));
    if room.is_none() || u32::try_from(new_end).map_or(true, |end| end > headers_end) {
        return Err(UkiError::NoRoom { needed: sections.len() });
    }

    let mut image = Vec::with_capacity(parts.stub.len() + content + (64 << 10));
    image.extend_from_slice(parts.stub);
    let mut data_bytes = 0_u32;
    for ((name, content), index) in sections.into_iter().zip(0..) {
        pad(&mut image, file_unit as usize);
        let offset = image.len();
        image.extend_from_slice(content);
        pad(&mut image, file_unit as usize);
        let number = |size: usize| u32::try_from(size).map_err(|_| UkiError::TooLarge);
        let (size, stored) = (number(content.len())?, number(image.len() - offset)?);
        address = address.checked_next_multiple_of(section_unit).ok_or(UkiError::TooLarge)?;
        let header = &mut image[table_end + index * SECTION_HEADER_BYTES..];
        put(header, 0, name);
        put(header, 8, &size.to_le_bytes());
        put(header, 12, &address.to_le_bytes());
        put(header, 16, &stored.to_le_bytes());
        put(header, 20, &number(offset)?.to_le_bytes());
        put(header, 36, &READABLE_DATA.to_le_bytes());
        address = address.checked_add(size).ok_or(UkiError::TooLarge)?;
        data_bytes = data_bytes.checked_add(stored).ok_or(UkiError::TooLarge)?;
    }
    let count =
        u16::try_from(headers.section_count + sections.len()).map_err(|_| UkiError::Stub)?;
    let size = address.checked_next_multiple_of(section_unit).ok_or(UkiError::TooLarge)?;
    put(&mut image, headers.coff + 2, &count.to_le_bytes());
    let all_data = field(8)?.wrapping_add(data_bytes);
    put(&mut image, headers.optional + 8, &all_data.to_le_bytes());
    put(&mut image, headers.optional + 56, &size.to_le_bytes());
    // A checksum of nought is not looked at; the stub's own would be wrong now.
    put(&mut image, headers.optional + 64, &[0; 4]);
    Ok(image)
}

/// Returns what a section of an image holds, as [`encode`] writes them; `None` if it has none of this name, or is no
/// image.
#[must_use]
pub fn section<'a>(image: &'a [u8], name: &[u8; 8]) -> Option<&'a [u8]> {
    let headers = Headers::find(image)?;
    let mut found = (0..headers.section_count)
        .map_while(|index| image.get(headers.table + index * SECTION_HEADER_BYTES..))
        .filter(|header| header.starts_with(name));
    let header = found.next()?;
    let field = |at| usize::try_from(u32_at(header, at)?).ok();
    let (size, stored, offset) = (field(8)?, field(16)?, field(20)?);
    image.get(offset..)?.get(..size.min(stored))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    /// A PE program with one section, and room for more.
    fn stub() -> Vec<u8> {
        let mut stub = vec![0; 0x600];
        put(&mut stub, 0, b"MZ");
        put(&mut stub, 0x3c, &0x40_u32.to_le_bytes());
        put(&mut stub, 0x40, b"PE\0\0");
        put(&mut stub, 0x44, &0x8664_u16.to_le_bytes());
        put(&mut stub, 0x46, &1_u16.to_le_bytes());
        put(&mut stub, 0x54, &240_u16.to_le_bytes());
        put(&mut stub, 0x56, &0x22_u16.to_le_bytes());
        let optional = 0x58;
        put(&mut stub, optional, &0x20b_u16.to_le_bytes());
        let fields = [(32, 0x1000), (36, 0x200), (56, 0x2000), (60, 0x400), (64, 99), (108, 16)];
        for (offset, value) in fields {
            put(&mut stub, optional + offset, &u32::to_le_bytes(value));
        }
        let section = optional + 240;
        put(&mut stub, section, b".text");
        for (offset, value) in
            [(8, 0x200), (12, 0x1000), (16, 0x200), (20, 0x400), (36, 0x6000_0020)]
        {
            put(&mut stub, section + offset, &u32::to_le_bytes(value));
        }
        stub
    }

    fn kernel() -> Vec<u8> {
        let mut kernel = vec![3; 5000];
        put(&mut kernel, 0, b"MZ");
        put(&mut kernel, 0x202, b"HdrS");
        kernel
    }

    fn parts<'a>(stub: &'a [u8], kernel: &'a [u8]) -> Parts<'a> {
        Parts { stub, kernel, initrd: &[9; 700], command_line: "quiet x=y", release: "ID=midge\n" }
    }

    #[test]
    fn objdump_and_objcopy_find_the_sections() {
        let (stub, kernel) = (stub(), kernel());
        let image = encode(&parts(&stub, &kernel)).unwrap();
        assert_eq!(image, encode(&parts(&stub, &kernel)).unwrap());
        assert_eq!(section(&image, COMMAND_LINE), Some(&b"quiet x=y"[..]));
        assert_eq!(section(&image, b".initrd\0"), Some(&[9; 700][..]));
        assert_eq!(section(&image, b".none\0\0\0"), None);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.efi");
        std::fs::write(&path, &image).unwrap();
        let Ok(listed) = Command::new("objdump").arg("-h").arg(&path).output() else { return };
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        for name in [".text", ".osrel", ".cmdline", ".initrd", ".linux"] {
            assert!(listed.contains(name), "{listed}");
        }
        for (name, content) in [(".cmdline", b"quiet x=y".as_slice()), (".linux", &kernel)] {
            let out = folder.path().join("section");
            let mut command = Command::new("objcopy");
            command.args([
                "-O",
                "binary",
                "--set-section-flags",
                &format!("{name}=alloc,load,contents"),
                "-j",
                name,
            ]);
            let output = command.arg(&path).arg(&out).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let found = std::fs::read(&out).unwrap();
            assert_eq!(&found[..content.len()], content, "{name}");
        }
    }

    #[test]
    fn what_cannot_start_is_refused() {
        let (stub, kernel) = (stub(), kernel());
        assert_eq!(encode(&parts(b"MZ", &kernel)), Err(UkiError::Stub));
        assert_eq!(encode(&parts(&stub, &stub)), Err(UkiError::Kernel));
        let mut full = stub;
        put(&mut full, 0x58 + 60, &0x180_u32.to_le_bytes());
        assert_eq!(encode(&parts(&full, &kernel)), Err(UkiError::NoRoom { needed: 4 }));
    }

    proptest! {
        #[test]
        fn damaged_stubs_are_refused_or_used(at in 0_usize..0x180, value in any::<[u8; 4]>(), cut in 0_usize..0x600) {
            let (mut stub, kernel) = (stub(), kernel());
            put(&mut stub, at, &value);
            drop(encode(&parts(&stub, &kernel)));
            drop(encode(&parts(&stub[..cut], &kernel)));
            let mut image = encode(&parts(&super::tests::stub(), &kernel)).unwrap();
            put(&mut image, at, &value);
            let _found = section(&image, COMMAND_LINE);
        }
    }
}
