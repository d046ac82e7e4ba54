//! Where a setting's value comes from.

use std::fmt;

use super::source::Place;

/// A value with its origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting<T> {
    /// The value in force.
    pub value: T,
    /// What set it.
    pub origin: Origin,
}

/// What set a value. A later variant wins over an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Nobody did.
    Default,
    /// The settings file, here.
    File(Place),
    /// An environment variable of this name.
    Environment(&'static str),
    /// A flag of this name, with its dashes.
    Flag(&'static str),
}

impl<T> Setting<T> {
    /// Returns a value that nobody set.
    pub const fn default(value: T) -> Self {
        Self { value, origin: Origin::Default }
    }
}

impl Origin {
    /// Returns the kind as one word, for JSON.
    #[must_use]
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::File(_) => "file",
            Self::Environment(_) => "environment",
            Self::Flag(_) => "flag",
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => formatter.write_str("default"),
            Self::File(place) => write!(formatter, "line {}:{}", place.line, place.column),
            Self::Environment(name) => formatter.write_str(name),
            Self::Flag(name) => formatter.write_str(name),
        }
    }
}
