//! The cases: what is sent and what has to come back, as they stand in `tests/http/*.toml`.
//!
//! ```text
//!   [[case]]
//!   name    = "chunks-are-joined"
//!   rfc     = "9112, 7.1"
//!   send    = 'POST / HTTP/1.1|Host: a|Transfer-Encoding: chunked||5|hello|0||'
//!   answers = [200]           # statuses in their order
//!   after   = "open"          # or "ends": what becomes of the connection
//! ```
//!
//! In `send` a bar is CRLF, and `<..>` is what text cannot show: `<cr>`, `<lf>`, `<nul>`, `<tab>`, `<7c>` a
//! byte in hexadecimal, `<a*8000>` a repetition. A list of sends waits for one more answer before each send but
//! the first. Further keys are those of [`Case`].

use std::path::Path;

use midge_tests::program::workspace;
use serde::Deserialize;

/// What becomes of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum After {
    /// It takes another request.
    Open,
    /// The server ends it.
    Ends,
}

/// A case.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    /// What it is about, unique in its file.
    pub(crate) name: String,
    /// The section that says so; a number of four digits is an RFC.
    pub(crate) rfc: String,
    /// What is sent.
    pub(crate) send: Sends,
    /// Statuses in their order. 100 is compared where it is named, and passed over elsewhere.
    pub(crate) answers: Vec<u16>,
    /// What becomes of the connection after them.
    pub(crate) after: After,
    /// Other answers that the RFC leaves open; midge gives those of `answers`.
    #[serde(default)]
    pub(crate) permits: Vec<Vec<u16>>,
    /// Where midge does otherwise, and why.
    pub(crate) known: Option<Known>,
    /// Which answers are to HEAD, from 0.
    #[serde(default)]
    pub(crate) to_head: Vec<usize>,
    /// Headers that the last answer has: `name` or `name: value`.
    #[serde(default)]
    pub(crate) has: Vec<String>,
    /// Headers that the last answer lacks.
    #[serde(default)]
    pub(crate) lacks: Vec<String>,
    /// Body of the last answer, from a server that answers a body with itself.
    pub(crate) body: Option<String>,
}

/// A difference of midge's that is known.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Known {
    /// What midge answers.
    pub(crate) answers: Vec<u16>,
    /// Why.
    pub(crate) reason: String,
}

/// One send, or several.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(crate) enum Sends {
    /// All at once.
    One(String),
    /// Each but the first after one more answer.
    Several(Vec<String>),
}

/// A file of cases.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    case: Vec<Case>,
}

impl Case {
    /// Returns the case with what midge does in the place of what the specification says.
    pub(crate) fn into_known(self) -> Self {
        match &self.known {
            Some(known) => Self { answers: known.answers.clone(), ..self },
            None => self,
        }
    }

    /// Returns the bytes of each send.
    pub(crate) fn sends(&self) -> Vec<Vec<u8>> {
        match &self.send {
            Sends::One(text) => vec![bytes(text)],
            Sends::Several(texts) => texts.iter().map(|text| bytes(text)).collect(),
        }
    }
}

/// Reads all files, in the order of their names; a case's name gets that of its file in front.
pub(crate) fn cases() -> Vec<Case> {
    let folder = workspace().join("tests/http");
    let entries = std::fs::read_dir(folder).expect("the corpus lies there");
    let mut paths: Vec<_> =
        entries.map(|entry| entry.expect("the corpus can be listed").path()).collect();
    paths.sort();
    paths.iter().flat_map(|path| cases_of(path)).collect()
}

fn cases_of(path: &Path) -> Vec<Case> {
    let text = std::fs::read_to_string(path).expect("a file of cases is text");
    let file: File =
        toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let topic = path.file_stem().expect("a file has a name").to_string_lossy().into_owned();
    let named = |case: Case| Case { name: format!("{topic}/{}", case.name), ..case };
    file.case.into_iter().map(named).collect()
}

/// Returns the bytes that a text stands for.
pub(crate) fn bytes(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find('<') {
        let (plain, tail) = rest.split_at(start);
        bytes.extend(plain.replace('|', "\r\n").into_bytes());
        let (mark, after) = tail[1..].split_once('>').expect("a mark ends");
        bytes.extend(marked(mark));
        rest = after;
    }
    bytes.extend(rest.replace('|', "\r\n").into_bytes());
    bytes
}

fn marked(mark: &str) -> Vec<u8> {
    match mark {
        "cr" => b"\r".to_vec(),
        "lf" => b"\n".to_vec(),
        "nul" => vec![0],
        "tab" => b"\t".to_vec(),
        _ => match mark.rsplit_once('*') {
            Some((text, count)) => {
                let count = count.parse().expect("a repetition has a count");
                text.replace('|', "\r\n").repeat(count).into_bytes()
            }
            None => vec![u8::from_str_radix(mark, 16).expect("a mark is a byte in hexadecimal")],
        },
    }
}
