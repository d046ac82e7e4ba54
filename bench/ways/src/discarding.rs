//! The kernel is told to forget what was written.

use std::fs::File;
use std::io;

use crate::mapping::{Slots, file_of};
use crate::{Plan, Way};

struct Discarding {
    slots: Slots,
    file: File,
    maps_anew: bool,
}

/// Makes the way by `MADV_DONTNEED`.
pub(crate) fn advise(plan: &Plan) -> io::Result<Box<dyn Way>> {
    make(plan, false)
}

/// Makes the way by `MAP_FIXED`.
pub(crate) fn remap(plan: &Plan) -> io::Result<Box<dyn Way>> {
    make(plan, true)
}

fn make(plan: &Plan, maps_anew: bool) -> io::Result<Box<dyn Way>> {
    let file = file_of(plan)?;
    Ok(Box::new(Discarding { slots: Slots::of_file(plan, &file)?, file, maps_anew }))
}

impl Way for Discarding {
    fn cycle(&mut self, slot: usize, pages: &[usize]) -> io::Result<()> {
        self.slots.write(slot, pages);
        if self.maps_anew { self.slots.map_over(slot, &self.file) } else { self.slots.forget(slot) }
    }

    fn is_pristine(&self, slot: usize) -> bool {
        self.slots.is_pristine(slot)
    }
}
