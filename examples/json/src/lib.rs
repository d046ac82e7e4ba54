//! json: takes a posted array of objects apart.
//!
//! `?select=name,price` keeps these fields, `?rename=price:cost` renames, `?sum=price` adds up. The answer
//! is `{"count":..,"rows":[..],"sums":{..}}`, with the fields in alphabetical order.
#![no_std]

extern crate alloc;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use midge_guest::{FunctionError, Method, Request, Response};
use serde_json::{Map, Number, Value, json};

#[midge_guest::function(area = 262_144, heap = 1_048_576)]
fn handle<'a>(request: &Request<'a>) -> Result<Response<'a>, FunctionError> {
    if request.method() != Method::Post {
        let answer = Response::text("post a JSON array of objects\n").with_status(405);
        return Ok(answer.with_header("allow", "POST"));
    }
    let rows = match serde_json::from_slice(request.body()) {
        Ok(Value::Array(rows)) if rows.iter().all(Value::is_object) => rows,
        Ok(_) => return Ok(refuse("this is JSON, but not an array of objects".into())),
        Err(error) => return Ok(refuse(format!("this is not JSON: {error}"))),
    };
    let list = |name| list(request.parameter_text(name).unwrap_or_default());
    let (select, rename, sum) = (list("select"), list("rename"), list("sum"));
    let mut sums = Map::new();
    for field in sum {
        sums.insert(field.into(), total(&rows, field));
    }
    let rows: Vec<Value> = rows.into_iter().map(|row| transform(row, &select, &rename)).collect();
    let answer = json!({ "count": rows.len(), "rows": rows, "sums": sums });
    Ok(Response::json(serde_json::to_vec(&answer)?))
}

/// Keeps the fields of `select`, or all if it is empty, under the names that `rename` has for them.
fn transform(row: Value, select: &[&str], rename: &[&str]) -> Value {
    let Value::Object(fields) = row else { return row };
    let mut kept = Map::new();
    for (name, value) in fields {
        if select.is_empty() || select.contains(&name.as_str()) {
            let mut pairs = rename.iter().filter_map(|pair| pair.split_once(':'));
            let new_name = pairs.find(|(from, _)| *from == name).map(|(_, to)| to.into());
            kept.insert(new_name.unwrap_or(name), value);
        }
    }
    Value::Object(kept)
}

/// Adds up what is a number; whole numbers stay whole as long as they fit.
fn total(rows: &[Value], field: &str) -> Value {
    let numbers = || rows.iter().filter_map(|row| row.get(field)?.as_number());
    let whole = numbers().try_fold(0i64, |sum, number| sum.checked_add(number.as_i64()?));
    let total = whole
        .map(Number::from)
        .or_else(|| Number::from_f64(numbers().filter_map(Number::as_f64).sum()));
    total.map_or(Value::Null, Value::Number)
}

fn list(text: &str) -> Vec<&str> {
    text.split(',').filter(|item| !item.is_empty()).collect()
}

fn refuse<'a>(reason: String) -> Response<'a> {
    Response::new(400)
        .with_header("content-type", "application/problem+json")
        .with_body(json!({ "status": 400, "title": reason }).to_string().into_bytes())
}
