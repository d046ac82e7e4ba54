//! HTTP/1.1 by the book: a corpus of exchanges (`tests/http`), replayed against the built program and, on
//! request, against any other server.
//!
//! Goal: each rule of RFC 9112 that a server can break has a case in its valid and invalid forms, and how a
//! request is cut into pieces makes no difference. Method: each case is sent in one piece, in two at a number
//! of places, and byte by byte; statuses, headers, and the connection's end are compared.
//!
//! ```sh
//! MIDGE_CONFORMANCE_TARGET=127.0.0.1:8080 cargo test -p midge-tests --test conformance -- --ignored --nocapture
//! ```

mod corpus; // the cases
mod llhttp; // fixtures of another parser
mod replay; // an exchange, whatever comes of it

use std::collections::BTreeSet;
use std::time::Duration;

use midge_tests::guests::{ECHO, HELLO};
use midge_tests::host::{Host, Setup};
use midge_tests::tell;
use midge_tests::wait::PATIENCE;

use crate::corpus::{Case, bytes, cases};
use crate::replay::{Cut, replay, summary};

/// Requests above this size are not sent byte by byte.
const BYTE_BY_BYTE_MAX: usize = 1024;
/// Places at which a request is cut in two, spread over it.
const CUTS: usize = 12;
/// How long another server may be silent.
const PATIENCE_WITH_OTHERS: Duration = Duration::from_secs(1);

fn host() -> Host {
    host_with(Setup::new())
}

fn host_with(setup: Setup) -> Host {
    // `hello`, with another status in its response; the body stays, and must not be sent.
    let status = |bytes: &str| HELLO.replace(r"\c8\00\00\00\01", &format!(r"{bytes}\00\00\01"));
    let setup = setup.file("echo.wat", ECHO);
    let setup = setup.file("s204.wat", status(r"\cc\00")).file("s304.wat", status(r"\30\01"));
    setup.serve(
        r#"
            [limits]
            head_bytes = "32 KiB"
            [[function]]
            name = "echo"
            module = "echo.wat"
            route = "/*"
            body = "16 KiB"
            [[function]]
            name = "get"
            module = "echo.wat"
            route = "/get"
            methods = ["GET", "HEAD"]
            [[function]]
            name = "s204"
            module = "s204.wat"
            route = "/204"
            [[function]]
            name = "s304"
            module = "s304.wat"
            route = "/304"
        "#,
    )
}

fn check(cuts: impl Fn(&Case) -> Vec<Cut>) {
    let host = host();
    let mut faults = Vec::new();
    for case in cases().into_iter().map(Case::into_known) {
        for cut in cuts(&case) {
            let outcome = replay(host.listen, &case, cut, PATIENCE).expect("the host listens");
            if let Some(fault) = outcome.fault(&case, true) {
                let expected = summary(&case.answers, Some(case.after));
                let Case { name, rfc, .. } = &case;
                faults.push(format!(
                    "{name} (RFC {rfc}, {cut:?}): expected {expected}; got {outcome}; {fault}"
                ));
                break;
            }
        }
    }
    assert!(faults.is_empty(), "{} cases differ:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn every_case_is_answered_as_the_specification_says() {
    check(|_| vec![Cut::Whole]);
}

#[test]
fn a_request_cut_in_two_is_answered_as_the_whole() {
    check(|case| {
        let sends = case.sends();
        let [send] = sends.as_slice() else { return Vec::new() };
        let step = send.len().div_ceil(CUTS).max(1);
        // The first and the last byte, and places in between that are no multiple of anything.
        (1..send.len()).step_by(step).chain([send.len() - 1]).map(Cut::At).collect()
    });
}

#[test]
fn a_request_byte_by_byte_is_answered_as_the_whole() {
    check(|case| {
        let size: usize = case.sends().iter().map(Vec::len).sum();
        if size <= BYTE_BY_BYTE_MAX { vec![Cut::Bytes] } else { Vec::new() }
    });
}

#[test]
fn every_way_to_the_kernel_gives_the_same_bytes() {
    let best = host();
    let tiers = ["b", "c", "d"].map(|tier| {
        let host = host_with(Setup::new().argument("--ring-tier").argument(tier));
        assert_eq!(host.ready["ring_tier"], tier);
        (tier, host)
    });
    let told = |host: &Host, case: &Case| {
        let outcome = replay(host.listen, case, Cut::Whole, PATIENCE).expect("the host listens");
        outcome.without_its_moment()
    };
    let mut faults = Vec::new();
    for case in cases().into_iter().map(Case::into_known) {
        let expected = told(&best, &case);
        for (tier, host) in &tiers {
            let found = told(host, &case);
            if found != expected {
                let name = &case.name;
                faults.push(format!("{name}, tier {tier}: expected {expected}; got {found}"));
            }
        }
    }
    assert!(faults.is_empty(), "{} answers differ:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn the_corpus_is_sound() {
    let cases = cases();
    let names: BTreeSet<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    assert_eq!(names.len(), cases.len(), "each case has a name of its own");
    assert!(cases.len() > 150, "{} cases", cases.len());
    for case in &cases {
        assert!(case.rfc.starts_with("911"), "{} names a section", case.name);
        assert!(case.to_head.iter().all(|&index| index < case.answers.len()), "{}", case.name);
        let reason = case.known.as_ref().map(|known| known.reason.as_str());
        assert_ne!(reason, Some(""), "{} is known for a reason", case.name);
        assert!(!case.permits.contains(&case.answers), "{} permits what it asks", case.name);
    }
    assert_eq!(bytes("a|<a*3><cr><lf><7c>"), b"a\r\naaa\r\n|");
}

/// Prints what another server makes of the corpus, and fails for none of it.
#[test]
#[ignore = "needs a server: MIDGE_CONFORMANCE_TARGET=host:port"]
fn another_server_is_compared() {
    let target = std::env::var_os("MIDGE_CONFORMANCE_TARGET").expect("MIDGE_CONFORMANCE_TARGET");
    let address = target.to_str().and_then(|target| target.parse().ok());
    let address = address.expect("MIDGE_CONFORMANCE_TARGET is an address and a port");
    let (mut same, mut permitted) = (0, 0);
    let cases = cases();
    tell("| case | RFC | expected | got | |\n|---|---|---|---|---|");
    for case in &cases {
        let outcome = replay(address, case, Cut::Whole, PATIENCE_WITH_OTHERS)
            .expect("a server listens at MIDGE_CONFORMANCE_TARGET");
        let Some(fault) = outcome.fault(case, false) else {
            same += 1;
            continue;
        };
        let is_permitted = outcome.is_permitted(case);
        permitted += usize::from(is_permitted);
        let verdict = if is_permitted { "permitted" } else { &fault };
        let expected = summary(&case.answers, Some(case.after));
        tell(&format!("| {} | {} | {expected} | {outcome} | {verdict} |", case.name, case.rfc));
    }
    let differ = cases.len() - same - permitted;
    tell(&format!("{} cases: {same} same, {permitted} permitted, {differ} differ", cases.len()));
}
