//! Reads where to listen, and whose word on a client's address counts.

use toml::de::DeValue;

use super::{Reader, Section, Value, keys, shortened};
use crate::config::keys::Part;
use crate::config::listen::{self, ListenError};
use crate::config::{ClientAddress, Listen, ListenAddress, Listens, Setting, Settings, Trusted};

impl Reader<'_> {
    pub(super) fn listens(&mut self, section: &Section<'_>) -> Setting<Listens> {
        let default = || Setting::default(keys::LISTEN_DEFAULT.into());
        let Some(value) = section.get("listen") else { return default() };
        let DeValue::Array(array) = value.get_ref() else {
            let one = self.listen(value);
            return one.map_or_else(default, |one| self.set(value, Listens(vec![one])));
        };
        if array.is_empty() || array.len() > keys::LISTENS_MAX {
            let what = format!("`listen` has {} places", array.len());
            let instead = format!("1 to {}", keys::LISTENS_MAX);
            self.fault(&value.span(), &what, &instead);
            return default();
        }
        let mut listens = Vec::new();
        for entry in array.iter() {
            let Some(listen) = self.listen(entry) else { continue };
            if listens.iter().any(|other: &Listen| other.address == listen.address) {
                let what = format!("`{}` stands there twice", listen.address);
                self.fault(&entry.span(), &what, "once");
            }
            listens.push(listen);
        }
        self.set(value, Listens(listens))
    }

    /// Reads one place to listen at: a text, or a table with more about it.
    fn listen(&mut self, value: &Value<'_>) -> Option<Listen> {
        const EXAMPLE: &str = "\"0.0.0.0:80\", \"unix:/run/midge/http\" or \"systemd:NAME\"";
        let Some(table) = value.get_ref().as_table() else {
            return self.listen_address(value, EXAMPLE).map(Listen::from);
        };
        let section = Section { part: Part::Listen, table, span: value.span() };
        self.check_names(&section);
        let address = self.required(&section, "address", "address = \"unix:/run/midge/http\"")?;
        let address = self.listen_address(address, EXAMPLE)?;
        let mut listen = Listen::from(address);
        listen.proxy_protocol = self.truth(&section, "proxy_protocol").value;
        if let Some(value) = section.get("mode") {
            let text = self.text(value, "mode", "\"0660\"")?;
            let mode = listen::mode(text);
            if mode.is_none() || !matches!(listen.address, ListenAddress::Local(_)) {
                let what = format!("`{}` are no permissions of a Unix socket", shortened(text));
                self.fault(&value.span(), &what, "\"0660\", with an address \"unix:/path\"");
            }
            listen.mode = mode.unwrap_or(listen.mode);
        }
        Some(listen)
    }

    fn listen_address(&mut self, value: &Value<'_>, example: &str) -> Option<ListenAddress> {
        let text = self.text(value, "listen", example)?;
        match text.parse() {
            // As a module's: relative to the file.
            Ok(ListenAddress::Local(path)) => {
                Some(ListenAddress::Local(self.source.folder().join(path)))
            }
            Ok(address) => Some(address),
            Err(ListenError::Path) => {
                self.fault(&value.span(), &ListenError::Path.to_string(), "a shorter path");
                None
            }
            Err(ListenError::Form(_)) => {
                let what = format!("`{}` is no address with a port", shortened(text));
                self.fault(&value.span(), &what, example);
                None
            }
        }
    }

    pub(super) fn trusted(&mut self, section: &Section<'_>) -> Setting<Trusted> {
        let none = Setting::default(Trusted::default());
        let Some(value) = section.get("trusted_proxies") else { return none };
        let example = "[\"10.0.0.0/8\", \"unix\"]";
        let Some(array) = value.get_ref().as_array() else {
            self.wrong_type(value, "trusted_proxies", "a list of networks", example);
            return none;
        };
        if array.len() > keys::TRUSTED_MAX {
            let what = format!("{} networks, at most {}", array.len(), keys::TRUSTED_MAX);
            self.fault(&value.span(), &what, "fewer, wider ones");
            return none;
        }
        let mut texts = Vec::new();
        for entry in array.iter() {
            let Some(text) = self.text(entry, "trusted_proxies", "\"10.0.0.0/8\"") else {
                continue;
            };
            match Trusted::parse(&[text]) {
                Ok(_) => texts.push(text),
                Err(error) => self.fault(&entry.span(), &error.to_string(), example),
            }
        }
        let trusted = Trusted::parse(&texts).unwrap_or_default();
        self.set(value, trusted)
    }

    pub(super) fn check_addresses(&mut self, top: &Section<'_>, settings: &Settings) {
        self.check_proxies(top, settings);
        let is_shared = settings.listen.value.contains(settings.admin.value);
        if is_shared && settings.admin.value.port() != 0 {
            // One that came by flag is left to the kernel, which refuses the second to listen.
            let Some(value) = top.get("admin").or_else(|| top.get("listen")) else { return };
            let what = format!("`listen` and `admin` are both {}", settings.admin.value);
            self.fault(&value.span(), &what, "two addresses");
        }
    }

    /// What is told by proxies needs proxies whose word counts.
    fn check_proxies(&mut self, top: &Section<'_>, settings: &Settings) {
        if !settings.trusted_proxies.value.is_empty() {
            return;
        }
        let is_internet = |listen: &Listen| !matches!(listen.address, ListenAddress::Local(_));
        let listens = settings.listen.value.0.iter();
        let needs = [
            ("listen", listens.clone().any(|listen| listen.proxy_protocol && is_internet(listen))),
            ("client_address", settings.client_address.value != ClientAddress::Peer),
        ];
        for (name, is_needed) in needs {
            if let (true, Some(value)) = (is_needed, top.get(name)) {
                let what = "clients' addresses are told by proxies, and none is trusted";
                self.fault(&value.span(), what, "trusted_proxies = [\"10.0.0.0/8\"]");
            }
        }
    }
}
