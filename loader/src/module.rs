//! A module's facts: what it is allowed to be, what it imports and exports, what state it can change.
//!
//! Validation is the engine's own validator with a named set of features; what lies outside the set is
//! refused with the byte offset. The classes of state are read off the instructions: a module without a
//! `table.set` cannot change a table, so `restore` need not look at its tables.

use midge_abi::contract::{EXPORT_CONTRACT, EXPORT_HANDLE, EXPORT_INITIALIZE, EXPORT_MEMORY};
use midge_abi::imports;
use midge_abi::manifest::{ExportRow, FilesRow, ScratchRow, StateClasses};
use wasmparser::{
    CompositeInnerType, ExternalKind, FuncType, Operator, Parser, Payload, TypeRef, ValType,
    Validator, WasmFeatures,
};

use crate::link::{self, LinkedPart};

/// The largest module that is read: larger than any guest here (a Python runtime has 26 MB).
pub const MODULE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The largest bundle of files: a Python standard library has 30 MB.
pub const FILES_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The largest form of a module: with its files, and what linking and rewriting add.
const FORM_BYTES_MAX: usize = MODULE_BYTES_MAX + FILES_BYTES_MAX + (16 << 20);
/// The most linear memories of a module.
pub const MEMORY_COUNT_MAX: usize = 8;
/// The most mutable globals: each is reset for every request. Python has 495, for its libraries are linked by them.
pub const MUTABLE_GLOBAL_COUNT_MAX: usize = 4096;
/// Prefix of the exports that rewriting adds, by which the host finds a guest's state. No module may use it:
/// one that did could show another memory for its first.
pub const EXPORT_PREFIX: &str = "midge:";
/// The most sections: a toolchain writes a few dozen, with its custom ones.
pub const SECTION_COUNT_MAX: usize = 1024;
/// A custom section's name is cut here where it is shown.
pub const SECTION_NAME_BYTES_MAX: usize = 64;
/// Size of a WebAssembly page in bytes.
pub const WASM_PAGE_SIZE: u64 = 64 * 1024;

/// The features a module may use: WebAssembly 2.0, and of 3.0 those that the engine compiles and `restore`
/// can hold. Without: threads (shared memory is state of several requests), 64-bit memories (no guard
/// page can cover them), garbage collection, exceptions, stack switching.
pub const FEATURES: WasmFeatures = WasmFeatures::MUTABLE_GLOBAL
    .union(WasmFeatures::SATURATING_FLOAT_TO_INT)
    .union(WasmFeatures::SIGN_EXTENSION)
    .union(WasmFeatures::REFERENCE_TYPES)
    .union(WasmFeatures::MULTI_VALUE)
    .union(WasmFeatures::BULK_MEMORY)
    .union(WasmFeatures::BULK_MEMORY_OPT)
    .union(WasmFeatures::CALL_INDIRECT_OVERLONG)
    .union(WasmFeatures::SIMD)
    .union(WasmFeatures::FLOATS)
    .union(WasmFeatures::TAIL_CALL)
    .union(WasmFeatures::EXTENDED_CONST)
    .union(WasmFeatures::MULTI_MEMORY);

/// Names of [`FEATURES`] for `midge inspect` and the manual.
pub const FEATURE_NAMES: &str = "mutable-global saturating-float-to-int sign-extension reference-types \
                                 multi-value bulk-memory simd tail-call extended-const multi-memory";

/// What was read off a module.
#[derive(Debug, Clone)]
pub struct ModuleFacts {
    /// Imported functions, `(module, name)`.
    pub imports: Vec<(String, String)>,
    /// Exports as they stand in the module.
    pub exports: Vec<ExportRow>,
    /// The linear memories: initial size and maximum, in bytes.
    pub memories: Vec<MemoryFacts>,
    /// Mutable globals: index and type.
    pub globals: Vec<GlobalFacts>,
    /// Number of tables.
    pub table_count: u32,
    /// What the code can change.
    pub state: StateClasses,
    /// True if there is a start function.
    pub has_start: bool,
    /// True if `_initialize` is exported.
    pub has_initialize: bool,
    /// Size in bytes of each section, by name, in file order.
    pub sections: Vec<(String, usize)>,
}

/// One linear memory's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryFacts {
    /// Initial size in bytes.
    pub bytes: u64,
    /// Maximum size in bytes, if the module names one.
    pub bytes_max: Option<u64>,
}

/// One mutable global.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GlobalFacts {
    /// Index in the module.
    pub index: u32,
    /// Type of its content.
    pub content: ValType,
    /// Its name, if an export or the name section has one.
    pub name: Option<String>,
}

/// Why a module is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModuleError {
    /// Larger than [`MODULE_BYTES_MAX`].
    #[error("module has {found_bytes} bytes, at most {MODULE_BYTES_MAX} are read")]
    TooLarge {
        /// Its size.
        found_bytes: usize,
    },
    /// The text form does not parse.
    #[error("text module does not parse: {message}")]
    Text {
        /// What the parser says, with the position.
        message: String,
    },
    /// A component where a core module is expected.
    #[error("this is a component where a core module is expected")]
    Component,
    /// A component that cannot be made a core module.
    #[error(transparent)]
    Link(#[from] link::LinkError),
    /// Files for a module that has no way to them.
    #[error(
        "files are for components and programs of WASI, and this module follows the contract, which has none"
    )]
    FilesWithoutWasi,
    /// Not valid, or outside [`FEATURES`].
    #[error("module is not valid at offset {offset:#x}: {message}")]
    Invalid {
        /// Byte offset of the first fault.
        offset: usize,
        /// What the validator says.
        message: String,
    },
    /// An import that the contract does not have.
    #[error(
        "module imports `{module}.{name}`, which this host does not offer; it offers {OFFERED}"
    )]
    UnknownImport {
        /// Module part of the import.
        module: String,
        /// Name part.
        name: String,
    },
    /// An import of the contract with another signature.
    #[error("module imports `{module}.{name}` with another type than the contract's")]
    ImportType {
        /// Module part of the import.
        module: String,
        /// Name part.
        name: String,
    },
    /// An export of the contract is missing or has another type.
    #[error("module does not export `{name}` as {expected}; build it against the midge contract")]
    MissingExport {
        /// The export.
        name: &'static str,
        /// Its type.
        expected: &'static str,
    },
    /// An export under a name that the host keeps for itself.
    #[error("module exports `{name}`; names that start with `{EXPORT_PREFIX}` are the host's own")]
    ReservedExport {
        /// The export.
        name: String,
    },
    /// More of something than we hold.
    #[error("module has {found} {what}, at most {limit} are allowed")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        found: usize,
        /// The limit.
        limit: usize,
    },
}

const OFFERED: &str = "midge.log, midge.clock_wall_ns, midge.clock_monotonic_ns, midge.random, \
     midge.body_read, midge.response_start, midge.response_write, midge.sleep_ns, midge.exit";

impl ModuleFacts {
    /// Returns what is known of a component that is not taken apart.
    pub(crate) fn of_component(bytes: usize) -> Self {
        Self {
            imports: Vec::new(),
            exports: Vec::new(),
            memories: Vec::new(),
            globals: Vec::new(),
            table_count: 0,
            state: StateClasses::default(),
            has_start: false,
            has_initialize: false,
            sections: vec![("component".to_owned(), bytes)],
        }
    }

    /// Validates a binary module and reads its facts.
    ///
    /// # Errors
    /// [`ModuleError`] says what is not accepted, with the offset where the format has one.
    pub fn read(wasm: &[u8]) -> Result<Self, ModuleError> {
        let facts = Self::read_form(wasm)?;
        match facts.exports.iter().find(|export| export.name.starts_with(EXPORT_PREFIX)) {
            Some(ExportRow { name, .. }) => Err(ModuleError::ReservedExport { name: name.clone() }),
            None => Ok(facts),
        }
    }

    /// Reads the facts of a form of a module, which has exports of the host's.
    pub(crate) fn read_form(wasm: &[u8]) -> Result<Self, ModuleError> {
        if wasm.len() > FORM_BYTES_MAX {
            return Err(ModuleError::TooLarge { found_bytes: wasm.len() });
        }
        if Parser::is_component(wasm) {
            return Err(ModuleError::Component);
        }
        Validator::new_with_features(FEATURES).validate_all(wasm)?;
        let mut reader = Reader::default();
        for payload in Parser::new(0).parse_all(wasm) {
            reader.payload(payload?)?;
        }
        reader.finish()
    }

    /// True if code of the module runs before the first request.
    #[must_use]
    pub const fn has_startup(&self) -> bool {
        self.has_start || self.has_initialize
    }

    /// True if start-up may leave state that a rewritten module cannot express: then it runs anew in each
    /// instance instead of once at build time.
    #[must_use]
    pub fn startup_resists_snapshot(&self) -> bool {
        let has_reference_global =
            self.globals.iter().any(|global| matches!(global.content, ValType::Ref(_)));
        self.has_startup()
            && (self.state.tables
                || self.state.table_growth
                || self.state.data_drop
                || self.state.elem_drop
                || has_reference_global)
    }
}

impl From<wasmparser::BinaryReaderError> for ModuleError {
    fn from(error: wasmparser::BinaryReaderError) -> Self {
        Self::Invalid { offset: error.offset(), message: error.message().to_owned() }
    }
}

/// A core module in binary form, and what was linked with it.
#[derive(Debug)]
pub struct Linked<'a> {
    /// The module.
    pub wasm: std::borrow::Cow<'a, [u8]>,
    /// Where its files lie, if it has any.
    pub files: Option<FilesRow>,
    /// Its folder in memory, if it has one.
    pub scratch: Option<ScratchRow>,
    /// The modules that it was linked of, in what was given; none where it was not linked.
    pub parts: Vec<LinkedPart>,
    /// What was given, in binary form, where it was linked.
    pub given: std::borrow::Cow<'a, [u8]>,
}

/// Returns the core module, in binary form, of a file that holds a module or a component in either form. A
/// component, or a program of WASI preview 1, is linked with what it imports ([`crate::link`]), and with the files
/// that are attached to it ([`crate::link::attach`]).
///
/// # Errors
/// [`ModuleError::Text`] with the position of the fault; [`ModuleError::Link`] says why a component cannot be
/// linked; [`ModuleError::FilesWithoutWasi`].
pub fn linked_form(bytes: &[u8]) -> Result<Linked<'_>, ModuleError> {
    let (bytes, files) = link::detach(bytes);
    if bytes.len() > MODULE_BYTES_MAX {
        return Err(ModuleError::TooLarge { found_bytes: bytes.len() });
    }
    let binary = wat::parse_bytes(bytes);
    let binary = binary.map_err(|error| ModuleError::Text { message: error.to_string() })?;
    if link::is_linked(&binary) {
        let linked = link::link(&binary, files)?;
        let link::Linked { wasm, files, scratch, parts } = linked;
        return Ok(Linked { wasm: wasm.into(), files, scratch, parts, given: binary });
    }
    if files.is_empty() {
        let (parts, given) = (Vec::new(), Default::default());
        return Ok(Linked { wasm: binary, files: None, scratch: None, parts, given });
    }
    Err(ModuleError::FilesWithoutWasi)
}

/// As [`linked_form`], the module alone.
///
/// # Errors
/// As [`linked_form`].
pub fn binary_form(bytes: &[u8]) -> Result<std::borrow::Cow<'_, [u8]>, ModuleError> {
    Ok(linked_form(bytes)?.wasm)
}

/// Collects facts payload by payload. The module is valid by now, so indices can be trusted.
#[derive(Default)]
struct Reader {
    types: Vec<Option<FuncType>>,
    function_types: Vec<u32>,
    imports: Vec<(String, String)>,
    exports: Vec<(String, ExternalKind, u32)>,
    memories: Vec<MemoryFacts>,
    globals: Vec<GlobalFacts>,
    global_count: u32,
    table_count: u32,
    state: StateClasses,
    has_start: bool,
    sections: Vec<(String, usize)>,
    global_names: Vec<(u32, String)>,
}

impl Reader {
    fn payload(&mut self, payload: Payload<'_>) -> Result<(), ModuleError> {
        if let Some((id, range)) = payload.as_section() {
            let name = match &payload {
                Payload::CustomSection(custom) => {
                    let name = custom.name();
                    format!(
                        "custom `{}`",
                        &name[..name.floor_char_boundary(SECTION_NAME_BYTES_MAX)]
                    )
                }
                _ => section_name(id).to_owned(),
            };
            self.sections.push((name, range.len()));
            limit("sections", self.sections.len(), SECTION_COUNT_MAX)?;
        }
        match payload {
            Payload::TypeSection(section) => {
                for group in section {
                    for sub in group?.into_types() {
                        let function = match sub.composite_type.inner {
                            CompositeInnerType::Func(function) => Some(function),
                            _ => None,
                        };
                        self.types.push(function);
                    }
                }
            }
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    let import = import?;
                    self.import(import.module, import.name, import.ty)?;
                }
            }
            Payload::FunctionSection(section) => {
                for index in section {
                    self.function_types.push(index?);
                }
            }
            Payload::TableSection(section) => self.table_count += section.count(),
            Payload::MemorySection(section) => {
                for memory in section {
                    let memory = memory?;
                    self.memories.push(MemoryFacts {
                        bytes: memory.initial * WASM_PAGE_SIZE,
                        bytes_max: memory.maximum.map(|pages| pages * WASM_PAGE_SIZE),
                    });
                }
            }
            Payload::GlobalSection(section) => {
                for global in section {
                    let global = global?;
                    if global.ty.mutable {
                        self.globals.push(GlobalFacts {
                            index: self.global_count,
                            content: global.ty.content_type,
                            name: None,
                        });
                    }
                    self.global_count += 1;
                }
            }
            Payload::ExportSection(section) => {
                for export in section {
                    let export = export?;
                    self.exports.push((export.name.to_owned(), export.kind, export.index));
                }
            }
            Payload::StartSection { .. } => self.has_start = true,
            Payload::CodeSectionEntry(body) => {
                for operator in body.get_operators_reader()? {
                    self.operator(&operator?);
                }
            }
            Payload::CustomSection(custom) => {
                if let wasmparser::KnownCustom::Name(names) = custom.as_known() {
                    self.names(names);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn import(&mut self, module: &str, name: &str, ty: TypeRef) -> Result<(), ModuleError> {
        let unknown =
            || ModuleError::UnknownImport { module: module.to_owned(), name: name.to_owned() };
        let TypeRef::Func(index) = ty else {
            return Err(unknown());
        };
        let (params, results) = signature(module, name).ok_or_else(unknown)?;
        let is_same = self.types[index as usize]
            .as_ref()
            .is_some_and(|found| found.params() == params && found.results() == results);
        if !is_same {
            return Err(ModuleError::ImportType {
                module: module.to_owned(),
                name: name.to_owned(),
            });
        }
        self.function_types.push(index);
        self.imports.push((module.to_owned(), name.to_owned()));
        Ok(())
    }

    fn operator(&mut self, operator: &Operator<'_>) {
        let state = &mut self.state;
        match operator {
            Operator::MemoryGrow { .. } => state.memory_growth = true,
            Operator::TableSet { .. }
            | Operator::TableFill { .. }
            | Operator::TableCopy { .. }
            | Operator::TableInit { .. } => state.tables = true,
            Operator::TableGrow { .. } => state.table_growth = true,
            Operator::DataDrop { .. } => state.data_drop = true,
            Operator::ElemDrop { .. } => state.elem_drop = true,
            _ => {}
        }
    }

    /// Names are a courtesy of the toolchain: what does not parse is left out.
    fn names(&mut self, names: wasmparser::NameSectionReader<'_>) {
        for subsection in names.into_iter().flatten() {
            if let wasmparser::Name::Global(map) = subsection {
                let named = map.into_iter().flatten();
                self.global_names
                    .extend(named.map(|naming| (naming.index, naming.name.to_owned())));
            }
        }
    }

    fn finish(mut self) -> Result<ModuleFacts, ModuleError> {
        self.check_contract()?;
        limit("linear memories", self.memories.len(), MEMORY_COUNT_MAX)?;
        limit("mutable globals", self.globals.len(), MUTABLE_GLOBAL_COUNT_MAX)?;
        for global in &mut self.globals {
            let named = self.global_names.iter().find(|(index, _)| *index == global.index);
            let exported = self
                .exports
                .iter()
                .find(|(_, kind, index)| *kind == ExternalKind::Global && *index == global.index);
            global.name =
                named.map(|(_, name)| name.clone()).or(exported.map(|(name, ..)| name.clone()));
        }
        self.state.memory = !self.memories.is_empty();
        self.state.globals = !self.globals.is_empty();
        let has_initialize = self.export_type(EXPORT_INITIALIZE).is_some();
        let exports = self
            .exports
            .iter()
            .map(|(name, kind, _)| ExportRow { name: name.clone(), kind: kind_name(*kind).into() })
            .collect();
        Ok(ModuleFacts {
            imports: self.imports,
            exports,
            memories: self.memories,
            globals: self.globals,
            table_count: self.table_count,
            state: self.state,
            has_start: self.has_start,
            has_initialize,
            sections: self.sections,
        })
    }

    fn check_contract(&self) -> Result<(), ModuleError> {
        let has_memory = self.exports.iter().any(|(name, kind, index)| {
            name == EXPORT_MEMORY && *kind == ExternalKind::Memory && *index == 0
        });
        let missing = |name, expected| Err(ModuleError::MissingExport { name, expected });
        if !has_memory {
            return missing(EXPORT_MEMORY, "its first memory");
        }
        if !self.exports_function(EXPORT_CONTRACT, &[], &[ValType::I32]) {
            return missing(EXPORT_CONTRACT, "a function () -> i32");
        }
        if !self.exports_function(EXPORT_HANDLE, &[ValType::I32, ValType::I32], &[ValType::I32]) {
            return missing(EXPORT_HANDLE, "a function (i32, i32) -> i32");
        }
        // Of another kind it would not be run, and its author would not be told.
        let has_initialize = self.exports.iter().any(|(name, ..)| name == EXPORT_INITIALIZE);
        if has_initialize && !self.exports_function(EXPORT_INITIALIZE, &[], &[]) {
            return missing(EXPORT_INITIALIZE, "a function () -> ()");
        }
        Ok(())
    }

    fn exports_function(&self, name: &str, params: &[ValType], results: &[ValType]) -> bool {
        self.export_type(name).is_some_and(|ty| ty.params() == params && ty.results() == results)
    }

    fn export_type(&self, name: &str) -> Option<&FuncType> {
        let (.., index) = self.exports.iter().find(|(found, kind, _)| {
            found == name && matches!(kind, ExternalKind::Func | ExternalKind::FuncExact)
        })?;
        self.types[self.function_types[*index as usize] as usize].as_ref()
    }
}

fn limit(what: &'static str, found: usize, limit: usize) -> Result<(), ModuleError> {
    if found > limit { Err(ModuleError::TooMany { what, found, limit }) } else { Ok(()) }
}

/// Returns parameters and results of an import that the contract has.
fn signature(module: &str, name: &str) -> Option<(&'static [ValType], &'static [ValType])> {
    const I32: ValType = ValType::I32;
    const I64: ValType = ValType::I64;
    if module != imports::MODULE {
        return None;
    }
    match name {
        imports::LOG => Some((&[I32, I32, I32], &[])),
        imports::CLOCK_WALL_NS | imports::CLOCK_MONOTONIC_NS => Some((&[], &[I64])),
        imports::RANDOM | imports::RESPONSE_WRITE => Some((&[I32, I32], &[])),
        imports::BODY_READ => Some((&[I32, I32], &[I32])),
        imports::RESPONSE_START | imports::EXIT | imports::FETCH_CLOSE => Some((&[I32], &[])),
        imports::FETCH | imports::FETCH_FINISH => Some((&[I32], &[I32])),
        imports::FETCH_WRITE
        | imports::FETCH_HEAD
        | imports::FETCH_READ
        | imports::TRAILERS_READ
        | imports::TRAILERS_WRITE => Some((&[I32, I32, I32], &[I32])),
        imports::WAIT => Some((&[I32, I32, I64], &[I32])),
        imports::SLEEP_NS => Some((&[I64], &[])),
        _ => None,
    }
}

fn section_name(id: u8) -> &'static str {
    const NAMES: [&str; 14] = [
        "custom",
        "type",
        "import",
        "function",
        "table",
        "memory",
        "global",
        "export",
        "start",
        "element",
        "code",
        "data",
        "data count",
        "tag",
    ];
    NAMES.get(usize::from(id)).copied().unwrap_or("unknown")
}

fn kind_name(kind: ExternalKind) -> &'static str {
    match kind {
        ExternalKind::Func | ExternalKind::FuncExact => "func",
        ExternalKind::Table => "table",
        ExternalKind::Memory => "memory",
        ExternalKind::Global => "global",
        ExternalKind::Tag => "tag",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTRACT: &str = r#"
        (memory (export "memory") 1)
        (func (export "midge_contract") (result i32) i32.const 0)
        (func (export "midge_handle") (param i32 i32) (result i32) i32.const 0)"#;

    fn read(extra: &str) -> Result<ModuleFacts, ModuleError> {
        let text = format!("(module {extra} {CONTRACT})");
        ModuleFacts::read(&binary_form(text.as_bytes())?)
    }

    fn refusal(extra: &str) -> String {
        read(extra).unwrap_err().to_string()
    }

    #[test]
    fn a_plain_module_is_accepted() {
        let facts = read("(global (mut i32) (i32.const 7))").unwrap();
        assert_eq!(facts.memories, [MemoryFacts { bytes: 65536, bytes_max: None }]);
        assert_eq!(facts.globals.len(), 1);
        assert!(!facts.has_startup());
    }

    #[test]
    fn classes_of_state_are_read_off_the_code() {
        let state = |body: &str| {
            let text = format!("(table 1 10 funcref) (data \"x\") (elem func) (func {body})");
            read(&text).unwrap().state
        };
        let base = StateClasses { memory: true, ..StateClasses::default() };
        let check = |body, expected| assert_eq!(state(body), expected, "{body}");
        check("", base.clone());
        check("i32.const 1 memory.grow drop", StateClasses { memory_growth: true, ..base.clone() });
        check(
            "i32.const 0 ref.null func table.set 0",
            StateClasses { tables: true, ..base.clone() },
        );
        check(
            "ref.null func i32.const 1 table.grow 0 drop",
            StateClasses { table_growth: true, ..base.clone() },
        );
        check("data.drop 0", StateClasses { data_drop: true, ..base.clone() });
        check("elem.drop 0", StateClasses { elem_drop: true, ..base });
    }

    #[test]
    fn what_lies_outside_the_features_is_refused_with_its_offset() {
        for extra in [
            "(memory 1 1 shared)",
            "(memory i64 1)",
            "(tag)",
            "(type (struct))",
            "(global externref (ref.null extern)) (func (param (ref null any)))",
        ] {
            let refusal = refusal(extra);
            assert!(refusal.contains("not valid at offset 0x"), "{extra}: {refusal}");
        }
    }

    #[test]
    fn imports_are_the_contracts_alone() {
        read(r#"(import "midge" "log" (func (param i32 i32 i32)))"#).unwrap();
        assert!(refusal(r#"(import "env" "abort" (func))"#).contains("`env.abort`"));
        assert!(refusal(r#"(import "midge" "log" (func))"#).contains("another type"));
        assert!(refusal(r#"(import "midge" "log" (global i32))"#).contains("does not offer"));
    }

    #[test]
    fn a_module_without_the_contract_is_refused() {
        let refusal = |text: &str| {
            ModuleFacts::read(&binary_form(text.as_bytes()).unwrap()).unwrap_err().to_string()
        };
        assert!(refusal("(module)").contains("`memory`"));
        let no_handle = r#"(module (memory (export "memory") 1)
            (func (export "midge_contract") (result i32) i32.const 0))"#;
        assert!(refusal(no_handle).contains("`midge_handle`"));
    }

    #[test]
    fn names_of_the_host_are_refused() {
        assert!(refusal("(table (export \"midge:table:7\") 1 funcref)").contains("the host's own"));
        assert!(refusal("(global (export \"midge:\") i32 (i32.const 0))").contains("`midge:`"));
        read("(global (export \"midge\") i32 (i32.const 0))").unwrap();
    }

    #[test]
    fn a_component_is_named_as_one() {
        assert!(matches!(
            ModuleFacts::read(b"\0asm\x0d\0\x01\0").unwrap_err(),
            ModuleError::Component
        ));
    }

    #[test]
    fn start_up_that_changes_tables_resists_a_snapshot() {
        let text = "(table 1 funcref) (func $s i32.const 0 ref.null func table.set 0) (start $s)";
        assert!(read(text).unwrap().startup_resists_snapshot());
        assert!(!read("(func $s) (start $s)").unwrap().startup_resists_snapshot());
    }
}
