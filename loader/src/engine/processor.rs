//! The processors that code is compiled for: this one with all that it has, or every one of a level that vendors
//! agreed on (x86-64 psABI), for artifacts that are to run elsewhere.
#![expect(
    unsafe_code,
    reason = "names features of processors to the compiler; the safe face is Processor::tell"
)]

use std::fmt;

use wasmtime::Config;

/// Which processors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Processor {
    /// Those that have all that this one has.
    #[default]
    Native,
    /// Those with SSE 4.2: of 2009 and later.
    V2,
    /// Those with AVX 2: of 2013 and later, and what emulators offer.
    V3,
}

/// The platform whose levels these are.
const TARGET: &str = "x86_64-unknown-linux-gnu";
const V2: [&str; 5] = ["has_sse3", "has_ssse3", "has_sse41", "has_sse42", "has_popcnt"];
const V3: [&str; 6] = ["has_avx", "has_avx2", "has_fma", "has_bmi1", "has_bmi2", "has_lzcnt"];

impl Processor {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Native, Self::V2, Self::V3];

    /// Returns the name that settings use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::V2 => "x86-64-v2",
            Self::V3 => "x86-64-v3",
        }
    }

    /// Returns the one of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|processor| processor.name() == name)
    }

    /// Tells the compiler.
    pub(super) fn tell(self, config: &mut Config) {
        let features = match self {
            Self::Native => return,
            Self::V2 => &[&V2[..], &[]],
            Self::V3 => &[&V2[..], &V3],
        };
        // A target that is named is taken without the features of this processor.
        config.target(TARGET).expect("the compiler knows the target");
        for feature in features.iter().copied().flatten() {
            // SAFETY: the flag is unsafe because code with it must not run where the processor lacks the feature. The
            // engine looks for each flag's feature on this processor before it loads code, and refuses if it is
            // missing (`Engine::check_compatible_with_native_host` of wasmtime 48); code of an artifact is loaded by
            // an engine of the same flags alone, for they are part of its identity.
            unsafe { config.cranelift_flag_enable(feature) };
        }
    }

    /// Returns the architecture, and what decides whether code can move between machines.
    pub(crate) fn machine(self) -> String {
        let mut name = std::env::consts::ARCH.to_owned();
        if self != Self::Native {
            return format!("{name}, level {self}");
        }
        #[cfg(target_arch = "x86_64")]
        for (feature, is_present) in [
            ("sse4.2", std::arch::is_x86_feature_detected!("sse4.2")),
            ("avx2", std::arch::is_x86_feature_detected!("avx2")),
            ("bmi2", std::arch::is_x86_feature_detected!("bmi2")),
            ("fma", std::arch::is_x86_feature_detected!("fma")),
            ("avx512f", std::arch::is_x86_feature_detected!("avx512f")),
        ] {
            if is_present {
                name.push('+');
                name.push_str(feature);
            }
        }
        name
    }
}

impl fmt::Display for Processor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use midge_abi::manifest::Traces;
    use wasmtime::Module;

    use super::*;
    use crate::engine::{EngineKind, Engines};

    #[test]
    fn each_level_is_another_engine_and_runs_where_its_features_are() {
        // A function that counts bits: one instruction where the processor has it.
        let module =
            wat::parse_str("(module (func (param i32) (result i32) (i32.popcnt (local.get 0))))");
        let module = module.unwrap();
        let mut ids = Vec::new();
        for processor in Processor::ALL {
            assert_eq!(Processor::from_name(processor.name()), Some(processor));
            if processor == Processor::V3 && !std::arch::is_x86_feature_detected!("avx2") {
                continue;
            }
            let engines = Engines::of(processor);
            let engine = engines.get(EngineKind::Mapped, Traces::Functions).unwrap();
            assert!(Module::new(&engine.engine, &module).is_ok(), "{processor}");
            ids.push(engine.id());
        }
        ids.dedup();
        assert!(ids.len() == Processor::ALL.len() || !std::arch::is_x86_feature_detected!("avx2"));
    }
}
