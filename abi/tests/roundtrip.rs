//! What the host encodes is what a guest reads: `midge_abi::request::encode` against `midge_guest::Request`.

use std::net::{IpAddr, Ipv6Addr};
use std::ops::Range;
use std::time::Duration;

use midge_abi::contract::Method;
use midge_abi::request::{self, HeadSpan, HeaderSpan};
use proptest::prelude::*;

/// A request in parts, from which a head is written as a client would send it.
#[derive(Debug, Clone)]
struct Sent {
    method: (Method, &'static str),
    path: String,
    query: Option<String>,
    authority: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    is_http_1_0: bool,
    request_id: [u8; 16],
    deadline_ns: u64,
    peer_address: [u8; 16],
    peer_port: u16,
}

/// A head under construction: knows where each part came to lie.
#[derive(Default)]
struct Head(Vec<u8>);

impl Head {
    fn push(&mut self, text: &str) -> HeadSpan {
        let offset = self.0.len();
        self.0.extend(text.as_bytes());
        span(offset..self.0.len())
    }
}

fn span(range: Range<usize>) -> HeadSpan {
    let [offset, size] =
        [range.start, range.len()].map(|at| u16::try_from(at).expect("a short head"));
    HeadSpan { offset, size }
}

fn encode(sent: &Sent) -> Vec<u8> {
    let mut head = Head::default();
    let method_name = head.push(sent.method.1);
    head.push(" ");
    let target_start = head.0.len();
    let path = head.push(&sent.path);
    let query = sent.query.as_ref().map_or_else(HeadSpan::default, |query| {
        head.push("?");
        head.push(query)
    });
    let target = span(target_start..head.0.len());
    head.push(" HTTP/1.1\r\nhost: ");
    let authority = head.push(&sent.authority);
    let mut headers = Vec::new();
    for (name, value) in &sent.headers {
        head.push("\r\n");
        let name = head.push(name);
        head.push(": ");
        headers.push(HeaderSpan { name, value: head.push(value) });
    }
    head.push("\r\n\r\n");
    let request = request::Request {
        head: &head.0,
        tail: b"",
        method: sent.method.0,
        method_name,
        target,
        path,
        query,
        authority,
        is_http_1_0: sent.is_http_1_0,
        body: &sent.body,
        request_id: sent.request_id,
        deadline_ns: sent.deadline_ns,
        peer_address: sent.peer_address,
        peer_port: sent.peer_port,
    };
    let mut block = vec![0xAA; request::block_size(head.0.len(), headers.len(), sent.body.len())];
    request::encode(&mut block, &request, headers.into_iter());
    block
}

fn any_sent() -> impl Strategy<Value = Sent> {
    let method = prop::sample::select(vec![
        (Method::Get, "GET"),
        (Method::Post, "POST"),
        (Method::Delete, "DELETE"),
        (Method::Other, "BREW"),
    ]);
    let texts = ("/[a-z/%0-9]{0,30}", prop::option::of("[a-z&=%+0-9]{0,30}"), "[a-z.]{1,20}(:80)?");
    let headers = prop::collection::vec(("[a-z-]{1,12}", "[ -~]{0,20}"), 0..12);
    let body = prop::collection::vec(any::<u8>(), 0..300);
    let numbers = (any::<bool>(), any::<[u8; 16]>(), any::<u64>(), any::<[u8; 16]>(), any::<u16>());
    (method, texts, headers, body, numbers).prop_map(|(method, texts, headers, body, numbers)| {
        let (path, query, authority) = texts;
        let (is_http_1_0, request_id, deadline_ns, peer_address, peer_port) = numbers;
        Sent {
            method,
            path,
            query,
            authority,
            headers,
            body,
            is_http_1_0,
            request_id,
            deadline_ns,
            peer_address,
            peer_port,
        }
    })
}

proptest! {
    #[test]
    fn a_guest_reads_what_the_host_wrote(sent in any_sent()) {
        let block = encode(&sent);
        let request = midge_guest::Request::read(&block).expect("the host's own block");
        let query = sent.query.clone().unwrap_or_default();
        let mark = if sent.query.is_some() { "?" } else { "" };
        let target = format!("{}{mark}{query}", sent.path);

        prop_assert_eq!(request.method() as u16, sent.method.0.code());
        prop_assert_eq!(request.method_name(), sent.method.1.as_bytes());
        prop_assert_eq!(request.target(), target.as_bytes());
        prop_assert_eq!(request.path(), sent.path.as_bytes());
        prop_assert_eq!(request.query(), query.as_bytes());
        prop_assert_eq!(request.authority(), sent.authority.as_bytes());
        prop_assert_eq!(request.body(), &sent.body[..]);
        prop_assert_eq!(request.is_http_1_0(), sent.is_http_1_0);
        prop_assert_eq!(request.request_id(), sent.request_id);
        prop_assert_eq!(request.deadline(), Duration::from_nanos(sent.deadline_ns));
        let address = IpAddr::V6(Ipv6Addr::from(sent.peer_address)).to_canonical();
        let peer = (sent.peer_address != [0; 16]).then_some((address, sent.peer_port));
        prop_assert_eq!(request.peer().map(|peer| (peer.ip(), peer.port())), peer);

        let headers: Vec<_> = request.headers().collect();
        let sent_headers: Vec<_> =
            sent.headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
        prop_assert_eq!(headers, sent_headers);
        for (name, _) in &sent.headers {
            let first = sent.headers.iter().find(|(other, _)| other == name).expect("itself");
            prop_assert_eq!(request.header(name), Some(first.1.as_bytes()));
        }
        prop_assert_eq!(request.header("not there"), None);
    }

    #[test]
    fn a_guest_refuses_a_block_that_was_cut(sent in any_sent(), cut in any::<prop::sample::Index>()) {
        let block = encode(&sent);
        let cut = cut.index(block.len());
        prop_assert!(midge_guest::Request::read(&block[..cut]).is_err());
    }
}

#[test]
fn cookies_are_found_by_their_whole_name() {
    let headers = [("cookie", "theme=dark; reader=Ada=1;x"), ("cookie", "late=1")];
    let sent = Sent {
        method: (Method::Get, "GET"),
        path: "/".into(),
        query: None,
        authority: "x.test".into(),
        headers: headers.map(|(name, value)| (name.into(), value.into())).into(),
        body: Vec::new(),
        is_http_1_0: false,
        request_id: [0; 16],
        deadline_ns: 0,
        peer_address: [0; 16],
        peer_port: 0,
    };
    let block = encode(&sent);
    let request = midge_guest::Request::read(&block).expect("the host's own block");
    let check = |name, value: Option<&str>| {
        assert_eq!(request.cookie(name), value.map(str::as_bytes), "{name}");
    };
    check("theme", Some("dark"));
    check("reader", Some("Ada=1"));
    check("late", Some("1"));
    check("read", None);
    check("x", None);
}
