//! Reads a component: evaluates its sections as an instantiation would, with names in place of values.
//!
//! The result is the list of core modules that are to be instantiated, each import with where it comes from, and
//! the core function behind the exported handler. The component was validated before, so that indices and kinds
//! can be trusted; what is bounded here is how much there is.

use std::collections::HashMap;
use std::rc::Rc;

use midge_abi::contract::EXPORT_INITIALIZE;
use wasmparser::{
    CanonicalFunction, CanonicalOption, ComponentAlias, ComponentExternalKind, ComponentInstance,
    ComponentOuterAliasKind, ComponentType, Encoding, ExternalKind, Instance, Parser, Payload,
};

use super::{LinkError, unsupported};

/// Most core modules of a component, instances counted: `componentize-py` makes some two dozen.
const INSTANCES_MAX: usize = 256;
/// Most components that are instantiated within one, and so deep.
const COMPONENTS_MAX: usize = 256;
/// Most items of one index space.
const ITEMS_MAX: usize = 100_000;

/// A component, taken apart.
#[derive(Debug, Default)]
pub(super) struct Component<'a> {
    /// What is instantiated, in order.
    pub(super) instances: Vec<CoreInstance<'a>>,
    /// What answers requests.
    pub(super) entry: Option<Entry>,
    /// What a core module wants to have run first. A component's own modules see to that themselves.
    pub(super) initialize: Option<Item>,
}

/// What answers requests.
#[derive(Debug, Clone)]
pub(super) enum Entry {
    /// `wasi:http/incoming-handler` `handle`.
    Handler(Item),
    /// `wasi:cli/run` `run`: a program.
    Run(Item),
    /// `_start` of a core module: a program too.
    Start(Item),
}

/// A core module, to be instantiated.
#[derive(Debug)]
pub(super) struct CoreInstance<'a> {
    /// Its bytes.
    pub(super) module: &'a [u8],
    /// Its imports by both parts of their names.
    pub(super) imports: HashMap<(&'a str, &'a str), Item>,
}

/// Something of the core: a function, a memory, a table or a global.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Item {
    /// An export of an instance.
    Export { instance: usize, name: String },
    /// A function of WASI, by its name there.
    Wasi { name: String, realloc: Option<Box<Item>> },
}

/// A function of the component model.
#[derive(Debug, Clone)]
enum Func {
    /// Of an imported interface.
    Imported(String),
    /// Of the component's own.
    Lifted(Item),
}

/// What a type stands for, as far as it matters here.
#[derive(Debug, Clone)]
enum Type {
    /// A resource of an imported interface, or another type of it.
    Imported(String),
    /// A resource that the component defines.
    OwnResource,
    Other,
}

/// A value of the component model.
#[derive(Debug, Clone)]
enum Value<'a> {
    Func(Func),
    Type(Type),
    Instance(Rc<Exports<'a>>),
    Component(Rc<Closure<'a>>),
    Module(&'a [u8]),
}

/// What an instance exports.
#[derive(Debug)]
enum Exports<'a> {
    /// An interface of the host's, without its version.
    Imported(String),
    Own(HashMap<&'a str, Value<'a>>),
}

/// A component, with the scope that it was found in.
#[derive(Debug)]
struct Closure<'a> {
    bytes: &'a [u8],
    scope: usize,
}

/// A core instance: a module's, or a bag of items.
#[derive(Debug)]
enum Core<'a> {
    Module(usize),
    Bag(HashMap<&'a str, Item>),
}

impl Core<'_> {
    /// Returns what the instance has under a name.
    fn item(&self, name: &str) -> Item {
        match self {
            Self::Module(instance) => Item::Export { instance: *instance, name: name.to_owned() },
            Self::Bag(bag) => bag.get(name).expect("validated").clone(),
        }
    }
}

/// The index spaces of one component.
#[derive(Debug, Default)]
struct Scope<'a> {
    parent: Option<usize>,
    core_items: HashMap<Sort, Vec<Item>>,
    core_modules: Vec<&'a [u8]>,
    core_instances: Vec<Core<'a>>,
    funcs: Vec<Func>,
    types: Vec<Type>,
    instances: Vec<Rc<Exports<'a>>>,
    components: Vec<Rc<Closure<'a>>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Sort {
    Func,
    Table,
    Memory,
    Global,
    Tag,
}

impl From<ExternalKind> for Sort {
    fn from(kind: ExternalKind) -> Self {
        match kind {
            ExternalKind::Func | ExternalKind::FuncExact => Self::Func,
            ExternalKind::Table => Self::Table,
            ExternalKind::Memory => Self::Memory,
            ExternalKind::Global => Self::Global,
            ExternalKind::Tag => Self::Tag,
        }
    }
}

/// Reads a valid component.
pub(super) fn read(bytes: &[u8]) -> Result<Component<'_>, LinkError> {
    let mut reader = Reader::default();
    let exports = reader.component(bytes, None, None)?;
    let lifted = |interface: &str, function: &str| {
        let mut values = exports.iter();
        values.find_map(|(name, value)| {
            let Value::Instance(exports) = value else { return None };
            let Exports::Own(exports) = &**exports else { return None };
            match exports.get(function) {
                Some(Value::Func(Func::Lifted(item)))
                    if without_version(name) == Some(interface) =>
                {
                    Some(item.clone())
                }
                _ => None,
            }
        })
    };
    let handler = lifted(HANDLER.0, HANDLER.1).map(Entry::Handler);
    let entry = handler.or_else(|| lifted(RUN.0, RUN.1).map(Entry::Run));
    if entry.is_none() {
        let mut names: Vec<_> = exports.keys().map(|name| format!("`{name}`")).collect();
        names.sort_unstable();
        let exports = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
        return Err(LinkError::NoHandler { exports });
    }
    Ok(Component { instances: reader.instances, entry, initialize: None })
}

/// Module name of the imports of WASI preview 1.
const PREVIEW1: &str = "wasi_snapshot_preview1";
/// What a core module is entered by, in the order in which it is looked for: interface and function, as the
/// tools name them that make components of such modules, and `_start`.
const HANDLER: (&str, &str) = ("wasi:http/incoming-handler", "handle");
const RUN: (&str, &str) = ("wasi:cli/run", "run");
const START: &str = "_start";
/// The function that makes room in a core module's memory.
const REALLOC: &str = "cabi_realloc";

/// Returns both parts of the names of what a module imports.
fn imports_of(module: &[u8]) -> Result<Vec<(&str, &str)>, LinkError> {
    for payload in Parser::new(0).parse_all(module) {
        if let Payload::ImportSection(section) = payload? {
            let imports = section.into_imports();
            let names = imports.map(|import| import.map(|import| (import.module, import.name)));
            return Ok(names.collect::<Result<_, _>>()?);
        }
    }
    Ok(Vec::new())
}

/// Returns the names of what a module exports, if all of it parses.
fn exports_of(module: &[u8]) -> Result<Vec<&str>, LinkError> {
    let mut names = Vec::new();
    for payload in Parser::new(0).parse_all(module) {
        if let Payload::ExportSection(section) = payload? {
            names.extend(section.into_iter().flatten().map(|export| export.name));
        }
    }
    Ok(names)
}

/// Finds the entry of a core module that was made for WASI, and not for the contract.
pub(super) fn entry_of_module(module: &[u8]) -> Option<Entry> {
    let names = exports_of(module).ok()?;
    if names.contains(&midge_abi::contract::EXPORT_CONTRACT) {
        return None;
    }
    let find = |(interface, function)| {
        let is_it = |name: &&&str| {
            let parts = name.split_once('#');
            parts.is_some_and(|(found, name)| {
                without_version(found) == Some(interface) && name == function
            })
        };
        let name = names.iter().find(is_it)?;
        Some(Item::Export { instance: 0, name: (*name).to_owned() })
    };
    let start = || names.contains(&START).then(|| Item::Export { instance: 0, name: START.into() });
    find(HANDLER)
        .map(Entry::Handler)
        .or_else(|| find(RUN).map(Entry::Run))
        .or_else(|| start().map(Entry::Start))
}

/// Reads a valid core module that was made for WASI: a program of preview 1, or what the tools make components
/// of.
pub(super) fn read_module(module: &[u8], entry: Entry) -> Result<Component<'_>, LinkError> {
    let exports = exports_of(module)?;
    let exported = |name: &str| {
        exports.contains(&name).then(|| Item::Export { instance: 0, name: name.to_owned() })
    };
    let realloc = exported(REALLOC).map(Box::new);
    let mut imports = HashMap::new();
    for (from, name) in imports_of(module)? {
        let known = without_version(from).filter(|from| *from == PREVIEW1 || is_known(from));
        let Some(interface) = known else {
            return Err(LinkError::UnknownImport { name: format!("{from}#{name}") });
        };
        let full = format!("{interface}#{name}");
        imports.insert((from, name), Item::Wasi { name: full, realloc: realloc.clone() });
    }
    let initialize = exported(EXPORT_INITIALIZE);
    let instances = vec![CoreInstance { module, imports }];
    Ok(Component { instances, entry: Some(entry), initialize })
}

/// Takes the version off an interface's name, if it is one of those that are offered.
fn without_version(name: &str) -> Option<&str> {
    match name.split_once('@') {
        None => Some(name),
        Some((interface, version)) => version.starts_with("0.2.").then_some(interface),
    }
}

#[derive(Debug, Default)]
struct Reader<'a> {
    instances: Vec<CoreInstance<'a>>,
    scopes: Vec<Scope<'a>>,
}

impl<'a> Reader<'a> {
    /// Instantiates a component. Without arguments it is the outermost one, whose imports are the host's.
    fn component(
        &mut self,
        bytes: &'a [u8],
        parent: Option<usize>,
        arguments: Option<&HashMap<&'a str, Value<'a>>>,
    ) -> Result<HashMap<&'a str, Value<'a>>, LinkError> {
        let scope = self.scopes.len();
        if scope == COMPONENTS_MAX {
            return Err(LinkError::TooMany { what: "components", limit: COMPONENTS_MAX });
        }
        self.scopes.push(Scope { parent, ..Scope::default() });
        let mut exports = HashMap::new();
        // Components and modules within this one: their payloads follow, and are read when they are used.
        let mut depth = 0u32;
        for payload in Parser::new(0).parse_all(bytes) {
            let payload = payload?;
            match payload {
                Payload::ModuleSection { unchecked_range, .. } => {
                    if depth == 0 {
                        self.scopes[scope].core_modules.push(within(bytes, unchecked_range)?);
                    }
                    depth += 1;
                }
                Payload::ComponentSection { unchecked_range, .. } => {
                    if depth == 0 {
                        let closure = Closure { bytes: within(bytes, unchecked_range)?, scope };
                        self.scopes[scope].components.push(Rc::new(closure));
                    }
                    depth += 1;
                }
                Payload::End(_) => depth = depth.saturating_sub(1),
                _ if depth > 0 => {}
                other => self.section(scope, other, arguments, &mut exports)?,
            }
        }
        Ok(exports)
    }

    fn section(
        &mut self,
        scope: usize,
        payload: Payload<'a>,
        arguments: Option<&HashMap<&'a str, Value<'a>>>,
        exports: &mut HashMap<&'a str, Value<'a>>,
    ) -> Result<(), LinkError> {
        match payload {
            Payload::Version { encoding: Encoding::Component, .. } | Payload::CustomSection(_) => {}
            Payload::CoreTypeSection(_) => {}
            Payload::InstanceSection(section) => {
                for instance in section {
                    self.core_instance(scope, instance?)?;
                }
            }
            Payload::ComponentTypeSection(section) => {
                for ty in section {
                    let ty = match ty? {
                        ComponentType::Resource { .. } => Type::OwnResource,
                        _ => Type::Other,
                    };
                    self.push(scope, Value::Type(ty))?;
                }
            }
            Payload::ComponentImportSection(section) => {
                for import in section {
                    let import = import?;
                    let name = import.name.name;
                    let value = match arguments {
                        Some(arguments) => arguments
                            .get(name)
                            .cloned()
                            .ok_or_else(|| unsupported(format!("an argument too few, `{name}`")))?,
                        None => imported(name, import.ty.kind())?,
                    };
                    self.push(scope, value)?;
                }
            }
            Payload::ComponentAliasSection(section) => {
                for alias in section {
                    self.alias(scope, alias?)?;
                }
            }
            Payload::ComponentCanonicalSection(section) => {
                for canonical in section {
                    self.canonical(scope, canonical?)?;
                }
            }
            Payload::ComponentInstanceSection(section) => {
                for instance in section {
                    self.component_instance(scope, instance?)?;
                }
            }
            Payload::ComponentExportSection(section) => {
                for export in section {
                    let export = export?;
                    let value = self.value(scope, export.kind, export.index)?;
                    self.push(scope, value.clone())?;
                    exports.insert(export.name.name, value);
                }
            }
            Payload::ComponentStartSection { .. } => {
                return Err(unsupported("a start function"));
            }
            _ => return Err(unsupported("a section of an unknown kind")),
        }
        Ok(())
    }

    fn core_instance(&mut self, scope: usize, instance: Instance<'a>) -> Result<(), LinkError> {
        let core = match instance {
            Instance::Instantiate { module_index, args } => {
                let from = &self.scopes[scope];
                let module = from.core_modules[index(module_index)];
                let mut imports = HashMap::new();
                for (argument, name) in imports_of(module)? {
                    let place = args.iter().find(|known| known.name == argument);
                    let place = index(place.expect("validated").index);
                    imports.insert((argument, name), from.core_instances[place].item(name));
                }
                if self.instances.len() == INSTANCES_MAX {
                    return Err(LinkError::TooMany {
                        what: "core instances",
                        limit: INSTANCES_MAX,
                    });
                }
                self.instances.push(CoreInstance { module, imports });
                Core::Module(self.instances.len() - 1)
            }
            Instance::FromExports(exports) => {
                let mut bag = HashMap::new();
                for export in &*exports {
                    let items = self.scopes[scope].core_items.get(&Sort::from(export.kind));
                    let item = items.and_then(|items| items.get(index(export.index)));
                    bag.insert(export.name, item.expect("validated").clone());
                }
                Core::Bag(bag)
            }
        };
        self.scopes[scope].core_instances.push(core);
        Ok(())
    }

    fn alias(&mut self, scope: usize, alias: ComponentAlias<'a>) -> Result<(), LinkError> {
        match alias {
            ComponentAlias::CoreInstanceExport { kind, instance_index, name } => {
                let item = self.scopes[scope].core_instances[index(instance_index)].item(name);
                self.push_core(scope, kind.into(), item)
            }
            ComponentAlias::InstanceExport { kind, instance_index, name } => {
                let instance = Rc::clone(&self.scopes[scope].instances[index(instance_index)]);
                let value = match &*instance {
                    Exports::Own(exports) => exports.get(name).expect("validated").clone(),
                    Exports::Imported(interface) => member(interface, name, kind)?,
                };
                self.push(scope, value)
            }
            ComponentAlias::Outer { kind, count, index: place } => {
                let mut outer = scope;
                for _ in 0..count {
                    outer = self.scopes[outer].parent.expect("validated");
                }
                let place = index(place);
                let value = match kind {
                    ComponentOuterAliasKind::CoreModule => {
                        Value::Module(self.scopes[outer].core_modules[place])
                    }
                    ComponentOuterAliasKind::CoreType => return Ok(()),
                    ComponentOuterAliasKind::Type => {
                        Value::Type(self.scopes[outer].types[place].clone())
                    }
                    ComponentOuterAliasKind::Component => {
                        Value::Component(Rc::clone(&self.scopes[outer].components[place]))
                    }
                };
                self.push(scope, value)
            }
        }
    }

    fn canonical(&mut self, scope: usize, canonical: CanonicalFunction) -> Result<(), LinkError> {
        match canonical {
            CanonicalFunction::Lift { core_func_index, options, .. } => {
                self.options(scope, &options)?;
                let item = self.core_func(scope, core_func_index);
                self.push(scope, Value::Func(Func::Lifted(item)))
            }
            CanonicalFunction::Lower { func_index, options } => {
                let realloc = self.options(scope, &options)?.map(Box::new);
                let Func::Imported(name) = self.scopes[scope].funcs[index(func_index)].clone()
                else {
                    return Err(unsupported("calls between components"));
                };
                self.push_core(scope, Sort::Func, Item::Wasi { name, realloc })
            }
            CanonicalFunction::ResourceDrop { resource } => {
                let Type::Imported(name) = self.scopes[scope].types[index(resource)].clone() else {
                    return Err(unsupported("resources of its own"));
                };
                let (interface, resource) = name.split_once('#').expect("made of both");
                let name = format!("{interface}#[resource-drop]{resource}");
                self.push_core(scope, Sort::Func, Item::Wasi { name, realloc: None })
            }
            CanonicalFunction::ResourceNew { .. } | CanonicalFunction::ResourceRep { .. } => {
                Err(unsupported("resources of its own"))
            }
            _ => Err(unsupported("asynchronous functions or threads")),
        }
    }

    /// Checks the options of a lift or a lower. Returns its `realloc`.
    fn options(
        &self,
        scope: usize,
        options: &[CanonicalOption],
    ) -> Result<Option<Item>, LinkError> {
        let mut realloc = None;
        for option in options {
            match option {
                // What `post-return` would free is set back with everything else.
                CanonicalOption::UTF8
                | CanonicalOption::Memory(_)
                | CanonicalOption::PostReturn(_) => {}
                CanonicalOption::Realloc(function) => {
                    realloc = Some(self.core_func(scope, *function));
                }
                CanonicalOption::UTF16 | CanonicalOption::CompactUTF16 => {
                    return Err(unsupported("strings that are not UTF-8"));
                }
                _ => return Err(unsupported("asynchronous functions")),
            }
        }
        Ok(realloc)
    }

    fn core_func(&self, scope: usize, function: u32) -> Item {
        self.scopes[scope].core_items[&Sort::Func][index(function)].clone()
    }

    fn component_instance(
        &mut self,
        scope: usize,
        instance: ComponentInstance<'a>,
    ) -> Result<(), LinkError> {
        let exports = match instance {
            ComponentInstance::Instantiate { component_index, args } => {
                let closure = Rc::clone(&self.scopes[scope].components[index(component_index)]);
                let mut arguments = HashMap::new();
                for argument in &*args {
                    let value = self.value(scope, argument.kind, argument.index)?;
                    arguments.insert(argument.name, value);
                }
                self.component(closure.bytes, Some(closure.scope), Some(&arguments))?
            }
            ComponentInstance::FromExports(exports) => {
                let mut bag = HashMap::new();
                for export in &*exports {
                    bag.insert(export.name.name, self.value(scope, export.kind, export.index)?);
                }
                bag
            }
        };
        self.push(scope, Value::Instance(Rc::new(Exports::Own(exports))))
    }

    fn value(
        &self,
        scope: usize,
        kind: ComponentExternalKind,
        place: u32,
    ) -> Result<Value<'a>, LinkError> {
        let (scope, place) = (&self.scopes[scope], index(place));
        Ok(match kind {
            ComponentExternalKind::Module => Value::Module(scope.core_modules[place]),
            ComponentExternalKind::Func => Value::Func(scope.funcs[place].clone()),
            ComponentExternalKind::Type => Value::Type(scope.types[place].clone()),
            ComponentExternalKind::Instance => Value::Instance(Rc::clone(&scope.instances[place])),
            ComponentExternalKind::Component => {
                Value::Component(Rc::clone(&scope.components[place]))
            }
            ComponentExternalKind::Value => return Err(unsupported("values")),
        })
    }

    /// Adds a value to the index space of its kind.
    fn push(&mut self, scope: usize, value: Value<'a>) -> Result<(), LinkError> {
        let scope = &mut self.scopes[scope];
        let count = match value {
            Value::Func(func) => count_of(&mut scope.funcs, func),
            Value::Type(ty) => count_of(&mut scope.types, ty),
            Value::Instance(instance) => count_of(&mut scope.instances, instance),
            Value::Component(component) => count_of(&mut scope.components, component),
            Value::Module(module) => count_of(&mut scope.core_modules, module),
        };
        bounded(count)
    }

    fn push_core(&mut self, scope: usize, sort: Sort, item: Item) -> Result<(), LinkError> {
        bounded(count_of(self.scopes[scope].core_items.entry(sort).or_default(), item))
    }
}

/// Returns the bytes of a section, whose size nobody has checked yet.
fn within(bytes: &[u8], range: std::ops::Range<usize>) -> Result<&[u8], LinkError> {
    let offset = range.start;
    let message = "a section reaches beyond the end".to_owned();
    bytes.get(range).ok_or(LinkError::Invalid { offset, message })
}

fn count_of<T>(space: &mut Vec<T>, item: T) -> usize {
    space.push(item);
    space.len()
}

fn bounded(count: usize) -> Result<(), LinkError> {
    if count > ITEMS_MAX {
        return Err(LinkError::TooMany { what: "items of one kind", limit: ITEMS_MAX });
    }
    Ok(())
}

/// Returns what an import of the outermost component stands for.
fn imported<'a>(name: &str, kind: ComponentExternalKind) -> Result<Value<'a>, LinkError> {
    let unknown = || LinkError::UnknownImport { name: name.to_owned() };
    match kind {
        ComponentExternalKind::Instance => {
            let interface =
                without_version(name).filter(|name| is_known(name)).ok_or_else(unknown)?;
            Ok(Value::Instance(Rc::new(Exports::Imported(interface.to_owned()))))
        }
        ComponentExternalKind::Type => Ok(Value::Type(Type::Other)),
        _ => Err(unknown()),
    }
}

/// True for the packages whose functions are offered, or refused when they are called.
fn is_known(interface: &str) -> bool {
    let package = interface.split_once('/').map_or(interface, |(package, _)| package);
    let is_0_2 = interface.split_once('@').is_none_or(|(_, version)| version.starts_with("0.2."));
    let names = [
        "wasi:http",
        "wasi:io",
        "wasi:cli",
        "wasi:clocks",
        "wasi:random",
        "wasi:filesystem",
        "wasi:sockets",
    ];
    is_0_2 && names.contains(&package)
}

/// Returns what a member of an imported interface stands for.
fn member<'a>(
    interface: &str,
    name: &str,
    kind: ComponentExternalKind,
) -> Result<Value<'a>, LinkError> {
    let full = format!("{interface}#{name}");
    match kind {
        ComponentExternalKind::Func => Ok(Value::Func(Func::Imported(full))),
        ComponentExternalKind::Type => Ok(Value::Type(Type::Imported(full))),
        _ => Err(LinkError::UnknownImport { name: full }),
    }
}

const fn index(number: u32) -> usize {
    midge_abi::width::index(number)
}
