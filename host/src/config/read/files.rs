//! Reads the folders whose files are served.

use std::path::PathBuf;

use toml::de::DeTable;

use super::{Reader, Section, Value, keys, plain_cause, shortened};
use crate::config::keys::Part;
use crate::config::{Pattern, Setting, Static};

impl Reader<'_> {
    /// Reads all folders; `functions` come before them among the targets of routes.
    pub(super) fn statics(&mut self, top: &Section<'_>, functions: usize) -> Vec<Static> {
        let Some(value) = top.get("static") else { return Vec::new() };
        let values = self.tables(value, "static", (keys::STATICS_MAX, "folders", "fewer"));
        values.iter().zip(functions..).map(|(value, position)| self.one(position, value)).collect()
    }

    fn one(&mut self, position: usize, value: &Value<'_>) -> Static {
        let empty = DeTable::new();
        let table = value.get_ref().as_table().unwrap_or(&empty);
        if !value.get_ref().is_table() {
            self.fault(&value.span(), "a folder is a table", "[[static]]");
        }
        let section = Section { part: Part::Static, table, span: value.span() };
        self.check_names(&section);
        let routes = self.routes(position, &section);
        if let Some(value) = section.get("route").or_else(|| section.get("routes"))
            && routes.value.iter().any(|route| matches!(route, Pattern::Exact(_)))
        {
            let what = "the route of a folder is all below a path";
            self.fault(&value.span(), what, "\"/x/*\"");
        }
        Static {
            name: self.name(&section).unwrap_or_else(|| Setting::default(String::new())),
            folder: self.folder(&section).unwrap_or_else(|| Setting::default(PathBuf::new())),
            routes,
            host: self.host(&section),
            index: self.index(&section),
            precompressed: self.truth(&section, "precompressed"),
            hidden: self.truth(&section, "hidden"),
            cache_control: self.cache_control(&section),
        }
    }

    fn folder(&mut self, section: &Section<'_>) -> Option<Setting<PathBuf>> {
        let value = self.required(section, "folder", "folder = \"public\"")?;
        let name = self.text(value, "folder", "\"public\"")?;
        let path = self.source.folder().join(name);
        let what = match std::fs::metadata(&path) {
            Ok(found) if found.is_dir() => return Some(self.set(value, path)),
            Ok(_) => format!("`{}` is not a folder", shortened(name)),
            Err(error) => format!("folder `{}`: {}", shortened(name), plain_cause(&error)),
        };
        self.fault(&value.span(), &what, "the path of a folder, relative to this file");
        None
    }

    fn index(&mut self, section: &Section<'_>) -> Setting<String> {
        let default = || Setting::default("index.html".to_owned());
        let Some(value) = section.get("index") else { return default() };
        let Some(text) = self.text(value, "index", "\"index.html\"") else { return default() };
        let is_name = !matches!(text, "" | "." | "..") && !text.contains(['/', '\0']);
        if !is_name {
            let what = format!("`{}` is no name of a file", shortened(text));
            self.fault(&value.span(), &what, "\"index.html\"");
        }
        self.set(value, text.to_owned())
    }

    fn cache_control(&mut self, section: &Section<'_>) -> Setting<Option<String>> {
        let Some(value) = section.get("cache_control") else { return Setting::default(None) };
        let example = "\"public, max-age=3600\"";
        let Some(text) = self.text(value, "cache_control", example) else {
            return Setting::default(None);
        };
        if text.is_empty() || !text.bytes().all(|byte| (0x20..0x7F).contains(&byte)) {
            let what = format!("`{}` cannot stand in a header", shortened(text));
            self.fault(&value.span(), &what, example);
        }
        self.set(value, Some(text.to_owned()))
    }
}
