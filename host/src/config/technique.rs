//! The names of the ways to start an instance.

use std::fmt;

/// How a function's instances are made pristine. The loader knows how each works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Technique {
    /// The fastest isolated one that the module is eligible for.
    Auto,
    /// Compile on start.
    Jit,
    /// Deserialise a copy of compiled code.
    Aot,
    /// Code mapped from the artifact.
    Mmap,
    /// A memory image, copied on write.
    Cow,
    /// The engine's pool of instances.
    Pool,
    /// The pool, cleaned by a scan of the page tables.
    PoolScan,
    /// Dirty pages copied back from the template.
    Restore,
    /// No isolation between requests.
    Reuse,
}

impl Technique {
    /// Returns the loader's technique of the same name; `None` means that the loader chooses.
    #[must_use]
    pub fn loader(self) -> Option<midge_loader::start::Technique> {
        midge_loader::start::Technique::from_name(self.name())
    }

    /// All of them, in the order in which the manual explains them.
    pub const ALL: [Self; 9] = [
        Self::Auto,
        Self::Jit,
        Self::Aot,
        Self::Mmap,
        Self::Cow,
        Self::Pool,
        Self::PoolScan,
        Self::Restore,
        Self::Reuse,
    ];

    /// Returns the name that settings and reports use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
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
}

impl fmt::Display for Technique {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_but_auto_are_the_loaders() {
        for technique in Technique::ALL {
            assert_eq!(technique.loader().is_none(), technique == Technique::Auto, "{technique:?}");
        }
    }
}
