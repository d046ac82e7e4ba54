//! notes: a small application with several paths.
//!
//! | path | methods | answer |
//! |---|---|---|
//! | `/` | GET, HEAD | an HTML page; the cookie `reader` is greeted, `?theme=dark` sets another |
//! | `/items` | GET, HEAD, POST | the notes as JSON, `?tag=` narrows; POST answers what it would have stored |
//! | `/items/{id}` | GET, HEAD | one note: JSON, or plain text if `accept` says so |
//!
//! The paths lie under `/notes`, as in `examples/midge.toml`. Nothing is stored: a function begins anew
//! with each request. Stores are a later import.
#![no_std]

use core::fmt;

use midge_guest::{FunctionError, Method, Request, Response};

const MOUNT: &[u8] = b"/notes";
const NOTE_BYTES_MAX: usize = 1000;

struct Note {
    id: u32,
    tag: &'static str,
    text: &'static str,
}

const NOTES: [Note; 3] = [
    Note { id: 1, tag: "garden", text: "Water the \"tomatoes\" twice a week" },
    Note { id: 2, tag: "work", text: "Ask <everyone> about Friday & Monday" },
    Note { id: 3, tag: "garden", text: "Cut the hedge before March" },
];

#[midge_guest::function(area = 65536, heap = 65536)]
fn handle<'a>(request: &Request<'a>) -> Result<Response<'a>, FunctionError> {
    let path = request.path();
    let path = path.strip_prefix(MOUNT).unwrap_or(path);
    let answer = match (path, request.method()) {
        (b"" | b"/", Method::Get | Method::Head) => index(request),
        (b"" | b"/", _) => not_allowed("GET, HEAD"),
        (b"/items", Method::Get | Method::Head) => list(request),
        (b"/items", Method::Post) => create(request),
        (b"/items", _) => not_allowed("GET, HEAD, POST"),
        (_, method) => match path.strip_prefix(b"/items/").map(find) {
            None | Some(None) => not_found(),
            Some(Some(note)) if matches!(method, Method::Get | Method::Head) => show(request, note),
            Some(Some(_)) => not_allowed("GET, HEAD"),
        },
    };
    Ok(answer)
}

fn index<'a>(request: &Request<'a>) -> Response<'a> {
    let reader = request.cookie("reader").and_then(|name| str::from_utf8(name).ok());
    let is_dark = match request.parameter("theme") {
        Some(theme) => theme == b"dark",
        None => request.cookie("theme") == Some(b"dark"),
    };
    let theme = if is_dark { "dark" } else { "light" };
    let answer = Response::html(format_args!(
        "<!doctype html>\n<html data-theme=\"{theme}\">\n<meta charset=\"utf-8\">\n<title>Notes</title>\n\
         <h1>Notes of {}</h1>\n<ul>\n{}</ul>\n</html>\n",
        Html(reader.unwrap_or("nobody in particular")),
        Items,
    ));
    match request.parameter("theme") {
        Some(_) => {
            answer.with_header("set-cookie", format_args!("theme={theme}; Path=/notes; HttpOnly"))
        }
        None => answer,
    }
}

fn list<'a>(request: &Request<'a>) -> Response<'a> {
    let tag = request.parameter_text("tag");
    Response::json(format_args!("{}\n", List { tag }))
}

fn create<'a>(request: &Request<'a>) -> Response<'a> {
    let text = match str::from_utf8(request.body()) {
        Ok(text) if !text.trim().is_empty() => text.trim(),
        _ => return problem(400, "A note is UTF-8 text"),
    };
    if text.len() > NOTE_BYTES_MAX {
        return problem(413, "A note has at most 1000 bytes");
    }
    let id = NOTES.len() + 1;
    Response::json(format_args!("{{\"id\":{id},\"text\":\"{}\",\"stored\":false}}\n", Json(text)))
        .with_status(201)
        .with_header("location", format_args!("/notes/items/{id}"))
}

fn show<'a>(request: &Request<'a>, note: &'static Note) -> Response<'a> {
    let wants_text =
        request.header_text("accept").is_some_and(|accept| accept.contains("text/plain"));
    let answer = if wants_text {
        Response::text(format_args!("{}\n", note.text))
    } else {
        Response::json(format_args!("{note}\n"))
    };
    answer.with_header("vary", "accept")
}

fn find(id: &[u8]) -> Option<&'static Note> {
    let id = str::from_utf8(id).ok()?.parse().ok()?;
    NOTES.iter().find(|note| note.id == id)
}

fn not_found<'a>() -> Response<'a> {
    problem(404, "There is nothing here")
}

fn not_allowed<'a>(allow: &'static str) -> Response<'a> {
    problem(405, "This path has other methods").with_header("allow", allow)
}

/// RFC 9457.
fn problem<'a>(status: u16, title: &'static str) -> Response<'a> {
    Response::new(status)
        .with_header("content-type", "application/problem+json")
        .with_body(format_args!("{{\"status\":{status},\"title\":\"{title}\"}}\n"))
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, tag, text } = self;
        write!(f, "{{\"id\":{id},\"tag\":\"{tag}\",\"text\":\"{}\"}}", Json(text))
    }
}

/// The notes of one tag, or all of them, as a JSON array.
struct List<'a> {
    tag: Option<&'a str>,
}

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "[";
        for note in NOTES.iter().filter(|note| self.tag.is_none_or(|tag| tag == note.tag)) {
            write!(f, "{separator}{note}")?;
            separator = ",";
        }
        f.write_str(if separator == "[" { "[]" } else { "]" })
    }
}

/// The notes as items of an HTML list.
struct Items;

impl fmt::Display for Items {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        NOTES.iter().try_for_each(|Note { id, tag, text }| {
            writeln!(f, "<li><a href=\"/notes/items/{id}\">{}</a> ({tag})</li>", Html(text))
        })
    }
}

/// Text that stands in HTML.
struct Html<'a>(&'a str);

impl fmt::Display for Html<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|character| match character {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '"' => f.write_str("&quot;"),
            other => fmt::Write::write_char(f, other),
        })
    }
}

/// Text that stands in a JSON string (RFC 8259 7).
struct Json<'a>(&'a str);

impl fmt::Display for Json<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|character| match character {
            '"' | '\\' => write!(f, "\\{character}"),
            control @ '\0'..='\x1F' => write!(f, "\\u{:04x}", u32::from(control)),
            other => fmt::Write::write_char(f, other),
        })
    }
}
