//! The image is copied back.

use std::io;

use crate::mapping::Slots;
use crate::{Plan, Way};

struct Known {
    slots: Slots,
}

/// Makes the way that copies the pages it is told: what any way that copies takes at least.
pub(crate) fn known(plan: &Plan) -> io::Result<Box<dyn Way>> {
    Ok(Box::new(Known { slots: Slots::filled(plan)? }))
}

impl Way for Known {
    fn cycle(&mut self, slot: usize, pages: &[usize]) -> io::Result<()> {
        self.slots.write(slot, pages);
        for &page in pages {
            self.slots.copy_page(slot, page);
        }
        Ok(())
    }

    fn is_pristine(&self, slot: usize) -> bool {
        self.slots.is_pristine(slot)
    }
}

struct Whole {
    slots: Slots,
    size: usize,
}

/// Makes the way that copies everything.
pub(crate) fn whole(plan: &Plan) -> io::Result<Box<dyn Way>> {
    Ok(Box::new(Whole { slots: Slots::filled(plan)?, size: plan.image.len() }))
}

impl Way for Whole {
    fn cycle(&mut self, slot: usize, pages: &[usize]) -> io::Result<()> {
        self.slots.write(slot, pages);
        self.slots.copy_back(slot, 0, self.size);
        Ok(())
    }

    fn is_pristine(&self, slot: usize) -> bool {
        self.slots.is_pristine(slot)
    }
}

struct Mapped {
    slots: Slots,
    /// A byte for each page of each slot, as compiled stores would set it.
    marks: Vec<Vec<u8>>,
}

/// Makes the way in which each store marks its page in a map, as code could be compiled to do.
pub(crate) fn mapped(plan: &Plan) -> io::Result<Box<dyn Way>> {
    let marks = vec![vec![0; plan.pages()]; plan.slots];
    Ok(Box::new(Mapped { slots: Slots::filled(plan)?, marks }))
}

impl Way for Mapped {
    fn cycle(&mut self, slot: usize, pages: &[usize]) -> io::Result<()> {
        let marks = &mut self.marks[slot];
        for page in pages {
            self.slots.write(slot, std::slice::from_ref(page));
            marks[*page] = 1;
        }
        // Eight pages are looked at in one step.
        for (at, word) in marks.chunks_mut(8).enumerate() {
            if word.iter().all(|mark| *mark == 0) {
                continue;
            }
            for (page, mark) in word.iter_mut().enumerate() {
                if std::mem::take(mark) != 0 {
                    self.slots.copy_page(slot, at * 8 + page);
                }
            }
        }
        Ok(())
    }

    fn is_pristine(&self, slot: usize) -> bool {
        self.slots.is_pristine(slot)
    }
}
