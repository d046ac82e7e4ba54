//! markdown: turns posted Markdown into HTML.
//!
//! `?page=1` makes a whole page of it. Raw HTML in the text is shown as text: a stranger's script does not
//! run in the reader's browser.

use midge_guest::{FunctionError, Method, Request, Response};
use pulldown_cmark::{Event, Options, Parser, html};

const PAGE_HEAD: &str = "<!doctype html>\n<meta charset=\"utf-8\">\n<title>Markdown</title>\n";

#[midge_guest::function(area = 262_144, heap = 1_048_576)]
fn handle<'a>(request: &Request<'a>) -> Result<Response<'a>, FunctionError> {
    if request.method() != Method::Post {
        let answer = Response::text("post Markdown\n").with_status(405);
        return Ok(answer.with_header("allow", "POST"));
    }
    let Ok(text) = str::from_utf8(request.body()) else {
        return Ok(Response::text("the body is not UTF-8\n").with_status(400));
    };
    let options =
        Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TASKLISTS;
    let events = Parser::new_ext(text, options).map(|event| match event {
        Event::Html(raw) | Event::InlineHtml(raw) => Event::Text(raw),
        other => other,
    });
    let mut page = String::with_capacity(PAGE_HEAD.len() + text.len() * 3 / 2);
    if request.parameter("page").is_some() {
        page.push_str(PAGE_HEAD);
    }
    html::push_html(&mut page, events);
    Ok(Response::html(page))
}
