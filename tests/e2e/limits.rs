//! Limits of the network: peers that are slow, silent, or too many.

use std::net::SocketAddr;

use midge_tests::guests::HELLO;
use midge_tests::host::{Host, Setup};
use midge_tests::http::Request;

fn host(limits: &str) -> Host {
    let settings = format!(
        "[limits]\n{limits}\n\
         [[function]]\nname = \"hello\"\nmodule = \"hello.wat\"\nroute = \"/\"\n"
    );
    Setup::new().file("hello.wat", HELLO).serve(&settings)
}

#[test]
fn a_head_that_takes_too_long_is_refused() {
    let host = host("header_deadline = \"100ms\"");
    let mut client = host.client();
    client.send(b"GET / HTTP/1.1\r\nhost: x\r\nx-slow: ");
    let _id = client.receive().problem(408, "request-timeout");
    assert!(client.is_ended());
    assert_eq!(host.client().get("/").status, 200);
}

#[test]
fn a_silent_connection_is_closed() {
    let host = host("idle = \"100ms\"");
    let mut client = host.client();
    assert_eq!(client.get("/").status, 200);
    assert!(client.is_ended(), "without a word: the peer has asked for nothing");
}

#[test]
fn a_connection_ends_after_its_share_of_requests() {
    let host = host("requests_per_connection = 3");
    let mut client = host.client();
    client.send(&Request::get("/").bytes().repeat(5));
    for number in 1..=3 {
        let response = client.receive();
        let connection = (number == 3).then_some("close");
        assert_eq!((response.status, response.header("connection")), (200, connection));
    }
    assert!(client.is_ended(), "what was sent beyond it is not answered");
}

#[test]
fn connections_above_the_limit_wait_for_their_turn() {
    let host = host("connections_per_worker = 2");
    let mut first = host.client();
    let mut second = host.client();
    assert_eq!((first.get("/").status, second.get("/").status), (200, 200));
    let mut third = host.client();
    third.send_get("/");
    drop(first);
    assert_eq!(third.receive().text(), "hello\n");
    assert_eq!(second.get("/").text(), "hello\n");
}

#[test]
fn a_crowd_that_says_nothing_gives_way() {
    let host = host("connections_per_worker = 8\nshed_after = \"200ms\"\nheader_deadline = \"5m\"");
    let mut crowd: Vec<_> = (0..64).map(|_| host.client()).collect();
    for (number, client) in crowd.iter_mut().enumerate() {
        if number % 2 == 0 {
            client.send(b"GET / HTTP/1.1\r\nx-slow: ");
        }
    }
    for _ in 0..3 {
        assert_eq!(host.client().get("/").text(), "hello\n");
    }
    assert!(host.metrics().sum("midge_connections_shed_total", &[]) > 0);
    drop(crowd);
}

#[test]
fn a_source_has_as_many_connections_as_it_may() {
    let host = host("connections_per_source = 2");
    let mut first = host.client();
    let mut second = host.client();
    assert_eq!((first.get("/").status, second.get("/").status), (200, 200));
    let mut third = host.client();
    assert!(third.is_ended(), "one more than it may");
    drop(first);
    host.wait_for_metrics("the first is closed", |metrics| {
        metrics.sum("midge_connections", &[]) == 1
    });
    assert_eq!(host.client().get("/").status, 200);
    assert_eq!(host.metrics().sum("midge_connections_crowded_total", &[]), 1);
}

#[test]
fn heads_beyond_all_measure_are_refused() {
    let host = host("idle = \"30s\"");
    let long = "x".repeat(40_000);
    let mut client = host.client();
    client.send(&Request::get("/").with("x-long", &long).bytes());
    let _id = client.receive().problem(431, "headers-too-large");
    let mut client = host.client();
    client.send(&Request::get(&format!("/{long}")).bytes());
    let _id = client.receive().problem(414, "target-too-long");
    let mut many = Request::get("/");
    for number in 0..500 {
        many = many.with(&format!("x-{number}"), "y");
    }
    let _id = host.client().ask(&many).problem(431, "headers-too-large");
}

#[test]
fn the_host_takes_as_many_descriptors_as_it_may() {
    let host = host("idle = \"30s\"");
    let limits = host.proc("limits");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let mut numbers = line.split_whitespace().skip(3);
    assert_eq!(numbers.next(), numbers.next(), "the soft limit is the hard one: {line}");
}

#[test]
fn an_address_that_is_taken_is_named() {
    let host = host("idle = \"30s\"");
    let taken = host.admin.to_string();
    for arguments in [
        ["--admin", &taken, "--listen", "127.0.0.1:0"],
        ["--listen", &taken, "--admin", "127.0.0.1:0"],
    ] {
        let command = ["run", "hello.wat"].into_iter().chain(arguments);
        let ended = midge_tests::program::midge(host.folder(), &command.collect::<Vec<_>>());
        assert_eq!(ended.code, Some(1), "{}", ended.stderr);
        assert!(ended.stderr.contains(&format!("cannot listen on `{taken}`")), "{}", ended.stderr);
    }
}

#[test]
fn slots_beyond_the_mappings_are_not_kept_and_the_host_says_so() {
    let text = std::fs::read_to_string("/proc/sys/vm/max_map_count").expect("/proc is mounted");
    let mappings: u64 = text.trim().parse().expect("a number");
    // Each function asks for the most slots there can be, and all together for more than there are.
    let functions = mappings / (16_384 * 4) + 1;
    let one = |index: u64| {
        format!(
            "[[function]]\nname = \"f{index}\"\nmodule = \"hello.wat\"\nroute = \"/{index}\"\n\
             concurrency = 16384\nslots = 16384\n"
        )
    };
    let settings: String = (0..functions).map(one).collect();
    let host = Setup::new().file("hello.wat", HELLO).serve(&settings);
    let line = host.wait_for_line(&["idle slots", "sysctl -w vm.max_map_count="]);
    assert!(line.contains(&format!("not {}", 16_384 * functions)), "{line}");
    assert_eq!(host.client().get("/0").status, 200);
}

/// However many functions name a module, it is opened, compiled and mapped once. With a descriptor and six mappings for
/// each, these would need twice the descriptors that a process has by default.
#[test]
fn functions_of_one_module_share_it() {
    let one = |index: u64| {
        format!("[[function]]\nname = \"f{index}\"\nmodule = \"hello.wat\"\nroute = \"/{index}\"\n")
    };
    let settings: String = (0..2000).map(one).collect();
    let host = Setup::new().file("hello.wat", HELLO).serve(&settings);
    let mut client = host.client();
    assert_eq!(client.get("/0").text(), "hello\n");
    assert_eq!(client.get("/1999").text(), "hello\n");
    let metrics = host.metrics();
    assert_eq!((metrics.starts("f0", "T2"), metrics.starts("f1999", "T2")), (1, 1));
    let mappings = host.proc("maps").lines().count();
    assert!(mappings < 1000 && host.descriptor_count() < 200, "{mappings} mappings");
}

/// Starts midge with so many descriptors and epoll, where each connection takes one. Returns where it listens.
fn with_descriptors(count: u32, folder: &std::path::Path) -> (std::process::Child, SocketAddr) {
    let mut command = std::process::Command::new("sh");
    let limited = format!("ulimit -n {count}; exec \"$@\"");
    command.args(["-c", &limited, "sh"]).arg(midge_tests::program::program());
    command.args(["run", "it.wat", "--json", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    command.args(["--workers", "1", "--ring-tier", "d", "--log-level", "error"]);
    midge_tests::program::without_settings(&mut command);
    command.current_dir(folder).stdout(std::process::Stdio::piped());
    let mut child = command.spawn().expect("midge can be run");
    let stdout = child.stdout.take().expect("piped");
    let mut said = serde_json::Deserializer::from_reader(stdout).into_iter::<serde_json::Value>();
    let ready = said.next().expect("midge says where it listens").expect("as JSON");
    let listen = ready["listen"].as_str().expect("an address");
    (child, listen.parse().expect("an address"))
}

#[test]
fn a_storm_at_the_limit_of_descriptors_passes() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("it.wat"), HELLO).unwrap();
    let (mut child, address) = with_descriptors(64, folder.path());
    // More than there are descriptors: the first are answered, the others wait in the kernel's queue.
    let mut clients: Vec<_> =
        (0..120).map(|_| midge_tests::http::Client::connect(address)).collect();
    for client in &mut clients[..20] {
        assert_eq!(client.get("/").text(), "hello\n");
    }
    // With each that goes one of those that wait is served, by the host's own doing.
    while clients.len() > 20 {
        clients.drain(..20);
        for client in &mut clients[..20] {
            assert_eq!(client.get("/").text(), "hello\n");
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
}
