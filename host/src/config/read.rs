//! The walk over the parsed file: each value is read, checked against its bounds, and given its origin.
//!
//! A fault is noted and the walk goes on with the default, so that one look finds them all. Settings are
//! handed out only if nothing was noted.

use midge_abi::manifest::{Isolation, Metering, Traces};
use std::{
    collections::HashMap, fmt, fs, net::SocketAddr, ops::Range, path::Path, path::PathBuf,
    str::FromStr,
};

use toml::{
    Spanned,
    de::{DeArray, DeTable, DeValue},
};

use midge_loader::engine::Processor;
use midge_net::Networks;

use crate::extras::{Extras, is_variable};
use crate::grant::{ENTRIES_MAX, Grant, GrantedOrigin};

use super::{
    BuildLimits, ByteSize, ClientAddress, Complaints, Function, Limits, LogFormat, LogLevel,
    LogSettings, Methods, Origin, Overrides, Pattern, PushSettings, Quantity, RingChoice, Setting,
    Settings, Source, Technique, Words, Workers,
    complaint::Complaint,
    keys::{self, Bounds, Part},
    pattern,
    source::Place,
    suggest,
};

mod files; // folders of files
mod listen; // where to listen, and whom to trust
mod mappings; // folders that programs find

/// Entries of a folder that are looked at for a file of a similar name.
const FOLDER_ENTRIES_MAX: usize = 1000;

/// Reads the file's settings.
pub(super) fn read(source: Source, overrides: &Overrides) -> Result<Settings, Complaints> {
    let mut reader = Reader::new(&source);
    let settings = reader.settings(overrides);
    let faults = reader.faults;
    if faults.is_empty() { Ok(settings) } else { Err(Complaints::new(source, faults)) }
}

/// Makes settings without a file.
pub(super) fn of_one(module: &Path, overrides: &Overrides) -> Settings {
    let source = Source::new(Path::new(""), String::new());
    let mut reader = Reader::new(&source);
    let empty = DeTable::new();
    let top = Section { part: Part::Top, table: &empty, span: 0..0 };
    let mut settings = reader.top(&top, overrides);
    let section = Section { part: Part::Function, table: &empty, span: 0..0 };
    settings.functions.push(reader.function_with(
        &section,
        Setting::default(name_of(module)),
        Setting::default(module.into()),
        Setting::default(vec![Pattern::Prefix("/".into())]),
    ));
    assert!(reader.faults.is_empty(), "an empty table has no faults");
    Settings { file: None, ..settings }
}

struct Reader<'s> {
    source: &'s Source,
    faults: Vec<Complaint>,
    /// Names of functions and where they stand.
    names: Vec<(String, Range<usize>)>,
    /// Routes, the function's position, and where they stand.
    routes: Vec<(Pattern, usize, Range<usize>)>,
}

/// A table of the file and which part it is.
struct Section<'t> {
    part: Part,
    table: &'t DeTable<'t>,
    span: Range<usize>,
}

type Value<'t> = Spanned<DeValue<'t>>;

impl<'s> Reader<'s> {
    const fn new(source: &'s Source) -> Self {
        Self { source, faults: Vec::new(), names: Vec::new(), routes: Vec::new() }
    }

    fn settings(&mut self, overrides: &Overrides) -> Settings {
        let (document, errors) = DeTable::parse_recoverable(&self.source.text);
        let only_duplicates = errors.iter().all(|error| error.message() == DUPLICATE_KEY);
        for error in errors {
            self.syntax(&error);
        }
        let empty = DeTable::new();
        // A table recovered from broken text lacks what stood there: its faults would mislead.
        let table = if only_duplicates { document.get_ref() } else { &empty };
        let top = Section { part: Part::Top, table, span: 0..0 };
        let mut settings = self.top(&top, overrides);
        if only_duplicates {
            settings.functions = self.functions(&top);
            settings.statics = self.statics(&top, settings.functions.len());
            self.check_addresses(&top, &settings);
            self.check_names_unique();
            self.check_routes_unique(&settings);
        }
        settings
    }

    fn top(&mut self, top: &Section<'_>, overrides: &Overrides) -> Settings {
        self.check_names(top);
        let empty = DeTable::new();
        let limits = self.table(top, "limits", Part::Limits, &empty);
        let build = self.table(top, "build", Part::Build, &empty);
        let log = self.table(top, "log", Part::Log, &empty);
        let push = self.table(top, "push", Part::Push, &empty);
        let over = overrides.clone();
        let listen = self.listens(top);
        let sources = ClientAddress::ALL.map(|source| (source.name(), source));
        let admin = self.address(top, "admin", keys::ADMIN_DEFAULT);
        let workers = self.workers(top);
        let rings = RingChoice::ALL.map(|choice| (choice.name(), choice));
        let ring_tier = self.choice(top, "ring_tier", &rings, RingChoice::Auto);
        Settings {
            file: Some(self.source.path.clone()),
            listen: over.listen.unwrap_or(listen),
            listen_on_cpu: self.truth(top, "listen_on_cpu"),
            trusted_proxies: self.trusted(top),
            client_address: self.choice(top, "client_address", &sources, ClientAddress::Peer),
            admin: over.admin.unwrap_or(admin),
            workers: over.workers.unwrap_or(workers),
            ring_tier: over.ring_tier.unwrap_or(ring_tier),
            drain_timeout: self.quantity(top, "drain_timeout", &keys::DRAIN_TIMEOUT),
            certificates: self.certificates(top),
            limits: self.limits(&limits),
            build: self.build(&build, overrides),
            log: self.log(&log, overrides),
            push: self.push(&push),
            functions: Vec::new(),
            statics: Vec::new(),
            traces: Traces::Functions,
        }
    }

    fn limits(&mut self, section: &Section<'_>) -> Limits {
        Limits {
            header_deadline: self.quantity(section, "header_deadline", &keys::HEADER_DEADLINE),
            idle: self.quantity(section, "idle", &keys::IDLE),
            write_stall: self.quantity(section, "write_stall", &keys::WRITE_STALL),
            linger: self.quantity(section, "linger", &keys::LINGER),
            connections_per_worker: self.count(
                section,
                "connections_per_worker",
                &keys::CONNECTIONS_PER_WORKER,
            ),
            connections_per_source: self.count(
                section,
                "connections_per_source",
                &keys::CONNECTIONS_PER_SOURCE,
            ),
            shed_after: self.quantity(section, "shed_after", &keys::SHED_AFTER),
            body_grace: self.quantity(section, "body_grace", &keys::BODY_GRACE),
            body_rate: self.quantity(section, "body_rate", &keys::BODY_RATE),
            unsent: self.quantity(section, "unsent", &keys::UNSENT),
            pipelined: self.quantity(section, "pipelined", &keys::PIPELINED),
            body_window: self.quantity(section, "body_window", &keys::BODY_WINDOW),
            bodies: self.quantity(section, "bodies", &keys::BODIES),
            head_bytes: self.quantity(section, "head_bytes", &keys::HEAD_BYTES),
            requests_per_connection: self.count(
                section,
                "requests_per_connection",
                &keys::REQUESTS_PER_CONNECTION,
            ),
            outgoing_connections: self.count(
                section,
                "outgoing_connections",
                &keys::OUTGOING_CONNECTIONS,
            ),
        }
    }

    fn build(&mut self, section: &Section<'_>, overrides: &Overrides) -> BuildLimits {
        let processors = Processor::ALL.map(|processor| (processor.name(), processor));
        let processor = self.choice(section, "processor", &processors, Processor::Native);
        let memory = self.quantity(section, "memory", &keys::BUILD_MEMORY);
        let time = self.quantity(section, "time", &keys::BUILD_TIME);
        BuildLimits {
            processor: overrides.build_processor.clone().unwrap_or(processor),
            memory: overrides.build_memory.clone().unwrap_or(memory),
            time: overrides.build_time.clone().unwrap_or(time),
        }
    }

    fn log(&mut self, section: &Section<'_>, overrides: &Overrides) -> LogSettings {
        let levels = LogLevel::ALL.map(|level| (level.name(), level));
        let formats = LogFormat::ALL.map(|format| (format.name(), format));
        let level = self.choice(section, "level", &levels, LogLevel::Info);
        let format = self.choice(section, "format", &formats, LogFormat::Text);
        LogSettings {
            level: overrides.log_level.clone().unwrap_or(level),
            format: overrides.log_format.clone().unwrap_or(format),
            access: self.truth(section, "access"),
            syslog: self.parsed(section, "syslog", "\"udp://logs.example:514\""),
            breaks_lines: false,
        }
    }

    fn push(&mut self, section: &Section<'_>) -> PushSettings {
        let example = "\"http://gateway:9091/metrics/job/midge\"";
        PushSettings {
            url: self.parsed(section, "url", example),
            every: self.quantity(section, "every", &keys::PUSH_EVERY),
        }
    }

    fn functions(&mut self, top: &Section<'_>) -> Vec<Function> {
        let Some(value) = top.get("function") else {
            if top.get("static").is_some() {
                return Vec::new();
            }
            self.fault(&(0..0), "there is no function", "a [[function]] with name, module, route");
            return Vec::new();
        };
        let most = (keys::FUNCTIONS_MAX, "functions", "fewer, on several hosts");
        let values = self.tables(value, "function", most);
        values.iter().enumerate().map(|(position, value)| self.function(position, value)).collect()
    }

    /// Returns the entries of a list of tables; none if it is no list, or too long.
    fn tables<'t>(
        &mut self,
        value: &'t Value<'t>,
        name: &str,
        (most, noun, instead): (usize, &str, &str),
    ) -> &'t [Value<'t>] {
        let Some(array) = value.get_ref().as_array() else {
            let what = format!("`{name}` is not a list of tables");
            self.fault(&value.span(), &what, &format!("[[{name}]]"));
            return &[];
        };
        if array.len() > most {
            let what = format!("{} {noun}, at most {most}", array.len());
            self.fault(&value.span(), &what, instead);
            return &[];
        }
        array
    }

    /// Reads a function. One with faults is kept, with blanks, so that the checks across functions see it.
    fn function(&mut self, position: usize, value: &Value<'_>) -> Function {
        let empty = DeTable::new();
        let table = value.get_ref().as_table().unwrap_or(&empty);
        if !value.get_ref().is_table() {
            self.fault(&value.span(), "a function is a table", "[[function]]");
        }
        let section = Section { part: Part::Function, table, span: value.span() };
        self.check_names(&section);
        let name = self.name(&section).unwrap_or_else(|| Setting::default(String::new()));
        let module = self.module(&section).unwrap_or_else(|| Setting::default(PathBuf::new()));
        let routes = self.routes(position, &section);
        self.function_with(&section, name, module, routes)
    }

    fn function_with(
        &mut self,
        section: &Section<'_>,
        name: Setting<String>,
        module: Setting<PathBuf>,
        routes: Setting<Vec<Pattern>>,
    ) -> Function {
        let techniques = Technique::ALL.map(|technique| (technique.name(), technique));
        let meterings = Metering::ALL.map(|metering| (metering.name(), metering));
        let isolations = Isolation::ALL.map(|isolation| (isolation.name(), isolation));
        let concurrency = self.count(section, "concurrency", &keys::CONCURRENCY);
        let slots = self.slots(section, concurrency.value);
        Function {
            name,
            module,
            routes,
            host: self.host(section),
            methods: self.methods(section),
            technique: self.choice(section, "technique", &techniques, Technique::Auto),
            isolation: self.choice(section, "isolation", &isolations, Isolation::GuardPages),
            metering: self.choice(section, "metering", &meterings, Metering::Epochs),
            fuel: self.count(section, "fuel", &keys::FUEL),
            deadline: self.quantity(section, "deadline", &keys::DEADLINE),
            memory: self.quantity(section, "memory", &keys::MEMORY),
            body: self.quantity::<ByteSize>(section, "body", &keys::BODY),
            stream_body: self.quantity(section, "stream_body", &keys::STREAM_BODY),
            stream_time: self.quantity(section, "stream_time", &keys::STREAM_TIME),
            response: self.quantity(section, "response", &keys::RESPONSE),
            concurrency,
            slots,
            server_timing: self.truth(section, "server_timing"),
            compress: self.truth(section, "compress"),
            arguments: self
                .words(section, "arguments", "[\"--verbose\"]", |word| !word.contains('\0')),
            environment: self.words(section, "environment", "[\"NAME=value\"]", is_variable),
            grant: self.grant(section),
            files: self.mappings(section),
            scratch: self.scratch(section),
        }
    }

    fn grant(&mut self, section: &Section<'_>) -> Setting<Grant> {
        let Some(value) = section.get("grant") else { return Setting::default(Grant::default()) };
        let empty = DeTable::new();
        let section = self.table(section, "grant", Part::Grant, &empty);
        let origin = "\"https://api.example.com\"";
        let http = self.list(&section, "http", origin, |text| text.parse::<GrantedOrigin>());
        let network = |text: &str| Networks::parse([text]).map(|_| text.to_owned());
        let networks = self.list(&section, "networks", "\"10.0.0.0/8\"", network);
        let networks = Networks::parse(networks.iter().map(String::as_str)).unwrap_or_default();
        self.set(value, Grant { http, networks })
    }

    /// Reads a text by the rule of its type.
    fn parsed<T: FromStr<Err: fmt::Display>>(
        &mut self,
        section: &Section<'_>,
        name: &'static str,
        example: &str,
    ) -> Setting<Option<T>> {
        let Some(value) = section.get(name) else { return Setting::default(None) };
        let Some(text) = self.text(value, name, example) else { return Setting::default(None) };
        match text.parse() {
            Ok(parsed) => self.set(value, Some(parsed)),
            Err(error) => {
                self.unfit(value, text, name, &error, example);
                Setting::default(None)
            }
        }
    }

    fn unfit(
        &mut self,
        value: &Value<'_>,
        text: &str,
        name: &str,
        error: &dyn fmt::Display,
        example: &str,
    ) {
        let what = format!("`{}` is not fit for `{name}`: {error}", shortened(text));
        self.fault(&value.span(), &what, example);
    }

    /// Reads a list of texts, each by its own rule.
    fn list<T, E: std::fmt::Display>(
        &mut self,
        section: &Section<'_>,
        name: &'static str,
        example: &str,
        read: impl Fn(&str) -> Result<T, E>,
    ) -> Vec<T> {
        let Some(value) = section.get(name) else { return Vec::new() };
        let Some(array) = value.get_ref().as_array() else {
            self.wrong_type(value, name, "a list of texts", &format!("[{example}]"));
            return Vec::new();
        };
        if array.len() > ENTRIES_MAX {
            let what = format!("{} entries of `{name}`, at most {ENTRIES_MAX}", array.len());
            self.fault(&value.span(), &what, "fewer, or a wider one");
            return Vec::new();
        }
        let mut entries = Vec::new();
        for entry in array.iter() {
            let Some(text) = self.text(entry, name, example) else { continue };
            match read(text) {
                Ok(read) => entries.push(read),
                Err(error) => self.unfit(entry, text, name, &error, example),
            }
        }
        entries
    }

    fn certificates(&mut self, section: &Section<'_>) -> Setting<Option<PathBuf>> {
        let Some(value) = section.get("certificates") else { return Setting::default(None) };
        let example = "\"certificates.pem\"";
        let Some(name) = self.text(value, "certificates", example) else {
            return Setting::default(None);
        };
        let path = self.source.folder().join(name);
        match fs::metadata(&path) {
            Ok(found) if found.is_file() => return self.set(value, Some(path)),
            Ok(_) => {
                let what = format!("`{}` is not a file", shortened(name));
                self.fault(&value.span(), &what, "a file in PEM");
            }
            Err(error) => {
                let what = format!("certificates `{}`: {}", shortened(name), plain_cause(&error));
                self.fault(
                    &value.span(),
                    &what,
                    "the path of a file in PEM, relative to this file",
                );
            }
        }
        Setting::default(None)
    }

    /// Reads a list of words, each of a form.
    fn words(
        &mut self,
        section: &Section<'_>,
        name: &'static str,
        example: &'static str,
        is_word: impl Fn(&str) -> bool,
    ) -> Setting<Words> {
        let Some(value) = section.get(name) else { return Setting::default(Words::default()) };
        let Some(array) = value.get_ref().as_array() else {
            self.wrong_type(value, name, "a list of texts", example);
            return Setting::default(Words::default());
        };
        let mut words = Vec::new();
        for entry in array.iter() {
            let Some(word) = self.text(entry, name, example) else { continue };
            if is_word(word) {
                words.push(word.to_owned());
            } else {
                let what = format!("`{}` is not fit for `{name}`", shortened(word));
                self.fault(&entry.span(), &what, example);
            }
        }
        if let Err(error) = Extras::new(&words, &[]) {
            self.fault(&value.span(), &error.to_string(), "fewer or shorter ones");
            words.clear();
        }
        self.set(value, Words(words))
    }

    fn name(&mut self, section: &Section<'_>) -> Option<Setting<String>> {
        let value = self.required(section, "name", "name = \"hello\"")?;
        let name = self.text(value, "name", "\"hello\"")?;
        self.names.push((name.to_owned(), value.span()));
        if is_function_name(name) {
            return Some(self.set(value, name.to_owned()));
        }
        let what = format!("`{}` is no name of a function", shortened(name));
        let instead = format!("\"{}\": 1 to 64 of a-z 0-9 - _ .", name_from(name));
        self.fault(&value.span(), &what, &instead);
        None
    }

    fn module(&mut self, section: &Section<'_>) -> Option<Setting<PathBuf>> {
        let value = self.required(section, "module", "module = \"hello.wasm\"")?;
        let name = self.text(value, "module", "\"hello.wasm\"")?;
        let path = self.source.folder().join(name);
        let what = match fs::metadata(&path) {
            Ok(found) if found.is_file() => return Some(self.set(value, path)),
            Ok(_) => format!("`{}` is not a file", shortened(name)),
            Err(error) => format!("module `{}`: {}", shortened(name), plain_cause(&error)),
        };
        let instead = match similar_file(&path) {
            Some(file) => format!("\"{}\"", Path::new(name).with_file_name(file).display()),
            None => "the path of a module, relative to this file".into(),
        };
        self.fault(&value.span(), &what, &instead);
        None
    }

    fn routes(&mut self, position: usize, section: &Section<'_>) -> Setting<Vec<Pattern>> {
        let none = Setting::default(Vec::new());
        match (section.get("route"), section.get("routes")) {
            (Some(_), Some(routes)) => {
                let what = "`routes` stands beside `route`";
                self.fault(&routes.span(), what, "one of them, with all the routes");
                none
            }
            (Some(value), None) | (None, Some(value)) => match value.get_ref() {
                DeValue::Array(array) => self.patterns(position, value, array),
                _ => {
                    let pattern = self.pattern(position, value);
                    self.set(value, pattern.into_iter().collect())
                }
            },
            (None, None) => {
                self.required(section, "route", "route = \"/hello\"");
                none
            }
        }
    }

    fn patterns(
        &mut self,
        position: usize,
        value: &Value<'_>,
        array: &DeArray<'_>,
    ) -> Setting<Vec<Pattern>> {
        if !(1..=keys::ROUTES_PER_FUNCTION_MAX).contains(&array.len()) {
            let most = keys::ROUTES_PER_FUNCTION_MAX;
            let what = format!("{} routes, expected 1 to {most}", array.len());
            self.fault(&value.span(), &what, "[\"/x\", \"/y/*\"]");
        }
        let routes = array.iter().take(keys::ROUTES_PER_FUNCTION_MAX);
        let patterns = routes.filter_map(|route| self.pattern(position, route)).collect();
        self.set(value, patterns)
    }

    fn pattern(&mut self, position: usize, value: &Value<'_>) -> Option<Pattern> {
        let text = self.text(value, "route", "\"/hello\"")?;
        match Pattern::parse(text) {
            Ok(pattern) => {
                self.routes.push((pattern.clone(), position, value.span()));
                Some(pattern)
            }
            Err(error) => {
                let what = format!("route `{}`: {error}", shortened(text));
                self.fault(&value.span(), &what, "\"/x\" for one path, \"/x/*\" for all below it");
                None
            }
        }
    }

    fn host(&mut self, section: &Section<'_>) -> Setting<Option<String>> {
        let Some(value) = section.get("host") else { return Setting::default(None) };
        let example = "\"api.example.org\"";
        let Some(text) = self.text(value, "host", example) else { return Setting::default(None) };
        let name = pattern::host_name(text);
        if name.is_none() {
            let what = format!("`{}` is no host name", shortened(text));
            self.fault(&value.span(), &what, &format!("a name without port, like {example}"));
        }
        self.set(value, name)
    }

    fn methods(&mut self, section: &Section<'_>) -> Setting<Methods> {
        let Some(value) = section.get("methods") else { return Setting::default(Methods::ANY) };
        let Some(array) = value.get_ref().as_array().filter(|array| !array.is_empty()) else {
            self.wrong_type(value, "methods", "a list of methods", "[\"GET\", \"POST\"]");
            return Setting::default(Methods::ANY);
        };
        let mut methods = Methods::NONE;
        for entry in array.iter() {
            let Some(name) = self.text(entry, "methods", "\"GET\"") else { continue };
            match methods.with_name(name) {
                Some(more) => methods = more,
                None => self.unknown(entry, name, "method", Methods::names()),
            }
        }
        self.set(value, methods)
    }

    fn slots(&mut self, section: &Section<'_>, concurrency: u32) -> Setting<u32> {
        let slots = self.count(section, "slots", &keys::SLOTS);
        let Some(value) = section.get("slots") else {
            // Calls that wait for other servers overlap as a rule: each wants its slot.
            let waits = section.get("grant").is_some();
            let most = if waits { keys::SLOTS_OF_WAITING } else { keys::SLOTS_DEFAULT };
            return Setting::default(most.min(concurrency));
        };
        if slots.value > concurrency {
            let what = format!("{} slots are more than {concurrency} calls use", slots.value);
            let instead = format!("{concurrency}, or raise `concurrency`");
            self.fault(&value.span(), &what, &instead);
        }
        slots
    }

    fn address(
        &mut self,
        section: &Section<'_>,
        name: &'static str,
        default: SocketAddr,
    ) -> Setting<SocketAddr> {
        let Some(value) = section.get(name) else { return Setting::default(default) };
        let example = format!("\"{default}\"");
        let Some(text) = self.text(value, name, &example) else {
            return Setting::default(default);
        };
        match text.parse() {
            Ok(address) => self.set(value, address),
            Err(_) => {
                let what = format!("`{}` is no address with a port", shortened(text));
                self.fault(&value.span(), &what, &example);
                Setting::default(default)
            }
        }
    }

    fn workers(&mut self, section: &Section<'_>) -> Setting<Workers> {
        let Some(value) = section.get("workers") else { return Setting::default(Workers::Auto) };
        let example = "\"auto\", a count, or CPUs as \"1-7,9\"";
        let read = match value.get_ref() {
            DeValue::String(text) => Workers::parse(text),
            DeValue::Integer(number) if !number.as_str().starts_with('-') => {
                Workers::count(number.to_string().parse().unwrap_or(u64::MAX))
            }
            _ => {
                self.wrong_type(value, "workers", "a count or a text", example);
                return Setting::default(Workers::Auto);
            }
        };
        match read {
            Ok(workers) => self.set(value, workers),
            Err(error) => {
                self.fault(&value.span(), &format!("workers: {error}"), example);
                Setting::default(Workers::Auto)
            }
        }
    }

    fn quantity<Q: Quantity>(
        &mut self,
        section: &Section<'_>,
        name: &'static str,
        bounds: &Bounds<Q>,
    ) -> Setting<Q> {
        let Some(value) = section.get(name) else { return Setting::default(bounds.default) };
        let example = format!("\"{}\"", bounds.default.show());
        let DeValue::String(text) = value.get_ref() else {
            self.wrong_type(value, name, &format!("{} with its unit", Q::NOUN), &example);
            return Setting::default(bounds.default);
        };
        let range = format!("{} to {}", bounds.minimum.show(), bounds.maximum.show());
        match Q::parse(text) {
            Ok(found) if bounds.minimum <= found && found <= bounds.maximum => {
                return self.set(value, found);
            }
            Ok(found) => {
                let what = format!("{name}: `{}` is outside of {range}", found.show());
                self.fault(&value.span(), &what, &format!("\"{}\"", nearer(found, bounds).show()));
            }
            Err(error) => {
                let what = format!("{name}: `{}` is no {}: {error}", shortened(text), noun::<Q>());
                self.fault(&value.span(), &what, &example);
            }
        }
        Setting::default(bounds.default)
    }

    fn count(
        &mut self,
        section: &Section<'_>,
        name: &'static str,
        bounds: &Bounds<u32>,
    ) -> Setting<u32> {
        let Bounds { default, minimum, maximum } = *bounds;
        let Some(value) = section.get(name) else { return Setting::default(default) };
        let DeValue::Integer(number) = value.get_ref() else {
            self.wrong_type(value, name, "a whole number", &default.to_string());
            return Setting::default(default);
        };
        let found = i64::from_str_radix(number.as_str(), number.radix()).unwrap_or(i64::MAX);
        match u32::try_from(found) {
            Ok(count) if minimum <= count && count <= maximum => self.set(value, count),
            _ => {
                let what = format!("{name}: `{number}` is outside of {minimum} to {maximum}");
                let nearest = if found < i64::from(minimum) { minimum } else { maximum };
                self.fault(&value.span(), &what, &nearest.to_string());
                Setting::default(default)
            }
        }
    }

    fn truth(&mut self, section: &Section<'_>, name: &'static str) -> Setting<bool> {
        let Some(value) = section.get(name) else { return Setting::default(false) };
        match value.get_ref().as_bool() {
            Some(truth) => self.set(value, truth),
            None => {
                self.wrong_type(value, name, "`true` or `false`", "true");
                Setting::default(false)
            }
        }
    }

    fn choice<T: Copy>(
        &mut self,
        section: &Section<'_>,
        name: &'static str,
        choices: &[(&'static str, T)],
        default: T,
    ) -> Setting<T> {
        let Some(value) = section.get(name) else { return Setting::default(default) };
        let example = format!("\"{}\"", choices[choices.len() - 1].0);
        let Some(text) = self.text(value, name, &example) else {
            return Setting::default(default);
        };
        match choices.iter().find(|(known, _)| *known == text) {
            Some((_, choice)) => self.set(value, *choice),
            None => {
                self.unknown(value, text, name, choices.iter().map(|(known, _)| *known));
                Setting::default(default)
            }
        }
    }

    fn table<'t>(
        &mut self,
        top: &Section<'t>,
        name: &'static str,
        part: Part,
        empty: &'t DeTable<'t>,
    ) -> Section<'t> {
        let none = Section { part, table: empty, span: 0..0 };
        let Some(value) = top.get(name) else { return none };
        let Some(table) = value.get_ref().as_table() else {
            self.wrong_type(value, name, "a table", part.heading());
            return none;
        };
        let section = Section { part, table, span: value.span() };
        self.check_names(&section);
        section
    }

    fn check_names(&mut self, section: &Section<'_>) {
        let known = section.part.names();
        for (key, _) in section.table.iter() {
            let name = key.get_ref().as_ref();
            if known.clone().any(|known| known == name) {
                continue;
            }
            let place = match section.part {
                Part::Top => "the file",
                other => other.heading(),
            };
            let what = format!("`{}` is no setting of {place}", shortened(name));
            let instead = match suggest::nearest(name, known.clone()) {
                Some(nearest) => nearest.to_owned(),
                None => format!("one of: {}", known.clone().collect::<Vec<_>>().join(" ")),
            };
            self.fault(&key.span(), &what, &instead);
        }
    }

    fn check_names_unique(&mut self) {
        let mut seen = HashMap::new();
        for (name, span) in std::mem::take(&mut self.names) {
            let place = self.source.place(span.start);
            if let Some(Place { line, column }) = seen.insert(name.clone(), place) {
                let what =
                    format!("function `{}` stands at {line}:{column} already", shortened(&name));
                self.fault(&span, &what, "another name");
            }
        }
    }

    fn check_routes_unique(&mut self, settings: &Settings) {
        let hosts: Vec<_> = settings.targets().map(|(host, _)| host).collect();
        let mut seen = HashMap::new();
        for (pattern, position, span) in std::mem::take(&mut self.routes) {
            let host = hosts[position];
            let place = self.source.place(span.start);
            let what = format!("route `{pattern}` stands");
            if let Some(Place { line, column }) = seen.insert((host, pattern), place) {
                let what = format!("{what} at {line}:{column} already");
                self.fault(&span, &what, "another route, or another `host`");
            }
        }
    }

    fn required<'t>(
        &mut self,
        section: &Section<'t>,
        name: &'static str,
        example: &str,
    ) -> Option<&'t Value<'t>> {
        let value = section.get(name);
        if value.is_none() {
            let of = match section.part {
                Part::Listen => "listener",
                Part::Static => "folder",
                _ => "function",
            };
            self.fault(&section.span.clone(), &format!("the {of} has no `{name}`"), example);
        }
        value
    }

    fn text<'t>(&mut self, value: &'t Value<'_>, name: &str, example: &str) -> Option<&'t str> {
        let text = value.get_ref().as_str();
        if text.is_none() {
            self.wrong_type(value, name, "a text", example);
        }
        text
    }

    fn unknown(
        &mut self,
        value: &Value<'_>,
        found: &str,
        noun: &str,
        known: impl Iterator<Item = &'static str> + Clone,
    ) {
        let what = format!("`{}` is no {noun}", shortened(found));
        let instead = match suggest::nearest(found, known.clone()) {
            Some(nearest) => format!("\"{nearest}\""),
            None => format!("one of: {}", known.collect::<Vec<_>>().join(" ")),
        };
        self.fault(&value.span(), &what, &instead);
    }

    fn wrong_type(&mut self, value: &Value<'_>, name: &str, expected: &str, instead: &str) {
        let found = self.source.first_line_of(&value.span());
        let kind = value.get_ref().type_str();
        let what = format!("`{name}` takes {expected}, found {kind} `{}`", shortened(found));
        self.fault(&value.span(), &what, instead);
    }

    fn syntax(&mut self, error: &toml::de::Error) {
        let span = error.span().unwrap_or(0..0);
        if error.message() == DUPLICATE_KEY {
            let name = self.source.first_line_of(&span).to_owned();
            self.fault(&span, &format!("`{}` stands here twice", shortened(&name)), "it once");
        } else {
            let what = error.message().replace('\n', ", ");
            self.fault(&span, &what, "TOML, see https://toml.io");
        }
    }

    fn set<T>(&self, value: &Value<'_>, found: T) -> Setting<T> {
        Setting { value: found, origin: Origin::File(self.source.place(value.span().start)) }
    }

    fn fault(&mut self, span: &Range<usize>, what: &str, instead: &str) {
        let complaint =
            Complaint { span: span.clone(), what: what.into(), instead: instead.into() };
        self.faults.push(complaint);
    }
}

/// How the parser says that a key stands twice in a table.
const DUPLICATE_KEY: &str = "duplicate key";

impl<'t> Section<'t> {
    fn get(&self, name: &'static str) -> Option<&'t Value<'t>> {
        debug_assert!(self.part.names().any(|known| known == name), "{name} is in the table");
        self.table.get(name)
    }
}

fn nearer<Q: Quantity>(found: Q, bounds: &Bounds<Q>) -> Q {
    if found < bounds.minimum { bounds.minimum } else { bounds.maximum }
}

fn noun<Q: Quantity>() -> &'static str {
    Q::NOUN.trim_start_matches("a ")
}

fn shortened(text: &str) -> String {
    const CHARS_MAX: usize = 60;
    let mut short: String = text.chars().take(CHARS_MAX).collect();
    if short.len() < text.len() {
        short.push_str("...");
    }
    short.escape_debug().to_string().replace("\\\"", "\"").replace("\\'", "'")
}

fn is_function_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    (1..=keys::FUNCTION_NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|byte| plain(byte) || matches!(byte, b'-' | b'_' | b'.'))
        && name.bytes().next().is_some_and(plain)
}

/// Returns the nearest text that is a function's name.
fn name_from(text: &str) -> String {
    let plain = |letter: char| match letter.to_ascii_lowercase() {
        letter @ ('a'..='z' | '0'..='9' | '-' | '_' | '.') => letter,
        _ => '-',
    };
    let name: String = text.chars().map(plain).collect();
    let name = name.trim_start_matches(['-', '_', '.']);
    let name = &name[..name.len().min(keys::FUNCTION_NAME_BYTES_MAX)];
    if name.is_empty() { "function".into() } else { name.into() }
}

fn name_of(module: &Path) -> String {
    name_from(&module.file_stem().unwrap_or_default().to_string_lossy())
}

fn plain_cause(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "no such file".into(),
        std::io::ErrorKind::PermissionDenied => "not readable".into(),
        _ => error.to_string(),
    }
}

fn similar_file(path: &Path) -> Option<String> {
    let wanted = path.file_name()?.to_str()?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let entries = fs::read_dir(folder.unwrap_or(Path::new("."))).ok()?;
    let names: Vec<String> = entries
        .take(FOLDER_ENTRIES_MAX)
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    suggest::nearest(wanted, names.iter().map(String::as_str)).map(str::to_owned)
}

#[cfg(test)]
mod tests;
