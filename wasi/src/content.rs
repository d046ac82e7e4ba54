//! What is in the files of the folder in memory.
//!
//! ```text
//!   up to a block          node -> content
//!   up to 1024 of them     node -> numbers -> content, content, 0, content ..     0: zeros that nobody wrote
//!   up to 1024 times that  node -> numbers -> numbers -> content ..
//! ```
//!
//! Invariant: what lies in a block behind the file's end is zero, so a file that grows shows zeros.

use crate::blocks::{BLOCK_SIZE, Blocks, blocks_of, number_at, set_number_at};
use crate::index;
use crate::preview1::Errno;
use crate::scratch::{Node, Scratch, View};
use crate::walk::Type;

/// Numbers in a block.
const FANOUT: u32 = BLOCK_SIZE / 4;
/// Levels of numbers above content.
const LEVELS_MAX: u8 = 2;
/// Largest size of a file, which may have less content than that: what is left out is zero.
pub const FILE_BYTES_MAX: u64 = u32::MAX as u64;

/// A piece of a file that lies in one block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The block; 0 for zeros.
    pub block: u32,
    /// Where in it.
    pub range: core::ops::Range<usize>,
}

impl Piece {
    fn at(offset: u32, size: u32) -> Self {
        let start = offset % BLOCK_SIZE;
        let size = size.min(BLOCK_SIZE - start);
        Self { block: 0, range: index(start)..index(start + size) }
    }
}

impl<B: Blocks> View<'_, B> {
    /// Returns what a file has from an offset on, so far as it lies together, at most `size` bytes; nothing behind its
    /// end.
    #[must_use]
    pub fn piece(self, node: &Node, offset: u64, size: u32) -> Piece {
        let offset = u32::try_from(offset).unwrap_or(u32::MAX).min(node.size);
        let piece = Piece::at(offset, size.min(node.size - offset));
        Piece { block: self.content(node, offset / BLOCK_SIZE), ..piece }
    }

    /// Returns the block of a file's content at a place; 0 where there is none.
    fn content(self, node: &Node, place: u32) -> u32 {
        if u64::from(place) >= reach(node.levels) {
            return 0;
        }
        let mut block = node.first;
        for level in (0..node.levels).rev() {
            if block == 0 {
                break;
            }
            block = number_at(self.blocks.block(block), slot(place, level));
        }
        block
    }
}

impl<B: Blocks> Scratch<'_, B> {
    /// Makes room for what is to be written at an offset, so far as it lies together. The node is not stored yet, and
    /// its size not changed.
    ///
    /// # Errors
    /// [`Errno::NoSpace`].
    pub fn room_at(&mut self, node: &mut Node, offset: u32, size: u32) -> Result<Piece, Errno> {
        let piece = Piece::at(offset, size);
        Ok(Piece { block: self.content_made(node, offset / BLOCK_SIZE)?, ..piece })
    }

    fn content_made(&mut self, node: &mut Node, place: u32) -> Result<u32, Errno> {
        while u64::from(place) >= reach(node.levels) {
            if node.first != 0 {
                let numbers = self.head.room.take(self.blocks)?;
                set_number_at(self.blocks.block_mut(numbers), 0, node.first);
                node.first = numbers;
            }
            node.levels += 1;
        }
        if node.first == 0 {
            node.first = self.head.room.take(self.blocks)?;
        }
        let mut block = node.first;
        for level in (0..node.levels).rev() {
            let at = slot(place, level);
            let mut below = number_at(self.blocks.block(block), at);
            if below == 0 {
                below = self.head.room.take(self.blocks)?;
                set_number_at(self.blocks.block_mut(block), at, below);
            }
            block = below;
        }
        Ok(block)
    }

    /// Makes a file as long as is said: its end is cut off, or zeros are added.
    ///
    /// # Errors
    /// [`Errno::TooLarge`].
    pub fn resize(&mut self, node: u32, size: u64) -> Result<(), Errno> {
        let size = small(size)?;
        let mut value = self.view().node(node);
        if size < value.size {
            let kept = blocks_of(size);
            self.free_from(value.first, value.levels, kept);
            if kept == 0 {
                (value.first, value.levels) = (0, 0);
            }
            let last = self.view().content(&value, size / BLOCK_SIZE);
            if !size.is_multiple_of(BLOCK_SIZE) && last != 0 {
                self.blocks.block_mut(last)[index(size % BLOCK_SIZE)..].fill(0);
            }
        }
        value.size = size;
        value.touch(self.now);
        self.store(node, &value);
        Ok(())
    }

    /// Makes room for a region of a file, which grows over it.
    ///
    /// # Errors
    /// [`Errno::TooLarge`] or [`Errno::NoSpace`]; the file is as long as it was then.
    pub fn allocate(&mut self, node: u32, offset: u64, size: u64) -> Result<(), Errno> {
        let end = small(offset.checked_add(size).ok_or(Errno::TooLarge)?)?;
        let first = small(offset)? / BLOCK_SIZE;
        let mut value = self.view().node(node);
        if blocks_of(end).saturating_sub(first)
            > self.head.room.free_count() + blocks_of(value.size)
        {
            return Err(Errno::NoSpace);
        }
        let made = (first..blocks_of(end)).try_for_each(|place| {
            self.content_made(&mut value, place)?;
            Ok(())
        });
        if made.is_ok() && value.size < end {
            value.size = end;
        }
        // What room was made is the file's either way.
        value.touch(self.now);
        self.store(node, &value);
        made
    }

    /// Frees the content of a file or a link, whose node is not used any more.
    pub(crate) fn empty(&mut self, node: u32) {
        let value = self.view().node(node);
        if value.kind != Type::Folder {
            self.free_from(value.first, value.levels, 0);
        }
    }

    /// Frees all content below a block from a place on; itself too, if nothing is left of it. Calls itself once for
    /// each level.
    fn free_from(&mut self, block: u32, level: u8, from: u32) {
        if block == 0 {
            return;
        }
        if let Some(below) = level.checked_sub(1) {
            let span = reach(below);
            for number in 0..FANOUT {
                let from = u64::from(from).saturating_sub(u64::from(number) * span);
                let child = number_at(self.blocks.block(block), index(number * 4));
                if child != 0 && from < span {
                    self.free_from(child, below, u32::try_from(from).expect("below a span"));
                    if from == 0 {
                        set_number_at(self.blocks.block_mut(block), index(number * 4), 0);
                    }
                }
            }
        }
        if from == 0 {
            self.head.room.give(self.blocks, block);
        }
    }
}

/// Returns how many blocks of content so many levels of numbers reach.
const fn reach(levels: u8) -> u64 {
    let mut reach = 1;
    let mut level = 0;
    while level < levels {
        reach *= FANOUT as u64;
        level += 1;
    }
    reach
}

/// Returns where in a block of a level the number for a place of content is.
fn slot(place: u32, level: u8) -> usize {
    let number = u64::from(place) / reach(level) % u64::from(FANOUT);
    index(u32::try_from(number).expect("below FANOUT")) * 4
}

fn small(size: u64) -> Result<u32, Errno> {
    u32::try_from(size).map_err(|_| Errno::TooLarge)
}

const _: () = assert!(FILE_BYTES_MAX <= reach(LEVELS_MAX) * BLOCK_SIZE as u64);
