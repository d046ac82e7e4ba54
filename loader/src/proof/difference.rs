//! What differs between two sides, as the first place where it does.

use std::fmt;
use std::ops::Range;

use midge_abi::manifest::GlobalRow;
use midge_abi::response::{Answer, GuestFault};

use super::{End, Record};
use crate::collect::Written;
use crate::instance::StateSnapshot;
use crate::witness::Place;

/// Memories are compared in pieces of this size, then byte by byte in the one that differs.
const PIECE_BYTES: usize = 4096;
/// Bytes of each side that a difference shows.
const SHOWN_BYTES: usize = 16;
/// Characters of each side that a difference shows of anything else.
const SHOWN_CHARACTERS_MAX: usize = 400;

/// Something that two instances can differ in.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Spot {
    /// A byte of a memory, the first one.
    Byte {
        /// Index of the memory.
        memory: u32,
        /// Its address.
        address: u32,
    },
    /// The size of a memory.
    MemorySize {
        /// Its index.
        memory: u32,
    },
    /// A mutable global.
    Global {
        /// Its index in the module.
        index: u32,
        /// Its name, if it has one.
        name: Option<String>,
    },
    /// The size of a table.
    TableSize {
        /// Its index.
        table: u32,
    },
    /// An element of a table.
    Element {
        /// Index of the table.
        table: u32,
        /// Index of the element.
        element: usize,
    },
    /// Whether a data segment was dropped.
    Data {
        /// Its index.
        index: u32,
    },
    /// Whether an element segment was dropped.
    Elements {
        /// Its index.
        index: u32,
    },
    /// How the call ended.
    End,
    /// A line of the log, or an answer of clock or chance.
    Record {
        /// Which, counted from 0.
        index: usize,
    },
    /// The response.
    Response,
    /// One side has more memories, globals, tables or segments than the other.
    Shape,
}

/// The first difference of two sides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// True if it was there before the call: what an earlier request left.
    pub is_before_call: bool,
    /// Where it is.
    pub spot: Spot,
    /// What the technique's instance has there.
    pub tested: String,
    /// What a fresh one has.
    pub fresh: String,
}

/// A difference, before it is said when it was found.
pub(super) struct Found {
    spot: Spot,
    tested: String,
    fresh: String,
    is_of_area: bool,
}

impl Found {
    /// True if nothing differs but the region where requests are written.
    pub(super) const fn is_of_area(&self) -> bool {
        self.is_of_area
    }

    pub(super) fn before(self) -> Difference {
        self.at(true)
    }

    pub(super) fn after(self) -> Difference {
        self.at(false)
    }

    fn at(self, is_before_call: bool) -> Difference {
        let Self { spot, tested, fresh, .. } = self;
        Difference { is_before_call, spot, tested, fresh }
    }
}

impl Difference {
    /// Returns the place that code wrote to, if it is one.
    pub(super) const fn place(&self) -> Option<Place> {
        Some(match self.spot {
            Spot::Byte { memory, address } => Place::Byte { memory, address },
            Spot::MemorySize { memory } => Place::MemorySize { memory },
            Spot::Global { index, .. } => Place::Global { index },
            Spot::TableSize { table } | Spot::Element { table, .. } => {
                Place::Table { index: table }
            }
            Spot::Data { index } => Place::Data { index },
            Spot::Elements { index } => Place::Elements { index },
            _ => return None,
        })
    }
}

impl Spot {
    /// Returns the kind, for programs.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Byte { .. } => "memory",
            Self::MemorySize { .. } => "memory-size",
            Self::Global { .. } => "global",
            Self::TableSize { .. } => "table-size",
            Self::Element { .. } => "table",
            Self::Data { .. } => "data-segment",
            Self::Elements { .. } => "element-segment",
            Self::End => "end",
            Self::Record { .. } => "record",
            Self::Response => "response",
            Self::Shape => "shape",
        }
    }
}

impl fmt::Display for Spot {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Byte { memory, address } => write!(formatter, "memory {memory} at {address:#x}"),
            Self::MemorySize { memory } => write!(formatter, "size of memory {memory}"),
            Self::Global { index, name: Some(name) } => {
                write!(formatter, "global {index} `{name}`")
            }
            Self::Global { index, name: None } => write!(formatter, "global {index}"),
            Self::TableSize { table } => write!(formatter, "size of table {table}"),
            Self::Element { table, element } => {
                write!(formatter, "table {table}, element {element}")
            }
            Self::Data { index } => write!(formatter, "data segment {index}"),
            Self::Elements { index } => write!(formatter, "element segment {index}"),
            Self::End => formatter.write_str("how the call ended"),
            Self::Record { index } => {
                write!(formatter, "line {index} of what was logged and answered")
            }
            Self::Response => formatter.write_str("the response"),
            Self::Shape => formatter.write_str("the number of state's parts"),
        }
    }
}

/// Compares whole states. What has a name comes first, then memories; `area`, of the first memory, comes
/// last: that an earlier request is still there says less than what the guest made of it.
pub(super) fn of_states(
    tested: &StateSnapshot,
    fresh: &StateSnapshot,
    globals: &[GlobalRow],
    segments: &[Place],
    area: Range<usize>,
) -> Option<Found> {
    of_shapes(tested, fresh)
        .or_else(|| of_globals(tested, fresh, globals))
        .or_else(|| of_tables(tested, fresh))
        .or_else(|| of_segments(tested, fresh, segments))
        .or_else(|| of_memory_sizes(tested, fresh))
        .or_else(|| of_memories(tested, fresh, area))
}

/// What follows compares part by part, so the parts have to be as many.
fn of_shapes(tested: &StateSnapshot, fresh: &StateSnapshot) -> Option<Found> {
    let shape = |state: &StateSnapshot| {
        [
            state.memories.len(),
            state.globals.len(),
            state.global_functions.len(),
            state.tables.len(),
            state.dropped_segments.len(),
        ]
    };
    different(Spot::Shape, &shape(tested), &shape(fresh))
}

fn of_memory_sizes(tested: &StateSnapshot, fresh: &StateSnapshot) -> Option<Found> {
    let memories = tested.memories.iter().zip(&fresh.memories).zip(0..);
    memories.into_iter().find_map(|((tested, fresh), memory)| {
        different(Spot::MemorySize { memory }, &tested.len(), &fresh.len())
    })
}

/// The sizes are the same by now, and a function has a first memory with its area inside: the contract.
fn of_memories(tested: &StateSnapshot, fresh: &StateSnapshot, area: Range<usize>) -> Option<Found> {
    let first = |memory: usize, range: Range<usize>| {
        let (tested, fresh) = (&tested.memories[memory], &fresh.memories[memory]);
        let address = first_difference(&tested[range.clone()], &fresh[range.clone()])?;
        let address = range.start + address;
        let memory = midge_abi::width::wire(memory);
        let spot = Spot::Byte { memory, address: midge_abi::width::wire(address) };
        let (tested, fresh) = (shown(tested, address), shown(fresh, address));
        Some(Found { spot, tested, fresh, is_of_area: false })
    };
    let bytes = |memory: usize| tested.memories[memory].len();
    first(0, 0..area.start)
        .or_else(|| first(0, area.end..bytes(0)))
        .or_else(|| (1..tested.memories.len()).find_map(|memory| first(memory, 0..bytes(memory))))
        .or_else(|| first(0, area).map(|found| Found { is_of_area: true, ..found }))
}

/// Returns the first index where two slices of one length differ.
fn first_difference(tested: &[u8], fresh: &[u8]) -> Option<usize> {
    let mut pieces = tested.chunks(PIECE_BYTES).zip(fresh.chunks(PIECE_BYTES)).zip(0..);
    let ((tested, fresh), nth) = pieces.find(|((tested, fresh), _)| tested != fresh)?;
    let within = tested.iter().zip(fresh).position(|(tested, fresh)| tested != fresh)?;
    Some(nth * PIECE_BYTES + within)
}

fn shown(bytes: &[u8], address: usize) -> String {
    let bytes = bytes[address..].iter().take(SHOWN_BYTES);
    bytes.map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

fn of_globals(
    tested: &StateSnapshot,
    fresh: &StateSnapshot,
    globals: &[GlobalRow],
) -> Option<Found> {
    globals.iter().enumerate().find_map(|(at, row)| {
        let value = |state: &StateSnapshot| {
            Some((state.globals.get(at).copied()?, state.global_functions.get(at).copied()?))
        };
        let (tested, fresh) = (value(tested), value(fresh));
        let spot = Spot::Global { index: row.index, name: row.name.clone() };
        (tested != fresh).then(|| Found {
            spot,
            tested: tested.map_or_else(String::new, shown_global),
            fresh: fresh.map_or_else(String::new, shown_global),
            is_of_area: false,
        })
    })
}

fn shown_global(
    (value, function): (midge_abi::manifest::GlobalValue, crate::instance::FunctionRef),
) -> String {
    match value {
        midge_abi::manifest::GlobalValue::FuncRef { .. } => format!("{function:?}"),
        number => format!("{number:?}"),
    }
}

fn of_tables(tested: &StateSnapshot, fresh: &StateSnapshot) -> Option<Found> {
    for ((tested, fresh), table) in tested.tables.iter().zip(&fresh.tables).zip(0..) {
        let element = tested.iter().zip(fresh).position(|(tested, fresh)| tested != fresh);
        let found = match element {
            Some(element) => {
                different(Spot::Element { table, element }, &tested[element], &fresh[element])
            }
            None => different(Spot::TableSize { table }, &tested.len(), &fresh.len()),
        };
        if found.is_some() {
            return found;
        }
    }
    None
}

fn of_segments(tested: &StateSnapshot, fresh: &StateSnapshot, segments: &[Place]) -> Option<Found> {
    let states = tested.dropped_segments.iter().zip(&fresh.dropped_segments);
    let (differing, place) = states.zip(segments).find(|((tested, fresh), _)| tested != fresh)?;
    let spot = match *place {
        Place::Data { index } => Spot::Data { index },
        Place::Elements { index } => Spot::Elements { index },
        _ => Spot::Shape,
    };
    let shown = |is_dropped: bool| if is_dropped { "dropped" } else { "there" }.to_owned();
    let (tested, fresh) = (shown(*differing.0), shown(*differing.1));
    Some(Found { spot, tested, fresh, is_of_area: false })
}

pub(super) fn of_ends(tested: &End, fresh: &End) -> Option<Found> {
    different(Spot::End, tested, fresh)
}

pub(super) fn of_records(tested: &[Record], fresh: &[Record]) -> Option<Found> {
    if tested == fresh {
        return None;
    }
    let length = tested.len().max(fresh.len());
    let index = (0..length).find(|&index| tested.get(index) != fresh.get(index))?;
    let shown = |records: &[Record]| match records.get(index) {
        None => "nothing".to_owned(),
        Some(Record::Line { level, line, .. }) => {
            format!("{level}: {}", String::from_utf8_lossy(line))
        }
        Some(record) => format!("{record:?}"),
    };
    let (tested, fresh) = (shown(tested), shown(fresh));
    Some(Found { spot: Spot::Record { index }, tested, fresh, is_of_area: false })
}

type Claim<'a> = Option<Result<Answer<'a>, GuestFault>>;

pub(super) fn of_responses(tested: Claim<'_>, fresh: Claim<'_>) -> Option<Found> {
    different(Spot::Response, &Answered::of(tested), &Answered::of(fresh))
}

pub(super) fn of_written(tested: Option<&Written>, fresh: Option<&Written>) -> Option<Found> {
    different(Spot::Response, &tested, &fresh)
}

#[derive(Debug, PartialEq, Eq)]
enum Answered<'a> {
    Nothing,
    Fault(GuestFault),
    Error(&'a [u8]),
    Response { status: u16, headers: Vec<(&'a [u8], &'a [u8])>, body: &'a [u8] },
}

impl<'a> Answered<'a> {
    fn of(claim: Claim<'a>) -> Self {
        match claim {
            None => Self::Nothing,
            Some(Err(fault)) => Self::Fault(fault),
            Some(Ok(Answer::Error(message))) => Self::Error(message),
            Some(Ok(Answer::Response(response))) => Self::Response {
                status: response.status(),
                headers: response.headers().collect(),
                body: response.body(),
            },
        }
    }
}

fn different<T: PartialEq + fmt::Debug>(spot: Spot, tested: &T, fresh: &T) -> Option<Found> {
    let shown = |value: &T| {
        let mut text = format!("{value:?}");
        if let Some((end, _)) = text.char_indices().nth(SHOWN_CHARACTERS_MAX) {
            text.truncate(end);
            text += "...";
        }
        text
    };
    (tested != fresh).then(|| Found {
        spot,
        tested: shown(tested),
        fresh: shown(fresh),
        is_of_area: false,
    })
}

#[cfg(test)]
mod tests {
    use midge_abi::manifest::GlobalValue;

    use super::*;
    use crate::instance::FunctionRef;

    fn state() -> StateSnapshot {
        StateSnapshot {
            memories: vec![vec![0; 2 * 65536]],
            globals: vec![GlobalValue::I32(1)],
            global_functions: vec![FunctionRef::Null],
            tables: vec![vec![FunctionRef::Null, FunctionRef::Index(3)]],
            dropped_segments: vec![false, true],
        }
    }

    fn found(change: impl Fn(&mut StateSnapshot)) -> Option<Difference> {
        let mut tested = state();
        change(&mut tested);
        let row = GlobalRow { index: 7, name: Some("count".into()), value: GlobalValue::I32(1) };
        let segments = [Place::Data { index: 2 }, Place::Elements { index: 4 }];
        of_states(&tested, &state(), &[row], &segments, 64..128).map(Found::before)
    }

    #[test]
    fn each_part_of_the_state_is_compared_and_named() {
        assert_eq!(found(|_| {}), None);
        let check = |expected: &str, change: fn(&mut StateSnapshot)| {
            assert_eq!(found(change).unwrap().spot.to_string(), expected);
        };
        check("memory 0 at 0x1003", |state| state.memories[0][0x1003] = 9);
        check("memory 0 at 0x1ffff", |state| state.memories[0][0x1FFFF] = 9);
        check("memory 0 at 0x40", |state| state.memories[0][0x40] = 9);
        check("memory 0 at 0x200", |state| {
            state.memories[0][0x40] = 9; // In the area, which comes last.
            state.memories[0][0x200] = 9;
        });
        check("size of memory 0", |state| state.memories[0].truncate(65536));
        check("global 7 `count`", |state| state.globals[0] = GlobalValue::I32(2));
        check("global 7 `count`", |state| state.global_functions[0] = FunctionRef::Index(1));
        check("table 0, element 1", |state| state.tables[0][1] = FunctionRef::Index(4));
        check("size of table 0", |state| state.tables[0].push(FunctionRef::Null));
        check("data segment 2", |state| state.dropped_segments[0] = true);
        check("element segment 4", |state| state.dropped_segments[1] = false);
        check("the number of state's parts", |state| state.tables.clear());
    }

    #[test]
    fn what_passed_between_guest_and_host_is_compared() {
        let (a, b) = (Record::Wall(1), Record::Wall(2));
        assert!(of_records(std::slice::from_ref(&a), std::slice::from_ref(&a)).is_none());
        let found = of_records(&[a.clone(), b], &[a]).map(Found::after).unwrap();
        assert_eq!((found.spot, found.fresh.as_str()), (Spot::Record { index: 1 }, "nothing"));
        assert!(of_ends(&End::Returned(1), &End::DeadlineExceeded).is_some());
        assert!(
            of_responses(Some(Ok(Answer::Error(b"a"))), Some(Err(GuestFault::Status))).is_some()
        );
    }
}
