//! Copies of a module that tell more of its state than the module itself: for proofs, never served.
//!
//! ```text
//!   observed   every function exported by its index, so that references can be named;
//!              a probe for each segment that can be dropped: it traps if it was
//!   watched    three more globals, and after each instruction that may change one place a note of
//!              the function it stands in:   | what the place held | function | changes |
//! ```
//!
//! A probe reads no byte from behind the segment's last one, which a dropped segment, empty by then, refuses.
//!
//! Invariant: indices of functions, tables, memories, globals and segments stay as they were; what is added
//! comes behind them. Apart from notes the code is copied byte for byte.

use midge_abi::contract::EXPORT_HANDLE;
use midge_abi::width::wire;
use wasm_encoder::{
    CodeSection, ConstExpr, Encode, ExportKind, ExportSection, Function, FunctionSection,
    GlobalSection, GlobalType, InstructionSink, MemArg, Module, RawSection, SectionId, TypeSection,
    ValType,
};
use wasmparser::{
    BinaryReader, ElementItems, ExternalKind, FunctionBody, Name, Operator, Parser, Payload,
};

use crate::module::{EXPORT_PREFIX, ModuleError, WASM_PAGE_SIZE};

/// Prefix of the exports that are added here. Not the host's own ([`EXPORT_PREFIX`]): what is
/// made here is validated like any module, which may not use that one.
pub(crate) const WITNESS_PREFIX: &str = "midge-witness:";

/// Globals that [`watched`] appends: what the place held last, the function, the number of changes.
pub const WATCH_GLOBAL_COUNT: u32 = 3;
/// Stands for the host where [`watched`] notes a function's index.
pub const HOST_WRITER: i32 = -1;

const FUNCTION: &str = "function:";
const SEGMENT: &str = "segment:";

/// What an added export is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExportedFunction {
    /// The function of this index.
    Index(u32),
    /// Traps if its segment was dropped.
    SegmentProbe,
}

/// True for an export that was added here or by `rewrite.rs`.
fn is_added(name: &str) -> bool {
    name.starts_with(WITNESS_PREFIX) || name.starts_with(EXPORT_PREFIX)
}

/// Reads the name of an export that [`observed`] added.
pub(crate) fn exported_function(name: &str) -> Option<ExportedFunction> {
    let name = name.strip_prefix(WITNESS_PREFIX)?;
    if let Some(index) = name.strip_prefix(FUNCTION) {
        return index.parse().ok().map(ExportedFunction::Index);
    }
    name.starts_with(SEGMENT).then_some(ExportedFunction::SegmentProbe)
}

/// A part of an instance's state that code can change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// A byte of a memory.
    Byte {
        /// Index of the memory.
        memory: u32,
        /// Address of the byte.
        address: u32,
    },
    /// The size of a memory.
    MemorySize {
        /// Its index.
        memory: u32,
    },
    /// A global.
    Global {
        /// Its index.
        index: u32,
    },
    /// Size or elements of a table.
    Table {
        /// Its index.
        index: u32,
    },
    /// A data segment.
    Data {
        /// Its index.
        index: u32,
    },
    /// An element segment.
    Elements {
        /// Its index.
        index: u32,
    },
}

/// A segment that [`observed`] has a probe for, in the order of the probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Where it is.
    pub place: Place,
    size: u32,
    // For elements: a table that takes them.
    table: u32,
}

/// Returns the segments that code of the module can drop and read from, and that are not empty: the state
/// of any other segment cannot be told from a fresh one's.
///
/// # Errors
/// [`ModuleError`] if the module does not parse.
pub fn droppable_segments(wasm: &[u8]) -> Result<Vec<Segment>, ModuleError> {
    let (mut data, mut elements) = (Vec::new(), Vec::new());
    let (mut drops_data, mut drops_elements) = (false, false);
    let mut table_types = Vec::new();
    for payload in Parser::new(0).parse_all(wasm) {
        match payload? {
            Payload::TableSection(section) => {
                for table in section {
                    table_types.push(table?.ty.element_type);
                }
            }
            Payload::ElementSection(section) => {
                for (element, index) in section.into_iter().zip(0..) {
                    let (size, ty) = match element?.items {
                        ElementItems::Functions(items) => {
                            (items.count(), wasmparser::RefType::FUNCREF)
                        }
                        ElementItems::Expressions(ty, items) => (items.count(), ty),
                    };
                    let table = table_types.iter().position(|table| *table == ty);
                    if let (Some(table), 1..) = (table, size) {
                        let place = Place::Elements { index };
                        elements.push(Segment { place, size, table: wire(table) });
                    }
                }
            }
            Payload::DataSection(section) => {
                for (segment, index) in section.into_iter().zip(0..) {
                    let size = wire(segment?.data.len());
                    if 0 < size {
                        data.push(Segment { place: Place::Data { index }, size, table: 0 });
                    }
                }
            }
            Payload::CodeSectionEntry(body) => {
                for operator in body.get_operators_reader()? {
                    match operator? {
                        Operator::DataDrop { .. } => drops_data = true,
                        Operator::ElemDrop { .. } => drops_elements = true,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    let data = data.into_iter().filter(|_| drops_data);
    Ok(data.chain(elements.into_iter().filter(|_| drops_elements)).collect())
}

/// Makes the copy that names functions and probes segments.
///
/// # Errors
/// [`ModuleError`] if the module does not parse.
pub fn observed(wasm: &[u8]) -> Result<Vec<u8>, ModuleError> {
    let segments = droppable_segments(wasm)?;
    let counts = Counts::of(wasm)?;
    let mut added = Added::default();
    for index in 0..counts.functions {
        added.export(&format!("{FUNCTION}{index}"), ExportKind::Func, index);
    }
    if !segments.is_empty() {
        added.types.ty().function([], []);
    }
    for (segment, nth) in segments.iter().zip(0..) {
        added.functions.function(counts.types);
        added.code.function(&probe(*segment));
        added.export(&format!("{SEGMENT}{nth}"), ExportKind::Func, counts.functions + nth);
    }
    copy(wasm, &added, None)
}

fn probe(segment: Segment) -> Function {
    let mut function = Function::new([]);
    let mut code = function.instructions();
    code.i32_const(0).i32_const(segment.size.cast_signed()).i32_const(0);
    match segment.place {
        Place::Data { index } => code.memory_init(0, index),
        Place::Elements { index } => code.table_init(segment.table, index),
        other => unreachable!("not a segment: {other:?}"),
    };
    code.end();
    function
}

/// Makes the copy that notes who changes one place. Its last three mutable globals are what the place
/// held last, which starts as `held`; the index of the function, or [`HOST_WRITER`]; and how often.
///
/// # Errors
/// [`ModuleError`] if the module does not parse.
pub fn watched(wasm: &[u8], place: Place, held: u32) -> Result<Vec<u8>, ModuleError> {
    let counts = Counts::of(wasm)?;
    let mut added = Added::default();
    for initial in [held.cast_signed(), HOST_WRITER, 0] {
        let ty = GlobalType { val_type: ValType::I32, mutable: true, shared: false };
        added.globals.global(ty, &ConstExpr::i32_const(initial));
    }
    let watch = Watch {
        place,
        globals: counts.globals,
        imported_functions: counts.imported_functions,
        handle: counts.handle,
    };
    copy(wasm, &added, Some(&watch))
}

/// Returns the name of a function: that of its import, else of the name section, else of an export.
///
/// # Errors
/// [`ModuleError`] if the module does not parse.
pub fn function_name(wasm: &[u8], wanted: u32) -> Result<Option<String>, ModuleError> {
    let (mut imported, mut named, mut exported) = (None, None, None);
    let mut import_count = 0;
    for payload in Parser::new(0).parse_all(wasm) {
        match payload? {
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    let import = import?;
                    if matches!(import.ty, wasmparser::TypeRef::Func(_)) {
                        if import_count == wanted {
                            imported = Some(format!("{}.{}", import.module, import.name));
                        }
                        import_count += 1;
                    }
                }
            }
            Payload::ExportSection(section) => {
                for export in section {
                    let export = export?;
                    let is_ours = is_added(export.name);
                    if is_function(export.kind) && export.index == wanted && !is_ours {
                        exported = exported.or_else(|| Some(export.name.to_owned()));
                    }
                }
            }
            Payload::CustomSection(custom) => {
                if let wasmparser::KnownCustom::Name(names) = custom.as_known() {
                    for name in names.into_iter().flatten() {
                        if let Name::Function(map) = name {
                            let found = map.into_iter().flatten().find(|n| n.index == wanted);
                            named = named.or(found.map(|naming| naming.name.to_owned()));
                        }
                    }
                }
            }
            _ => {}
        }
    }
    Ok(imported.or(named).or(exported))
}

const fn is_function(kind: ExternalKind) -> bool {
    matches!(kind, ExternalKind::Func | ExternalKind::FuncExact)
}

/// How many there are of what gets new members.
#[derive(Default)]
struct Counts {
    types: u32,
    imported_functions: u32,
    functions: u32,
    globals: u32,
    handle: Option<u32>,
}

impl Counts {
    fn of(wasm: &[u8]) -> Result<Self, ModuleError> {
        let mut counts = Self::default();
        for payload in Parser::new(0).parse_all(wasm) {
            match payload? {
                // Without garbage collection each group is one type.
                Payload::TypeSection(section) => counts.types = section.count(),
                Payload::ImportSection(section) => {
                    for import in section.into_imports() {
                        if matches!(import?.ty, wasmparser::TypeRef::Func(_)) {
                            counts.imported_functions += 1;
                        }
                    }
                    counts.functions = counts.imported_functions;
                }
                Payload::FunctionSection(section) => counts.functions += section.count(),
                Payload::GlobalSection(section) => counts.globals = section.count(),
                Payload::ExportSection(section) => {
                    for export in section {
                        let export = export?;
                        if export.name == EXPORT_HANDLE && is_function(export.kind) {
                            counts.handle = Some(export.index);
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(counts)
    }
}

/// What comes behind the module's own members.
#[derive(Default)]
struct Added {
    types: TypeSection,
    functions: FunctionSection,
    globals: GlobalSection,
    exports: Vec<(String, ExportKind, u32)>,
    code: CodeSection,
}

impl Added {
    fn export(&mut self, name: &str, kind: ExportKind, index: u32) {
        self.exports.push((format!("{WITNESS_PREFIX}{name}"), kind, index));
    }
}

fn copy(wasm: &[u8], added: &Added, watch: Option<&Watch>) -> Result<Vec<u8>, ModuleError> {
    let mut output = Module::new();
    let mut globals_are_due = !added.globals.is_empty();
    for payload in Parser::new(0).parse_all(wasm) {
        let payload = payload?;
        // Bodies are taken up with their section.
        let Some((id, range)) = payload.as_section() else { continue };
        if globals_are_due && id != SectionId::Custom as u8 && SectionId::Export as u8 <= id {
            output.section(&added.globals);
            globals_are_due = false;
        }
        let start = range.start;
        let bytes = &wasm[range];
        match payload {
            Payload::TypeSection(_) => put(&mut output, id, &joined(bytes, &added.types)?),
            Payload::FunctionSection(_) => put(&mut output, id, &joined(bytes, &added.functions)?),
            Payload::GlobalSection(_) => {
                put(&mut output, id, &joined(bytes, &added.globals)?);
                globals_are_due = false;
            }
            Payload::ExportSection(section) => {
                output.section(&exports(section, &added.exports)?);
            }
            Payload::CodeSectionStart { .. } => match watch {
                None => put(&mut output, id, &joined(bytes, &added.code)?),
                Some(watch) => {
                    output.section(&watch.code(BinaryReader::new(bytes, start), wasm)?);
                }
            },
            _ => put(&mut output, id, bytes),
        }
    }
    Ok(output.finish())
}

fn put(output: &mut Module, id: u8, data: &[u8]) {
    output.section(&RawSection { id, data });
}

/// Returns a section's contents with more members behind its own.
fn joined(own: &[u8], added: &impl Encode) -> Result<Vec<u8>, ModuleError> {
    let mut encoded = Vec::new();
    added.encode(&mut encoded);
    let mut own = BinaryReader::new(own, 0);
    let mut added = BinaryReader::new(&encoded, 0);
    let _size = added.read_var_u32()?;
    let count = own.read_var_u32()? + added.read_var_u32()?;
    let mut contents = Vec::new();
    count.encode(&mut contents);
    for members in [&mut own, &mut added] {
        contents.extend_from_slice(members.read_bytes(members.bytes_remaining())?);
    }
    Ok(contents)
}

fn exports(
    section: wasmparser::ExportSectionReader<'_>,
    added: &[(String, ExportKind, u32)],
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
        // The module of an artifact has such exports already; they are added anew when it is built.
        if !is_added(export.name) {
            output.export(export.name, kind, export.index);
        }
    }
    for (name, kind, index) in added {
        output.export(name, *kind, *index);
    }
    Ok(output)
}

/// Writes notes into code.
struct Watch {
    place: Place,
    // Index of the first of our globals.
    globals: u32,
    imported_functions: u32,
    handle: Option<u32>,
}

/// What an instruction may do to the place.
enum Effect {
    None,
    /// It writes to it.
    Writes,
    /// It calls something that may.
    Calls {
        writer: i32,
    },
}

impl Watch {
    fn code(&self, section: BinaryReader<'_>, wasm: &[u8]) -> Result<CodeSection, ModuleError> {
        let mut output = CodeSection::new();
        let bodies = wasmparser::CodeSectionReader::new(section)?;
        for (body, index) in bodies.into_iter().zip(self.imported_functions..) {
            output.raw(&self.body(&body?, index, wasm)?);
        }
        Ok(output)
    }

    fn body(
        &self,
        body: &FunctionBody<'_>,
        function: u32,
        wasm: &[u8],
    ) -> Result<Vec<u8>, ModuleError> {
        let mut operators = body.get_operators_reader()?;
        let mut copied = operators.original_position();
        let mut output = wasm[body.range().start..copied].to_vec();
        if self.handle == Some(function) {
            // The host has just written a request.
            self.note(&mut output, HOST_WRITER);
        }
        while !operators.eof() {
            let operator = operators.read()?;
            let end = operators.original_position();
            output.extend_from_slice(&wasm[copied..end]);
            copied = end;
            match self.effect(&operator) {
                Effect::None => {}
                Effect::Writes => self.note(&mut output, function.cast_signed()),
                Effect::Calls { writer } => self.note(&mut output, writer),
            }
        }
        Ok(output)
    }

    fn effect(&self, operator: &Operator<'_>) -> Effect {
        let is_write = match self.place {
            Place::Byte { memory, .. } => match operator {
                // Writes of our own functions were noted by them: what is left is the host's.
                Operator::Call { function_index } if *function_index < self.imported_functions => {
                    return Effect::Calls { writer: function_index.cast_signed() };
                }
                Operator::CallIndirect { .. } => return Effect::Calls { writer: HOST_WRITER },
                other => written_memory(other) == Some(memory),
            },
            Place::MemorySize { memory } => {
                matches!(operator, Operator::MemoryGrow { mem } if *mem == memory)
            }
            Place::Global { index } => {
                matches!(operator, Operator::GlobalSet { global_index } if *global_index == index)
            }
            Place::Table { index } => written_table(operator) == Some(index),
            Place::Data { index } => {
                matches!(operator, Operator::DataDrop { data_index } if *data_index == index)
            }
            Place::Elements { index } => {
                matches!(operator, Operator::ElemDrop { elem_index } if *elem_index == index)
            }
        };
        if is_write { Effect::Writes } else { Effect::None }
    }

    /// Notes the writer: for a memory if what the place holds has changed, else at each write.
    fn note(&self, output: &mut Vec<u8>, writer: i32) {
        let [held, last_writer, changes] = [0, 1, 2].map(|nth| self.globals + nth);
        let mut sink = InstructionSink::new(output);
        match self.place {
            Place::Byte { memory, address } => {
                let page = address / u32::try_from(WASM_PAGE_SIZE).expect("64 KiB");
                // The byte may lie in a part that only grows later.
                sink.memory_size(memory).i32_const(page.cast_signed()).i32_gt_u();
                sink.if_(wasm_encoder::BlockType::Empty);
                load_byte(&mut sink, memory, address).global_get(held).i32_ne();
                sink.if_(wasm_encoder::BlockType::Empty);
                load_byte(&mut sink, memory, address).global_set(held);
            }
            Place::MemorySize { memory } => {
                sink.memory_size(memory).global_get(held).i32_ne();
                sink.if_(wasm_encoder::BlockType::Empty).memory_size(memory).global_set(held);
            }
            _ => {}
        }
        sink.i32_const(writer).global_set(last_writer);
        sink.global_get(changes).i32_const(1).i32_add().global_set(changes);
        match self.place {
            Place::Byte { .. } => {
                sink.end().end();
            }
            Place::MemorySize { .. } => {
                sink.end();
            }
            _ => {}
        }
    }
}

fn load_byte<'a, 'b>(
    sink: &'b mut InstructionSink<'a>,
    memory: u32,
    address: u32,
) -> &'b mut InstructionSink<'a> {
    let place = MemArg { offset: u64::from(address), align: 0, memory_index: memory };
    sink.i32_const(0).i32_load8_u(place)
}

fn written_memory(operator: &Operator<'_>) -> Option<u32> {
    match operator {
        Operator::I32Store { memarg }
        | Operator::I64Store { memarg }
        | Operator::F32Store { memarg }
        | Operator::F64Store { memarg }
        | Operator::I32Store8 { memarg }
        | Operator::I32Store16 { memarg }
        | Operator::I64Store8 { memarg }
        | Operator::I64Store16 { memarg }
        | Operator::I64Store32 { memarg }
        | Operator::V128Store { memarg }
        | Operator::V128Store8Lane { memarg, .. }
        | Operator::V128Store16Lane { memarg, .. }
        | Operator::V128Store32Lane { memarg, .. }
        | Operator::V128Store64Lane { memarg, .. } => Some(memarg.memory),
        Operator::MemoryFill { mem } | Operator::MemoryInit { mem, .. } => Some(*mem),
        Operator::MemoryCopy { dst_mem, .. } => Some(*dst_mem),
        _ => None,
    }
}

fn written_table(operator: &Operator<'_>) -> Option<u32> {
    match operator {
        Operator::TableSet { table }
        | Operator::TableFill { table }
        | Operator::TableGrow { table }
        | Operator::TableInit { table, .. } => Some(*table),
        Operator::TableCopy { dst_table, .. } => Some(*dst_table),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::module::{ModuleFacts, binary_form};

    const GUEST: &str = r#"(module
        (import "midge" "random" (func (param i32 i32)))
        (memory (export "memory") 1 3)
        (table 4 funcref)
        (data $a (i32.const 8) "active") (data $p "passive") (data $e "")
        (elem $x func 0 $grow)
        (func (export "midge_contract") (result i32) data.drop $p elem.drop $x i32.const 0)
        (func $grow (param i32 i32) (i32.store8 (i32.const 9) (local.get 0))
            (drop (memory.grow (i32.const 1))) (table.set (i32.const 0) (ref.null func)))
        (func (export "midge_handle") (param i32 i32) (result i32)
            (call 0 (i32.const 9) (i32.const 1)) (call $grow (i32.const 1) (i32.const 2))
            (memory.fill (i32.const 0) (i32.const 7) (i32.const 20))
            i32.const 0))"#;

    fn guest() -> Vec<u8> {
        binary_form(GUEST.as_bytes()).unwrap().into_owned()
    }

    #[test]
    fn every_function_is_exported_and_droppable_segments_are_probed() {
        let observed = observed(&guest()).unwrap();
        let facts = ModuleFacts::read(&observed).unwrap();
        let has = |name: &str| facts.exports.iter().any(|export| export.name == name);
        assert!(
            has("midge-witness:function:0")
                && has("midge-witness:function:3")
                && !has("midge-witness:function:4")
        );
        assert!(
            has("midge-witness:segment:0")
                && has("midge-witness:segment:1")
                && has("midge-witness:segment:2")
        );
        assert!(!has("midge-witness:segment:3"), "an empty segment cannot be seen to be dropped");
    }

    #[test]
    fn a_copy_of_a_copy_has_each_export_once() {
        let once = observed(&guest()).unwrap();
        assert!(ModuleFacts::read(&observed(&once).unwrap()).is_ok());
    }

    #[test]
    fn every_place_can_be_watched() {
        for place in [
            Place::Byte { memory: 0, address: 9 },
            Place::MemorySize { memory: 0 },
            Place::Table { index: 0 },
            Place::Data { index: 1 },
            Place::Elements { index: 0 },
        ] {
            let watched = watched(&guest(), place, 0).unwrap();
            let facts = ModuleFacts::read(&watched).unwrap();
            assert_eq!(facts.globals.len(), 3, "{place:?}");
            assert!(guest().len() < watched.len());
        }
    }

    #[test]
    fn functions_have_the_name_that_people_gave_them() {
        let name = |index| function_name(&guest(), index).unwrap();
        assert_eq!(name(0).as_deref(), Some("midge.random"));
        assert_eq!(name(1).as_deref(), Some("midge_contract"));
        assert_eq!(name(2).as_deref(), Some("grow"));
        assert_eq!(name(9), None);
    }
}
