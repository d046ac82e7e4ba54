//! Modules by wasm-smith, steered towards state.

use wasm_encoder::AbstractHeapType;
use wasm_encoder::reencode::{self, Reencode};
use wasm_smith::{Config, MemoryOffsetChoices, Module};
use wasmparser::Parser;

/// Bytes that a module is made of.
const ENTROPY_BYTES: usize = 6 * 1024;
/// Loops and calls of one instance before it traps: enough to leave something, and to end.
const FUEL: u32 = 400;

/// Returns the module of a seed; `None` for the few that wasm-smith gives up.
pub(crate) fn module(seed: u64) -> Option<Vec<u8>> {
    let mut chance = Chance::new(seed);
    let mut entropy = vec![0; ENTROPY_BYTES];
    chance.fill(&mut entropy);
    let mut unstructured = arbitrary::Unstructured::new(&entropy);
    let mut module = Module::new(config(&mut chance), &mut unstructured).ok()?;
    module.ensure_termination(FUEL).ok()?;
    let wasm = module.to_bytes();
    let mut without = wasm_encoder::Module::new();
    FunctionsAlone.parse_core_module(&mut without, Parser::new(0), &wasm).ok()?;
    Some(without.finish())
}

/// Makes references to functions of references to the host's objects, which are refused.
struct FunctionsAlone;

impl Reencode for FunctionsAlone {
    type Error = std::convert::Infallible;

    fn abstract_heap_type(
        &mut self,
        ty: wasmparser::AbstractHeapType,
    ) -> Result<AbstractHeapType, reencode::Error> {
        let ty = match ty {
            wasmparser::AbstractHeapType::Extern => wasmparser::AbstractHeapType::Func,
            other => other,
        };
        Ok(reencode::utils::abstract_heap_type(self, ty))
    }
}

fn config(chance: &mut Chance) -> Config {
    let imports = r#"(module
        (import "midge" "log" (func (param i32 i32 i32)))
        (import "midge" "clock_wall_ns" (func (result i64)))
        (import "midge" "clock_monotonic_ns" (func (result i64)))
        (import "midge" "random" (func (param i32 i32))))"#;
    Config {
        available_imports: Some(wat::parse_str(imports).expect("a module of imports")),
        max_imports: chance.below(5),
        // What `midge_loader::module::FEATURES` leaves out.
        threads_enabled: false,
        exceptions_enabled: false,
        gc_enabled: false,
        relaxed_simd_enabled: false,
        memory64_enabled: false,
        wide_arithmetic_enabled: false,
        custom_page_sizes_enabled: false,
        // Without references there are fewer kinds of instructions, so more of each.
        reference_types_enabled: chance.below(2) == 0,
        bulk_memory_enabled: true,
        // Start-up may ask for the time, and is refused then: not always.
        allow_start_export: chance.below(3) == 0,
        min_funcs: 2,
        max_funcs: 12,
        max_instructions: 20 + chance.below(200),
        max_nesting_depth: 5,
        min_memories: 1,
        max_memories: 1 + chance.below(3),
        max_memory32_bytes: 4 * 65536,
        // Mostly small addresses: most accesses are to land in the memory, and some not.
        memory_offset_choices: MemoryOffsetChoices(80, 15, 5),
        min_data_segments: 1,
        max_data_segments: 5,
        min_element_segments: 1,
        max_element_segments: 4,
        min_tables: 1,
        max_tables: 3,
        max_table_elements: 64,
        min_globals: 3,
        max_globals: 12,
        export_everything: true,
        max_exports: 64,
        ..Config::default()
    }
}

/// Chance that can be had again: SplitMix64.
struct Chance(u64);

impl Chance {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0xD6E8_FEB8_6659_FD93))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number below `bound`, which is not 0.
    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next()).expect("64 bits") % bound
    }

    fn fill(&mut self, target: &mut [u8]) {
        for piece in target.chunks_mut(8) {
            piece.copy_from_slice(&self.next().to_le_bytes()[..piece.len()]);
        }
    }
}
