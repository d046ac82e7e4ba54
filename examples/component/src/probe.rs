//! Odd uses of the interface, each told in a line. Hosts differ in nothing that is told here.

use std::fmt::Write as _;

use wasip2::clocks::{monotonic_clock, wall_clock};
use wasip2::http::types::{
    Fields, HeaderError, IncomingBody, IncomingRequest, Method, OutgoingBody, OutgoingRequest,
    OutgoingResponse, RequestOptions, ResponseOutparam, Scheme,
};
use wasip2::io::streams::StreamError;
use wasip2::random::random;

struct Report(String);

impl Report {
    fn tell(&mut self, what: &str, found: &str) {
        // A string has room for all of it.
        let _infallible = writeln!(self.0, "{what}: {found}");
    }

    fn header(&mut self, what: &str, result: Result<(), HeaderError>) {
        let found = match result {
            Ok(()) => "ok",
            Err(HeaderError::InvalidSyntax) => "invalid syntax",
            Err(HeaderError::Forbidden) => "forbidden",
            Err(HeaderError::Immutable) => "immutable",
        };
        self.tell(what, found);
    }

    fn entries(&mut self, what: &str, fields: &Fields) {
        // Hosts may keep the lines of different names in any order.
        let mut lines: Vec<String> = fields
            .entries()
            .into_iter()
            .map(|(name, value)| format!("{name}={}", String::from_utf8_lossy(&value)))
            .collect();
        lines.sort();
        self.tell(what, &lines.join(" "));
    }
}

fn yes_no(is_so: bool) -> &'static str {
    if is_so { "yes" } else { "no" }
}

/// Answers with the report.
pub(crate) fn answer(request: &IncomingRequest, outparam: ResponseOutparam) {
    let mut report = Report(String::new());
    fields(&mut report);
    request_and_body(&mut report, request);
    streams(&mut report);
    outgoing(&mut report);
    others(&mut report);

    let headers = Fields::from_list(&[("x-probe".into(), b"done".to_vec())]).expect("a good list");
    let response = OutgoingResponse::new(headers);
    let body = response.body().expect("taken once");
    ResponseOutparam::set(outparam, Ok(response));
    let output = body.write().expect("taken once");
    for piece in report.0.as_bytes().chunks(4096) {
        output.blocking_write_and_flush(piece).expect("the response was set");
    }
    drop(output);
    OutgoingBody::finish(body, None).expect("no length was promised");
}

fn fields(report: &mut Report) {
    let fields = Fields::new();
    report.header("append", fields.append("X-One", b"1"));
    report.header("append again", fields.append("x-one", b"2"));
    report.header("append an empty value", fields.append("x-empty", b""));
    report.header("append bytes above 127", fields.append("x-high", &[0xE4, 0xFF]));
    report.header("append a tab", fields.append("x-tab", b"a\tb"));
    report.header("append an empty name", fields.append("", b"1"));
    report.header("append a name with a space", fields.append("x one", b"1"));
    report.header("append a name with a colon", fields.append("x:", b"1"));
    report.header("append a value with a newline", fields.append("x", b"a\nb"));
    report.header("append a value with a return", fields.append("x", b"a\rb"));
    report.header("append a value with a zero", fields.append("x", b"a\0b"));
    report.header("append a value with DEL", fields.append("x", b"a\x7Fb"));
    for name in
        ["connection", "Keep-Alive", "Transfer-Encoding", "UPGRADE", "host", "proxy-connection"]
    {
        report.header(name, fields.append(name, b"x"));
    }
    report.header("set no values", fields.set("x-none", &[]));
    report.tell("has it", yes_no(fields.has("x-none")));
    report.header("set two", fields.set("x-two", &[b"a".to_vec(), b"b".to_vec()]));
    report.header("set one of them bad", fields.set("x-two", &[b"c".to_vec(), b"\n".to_vec()]));
    report.header("content-length of letters", fields.append("content-length", b"five"));
    report.header("content-length", fields.append("content-length", b"5"));
    report.header("content-length again", fields.append("content-length", b"5"));
    report.tell("get", &fields.get("X-TWO").len().to_string());
    report.tell("get nothing", &fields.get("x-nothing").len().to_string());
    report.tell("get no name", &fields.get("x\n").len().to_string());
    report.tell("has no name", yes_no(fields.has("")));
    report.header("delete", fields.delete("X-two"));
    report.header("delete nothing", fields.delete("x-nothing"));
    report.header("delete no name", fields.delete("x "));
    report.header("delete what is forbidden", fields.delete("connection"));
    report.entries("entries", &fields);
    let clone = fields.clone();
    report.header("append to a clone", clone.append("x-clone", b"1"));
    report.tell("the first has it", yes_no(fields.has("x-clone")));
    let list = [("a".to_owned(), b"1".to_vec()), ("A".to_owned(), b"2".to_vec())];
    match Fields::from_list(&list) {
        Ok(fields) => report.entries("from a list", &fields),
        Err(_) => report.tell("from a list", "refused"),
    }
    let list = [("a".to_owned(), b"1".to_vec()), ("b c".to_owned(), b"2".to_vec())];
    report.header("from a bad list", Fields::from_list(&list).map(drop));
    let list = [("connection".to_owned(), b"1".to_vec())];
    report.header("from a forbidden list", Fields::from_list(&list).map(drop));

    let response = OutgoingResponse::new(fields);
    let headers = response.headers();
    report.header("append to a response's", headers.append("x-late", b"1"));
    report.header("delete from a response's", headers.delete("x-one"));
    report.header("append to its clone", headers.clone().append("x-late", b"1"));
}

fn request_and_body(report: &mut Report, request: &IncomingRequest) {
    let headers = request.headers();
    report.header("append to a request's", headers.append("x-late", b"1"));
    report.tell("host is seen", yes_no(headers.has("host")));
    report.tell("authority is known", yes_no(request.authority().is_some()));
    report.tell("path", &request.path_with_query().unwrap_or_default());
    let body = request.consume().expect("taken once");
    report.tell("consumed again", yes_no(request.consume().is_ok()));
    let stream = body.stream().expect("taken once");
    report.tell("a second stream", yes_no(body.stream().is_ok()));
    let mut size = 0;
    let end = loop {
        match stream.blocking_read(1000) {
            Ok(piece) => size += piece.len(),
            Err(StreamError::Closed) => break "closed",
            Err(StreamError::LastOperationFailed(_)) => break "failed",
        }
    };
    report.tell("the body", &format!("{size} bytes, {end}"));
    report.tell("read again", yes_no(stream.read(1).is_ok()));
    drop(stream);
    let trailers = IncomingBody::finish(body);
    trailers.subscribe().block();
    let found = match trailers.get() {
        Some(Ok(Ok(None))) => "none",
        Some(Ok(Ok(Some(_)))) => "some",
        _ => "failed",
    };
    report.tell("trailers", found);
    report.tell("trailers again", yes_no(matches!(trailers.get(), Some(Ok(_)))));
}

fn streams(report: &mut Report) {
    let response = OutgoingResponse::new(Fields::new());
    report.tell("status", &response.status_code().to_string());
    for status in [99, 100, 204, 999, 1000] {
        report.tell(&format!("status {status}"), yes_no(response.set_status_code(status).is_ok()));
    }
    report.tell("status then", &response.status_code().to_string());
    let body = response.body().expect("taken once");
    report.tell("a second body", yes_no(response.body().is_ok()));
    let stream = body.write().expect("taken once");
    report.tell("a second output", yes_no(body.write().is_ok()));
    report.tell("there is room", yes_no(stream.check_write().is_ok_and(|size| size > 0)));
    report.tell("write", yes_no(stream.write(b"abc").is_ok()));
}

fn others(report: &mut Report) {
    let before = monotonic_clock::now();
    monotonic_clock::subscribe_duration(2_000_000).block();
    report.tell("two milliseconds passed", yes_no(before + 2_000_000 <= monotonic_clock::now()));
    let late = monotonic_clock::subscribe_duration(3_600_000_000_000);
    let early = monotonic_clock::subscribe_duration(1_000_000);
    report.tell("the late one is ready", yes_no(late.ready()));
    let ready = wasip2::io::poll::poll(&[&late, &early]);
    report.tell(
        "ready of two",
        &format!("{} of {}", ready.len(), ready.first().copied().unwrap_or(9)),
    );
    report.tell("it is later than 2024", yes_no(wall_clock::now().seconds > 1_704_067_200));
    let (one, two) = (random::get_random_u64(), random::get_random_u64());
    report.tell("random numbers differ", yes_no(one != two));
    report.tell("random bytes", &random::get_random_bytes(5000).len().to_string());
    report.tell("no random bytes", &random::get_random_bytes(0).len().to_string());
}

/// Requests are made and looked at, and not sent.
fn outgoing(report: &mut Report) {
    let request = OutgoingRequest::new(Fields::new());
    report.tell("method is get", yes_no(matches!(request.method(), Method::Get)));
    for name in ["PURGE", "a b", ""] {
        let method = Method::Other(name.to_owned());
        report.tell(&format!("method `{name}`"), yes_no(request.set_method(&method).is_ok()));
    }
    let is_purge = matches!(request.method(), Method::Other(name) if name == "PURGE");
    report.tell("method is purge", yes_no(is_purge));
    report.tell("path", &format!("{}", request.path_with_query().is_some()));
    for path in ["/a?b=c", "/a b", "/a#b"] {
        report.tell(
            &format!("path `{path}`"),
            yes_no(request.set_path_with_query(Some(path)).is_ok()),
        );
    }
    report.tell("path then", &request.path_with_query().unwrap_or_default());
    report.tell("no path", yes_no(request.set_path_with_query(None).is_ok()));
    for authority in ["a.b:80", "a b"] {
        let is_ok = request.set_authority(Some(authority)).is_ok();
        report.tell(&format!("authority `{authority}`"), yes_no(is_ok));
    }
    report.tell("authority then", &request.authority().unwrap_or_default());
    report.tell("a scheme", yes_no(request.scheme().is_some()));
    report.tell("https", yes_no(request.set_scheme(Some(&Scheme::Https)).is_ok()));
    report.tell("is https", yes_no(matches!(request.scheme(), Some(Scheme::Https))));
    for name in ["ftp", "1a", "a b"] {
        let scheme = Scheme::Other(name.to_owned());
        report.tell(&format!("scheme `{name}`"), yes_no(request.set_scheme(Some(&scheme)).is_ok()));
    }
    report.header("append to a request's own", request.headers().append("x", b"1"));
    report.tell("its body", yes_no(request.body().is_ok()));
    report.tell("its body again", yes_no(request.body().is_ok()));
    let options = RequestOptions::new();
    report.tell("a timeout", yes_no(options.connect_timeout().is_some()));
    report.tell("set it", yes_no(options.set_connect_timeout(Some(5_000_000_000)).is_ok()));
    report.tell("it is", &format!("{}", options.connect_timeout().unwrap_or(0)));
    report.tell("another", yes_no(options.first_byte_timeout().is_some()));
}
