//! The names of the ways to the kernel.

use std::fmt;

use midge_net::RingTier;

/// Which way to the kernel workers take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum RingChoice {
    /// The best that the machine has.
    Auto,
    /// `io_uring` of Linux 6.1.
    A,
    /// `io_uring` of Linux 6.0.
    B,
    /// `io_uring` of Linux 5.19.
    C,
    /// epoll.
    D,
}

impl RingChoice {
    /// All of them, in the order in which the manual explains them.
    pub const ALL: [Self; 5] = [Self::Auto, Self::A, Self::B, Self::C, Self::D];

    /// Returns the network's tier of the same name; `None` means that the best is chosen.
    #[must_use]
    pub const fn tier(self) -> Option<RingTier> {
        match self {
            Self::Auto => None,
            Self::A => Some(RingTier::A),
            Self::B => Some(RingTier::B),
            Self::C => Some(RingTier::C),
            Self::D => Some(RingTier::D),
        }
    }

    /// Returns the name that settings and reports use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self.tier() {
            None => "auto",
            Some(tier) => tier.name(),
        }
    }
}

impl fmt::Display for RingChoice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_but_auto_are_the_networks() {
        let tiers: Vec<_> = RingChoice::ALL.iter().filter_map(|choice| choice.tier()).collect();
        assert_eq!(tiers, RingTier::ALL);
    }
}
