//! Rewrites a module into the two forms that instances are made from.
//!
//! ```text
//!                     whole form                      lean form
//!   memories          initial size of the snapshot    the same
//!   active segments   replaced by empty passive ones: they count as dropped, as after instantiation
//!   memory image      appended as active segments     absent: the loader maps it
//!   mutable globals   start from the snapshot, and are exported, so that the host can set them
//!   start section     dropped: its effects are in the snapshot
//!   entry             sets the mutable globals,       the same
//!                     then calls the handler
//! ```
//!
//! The lean form is what `restore` compiles: instantiating it touches no page of memory. The whole form is
//! an ordinary module for every other technique, with the same state after instantiation; a test holds the
//! two together (`loader/tests/freshness.rs`).
//!
//! The entry makes a restore of globals free of the host: every technique but `reuse` calls it in place of the
//! handler, and the globals have their fresh values when the handler starts, in a new instance as in one that
//! has served. All forms have it, so that stack and backtrace are the same in all.
//!
//! Invariant: function, table, memory, global and segment indices stay as they were (the entry is the last
//! function), so bodies of functions, element and name sections are copied byte for byte.

use std::ops::Range;

use midge_abi::contract::EXPORT_HANDLE;
use midge_abi::manifest::GlobalValue;
use wasm_encoder::{
    CodeSection, ConstExpr, DataSection, ExportKind, ExportSection, Function, FunctionSection,
    GlobalSection, GlobalType, MemorySection, MemoryType, Module, RawSection,
};
use wasmparser::{DataKind, ExternalKind, Parser, Payload};

use crate::module::{EXPORT_PREFIX, ModuleError, ModuleFacts, WASM_PAGE_SIZE};

/// Name under which every form exports its entry, of the handler's type.
pub const EXPORT_ENTER: &str = "midge:enter";
/// Zero bytes up to this many between two runs are kept in one data segment: a segment costs about this.
const GAP_BYTES_MAX: usize = 64;
/// More runs of a memory than this are joined over longer gaps: a module has at most 100 000 segments.
const SEGMENTS_MAX: usize = 10_000;

/// Name under which mutable global `index` is exported.
#[must_use]
pub fn global_export(index: u32) -> String {
    format!("{EXPORT_PREFIX}global:{index}")
}

/// Name under which memory `index` is exported.
#[must_use]
pub fn memory_export(index: usize) -> String {
    format!("{EXPORT_PREFIX}memory:{index}")
}

/// Name under which table `index` is exported.
#[must_use]
pub fn table_export(index: u32) -> String {
    format!("{EXPORT_PREFIX}table:{index}")
}

/// The state that a rewritten module starts from.
#[derive(Debug, Clone, Copy)]
pub struct Snapshot<'a> {
    /// Content of each memory, from address 0 to its size.
    pub memories: &'a [Vec<u8>],
    /// Where files begin in the first memory, which the whole form is to be without: [`with_files`] adds them.
    pub files_start: Option<usize>,
    /// Value of each mutable global, in the order of [`ModuleFacts::globals`]. References keep the
    /// expression they had.
    pub globals: &'a [GlobalValue],
}

/// Adds the exports and changes nothing else: for the instance that a snapshot is taken of, and for
/// modules whose start-up must run in every instance.
///
/// # Errors
/// [`ModuleError`] if the module does not parse; it was validated before.
pub fn instrument(wasm: &[u8], facts: &ModuleFacts) -> Result<Vec<u8>, ModuleError> {
    rewrite(wasm, facts, Form::Instrumented)
}

/// Makes the whole form.
///
/// # Errors
/// As [`instrument`].
pub fn whole(
    wasm: &[u8],
    facts: &ModuleFacts,
    snapshot: Snapshot<'_>,
) -> Result<Vec<u8>, ModuleError> {
    rewrite(wasm, facts, Form::Whole(snapshot))
}

/// Makes the lean form.
///
/// # Errors
/// As [`instrument`].
pub fn lean(
    wasm: &[u8],
    facts: &ModuleFacts,
    snapshot: Snapshot<'_>,
) -> Result<Vec<u8>, ModuleError> {
    rewrite(wasm, facts, Form::Lean(snapshot))
}

#[derive(Clone, Copy)]
enum Form<'a> {
    Instrumented,
    Whole(Snapshot<'a>),
    Lean(Snapshot<'a>),
}

impl<'a> Form<'a> {
    const fn snapshot(self) -> Option<Snapshot<'a>> {
        match self {
            Self::Instrumented => None,
            Self::Whole(snapshot) | Self::Lean(snapshot) => Some(snapshot),
        }
    }
}

fn rewrite(wasm: &[u8], facts: &ModuleFacts, form: Form<'_>) -> Result<Vec<u8>, ModuleError> {
    let image = match form {
        Form::Whole(snapshot) => image_segments(snapshot),
        Form::Instrumented | Form::Lean(_) => Vec::new(),
    };
    let fresh_globals = form.snapshot().map_or(&[][..], |snapshot| snapshot.globals);
    let entry = Entry::new(wasm, facts, fresh_globals)?;
    let mut output = Module::new();
    let mut has_data_section = false;
    for payload in Parser::new(0).parse_all(wasm) {
        let payload = payload?;
        let raw = payload.as_section();
        match (payload, form.snapshot()) {
            (Payload::ExportSection(section), _) => {
                let mut exports = exports(section, facts)?;
                exports.export(EXPORT_ENTER, ExportKind::Func, entry.index);
                output.section(&exports);
            }
            (Payload::MemorySection(section), Some(snapshot)) => {
                output.section(&memories(section, snapshot)?);
            }
            (Payload::GlobalSection(section), Some(snapshot)) => {
                output.section(&globals(section, wasm, facts, snapshot)?);
            }
            (Payload::FunctionSection(section), _) => {
                let mut functions = FunctionSection::new();
                for ty in section {
                    functions.function(ty?);
                }
                output.section(functions.function(entry.ty));
            }
            (Payload::CodeSectionStart { range, .. }, _) => {
                output.section(code(wasm, range)?.function(&entry.body()));
            }
            (Payload::StartSection { .. }, Some(_)) => {}
            (Payload::DataCountSection { count, .. }, Some(_)) => {
                let count = count + midge_abi::width::wire(image.len());
                output.section(&wasm_encoder::DataCountSection { count });
            }
            (Payload::DataSection(section), Some(_)) => {
                has_data_section = true;
                output.section(&data(section, &image)?);
            }
            _ => {
                if let Some((id, range)) = raw {
                    output.section(&RawSection { id, data: &wasm[range] });
                }
            }
        }
    }
    if !has_data_section && !image.is_empty() {
        let mut section = DataSection::new();
        append(&mut section, &image);
        output.section(&section);
    }
    Ok(output.finish())
}

/// Adds files to a whole form that was made without them: artifacts hold them once, in the image.
///
/// # Errors
/// As [`instrument`].
pub fn with_files(whole: &[u8], start: u32, files: &[u8]) -> Result<Vec<u8>, ModuleError> {
    let segment = [Segment { memory: 0, offset: start, bytes: files }];
    let mut output = Module::new();
    for payload in Parser::new(0).parse_all(whole) {
        let payload = payload?;
        let raw = payload.as_section();
        match payload {
            Payload::DataCountSection { count, .. } => {
                output.section(&wasm_encoder::DataCountSection { count: count + 1 });
            }
            Payload::DataSection(section) => {
                let mut segments = DataSection::new();
                for segment in section {
                    segments.raw(&whole[segment?.range]);
                }
                append(&mut segments, &segment);
                output.section(&segments);
            }
            _ => {
                if let Some((id, range)) = raw {
                    output.section(&RawSection { id, data: &whole[range] });
                }
            }
        }
    }
    Ok(output.finish())
}

fn exports(
    section: wasmparser::ExportSectionReader<'_>,
    facts: &ModuleFacts,
) -> Result<ExportSection, ModuleError> {
    let mut output = ExportSection::new();
    for export in section {
        let export = export?;
        let kind = match export.kind {
            ExternalKind::Func | ExternalKind::FuncExact => ExportKind::Func,
            ExternalKind::Table => ExportKind::Table,
            ExternalKind::Memory => ExportKind::Memory,
            ExternalKind::Global => ExportKind::Global,
            ExternalKind::Tag => ExportKind::Tag,
        };
        output.export(export.name, kind, export.index);
    }
    for index in 0..facts.memories.len() {
        output.export(&memory_export(index), ExportKind::Memory, midge_abi::width::wire(index));
    }
    for global in &facts.globals {
        output.export(&global_export(global.index), ExportKind::Global, global.index);
    }
    for index in 0..facts.table_count {
        output.export(&table_export(index), ExportKind::Table, index);
    }
    Ok(output)
}

/// The function that a restored instance is entered by.
struct Entry<'a> {
    index: u32,
    /// The type that it shares with the handler.
    ty: u32,
    handler: u32,
    globals: Vec<(u32, &'a GlobalValue)>,
}

impl<'a> Entry<'a> {
    fn new(
        wasm: &[u8],
        facts: &ModuleFacts,
        globals: &'a [GlobalValue],
    ) -> Result<Self, ModuleError> {
        let imported = midge_abi::width::wire(facts.imports.len());
        let (mut types, mut handler) = (Vec::new(), None::<u32>);
        for payload in Parser::new(0).parse_all(wasm) {
            match payload? {
                Payload::FunctionSection(section) => {
                    types = section.into_iter().collect::<Result<_, _>>()?;
                }
                Payload::ExportSection(section) => {
                    let exports = section.into_iter().collect::<Result<Vec<_>, _>>()?;
                    let found = exports.iter().find(|export| export.name == EXPORT_HANDLE);
                    handler = found.map(|export| export.index);
                }
                _ => {}
            }
        }
        let found = handler.and_then(|handler| {
            let own = handler.checked_sub(imported)?;
            Some((handler, *types.get(midge_abi::width::index(own))?))
        });
        let (handler, ty) = found.ok_or_else(|| ModuleError::Invalid {
            offset: 0,
            message: format!("`{EXPORT_HANDLE}` is not a function of the module's own"),
        })?;
        let globals = facts.globals.iter().map(|global| global.index).zip(globals);
        Ok(Self {
            index: imported + midge_abi::width::wire(types.len()),
            ty,
            handler,
            globals: globals.collect(),
        })
    }

    fn body(&self) -> Function {
        let mut body = Function::new([]);
        let mut instructions = body.instructions();
        for (index, value) in &self.globals {
            match **value {
                GlobalValue::I32(value) => instructions.i32_const(value),
                GlobalValue::I64(value) => instructions.i64_const(value),
                GlobalValue::F32(bits) => instructions.f32_const(wasm_encoder::Ieee32::new(bits)),
                GlobalValue::F64(bits) => instructions.f64_const(wasm_encoder::Ieee64::new(bits)),
                GlobalValue::V128(value) => instructions.v128_const(value.cast_signed()),
                // Which function it refers to is known to the host alone, which sets it.
                GlobalValue::FuncRef { .. } => continue,
            };
            instructions.global_set(*index);
        }
        instructions.local_get(0).local_get(1).call(self.handler).end();
        body
    }
}

/// Copies the bodies of a code section.
fn code(wasm: &[u8], range: Range<usize>) -> Result<CodeSection, ModuleError> {
    let mut output = CodeSection::new();
    let reader = wasmparser::BinaryReader::new(&wasm[range.clone()], range.start);
    for body in wasmparser::CodeSectionReader::new(reader)? {
        output.raw(body?.as_bytes());
    }
    Ok(output)
}

fn memories(
    section: wasmparser::MemorySectionReader<'_>,
    snapshot: Snapshot<'_>,
) -> Result<MemorySection, ModuleError> {
    let mut output = MemorySection::new();
    for (memory, content) in section.into_iter().zip(snapshot.memories) {
        let memory = memory?;
        output.memory(MemoryType {
            minimum: content.len() as u64 / WASM_PAGE_SIZE,
            maximum: memory.maximum,
            memory64: false,
            shared: false,
            page_size_log2: None,
        });
    }
    Ok(output)
}

fn globals(
    section: wasmparser::GlobalSectionReader<'_>,
    wasm: &[u8],
    facts: &ModuleFacts,
    snapshot: Snapshot<'_>,
) -> Result<GlobalSection, ModuleError> {
    let mut output = GlobalSection::new();
    let mut values = facts.globals.iter().zip(snapshot.globals).peekable();
    for (index, global) in section.into_iter().enumerate() {
        let global = global?;
        let value = values.next_if(|(fact, _)| midge_abi::width::index(fact.index) == index);
        let kept = || {
            let range = global.init_expr.get_binary_reader().range();
            // The encoder writes the final `end` itself.
            ConstExpr::raw(wasm[range.start..range.end - 1].iter().copied())
        };
        let initial = value.map_or_else(kept, |(_, value)| {
            let empty = ConstExpr::empty();
            match *value {
                GlobalValue::I32(value) => empty.with_i32_const(value),
                GlobalValue::I64(value) => empty.with_i64_const(value),
                GlobalValue::F32(bits) => empty.with_f32_const(wasm_encoder::Ieee32::new(bits)),
                GlobalValue::F64(bits) => empty.with_f64_const(wasm_encoder::Ieee64::new(bits)),
                GlobalValue::V128(value) => empty.with_v128_const(value.cast_signed()),
                GlobalValue::FuncRef { .. } => kept(),
            }
        });
        let ty = GlobalType {
            val_type: value_type(global.ty.content_type)?,
            mutable: global.ty.mutable,
            shared: false,
        };
        output.global(ty, &initial);
    }
    Ok(output)
}

fn value_type(ty: wasmparser::ValType) -> Result<wasm_encoder::ValType, ModuleError> {
    use wasm_encoder::ValType as Target;
    use wasmparser::{RefType, ValType as Source};
    Ok(match ty {
        Source::I32 => Target::I32,
        Source::I64 => Target::I64,
        Source::F32 => Target::F32,
        Source::F64 => Target::F64,
        Source::V128 => Target::V128,
        Source::Ref(RefType::FUNCREF) => Target::FUNCREF,
        Source::Ref(other) => {
            let message = format!("a global of type {other} cannot be held");
            return Err(ModuleError::Invalid { offset: 0, message });
        }
    })
}

fn data(
    section: wasmparser::DataSectionReader<'_>,
    image: &[Segment<'_>],
) -> Result<DataSection, ModuleError> {
    let mut output = DataSection::new();
    for segment in section {
        let segment = segment?;
        match segment.kind {
            DataKind::Passive => output.passive(segment.data.iter().copied()),
            DataKind::Active { .. } => output.passive([]),
        };
    }
    append(&mut output, image);
    Ok(output)
}

fn append(output: &mut DataSection, image: &[Segment<'_>]) {
    for segment in image {
        let offset = ConstExpr::i32_const(segment.offset.cast_signed());
        output.active(segment.memory, &offset, segment.bytes.iter().copied());
    }
}

/// A run of the image that is not zero.
struct Segment<'a> {
    memory: u32,
    offset: u32,
    bytes: &'a [u8],
}

fn image_segments(snapshot: Snapshot<'_>) -> Vec<Segment<'_>> {
    let mut segments = Vec::new();
    let mut files_start = snapshot.files_start;
    for (memory, content) in (0..).zip(snapshot.memories) {
        let content = &content[..files_start.take().unwrap_or(content.len())];
        let mut gap = GAP_BYTES_MAX;
        let mut found = runs(content, gap);
        while found.len() > SEGMENTS_MAX {
            gap *= 4;
            found = runs(content, gap);
        }
        for (start, end) in found {
            let offset = midge_abi::width::wire(start);
            segments.push(Segment { memory, offset, bytes: &content[start..end] });
        }
    }
    segments
}

/// Returns start and end of the runs that hold something, joined over short gaps of zeros.
fn runs(content: &[u8], gap: usize) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    let mut position = 0;
    while let Some(skip) = content[position..].iter().position(|&byte| byte != 0) {
        let start = position + skip;
        let length = content[start..].iter().position(|&byte| byte == 0);
        let end = length.map_or(content.len(), |length| start + length);
        match runs.last_mut() {
            Some(last) if start - last.1 <= gap => last.1 = end,
            _ => runs.push((start, end)),
        }
        position = end;
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::module::binary_form;

    #[test]
    fn runs_join_over_short_gaps() {
        let mut content = vec![0; 1000];
        content[10] = 1;
        content[50] = 1;
        content[900..].fill(1);
        assert_eq!(runs(&content, 64), [(10, 51), (900, 1000)]);
        assert_eq!(runs(&[0; 100], 64), []);
    }

    #[test]
    fn many_runs_become_few_segments() {
        let mut content = vec![0; 8 << 20];
        content.iter_mut().step_by(128).for_each(|byte| *byte = 1);
        let memories = [content];
        let snapshot = Snapshot { memories: &memories, files_start: None, globals: &[] };
        let segments = image_segments(snapshot);
        assert!((1..=SEGMENTS_MAX).contains(&segments.len()));
        let bytes: usize = segments.iter().map(|segment| segment.bytes.len()).sum();
        assert_eq!(bytes, (8 << 20) - 127);
    }

    #[test]
    fn both_forms_are_valid_and_keep_what_they_must() {
        let text = r#"(module
            (memory (export "memory") 1 9)
            (global $g (mut i32) (i32.const 1)) (global i64 (i64.const 2)) (global (mut f64) (f64.const 3))
            (data $a (i32.const 8) "active") (data $p "passive")
            (func $s) (start $s)
            (func (export "midge_contract") (result i32) data.drop $p i32.const 0)
            (func (export "midge_handle") (param i32 i32) (result i32) i32.const 0))"#;
        let wasm = binary_form(text.as_bytes()).unwrap();
        let facts = ModuleFacts::read(&wasm).unwrap();
        let mut content = vec![0; 3 * 65536];
        content[70_000] = 5;
        let memories = [content];
        let globals = [GlobalValue::I32(-7), GlobalValue::F64(4.5f64.to_bits())];
        let snapshot = Snapshot { memories: &memories, files_start: None, globals: &globals };

        let whole = whole(&wasm, &facts, snapshot).unwrap();
        let lean = lean(&wasm, &facts, snapshot).unwrap();
        for form in [&whole, &lean] {
            let facts = ModuleFacts::read_form(form).unwrap();
            assert_eq!(facts.memories[0].bytes, 3 * 65536);
            assert_eq!(facts.memories[0].bytes_max, Some(9 * 65536));
            assert!(!facts.has_start);
            assert!(facts.exports.iter().any(|export| export.name == "midge:global:2"));
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(!text(&lean).contains("active") && text(&lean).contains("passive"));
        let has_entry = |form: &[u8]| {
            let facts = ModuleFacts::read_form(form).unwrap();
            facts.exports.iter().any(|export| export.name == EXPORT_ENTER)
        };
        assert!(has_entry(&lean) && has_entry(&whole));
    }
}
