//! `midge inspect`: what is in a module or an artifact, and which techniques it may use.

use std::process::ExitCode;

use anyhow::{Context, Result};
use midge_abi::manifest::{CodeForm, FolderRow, GlobalValue, Manifest};
use midge_loader::artifact::{Artifact, is_artifact};
use midge_loader::engine::Engines;
use midge_loader::module::FEATURE_NAMES;
use midge_loader::start::Technique;
use midge_loader::start::choose::{Machine, check, choose};
use serde::Serialize;

use crate::cli::InspectArgs;
use crate::compile::{self, Recipe};
use crate::output::{self, Cell, Table, Tone, printable};

/// Version of the JSON object.
const SCHEMA: &str = "midge/inspect/1";

#[derive(Debug, Serialize)]
struct Report {
    schema: &'static str,
    file: String,
    kind: &'static str,
    bytes: usize,
    built_from: String,
    engine: String,
    machine: String,
    sections: Vec<SectionRow>,
    area: AreaRow,
    files: Vec<FilesRow>,
    scratch: Option<ScratchRow>,
    imports: Vec<String>,
    exports: Vec<ExportRow>,
    memories: Vec<MemoryRow>,
    globals: Vec<GlobalRow>,
    tables: u32,
    state: Vec<StateRow>,
    is_preinitialised: bool,
    features: &'static str,
    techniques: Vec<TechniqueRow>,
    chosen: &'static str,
    reason: String,
}

#[derive(Debug, Serialize)]
struct SectionRow {
    name: String,
    bytes: usize,
}

#[derive(Debug, Serialize)]
struct AreaRow {
    address: u32,
    bytes: u32,
}

#[derive(Debug, Serialize)]
struct FilesRow {
    guest_path: String,
    entries: u32,
    bytes: u64,
}

#[derive(Debug, Serialize)]
struct ScratchRow {
    guest_path: String,
    bytes_max: u64,
}

#[derive(Debug, Serialize)]
struct ExportRow {
    name: String,
    kind: String,
}

#[derive(Debug, Serialize)]
struct MemoryRow {
    bytes: u64,
    bytes_max: Option<u64>,
    image_bytes: u64,
}

#[derive(Debug, Serialize)]
struct GlobalRow {
    index: u32,
    name: Option<String>,
    value: String,
}

#[derive(Debug, Serialize)]
struct StateRow {
    class: &'static str,
    is_present: bool,
    held_by_restore: bool,
}

#[derive(Debug, Serialize)]
struct TechniqueRow {
    technique: &'static str,
    is_allowed: bool,
    reason: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// The file cannot be read, or is refused.
pub fn run(args: &InspectArgs) -> Result<ExitCode> {
    let shown = args.file.display();
    let engines = Engines::of(args.limits.limits().processor.value);
    let is_artifact = is_artifact(&args.file).with_context(|| format!("cannot read `{shown}`"))?;
    let report = if is_artifact {
        let artifact = Artifact::open(&args.file, &engines);
        let artifact = artifact.with_context(|| format!("cannot open `{shown}`"))?;
        let rows = artifact.sections().iter().map(|section| SectionRow {
            name: section.kind.name().to_owned(),
            bytes: section.range.len(),
        });
        let rows = rows.collect();
        report(args, "artifact", artifact.file_bytes(), artifact.manifest(), rows)
    } else {
        let recipe =
            Recipe { module: &args.file, form: CodeForm::PLAIN, files: &[], scratch: None };
        let compiled = compile::of_file(&recipe, &args.limits.limits())?;
        let artifact = Artifact::from_bytes(&compiled.artifact, &engines)?;
        let rows = compiled.sections.into_iter().map(|(name, bytes)| SectionRow { name, bytes });
        report(args, "module", compiled.source_bytes, artifact.manifest(), rows.collect())
    };
    if args.json {
        output::print_json(&report)?;
    } else {
        output::print(&text(&report))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn report(
    args: &InspectArgs,
    kind: &'static str,
    bytes: usize,
    manifest: &Manifest,
    sections: Vec<SectionRow>,
) -> Report {
    let machine = Machine::of_this_process();
    let choice = choose(manifest, machine);
    let techniques = Technique::ALL.map(|technique| {
        let refused = check(technique, manifest, machine).err();
        TechniqueRow {
            technique: technique.name(),
            is_allowed: refused.is_none(),
            reason: refused.map(|refused| refused.reason),
        }
    });
    Report {
        schema: SCHEMA,
        file: args.file.display().to_string(),
        kind,
        bytes,
        built_from: manifest.source_name.clone(),
        engine: manifest.engine_name.clone(),
        machine: manifest.machine.clone(),
        sections,
        area: AreaRow { address: manifest.area, bytes: manifest.area_size },
        files: manifest.files.iter().flat_map(|files| &files.folders).map(files_row).collect(),
        scratch: manifest
            .scratch
            .as_ref()
            .map(|row| ScratchRow { guest_path: row.guest.clone(), bytes_max: row.bytes }),
        imports: manifest.imports.clone(),
        exports: manifest
            .exports
            .iter()
            .map(|export| ExportRow { name: export.name.clone(), kind: export.kind.clone() })
            .collect(),
        memories: manifest
            .memories
            .iter()
            .map(|memory| MemoryRow {
                bytes: memory.bytes,
                bytes_max: memory.bytes_max,
                image_bytes: memory.image_bytes,
            })
            .collect(),
        globals: manifest
            .globals
            .iter()
            .map(|global| GlobalRow {
                index: global.index,
                name: global.name.clone(),
                value: shown(global.value),
            })
            .collect(),
        tables: manifest.table_count,
        state: state(manifest).into(),
        is_preinitialised: manifest.is_preinitialised,
        features: FEATURE_NAMES,
        techniques: techniques.into(),
        chosen: choice.technique.name(),
        reason: choice.reason,
    }
}

fn files_row(folder: &FolderRow) -> FilesRow {
    FilesRow { guest_path: folder.guest.clone(), entries: folder.entries, bytes: folder.bytes }
}

fn state(manifest: &Manifest) -> [StateRow; 7] {
    let row = |class, is_present, held_by_restore| StateRow { class, is_present, held_by_restore };
    let state = &manifest.state;
    [
        row("memory", state.memory, true),
        row("memory growth", state.memory_growth, true),
        row("globals", state.globals, true),
        row("tables", state.tables, false),
        row("table growth", state.table_growth, false),
        row("dropped data segments", state.data_drop, false),
        row("dropped element segments", state.elem_drop, false),
    ]
}

fn shown(value: GlobalValue) -> String {
    match value {
        GlobalValue::I32(value) => format!("i32 {value}"),
        GlobalValue::I64(value) => format!("i64 {value}"),
        GlobalValue::F32(bits) => format!("f32 {}", f32::from_bits(bits)),
        GlobalValue::F64(bits) => format!("f64 {}", f64::from_bits(bits)),
        GlobalValue::V128(value) => format!("v128 {value:#034x}"),
        GlobalValue::FuncRef { is_null: true } => "funcref null".to_owned(),
        GlobalValue::FuncRef { is_null: false } => "funcref".to_owned(),
    }
}

fn text(report: &Report) -> String {
    let is_colourful = output::stdout_is_colourful();
    let plain = |text: &str| Cell::new(text, Tone::Plain);
    let mut parts = vec![format!(
        "{}: {}, {} bytes, built from {}\nengine {} on {}\nrequest area: {} bytes at {:#x}\n",
        report.file,
        report.kind,
        report.bytes,
        report.built_from,
        report.engine,
        report.machine,
        report.area.bytes,
        report.area.address,
    )];
    let mut sections = Table::new(&["section", "bytes"], is_colourful);
    for section in &report.sections {
        sections.push(vec![plain(&section.name), plain(&section.bytes.to_string())]);
    }
    parts.push(sections.to_string());

    let list = |items: Vec<String>| match items.is_empty() {
        true => "none".to_owned(),
        false => printable(&items.join(", ")).into_owned(),
    };
    if !report.files.is_empty() {
        let mut files = Table::new(&["files for the guest", "entries", "bytes"], is_colourful);
        for row in &report.files {
            let path = printable(&row.guest_path);
            let (entries, bytes) = (row.entries.to_string(), row.bytes.to_string());
            files.push(vec![plain(&path), plain(&entries), plain(&bytes)]);
        }
        parts.push(files.to_string());
    }
    if let Some(row) = &report.scratch {
        let path = printable(&row.guest_path).into_owned();
        parts.push(format!("folder in memory: {path}, at most {} bytes\n", row.bytes_max));
    }
    parts.push(format!("imports: {}\n", list(report.imports.clone())));
    let exports = report.exports.iter().map(|export| format!("{} ({})", export.name, export.kind));
    parts.push(format!("exports: {}\n", list(exports.collect())));
    let memories = report.memories.iter().map(|memory| {
        let max = memory.bytes_max.map_or("no maximum".into(), |max| format!("at most {max}"));
        format!("{} bytes ({max}), of which {} in the image", memory.bytes, memory.image_bytes)
    });
    parts.push(format!("memories: {}\n", list(memories.collect())));
    let globals = report.globals.iter().map(|global| {
        let name = global.name.clone().unwrap_or_else(|| format!("#{}", global.index));
        format!("{name} = {}", global.value)
    });
    parts.push(format!("mutable globals: {}\n", list(globals.collect())));
    parts.push(format!("tables: {}\n", report.tables));

    let mut state = Table::new(&["state", "changed by its code", "restore"], is_colourful);
    for row in &report.state {
        let (held, tone) = match (row.is_present, row.held_by_restore) {
            (false, _) => ("-", Tone::Dim),
            (true, true) => ("held exactly", Tone::Good),
            (true, false) => ("not held", Tone::Bad),
        };
        let present = if row.is_present { "yes" } else { "no" };
        state.push(vec![plain(row.class), plain(present), Cell::new(held, tone)]);
    }
    parts.push(state.to_string());

    let mut techniques = Table::new(&["technique", "allowed", "why not"], is_colourful);
    for row in &report.techniques {
        let (allowed, tone) = if row.is_allowed { ("yes", Tone::Good) } else { ("no", Tone::Bad) };
        let reason = row.reason.as_deref().unwrap_or("");
        techniques.push(vec![plain(row.technique), Cell::new(allowed, tone), plain(reason)]);
    }
    parts.push(techniques.to_string());
    parts.push(format!("auto is {}: {}\n", report.chosen, report.reason));
    parts.join("\n")
}
