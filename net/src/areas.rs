//! Pooled bytes: output being written and input that outlives its turn.
//!
//! Last given, first taken, so that the warm ones are used. An idle connection holds none.

/// Areas kept for later. More are made when needed and dropped afterwards.
const AREAS_KEPT_MAX: usize = 1024;

/// Capacity of a new area: a response of usual size, a fragment of a head.
const AREA_BYTES: usize = 2048;

/// Capacity above which an area isn't kept.
pub(crate) const AREA_BYTES_KEPT_MAX: usize = 64 * 1024;

/// Bytes of all areas that are kept.
pub(crate) const POOL_BYTES_MAX: u64 = (AREAS_KEPT_MAX * AREA_BYTES_KEPT_MAX) as u64;

/// The areas of one endpoint.
#[derive(Debug)]
pub(crate) struct Areas {
    free: Vec<Vec<u8>>,
}

impl Areas {
    pub(crate) fn new() -> Self {
        Self { free: Vec::with_capacity(AREAS_KEPT_MAX) }
    }

    /// Returns an empty area with room.
    #[inline]
    pub(crate) fn take(&mut self) -> Vec<u8> {
        self.free.pop().unwrap_or_else(|| Vec::with_capacity(AREA_BYTES))
    }

    /// Takes an area back.
    #[inline]
    pub(crate) fn give(&mut self, mut area: Vec<u8>) {
        if (1..=AREA_BYTES_KEPT_MAX).contains(&area.capacity()) && self.free.len() < AREAS_KEPT_MAX
        {
            area.clear();
            self.free.push(area);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_area_comes_back_empty_and_a_huge_one_not_at_all() {
        let mut areas = Areas::new();
        let mut area = areas.take();
        area.extend_from_slice(b"secret");
        let address = area.as_ptr();
        areas.give(area);
        let area = areas.take();
        assert_eq!((area.as_ptr(), area.len()), (address, 0));
        areas.give(Vec::with_capacity(AREA_BYTES_KEPT_MAX + 1));
        assert!(areas.free.is_empty());
    }
}
