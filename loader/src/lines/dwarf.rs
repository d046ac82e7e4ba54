//! Reads the DWARF of a module, and writes for each place in the linked module's code what it tells.
//!
//! ```text
//!   the module as given    function i    operator n at `address`, as DWARF counts: from the code section's start
//!                             |             |  the same function, the same operator
//!   the linked module      function f    operator n at `offset`, as a trap tells it: from the body's start
//! ```
//!
//! Linking encodes each operator of a body anew, one for one, with other indices in it, so that offsets shift; both
//! bodies are walked side by side. The forms of `rewrite.rs` copy bodies as they are.
//!
//! A module's DWARF is a claim like all of it. It is read here and nowhere else, while the artifact is built, which a
//! host lets a process do that is bounded: no limit on its form would bound what reading it takes. How deep its
//! entries lie is looked at first, for the reader goes down by calling itself.

use std::collections::HashMap;

use addr2line::Context;
use addr2line::gimli::{self, Dwarf, EndianSlice, LittleEndian};
use midge_abi::width::{index, wire};
use wasmparser::{FunctionBody, Parser, Payload};

use super::{Place, SourceFrame, Writer};

/// Entries lie this deep in each other at most: functions put into one another, and blocks. A thread of two MiB has
/// stack for it.
const DEPTH_MAX: isize = 1000;
/// The custom section that names the file which the DWARF lies in, where that is not the module.
const EXTERNAL: &str = "external_debug_info";

type Bytes<'a> = EndianSlice<'a, LittleEndian>;

/// A module as it was given, and where its functions are in the linked one.
#[derive(Debug, Clone)]
pub struct Origin<'a> {
    /// Its bytes.
    pub module: &'a [u8],
    /// Index of the first of its own functions in the linked module.
    pub first_function: u32,
}

/// Why there are no lines.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NoLines {
    /// There is no DWARF.
    #[error(
        "the module has no DWARF; compile it with debug information (`-g`), and do not strip it"
    )]
    Absent,
    /// It lies elsewhere.
    #[error("the module's DWARF lies in another file, which is not read")]
    Elsewhere,
    /// It tells nothing about the code that is there.
    #[error("the module's DWARF tells no line of its code")]
    Empty,
    /// It cannot be read.
    #[error("the module's DWARF cannot be read: {0}")]
    Broken(#[from] gimli::Error),
    /// It is nested too deep.
    #[error("the module's DWARF has entries more than {DEPTH_MAX} deep in each other")]
    Deep,
    /// Code that does not parse, though it is valid.
    #[error("the module's code cannot be walked: {0}")]
    Code(#[from] wasmparser::BinaryReaderError),
}

/// Makes the table of the lines of a linked module, from the modules that it was made of.
///
/// # Errors
/// [`NoLines`], if none of them has any that can be read.
pub fn read(linked: &[u8], origins: &[Origin<'_>]) -> Result<Vec<u8>, NoLines> {
    let whole = Code::read(linked)?;
    let mut writer = Writer::default();
    let mut refused = None;
    for origin in origins {
        if let Err(reason) = add(&mut writer, &whole, origin) {
            // What another module lacks is of no interest if one has it and it cannot be read.
            if !matches!(reason, NoLines::Absent) || refused.is_none() {
                refused = Some(reason);
            }
        }
    }
    if writer.is_empty() { Err(refused.unwrap_or(NoLines::Empty)) } else { Ok(writer.finish()) }
}

fn add(writer: &mut Writer, whole: &Code<'_>, origin: &Origin<'_>) -> Result<(), NoLines> {
    let code = Code::read(origin.module)?;
    let mut source = Source::read(&code)?;
    let first = index(origin.first_function.saturating_sub(whole.imported));
    let linked = whole.bodies.iter().skip(first);
    for ((body, linked), function) in code.bodies.iter().zip(linked).zip(origin.first_function..) {
        walk(body, linked, |address, offset| {
            let address = address.saturating_sub(code.start) as u64;
            source.at(address, |frames| writer.add(function, wire(offset), frames))
        })?;
    }
    Ok(())
}

/// Walks through a function in both modules, and calls `found` with the place of each operator in both. Of all: the
/// engine puts operators together, and a trap may be told where a branch stands.
fn walk(
    given: &FunctionBody<'_>,
    linked: &FunctionBody<'_>,
    mut found: impl FnMut(usize, usize),
) -> Result<(), NoLines> {
    let start = linked.range().start;
    let mut given = given.get_operators_reader()?;
    let mut linked = linked.get_operators_reader()?;
    // Where a function begins, the check of its stack traps.
    found(given.original_position(), 0);
    while !given.eof() {
        let (address, place) = (given.original_position(), linked.original_position());
        let (one, other) = (given.read()?, linked.read()?);
        if std::mem::discriminant(&one) != std::mem::discriminant(&other) {
            debug_assert!(false, "linking encodes operators one for one: {one:?} became {other:?}");
            // Rather nothing is said of the rest of it than something wrong.
            return Ok(());
        }
        found(address, place - start);
    }
    Ok(())
}

/// What is read of a module.
struct Code<'a> {
    /// Functions that it imports.
    imported: u32,
    /// Where the content of the code section starts.
    start: usize,
    bodies: Vec<FunctionBody<'a>>,
    /// Custom sections by name: the first of each.
    custom: Vec<(&'a str, &'a [u8])>,
}

impl<'a> Code<'a> {
    fn read(module: &'a [u8]) -> Result<Self, NoLines> {
        let mut code = Self { imported: 0, start: 0, bodies: Vec::new(), custom: Vec::new() };
        for payload in Parser::new(0).parse_all(module) {
            match payload? {
                Payload::ImportSection(section) => {
                    for import in section.into_imports() {
                        code.imported +=
                            u32::from(matches!(import?.ty, wasmparser::TypeRef::Func(_)));
                    }
                }
                Payload::CodeSectionStart { range, .. } => code.start = range.start,
                Payload::CodeSectionEntry(body) => code.bodies.push(body),
                Payload::CustomSection(section) => {
                    code.custom.push((section.name(), section.data()))
                }
                _ => {}
            }
        }
        Ok(code)
    }

    fn section(&self, name: &str) -> Option<&'a [u8]> {
        self.custom.iter().find(|(known, _)| *known == name).map(|(_, bytes)| *bytes)
    }
}

/// A module's DWARF.
struct Source<'a> {
    context: Context<Bytes<'a>>,
    /// For each path that was met, how much of it is the folder that the compiler ran in.
    folders: HashMap<String, usize>,
}

impl<'a> Source<'a> {
    fn read(code: &Code<'a>) -> Result<Self, NoLines> {
        let has = |id: gimli::SectionId| code.section(id.name()).is_some();
        if !has(gimli::SectionId::DebugInfo) || !has(gimli::SectionId::DebugLine) {
            let is_elsewhere = code.section(EXTERNAL).is_some();
            return Err(if is_elsewhere { NoLines::Elsewhere } else { NoLines::Absent });
        }
        let section = |id: gimli::SectionId| -> Result<Bytes<'a>, gimli::Error> {
            Ok(EndianSlice::new(code.section(id.name()).unwrap_or_default(), LittleEndian))
        };
        check_depth(&Dwarf::load(section)?)?;
        Ok(Self { context: Context::from_dwarf(Dwarf::load(section)?)?, folders: HashMap::new() })
    }

    /// Calls `found` with the functions at an address, the innermost first. What cannot be read of one place is left
    /// out there, and may be read at another.
    fn at(&mut self, address: u64, found: impl FnOnce(&[SourceFrame<'_>])) {
        // Split DWARF lies in other files, and is not looked for.
        let frames = self.context.find_frames(address).skip_all_loads();
        let mut read = Vec::new();
        if let Ok(mut frames) = frames {
            while let Ok(Some(frame)) = frames.next() {
                read.push(frame);
            }
        }
        let names: Vec<_> = read
            .iter()
            .map(|frame| frame.function.as_ref().and_then(|function| function.raw_name().ok()))
            .collect();
        let last = read.len().saturating_sub(1);
        let (context, folders) = (&self.context, &mut self.folders);
        let frames: Vec<_> = (read.iter().zip(&names).enumerate())
            .map(|(number, (frame, name))| {
                let place = frame.location.as_ref().and_then(|location| {
                    let path = location.file?;
                    if !folders.contains_key(path) {
                        folders.insert(path.to_owned(), folder_bytes(context, address, path));
                    }
                    let file = &path[folders[path]..];
                    Some(Place { file, line: location.line?, column: location.column.unwrap_or(0) })
                });
                SourceFrame { name: name.as_deref(), place, is_inlined: number < last }
            })
            .collect();
        found(&frames);
    }
}

/// Returns how many bytes of a path are the folder that the compiler ran in, which the reader puts before what the
/// compiler was given.
fn folder_bytes(context: &Context<Bytes<'_>>, address: u64, path: &str) -> usize {
    let unit = context.find_dwarf_and_unit(address).skip_all_loads();
    let folder = unit.and_then(|unit| unit.comp_dir).map(|folder| folder.to_string_lossy());
    let inside = folder.as_ref().and_then(|folder| path.strip_prefix(folder.trim_end_matches('/')));
    let file = inside.and_then(|inside| inside.strip_prefix('/')).filter(|file| !file.is_empty());
    file.map_or(0, |file| path.len() - file.len())
}

/// Goes through all entries, and refuses those that lie too deep.
fn check_depth(dwarf: &Dwarf<Bytes<'_>>) -> Result<(), NoLines> {
    let mut units = dwarf.units();
    while let Some(header) = units.next()? {
        let unit = dwarf.unit(header)?;
        let mut entries = unit.entries_raw(None)?;
        while !entries.is_empty() {
            if DEPTH_MAX < entries.next_depth() {
                return Err(NoLines::Deep);
            }
            if let Some(kind) = entries.read_abbreviation()? {
                entries.skip_attributes(kind.attributes())?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use gimli::{constants as dw, leb128};
    use wasm_encoder::{
        CodeSection, CustomSection, Function, FunctionSection, Module, TypeSection,
    };

    use super::*;
    use crate::lines::Lines;

    /// Writes numbers as a DWARF section has them.
    fn uleb(numbers: &[u16]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for &number in numbers {
            leb128::write::unsigned(&mut bytes, number.into()).unwrap();
        }
        bytes
    }

    /// A function of one operator, and DWARF by which so many others are put into each other in it.
    fn nested(depth: usize) -> Vec<u8> {
        let mut abbreviations = Vec::new();
        let (low, high) =
            ([dw::DW_AT_low_pc.0, dw::DW_FORM_addr.0], [dw::DW_AT_high_pc.0, dw::DW_FORM_data4.0]);
        let name = [dw::DW_AT_name.0, dw::DW_FORM_string.0];
        for (number, tag) in [
            (1, dw::DW_TAG_compile_unit),
            (2, dw::DW_TAG_subprogram),
            (3, dw::DW_TAG_inlined_subroutine),
        ] {
            abbreviations.extend(uleb(&[number, tag.0, 1]));
            abbreviations.extend(uleb(&[low, high, name, [0, 0]].concat()));
        }
        abbreviations.push(0);
        let mut entries = Vec::new();
        for level in 0..depth + 2 {
            entries.push(u8::try_from(level.min(2) + 1).unwrap());
            entries.extend([0, 0, 0, 0, 255, 0, 0, 0]);
            entries.extend(b"f\0");
        }
        entries.extend(std::iter::repeat_n(0, depth + 2));
        // DWARF 4, abbreviations at 0, addresses of four bytes.
        let mut unit = wire(entries.len() + 7).to_le_bytes().to_vec();
        unit.extend([4, 0, 0, 0, 0, 0, 4]);
        unit.extend(entries);

        let mut module = Module::new();
        let (mut types, mut functions, mut code) =
            (TypeSection::new(), FunctionSection::new(), CodeSection::new());
        types.ty().function([], []);
        let mut body = Function::new([]);
        body.instructions().unreachable().end();
        module.section(&types).section(functions.function(0)).section(code.function(&body));
        for (name, data) in
            [(".debug_abbrev", abbreviations), (".debug_info", unit), (".debug_line", Vec::new())]
        {
            module.section(&CustomSection { name: name.into(), data: data.into() });
        }
        module.finish()
    }

    fn table(module: &[u8]) -> Result<Vec<u8>, NoLines> {
        read(module, &[Origin { module, first_function: 0 }])
    }

    /// The reader goes down by calling itself: this is a test of the stack as well.
    #[test]
    fn functions_are_put_into_each_other_to_a_limit() {
        let levels = usize::try_from(DEPTH_MAX).unwrap() - 2;
        for depth in [0, 1, levels] {
            let table = table(&nested(depth)).unwrap();
            let lines = Lines::view(&table).unwrap();
            assert_eq!(lines.frames(0, 1).count(), depth + 1);
            assert!(
                lines.frames(0, 1).all(|frame| frame.name == Some("f") && frame.place.is_none())
            );
        }
        for depth in [levels + 1, 1_000_000] {
            assert!(matches!(table(&nested(depth)), Err(NoLines::Deep)), "{depth}");
        }
    }

    #[test]
    fn paths_are_those_that_the_compiler_was_given() {
        let module = include_bytes!("../../../fuzz/corpus/lines/seed-contract");
        let code = Code::read(module).unwrap();
        let source = Source::read(&code).unwrap();
        // Some address of the code, compiled in `/src`.
        let address = (code.bodies.last().unwrap().range().start - code.start + 10) as u64;
        for (path, file) in [
            ("/src/contract.c", "contract.c"),
            ("/src/deep/a.c", "deep/a.c"),
            ("/include/midge.h", "/include/midge.h"),
            ("/srcs/a.c", "/srcs/a.c"),
            ("/src", "/src"),
            ("/src/", "/src/"),
        ] {
            assert_eq!(&path[folder_bytes(&source.context, address, path)..], file);
        }
    }
}
