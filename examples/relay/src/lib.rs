//! relay: asks other servers, where its grant names them.
//!
//! | path | answer |
//! |---|---|
//! | `/relay/louder?to=URL` | what that server answers to this request, in capitals, as it comes; the fields behind either body go along |
//! | `/relay/faster?one=URL&other=URL` | the answer of whichever is there first |
//!
//! `within=MS` is the time that either may take to begin, a second without it.
#![no_std]

use core::time::Duration;

use midge_guest::fetch::{Answer, Fetch, FetchError, Pending, wait};
use midge_guest::{
    BodyReader, BodyWriter, FunctionError, Method, Request, Response, TRAILERS_MAX, Trailers,
};

const PIECE_BYTES: usize = 4096;
/// What is taken of an answer as a whole.
const BODY_BYTES_MAX: usize = 32 * 1024;
const WITHIN_MS_DEFAULT: u64 = 1000;

#[midge_guest::function(area = 16_384, heap = 98_304)]
fn handle<'a>(request: &Request<'a>) -> Result<Response<'a>, FunctionError> {
    let answer = match request.path() {
        b"/relay/louder" => louder(request),
        b"/relay/faster" => faster(request),
        _ => return Err(FunctionError::refusal(404, "ask for /relay/louder or /relay/faster")),
    };
    // A server that gives no answer is no failure of this function.
    answer.or_else(|error| Ok(Response::text(format_args!("{error}\n")).with_status(502)))
}

/// Both bodies go through piece by piece, and neither waits for the other.
fn louder<'a>(request: &Request<'a>) -> Result<Response<'a>, FetchError> {
    let url = request.parameter("to").unwrap_or_default();
    let mut fetch = Fetch::new(request, request.method_name(), url)
        .with_answer_time(within(request))
        .with_header("te", "trailers");
    if let Some(kind) = request.header("content-type") {
        fetch = fetch.with_header("content-type", kind);
    }
    if matches!(request.method(), Method::Get | Method::Head) {
        return pass_down(fetch.send()?, None);
    }
    let mut pending = fetch.with_body_in_pieces(None).start()?;
    let mut body = request.body_reader();
    let mut piece = [0; PIECE_BYTES];
    loop {
        let mut waits = [pending.head(), pending.room(), body.more()];
        wait(&mut waits, None);
        let [is_answered, has_room, has_more] = waits.map(|wait| wait.is_ready());
        if is_answered {
            // Some servers answer before they have read all, and go on with both.
            return pass_down(pending.answer()?, Some((request, body)));
        }
        if has_room && has_more {
            let size = body.read(&mut piece);
            if size == 0 {
                with_passed(request.trailers(), |trailers| pending.finish_with(trailers))?;
                return pass_down(pending.answer()?, None);
            }
            pending.write(&piece[..size])?;
        } else if has_room {
            // Else this would turn in circles: there is room, and nothing to put there.
            wait(&mut [pending.head(), body.more()], None);
        } else if has_more {
            wait(&mut [pending.head(), pending.room()], None);
        }
    }
}

/// Passes an answer on, and what is left of the request's body up meanwhile.
fn pass_down<'a>(
    mut answer: Answer<'a>,
    mut upward: Option<(&Request<'a>, BodyReader<'a>)>,
) -> Result<Response<'a>, FetchError> {
    let mut response = Response::new(answer.status());
    for name in ["content-type", "etag", "location"] {
        if let Some(value) = answer.header(name) {
            response = response.with_header(name, value);
        }
    }
    let mut writer = response.start();
    let mut piece = [0; PIECE_BYTES];
    loop {
        // What comes after the head has been sent can only be cut off: the client must not take it for the whole.
        match answer.read_now(&mut piece) {
            Ok(Some(0)) => {
                let trailers = answer.trailers()?;
                return Ok(with_passed(trailers, |trailers| writer.finish_with(trailers)));
            }
            Ok(Some(size)) => {
                piece[..size].make_ascii_uppercase();
                writer.write(&piece[..size]);
                continue;
            }
            Ok(None) => {}
            Err(error) => cut(&writer, error),
        }
        match &mut upward {
            None => wait(&mut [answer.more()], None),
            Some((request, body)) => {
                let mut waits = [answer.more(), body.more()];
                wait(&mut waits, None);
                let [_, has_more] = waits.map(|wait| wait.is_ready());
                if has_more {
                    let size = body.read(&mut piece);
                    let sent = match size {
                        0 => {
                            with_passed(request.trailers(), |trailers| answer.finish_with(trailers))
                        }
                        _ => answer.write(&piece[..size]),
                    };
                    // A server that has answered may stop to read.
                    if size == 0 || sent.is_err() {
                        upward = None;
                    }
                }
            }
        }
    }
}

/// Lends fields that came behind a body as they are written behind another: the first of them, if there are many.
fn with_passed<R>(trailers: Trailers<'_>, write: impl FnOnce(&[(&str, &[u8])]) -> R) -> R {
    let mut fields = [("", &b""[..]); TRAILERS_MAX];
    let count = trailers.iter().len().min(TRAILERS_MAX);
    for (field, found) in fields.iter_mut().zip(trailers.iter()) {
        *field = found;
    }
    write(&fields[..count])
}

/// Ends the call without an end of its body.
fn cut(_started: &BodyWriter, error: FetchError) -> ! {
    panic!("the answer broke off: {error}")
}

/// Asks two servers at once. The slower one is given up.
fn faster<'a>(request: &Request<'a>) -> Result<Response<'a>, FetchError> {
    let start = |name| Fetch::get(request, request.parameter(name).unwrap_or_default()).start();
    let (one, other) = (start("one")?, start("other")?);
    let mut waits = [one.head(), other.head()];
    wait(&mut waits, Some(within(request)));
    let first = match waits.map(|wait| wait.is_ready()) {
        [true, _] => one,
        [_, true] => other,
        _ => return Ok(Response::text("too late\n").with_status(504)),
    };
    whole(first)
}

fn within(request: &Request<'_>) -> Duration {
    let time = request.parameter_text("within").and_then(|text| text.parse().ok());
    Duration::from_millis(time.unwrap_or(WITHIN_MS_DEFAULT))
}

fn whole(pending: Pending<'_>) -> Result<Response<'_>, FetchError> {
    let mut answer = pending.answer()?;
    let kind = answer.header("content-type").unwrap_or(b"application/octet-stream");
    let body = answer.body(BODY_BYTES_MAX)?;
    Ok(Response::new(answer.status()).with_header("content-type", kind).with_body(body))
}
