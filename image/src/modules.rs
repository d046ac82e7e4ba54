//! A kernel's modules, in the order in which they are loaded: each behind those that it needs.
//!
//! A module says itself what it needs (section `.modinfo` of its ELF file), so no list of `depmod`'s is asked
//! for: a package that was unpacked and not installed has none.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use object::{Object, ObjectSection};

/// Most modules below a folder: a distribution's kernel has four thousand.
pub const MODULES_MAX: usize = 50_000;
/// Largest module, uncompressed.
pub const MODULE_BYTES_MAX: u64 = 64 << 20;

/// A module, ready to be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// Its name, with `_` for `-`, as the kernel has it.
    pub name: String,
    /// Its file, uncompressed.
    pub content: Vec<u8>,
}

/// Why modules cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModuleError {
    /// A file or folder.
    #[error("cannot read `{path}`")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// There is none of the name.
    #[error("there is no module `{name}`{}", for_whom(.needed_by))]
    Missing {
        /// Which.
        name: String,
        /// Which module needs it, if it was not asked for itself.
        needed_by: Option<String>,
    },
    /// It is not what it should be.
    #[error("`{path}` is no kernel module: {reason}")]
    Broken {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// More than [`MODULES_MAX`].
    #[error("there are more than {MODULES_MAX} modules")]
    TooMany,
}

fn for_whom(needed_by: &Option<String>) -> String {
    needed_by.as_ref().map(|name| format!(", which `{name}` needs")).unwrap_or_default()
}

/// The modules below a folder, by name.
#[derive(Debug)]
pub struct Modules {
    paths: BTreeMap<String, PathBuf>,
}

impl Modules {
    /// Looks for all modules below a folder.
    ///
    /// # Errors
    /// A folder that cannot be read, or too many.
    pub fn below(folder: &Path) -> Result<Self, ModuleError> {
        let mut paths = BTreeMap::new();
        let mut folders = vec![folder.to_path_buf()];
        while let Some(folder) = folders.pop() {
            let failed = |cause| ModuleError::Read { path: folder.clone(), cause };
            for entry in fs::read_dir(&folder).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                let kind = entry.file_type().map_err(failed)?;
                if kind.is_dir() {
                    folders.push(entry.path());
                } else if let Some(name) = entry.file_name().to_str().and_then(name_of) {
                    paths.insert(name, entry.path());
                }
                if paths.len() + folders.len() > MODULES_MAX {
                    return Err(ModuleError::TooMany);
                }
            }
        }
        Ok(Self { paths })
    }

    /// Returns true if there is one of this name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.paths.contains_key(&name.replace('-', "_"))
    }

    /// Returns these modules with all that they need, in the order of loading.
    ///
    /// # Errors
    /// One that is not there, or is broken.
    pub fn closure(&self, names: &[String]) -> Result<Vec<Module>, ModuleError> {
        let mut order: Vec<Module> = Vec::new();
        // Those whose needs are being looked at: a circle ends here, as it does in the kernel's own tools.
        let mut open: Vec<(Module, Vec<String>)> = Vec::new();
        for name in names {
            open.push(self.read(&name.replace('-', "_"), None)?);
            while let Some((module, needs)) = open.last_mut() {
                let Some(need) = needs.pop() else {
                    let (module, _) = open.pop().expect("it was looked at");
                    if order.iter().all(|known| known.name != module.name) {
                        order.push(module);
                    }
                    continue;
                };
                let by = module.name.clone();
                let known = order.iter().chain(open.iter().map(|(module, _)| module));
                if known.into_iter().all(|known| known.name != need) {
                    open.push(self.read(&need, Some(by))?);
                }
            }
        }
        Ok(order)
    }

    fn read(
        &self,
        name: &str,
        needed_by: Option<String>,
    ) -> Result<(Module, Vec<String>), ModuleError> {
        let missing = || ModuleError::Missing { name: name.to_owned(), needed_by };
        let path = self.paths.get(name).ok_or_else(missing)?;
        let failed = |cause| ModuleError::Read { path: path.clone(), cause };
        let broken = |reason: String| ModuleError::Broken { path: path.clone(), reason };
        let file = fs::read(path).map_err(failed)?;
        let content = if path.extension().is_some_and(|ending| ending == "xz") {
            let mut content = Bounded(Vec::new());
            lzma_rs::xz_decompress(&mut file.as_slice(), &mut content)
                .map_err(|error| broken(format!("{error:?}")))?;
            content.0
        } else {
            file
        };
        let mut needs = needs(&content).map_err(broken)?;
        // The first that is named is looked at first: the last is taken off first.
        needs.reverse();
        Ok((Module { name: name.to_owned(), content }, needs))
    }
}

/// Returns the name of a module whose file has this name, if it is one.
fn name_of(file: &str) -> Option<String> {
    let name = file.strip_suffix(".ko").or_else(|| file.strip_suffix(".ko.xz"))?;
    Some(name.replace('-', "_"))
}

/// Returns the names of the modules that one needs.
fn needs(module: &[u8]) -> Result<Vec<String>, String> {
    let file = object::File::parse(module).map_err(|error| error.to_string())?;
    let section = file.section_by_name(".modinfo").ok_or("it has no section `.modinfo`")?;
    let text = section.data().map_err(|error| error.to_string())?;
    let entries = text.split(|&byte| byte == 0).filter_map(|entry| str::from_utf8(entry).ok());
    let lists = entries.filter_map(|entry| entry.strip_prefix("depends="));
    let names = lists.flat_map(|list| list.split(',')).filter(|name| !name.is_empty());
    Ok(names.map(|name| name.replace('-', "_")).collect())
}

/// Takes so much and no more: a few bytes can unpack to any number.
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if (self.0.len() + bytes.len()) as u64 > MODULE_BYTES_MAX {
            return Err(io::Error::other(format!("it has more than {MODULE_BYTES_MAX} bytes")));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::put;

    /// Returns an ELF file with this section `.modinfo` and nothing else.
    fn module(depends: &str) -> Vec<u8> {
        let info = format!("license=GPL\0depends={depends}\0name=x\0");
        let names = "\0.modinfo\0.shstrtab\0";
        let mut file = vec![0; 64];
        put(&mut file, 0, b"\x7fELF\x02\x01\x01");
        let table = 64 + info.len() + names.len();
        let fields: [(usize, u64, usize); 9] = [
            (16, 1, 2),
            (18, 62, 2),
            (20, 1, 4),
            (40, table as u64, 8),
            (52, 64, 2),
            (58, 64, 2),
            (60, 3, 2),
            (62, 2, 2),
            (54, 56, 2),
        ];
        for (offset, value, size) in fields {
            put(&mut file, offset, &value.to_le_bytes()[..size]);
        }
        file.extend(info.as_bytes());
        file.extend(names.as_bytes());
        let sections =
            [(0, 0, 0, 0), (1, 1, 64, info.len()), (10, 3, 64 + info.len(), names.len())];
        for (name, kind, offset, size) in sections {
            let mut section = [0; 64];
            put(&mut section, 0, &u32::try_from(name).unwrap().to_le_bytes());
            put(&mut section, 4, &u32::try_from(kind).unwrap().to_le_bytes());
            put(&mut section, 24, &(offset as u64).to_le_bytes());
            put(&mut section, 32, &(size as u64).to_le_bytes());
            file.extend(section);
        }
        file
    }

    #[test]
    fn a_module_comes_behind_what_it_needs() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, depends: &str| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, module(depends)).unwrap();
        };
        write("net/virtio_net.ko", "net-failover,virtio");
        write("net/net_failover.ko", "failover");
        write("core/failover.ko", "");
        write("core/virtio.ko", "");
        write("loop/a.ko", "b");
        write("loop/b.ko", "a");
        write("loop/c.ko", "gone");
        fs::write(folder.path().join("broken.ko"), "text").unwrap();
        let mut small = Vec::new();
        lzma_rs::xz_compress(&mut module("failover").as_slice(), &mut small).unwrap();
        fs::write(folder.path().join("core/small.ko.xz"), small).unwrap();
        let modules = Modules::below(folder.path()).unwrap();
        let names = |asked: &[&str]| -> Result<Vec<String>, String> {
            let asked: Vec<String> = asked.iter().map(|name| (*name).to_owned()).collect();
            let found = modules.closure(&asked).map_err(|error| error.to_string())?;
            Ok(found.into_iter().map(|module| module.name).collect())
        };
        assert_eq!(
            names(&["virtio-net", "virtio"]).unwrap(),
            ["failover", "net_failover", "virtio", "virtio_net"]
        );
        assert_eq!(names(&["small"]).unwrap(), ["failover", "small"]);
        assert_eq!(names(&["a"]).unwrap(), ["b", "a"], "a circle ends");
        assert_eq!(names(&["c"]).unwrap_err(), "there is no module `gone`, which `c` needs");
        assert_eq!(names(&["d"]).unwrap_err(), "there is no module `d`");
        assert!(names(&["broken"]).unwrap_err().contains("is no kernel module"));
        assert!(modules.has("net-failover") && !modules.has("d"));
    }
}
