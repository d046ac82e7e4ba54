//! Every effective setting with its value and its origin.

use super::{Function, Origin, Quantity, Setting, Settings, Static};

/// One setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its full name: `log.level`, `function.hello.deadline`.
    pub setting: String,
    /// Its value as the file would write it, without quotes.
    pub value: String,
    /// What set it.
    pub origin: Origin,
}

/// Returns all rows, in the order of the manual.
#[must_use]
pub fn rows(settings: &Settings) -> Vec<Row> {
    let Settings {
        listen,
        listen_on_cpu,
        trusted_proxies,
        client_address,
        admin,
        workers,
        ring_tier,
        drain_timeout,
        certificates,
        limits,
        build,
        log,
        push,
        functions,
        statics,
        ..
    } = settings;
    let certificates_text = match &certificates.value {
        Some(path) => path.display().to_string(),
        None => "the system's".to_owned(),
    };
    let mut rows = vec![
        shown("listen", listen),
        shown("listen_on_cpu", listen_on_cpu),
        shown("trusted_proxies", trusted_proxies),
        shown("client_address", client_address),
        shown("admin", admin),
        shown("workers", workers),
        shown("ring_tier", ring_tier),
        quantity("drain_timeout", drain_timeout),
        row("certificates", certificates_text, certificates.origin),
        quantity("limits.header_deadline", &limits.header_deadline),
        quantity("limits.idle", &limits.idle),
        quantity("limits.write_stall", &limits.write_stall),
        quantity("limits.linger", &limits.linger),
        shown("limits.connections_per_worker", &limits.connections_per_worker),
        shown("limits.connections_per_source", &limits.connections_per_source),
        quantity("limits.shed_after", &limits.shed_after),
        quantity("limits.body_grace", &limits.body_grace),
        quantity("limits.body_rate", &limits.body_rate),
        quantity("limits.unsent", &limits.unsent),
        quantity("limits.pipelined", &limits.pipelined),
        quantity("limits.body_window", &limits.body_window),
        quantity("limits.bodies", &limits.bodies),
        quantity("limits.head_bytes", &limits.head_bytes),
        shown("limits.requests_per_connection", &limits.requests_per_connection),
        shown("limits.outgoing_connections", &limits.outgoing_connections),
        quantity("build.memory", &build.memory),
        quantity("build.time", &build.time),
        shown("build.processor", &build.processor),
        shown("log.level", &log.level),
        shown("log.format", &log.format),
        shown("log.access", &log.access),
        given("log.syslog", &log.syslog),
        given("push.url", &push.url),
        quantity("push.every", &push.every),
    ];
    rows.extend(functions.iter().flat_map(function_rows));
    rows.extend(statics.iter().flat_map(static_rows));
    rows
}

fn function_rows(function: &Function) -> impl Iterator<Item = Row> {
    let routes: Vec<_> = function.routes.value.iter().map(ToString::to_string).collect();
    let host = function.host.value.as_deref().unwrap_or("any");
    let module = function.module.value.display().to_string();
    let granted = &function.grant.value;
    let http: Vec<_> = granted.http.iter().map(ToString::to_string).collect();
    let http = if http.is_empty() { "none".to_owned() } else { http.join(" ") };
    let networks = granted.networks.to_string();
    let networks = if networks.is_empty() { "none".to_owned() } else { networks };
    let rows = [
        shown("name", &function.name),
        row("module", module, function.module.origin),
        row("routes", routes.join(" "), function.routes.origin),
        row("host", host.into(), function.host.origin),
        shown("methods", &function.methods),
        shown("technique", &function.technique),
        shown("isolation", &function.isolation),
        shown("metering", &function.metering),
        shown("fuel", &function.fuel),
        quantity("deadline", &function.deadline),
        quantity("memory", &function.memory),
        quantity("body", &function.body),
        quantity("stream_body", &function.stream_body),
        quantity("stream_time", &function.stream_time),
        quantity("response", &function.response),
        shown("concurrency", &function.concurrency),
        shown("slots", &function.slots),
        shown("server_timing", &function.server_timing),
        shown("compress", &function.compress),
        shown("arguments", &function.arguments),
        shown("environment", &function.environment),
        row("grant.http", http, function.grant.origin),
        row("grant.networks", networks, function.grant.origin),
        shown("files", &function.files),
        shown("scratch", &function.scratch),
    ];
    let name = function.name.value.clone();
    rows.into_iter()
        .map(move |row| Row { setting: format!("function.{name}.{}", row.setting), ..row })
}

fn static_rows(files: &Static) -> impl Iterator<Item = Row> {
    let routes: Vec<_> = files.routes.value.iter().map(ToString::to_string).collect();
    let host = files.host.value.as_deref().unwrap_or("any");
    let cache_control = files.cache_control.value.as_deref().unwrap_or("none");
    let rows = [
        shown("name", &files.name),
        row("folder", files.folder.value.display().to_string(), files.folder.origin),
        row("routes", routes.join(" "), files.routes.origin),
        row("host", host.into(), files.host.origin),
        shown("index", &files.index),
        shown("precompressed", &files.precompressed),
        shown("hidden", &files.hidden),
        row("cache_control", cache_control.into(), files.cache_control.origin),
    ];
    let name = files.name.value.clone();
    rows.into_iter()
        .map(move |row| Row { setting: format!("static.{name}.{}", row.setting), ..row })
}

fn shown<T: ToString>(name: &str, setting: &Setting<T>) -> Row {
    row(name, setting.value.to_string(), setting.origin)
}

fn given<T: ToString>(name: &str, setting: &Setting<Option<T>>) -> Row {
    let value = setting.value.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string);
    row(name, value, setting.origin)
}

fn quantity<Q: Quantity>(name: &str, setting: &Setting<Q>) -> Row {
    row(name, setting.value.show(), setting.origin)
}

fn row(name: &str, value: String, origin: Origin) -> Row {
    Row { setting: name.into(), value, origin }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{
        Overrides,
        keys::{KEYS, Part, Takes},
    };

    #[test]
    fn every_key_is_explained() {
        let settings = Settings::of_one(Path::new("hello.wasm"), &Overrides::default());
        let explained: Vec<_> = rows(&settings).into_iter().map(|row| row.setting).collect();
        for key in KEYS.iter().filter(|key| !matches!(key.takes, Takes::Tables)) {
            let name = match (key.part, key.name) {
                (Part::Function, "route") => continue, // stands under `routes`
                (Part::Static, _) => continue,         // no folder is served here
                (Part::Listen, _) => continue,         // stands under `listen`
                (Part::Top, name) => name.to_owned(),
                (Part::Limits, name) => format!("limits.{name}"),
                (Part::Build, name) => format!("build.{name}"),
                (Part::Log, name) => format!("log.{name}"),
                (Part::Push, name) => format!("push.{name}"),
                (Part::Function, "grant") => continue, // below
                (Part::Function, name) => format!("function.hello.{name}"),
                (Part::Grant, name) => format!("function.hello.grant.{name}"),
            };
            assert!(explained.contains(&name), "{name}");
        }
    }
}
