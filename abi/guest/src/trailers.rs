//! Fields behind a body (RFC 9110, 6.5).
//!
//! ```no_run
//! use midge_guest::{FunctionError, Request, Response};
//!
//! /// Says behind its body how it went, as gRPC does.
//! fn handle<'a>(request: &Request<'a>) -> Result<Response<'a>, FunctionError> {
//!     let sum = request.trailers().get("x-sum").unwrap_or(b"none");
//!     let writer = Response::text("done\n").start();
//!     Ok(writer.finish_with(&[("grpc-status", b"0"), ("x-sum", sum)]))
//! }
//! ```
//!
//! Not here: which fields may stand behind a body. The host leaves the others out.

use core::marker::PhantomData;
use core::str;

use crate::fields::Fields;
use crate::heap;
use crate::host;
use crate::layout::LATER;

/// The most fields that a function writes behind a body.
pub const TRAILERS_MAX: usize = 16;

/// Fields that came behind a body, in the heap.
#[derive(Debug, Clone, Copy)]
pub struct Trailers<'a> {
    fields: Fields<'a>,
    call: PhantomData<*const ()>,
}

impl<'a> Trailers<'a> {
    /// Reads those of a body that was read to its end: of a fetch's response, or for 0 of the request. Before the end
    /// there are none.
    ///
    /// # Errors
    /// What the host answers instead.
    pub(crate) fn read(handle: u32) -> Result<Self, i32> {
        let mut error = None;
        let bytes = heap::fill_rest(usize::MAX, |target| {
            let answer = host::trailers_read(handle, target);
            usize::try_from(answer).unwrap_or_else(|_| {
                error = Some(answer).filter(|&answer| answer != LATER);
                0
            })
        });
        error.map_or(Ok(Self { fields: Fields::new(bytes), call: PhantomData }), Err)
    }

    /// Returns names, in lower case, and values in the order of their arrival: what `finish_with` takes.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&'a str, &'a [u8])> + use<'a> {
        // Names are tokens, which the host checked.
        self.fields.rows().map(|(name, value)| (str::from_utf8(name).unwrap_or_default(), value))
    }

    /// Returns the value of the first field of that name, given in lower case.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'a [u8]> {
        self.fields.get(name)
    }

    /// Returns [`Trailers::get`] if it is UTF-8.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&'a str> {
        str::from_utf8(self.get(name)?).ok()
    }
}

/// Ends a body with these fields behind it; `handle` is as for [`Trailers::read`].
///
/// # Panics
/// If there are more than [`TRAILERS_MAX`].
pub(crate) fn write(handle: u32, trailers: &[(&str, &[u8])]) -> i32 {
    assert!(trailers.len() <= TRAILERS_MAX, "no room for {} trailers", trailers.len());
    host::trailers_write(handle, trailers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::response::Response;

    #[test]
    fn nothing_comes_behind_a_body_outside_of_a_host() {
        let trailers = Trailers::read(0).unwrap();
        assert_eq!(trailers.iter().len(), 0);
        assert_eq!(trailers.text("x"), None);
    }

    #[test]
    #[should_panic(expected = "no room for 17 trailers")]
    fn a_full_table_takes_no_trailer() {
        let trailers = [("x", &b""[..]); TRAILERS_MAX + 1];
        let _never = Response::new(200).start().finish_with(&trailers);
    }
}
