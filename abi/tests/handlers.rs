//! The forms of functions that are exported: what each does with a request, and what a client gets of its errors.

use midge_abi::contract::Method;
use midge_abi::request::{self, HeadSpan, HeaderSpan};
use midge_guest::{FunctionError, Handler, Json, Request, Response};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Order {
    price: u32,
    count: u32,
}

#[derive(Serialize)]
struct Receipt {
    total: u32,
}

#[midge_guest::function(heap = 4096, area = 4096)]
fn plain<'a>(request: &Request<'a>) -> Result<Response<'a>, FunctionError> {
    let order: Order = request.json()?;
    Response::json_of(&[order.price, order.count])
}

#[midge_guest::function]
fn typed(Json(order): Json<Order>) -> Result<Json<Receipt>, FunctionError> {
    let total = order.price.checked_mul(order.count);
    let total = total.ok_or_else(|| FunctionError::refusal(422, "nobody can pay that"))?;
    Ok(Json(Receipt { total }))
}

#[midge_guest::function(initialize = warm_up)]
fn with_request(request: &Request<'_>, order: Json<Order>) -> Result<Json<String>, FunctionError> {
    let method = request.method();
    Ok(Json(format!("{method:?} {}", order.0.count)))
}

fn warm_up() {}

fn ask<Form>(handler: impl Handler<Form>, body: &[u8]) -> (u16, String) {
    let request = request::Request {
        head: b"POST",
        tail: b"",
        method: Method::Post,
        method_name: HeadSpan { offset: 0, size: 4 },
        target: HeadSpan::default(),
        path: HeadSpan::default(),
        query: HeadSpan::default(),
        authority: HeadSpan::default(),
        is_http_1_0: false,
        body,
        request_id: [0; 16],
        deadline_ns: 0,
        peer_address: [0; 16],
        peer_port: 0,
    };
    let mut block = vec![0; request::block_size(4, 0, body.len())];
    request::encode(&mut block, &request, std::iter::empty::<HeaderSpan>());
    let request = Request::read(&block).expect("the host lays it out");
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("JSON is text");
    match handler.answer(&request) {
        Ok(answer) => {
            assert!(answer.headers().eq([(&b"content-type"[..], &b"application/json"[..])]));
            (answer.status(), text(answer.body()))
        }
        Err(error) => (error.status(), text(error.message())),
    }
}

#[test]
fn each_form_answers() {
    let order = br#"{"price":5,"count":3}"#;
    assert_eq!(ask(plain, order), (200, "[5,3]".to_owned()));
    assert_eq!(ask(typed, order), (200, r#"{"total":15}"#.to_owned()));
    assert_eq!(ask(with_request, order), (200, r#""Post 3""#.to_owned()));
}

#[test]
fn a_body_that_is_something_else_is_a_400_that_says_where() {
    let cases: [(&[u8], &str); 4] = [
        (b"{\"price\":5}", "missing field `count` at line 1 column 11"),
        (
            b"{\"price\":5,\n\"count\":-3}",
            "invalid value: integer `-3`, expected u32 at line 2 column 10",
        ),
        (b"", "EOF while parsing a value at line 1 column 0"),
        (b"\xFF", "expected value at line 1 column 1"),
    ];
    for (body, detail) in cases {
        let title = "the body is not the JSON that this function takes";
        let problem = format!("{{\"status\":400,\"title\":\"{title}\",\"detail\":\"{detail}\"}}\n");
        for answer in [ask(plain, body), ask(typed, body), ask(with_request, body)] {
            assert_eq!(answer, (400, problem.clone()));
        }
    }
}

#[test]
fn a_refusal_is_the_functions_own() {
    let order = br#"{"price":4294967295,"count":2}"#;
    let (status, problem) = ask(typed, order);
    assert_eq!(status, 422);
    assert_eq!(problem, "{\"status\":422,\"title\":\"nobody can pay that\"}\n");
}
