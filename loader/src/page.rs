//! Sets pages back: reads a whole page, and writes only the lines that differ.
//!
//! A request changes a few lines of each page that it touches (a stack frame, a response, a counter).
//! Reading is cheaper than writing: two loads go where one store does, lines that stay clean need no
//! ownership and no write-back, and a page of zeros is compared with nothing. `bench/benches/restore.rs`
//! has the figures, and those of pages that are overwritten as a whole, where it costs more than a copy.
//!
//! Hot path: all of it.
#![expect(unsafe_code, reason = "asks for an instruction set; the safe face is `set_back`")]

use crate::mapping::PAGE_SIZE;

/// Bytes that are compared before one branch. Two cache lines: with one, the branches cost as much as the
/// loads.
const LINE_BYTES: usize = 128;

/// The content of a page.
pub(crate) type Page = [u8; PAGE_SIZE];

/// Sets `page` to the content of a fresh instance; `None` means zeros.
#[inline]
pub(crate) fn set_back(page: &mut Page, fresh: Option<&Page>) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the CPU has the feature, and that is all that is asked for.
        return unsafe { set_back_avx2(page, fresh) };
    }
    set_back_lines(page, fresh);
}

/// The same code with vectors of 32 bytes: half the instructions of the 16 that every x86-64 has.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn set_back_avx2(page: &mut Page, fresh: Option<&Page>) {
    set_back_lines(page, fresh);
}

#[inline(always)]
fn set_back_lines(page: &mut Page, fresh: Option<&Page>) {
    let lines = page.as_chunks_mut::<LINE_BYTES>().0;
    let Some(fresh) = fresh else {
        for line in lines {
            // A fold and not `!=`, which is a call of `memcmp`: this becomes a few vector instructions.
            if line.iter().fold(0, |found, byte| found | byte) != 0 {
                *line = [0; LINE_BYTES];
            }
        }
        return;
    };
    for (line, fresh) in lines.iter_mut().zip(fresh.as_chunks::<LINE_BYTES>().0) {
        if line.iter().zip(fresh).fold(0, |found, (is, was)| found | (is ^ was)) != 0 {
            *line = *fresh;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_byte_is_set_back(
            fresh in prop::option::of(prop::collection::vec(any::<u8>(), PAGE_SIZE)),
            writes in prop::collection::vec((0..PAGE_SIZE, any::<u8>()), 0..200),
        ) {
            let fresh: Option<Box<Page>> = fresh.map(|bytes| bytes.try_into().unwrap());
            let mut page = fresh.as_deref().copied().unwrap_or([0; PAGE_SIZE]);
            for (at, byte) in writes {
                page[at] = byte;
            }
            let mut portable = page;
            set_back(&mut page, fresh.as_deref());
            set_back_lines(&mut portable, fresh.as_deref());
            prop_assert_eq!(page, fresh.as_deref().copied().unwrap_or([0; PAGE_SIZE]));
            prop_assert_eq!(portable, page);
        }
    }
}
