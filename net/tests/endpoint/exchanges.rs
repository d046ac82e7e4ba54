//! Requests of every shape and their responses.

use std::net::Shutdown;

use super::{Command, GET, serve};

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = serve();
    let mut client = server.connect();
    for _ in 0..20 {
        let requests: String = (0..64)
            .map(|number| match number % 3 {
                0 => format!("GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n"),
                1 => format!(
                    "POST /{number} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n{number:05}"
                ),
                _ => format!(
                    "PUT /{number} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
                     3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
                ),
            })
            .collect();
        client.send(requests);
        for number in 0..64 {
            let expected = match number % 3 {
                0 => format!("/{number}"),
                1 => format!("{number:05}"),
                _ => "abcde".to_owned(),
            };
            assert_eq!(client.read().text(), expected);
        }
    }
    let report = server.report();
    assert_eq!((report.counters.requests, report.counters.responses), (20 * 64, 20 * 64));
}

#[test]
fn a_request_may_be_split_anywhere() {
    let server = serve();
    let mut client = server.connect();
    let requests = [
        "POST /l?q HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\nhello world",
        "POST /l?q HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
         5;x=\"y\"\r\nhello\r\n6\r\n world\r\n0\r\nx-t: 1\r\n\r\n",
    ];
    for request in requests {
        let before = server.report().counters.bytes_received;
        let mut sent = before;
        for split in 1..request.len() {
            let (front, back) = request.split_at(split);
            client.send(front);
            sent += u64::try_from(split).unwrap();
            server.wait_until("the front is received", |report| {
                report.counters.bytes_received == sent
            });
            client.send(back);
            sent += u64::try_from(back.len()).unwrap();
            assert_eq!(client.read().text(), "hello world", "split at {split}");
        }
        for byte in request.as_bytes() {
            client.send([*byte]);
            sent += 1;
            server.wait_until("the byte is received", |report| {
                report.counters.bytes_received == sent
            });
        }
        assert_eq!(client.read().text(), "hello world");
    }
    assert_eq!(server.report().counters.accepted, 1);
}

#[test]
fn a_body_is_called_for_when_the_peer_waits() {
    let server = serve();
    let mut client = server.connect();
    let head = "POST /e HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n";
    for framing in ["Content-Length: 2\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n"] {
        client.send(format!("{head}{framing}"));
        assert_eq!(client.read_head().1, "HTTP/1.1 100 Continue\r\n\r\n");
        client.send(if framing.starts_with('C') { "hi" } else { "2\r\nhi\r\n0\r\n\r\n" });
        assert_eq!(client.read().text(), "hi");
    }
    // Nothing is called for when the body is here, or when there is none.
    client.send(format!("{head}Content-Length: 2\r\n\r\nhi"));
    assert_eq!(client.read().text(), "hi");
    client.send(format!("{head}\r\n"));
    assert_eq!(client.read().text(), "/e");
}

#[test]
fn a_short_unwanted_body_is_skipped() {
    let server = serve();
    let mut client = server.connect();
    let head = "POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n";
    client.send(head);
    let response = client.read();
    assert_eq!((response.status, response.closes()), (404, false));
    client.send(vec![b'x'; 60_000]);
    client.send(GET);
    assert_eq!(client.read().text(), "/x");
}

#[test]
fn a_long_or_chunked_unwanted_body_ends_the_connection() {
    let server = serve();
    for framing in ["Content-Length: 100000", "Transfer-Encoding: chunked"] {
        let mut client = server.connect();
        client.send(format!("POST /nowhere HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n"));
        let response = client.read();
        assert_eq!((response.status, response.closes()), (404, true));
        client.expect_closed();
    }
}

#[test]
fn a_body_beyond_what_was_admitted_is_refused() {
    let server = serve();
    let chunks = "9\r\n123456789\r\n".repeat(2);
    for (target, rest) in [
        ("/small", "Content-Length: 17\r\n\r\n1".to_owned()),
        ("/small", format!("Transfer-Encoding: chunked\r\n\r\n{chunks}")),
        ("/undecided", "Content-Length: 2\r\n\r\n1".to_owned()),
    ] {
        let mut client = server.connect();
        client.send(format!("POST {target} HTTP/1.1\r\nHost: a\r\n{rest}"));
        let response = client.read();
        assert_eq!((response.status, response.closes()), (413, true), "{target} {rest}");
        client.expect_closed();
    }
}

#[test]
fn close_is_honoured_after_the_response() {
    let server = serve();
    for line in
        ["Connection: close", "connection: TE , Close", "Connection: a\r\nConnection: close"]
    {
        let mut client = server.connect();
        client.send(format!("GET /x HTTP/1.1\r\nHost: a\r\n{line}\r\n\r\n{GET}{GET}"));
        let response = client.read();
        assert_eq!((response.text(), response.closes()), ("/x", true));
        client.expect_closed();
    }
    server.wait_until("all is closed", |report| report.connections == 0);
}

#[test]
fn a_peer_that_ended_its_side_gets_its_answers() {
    let server = serve();
    let mut client = server.connect();
    client.send(GET.repeat(3));
    client.stream.shutdown(Shutdown::Write).unwrap();
    for _ in 0..3 {
        assert_eq!(client.read().text(), "/x");
    }
    client.expect_closed();

    let mut client = server.connect();
    client.send("GET /later HTTP/1.1\r\nHost: a\r\n\r\n");
    client.stream.shutdown(Shutdown::Write).unwrap();
    server.wait_until("the request is deferred", |report| report.deferred == 1);
    server.tell(Command::Answer);
    assert_eq!(client.read().text(), "later");
    client.expect_closed();

    for unfinished in ["GET /a HT", "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\na"] {
        let mut client = server.connect();
        client.send(unfinished);
        client.stream.shutdown(Shutdown::Write).unwrap();
        client.expect_closed();
    }
    server.wait_until("all is closed", |report| report.connections == 0);
}

#[test]
fn deferred_responses_keep_the_order_of_their_requests() {
    let server = serve();
    let mut first = server.connect();
    let mut second = server.connect();
    let later = |name| format!("GET /later/{name} HTTP/1.1\r\nHost: a\r\n\r\n");
    first.send(format!("{GET}{}{GET}{}{GET}", later("one"), later("two")));
    second.send("POST /silent HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi".to_owned() + GET);
    server.wait_until("both are deferred", |report| report.deferred == 2);
    assert_eq!(first.read().text(), "/x");
    server.tell(Command::Answer);
    assert_eq!(first.read().text(), "later/one");
    assert_eq!(first.read().text(), "/x");
    assert_eq!(second.read().text(), "silent");
    assert_eq!(second.read().text(), "/x");
    server.wait_until("the next is deferred", |report| report.deferred == 1);
    server.tell(Command::Answer);
    assert_eq!(first.read().text(), "later/two");
    assert_eq!(first.read().text(), "/x");
}
