//! thumbnail: shrinks a posted PNG to `?width=` pixels (128 if it is not given).
//!
//! Every pixel of the small picture is the mean of the rectangle it stands for, weighted by opacity: what
//! is transparent has no colour to add. A picture that is narrow enough is encoded again as it is.
//! Interlaced PNGs are refused: the decoder leaves them out to stay small.
#![no_std]

extern crate alloc;

mod encode; // pixels to a PNG file

use alloc::format;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use midge_guest::{FunctionError, IntoBytes, Method, Request, Response};

const WIDTH_DEFAULT: usize = 128;
const WIDTH_MAX: usize = 1024;
/// A sixth of the heap. In the worst case the small picture is nearly as large, and so are its filtered
/// rows, what they compress to (which grows by doubling) and the file: nothing is freed before the answer.
const PICTURE_BYTES_MAX: usize = 5 * 1024 * 1024;
/// Red, green, blue, opacity: eight bits each.
const CHANNELS: usize = 4;
const OPACITY: usize = 3;

struct Picture {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

#[midge_guest::function(area = 1_048_576, heap = 31_457_280)]
fn handle<'a>(request: &Request<'a>) -> Result<Response<'a>, FunctionError> {
    if request.method() != Method::Post {
        return Ok(refuse(405, "post a PNG\n").with_header("allow", "POST"));
    }
    let width = match request.parameter_text("width").map(str::parse) {
        None => WIDTH_DEFAULT,
        Some(Ok(width)) if (1..=WIDTH_MAX).contains(&width) => width,
        Some(_) => return Ok(refuse(400, "`width` is a number from 1 to 1024\n")),
    };
    let picture = match decode(request.body()) {
        Ok(Some(picture)) => picture,
        Ok(None) => return Ok(refuse(413, "the picture has too many pixels\n")),
        Err(reason) => return Ok(refuse(422, format!("not a picture this reads: {reason}\n"))),
    };
    let small = if width < picture.width { shrink(&picture, width) } else { picture };
    let answer = Response::new(200).with_header("content-type", "image/png");
    Ok(answer.with_body(encode::png(small.width, small.height, &small.pixels)))
}

/// Returns no picture if it would be too large.
fn decode(file: &[u8]) -> Result<Option<Picture>, minipng::Error> {
    let size = minipng::decode_png_header(file)?.required_bytes_rgba8bpc();
    if size > PICTURE_BYTES_MAX {
        return Ok(None);
    }
    let mut pixels = vec![0; size];
    let mut image = minipng::decode_png(file, &mut pixels)?;
    image.convert_to_rgba8bpc()?;
    let [width, height] = [image.width(), image.height()].map(|pixels| pixels as usize);
    pixels.truncate(width * height * CHANNELS);
    Ok(Some(Picture { width, height, pixels }))
}

fn shrink(picture: &Picture, width: usize) -> Picture {
    let height = (picture.height * width / picture.width).max(1);
    let mut pixels = Vec::with_capacity(width * height * CHANNELS);
    for y in 0..height {
        for x in 0..width {
            let rows = covered(y, height, picture.height);
            pixels.extend(mean(picture, covered(x, width, picture.width), rows));
        }
    }
    Picture { width, height, pixels }
}

/// The pixels of the large side that pixel `index` of the small side stands for.
fn covered(index: usize, small: usize, large: usize) -> Range<usize> {
    index * large / small..(index + 1) * large / small
}

/// The mean of a rectangle: colours weighted by opacity, opacity by itself.
fn mean(picture: &Picture, columns: Range<usize>, rows: Range<usize>) -> [u8; CHANNELS] {
    let count = (columns.len() * rows.len()) as u64;
    let mut sums = [0; CHANNELS];
    for y in rows {
        let row = y * picture.width;
        let pixels =
            &picture.pixels[(row + columns.start) * CHANNELS..(row + columns.end) * CHANNELS];
        for pixel in pixels.chunks_exact(CHANNELS) {
            let opacity = u64::from(pixel[OPACITY]);
            for (sum, &channel) in sums.iter_mut().zip(&pixel[..OPACITY]) {
                *sum += u64::from(channel) * opacity;
            }
            sums[OPACITY] += opacity;
        }
    }
    let [red, green, blue, opacity] = sums;
    let weight = opacity.max(1);
    // Means of bytes are bytes.
    [red / weight, green / weight, blue / weight, opacity / count].map(|mean| mean as u8)
}

fn refuse<'a>(status: u16, reason: impl IntoBytes<'a>) -> Response<'a> {
    Response::text(reason).with_status(status)
}
