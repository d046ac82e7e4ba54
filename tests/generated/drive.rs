//! A function and a seed become calls, each compared with a fresh instance's.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use midge_abi::manifest::StateClasses;
use midge_host::deadline::{CoarseClock, Ticker};
use midge_loader::engine::Engines;
use midge_loader::proof::{Compared, Proof, ProofError, ProofSettings, Sent, Subject};
use midge_loader::start::Technique;
use midge_loader::start::choose::{Machine, check, choose};

use crate::modules;
use crate::wrap::{STEP_BYTES, STEPS_MAX, Variant, wrap};

/// Memory of each instance: generated modules grow to their limit.
const MEMORY_BYTES_MAX: usize = 16 * 65536;
/// Slices of a call: what does not end by then loops.
const SLICES_MAX: u64 = 20;
/// Steps of a request: few, so that most requests come to their end before they trap.
const STEPS_OF_REQUEST_MAX: usize = 6;
const _: () = assert!(STEPS_OF_REQUEST_MAX < STEPS_MAX);
/// Requests that are kept for a report.
const KEPT_MAX: usize = 64;

/// Engines, ticking.
pub(crate) struct Workbench {
    engines: Arc<Engines>,
    machine: Machine,
    _ticker: Ticker,
}

/// What was driven so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    pub(crate) modules: u64,
    pub(crate) refused: u64,
    pub(crate) compared: Compared,
    pub(crate) changing: Changing,
}

/// Kinds of state that code of the modules could change.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Changing {
    pub(crate) growth: bool,
    pub(crate) globals: bool,
    pub(crate) tables: bool,
    pub(crate) drops: bool,
}

/// A difference, with what shows it again.
pub(crate) struct Found {
    pub(crate) text: String,
    pub(crate) sent: Vec<Sent>,
}

impl Workbench {
    pub(crate) fn new() -> Self {
        let engines = Arc::new(Engines::new());
        let ticker = Ticker::start(Arc::clone(&engines), CoarseClock::new());
        let machine = Machine::of_this_process();
        Self { engines, machine, _ticker: ticker.expect("a thread can be started") }
    }

    /// Proves the modules of so many seeds, each whole and tame.
    ///
    /// # Panics
    /// If something differs.
    pub(crate) fn prove_seeds(&self, first: u64, count: u64, calls: u64) -> Tally {
        let mut tally = Tally::default();
        for (seed, (name, module)) in (first..).zip(modules::of_seeds(first, count)) {
            if module.is_empty() {
                tally.refused += 1;
                continue;
            }
            for variant in [Variant::Whole, Variant::Tame] {
                let name = format!("{name}-{variant:?}").to_lowercase();
                let wasm = wrap(&module, variant).expect("what was generated parses");
                let blocks = (0..calls).map(|nth| request(seed, nth));
                tally.add(self.prove_or_panic(&name, &wasm, blocks));
            }
        }
        tally
    }

    /// Proves a function under the technique that it gets; one that cannot be built counts as refused.
    ///
    /// # Panics
    /// If something differs, or an instance of what was built cannot be started. Module and requests are written to a folder then, ready for the corpus.
    pub(crate) fn prove_or_panic(
        &self,
        name: &str,
        wasm: &[u8],
        blocks: impl Iterator<Item = Vec<u8>>,
    ) -> Tally {
        match self.prove(name, wasm, None, blocks) {
            Ok((tally, None)) => tally,
            Ok((_, Some(found))) => {
                let path = keep(name, wasm, &found.sent);
                panic!(
                    "{name}: {}\nkept as `{}` and .blocks: put both into tests/corpus/prove",
                    found.text,
                    path.display()
                );
            }
            Err(ProofError::Build(_) | ProofError::Module(_)) => {
                Tally { refused: 1, ..Tally::default() }
            }
            Err(failed) => panic!("{name}: {failed:?}"),
        }
    }

    /// Says whether a function may use a technique; `None` stands for the choice.
    pub(crate) fn is_allowed(
        &self,
        wasm: &[u8],
        technique: Option<Technique>,
    ) -> Result<bool, ProofError> {
        let Some(technique) = technique else { return Ok(true) };
        let subject = Subject::of_module("corpus", wasm, &self.engines)?;
        Ok(check(technique, subject.artifact().manifest(), self.machine).is_ok())
    }

    /// Proves a function for these requests. Returns the first difference.
    pub(crate) fn prove(
        &self,
        name: &str,
        wasm: &[u8],
        technique: Option<Technique>,
        blocks: impl Iterator<Item = Vec<u8>>,
    ) -> Result<(Tally, Option<Found>), ProofError> {
        let subject = Subject::of_module(name, wasm, &self.engines)?;
        let manifest = subject.artifact().manifest();
        let changing = Changing::of(&manifest.state);
        let technique = technique.unwrap_or_else(|| choose(manifest, self.machine).technique);
        let settings = ProofSettings {
            technique,
            memory_bytes_max: MEMORY_BYTES_MAX,
            slices_max: SLICES_MAX,
            seed: 1,
        };
        let mut proof = Proof::new(subject, settings, &self.engines)?;
        let mut sent = Vec::new();
        for (block, call) in blocks.zip(0..) {
            let difference = proof.call(&block)?;
            if sent.len() == KEPT_MAX {
                sent.remove(0);
            }
            sent.push(Sent { call, block });
            let Some(difference) = difference else { continue };
            let writer = proof.writer(&difference, &sent, &self.engines);
            let text = format!("{technique}, call {call}: {difference:#?}, written by {writer:?}");
            let compared = proof.compared();
            let tally = Tally { modules: 1, refused: 0, compared, changing };
            return Ok((tally, Some(Found { text, sent })));
        }
        let compared = proof.compared();
        Ok((Tally { modules: 1, refused: 0, compared, changing }, None))
    }
}

/// Returns a request of a seed: steps with bytes that are mostly small, so that addresses hit.
fn request(seed: u64, nth: u64) -> Vec<u8> {
    let mut chance = Chance::new(seed, nth);
    let step_count_max = 1 + chance.below(STEPS_OF_REQUEST_MAX);
    let step_count = 1 + chance.below(step_count_max);
    let mut block = vec![0; step_count * STEP_BYTES];
    chance.fill(&mut block);
    for step in block.chunks_mut(STEP_BYTES) {
        if chance.below(4) != 0 {
            // The upper half of each argument is zero: an address in the first page.
            let arguments = step[1..].chunks_mut(4).filter(|argument| argument.len() == 4);
            arguments.for_each(|argument| argument[2..].fill(0));
        }
    }
    block
}

/// Writes a function and its requests where they can be fetched.
fn keep(name: &str, wasm: &[u8], sent: &[Sent]) -> PathBuf {
    let folder = std::env::temp_dir().join("midge-prove");
    std::fs::create_dir_all(&folder).expect("a folder for temporary files");
    let path = folder.join(format!("{name}.wasm"));
    std::fs::write(&path, wasm).expect("the folder takes files");
    let blocks = sent.iter().map(|sent| hex(&sent.block) + "\n");
    std::fs::write(path.with_extension("blocks"), blocks.collect::<String>())
        .expect("the folder takes files");
    path
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Changing {
    fn of(state: &StateClasses) -> Self {
        Self {
            growth: state.memory_growth,
            globals: state.globals,
            tables: state.tables || state.table_growth,
            drops: state.data_drop || state.elem_drop,
        }
    }
}

impl Tally {
    pub(crate) fn add(&mut self, other: Self) {
        let Self { modules, refused, compared, changing } = other;
        self.modules += modules;
        self.refused += refused;
        self.compared.add(compared);
        self.changing.growth |= changing.growth;
        self.changing.globals |= changing.globals;
        self.changing.tables |= changing.tables;
        self.changing.drops |= changing.drops;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { modules, refused, compared, .. } = self;
        let Compared {
            calls, changes, restores, traps, deadlines, snapshots, memory_bytes, ..
        } = compared;
        write!(
            formatter,
            "{calls} calls of {modules} modules ({refused} refused), {changes} that changed state, {restores} in instances that had \
             served, {traps} traps, {deadlines} deadlines, {snapshots} snapshots, {memory_bytes} bytes: \
             no difference"
        )
    }
}

/// Chance that can be had again: SplitMix64.
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64, nth: u64) -> Self {
        let mut chance = Self(seed.wrapping_mul(0xD6E8_FEB8_6659_FD93) ^ nth);
        chance.next();
        chance
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next()).expect("64 bits") % bound
    }

    pub(crate) fn fill(&mut self, target: &mut [u8]) {
        for piece in target.chunks_mut(8) {
            piece.copy_from_slice(&self.next().to_le_bytes()[..piece.len()]);
        }
    }
}
