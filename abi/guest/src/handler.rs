//! What can be exported: functions of requests, and of what requests hold.

use crate::error::FunctionError;
use crate::request::Request;
use crate::response::Response;

/// A function that answers requests, in one of the forms that `#[midge_guest::function]` takes. `Form` tells them
/// apart, and is the compiler's to find.
#[diagnostic::on_unimplemented(
    message = "this cannot answer requests",
    label = "none of the forms that are exported",
    note = "`fn<'a>(&Request<'a>) -> Result<Response<'a>, FunctionError>`",
    note = "with the feature `json`: `fn(Json<T>) -> Result<Json<R>, FunctionError>`, and with a `&Request<'_>` first"
)]
pub trait Handler<Form> {
    /// Answers a request.
    ///
    /// # Errors
    /// The function's own.
    fn answer<'a>(self, request: &Request<'a>) -> Result<Response<'a>, FunctionError>;
}

/// The form that sees all of a request.
#[derive(Debug)]
pub struct Plain(());

impl<F> Handler<Plain> for F
where
    F: for<'a> FnOnce(&Request<'a>) -> Result<Response<'a>, FunctionError>,
{
    fn answer<'a>(self, request: &Request<'a>) -> Result<Response<'a>, FunctionError> {
        self(request)
    }
}

/// Compiles for handlers alone: outside of wasm this is what remains of an export.
#[doc(hidden)]
pub const fn checked<Form>(_: &impl Handler<Form>) {}
