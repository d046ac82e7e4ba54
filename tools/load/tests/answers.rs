//! What `midge-load` says of servers that answer rightly, wrongly, late and not at all.
//!
//! Each server is a few lines over a plain socket, so that what it sends is what stands here.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;

use serde_json::Value;

/// Exit statuses of right answers: the generator may be the limit of a server that does nothing.
const RIGHT: [i32; 2] = [0, 3];

/// A server whose connections are each handled by `handle`, with the number of the connection.
fn server(handle: impl Fn(TcpStream, usize) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    let handle = std::sync::Arc::new(handle);
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let Ok(stream) = stream else { continue };
            let handle = handle.clone();
            std::thread::spawn(move || handle(stream, number));
        }
    });
    address
}

/// Reads heads until the peer goes, and writes what `answer` makes of each; `None` ends the connection.
fn answering(
    answer: impl Fn(&str, usize) -> Option<Vec<u8>> + Send + Sync + 'static,
) -> SocketAddr {
    server(move |mut stream, _| {
        let mut bytes = Vec::new();
        let mut buffer = [0; 4096];
        let mut count = 0;
        loop {
            while let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&bytes[..end + 4]).into_owned();
                bytes.drain(..end + 4);
                let Some(response) = answer(&head, count) else { return };
                count += 1;
                let is_last = head.contains("Connection: close");
                if stream.write_all(&response).is_err() || is_last {
                    return;
                }
            }
            match stream.read(&mut buffer) {
                Ok(size) if size > 0 => bytes.extend_from_slice(&buffer[..size]),
                _ => return,
            }
        }
    })
}

fn ok(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// Runs the program against a server; returns its exit status and its report.
fn load(address: SocketAddr, path: &str, arguments: &[&str]) -> (i32, Value) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_midge-load"));
    command.args([
        "--json",
        "--duration",
        "0.3",
        "--warmup",
        "0.05",
        "--timeout",
        "0.5",
        "-c",
        "4",
    ]);
    command.args(arguments).arg(format!("http://{address}{path}"));
    let output = command.output().expect("the program runs");
    let report = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&output.stderr).into_owned()));
    (output.status.code().expect("it ended by itself"), report)
}

/// Returns how many answers were wrong in this way.
fn wrong(report: &Value, name: &str) -> u64 {
    report["runs"][0]["wrong"][name].as_u64().unwrap_or(0)
}

#[test]
fn right_answers_are_counted() {
    let address = answering(|_, _| Some(ok("hello")));
    for arguments in [
        &[][..],
        &["-p", "8"],
        &["--close"],
        &["--requests-per-connection", "3"],
        &["--split", "7"],
    ] {
        let (status, report) = load(address, "/", arguments);
        let run = &report["runs"][0];
        assert!(RIGHT.contains(&status), "{arguments:?}: {report}");
        assert!(run["responses"].as_u64() > Some(10), "{arguments:?}: {report}");
        assert_eq!(report["verified"]["by_bytes"], 1, "{arguments:?}");
        assert_eq!(run["body_bytes"].as_u64(), run["responses"].as_u64().map(|count| count * 5));
    }
}

#[test]
fn an_open_loop_keeps_its_rate_and_counts_from_when_a_request_was_due() {
    // Every answer takes 20 ms, and there is one connection: 50 a second, where 100 are due.
    let address = answering(|_, _| {
        std::thread::park_timeout(std::time::Duration::from_millis(20));
        Some(ok("slow"))
    });
    let (_, report) = load(
        address,
        "/",
        &["-c", "1", "--rate", "100", "--arrivals", "fixed", "--warmup", "0", "--timeout", "9"],
    );
    let run = &report["runs"][0];
    assert_eq!(run["responses"].as_u64(), Some(30), "all that were due were sent: {report}");
    let at = |times: &str, quantile: &str| run[times][quantile].as_f64().expect("a figure");
    assert!(at("service_us", "p50") < at("latency_us", "p50"), "{report}");
    // The last of 30 waited for 29 others: due after 0.29 s, answered after 0.6.
    assert!(250_000.0 < at("latency_us", "max"), "{report}");
    assert!(run["waiting_max"].as_u64() > Some(5), "{report}");
}

#[test]
fn a_wrong_byte_fails_the_run() {
    let address = answering(|_, count| Some(ok(if count == 9 { "hellO" } else { "hello" })));
    let (status, report) = load(address, "/", &[]);
    assert_eq!(status, 1, "{report}");
    assert_eq!(wrong(&report, "body"), 4, "one on each connection: {report}");
    let example = report["runs"][0]["example"].as_str().expect("an example");
    assert!(example.contains("hellO"), "{example}");
}

#[test]
fn a_wrong_status_and_a_wrong_length_fail_the_run() {
    let address = answering(|_, count| match count {
        5 => Some(b"HTTP/1.1 500 No\r\nContent-Length: 5\r\n\r\nhello".to_vec()),
        7 => Some(ok("hell")),
        _ => Some(ok("hello")),
    });
    let (status, report) = load(address, "/", &[]);
    assert_eq!(status, 1, "{report}");
    assert_eq!((wrong(&report, "status"), wrong(&report, "length")), (4, 4), "{report}");
}

#[test]
fn a_response_of_another_request_is_wrong() {
    let echo = |head: &str| head.split(' ').nth(1).unwrap_or("").to_owned();
    let address = answering(move |head, _| Some(ok(&echo(head))));
    let (status, report) = load(address, "/{number}", &["-p", "4"]);
    assert!(RIGHT.contains(&status), "{report}");
    assert_eq!(report["verified"]["by_number"], 1, "{report}");
    // The same, but for the tenth response, which repeats the one before.
    let last = std::sync::Mutex::new(String::new());
    let address = answering(move |head, count| {
        let mut last = last.lock().expect("one connection at a time");
        if count != 9 {
            *last = echo(head);
        }
        Some(ok(&last))
    });
    let (status, report) = load(address, "/{number}", &["-c", "1"]);
    assert_eq!((status, wrong(&report, "body")), (1, 1), "{report}");
}

#[test]
fn connections_that_end_early_are_counted_and_made_anew() {
    let address = answering(|_, count| if count == 5 { None } else { Some(ok("hello")) });
    let (status, report) = load(address, "/", &[]);
    assert_eq!(status, 1, "{report}");
    assert!(wrong(&report, "closed") > 1, "{report}");
    assert!(report["runs"][0]["connections_made"].as_u64() > Some(8), "{report}");
    assert!(report["runs"][0]["responses"].as_u64() > Some(20), "{report}");
}

#[test]
fn silence_is_a_timeout() {
    let address = answering(|_, count| {
        if count == 3 {
            std::thread::park_timeout(std::time::Duration::from_secs(5));
        }
        Some(ok("hello"))
    });
    let (status, report) = load(address, "/", &["--timeout", "0.1"]);
    assert_eq!(status, 1, "{report}");
    assert!(wrong(&report, "timeout") >= 4, "{report}");
}

#[test]
fn bytes_that_nobody_asked_for_are_unexpected() {
    let address = answering(|_, count| {
        let mut response = ok("hello");
        if count == 3 {
            response.extend_from_slice(&ok("hello"));
        }
        Some(response)
    });
    let (status, report) = load(address, "/", &[]);
    assert_eq!(status, 1, "{report}");
    assert!(wrong(&report, "unexpected") + wrong(&report, "closed") > 0, "{report}");
}

#[test]
fn a_connection_that_stays_though_its_end_was_asked_for_is_wrong() {
    let address = server(|mut stream, number| {
        let mut buffer = [0; 4096];
        // The first two are those that learn.
        while stream.read(&mut buffer).is_ok_and(|size| size > 0) {
            if stream.write_all(&ok("hello")).is_err() || number < 2 {
                return;
            }
        }
    });
    let (status, report) = load(address, "/", &["--close", "--timeout", "0.1"]);
    assert_eq!(status, 1, "{report}");
    assert!(wrong(&report, "not-closed") > 0, "{report}");
}

#[test]
fn what_is_no_http_is_malformed() {
    let address = answering(|_, count| {
        Some(if count == 2 { b"SSH-2.0-nothing\r\n".to_vec() } else { ok("hello") })
    });
    let (status, report) = load(address, "/", &[]);
    assert_eq!(status, 1, "{report}");
    assert!(wrong(&report, "malformed") >= 4, "{report}");
}

#[test]
fn bodies_in_chunks_and_to_the_end_are_compared_too() {
    let chunked = |_: &str, _| {
        Some(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n".to_vec())
    };
    let (status, report) = load(answering(chunked), "/", &["--expect", "abcde"]);
    assert!(RIGHT.contains(&status), "{report}");
    let to_the_end = |_: &str, _| Some(b"HTTP/1.0 200 OK\r\n\r\nabcde".to_vec());
    let (status, report) = load(answering(to_the_end), "/", &["--close", "--expect", "abcde"]);
    assert!(RIGHT.contains(&status), "{report}");
    let (status, report) = load(answering(to_the_end), "/", &["--close", "--expect", "abcdx"]);
    assert_eq!(status, 1, "{report}");
}

#[test]
fn a_server_that_is_not_there_is_said_in_a_line() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let (status, report) = load(address, "/", &[]);
    let text = report.as_str().expect("no report");
    assert_eq!((status, text.lines().count()), (1, 1), "{text}");
    assert!(text.starts_with("midge-load: cannot connect"), "{text}");
}

#[test]
fn slow_readers_and_writers_take_their_time() {
    let body = "b".repeat(200_000);
    let address = answering(move |_, _| Some(ok(&body)));
    // 200 kB at a million a second: what waits in the kernel comes at once, the rest takes its time.
    let slow = ["-c", "1", "--duration", "1", "--read-rate", "1000000", "--timeout", "5"];
    let (status, report) = load(address, "/", &slow);
    assert!(RIGHT.contains(&status), "{report}");
    let responses = report["runs"][0]["responses"].as_u64().expect("a count");
    assert!((1..=9).contains(&responses), "five, and what is under way: {report}");
    // A head of some 80 bytes, eight at a time and 400 a second: five a second.
    let address = answering(|_, _| Some(ok("hello")));
    let slow = ["-c", "1", "--duration", "1", "--write-rate", "400", "--split", "8"];
    let (status, report) = load(address, "/", &slow);
    assert!(RIGHT.contains(&status), "{report}");
    let responses = report["runs"][0]["responses"].as_u64().expect("a count");
    assert!((1..=8).contains(&responses), "{report}");
}

#[test]
fn a_trace_is_replayed_on_its_functions() {
    let echo = |head: &str| head.split(' ').nth(1).unwrap_or("").to_owned();
    let address = answering(move |head, _| Some(ok(&echo(head))));
    let folder = std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let (trace, targets) = (folder.join("calls.csv"), folder.join("targets.txt"));
    std::fs::write(&trace, "0.1,1\n0.0,0\n0.2,2\n0.21,1\n9.0,1\n").unwrap();
    std::fs::write(&targets, "/b\n/c\n").unwrap();
    let trace = trace.to_str().unwrap();
    let targets = ["--targets", targets.to_str().unwrap()];
    // Each target is compared with what it answered first, so one that is mixed up would be wrong.
    let (status, report) = load(address, "/a", &[&targets[..], &["--replay", trace]].concat());
    assert!(RIGHT.contains(&status), "{report}");
    assert_eq!(report["runs"][0]["responses"], 4, "those within the duration: {report}");
    assert_eq!(report["verified"]["by_bytes"], 3, "{report}");
    let made = ["--rate", "2000", "--arrivals", "azure-2019"];
    let (status, report) = load(address, "/a", &[&targets[..], &made].concat());
    assert!(RIGHT.contains(&status), "{report}");
    let responses = report["runs"][0]["responses"].as_u64().expect("a count");
    assert!((300..900).contains(&responses), "2000 a second for 0.3 s: {report}");
}

/// What a call of a trace takes stands in its target, and an answer that repeats it is compared with that very call.
#[test]
fn a_trace_tells_what_its_calls_take() {
    let asked = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = asked.clone();
    let address = answering(move |head, _| {
        let target = head.split(' ').nth(1).unwrap_or("").to_owned();
        seen.lock().expect("a list").push(target.clone());
        Some(ok(&target))
    });
    let path = "/f?us={us}&kib={kib}&pages={pages}&n={number}";
    let folder = std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let targets = folder.join("many.txt");
    let lines: String = (0..60).map(|number| format!("/{number}{}\n", &path[2..])).collect();
    std::fs::write(&targets, lines).unwrap();
    let targets = ["--targets", targets.to_str().unwrap(), "--rate", "3000", "--arrivals"];
    for shape in ["azure-2019", "azure-2021", "huawei-2023", "huawei-2025"] {
        let (status, report) = load(address, path, &[&targets[..], &[shape]].concat());
        assert!(RIGHT.contains(&status), "{shape}: {report}");
        assert_eq!(report["verified"]["by_number"], 61, "{shape}: {report}");
    }
    let trace = folder.join("work.csv");
    std::fs::write(&trace, "0.0,0,1500,2048,7\n0.1,0,2500,4096,9\n").unwrap();
    asked.lock().expect("a list").clear();
    let scales = ["--duration-scale", "10", "--heap-scale", "2", "--replay"];
    let (status, report) = load(address, path, &[&scales[..], &[trace.to_str().unwrap()]].concat());
    assert!(RIGHT.contains(&status), "{report}");
    // Not held: the server would wait for it.
    let asked = asked.lock().expect("a list").clone();
    let mut asked: Vec<_> = asked.iter().filter_map(|target| target.split("&n=").next()).collect();
    asked.sort_unstable();
    // The first two are those that learn; lines of one's own are as they are.
    let wanted = [
        "/f?us=0000000003&kib=0000000064&pages=0000000007",
        "/f?us=0000000004&kib=0000000128&pages=0000000008",
        "/f?us=0000001500&kib=0000002048&pages=0000000007",
        "/f?us=0000002500&kib=0000004096&pages=0000000009",
    ];
    assert_eq!(asked, wanted);
    let (status, report) = load(address, path, &["--rate", "300"]);
    let text = report.as_str().expect("no report");
    assert!(status == 1 && text.contains("calls of traces alone tell them"), "{text}");
}

#[test]
fn files_of_clouds_are_replayed_and_a_faulty_line_is_named() {
    let address = answering(|_, _| Some(ok("hello")));
    let folder = std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let file = |name: &str, text: &str| {
        let file = folder.join(name);
        std::fs::write(&file, text).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let minutes = file("minutes.csv", "day,time,0,1\n0,0,3.0,\n0,60,,2\n");
    let (status, report) = load(address, "/", &["--speed", "300", "--replay", &minutes]);
    assert!(RIGHT.contains(&status), "{report}");
    // 0.3 s at 300 times its speed are 90 s: the first minute whole, and what falls into half of the second.
    let responses = report["runs"][0]["responses"].as_u64().expect("a count");
    assert!((3..=5).contains(&responses), "{report}");
    let faulty = file("faulty.csv", "day,time,0,1\n0,0,3.0,x\n");
    let (status, report) = load(address, "/", &["--replay", &faulty]);
    let text = report.as_str().expect("no report");
    assert!(status == 1 && text.contains("faulty.csv") && text.contains("line 2"), "{text}");
    let alone = ["--replay", &minutes, "--durations", &minutes];
    let (status, report) = load(address, "/", &alone);
    let text = report.as_str().expect("no report");
    assert!(status == 1 && text.contains("function_durations_percentiles"), "{text}");
}

/// Whoever looks at the first line alone closes the pipe: no error.
#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let address = answering(|_, _| Some(ok("hello")));
    let mut command = Command::new(env!("CARGO_BIN_EXE_midge-load"));
    command.args(["-d", "0.1", "--warmup", "0", "-c", "1", "--quiet"]);
    command.arg(format!("http://{address}/"));
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut child = command.spawn().expect("the program runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code().is_some_and(|code| RIGHT.contains(&code)), "{text}");
    assert_eq!(text, "");
}

#[test]
fn another_scheme_is_refused_by_name() {
    for (url, word) in [
        ("https://localhost/", "TLS"),
        ("ftp://localhost/", "`ftp`"),
        ("localhost/", "http://HOST"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_midge-load")).arg(url).output();
        let output = output.expect("the program runs");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && text.contains(word), "{text}");
    }
}

#[test]
fn a_plot_and_a_histogram_log_are_written() {
    let address = answering(|_, _| Some(ok("hello")));
    let folder = std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let (svg, hdr) = (folder.join("load.svg"), folder.join("load.hlog"));
    let files = ["--svg", svg.to_str().unwrap(), "--hdr", hdr.to_str().unwrap()];
    for more in [&[][..], &["--steps", "100,200"]] {
        let (status, report) = load(address, "/", &[&files[..], more].concat());
        assert!(RIGHT.contains(&status), "{report}");
        let drawn = std::fs::read_to_string(&svg).unwrap();
        assert!(drawn.matches("<circle").count() >= 6, "{drawn}");
        let log = std::fs::read_to_string(&hdr).unwrap();
        assert!(log.lines().any(|line| line.contains("HISTFAAA")), "{log}");
    }
}

#[test]
fn a_knee_is_found_where_the_server_is_slow_beyond_it() {
    let address = answering(|_, _| {
        std::thread::park_timeout(std::time::Duration::from_millis(5));
        Some(ok("slow"))
    });
    // Four connections at 5 ms: at most 800 a second, and far fewer without a queue.
    let (status, report) = load(address, "/", &["--knee", "50"]);
    assert_eq!(status, 0, "{report}");
    let rate = report["knee"]["rate"].as_f64().expect("a rate");
    // How far below, the machine that the test runs on says.
    assert!(0.0 < rate && rate < 800.0, "{report}");
    assert!(report["runs"].as_array().expect("runs").len() > 2, "{report}");
}
