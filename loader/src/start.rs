//! The techniques: ways to get an instance whose state is that of a fresh one.
//!
//! | name | before the request | for each request |
//! |---|---|---|
//! | `jit` | the module's bytes | compile, instantiate |
//! | `aot` | compiled code in a file | copy the code, instantiate over the template |
//! | `mmap` | the artifact, mapped | bind the code where it lies, instantiate over the template |
//! | `cow` | loaded code, copy-on-write image | instantiate on demand |
//! | `pool` | a pool of the engine's | instantiate in it, reset by madvise and copying |
//! | `pool-scan` | the same | the same, reset of what PAGEMAP_SCAN finds |
//! | `restore` | a slot that has served | copy its dirty pages back |
//! | `reuse` | a slot that has served | nothing: no isolation, for comparison |
//!
//! All stand behind [`StartTechnique`], so that the host and the lab run the same code.

pub mod choose; // which technique a module may use, and which it gets
pub mod code; // `jit`, `aot`, `mmap`: code is loaded for each start
pub mod fresh; // `cow`, `pool`, `pool-scan`: a new instance for each request
pub mod restore; // `restore`: the slot stays
pub mod reuse; // `reuse`: nothing is undone

use midge_abi::manifest::Manifest;

use crate::engine::EngineKind;
use crate::instance::{AfterCall, StartError};
use crate::slot::{Discard, Pristine, Used};

pub(crate) use code::{LoadedCode, load_component, load_module};

/// A technique's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Technique {
    /// Compile for each request.
    Jit,
    /// Load a copy of compiled code for each request.
    Aot,
    /// Bind mapped code for each request.
    Mmap,
    /// New instance over the engine's copy-on-write image.
    Cow,
    /// New instance in the engine's pool.
    Pool,
    /// New instance in the engine's pool, reset by PAGEMAP_SCAN.
    PoolScan,
    /// The slot that served last, restored.
    Restore,
    /// The slot that served last, as it is.
    Reuse,
}

/// State before the request, by which a start's cost is to be read (DESIGN, tiers).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Tier {
    /// The artifact is in the page cache, and unknown to this process.
    T1,
    /// The code is loaded, there is no slot.
    T2,
    /// A slot that has served was restored.
    T3,
    /// A slot that has served, not restored.
    Reuse,
}

impl Technique {
    /// All techniques.
    pub const ALL: [Self; 8] = [
        Self::Jit,
        Self::Aot,
        Self::Mmap,
        Self::Cow,
        Self::Pool,
        Self::PoolScan,
        Self::Restore,
        Self::Reuse,
    ];

    /// Returns the name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Jit => "jit",
            Self::Aot => "aot",
            Self::Mmap => "mmap",
            Self::Cow => "cow",
            Self::Pool => "pool",
            Self::PoolScan => "pool-scan",
            Self::Restore => "restore",
            Self::Reuse => "reuse",
        }
    }

    /// Returns the technique of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|technique| technique.name() == name)
    }

    /// Returns the engine that it runs on.
    #[must_use]
    pub const fn engine_kind(self) -> EngineKind {
        match self {
            Self::Aot | Self::Mmap | Self::Restore | Self::Reuse => EngineKind::Mapped,
            Self::Jit | Self::Cow => EngineKind::OnDemand,
            Self::Pool => EngineKind::Pool,
            Self::PoolScan => EngineKind::PoolScan,
        }
    }

    /// Returns the engine that it runs an artifact on.
    #[must_use]
    pub const fn engine_kind_of(self, manifest: &Manifest) -> EngineKind {
        match (self.engine_kind(), &manifest.unlinked) {
            (EngineKind::Pool, Some(_)) => EngineKind::ComponentPool,
            (EngineKind::PoolScan, Some(_)) => EngineKind::ComponentPoolScan,
            (EngineKind::Mapped, None) => EngineKind::of_form(manifest.form()),
            (_, Some(_)) => EngineKind::Component,
            (other, None) => other,
        }
    }

    pub(crate) const fn uses_templates(self) -> bool {
        matches!(self.engine_kind(), EngineKind::Mapped)
    }

    pub(crate) const fn after_call(self) -> AfterCall {
        match self {
            Self::Restore => AfterCall::Restored,
            Self::Reuse => AfterCall::Kept,
            _ => AfterCall::Dropped,
        }
    }

    pub(crate) const fn loads_code_at_start(self) -> bool {
        matches!(self, Self::Jit | Self::Aot | Self::Mmap)
    }

    /// True if each request finds the state of a fresh instance.
    #[must_use]
    pub const fn is_isolating(self) -> bool {
        !matches!(self, Self::Reuse)
    }
}

impl std::fmt::Display for Technique {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.pad(self.name())
    }
}

impl Tier {
    /// All tiers.
    pub const ALL: [Self; 4] = [Self::T1, Self::T2, Self::T3, Self::Reuse];

    /// Returns the name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::T1 => "T1",
            Self::T2 => "T2",
            Self::T3 => "T3",
            Self::Reuse => "reuse",
        }
    }

    /// Returns the position in [`Tier::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// An instance for one request, and where it came from.
pub struct Started {
    /// The instance.
    pub pristine: Pristine,
    /// The state before the request.
    pub tier: Tier,
}

/// A way to get instances for one function on one worker.
pub trait StartTechnique {
    /// Takes an instance for a request.
    ///
    /// # Errors
    /// [`StartError`] if none can be made.
    fn take(&mut self) -> Result<Started, StartError>;

    /// Takes an instance back after its request. Says why it was given up, if it was.
    fn give(&mut self, used: Used) -> Option<Discard>;
}

/// Any of the techniques. An enum and not a trait object: the request path makes no indirect call.
pub enum AnyTechnique {
    /// `jit`, `aot`, `mmap`, `cow`, `pool`, `pool-scan`.
    Fresh(fresh::Fresh),
    /// `restore`.
    Restore(restore::Restore),
    /// `reuse`.
    Reuse(reuse::Reuse),
}

impl AnyTechnique {
    /// Makes the technique that the function was registered for, keeping up to `slots_max` slots.
    #[must_use]
    pub fn new(function: std::sync::Arc<crate::function::Function>, slots_max: usize) -> Self {
        match function.technique() {
            Technique::Restore => Self::Restore(restore::Restore::new(function, slots_max)),
            Technique::Reuse => Self::Reuse(reuse::Reuse::new(function, slots_max)),
            _ => Self::Fresh(fresh::Fresh::new(function)),
        }
    }

    /// Drops every slot that is kept and idle, and returns how many there were: the machine is short of
    /// memory or mappings, and another function needs them now.
    pub fn shed(&mut self) -> usize {
        self.idle_mut().map_or(0, |idle| idle.drain(..).count())
    }

    /// Returns how many slots are kept and idle.
    #[must_use]
    pub fn idle_count(&self) -> usize {
        match self {
            Self::Fresh(_) => 0,
            Self::Restore(technique) => technique.idle.len(),
            Self::Reuse(technique) => technique.idle.len(),
        }
    }

    /// Drops the slot that has been idle longest. False if there is none.
    pub fn shed_one(&mut self) -> bool {
        match self.idle_mut() {
            Some(idle) if !idle.is_empty() => {
                drop(idle.remove(0));
                true
            }
            _ => false,
        }
    }

    /// Returns the slots that are kept and idle, if the technique keeps any.
    fn idle_mut(&mut self) -> Option<&mut Vec<Pristine>> {
        match self {
            Self::Fresh(_) => None,
            Self::Restore(technique) => Some(&mut technique.idle),
            Self::Reuse(technique) => Some(&mut technique.idle),
        }
    }
}

impl StartTechnique for AnyTechnique {
    fn take(&mut self) -> Result<Started, StartError> {
        match self {
            Self::Fresh(technique) => technique.take(),
            Self::Restore(technique) => technique.take(),
            Self::Reuse(technique) => technique.take(),
        }
    }

    fn give(&mut self, used: Used) -> Option<Discard> {
        match self {
            Self::Fresh(technique) => technique.give(used),
            Self::Restore(technique) => technique.give(used),
            Self::Reuse(technique) => technique.give(used),
        }
    }
}
