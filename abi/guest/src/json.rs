//! JSON in, JSON out, by serde.
//!
//! ```
//! use midge_guest::{FunctionError, Json};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Deserialize)]
//! struct Order { price: u32, count: u32 }
//!
//! #[derive(Serialize)]
//! struct Receipt { total: u32 }
//!
//! #[midge_guest::function(area = 65536, heap = 65536)]
//! fn handle(Json(order): Json<Order>) -> Result<Json<Receipt>, FunctionError> {
//!     let total = order.price.checked_mul(order.count);
//!     let total = total.ok_or_else(|| FunctionError::refusal(422, "nobody can pay that"))?;
//!     Ok(Json(Receipt { total }))
//! }
//! ```
//!
//! A body that is no `Order` is answered by a 400 that says where (RFC 9457):
//!
//! ```json
//! {"status":400,"title":"the body is not the JSON that this function takes","detail":"missing field `count` at line 1 column 11"}
//! ```

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::FunctionError;
use crate::handler::Handler;
use crate::request::Request;
use crate::response::Response;

const NOT_IT: &str = "the body is not the JSON that this function takes";

/// A value that comes, or goes, as JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Json<T>(pub T);

/// The form of handlers that take JSON and return it.
#[derive(Debug)]
pub struct Typed<T, R>(core::marker::PhantomData<(T, R)>);

/// The form of handlers that look at the request as well.
#[derive(Debug)]
pub struct TypedWithRequest<T, R>(core::marker::PhantomData<(T, R)>);

impl<F, T, R> Handler<Typed<T, R>> for F
where
    F: FnOnce(Json<T>) -> Result<Json<R>, FunctionError>,
    T: DeserializeOwned,
    R: Serialize,
{
    fn answer<'a>(self, request: &Request<'a>) -> Result<Response<'a>, FunctionError> {
        let Json(value) = self(Json(request.json()?))?;
        Response::json_of(&value)
    }
}

impl<F, T, R> Handler<TypedWithRequest<T, R>> for F
where
    F: for<'a> FnOnce(&Request<'a>, Json<T>) -> Result<Json<R>, FunctionError>,
    T: DeserializeOwned,
    R: Serialize,
{
    fn answer<'a>(self, request: &Request<'a>) -> Result<Response<'a>, FunctionError> {
        let Json(value) = self(request, Json(request.json()?))?;
        Response::json_of(&value)
    }
}

impl<'a> Request<'a> {
    /// Reads the body as JSON. What is borrowed in the result is borrowed from the body.
    ///
    /// # Errors
    /// A 400 that says what is missing, and at which line and column: `?` answers the client with it.
    pub fn json<T: Deserialize<'a>>(&self) -> Result<T, FunctionError> {
        serde_json::from_slice(self.body())
            .map_err(|error| FunctionError::refusal_with_detail(400, NOT_IT, &error))
    }
}

impl Response<'_> {
    /// Returns a 200 with this as JSON.
    ///
    /// # Errors
    /// If it cannot be JSON: a map whose keys are no strings, for example.
    pub fn json_of(value: &impl Serialize) -> Result<Self, FunctionError> {
        Ok(Self::json(serde_json::to_vec(value)?))
    }
}
