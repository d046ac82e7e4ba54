//! Lines of the source: which file and line a place in a module's code came from, and which functions the compiler
//! put into one there.
//!
//! The table is made when the artifact is built, from the DWARF of the module (`lines/dwarf.rs`), and read where it
//! lies when a trap is told:
//!
//! ```text
//!   head     count of rows | count of scopes                      u32, as all numbers
//!   rows     function | offset | scope | file | line | column     by function and offset
//!   scopes   name | outer | file | line | column                  a function, or one put into another
//!   texts    size: u16 | bytes of UTF-8                           where `name` and `file` point to
//! ```
//!
//! A row holds from its offset, counted from the start of the function's body, to the next row of its function. Its
//! scope is the innermost function there, and a scope's file and line are where it was put into the outer one.
//!
//! Invariant: what is read of a table is bounded, whatever it holds: what points nowhere is left out.
//! Not here: lines of what the engine's component runtime runs, and of DWARF that lies in another file.

#[path = "lines/dwarf.rs"] // said, for the fuzzer includes this file from elsewhere
mod dwarf; // the reader of DWARF, which makes the table

use std::collections::HashMap;

use midge_abi::width::{index, wire};

pub use self::dwarf::{NoLines, Origin, read};

/// A table grows to this size, of some five million places; what comes after has no lines.
pub const TABLE_BYTES_MAX: usize = 128 << 20;
/// Names of functions are cut here, at their end.
pub const NAME_BYTES_MAX: usize = 512;
/// Paths of files are cut here, at their beginning: the end tells the most.
pub const PATH_BYTES_MAX: usize = 512;

/// Stands for what is not there.
const NONE: u32 = u32::MAX;
const HEAD_BYTES: usize = 8;
const ROW_BYTES: usize = 24;
const SCOPE_BYTES: usize = 20;

const _: () = assert!(NAME_BYTES_MAX <= u16::MAX as usize && PATH_BYTES_MAX <= u16::MAX as usize);
const _: () =
    assert!(TABLE_BYTES_MAX < 1 << 30, "places in it, and behind it, are numbers of 32 bits");

/// A table, where it lies.
#[derive(Debug, Clone, Copy)]
pub struct Lines<'a> {
    rows: &'a [[u8; ROW_BYTES]],
    scopes: &'a [[u8; SCOPE_BYTES]],
    texts: &'a [u8],
}

/// A function at a place in the code: the one whose code it is, or one that was put into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceFrame<'a> {
    /// Its name, as its compiler wrote it.
    pub name: Option<&'a str>,
    /// Where it is.
    pub place: Option<Place<'a>>,
    /// True if it was put into the next one.
    pub is_inlined: bool,
}

/// A place in the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place<'a> {
    /// The file, as the compiler was given it.
    pub file: &'a str,
    /// The line, from 1.
    pub line: u32,
    /// The column, from 1; 0 if it is not known.
    pub column: u32,
}

impl<'a> Lines<'a> {
    /// Views a table; `None` if its sizes contradict each other.
    #[must_use]
    pub fn view(table: &'a [u8]) -> Option<Self> {
        let (head, rest) = table.split_first_chunk::<HEAD_BYTES>()?;
        let row_bytes = index(number(head, 0)).checked_mul(ROW_BYTES)?;
        let scope_bytes = index(number(head, 1)).checked_mul(SCOPE_BYTES)?;
        let (rows, rest) = rest.split_at_checked(row_bytes)?;
        let (scopes, texts) = rest.split_at_checked(scope_bytes)?;
        Some(Self { rows: rows.as_chunks().0, scopes: scopes.as_chunks().0, texts })
    }

    /// Returns the functions at a place in the code, the innermost first, the function itself last. Nothing where
    /// nothing is known.
    ///
    /// # Cost
    /// A search by halves, and nothing is copied. It is as long as functions were put into each other: whoever
    /// shows them takes no more than that.
    pub fn frames(self, function: u32, offset: u32) -> impl Iterator<Item = SourceFrame<'a>> {
        let key = (function, offset);
        let behind = self.rows.partition_point(|row| (number(row, 0), number(row, 1)) <= key);
        let row = behind.checked_sub(1).map(|last| &self.rows[last]);
        let row = row.filter(|row| number(*row, 0) == function);
        let mut next = row.map(|row| (number(row, 2), self.place(row, 3)));
        std::iter::from_fn(move || {
            let (scope, place) = next.take()?;
            let row = self.scopes.get(index(scope))?;
            let outer = number(row, 1);
            // An outer one comes before those in it, so that the way out has an end.
            let is_inlined = outer < scope;
            if is_inlined {
                next = Some((outer, self.place(row, 2)));
            }
            Some(SourceFrame { name: self.text(number(row, 0)), place, is_inlined })
        })
    }

    fn place(self, row: &[u8], first: usize) -> Option<Place<'a>> {
        let file = self.text(number(row, first))?;
        Some(Place { file, line: number(row, first + 1), column: number(row, first + 2) })
    }

    fn text(self, at: u32) -> Option<&'a str> {
        let (size, rest) = self.texts.get(index(at)..)?.split_first_chunk()?;
        str::from_utf8(rest.get(..usize::from(u16::from_le_bytes(*size)))?).ok()
    }
}

/// Returns a number of a row.
fn number(row: &[u8], position: usize) -> u32 {
    let bytes = row[position * 4..].first_chunk().expect("a number of the row");
    u32::from_le_bytes(*bytes)
}

/// Makes a table.
#[derive(Debug, Default)]
struct Writer {
    rows: Vec<u8>,
    scopes: Vec<u8>,
    texts: Vec<u8>,
    /// What is written already.
    known_scopes: HashMap<[u32; 5], u32>,
    known_texts: HashMap<Box<str>, u32>,
    /// Function, scope, file, line and column of the last row.
    last: Option<[u32; 5]>,
}

impl Writer {
    /// Adds what is at a place of a function, the innermost function first. Places come in order.
    fn add(&mut self, function: u32, offset: u32, frames: &[SourceFrame<'_>]) {
        let is_full = TABLE_BYTES_MAX < self.rows.len() + self.scopes.len() + self.texts.len();
        // A row that says so is needed still: the last one would go on.
        let frames = if is_full { &[] } else { frames };
        let mut scope = NONE;
        let mut inner = frames;
        while let Some((frame, rest)) = inner.split_last() {
            // Where it was put into the outer one is what the outer one has as its place.
            let call = frames.get(rest.len() + 1).and_then(|outer| outer.place);
            let name = frame
                .name
                .map_or(NONE, |name| self.text(&name[..name.floor_char_boundary(NAME_BYTES_MAX)]));
            let [file, line, column] = self.place(call);
            scope = self.scope([name, scope, file, line, column]);
            inner = rest;
        }
        let [file, line, column] = self.place(frames.first().and_then(|frame| frame.place));
        let row = [function, scope, file, line, column];
        if self.last.replace(row) != Some(row) {
            let row = [function, offset, scope, file, line, column];
            self.rows.extend(row.iter().flat_map(|number| number.to_le_bytes()));
        }
    }

    fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    fn place(&mut self, place: Option<Place<'_>>) -> [u32; 3] {
        let Some(Place { file, line, column }) = place else { return [NONE, 0, 0] };
        let file =
            self.text(&file[file.ceil_char_boundary(file.len().saturating_sub(PATH_BYTES_MAX))..]);
        [file, line, column]
    }

    fn scope(&mut self, scope: [u32; 5]) -> u32 {
        *self.known_scopes.entry(scope).or_insert_with(|| {
            let known = wire(self.scopes.len() / SCOPE_BYTES);
            self.scopes.extend(scope.iter().flat_map(|number| number.to_le_bytes()));
            known
        })
    }

    fn text(&mut self, text: &str) -> u32 {
        if let Some(&known) = self.known_texts.get(text) {
            return known;
        }
        let at = wire(self.texts.len());
        let size = u16::try_from(text.len()).expect("names and paths are cut");
        self.texts.extend_from_slice(&size.to_le_bytes());
        self.texts.extend_from_slice(text.as_bytes());
        self.known_texts.insert(text.into(), at);
        at
    }

    fn finish(self) -> Vec<u8> {
        let counts = [self.rows.len() / ROW_BYTES, self.scopes.len() / SCOPE_BYTES];
        let mut table: Vec<u8> =
            counts.iter().flat_map(|count| wire(*count).to_le_bytes()).collect();
        for part in [self.rows, self.scopes, self.texts] {
            table.extend_from_slice(&part);
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame<'a>(name: &'a str, line: u32, is_inlined: bool) -> SourceFrame<'a> {
        let place = Some(Place { file: "shop.c", line, column: 3 });
        SourceFrame { name: Some(name), place, is_inlined }
    }

    fn table() -> Vec<u8> {
        let mut writer = Writer::default();
        writer.add(4, 2, &[frame("price", 10, false)]);
        writer.add(4, 5, &[frame("price", 10, false)]);
        writer.add(4, 9, &[frame("half", 3, true), frame("price", 12, false)]);
        writer.add(4, 20, &[]);
        writer.add(
            6,
            2,
            &[frame("half", 3, true), frame("rate", 7, true), frame("main", 30, false)],
        );
        writer.finish()
    }

    fn found(table: &[u8], function: u32, offset: u32) -> Vec<SourceFrame<'_>> {
        Lines::view(table).unwrap().frames(function, offset).collect()
    }

    #[test]
    fn a_place_has_its_lines_and_those_of_functions_put_into_it() {
        let table = table();
        for (function, offset, expected) in [
            (4, 2, &[frame("price", 10, false)][..]),
            (4, 8, &[frame("price", 10, false)]),
            (4, 9, &[frame("half", 3, true), frame("price", 12, false)]),
            (4, 19, &[frame("half", 3, true), frame("price", 12, false)]),
            (4, 20, &[]),
            (4, 1, &[]),
            (3, 2, &[]),
            (5, 2, &[]),
            (7, 2, &[]),
            (6, 99, &[frame("half", 3, true), frame("rate", 7, true), frame("main", 30, false)]),
        ] {
            assert_eq!(found(&table, function, offset), expected, "{function} {offset}");
        }
        assert_eq!(Lines::view(&table).unwrap().rows.len(), 4, "what does not change has one row");
    }

    #[test]
    fn long_texts_are_cut_where_they_tell_least() {
        let mut writer = Writer::default();
        let (name, file) = ("é".repeat(400), format!("{}/last.c", "é".repeat(400)));
        let place = Some(Place { file: &file, line: 1, column: 0 });
        writer.add(0, 0, &[SourceFrame { name: Some(&name), place, is_inlined: false }]);
        let table = writer.finish();
        let [found] = found(&table, 0, 0)[..] else { panic!("one") };
        assert_eq!(found.name.unwrap().len(), NAME_BYTES_MAX);
        let file = found.place.unwrap().file;
        assert!(
            file.ends_with("é/last.c")
                && (PATH_BYTES_MAX - 1..=PATH_BYTES_MAX).contains(&file.len())
        );
    }

    #[test]
    fn a_table_whose_sizes_contradict_each_other_is_none() {
        let table = table();
        for size in 0..table.len() {
            // Texts may end anywhere: what points behind the end is left out.
            let frames = Lines::view(&table[..size]).map(|lines| lines.frames(6, 2).count());
            assert!(frames.is_none_or(|frames| frames <= 3));
        }
        assert!(Lines::view(&table[..HEAD_BYTES]).is_none());
        assert!(Lines::view(&[0xFF; 64]).is_none());
        assert!(Lines::view(&[]).is_none());
    }
}

#[cfg(test)]
mod props {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_table_gives_an_end(bytes in proptest::collection::vec(any::<u8>(), 0..400), rows in 0u32..6, scopes in 0u32..6) {
            let head = [rows.to_le_bytes(), scopes.to_le_bytes()].concat();
            let small: Vec<u8> = bytes.iter().map(|byte| byte % 7).collect();
            for body in [&bytes, &small] {
                let table = [&head[..], body].concat();
                let Some(lines) = Lines::view(&table) else { continue };
                for function in 0..8 {
                    prop_assert!(lines.frames(function, 3).count() <= index(scopes));
                }
            }
        }
    }
}
