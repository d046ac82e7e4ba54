//! What an operator sees: metrics, Server-Timing, the guests' lines, traps.

use midge_tests::guests::{HARM, HELLO};
use midge_tests::host::Setup;
use midge_tests::http::Client;

const SETTINGS: &str = r#"
[log]
access = true

[[function]]
name = "hello"
module = "hello.wat"
route = "/hello"
server_timing = true

[[function]]
name = "harm"
module = "harm.wat"
route = "/harm"
"#;

fn setup() -> Setup {
    Setup::new().file("hello.wat", HELLO).file("harm.wat", HARM)
}

#[test]
fn metrics_count_requests_starts_and_errors() {
    let host = setup().serve(SETTINGS);
    let mut client = host.client();
    for _ in 0..10 {
        assert_eq!(client.get("/hello").status, 200);
    }
    assert_eq!(client.get("/harm?c").status, 502);
    assert_eq!(client.get("/nowhere").status, 404);

    let metrics = host.metrics();
    let hello = "function=\"hello\"";
    assert_eq!(metrics.sum("midge_requests_total", &[]), 12);
    assert_eq!(metrics.sum("midge_function_requests_total", &[hello]), 10);
    assert_eq!(metrics.starts("hello", "T2"), 1, "the first request makes the slot");
    assert_eq!(metrics.starts("hello", "T3"), 9, "the others get it restored");
    let trapped = ["function=\"harm\"", "problem=\"trapped\""];
    assert_eq!(metrics.sum("midge_function_refused_total", &trapped), 1);
    assert_eq!(metrics.sum("midge_unrouted_total", &["problem=\"not-found\""]), 1);
    assert_eq!(metrics.sum("midge_connections", &[]), 1);
    assert!(metrics.sum("midge_function_dirty_pages_total", &[hello]) >= 10);
    assert!(metrics.0.ends_with("# EOF\n"));
}

#[test]
fn server_timing_is_sent_where_it_is_asked_for() {
    let host = setup().serve(SETTINGS);
    let mut client = host.client();
    let first = client.get("/hello");
    let value = first.header("server-timing").expect("the setting asks for it");
    assert!(value.starts_with("tier;desc=T2, enter;dur="), "{value}");
    assert!(value.contains("guest;dur="), "{value}");
    let second = client.get("/hello");
    assert!(second.header("server-timing").unwrap().starts_with("tier;desc=T3"));
    assert_eq!(client.get("/harm?a").header("server-timing"), None);
}

#[test]
fn a_guests_lines_and_traps_are_logged_under_the_request() {
    let host = setup().serve(SETTINGS);
    let mut client = host.client();
    assert_eq!(client.get("/harm?i").status, 200);
    let line = host.wait_for_line(&["warn harm: one line of a guest"]);
    assert!(line.contains(" request="), "{line}");

    let id = client.get("/harm?c").problem(502, "trapped");
    let trap = host.wait_for_line(&["trap harm:", &format!("request={id}")]);
    assert!(trap.contains("unreachable"), "{trap}");
    let (inner, outer) = (trap.find("inner_failure"), trap.find("outer_failure"));
    assert!(inner.is_some() && inner < outer, "the backtrace names functions: {trap}");

    let access = host.wait_for_line(&["access harm GET 502", "trapped", &id]);
    assert!(access.contains(" T"), "{access}");
    let id = client.get("/nowhere").problem(404, "not-found");
    let _line = host.wait_for_line(&["access - ", " 404 ", &id]);
}

#[test]
fn the_log_can_be_json() {
    let setup = setup().argument("--log-format").argument("json");
    let host = setup.serve(SETTINGS);
    let id = host.client().get("/harm?c").problem(502, "trapped");
    let line = host.wait_for_line(&["\"kind\":\"trap\"", &id]);
    let object: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(object["function"], "harm");
    assert_eq!(object["request"], id);
    for line in host.log().lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|_| panic!("{line}"));
    }
}

/// On a machine image the first process decides (`tests/updates.rs`); here there is none.
#[test]
fn an_update_is_refused_with_a_reason_where_nobody_takes_it() {
    let host = setup().serve(SETTINGS);
    let signature = "a".repeat(128);
    let signed = format!("midge-signature: {signature}\r\n");
    let check = |fields: &str, status: u16, why: &str| {
        let mut admin = Client::connect(host.admin);
        admin.send(format!("PUT /update HTTP/1.1\r\nHost: a\r\n{fields}\r\n").as_bytes());
        let refused = admin.receive();
        assert_eq!(refused.status, status, "{fields}: {}", refused.text());
        let problem: serde_json::Value =
            serde_json::from_slice(&refused.body).expect("a problem report");
        assert_eq!(problem["status"], status);
        assert!(problem["detail"].as_str().is_some_and(|text| text.contains(why)), "{problem}");
    };
    check(&format!("{signed}Content-Length: 0\r\n"), 404, "takes no updates");
    check("Content-Length: 0\r\n", 403, "no signature");
    check("midge-signature: abc\r\nContent-Length: 0\r\n", 403, "no signature");
    check(&format!("{signed}Transfer-Encoding: chunked\r\n"), 411, "must be announced");
    check(&format!("{signed}Content-Length: 9999999999\r\n"), 413, "at the most");
}

#[test]
fn health_and_a_listing_are_served_on_the_admin_address() {
    let host = setup().serve(SETTINGS);
    let mut admin = Client::connect(host.admin);
    let health = admin.get("/healthz");
    assert_eq!((health.status, health.text()), (200, "ok\n"));
    assert!(admin.get("/").text().contains("/metrics"));
    let _id = host.client().get("/healthz").problem(404, "not-found");
}
