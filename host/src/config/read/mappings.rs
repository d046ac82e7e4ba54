//! `files` and `scratch` of a function: folders that a program or a component finds, packed or in memory.

use std::fs;

use midge_loader::files::{FOLDERS_MAX, Mapping};

use super::{Reader, Section, plain_cause, shortened};
use crate::config::{Mappings, ScratchFolder, Setting, scratch};

impl Reader<'_> {
    /// Reads folders of files, which are looked for where the settings are.
    pub(super) fn mappings(&mut self, section: &Section<'_>) -> Setting<Mappings> {
        const EXAMPLE: &str = "[\"data:/data\"]";
        let none = || Setting::default(Mappings::default());
        let Some(value) = section.get("files") else { return none() };
        let Some(array) = value.get_ref().as_array() else {
            self.wrong_type(value, "files", "a list of texts", EXAMPLE);
            return none();
        };
        let mut mappings: Vec<Mapping> = Vec::new();
        for entry in array.iter() {
            let Some(text) = self.text(entry, "files", EXAMPLE) else { continue };
            let Ok(mut mapping) = text.parse::<Mapping>() else {
                let what = format!("`{}` names no folder and path", shortened(text));
                self.fault(&entry.span(), &what, EXAMPLE);
                continue;
            };
            let shown = shortened(&mapping.folder.display().to_string());
            mapping.folder = self.source.folder().join(&mapping.folder);
            match fs::metadata(&mapping.folder) {
                Ok(found) if found.is_dir() => {}
                Ok(_) => {
                    let what = format!("`{shown}` is not a folder");
                    self.fault(&entry.span(), &what, "the folder that it lies in");
                }
                Err(error) => {
                    let cause = plain_cause(&error).replace("no such file", "no such folder");
                    let what = format!("folder `{shown}`: {cause}");
                    self.fault(&entry.span(), &what, "a folder, relative to this file");
                }
            }
            if mappings.iter().any(|known| known.guest == mapping.guest) {
                let what = format!("two folders are `{}` for the guest", shortened(&mapping.guest));
                self.fault(&entry.span(), &what, "FOLDER:GUEST-PATH, with another path");
            }
            if mappings.len() == FOLDERS_MAX {
                let what = format!("more than {FOLDERS_MAX} folders");
                self.fault(&entry.span(), &what, "one folder with others in it");
                break;
            }
            mappings.push(mapping);
        }
        self.set(value, Mappings(mappings))
    }

    /// Reads the folder in memory.
    pub(super) fn scratch(&mut self, section: &Section<'_>) -> Setting<ScratchFolder> {
        const EXAMPLE: &str = "\"64 MiB\"";
        let none = || Setting::default(ScratchFolder::default());
        let Some(value) = section.get("scratch") else { return none() };
        let Some(text) = self.text(value, "scratch", EXAMPLE) else { return none() };
        match scratch(text) {
            Ok(found) => self.set(value, ScratchFolder(Some(found))),
            Err(cause) => {
                let what = format!("scratch: `{}`: {cause}", shortened(text));
                self.fault(&value.span(), &what, EXAMPLE);
                none()
            }
        }
    }
}
