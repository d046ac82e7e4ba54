//! Any module becomes a function: the contract's exports are added around it.
//!
//! ```text
//!   memory 0 of the function   | 16 the area: 4 KiB | the contract's record | a response's record | ...
//!   a request                  | step | step | ...                one step is STEP_BYTES long
//!   a step                     | which function: 1 byte | bytes that its arguments are read from |
//! ```
//!
//! `midge_handle` calls, for each step of the request, one of the module's functions. It uses memory that
//! the module uses too, so steps may change the steps that follow; both sides of a proof do so alike.
//!
//! Exports of the module stay under other names, for what they refer to may only be referred to because it
//! is exported. Indices stay, too.

use std::collections::BTreeMap;

use midge_abi::contract::{
    AREA_SIZE_MIN, EXPORT_CONTRACT, EXPORT_HANDLE, EXPORT_MEMORY, MAGIC, VERSION,
};
use wasm_encoder::{
    BlockType, CodeSection, Encode, ExportKind, ExportSection, Function, FunctionSection,
    InstructionSink, MemArg, MemorySection, MemoryType, Module, RawSection, TypeSection, ValType,
};
use wasmparser::{
    BinaryReader, CompositeInnerType, ExternalKind, FuncType, Operator, Parser, Payload, RefType,
    TypeRef,
};

/// Size of a step of a request.
pub(crate) const STEP_BYTES: usize = 64;
/// Most steps of a request.
pub(crate) const STEPS_MAX: usize = AREA_SIZE_MIN as usize / STEP_BYTES;

const AREA: i32 = 16;
const CONTRACT: i32 = AREA + AREA_SIZE_MIN.cast_signed();
const RESPONSE: i32 = CONTRACT + 16;
/// Order of the sections in a module, by their ids.
const SECTION_ORDER: [u8; 13] = [1, 2, 3, 4, 5, 13, 6, 7, 8, 9, 12, 10, 11];
const TYPE: u8 = 1;
const FUNCTION: u8 = 3;
const MEMORY: u8 = 5;
const EXPORT: u8 = 7;
const CODE: u8 = 10;

/// What becomes of instructions that `restore` cannot undo by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Variant {
    /// They stay: the technique is what the choice gives such a module.
    Whole,
    /// They are replaced by ones that drop their operands, so that the module may be restored.
    Tame,
}

/// Makes a function of a module.
pub(crate) fn wrap(wasm: &[u8], variant: Variant) -> Result<Vec<u8>, String> {
    let parts = Parts::read(wasm, variant).map_err(|error| error.to_string())?;
    Ok(parts.function())
}

/// A module taken apart.
#[derive(Default)]
struct Parts {
    sections: BTreeMap<u8, Vec<u8>>,
    types: Vec<Option<FuncType>>,
    functions: Vec<u32>,
    memories: Vec<wasmparser::MemoryType>,
    exports: Vec<(String, ExportKind, u32)>,
    bodies: CodeSection,
}

impl Parts {
    fn read(wasm: &[u8], variant: Variant) -> wasmparser::Result<Self> {
        let mut parts = Self::default();
        for payload in Parser::new(0).parse_all(wasm) {
            let payload = payload?;
            if let Some((id @ 1.., range)) = payload.as_section() {
                parts.sections.insert(id, wasm[range].to_vec());
            }
            match payload {
                Payload::TypeSection(section) => {
                    for group in section {
                        for sub in group?.into_types() {
                            parts.types.push(match sub.composite_type.inner {
                                CompositeInnerType::Func(function) => Some(function),
                                _ => None,
                            });
                        }
                    }
                }
                Payload::ImportSection(section) => {
                    for import in section.into_imports() {
                        if let TypeRef::Func(ty) = import?.ty {
                            parts.functions.push(ty);
                        }
                    }
                }
                Payload::FunctionSection(section) => {
                    for ty in section {
                        parts.functions.push(ty?);
                    }
                }
                Payload::MemorySection(section) => {
                    for memory in section {
                        parts.memories.push(memory?);
                    }
                }
                Payload::ExportSection(section) => {
                    for export in section {
                        let export = export?;
                        let kind = match export.kind {
                            ExternalKind::Func | ExternalKind::FuncExact => ExportKind::Func,
                            ExternalKind::Table => ExportKind::Table,
                            ExternalKind::Memory => ExportKind::Memory,
                            ExternalKind::Global => ExportKind::Global,
                            ExternalKind::Tag => ExportKind::Tag,
                        };
                        parts.exports.push((format!("own:{}", export.name), kind, export.index));
                    }
                }
                Payload::CodeSectionEntry(body) => {
                    let range = body.range();
                    let bytes = match variant {
                        Variant::Whole => wasm[range].to_vec(),
                        Variant::Tame => tame(wasm, &body)?,
                    };
                    parts.bodies.raw(&bytes);
                }
                _ => {}
            }
        }
        Ok(parts)
    }

    fn function(mut self) -> Vec<u8> {
        let type_count = u32::try_from(self.types.len()).expect("types are counted by 32 bits");
        let function_count = u32::try_from(self.functions.len()).expect("so are functions");
        let mut types = TypeSection::new();
        types.ty().function([], [ValType::I32]);
        types.ty().function([ValType::I32, ValType::I32], [ValType::I32]);
        let mut functions = FunctionSection::new();
        functions.function(type_count).function(type_count + 1);
        let mut exports = ExportSection::new();
        exports.export(EXPORT_MEMORY, ExportKind::Memory, 0);
        exports.export(EXPORT_CONTRACT, ExportKind::Func, function_count);
        exports.export(EXPORT_HANDLE, ExportKind::Func, function_count + 1);
        for (name, kind, index) in &self.exports {
            exports.export(name, *kind, *index);
        }
        self.bodies.function(&contract());
        self.bodies.function(&self.handle());
        let joined_types = joined(self.sections.get(&TYPE), &types);
        let joined_functions = joined(self.sections.get(&FUNCTION), &functions);
        self.sections.insert(TYPE, joined_types);
        self.sections.insert(FUNCTION, joined_functions);
        self.sections.insert(MEMORY, contents(&self.memory_section()));
        self.sections.insert(EXPORT, contents(&exports));
        self.sections.insert(CODE, contents(&self.bodies));
        let mut module = Module::new();
        for id in SECTION_ORDER {
            if let Some(data) = self.sections.get(&id) {
                module.section(&RawSection { id, data });
            }
        }
        module.finish()
    }

    /// The contract needs a first memory with a page in it.
    fn memory_section(&self) -> MemorySection {
        let mut section = MemorySection::new();
        if self.memories.is_empty() {
            section.memory(memory_type(1, None));
        }
        for (memory, nth) in self.memories.iter().zip(0..) {
            let minimum = if nth == 0 { memory.initial.max(1) } else { memory.initial };
            section.memory(memory_type(minimum, memory.maximum.map(|most| most.max(minimum))));
        }
        section
    }

    fn handle(&self) -> Function {
        let callable: Vec<u32> =
            (0..).take(self.functions.len()).filter(|&f| self.can_call(f)).collect();
        let mut function = Function::new([]);
        let mut code = function.instructions();
        let (request, size) = (0, 1);
        // From here on the second parameter is the end of the request.
        code.local_get(request).local_get(size).i32_add().local_set(size);
        code.block(BlockType::Empty).loop_(BlockType::Empty);
        code.local_get(request).i32_const(wire(STEP_BYTES)).i32_add().local_get(size).i32_gt_u();
        code.br_if(1);
        for _ in &callable {
            code.block(BlockType::Empty);
        }
        code.block(BlockType::Empty);
        // One of the functions for each number, or none if there is none.
        let count = i32::try_from(callable.len().max(1)).expect("few functions");
        code.local_get(request).i32_load8_u(place(0)).i32_const(count).i32_rem_u();
        let labels: Vec<u32> = (0..).take(callable.len()).collect();
        code.br_table(labels.iter().copied(), 0);
        code.end();
        for (nth, index) in callable.iter().enumerate() {
            self.step(&mut code, *index);
            let left = u32::try_from(callable.len() - 1 - nth).expect("few functions");
            // Out to the end of the last case's block, where the loop goes on.
            code.br(left);
            code.end();
        }
        code.local_get(request).i32_const(wire(STEP_BYTES)).i32_add().local_set(request);
        code.br(0).end().end();
        code.i32_const(RESPONSE).i32_const(200).i32_store(word(0));
        code.i32_const(RESPONSE).end();
        function
    }

    /// Calls a function with arguments out of the step.
    fn step(&self, code: &mut InstructionSink<'_>, index: u32) {
        let ty = self.type_of(index);
        for (param, nth) in ty.params().iter().zip(0..) {
            let place = place(1 + nth % (STEP_BYTES as u64 - 16));
            match param {
                wasmparser::ValType::I32 => code.local_get(0).i32_load(place),
                wasmparser::ValType::I64 => code.local_get(0).i64_load(place),
                wasmparser::ValType::F32 => code.local_get(0).f32_load(place),
                wasmparser::ValType::F64 => code.local_get(0).f64_load(place),
                wasmparser::ValType::V128 => code.local_get(0).v128_load(place),
                wasmparser::ValType::Ref(_) => code.ref_null(wasm_encoder::HeapType::FUNC),
            };
        }
        code.call(index);
        for _ in ty.results() {
            code.drop();
        }
    }

    fn can_call(&self, index: u32) -> bool {
        let ty = self.types[self.functions[index as usize] as usize].as_ref();
        ty.is_some_and(|ty| {
            let is_known = |param: &wasmparser::ValType| {
                !matches!(param, wasmparser::ValType::Ref(ty) if *ty != RefType::FUNCREF)
            };
            ty.params().iter().all(is_known)
        })
    }

    fn type_of(&self, index: u32) -> &FuncType {
        self.types[self.functions[index as usize] as usize].as_ref().expect("can_call looked")
    }
}

/// Writes the contract's record and returns its address.
fn contract() -> Function {
    let mut function = Function::new([]);
    let mut code = function.instructions();
    let rows = [MAGIC.cast_signed(), i32::from(VERSION), AREA, AREA_SIZE_MIN.cast_signed()];
    for (row, nth) in rows.into_iter().zip(0..) {
        code.i32_const(CONTRACT).i32_const(row).i32_store(word(4 * nth));
    }
    code.i32_const(CONTRACT).end();
    function
}

/// Copies a body without what changes tables and drops segments.
fn tame(wasm: &[u8], body: &wasmparser::FunctionBody<'_>) -> wasmparser::Result<Vec<u8>> {
    let mut operators = body.get_operators_reader()?;
    let mut copied = operators.original_position();
    let mut output = wasm[body.range().start..copied].to_vec();
    while !operators.eof() {
        let operator = operators.read()?;
        let end = operators.original_position();
        let (operands, result) = match operator {
            Operator::DataDrop { .. } | Operator::ElemDrop { .. } => (0, None),
            Operator::TableSet { .. } => (2, None),
            Operator::TableFill { .. }
            | Operator::TableCopy { .. }
            | Operator::TableInit { .. } => (3, None),
            Operator::TableGrow { .. } => (2, Some(-1)),
            _ => {
                output.extend_from_slice(&wasm[copied..end]);
                copied = end;
                continue;
            }
        };
        copied = end;
        let mut sink = InstructionSink::new(&mut output);
        for _ in 0..operands {
            sink.drop();
        }
        if let Some(result) = result {
            sink.i32_const(result);
        }
    }
    Ok(output)
}

fn memory_type(minimum: u64, maximum: Option<u64>) -> MemoryType {
    MemoryType { minimum, maximum, memory64: false, shared: false, page_size_log2: None }
}

fn place(offset: u64) -> MemArg {
    MemArg { offset, align: 0, memory_index: 0 }
}

fn word(offset: u64) -> MemArg {
    MemArg { offset, align: 2, memory_index: 0 }
}

fn wire(size: usize) -> i32 {
    i32::try_from(size).expect("a small number")
}

/// Returns a section without its size.
fn contents(section: &impl Encode) -> Vec<u8> {
    let mut encoded = Vec::new();
    section.encode(&mut encoded);
    let mut reader = BinaryReader::new(&encoded, 0);
    reader.read_var_u32().expect("the encoder writes a size");
    let start = reader.original_position();
    encoded.split_off(start)
}

/// Returns a section's contents with more members behind its own.
fn joined(own: Option<&Vec<u8>>, added: &impl Encode) -> Vec<u8> {
    let added = contents(added);
    let Some(own) = own else { return added };
    let (own_count, own) = counted(own);
    let (added_count, added) = counted(&added);
    let mut joined = Vec::new();
    (own_count + added_count).encode(&mut joined);
    [&joined[..], own, added].concat()
}

fn counted(section: &[u8]) -> (u32, &[u8]) {
    let mut reader = BinaryReader::new(section, 0);
    let count = reader.read_var_u32().expect("a section has a count");
    (count, &section[reader.original_position()..])
}
