//! receipt: a posted order in JSON, answered by its receipt.
#![no_std]

extern crate alloc;

use alloc::string::String;
use alloc::vec::Vec;

use midge_guest::{FunctionError, Json};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Order {
    customer: String,
    lines: Vec<Line>,
}

#[derive(Deserialize)]
struct Line {
    item: String,
    cents: u64,
    #[serde(default = "one")]
    count: u64,
}

#[derive(Serialize)]
struct Receipt {
    customer: String,
    items: Vec<String>,
    total_cents: u64,
}

#[midge_guest::function(area = 65536, heap = 65536)]
fn handle(Json(order): Json<Order>) -> Result<Json<Receipt>, FunctionError> {
    let total = order
        .lines
        .iter()
        .try_fold(0_u64, |total, line| total.checked_add(line.cents.checked_mul(line.count)?));
    let total_cents =
        total.ok_or_else(|| FunctionError::refusal(422, "nobody has that much money"))?;
    let items = order.lines.into_iter().map(|line| line.item).collect();
    Ok(Json(Receipt { customer: order.customer, items, total_cents }))
}

const fn one() -> u64 {
    1
}
