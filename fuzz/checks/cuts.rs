//! Where an input is cut: drawn from its own bytes, so a corpus holds plain inputs and each has its cuts for good.

/// Inputs up to this size are cut at every place.
const EVERY_PLACE_BYTES_MAX: usize = 48;
/// Cuts of longer ones.
const CUTS: usize = 6;

/// Returns growing ends of pieces; the last is that of the input.
pub(crate) fn cuts(bytes: &[u8]) -> Vec<usize> {
    if bytes.len() <= EVERY_PLACE_BYTES_MAX {
        return (0..=bytes.len()).collect();
    }
    let mut numbers = Numbers::of(bytes);
    let mut ends: Vec<_> = (0..CUTS).map(|_| numbers.below(bytes.len())).collect();
    ends.push(bytes.len());
    ends.sort_unstable();
    ends
}

/// Numbers that follow from an input.
pub(crate) struct Numbers(u64);

impl Numbers {
    /// Begins with a hash of the bytes (FNV-1a).
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let hash = bytes.iter().fold(0xCBF2_9CE4_8422_2325, |hash: u64, &byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
        });
        Self(hash | 1)
    }

    /// Returns a number below `limit`, which isn't 0.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).expect("64-bit targets alone") % limit
    }
}
