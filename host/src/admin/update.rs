//! `PUT /update`: an image on its way to the first process of this machine, which decides about it.
//!
//! Nothing is kept here: what comes is handed on piece by piece. The first process takes one at a time; others wait.

use std::io;
use std::path::Path;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use midge_abi::problem::MEDIA_TYPE;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::boot::places::UPDATES;
use crate::update::{
    ANSWER_BYTES_MAX, Answer, BYTES_MAX, SIGNATURE_FIELD, Signature, head, parse_hexadecimal,
};

/// How long a client may be silent.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// How long the first process may take to look at an image and to write it.
const ANSWER_MAX: Duration = Duration::from_secs(120);

pub(super) async fn take(request: Request) -> Response {
    let answer = match pass_on(request).await {
        Ok(answer) | Err(answer) => answer,
    };
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::BAD_GATEWAY);
    if status.is_success() {
        return (status, format!("{}\n", answer.text)).into_response();
    }
    let title = status.canonical_reason().unwrap_or_default();
    let problem = json!({ "title": title, "status": answer.status, "detail": answer.text });
    (status, [(CONTENT_TYPE, MEDIA_TYPE)], format!("{problem}\n")).into_response()
}

async fn pass_on(request: Request) -> Result<Answer, Answer> {
    let (signature, bytes) = announced(request.headers())?;
    let socket = Path::new("/").join(UPDATES);
    let mut first = UnixStream::connect(socket).await.map_err(|_| {
        let text = "this host takes no updates: it is none of a machine image with a key, or its disk was not found";
        Answer::new(404, text)
    })?;
    let gone =
        |error: io::Error| Answer::new(502, format!("the first process does not take it: {error}"));
    first.write_all(&head(&signature, bytes)).await.map_err(gone)?;
    let came = hand_over(request.into_body(), bytes, &mut first).await;
    // Whoever could not hand it all over may have an answer already.
    drop(first.shutdown().await);
    let mut line = Vec::new();
    let mut first = first.take(ANSWER_BYTES_MAX as u64);
    let answered = timeout(ANSWER_MAX, first.read_to_end(&mut line)).await;
    let answer = Answer::parse(&String::from_utf8_lossy(&line));
    match (came, answer, answered) {
        (Err(refused), ..) if refused.status != 502 => Err(refused),
        (_, Some(answer), _) => Ok(answer),
        (Err(refused), None, _) => Err(refused),
        (Ok(()), None, _) => Err(Answer::new(504, "the first process gives no answer")),
    }
}

/// Reads what the request says of its body.
fn announced(headers: &HeaderMap) -> Result<(Signature, u64), Answer> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let signature = text(SIGNATURE_FIELD).and_then(parse_hexadecimal).ok_or_else(|| {
        Answer::new(
            403,
            format!("the field `{SIGNATURE_FIELD}` has no signature in 128 hexadecimal digits"),
        )
    })?;
    let bytes = text(CONTENT_LENGTH.as_str()).and_then(|text| text.parse().ok());
    match bytes {
        Some(bytes) if bytes <= BYTES_MAX => Ok((signature, bytes)),
        Some(_) => Err(Answer::new(413, format!("an image has {BYTES_MAX} bytes at the most"))),
        None => Err(Answer::new(411, "the size of the image must be announced (Content-Length)")),
    }
}

async fn hand_over(mut body: Body, bytes: u64, first: &mut UnixStream) -> Result<(), Answer> {
    let broken = || Answer::new(400, "the image did not come whole");
    let mut left = bytes;
    while let Some(frame) = timeout(SILENCE_MAX, body.frame()).await.map_err(|_| broken())? {
        let Ok(data) = frame.map_err(|_| broken())?.into_data() else { continue };
        left = left.checked_sub(data.len() as u64).ok_or_else(broken)?;
        let handed = timeout(ANSWER_MAX, first.write_all(&data)).await;
        let refused = || Answer::new(502, "the first process does not take the image");
        handed.map_err(|_| refused())?.map_err(|_| refused())?;
    }
    if left == 0 { Ok(()) } else { Err(broken()) }
}
