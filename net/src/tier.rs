//! Which way to the kernel: the ring with what its version has, or epoll where there is none.
//!
//! | tier | kernel | what it uses |
//! |---|---|---|
//! | a | 6.1 | completions run in our own enter alone; multishot receives into a ring of buffers |
//! | b | 6.0 | the same, completions run when we are in the kernel anyway |
//! | c | 5.19 | a receive for each piece, into the same buffers |
//! | d | any | epoll, and a system call for each operation |
//!
//! The endpoint above is the same for all, so they answer with the same bytes.

use std::io;

use crate::settings::Settings;
use crate::uring::{Uring, UringError};

/// A way to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum RingTier {
    /// io_uring of Linux 6.1.
    A,
    /// io_uring of Linux 6.0.
    B,
    /// io_uring of Linux 5.19.
    C,
    /// epoll.
    D,
}

impl RingTier {
    /// All of them, the best first.
    pub const ALL: [Self; 4] = [Self::A, Self::B, Self::C, Self::D];

    /// Returns the name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
            Self::C => "c",
            Self::D => "d",
        }
    }

    /// Returns what it is made of, for people.
    #[must_use]
    pub const fn description(self) -> &'static str {
        match self {
            Self::A => "io_uring, deferred completions",
            Self::B => "io_uring, cooperative completions",
            Self::C => "io_uring, single receives",
            Self::D => "epoll",
        }
    }

    /// Returns the tier of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tier| tier.name() == name)
    }
}

impl std::fmt::Display for RingTier {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.pad(self.name())
    }
}

/// What a machine gets that asks for nothing in particular.
#[derive(Debug)]
pub struct Chosen {
    /// The best tier there is.
    pub tier: RingTier,
    /// Why it is none of the ring's.
    pub hindrance: Option<UringError>,
}

/// Finds the best tier by making a small ring. Where rings are forbidden or missing it is epoll.
///
/// # Errors
/// If a ring fails for another reason: then something is short that may be had.
pub fn choose() -> Result<Chosen, UringError> {
    match Uring::new(&small()) {
        Ok(ring) => Ok(Chosen { tier: ring.tier().ring_tier(), hindrance: None }),
        Err(error @ (UringError::Forbidden(_) | UringError::Missing(_))) => {
            Ok(Chosen { tier: RingTier::D, hindrance: Some(error) })
        }
        Err(error) => Err(error),
    }
}

/// Tells whether a tier that was asked for by name can be had.
///
/// # Errors
/// Why not.
pub fn check(tier: RingTier) -> Result<(), UringError> {
    match tier {
        RingTier::D => crate::epoll::Epoll::new(&small()).map(drop).map_err(epoll_failed),
        _ => Uring::of_tier(&small(), tier).map(drop),
    }
}

fn epoll_failed(source: io::Error) -> UringError {
    UringError::System { step: "make an epoll instance", source }
}

fn small() -> Settings {
    Settings { connections_max: 1, buffers: 1, entries: 8, ..Settings::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_back() {
        for tier in RingTier::ALL {
            assert_eq!(RingTier::from_name(tier.name()), Some(tier));
        }
        assert_eq!(RingTier::from_name("e"), None);
    }

    #[test]
    fn this_machine_has_what_was_chosen_and_all_that_is_older() {
        let chosen = choose().unwrap();
        for tier in RingTier::ALL.into_iter().filter(|tier| chosen.tier <= *tier) {
            check(tier).unwrap();
        }
    }
}
