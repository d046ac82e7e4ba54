//! Files of folders: types, conditions, ranges, variants, and no way out of the folder.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;

use midge_tests::guests::HELLO;
use midge_tests::host::{Host, Setup};
use midge_tests::http::{Request, Response};
use midge_tests::wait::wait_for;
use rustix::process::Signal;

const PAGE: &str = "<title>page</title>\n";

/// Serves a folder with a page, and what `fill` puts there; a file of that folder's parent is a secret.
fn serve(lines: &str, fill: impl FnOnce(&std::path::Path)) -> Host {
    let setup = Setup::new().file("secret.txt", "secret");
    let folder = setup.folder().join("public");
    fs::create_dir(&folder).expect("a folder");
    fs::write(folder.join("index.html"), PAGE).expect("a file");
    fill(&folder);
    setup.serve(&settings(lines))
}

fn settings(lines: &str) -> String {
    format!("[[static]]\nname = \"site\"\nfolder = \"public\"\nroute = \"/*\"\n{lines}")
}

fn get(host: &Host, target: &str, headers: &[(&str, &str)]) -> Response {
    let headers = headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    let request = Request { line: format!("GET {target}"), headers, body: Vec::new() };
    host.client().ask(&request)
}

#[test]
fn a_page_has_its_type_and_its_validators() {
    let host = serve("cache_control = \"max-age=60\"", |folder| {
        fs::create_dir(folder.join("deep")).unwrap();
        fs::write(folder.join("deep/index.html"), "deep").unwrap();
        fs::write(folder.join("a b.wasm"), b"\0asm").unwrap();
        fs::write(folder.join("empty"), b"").unwrap();
    });
    let page = get(&host, "/", &[]);
    assert_eq!((page.status, page.text()), (200, PAGE));
    for (name, value) in [
        ("content-type", "text/html; charset=utf-8"),
        ("cache-control", "max-age=60"),
        ("accept-ranges", "bytes"),
        ("content-length", "20"),
    ] {
        assert_eq!(page.header(name), Some(value), "{name}");
    }
    assert_eq!(page.header("vary"), None);
    assert!(page.header("last-modified").unwrap().ends_with(" GMT"));
    let module = get(&host, "/a%20b.wasm", &[]);
    assert_eq!(
        (module.header("content-type"), &module.body[..]),
        (Some("application/wasm"), &b"\0asm"[..])
    );
    assert_eq!(get(&host, "/index.html?v=2", &[]).text(), PAGE);
    assert_eq!(get(&host, "/deep/", &[]).text(), "deep");
    let moved = get(&host, "/deep?x=1", &[]);
    assert_eq!((moved.status, moved.header("location")), (301, Some("/deep/?x=1")));
    let empty = get(&host, "/empty", &[("range", "bytes=0-")]);
    assert_eq!((empty.status, empty.header("content-range")), (416, Some("bytes */0")));
    assert_eq!(get(&host, "/empty", &[]).header("content-length"), Some("0"));

    let mut client = host.client();
    let head = client.ask(&Request { line: "HEAD /".into(), ..Request::default() });
    assert_eq!((head.status, head.header("content-length")), (200, Some("20")));
    let post = client.ask(&Request { line: "POST /".into(), ..Request::default() });
    assert_eq!((post.status, post.header("allow")), (405, Some("GET, HEAD")));
    let with_body =
        client.ask(&Request { line: "GET /".into(), body: b"x".to_vec(), ..Request::default() });
    assert_eq!(with_body.status, 413);
}

#[test]
fn a_client_that_has_it_gets_no_bytes() {
    let host = serve("", |_| {});
    let page = get(&host, "/", &[]);
    let (tag, date) = (page.header("etag").unwrap(), page.header("last-modified").unwrap());
    for (name, value, status) in [
        ("if-none-match", tag, 304),
        ("if-none-match", "\"other\"", 200),
        ("if-modified-since", date, 304),
        ("if-match", "\"other\"", 412),
        ("if-match", tag, 200),
        ("if-unmodified-since", "Sun, 06 Nov 1994 08:49:37 GMT", 412),
    ] {
        let answer = get(&host, "/", &[(name, value)]);
        assert_eq!(answer.status, status, "{name}: {value}");
        if status == 304 {
            assert_eq!((answer.header("etag"), answer.body.len()), (Some(tag), 0));
        }
    }
    fs::write(host.folder().join("public/index.html"), "changed").unwrap();
    let changed = get(&host, "/", &[("if-none-match", tag)]);
    assert_eq!((changed.status, changed.text()), (200, "changed"));
}

#[test]
fn a_part_is_a_part_of_the_whole() {
    let bytes: Vec<u8> =
        (0..300_000_u32).map(|number| number.to_le_bytes()[0] ^ number.to_le_bytes()[1]).collect();
    let host = serve("", |folder| fs::write(folder.join("large"), &bytes).unwrap());
    for (range, start, end) in [
        ("bytes=0-0", 0, 1),
        ("bytes=1000-250999", 1000, 251_000),
        ("bytes=-70000", 230_000, 300_000),
        ("bytes=299999-", 299_999, 300_000),
    ] {
        let part = get(&host, "/large", &[("range", range)]);
        let told = format!("bytes {start}-{}/300000", end - 1);
        assert_eq!((part.status, part.header("content-range")), (206, Some(&*told)), "{range}");
        assert!(part.body == bytes[start..end], "{range}");
    }
    let beyond = get(&host, "/large", &[("range", "bytes=300000-")]);
    assert_eq!((beyond.status, beyond.header("content-range")), (416, Some("bytes */300000")));
    let whole = get(&host, "/large", &[("range", "bytes=0-0"), ("if-range", "\"old\"")]);
    assert!(whole.status == 200 && whole.body == bytes);
}

#[test]
fn no_path_leads_out_of_the_folder() {
    let host = serve("", |folder| {
        symlink("../secret.txt", folder.join("relative")).unwrap();
        symlink(folder.parent().unwrap().join("secret.txt"), folder.join("absolute")).unwrap();
        symlink("index.html", folder.join("within")).unwrap();
        symlink("loop", folder.join("loop")).unwrap();
        fs::create_dir(folder.join(".git")).unwrap();
        fs::write(folder.join(".git/config"), "secret").unwrap();
        fs::write(folder.join(".env"), "secret").unwrap();
        fs::create_dir(folder.join("bare")).unwrap();
        drop(UnixListener::bind(folder.join("socket")).unwrap());
    });
    let mut client = host.client();
    for target in [
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/..%2fsecret.txt",
        "/x/../../secret.txt",
        "/relative",
        "/absolute",
        "/loop",
        "/.git/config",
        "/%2egit/config",
        "/.env",
        "/bare/",
        "/socket",
        "//etc/passwd",
        "/index.html/",
        "/index.html%00.txt",
        "/missing",
        "/proc/self/environ",
    ] {
        let answer = client.get(target);
        assert_eq!(answer.status, 404, "{target}");
        assert!(!answer.text().contains("secret\""), "{target}");
    }
    assert_eq!(client.get("/within").text(), PAGE);
    let long = format!("/{}", "x".repeat(4000));
    assert_eq!(client.get(&long).status, 404);
}

#[test]
fn a_variant_is_served_to_those_who_take_it() {
    let host = serve("precompressed = true\nhidden = true", |folder| {
        fs::write(folder.join("app.js"), "plain").unwrap();
        fs::write(folder.join("app.js.br"), "brotli").unwrap();
        fs::write(folder.join("app.js.gz"), "gzip").unwrap();
        fs::write(folder.join(".dot"), "dot").unwrap();
    });
    let mut tags = Vec::new();
    for (accepted, encoding, body) in [
        ("", None, "plain"),
        ("gzip", Some("gzip"), "gzip"),
        ("gzip, br", Some("br"), "brotli"),
        ("zstd", None, "plain"),
        ("br;q=0, gzip;q=0.5", Some("gzip"), "gzip"),
    ] {
        let answer = get(&host, "/app.js", &[("accept-encoding", accepted)]);
        assert_eq!(
            (answer.header("content-encoding"), answer.text()),
            (encoding, body),
            "{accepted}"
        );
        assert_eq!(answer.header("content-type"), Some("text/javascript; charset=utf-8"));
        assert_eq!(answer.header("vary"), Some("accept-encoding"));
        tags.push((body, answer.header("etag").unwrap().to_owned()));
    }
    tags.sort_unstable();
    tags.dedup();
    assert_eq!(tags.len(), 3, "each variant has a tag of its own: {tags:?}");
    assert_eq!(get(&host, "/.dot", &[]).text(), "dot");
}

#[test]
fn a_large_file_goes_in_pieces_and_a_client_that_leaves_costs_nothing() {
    const BYTES: usize = 24 << 20;
    let host = serve("", |folder| {
        let file = fs::File::create(folder.join("large")).unwrap();
        file.set_len(BYTES as u64).unwrap();
    });
    let resident_kib = host.resident_kib();
    let mut slow = std::net::TcpStream::connect(host.listen).unwrap();
    slow.write_all(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut first = [0; 1000];
    slow.read_exact(&mut first).unwrap();
    let whole = get(&host, "/large", &[]);
    assert!(whole.body.len() == BYTES && whole.body.iter().all(|byte| *byte == 0));
    let descriptors = host.descriptor_count();
    drop(slow);
    wait_for("the file of a client that left is closed", || host.descriptor_count() < descriptors);
    let grown = host.resident_kib().saturating_sub(resident_kib);
    assert!(grown < 8 << 10, "the host has grown by {grown} KiB");
    // The connection goes on after a file.
    let mut client = host.client();
    for _ in 0..2 {
        assert_eq!(client.get("/large").body.len(), BYTES);
        assert_eq!(client.get("/").text(), PAGE);
    }
}

#[test]
fn what_is_not_in_memory_is_read_by_a_thread() {
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|number| number.to_le_bytes()[1]).collect();
    let host = serve("", |folder| {
        let mut file = fs::File::create(folder.join("cold")).unwrap();
        file.write_all(&bytes).unwrap();
        file.sync_all().unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    });
    let before = host.metrics().sum("midge_file_waits_total", &[]);
    assert!(get(&host, "/cold", &[]).body == bytes);
    // Some file systems keep everything in memory.
    let waits = host.metrics().sum("midge_file_waits_total", &[]) - before;
    println!("{waits} waits");
    assert!(
        get(&host, "/cold", &[("range", "bytes=1000000-1999999")]).body
            == bytes[1_000_000..2_000_000]
    );
}

#[test]
fn a_file_that_shrinks_cuts_the_connection() {
    const BYTES: u64 = 64 << 20;
    let host = serve("", |folder| {
        fs::File::create(folder.join("large")).unwrap().set_len(BYTES).unwrap();
    });
    let mut client = std::net::TcpStream::connect(host.listen).unwrap();
    client.write_all(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut first = [0; 1000];
    client.read_exact(&mut first).unwrap();
    fs::File::options()
        .write(true)
        .open(host.folder().join("public/large"))
        .unwrap()
        .set_len(10)
        .unwrap();
    let mut rest = Vec::new();
    // The end may be told as a reset.
    drop(client.read_to_end(&mut rest));
    assert!(((first.len() + rest.len()) as u64) < BYTES);
    assert_eq!(get(&host, "/", &[]).text(), PAGE);
}

#[test]
fn files_stand_beside_functions_and_are_reloaded() {
    let setup = Setup::new().file("hello.wat", HELLO);
    let folder = setup.folder().join("public");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("page.txt"), PAGE).unwrap();
    let function = "[[function]]\nname = \"hello\"\nmodule = \"hello.wat\"\nroute = \"/api/*\"\n";
    let files =
        "[[static]]\nname = \"site\"\nfolder = \"public\"\nroutes = [\"/*\", \"/assets/*\"]\n";
    let host = setup.serve(&format!("{files}{function}"));
    let mut client = host.client();
    assert_eq!(client.get("/api/x").text(), "hello\n");
    assert_eq!(client.get("/page.txt").text(), PAGE);
    assert_eq!(client.get("/assets/page.txt").text(), PAGE);
    assert_eq!(client.get("/nothing").status, 404);
    host.wait_for_metrics("files are counted by name", |metrics| {
        metrics.sum("midge_function_requests_total", &["function=\"site\""]) == 3
    });
    host.write_settings(function);
    host.signal(Signal::HUP);
    wait_for("the folder is gone", || host.client().get("/page.txt").status == 404);
    host.write_settings(&format!("{files}cache_control = \"no-store\"\n"));
    host.signal(Signal::HUP);
    wait_for("the folder is back", || host.client().get("/page.txt").status == 200);
    assert_eq!(host.client().get("/page.txt").header("cache-control"), Some("no-store"));
    assert_eq!(host.client().get("/api/x").status, 404);
}
