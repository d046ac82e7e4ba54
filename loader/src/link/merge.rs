//! Makes many core modules one: their index spaces are put behind each other, and what one imports from another
//! becomes a use of it.
//!
//! ```text
//!   functions  imports of the host's | each module's own | made here: ways to the guest's memory, refusals, start
//!   memories   0 the WASI module's, and behind its own bytes the bundle of files | 1 the guest's
//!   tables, globals, types, segments: each module's own, in order
//! ```
//!
//! Segments are put in place before any start function runs. A component would run the start functions of its
//! first modules earlier; the one difference that code could see, data that is put over what a start function
//! wrote, is refused.

use std::collections::{BTreeMap, HashMap, HashSet};

use midge_abi::contract::{EXPORT_CONTRACT, EXPORT_HANDLE, EXPORT_MEMORY};
use wasm_encoder::reencode::{self, Reencode};
use wasm_encoder::{
    CodeSection, ConstExpr, DataCountSection, DataSection, ElementSection, EntityType, ExportKind,
    ExportSection, Function, FunctionSection, GlobalSection, GlobalType, ImportSection,
    InstructionSink, MemArg, MemorySection, MemoryType, Module, NameMap, NameSection, StartSection,
    TableSection, TypeSection, ValType,
};
use wasmparser::{
    CompositeInnerType, Data, DataKind, Element, ElementItems, ExternalKind, FuncType,
    FunctionBody, Global, KnownCustom, Operator, Parser, Payload, Table, TypeRef,
};

use super::component::{Component, Entry, Item};
use super::{LinkError, unsupported};
use crate::module::WASM_PAGE_SIZE;

/// Most pages of a memory of 32 bits.
const WASM_PAGES_MAX: u64 = 1 << 16;
/// The WASI module's place among the parts.
const WASI: usize = 0;
/// Its memory, with the bundle of files.
const WASI_MEMORY: u32 = 0;
/// The guest's memory.
const GUEST_MEMORY: u32 = 1;
/// Module name of the imports that reach the guest.
const GUEST: &str = "guest";
/// The function that refuses what is not offered.
const ABSENT: &str = "absent";
/// The WASI module's entry for programs, exported as that of the whole where there is one.
const COMMAND: &str = "command";

/// What a core module is made of.
#[derive(Default)]
struct Part<'a> {
    types: Vec<wasmparser::RecGroup>,
    function_types: Vec<Option<FuncType>>,
    /// Module, name, type index, of imported functions.
    imported_functions: Vec<(&'a str, &'a str, u32)>,
    imported_tables: Vec<(&'a str, &'a str)>,
    imported_memories: Vec<(&'a str, &'a str)>,
    imported_globals: Vec<(&'a str, &'a str)>,
    functions: Vec<u32>,
    tables: Vec<Table<'a>>,
    memories: Vec<wasmparser::MemoryType>,
    globals: Vec<Global<'a>>,
    exports: HashMap<&'a str, (ExternalKind, u32)>,
    start: Option<u32>,
    elements: Vec<Element<'a>>,
    data: Vec<Data<'a>>,
    bodies: Vec<FunctionBody<'a>>,
    names: Vec<(u32, &'a str)>,
}

impl<'a> Part<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, LinkError> {
        let mut part = Self::default();
        for payload in Parser::new(0).parse_all(bytes) {
            match payload? {
                Payload::TypeSection(section) => {
                    for group in section {
                        let group = group?;
                        for ty in group.types() {
                            part.function_types.push(match &ty.composite_type.inner {
                                CompositeInnerType::Func(function) => Some(function.clone()),
                                _ => None,
                            });
                        }
                        part.types.push(group);
                    }
                }
                Payload::ImportSection(section) => {
                    for import in section.into_imports() {
                        let import = import?;
                        let name = (import.module, import.name);
                        match import.ty {
                            TypeRef::Func(ty) => {
                                part.imported_functions.push((name.0, name.1, ty));
                            }
                            TypeRef::Table(_) => part.imported_tables.push(name),
                            TypeRef::Memory(_) => part.imported_memories.push(name),
                            TypeRef::Global(_) => part.imported_globals.push(name),
                            _ => return Err(unsupported("exceptions")),
                        }
                    }
                }
                Payload::FunctionSection(section) => {
                    part.functions = section.into_iter().collect::<Result<_, _>>()?;
                }
                Payload::TableSection(section) => {
                    part.tables = section.into_iter().collect::<Result<_, _>>()?;
                }
                Payload::MemorySection(section) => {
                    part.memories = section.into_iter().collect::<Result<_, _>>()?;
                }
                Payload::GlobalSection(section) => {
                    part.globals = section.into_iter().collect::<Result<_, _>>()?;
                }
                Payload::ExportSection(section) => {
                    for export in section {
                        let export = export?;
                        part.exports.insert(export.name, (export.kind, export.index));
                    }
                }
                Payload::StartSection { func, .. } => part.start = Some(func),
                Payload::ElementSection(section) => {
                    part.elements = section.into_iter().collect::<Result<_, _>>()?;
                }
                Payload::DataSection(section) => {
                    part.data = section.into_iter().collect::<Result<_, _>>()?;
                }
                Payload::CodeSectionEntry(body) => part.bodies.push(body),
                Payload::CustomSection(custom) => {
                    if let KnownCustom::Name(names) = custom.as_known() {
                        part.read_names(names);
                    }
                }
                _ => {}
            }
        }
        Ok(part)
    }

    /// Names are a courtesy: what does not parse is left out.
    fn read_names(&mut self, names: wasmparser::NameSectionReader<'a>) {
        for subsection in names.into_iter().flatten() {
            if let wasmparser::Name::Function(map) = subsection {
                let named = map.into_iter().flatten();
                self.names.extend(named.map(|naming| (naming.index, naming.name)));
            }
        }
    }

    /// Returns the type of a function, of its own or imported.
    fn type_of(&self, function: u32) -> Option<&FuncType> {
        let function = index(function);
        let imported = self.imported_functions.len();
        let ty = match self.imported_functions.get(function) {
            Some((.., ty)) => *ty,
            None => *self.functions.get(function - imported)?,
        };
        self.function_types.get(index(ty))?.as_ref()
    }

    fn function_count(&self) -> usize {
        self.imported_functions.len() + self.functions.len()
    }
}

/// Where a part's indices begin in the whole.
#[derive(Debug, Default, Clone)]
struct Places {
    types: u32,
    /// For each function of the part its index in the whole, imported ones first.
    functions: Vec<u32>,
    tables: Vec<u32>,
    memories: Vec<u32>,
    globals: Vec<u32>,
    elements: u32,
    data: u32,
    /// What the globals of the whole are initialised with that are never changed, encoded.
    constants: HashMap<u32, Vec<u8>>,
}

impl Places {
    /// Encodes a constant expression. One that reads a global of another module, which may read imported globals
    /// alone, gets what that global is initialised with: it is no import any more.
    fn constant(&mut self, expression: &wasmparser::ConstExpr<'_>) -> Result<Vec<u8>, Error> {
        let (mut operators, mut bytes) = (expression.get_operators_reader(), Vec::new());
        while !operators.is_end_then_eof() {
            match operators.read()? {
                Operator::GlobalGet { global_index } => {
                    let place = self.global_index(global_index)?;
                    let constant = self.constants.get(&place);
                    let unknown = || unsupported("a constant that reads a changing global");
                    bytes.extend(constant.ok_or_else(unknown).map_err(reencode::Error::UserError)?);
                }
                other => wasm_encoder::Encode::encode(&self.instruction(other)?, &mut bytes),
            }
        }
        Ok(bytes)
    }
}

impl Reencode for Places {
    type Error = LinkError;

    fn type_index(&mut self, ty: u32) -> Result<u32, Error> {
        Ok(self.types + ty)
    }

    fn function_index(&mut self, function: u32) -> Result<u32, Error> {
        Ok(self.functions[index(function)])
    }

    fn table_index(&mut self, table: u32) -> Result<u32, Error> {
        Ok(self.tables[index(table)])
    }

    fn memory_index(&mut self, memory: u32) -> Result<u32, Error> {
        Ok(self.memories[index(memory)])
    }

    fn global_index(&mut self, global: u32) -> Result<u32, Error> {
        Ok(self.globals[index(global)])
    }

    fn element_index(&mut self, element: u32) -> Result<u32, Error> {
        Ok(self.elements + element)
    }

    fn data_index(&mut self, data: u32) -> Result<u32, Error> {
        Ok(self.data + data)
    }

    fn const_expr(&mut self, expression: wasmparser::ConstExpr<'_>) -> Result<ConstExpr, Error> {
        Ok(ConstExpr::raw(self.constant(&expression)?))
    }
}

type Error = reencode::Error<LinkError>;

impl From<Error> for LinkError {
    fn from(error: Error) -> Self {
        match error {
            reencode::Error::UserError(error) => error,
            reencode::Error::ParseError(error) => error.into(),
            other => unsupported(format!("code that cannot be encoded again ({other})")),
        }
    }
}

/// What lies behind the WASI module's memory: a bundle of files, and room for the folder that may be written to.
#[derive(Clone, Copy, Default)]
pub(super) struct Behind<'a> {
    pub(super) files: &'a [u8],
    pub(super) scratch_bytes: u32,
}

/// What merging makes.
pub(super) struct Merged {
    /// The module.
    pub(super) wasm: Vec<u8>,
    /// Where the bundle of files begins in its first memory.
    pub(super) files_at: u64,
    /// For each core module of the component, in their order, the index of the first of its own functions. The bodies
    /// of these are encoded operator by operator, in their order.
    pub(super) first_functions: Vec<u32>,
}

/// Merges the WASI module and a component's core modules, and puts a bundle of files behind the memory of the first.
pub(super) fn merge(
    wasi: &[u8],
    component: &Component<'_>,
    behind: Behind<'_>,
) -> Result<Merged, LinkError> {
    let mut parts = vec![Part::read(wasi)?];
    for instance in &component.instances {
        parts.push(Part::read(instance.module)?);
    }
    let files = Files::behind(&parts, behind)?;
    let files_at = files.at.into();
    let merger = Merger::new(&parts, component, files)?;
    let first_functions = merger.own[WASI + 1..].iter().map(|own| own[0]).collect();
    Ok(Merged { wasm: merger.run()?, files_at, first_functions })
}

/// A bundle of files, and its place in the WASI module's memory.
struct Files<'a> {
    bytes: &'a [u8],
    at: u32,
    /// Pages of that memory with it, and with what it may grow by.
    pages: u64,
    pages_max: u64,
}

impl<'a> Files<'a> {
    fn behind(parts: &[Part<'_>], behind: Behind<'a>) -> Result<Self, LinkError> {
        let bytes = behind.files;
        let own = parts[WASI].memories.first().map_or(0, |memory| memory.initial);
        let pages = own + (bytes.len() as u64).div_ceil(WASM_PAGE_SIZE);
        let at = u32::try_from(own * WASM_PAGE_SIZE).ok().filter(|_| pages <= WASM_PAGES_MAX);
        let at = at.ok_or_else(|| unsupported("more files than a memory of 4 GiB has room for"))?;
        let mut pages_max = pages + u64::from(behind.scratch_bytes).div_ceil(WASM_PAGE_SIZE);
        // By its largest size the host tells this memory from the guest's, which has another limit.
        let mut guests = parts[WASI + 1..].iter().flat_map(|part| &part.memories);
        pages_max += u64::from(guests.any(|memory| memory.maximum == Some(pages_max)));
        Ok(Self { bytes, at, pages, pages_max })
    }

    /// Makes room in the WASI module's memory, which grows for the folder that may be written to alone.
    fn make_room(&self, memory: wasmparser::MemoryType) -> wasmparser::MemoryType {
        if self.bytes.is_empty() {
            return memory;
        }
        let maximum = Some(self.pages_max);
        wasmparser::MemoryType { initial: self.pages, maximum, ..memory }
    }
}

/// A function that is made here.
struct Made {
    name: String,
    params: Vec<ValType>,
    results: Vec<ValType>,
    body: Function,
}

struct Merger<'a> {
    parts: &'a [Part<'a>],
    component: &'a Component<'a>,
    files: Files<'a>,
    places: Vec<Places>,
    /// First function, table, global of each part's own.
    own: Vec<[u32; 4]>,
    /// Imports of the host's, in order: part of the WASI module's imports.
    host: Vec<(&'a str, &'a str, u32)>,
    made: Vec<Made>,
    /// Index of the first function that is made here.
    first_made: u32,
    /// Functions made for what is imported, by import.
    refusals: BTreeMap<String, u32>,
    wrappers: BTreeMap<(String, usize), u32>,
    reallocs: Vec<Item>,
    /// The global that says which `realloc` is to be called, if there are several.
    chooser: Option<u32>,
}

impl<'a> Merger<'a> {
    fn new(
        parts: &'a [Part<'a>],
        component: &'a Component<'a>,
        files: Files<'a>,
    ) -> Result<Self, LinkError> {
        let wasi = &parts[WASI];
        let host: Vec<_> = wasi
            .imported_functions
            .iter()
            .filter(|(module, ..)| *module != GUEST)
            .copied()
            .collect();
        let mut own = Vec::new();
        let mut next = [wire(host.len()), 0, 0, 0];
        for part in parts {
            own.push(next);
            next[0] += wire(part.functions.len());
            next[1] += wire(part.tables.len());
            next[2] += wire(part.memories.len());
            next[3] += wire(part.globals.len());
        }
        if next[2] > 2 {
            return Err(unsupported(format!("{} memories", next[2] - 1)));
        }
        let mut reallocs: Vec<Item> = Vec::new();
        for item in component.instances.iter().flat_map(|instance| instance.imports.values()) {
            if let Item::Wasi { realloc: Some(realloc), .. } = item
                && !reallocs.contains(realloc)
            {
                reallocs.push((**realloc).clone());
            }
        }
        // The order of a map is not one to depend on: same component, same bytes.
        reallocs.sort_by_key(|item| format!("{item:?}"));
        let chooser = (reallocs.len() > 1).then_some(next[3]);
        Ok(Self {
            parts,
            component,
            files,
            places: Vec::new(),
            own,
            host,
            made: Vec::new(),
            first_made: next[0],
            refusals: BTreeMap::new(),
            wrappers: BTreeMap::new(),
            reallocs,
            chooser,
        })
    }

    fn run(mut self) -> Result<Vec<u8>, LinkError> {
        self.place_wasi()?;
        for number in 1..self.parts.len() {
            let places = self.place(number)?;
            self.places.push(places);
        }
        // The ways to the guest refer to it, so they come when it has its place.
        self.make_ways()?;
        let start = self.make_start()?;
        self.encode(start)
    }

    /// Returns the parts that stand before all segments and types of a part.
    fn offsets(&self, number: usize) -> Places {
        let before = &self.parts[..number];
        let sum = |count: fn(&Part<'_>) -> usize| wire(before.iter().map(count).sum());
        Places {
            types: sum(|part| part.function_types.len()),
            elements: sum(|part| part.elements.len()),
            data: sum(|part| part.data.len()),
            ..Places::default()
        }
    }

    /// Adds what a part has of its own, behind what it imports.
    fn add_own(&self, number: usize, places: &mut Places) {
        let (part, own) = (&self.parts[number], self.own[number]);
        let items = |first: u32, count: usize| first..first + wire(count);
        places.functions.extend(items(own[0], part.functions.len()));
        places.tables.extend(items(own[1], part.tables.len()));
        places.memories.extend(items(own[2], part.memories.len()));
        places.globals.extend(items(own[3], part.globals.len()));
    }

    fn place_wasi(&mut self) -> Result<(), LinkError> {
        let wasi = &self.parts[WASI];
        let mut places = self.offsets(WASI);
        let mut host = 0..;
        for (module, name, ty) in &wasi.imported_functions {
            let place = if *module == GUEST {
                // Made later, in this order; their bodies follow in `make_ways`.
                self.reserve(name, wasi.function_types[index(*ty)].as_ref())?
            } else {
                host.next().expect("endless")
            };
            places.functions.push(place);
        }
        self.add_own(WASI, &mut places);
        self.places.push(places);
        Ok(())
    }

    fn reserve(&mut self, name: &str, ty: Option<&FuncType>) -> Result<u32, LinkError> {
        let ty = ty.ok_or_else(|| unsupported("an import without a type"))?;
        let (params, results) = signature(ty)?;
        Ok(self.make(Made {
            name: format!("guest.{name}"),
            params,
            results,
            body: Function::new([]),
        }))
    }

    fn make(&mut self, made: Made) -> u32 {
        self.made.push(made);
        self.first_made + wire(self.made.len()) - 1
    }

    fn place(&mut self, number: usize) -> Result<Places, LinkError> {
        let part = &self.parts[number];
        let mut places = self.offsets(number);
        for &(module, name, ty) in &part.imported_functions {
            let ty = part.function_types[index(ty)].as_ref();
            let place = self.imported_function(number, (module, name), ty)?;
            places.functions.push(place);
        }
        for &name in &part.imported_tables {
            let place = self.imported_item(number, name, ExternalKind::Table)?;
            places.tables.push(place);
        }
        for &name in &part.imported_memories {
            let place = self.imported_item(number, name, ExternalKind::Memory)?;
            places.memories.push(place);
        }
        for &name in &part.imported_globals {
            let place = self.imported_item(number, name, ExternalKind::Global)?;
            places.globals.push(place);
        }
        self.add_own(number, &mut places);
        Ok(places)
    }

    fn origin(&self, number: usize, name: (&'a str, &'a str)) -> Result<&'a Item, LinkError> {
        let imports = &self.component.instances[number - 1].imports;
        imports.get(&name).ok_or_else(|| unsupported(format!("no `{}.{}`", name.0, name.1)))
    }

    /// Returns the index of what an instance exports. It comes before whoever imports it.
    fn export(&self, instance: usize, name: &str, kind: ExternalKind) -> Result<u32, LinkError> {
        let (part, places) = (&self.parts[instance + 1], &self.places[instance + 1]);
        let missing = || unsupported(format!("no export `{name}` where one is needed"));
        let &(found, place) = part.exports.get(name).ok_or_else(missing)?;
        let space = match found {
            ExternalKind::Func | ExternalKind::FuncExact => &places.functions,
            ExternalKind::Table => &places.tables,
            ExternalKind::Memory => &places.memories,
            ExternalKind::Global => &places.globals,
            ExternalKind::Tag => return Err(unsupported("exceptions")),
        };
        if found != kind {
            return Err(missing());
        }
        space.get(index(place)).copied().ok_or_else(missing)
    }

    /// Returns the index of a function that an instance exports, if it has this type.
    fn typed_export(
        &self,
        instance: usize,
        name: &str,
        params: &[wasmparser::ValType],
        results: &[wasmparser::ValType],
    ) -> Result<u32, LinkError> {
        let function = self.export(instance, name, ExternalKind::Func)?;
        let part = &self.parts[instance + 1];
        let ty = part.exports.get(name).and_then(|(_, place)| part.type_of(*place));
        if ty.is_none_or(|ty| ty.params() != params || ty.results() != results) {
            return Err(unsupported(format!("a function `{name}` of another type")));
        }
        Ok(function)
    }

    fn imported_item(
        &self,
        number: usize,
        name: (&'a str, &'a str),
        kind: ExternalKind,
    ) -> Result<u32, LinkError> {
        match self.origin(number, name)? {
            Item::Export { instance, name } => self.export(*instance, name, kind),
            Item::Wasi { .. } => Err(unsupported("a function where something else is imported")),
        }
    }

    fn imported_function(
        &mut self,
        number: usize,
        name: (&'a str, &'a str),
        ty: Option<&FuncType>,
    ) -> Result<u32, LinkError> {
        match self.origin(number, name)? {
            Item::Export { instance, name } => self.export(*instance, name, ExternalKind::Func),
            Item::Wasi { name, realloc } => self.wasi(name, realloc.as_deref(), ty),
        }
    }

    /// Returns a function of WASI's, or one that refuses where the WASI module has none.
    fn wasi(
        &mut self,
        name: &str,
        realloc: Option<&Item>,
        ty: Option<&FuncType>,
    ) -> Result<u32, LinkError> {
        let ty = ty.ok_or_else(|| unsupported("an import without a type"))?;
        let wasi = &self.parts[WASI];
        let Some(&(_, function)) = wasi.exports.get(name) else { return self.refusal(name, ty) };
        if wasi.type_of(function) != Some(ty) {
            return Err(LinkError::ImportType { name: name.to_owned() });
        }
        let function = self.places[WASI].functions[index(function)];
        let (Some(chooser), Some(realloc)) = (self.chooser, realloc) else { return Ok(function) };
        let choice = self.reallocs.iter().position(|known| known == realloc).expect("collected");
        let key = (name.to_owned(), choice);
        if let Some(&wrapper) = self.wrappers.get(&key) {
            return Ok(wrapper);
        }
        let (params, results) = signature(ty)?;
        let mut body = Function::new([]);
        let mut code = body.instructions();
        code.i32_const(wire(choice).cast_signed()).global_set(chooser);
        arguments(&mut code, params.len()).call(function).end();
        let wrapper = self.make(Made { name: name.to_owned(), params, results, body });
        self.wrappers.insert(key, wrapper);
        Ok(wrapper)
    }

    fn refusal(&mut self, name: &str, ty: &FuncType) -> Result<u32, LinkError> {
        let absent = self.wasi_export(ABSENT)?;
        let (params, results) = signature(ty)?;
        let key = format!("{name} {ty:?}");
        if let Some(&refusal) = self.refusals.get(&key) {
            return Ok(refusal);
        }
        let mut body = Function::new([]);
        body.instructions().call(absent).unreachable().end();
        let name = format!("{name} (not offered)");
        let refusal = self.make(Made { name, params, results, body });
        self.refusals.insert(key, refusal);
        Ok(refusal)
    }

    fn wasi_export(&self, name: &str) -> Result<u32, LinkError> {
        let missing = || unsupported(format!("no `{name}` in the WASI module"));
        let &(_, place) = self.parts[WASI].exports.get(name).ok_or_else(missing)?;
        self.places[WASI].functions.get(index(place)).copied().ok_or_else(missing)
    }

    /// Makes the functions by which the WASI module reaches the guest.
    fn make_ways(&mut self) -> Result<(), LinkError> {
        use wasmparser::ValType::I32;
        let item = |item: &Item, params: &[_], results: &[_]| match item {
            Item::Export { instance, name } => self.typed_export(*instance, name, params, results),
            Item::Wasi { .. } => Err(unsupported("a function of WASI's for its own")),
        };
        let entry = self.component.entry.as_ref().expect("`read` found it");
        let (handler, run, start) = match entry {
            Entry::Handler(handler) => (Some(item(handler, &[I32, I32], &[])?), None, None),
            Entry::Run(run) => (None, Some(item(run, &[], &[I32])?), None),
            Entry::Start(start) => (None, None, Some(item(start, &[], &[])?)),
        };
        let reallocs = self.reallocs.iter().map(|realloc| item(realloc, &[I32; 4], &[I32]));
        let reallocs = reallocs.collect::<Result<Vec<_>, _>>()?;
        let chooser = self.chooser;
        let (files_at, files_size) = (self.files.at, wire(self.files.bytes.len()));
        for made in &mut self.made {
            let Some(name) = made.name.strip_prefix("guest.") else { continue };
            let mut code = made.body.instructions();
            let guest = |align| MemArg { offset: 0, align, memory_index: GUEST_MEMORY };
            match name {
                "memory_size" => code.memory_size(GUEST_MEMORY),
                "read" => arguments(&mut code, 3).memory_copy(0, GUEST_MEMORY),
                "write" => arguments(&mut code, 3).memory_copy(GUEST_MEMORY, 0),
                "read_u32" => code.local_get(0).i32_load(guest(2)),
                "write_u8" => arguments(&mut code, 2).i32_store8(guest(0)),
                "write_u32" => arguments(&mut code, 2).i32_store(guest(2)),
                "write_u64" => arguments(&mut code, 2).i64_store(guest(3)),
                "files" => code.i32_const(files_at.cast_signed()),
                "files_size" => code.i32_const(files_size.cast_signed()),
                "handle" => match handler {
                    Some(handler) => arguments(&mut code, 2).call(handler),
                    None => code.unreachable(),
                },
                "run" => match (run, start) {
                    (Some(run), _) => code.call(run),
                    (_, Some(start)) => code.call(start).i32_const(0),
                    _ => code.unreachable(),
                },
                "realloc" => match (&*reallocs, chooser) {
                    ([], _) => code.unreachable(),
                    ([realloc], _) | ([realloc, ..], None) => {
                        arguments(&mut code, 4).call(*realloc)
                    }
                    (reallocs, Some(chooser)) => {
                        for (choice, realloc) in (0..).zip(reallocs) {
                            code.global_get(chooser).i32_const(choice).i32_eq();
                            code.if_(wasm_encoder::BlockType::Empty);
                            arguments(&mut code, 4).call(*realloc).return_().end();
                        }
                        code.unreachable()
                    }
                },
                other => return Err(unsupported(format!("no way `{other}` to the guest"))),
            };
            made.body.instructions().end();
        }
        Ok(())
    }

    /// Makes a function that runs all start functions in the order of their modules.
    fn make_start(&mut self) -> Result<Option<u32>, LinkError> {
        let mut starts = Vec::new();
        for (part, places) in self.parts.iter().zip(&self.places) {
            let puts_data =
                part.data.iter().any(|data| matches!(data.kind, DataKind::Active { .. }));
            if puts_data && !starts.is_empty() {
                return Err(unsupported("a start function that runs before data is put in place"));
            }
            starts.extend(part.start.map(|start| places.functions[index(start)]));
        }
        if let Some(Item::Export { instance, name }) = &self.component.initialize {
            starts.push(self.typed_export(*instance, name, &[], &[])?);
        }
        if starts.is_empty() {
            return Ok(None);
        }
        let mut body = Function::new([]);
        let mut code = body.instructions();
        for start in starts {
            code.call(start);
        }
        code.end();
        let (params, results) = (Vec::new(), Vec::new());
        Ok(Some(self.make(Made { name: "start".into(), params, results, body })))
    }

    fn encode(mut self, start: Option<u32>) -> Result<Vec<u8>, LinkError> {
        let (mut types, mut imports, mut functions) =
            (TypeSection::new(), ImportSection::new(), FunctionSection::new());
        let (mut tables, mut memories, mut globals) =
            (TableSection::new(), MemorySection::new(), GlobalSection::new());
        let (mut elements, mut code, mut data) =
            (ElementSection::new(), CodeSection::new(), DataSection::new());
        let mut names = NameMap::new();
        for (module, name, ty) in &self.host {
            imports.import(module, name, EntityType::Function(*ty));
        }
        let used = used_functions(&self.parts[WASI], &self.used_exports());
        let mut functions_named: BTreeMap<u32, String> = BTreeMap::new();
        let mut constants = HashMap::new();
        for (number, part) in self.parts.iter().enumerate() {
            let places = &mut self.places[number];
            places.constants = std::mem::take(&mut constants);
            for group in &part.types {
                places.parse_recursive_type_group(types.ty(), group.clone())?;
            }
            for ty in &part.functions {
                functions.function(places.types + ty);
            }
            for table in &part.tables {
                places.parse_table(&mut tables, table.clone())?;
            }
            for &memory in &part.memories {
                let memory = if number == WASI { self.files.make_room(memory) } else { memory };
                memories.memory(places.memory_type(memory)?);
            }
            for (place, global) in (part.imported_globals.len()..).zip(&part.globals) {
                let constant = places.constant(&global.init_expr)?;
                globals.global(places.global_type(global.ty)?, &ConstExpr::raw(constant.clone()));
                if !global.ty.mutable {
                    places.constants.insert(places.globals[place], constant);
                }
            }
            for element in &part.elements {
                places.parse_element(&mut elements, element.clone())?;
            }
            for segment in &part.data {
                places.parse_data(&mut data, segment.clone())?;
            }
            for (function, body) in (part.imported_functions.len()..).zip(&part.bodies) {
                if number == WASI && !used.contains(&wire(function)) {
                    code.function(&unreachable());
                } else {
                    places.parse_function_body(&mut code, body.clone())?;
                }
            }
            constants = std::mem::take(&mut places.constants);
            for (function, name) in &part.names {
                if let Some(place) = places.functions.get(index(*function))
                    && index(*function) >= part.imported_functions.len()
                {
                    functions_named.insert(*place, (*name).to_owned());
                }
            }
        }
        if !self.files.bytes.is_empty() {
            let at = ConstExpr::i32_const(self.files.at.cast_signed());
            data.active(WASI_MEMORY, &at, self.files.bytes.iter().copied());
        }
        if memories.len() == GUEST_MEMORY {
            // A guest without a memory of its own: what reaches it traps.
            memories.memory(MemoryType {
                minimum: 0,
                maximum: Some(0),
                memory64: false,
                shared: false,
                page_size_log2: None,
            });
        }
        if self.chooser.is_some() {
            let ty = GlobalType { val_type: ValType::I32, mutable: true, shared: false };
            globals.global(ty, &ConstExpr::i32_const(0));
        }
        let places = (types_count(self.parts)..).zip(self.first_made..);
        for ((ty, place), made) in places.zip(&self.made) {
            types.ty().function(made.params.iter().copied(), made.results.iter().copied());
            functions.function(ty);
            code.function(&made.body);
            functions_named.insert(place, made.name.clone());
        }
        let mut exports = ExportSection::new();
        exports.export(EXPORT_MEMORY, ExportKind::Memory, 0);
        for (name, function) in [(EXPORT_CONTRACT, EXPORT_CONTRACT), (EXPORT_HANDLE, self.entry())]
        {
            exports.export(name, ExportKind::Func, self.wasi_export(function)?);
        }
        for (place, name) in &functions_named {
            names.append(*place, name);
        }

        let mut module = Module::new();
        module.section(&types).section(&imports).section(&functions);
        if !tables.is_empty() {
            module.section(&tables);
        }
        module.section(&memories);
        if !globals.is_empty() {
            module.section(&globals);
        }
        module.section(&exports);
        if let Some(function_index) = start {
            module.section(&StartSection { function_index });
        }
        if !elements.is_empty() {
            module.section(&elements);
        }
        module.section(&DataCountSection { count: data.len() });
        module.section(&code);
        if !data.is_empty() {
            module.section(&data);
        }
        let mut section = NameSection::new();
        section.functions(&names);
        module.section(&section);
        Ok(module.finish())
    }

    /// Returns the name of the WASI module's function that answers requests.
    fn entry(&self) -> &'static str {
        match self.component.entry {
            Some(Entry::Run(_) | Entry::Start(_)) => COMMAND,
            _ => EXPORT_HANDLE,
        }
    }

    /// Returns the names of the WASI module's exports that somebody calls.
    fn used_exports(&self) -> Vec<&str> {
        let mut used = vec![EXPORT_CONTRACT, self.entry(), ABSENT];
        for item in self.component.instances.iter().flat_map(|instance| instance.imports.values()) {
            if let Item::Wasi { name, .. } = item {
                used.push(name);
            }
        }
        used
    }
}

/// Finds the functions of a part that its exports of these names can reach.
fn used_functions(part: &Part<'_>, exports: &[&str]) -> HashSet<u32> {
    let named = exports.iter().filter_map(|name| part.exports.get(name));
    let mut open: Vec<u32> = named.map(|(_, place)| *place).chain(part.start).collect();
    for element in &part.elements {
        match &element.items {
            ElementItems::Functions(functions) => {
                open.extend(functions.clone().into_iter().flatten())
            }
            // Not made by a compiler; then everything stays.
            ElementItems::Expressions(..) => open.extend(0..wire(part.function_count())),
        }
    }
    let mut used = HashSet::new();
    while let Some(function) = open.pop() {
        if !used.insert(function) {
            continue;
        }
        let own = index(function).checked_sub(part.imported_functions.len());
        let Some(body) = own.and_then(|own| part.bodies.get(own)) else { continue };
        let Ok(reader) = body.get_operators_reader() else { continue };
        for operator in reader.into_iter().flatten() {
            match operator {
                Operator::Call { function_index }
                | Operator::ReturnCall { function_index }
                | Operator::RefFunc { function_index } => open.push(function_index),
                _ => {}
            }
        }
    }
    used
}

/// Returns the body of a function that nobody calls.
fn unreachable() -> Function {
    let mut body = Function::new([]);
    body.instructions().unreachable().end();
    body
}

fn types_count(parts: &[Part<'_>]) -> u32 {
    wire(parts.iter().map(|part| part.function_types.len()).sum())
}

fn signature(ty: &FuncType) -> Result<(Vec<ValType>, Vec<ValType>), LinkError> {
    let value = |ty: &wasmparser::ValType| match ty {
        wasmparser::ValType::I32 => Ok(ValType::I32),
        wasmparser::ValType::I64 => Ok(ValType::I64),
        wasmparser::ValType::F32 => Ok(ValType::F32),
        wasmparser::ValType::F64 => Ok(ValType::F64),
        _ => Err(unsupported("a function of WASI's with other than numbers")),
    };
    let values = |types: &[wasmparser::ValType]| {
        types.iter().map(value).collect::<Result<Vec<_>, LinkError>>()
    };
    Ok((values(ty.params())?, values(ty.results())?))
}

fn arguments<'s, 'c>(
    code: &'s mut InstructionSink<'c>,
    count: usize,
) -> &'s mut InstructionSink<'c> {
    for argument in 0..wire(count) {
        code.local_get(argument);
    }
    code
}

const fn index(number: u32) -> usize {
    midge_abi::width::index(number)
}

fn wire(size: usize) -> u32 {
    midge_abi::width::wire(size)
}
