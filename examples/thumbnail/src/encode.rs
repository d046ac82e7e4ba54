//! Writes a PNG (the W3C's PNG specification, third edition): header, one chunk of pixels, end.
//!
//! Each row is stored as the difference to the row above (filter 2), which pictures compress better by.

use alloc::vec::Vec;

use miniz_oxide::deflate::compress_to_vec_zlib;

use crate::CHANNELS;

const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1A\n";
/// Eight bits for each channel, colour with opacity, the only compression and filter method, no interlace.
const FORMAT: [u8; 5] = [8, 6, 0, 0, 0];
const FILTER_UP: u8 = 2;
const COMPRESSION_LEVEL: u8 = 6;

/// Returns the file of a picture whose pixels have [`CHANNELS`] bytes each.
pub fn png(width: usize, height: usize, pixels: &[u8]) -> Vec<u8> {
    let mut file = Vec::from(SIGNATURE);
    let [width_bytes, height_bytes] = [width, height].map(|pixels| (pixels as u32).to_be_bytes());
    chunk(&mut file, b"IHDR", &[&width_bytes[..], &height_bytes, &FORMAT].concat());
    let rows = filter(width * CHANNELS, pixels);
    chunk(&mut file, b"IDAT", &compress_to_vec_zlib(&rows, COMPRESSION_LEVEL));
    chunk(&mut file, b"IEND", &[]);
    file
}

fn filter(row_size: usize, pixels: &[u8]) -> Vec<u8> {
    let mut rows = Vec::with_capacity(pixels.len() + pixels.len() / row_size);
    for (index, row) in pixels.chunks_exact(row_size).enumerate() {
        rows.push(FILTER_UP);
        match index.checked_sub(1) {
            None => rows.extend(row),
            Some(above) => {
                let above = &pixels[above * row_size..][..row_size];
                rows.extend(row.iter().zip(above).map(|(byte, above)| byte.wrapping_sub(*above)));
            }
        }
    }
    rows
}

fn chunk(file: &mut Vec<u8>, kind: &[u8; 4], data: &[u8]) {
    file.extend((data.len() as u32).to_be_bytes());
    let start = file.len();
    file.extend(kind);
    file.extend(data);
    let checksum = crc32(&file[start..]);
    file.extend(checksum.to_be_bytes());
}

/// ISO 3309, bit by bit: a table would cost more to fill than a thumbnail's bytes take.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            if crc & 1 == 0 { crc >> 1 } else { crc >> 1 ^ 0xEDB8_8320 }
        })
    })
}
