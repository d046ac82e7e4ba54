//! Memory of the folder that a guest may write to: blocks of a page, and cells for what is smaller.
//!
//! ```text
//!   blocks     1 | 2 | 3 | ...  taken in order, given back to a list; 0 is none
//!   a block    a file's content | numbers of blocks | cells of 32 bytes, several of which are a record
//! ```
//!
//! Blocks are taken from the front, so what a request writes lies together, and nothing is touched that is not
//! written. A block of cells stays one.
//!
//! Invariant: a block that was never taken is all zero, and one that is taken is made so.

use crate::index;
use crate::preview1::Errno;

/// Bytes of a block: those of a page, by which memory is made pristine.
pub const BLOCK_SIZE: u32 = 4096;
/// The same, as a length.
pub const BLOCK_BYTES: usize = index(BLOCK_SIZE);
/// Bytes of a cell.
pub const CELL_SIZE: u32 = 32;
/// The same, as a length.
pub const CELL_BYTES: usize = index(CELL_SIZE);
/// Cells of a block.
pub const CELLS: u32 = 128;
/// Most cells of a record.
pub const RECORD_CELLS_MAX: usize = 9;

/// A block.
pub type Block = [u8; BLOCK_BYTES];

/// Where blocks lie.
pub trait Blocks {
    /// Returns a block.
    fn block(&self, number: u32) -> &Block;
    /// Returns a block to be changed.
    fn block_mut(&mut self, number: u32) -> &mut Block;
    /// Makes all blocks up to a number accessible, and zero. Returns false where there is no memory for them.
    fn reach(&mut self, number: u32) -> bool;
}

/// What is taken of the blocks. All zero is one of which nothing may be taken.
#[derive(Debug, Default)]
pub struct Room {
    /// The last block that may be taken.
    last: u32,
    /// The last that was ever taken.
    taken: u32,
    /// As that, of folders that were there before: what lies up to here is not zero.
    soiled: u32,
    /// The first of those that were given back; each holds the number of the next.
    free: u32,
    free_count: u32,
    /// The first cell of the current block's that was not taken, and how many there are.
    cell: u32,
    cells: u32,
    /// Records that were given back, by the number of their cells; each holds the number of the next.
    records: [u32; RECORD_CELLS_MAX + 1],
}

impl Room {
    /// Returns one of which nothing may be taken.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            last: 0,
            taken: 0,
            soiled: 0,
            free: 0,
            free_count: 0,
            cell: 0,
            cells: 0,
            records: [0; RECORD_CELLS_MAX + 1],
        }
    }

    /// Begins with so many blocks.
    pub fn begin(&mut self, count: u32) {
        let soiled = self.soiled.max(self.taken);
        *self = Self { last: count, soiled, ..Self::new() };
    }

    /// Returns how many blocks can be taken.
    #[must_use]
    pub const fn free_count(&self) -> u32 {
        self.last - self.taken + self.free_count
    }

    /// Takes a block, which is zero.
    ///
    /// # Errors
    /// [`Errno::NoSpace`].
    pub fn take(&mut self, blocks: &mut impl Blocks) -> Result<u32, Errno> {
        if self.free != 0 {
            let number = self.free;
            let block = blocks.block_mut(number);
            self.free = number_at(block, 0);
            self.free_count -= 1;
            block.fill(0);
            return Ok(number);
        }
        let number = self.taken + 1;
        if number > self.last || !blocks.reach(number) {
            return Err(Errno::NoSpace);
        }
        self.taken = number;
        if number <= self.soiled {
            blocks.block_mut(number).fill(0);
        }
        Ok(number)
    }

    /// Gives a block back.
    pub fn give(&mut self, blocks: &mut impl Blocks, number: u32) {
        set_number_at(blocks.block_mut(number), 0, self.free);
        self.free = number;
        self.free_count += 1;
    }

    /// Takes a record of so many cells. Returns its first cell; its bytes are what they were.
    ///
    /// # Errors
    /// [`Errno::NoSpace`].
    pub fn take_record(&mut self, blocks: &mut impl Blocks, count: u32) -> Result<u32, Errno> {
        let free = self.records[index(count)];
        if free != 0 {
            self.records[index(count)] = number_at(record(blocks, free, 1), 0);
            return Ok(free);
        }
        if self.cells < count {
            let block = self.take(blocks)?;
            if self.cells > 0 {
                self.give_record(blocks, self.cell, self.cells);
            }
            (self.cell, self.cells) = (block * CELLS, CELLS);
        }
        let first = self.cell;
        self.cell += count;
        self.cells -= count;
        Ok(first)
    }

    /// Gives a record back.
    pub fn give_record(&mut self, blocks: &mut impl Blocks, first: u32, count: u32) {
        set_number_at(record_mut(blocks, first, 1), 0, self.records[index(count)]);
        self.records[index(count)] = first;
    }
}

/// Returns the bytes of a record.
pub fn record(blocks: &impl Blocks, first: u32, count: u32) -> &[u8] {
    &blocks.block(first / CELLS)[range(first, count)]
}

/// Returns the bytes of a record, to be changed.
pub fn record_mut(blocks: &mut impl Blocks, first: u32, count: u32) -> &mut [u8] {
    &mut blocks.block_mut(first / CELLS)[range(first, count)]
}

const fn range(first: u32, count: u32) -> core::ops::Range<usize> {
    let start = index(first % CELLS) * CELL_BYTES;
    start..start + index(count) * CELL_BYTES
}

/// Reads a number.
#[must_use]
pub fn number_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(*bytes[at..].first_chunk().expect("in a record or a block"))
}

/// Writes a number.
pub fn set_number_at(bytes: &mut [u8], at: usize, number: u32) {
    bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
}

/// Returns how many blocks so many bytes are.
#[must_use]
pub const fn blocks_of(bytes: u32) -> u32 {
    bytes.div_ceil(BLOCK_SIZE)
}

const _: () = assert!(index(CELLS) * CELL_BYTES == BLOCK_BYTES);
