//! What an artifact says about itself: one postcard record behind a version.
//!
//! ```text
//!   major: u16 | minor: u16 | postcard of Manifest
//! ```
//!
//! Forward rules. A new field is appended at the end of [`Manifest`] and raises `minor`: an older host
//! reads the fields it knows and ignores what follows. A change of any other kind raises `major`: an older
//! host refuses. A newer host reads an older `minor` by giving the fields it lacks their defaults, in
//! `decode`. Postcard is not self-describing, so the order of fields is part of the format.

use serde::{Deserialize, Serialize};

/// Changes that an older host cannot read.
pub const MAJOR: u16 = 1;
/// Fields appended since `MAJOR` began.
pub const MINOR: u16 = 5;
/// The longest manifest that is read.
pub const MANIFEST_BYTES_MAX: usize = 1024 * 1024;

/// A function as the builder found it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Name of the file that was built, without its folder.
    pub source_name: String,
    /// BLAKE3 of the module as it was given.
    pub source_hash: [u8; 32],
    /// Version of the contract that the guest speaks.
    pub contract: u16,
    /// Address of the request area.
    pub area: u32,
    /// Its size.
    pub area_size: u32,
    /// The linear memories, in index order.
    pub memories: Vec<MemoryRow>,
    /// The mutable globals, in index order, with their values in the template.
    pub globals: Vec<GlobalRow>,
    /// Classes of state that the module can change.
    pub state: StateClasses,
    /// True if the start function and `_initialize` ran when the artifact was built.
    pub is_preinitialised: bool,
    /// Names of the imported functions, `module.name`.
    pub imports: Vec<String>,
    /// Names of the exports, with their kinds, of the module as it was given.
    pub exports: Vec<ExportRow>,
    /// Number of tables.
    pub table_count: u32,
    /// The engine that made the code, for people; the header's identity decides.
    pub engine_name: String,
    /// The machine that the code was made for, for people.
    pub machine: String,
    /// What keeps the guest inside its memory.
    pub isolation: Isolation,
    /// Files for a WASI program or a component (since minor 1; encoded behind all others).
    #[serde(skip)]
    pub files: Option<FilesRow>,
    /// What bounds a call (since minor 2; encoded behind the files).
    #[serde(skip)]
    pub metering: Metering,
    /// The folder in memory of a WASI program or a component (since minor 3; encoded behind that).
    #[serde(skip)]
    pub scratch: Option<ScratchRow>,
    /// Why the engine's component runtime runs it, and it is not linked; nothing for what is a core module (since
    /// minor 4; encoded behind that).
    #[serde(skip)]
    pub unlinked: Option<String>,
    /// What its traps tell (since minor 5; encoded last).
    #[serde(skip)]
    pub traces: Traces,
}

/// How a module's code is made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct CodeForm {
    /// What keeps the guest inside its memory.
    pub isolation: Isolation,
    /// What bounds a call.
    pub metering: Metering,
    /// What its traps tell.
    pub traces: Traces,
}

impl CodeForm {
    /// The form that code has if nothing is asked for.
    pub const PLAIN: Self = Self {
        isolation: Isolation::GuardPages,
        metering: Metering::Epochs,
        traces: Traces::Functions,
    };

    /// True if techniques without templates cannot run it.
    #[must_use]
    pub const fn needs_template(self) -> bool {
        matches!(self.isolation, Isolation::BoundsChecked)
            || matches!(self.metering, Metering::Fuel)
    }
}

/// What a trap tells of each function that led to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Traces {
    /// Its name.
    #[default]
    Functions,
    /// Its name, file and line: the artifact has a table of them, and a map from its code to the module's.
    Lines,
}

/// What bounds how much a call computes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Metering {
    /// Time: loops and functions compare a counter that a clock moves.
    #[default]
    Epochs,
    /// Instructions: the code counts what it runs, so a call ends at the same one each time.
    Fuel,
}

impl Metering {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Epochs, Self::Fuel];

    /// Returns the name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Epochs => "epochs",
            Self::Fuel => "fuel",
        }
    }

    /// Returns the metering of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|metering| metering.name() == name)
    }
}

impl std::fmt::Display for Metering {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.pad(self.name())
    }
}

/// A bundle of files, in the first memory and behind everything that the module knows there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilesRow {
    /// Its first byte.
    pub start: u64,
    /// Its size.
    pub bytes: u64,
    /// The folders in it.
    pub folders: Vec<FolderRow>,
}

/// A folder of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FolderRow {
    /// The path by which the guest knows it.
    pub guest: String,
    /// Folders, files and links in it.
    pub entries: u32,
    /// Bytes of all files.
    pub bytes: u64,
}

/// A folder in memory, in which a guest may write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScratchRow {
    /// The path by which the guest knows it.
    pub guest: String,
    /// The most that it may take.
    pub bytes: u64,
}

/// What keeps a guest inside its memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Isolation {
    /// Addresses of 32 bits inside a reservation of 4 GiB: nothing is compared, and speculation may read what
    /// lies beyond.
    #[default]
    GuardPages,
    /// Every access is compared with the memory's size, and a wrong guess of the comparison reads address 0 of
    /// the memory (the compiler's mitigation of Spectre).
    BoundsChecked,
}

impl Isolation {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::GuardPages, Self::BoundsChecked];

    /// Returns the name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::GuardPages => "guard-pages",
            Self::BoundsChecked => "bounds-checked",
        }
    }

    /// Returns the isolation of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|isolation| isolation.name() == name)
    }
}

impl std::fmt::Display for Isolation {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.pad(self.name())
    }
}

/// One linear memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryRow {
    /// Size in the template, in bytes.
    pub bytes: u64,
    /// The module's own maximum, in bytes.
    pub bytes_max: Option<u64>,
    /// First byte of the stored image; pages before it are zero in the template.
    pub image_start: u64,
    /// Size of the stored image; pages behind it are zero in the template.
    pub image_bytes: u64,
}

/// One mutable global.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GlobalRow {
    /// Its index in the module.
    pub index: u32,
    /// Its name in the name section or among the exports, if it has one.
    pub name: Option<String>,
    /// Its value in the template.
    pub value: GlobalValue,
}

/// A global's value. Floats are kept as bits: a NaN's payload is state too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum GlobalValue {
    /// 32-bit integer.
    I32(i32),
    /// 64-bit integer.
    I64(i64),
    /// Bits of a 32-bit float.
    F32(u32),
    /// Bits of a 64-bit float.
    F64(u64),
    /// 128-bit vector.
    V128(u128),
    /// A function reference: null, or one whose function is only known in an instance.
    FuncRef {
        /// True for null.
        is_null: bool,
    },
}

/// What of an instance's state a module's code can change, read off its instructions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateClasses {
    /// Bytes of a memory.
    pub memory: bool,
    /// `memory.grow` occurs.
    pub memory_growth: bool,
    /// Mutable globals exist.
    pub globals: bool,
    /// `table.set`, `table.fill`, `table.copy` or `table.init` occurs.
    pub tables: bool,
    /// `table.grow` occurs.
    pub table_growth: bool,
    /// `data.drop` occurs.
    pub data_drop: bool,
    /// `elem.drop` occurs.
    pub elem_drop: bool,
}

/// One export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportRow {
    /// Its name.
    pub name: String,
    /// `func`, `memory`, `table` or `global`.
    pub kind: String,
}

/// Why a manifest is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ManifestError {
    /// Written by a newer host.
    #[error("manifest has schema {found_major}.{found_minor}, this host reads {MAJOR}.x")]
    Version {
        /// Its major number.
        found_major: u16,
        /// Its minor number.
        found_minor: u16,
    },
    /// Too long, or not long enough for its version.
    #[error("manifest has {found_bytes} bytes, expected 4 to {MANIFEST_BYTES_MAX}")]
    Size {
        /// Its size.
        found_bytes: usize,
    },
    /// Not a manifest.
    #[error("manifest cannot be decoded")]
    Decode(#[source] postcard::Error),
    /// Bytes behind the last field although no newer minor was written.
    #[error("manifest has {extra_bytes} bytes behind its last field")]
    Trailing {
        /// How many.
        extra_bytes: usize,
    },
}

impl Manifest {
    /// Returns how its code was made.
    #[must_use]
    pub const fn form(&self) -> CodeForm {
        CodeForm { isolation: self.isolation, metering: self.metering, traces: self.traces }
    }

    /// Encodes the manifest behind its version.
    ///
    /// # Panics
    /// Never on a manifest that fits memory: encoding into a vector has no other failure.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(&MAJOR.to_le_bytes());
        bytes.extend_from_slice(&MINOR.to_le_bytes());
        let bytes = postcard::to_extend(self, bytes).expect("a vector takes what it is given");
        let bytes =
            postcard::to_extend(&self.files, bytes).expect("a vector takes what it is given");
        let bytes =
            postcard::to_extend(&self.metering, bytes).expect("a vector takes what it is given");
        let bytes =
            postcard::to_extend(&self.scratch, bytes).expect("a vector takes what it is given");
        let bytes =
            postcard::to_extend(&self.unlinked, bytes).expect("a vector takes what it is given");
        postcard::to_extend(&self.traces, bytes).expect("a vector takes what it is given")
    }

    /// Decodes a manifest, by the forward rules above.
    ///
    /// # Errors
    /// [`ManifestError`] says what is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        let found_bytes = bytes.len();
        if found_bytes > MANIFEST_BYTES_MAX {
            return Err(ManifestError::Size { found_bytes });
        }
        let Some((&[a, b, c, d], record)) = bytes.split_first_chunk() else {
            return Err(ManifestError::Size { found_bytes });
        };
        let found_major = u16::from_le_bytes([a, b]);
        let found_minor = u16::from_le_bytes([c, d]);
        if found_major != MAJOR {
            return Err(ManifestError::Version { found_major, found_minor });
        }
        let decode = ManifestError::Decode;
        let (mut manifest, mut rest): (Self, _) =
            postcard::take_from_bytes(record).map_err(decode)?;
        if 1 <= found_minor {
            (manifest.files, rest) = postcard::take_from_bytes(rest).map_err(decode)?;
        }
        if 2 <= found_minor {
            (manifest.metering, rest) = postcard::take_from_bytes(rest).map_err(decode)?;
        }
        if 3 <= found_minor {
            (manifest.scratch, rest) = postcard::take_from_bytes(rest).map_err(decode)?;
        }
        if 4 <= found_minor {
            (manifest.unlinked, rest) = postcard::take_from_bytes(rest).map_err(decode)?;
        }
        if 5 <= found_minor {
            (manifest.traces, rest) = postcard::take_from_bytes(rest).map_err(decode)?;
        }
        let is_newer = found_minor.checked_sub(MINOR).is_some_and(|ahead| 0 < ahead);
        if !is_newer && !rest.is_empty() {
            return Err(ManifestError::Trailing { extra_bytes: rest.len() });
        }
        Ok(manifest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        Manifest {
            source_name: "hello.wasm".into(),
            source_hash: [7; 32],
            contract: 1,
            area: 65536,
            area_size: 8192,
            memories: vec![MemoryRow {
                bytes: 131_072,
                bytes_max: None,
                image_start: 4096,
                image_bytes: 8192,
            }],
            globals: vec![GlobalRow {
                index: 0,
                name: Some("__stack_pointer".into()),
                value: GlobalValue::F64(f64::NAN.to_bits()),
            }],
            state: StateClasses { memory: true, globals: true, ..StateClasses::default() },
            is_preinitialised: true,
            imports: vec!["midge.log".into()],
            exports: vec![ExportRow { name: "memory".into(), kind: "memory".into() }],
            table_count: 0,
            engine_name: "an engine".into(),
            machine: "x86_64".into(),
            isolation: Isolation::BoundsChecked,
            files: Some(FilesRow {
                start: 65536,
                bytes: 4097,
                folders: vec![FolderRow { guest: "/data".into(), entries: 2, bytes: 5 }],
            }),
            metering: Metering::Fuel,
            scratch: Some(ScratchRow { guest: "/tmp".into(), bytes: 1 << 20 }),
            unlinked: Some("a reason".into()),
            traces: Traces::Lines,
        }
    }

    #[test]
    fn a_manifest_of_an_older_minor_has_what_that_knew() {
        let (files, metering, scratch) = (None, Metering::Epochs, None);
        let (unlinked, traces) = (None, Traces::Functions);
        let without = Manifest { files, metering, scratch, unlinked, traces, ..manifest() };
        let mut bytes = without.encode();
        assert_eq!(bytes.pop(), Some(0), "names are one byte");
        bytes[2..4].copy_from_slice(&4u16.to_le_bytes());
        assert_eq!(Manifest::decode(&bytes).as_ref(), Ok(&without));
        assert_eq!(bytes.pop(), Some(0), "a linked one is one byte");
        bytes[2..4].copy_from_slice(&3u16.to_le_bytes());
        assert_eq!(Manifest::decode(&bytes).as_ref(), Ok(&without));
        assert_eq!(bytes.pop(), Some(0), "no folder in memory is one byte");
        bytes[2..4].copy_from_slice(&2u16.to_le_bytes());
        assert_eq!(Manifest::decode(&bytes).as_ref(), Ok(&without));
        assert_eq!(bytes.pop(), Some(0), "epochs are one byte");
        bytes[2..4].copy_from_slice(&1u16.to_le_bytes());
        assert_eq!(Manifest::decode(&bytes).as_ref(), Ok(&without));
        assert_eq!(bytes.pop(), Some(0), "no files are one byte");
        bytes[2..4].copy_from_slice(&0u16.to_le_bytes());
        assert_eq!(Manifest::decode(&bytes), Ok(without));
    }

    #[test]
    fn a_manifest_is_read_back() {
        assert_eq!(Manifest::decode(&manifest().encode()), Ok(manifest()));
    }

    #[test]
    fn fields_of_a_newer_minor_are_ignored() {
        let mut bytes = manifest().encode();
        bytes[2..4].copy_from_slice(&(MINOR + 1).to_le_bytes());
        bytes.extend_from_slice(b"a field this host does not know");
        assert_eq!(Manifest::decode(&bytes), Ok(manifest()));
    }

    #[test]
    fn trailing_bytes_of_our_own_minor_are_refused() {
        let mut bytes = manifest().encode();
        bytes.push(0);
        assert_eq!(Manifest::decode(&bytes), Err(ManifestError::Trailing { extra_bytes: 1 }));
    }

    #[test]
    fn a_newer_major_is_refused() {
        let mut bytes = manifest().encode();
        bytes[0] = 2;
        let refused = Manifest::decode(&bytes);
        assert_eq!(refused, Err(ManifestError::Version { found_major: 2, found_minor: MINOR }));
    }

    #[test]
    fn every_truncation_is_refused() {
        let bytes = manifest().encode();
        for length in 0..bytes.len() {
            assert!(Manifest::decode(&bytes[..length]).is_err(), "{length} bytes");
        }
    }
}

#[cfg(test)]
mod props {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_refused(tail in proptest::collection::vec(any::<u8>(), 0..512)) {
            let bytes = [&MAJOR.to_le_bytes()[..], &MINOR.to_le_bytes(), &tail].concat();
            if let Ok(manifest) = Manifest::decode(&bytes) {
                prop_assert_eq!(Manifest::decode(&manifest.encode()), Ok(manifest));
            }
        }
    }
}
