//! Who changed a place: requests are run again, in fresh instances of a copy whose code notes it.

use midge_abi::manifest::GlobalValue;

use super::{ProofError, ProofSettings, Sent, Side};
use crate::artifact::Artifact;
use crate::build::build_unstarted;
use crate::engine::Engines;
use crate::instance::StateSnapshot;
use crate::slot::{Pristine, Used};
use crate::witness::{self, HOST_WRITER, Place, WATCH_GLOBAL_COUNT};

/// The function that changed a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Writer {
    /// The call in which it did, counted from 0.
    pub call: u64,
    /// Its index; `None` is the host, which wrote the request.
    pub function: Option<u32>,
    /// Its name, if it has one.
    pub name: Option<String>,
}

/// Finds the last of these requests that changes the place in a fresh instance, and the function that did;
/// if none does alone, the function that did last when all were served by one instance.
pub(super) fn find(
    module: &[u8],
    place: Place,
    held: u32,
    sent: &[Sent],
    settings: ProofSettings,
    engines: &Engines,
) -> Result<Option<Writer>, ProofError> {
    let watched = witness::watched(module, place, held)?;
    let built = build_unstarted("watched", &watched, engines)?;
    let artifact = Artifact::from_bytes(&built.bytes, engines)?;
    let side = Side::new(&artifact, engines, settings)?;
    let mut found = None;
    for sent in sent.iter().rev() {
        let (note, _) = replay(&side, side.start()?, sent, settings)?;
        found = note.map(|function| (sent.call, function));
        if found.is_some() {
            break;
        }
    }
    if found.is_none() && !sent.is_empty() {
        let mut pristine = side.start()?;
        for sent in sent {
            let (note, used) = replay(&side, pristine, sent, settings)?;
            found = note.map(|function| (sent.call, function)).or(found);
            pristine = used.keep();
        }
    }
    found.map(|(call, function)| named(module, call, function)).transpose()
}

/// Serves a request and returns who changed the place in it.
fn replay(
    side: &Side,
    mut pristine: Pristine,
    sent: &Sent,
    settings: ProofSettings,
) -> Result<(Option<i32>, Used), ProofError> {
    let (_, before) = note(&pristine.inspect());
    let area = side.function.area();
    let (mut used, _) =
        super::call(pristine, &side.script, sent.call, settings, area, &sent.block)?;
    let (writer, after) = note(&used.inspect());
    Ok(((before != after).then_some(writer), used))
}

/// Returns the writer and the number of changes that the copy has noted.
fn note(state: &StateSnapshot) -> (i32, i32) {
    let first = state.globals.len() - WATCH_GLOBAL_COUNT as usize;
    match state.globals[first..] {
        [_, GlobalValue::I32(writer), GlobalValue::I32(changes)] => (writer, changes),
        _ => unreachable!("the copy's last globals are integers: `watched` made them"),
    }
}

fn named(module: &[u8], call: u64, function: i32) -> Result<Writer, ProofError> {
    if function == HOST_WRITER {
        return Ok(Writer { call, function: None, name: None });
    }
    let function = function.cast_unsigned();
    let name = witness::function_name(module, function)?;
    Ok(Writer { call, function: Some(function), name })
}
