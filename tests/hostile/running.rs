//! Guests that run for ever, recurse, grow, trap and flood: bounded, and the next request is pristine.

use midge_tests::guests::{EDGE, HARM, HELLO};
use midge_tests::host::{Host, Setup};
use midge_tests::http::Request;

fn host(more: &str) -> Host {
    let settings = format!(
        "[[function]]\nname = \"hello\"\nmodule = \"hello.wat\"\nroute = \"/hello\"\n\
         [[function]]\nname = \"harm\"\nmodule = \"harm.wat\"\nroute = \"/harm\"\n{more}"
    );
    Setup::new().file("hello.wat", HELLO).file("harm.wat", HARM).serve(&settings)
}

/// The answer of the guest that did nothing: what it finds of its own state.
fn state(host: &Host) -> Vec<u8> {
    let response = host.client().get("/harm?a");
    assert_eq!(response.status, 200);
    response.body
}

/// Gets answers from another function as long as the endless loop is running.
fn answers_beside_the_loop(host: &Host) {
    host.wait_for_metrics("the loop is running", |metrics| {
        metrics.sum("midge_queue_depth", &[]) == 1
    });
    // One worker: each of these answers comes between two slices of the loop.
    let mut client = host.client();
    let mut answers = 0;
    while host.metrics().sum("midge_queue_depth", &[]) == 1 {
        assert_eq!(client.get("/hello").text(), "hello\n");
        answers += 1;
    }
    assert!(10 <= answers, "{answers} answers while the loop was running");
}

#[test]
fn an_endless_loop_is_stopped_and_holds_up_nobody() {
    let host = host("deadline = \"1s\"\n");
    let pristine = state(&host);
    let mut stuck = host.client();
    stuck.send_get("/harm?b");
    answers_beside_the_loop(&host);
    let id = stuck.receive().problem(504, "deadline-exceeded");
    let _line = host.wait_for_line(&["error harm: stopped after its deadline of 1s", &id]);
    assert_eq!(state(&host), pristine);
}

/// The same, bounded by instructions: it gives way, and ends with them.
#[test]
fn an_endless_loop_ends_with_its_fuel() {
    let host = host("metering = \"fuel\"\nfuel = 300000000\n");
    let pristine = state(&host);
    let fuel = |host: &Host| host.metrics().sum("midge_function_fuel_total", &[]);
    let before = fuel(&host);
    assert!(before > 0, "what it did was counted");
    assert_eq!(state(&host), pristine);
    assert_eq!(fuel(&host), 2 * before, "the same instructions each time");
    let mut stuck = host.client();
    stuck.send_get("/harm?b");
    answers_beside_the_loop(&host);
    let id = stuck.receive().problem(504, "deadline-exceeded");
    let _line = host.wait_for_line(&["stopped after the instructions that `fuel` allows", &id]);
    assert_eq!(state(&host), pristine);
    assert!(fuel(&host) > 300_000_000);
}

#[test]
fn many_endless_loops_share_the_worker_with_others() {
    let host = host("deadline = \"1s\"\nconcurrency = 16\n");
    let mut stuck: Vec<_> = (0..16).map(|_| host.client()).collect();
    for client in &mut stuck {
        client.send_get("/harm?b");
    }
    let mut client = host.client();
    for _ in 0..10 {
        assert_eq!(client.get("/hello").status, 200);
    }
    for client in &mut stuck {
        let _id = client.receive().problem(504, "deadline-exceeded");
    }
    assert_eq!(client.get("/harm?a").status, 200);
}

#[test]
fn deep_recursion_is_a_trap() {
    let host = host("");
    let pristine = state(&host);
    for _ in 0..3 {
        let id = host.client().get("/harm?e").problem(502, "trapped");
        let line = host.wait_for_line(&["trap harm:", &id]);
        assert!(line.contains("call stack exhausted"), "{line}");
        assert_eq!(state(&host), pristine);
    }
}

#[test]
fn a_call_of_the_host_at_the_edge_of_the_stack_is_served_or_a_trap() {
    let host = Setup::new().file("edge.wat", EDGE).function("edge.wat");
    let mut client = host.client();
    let mut status = |depth: u32, act: u32| {
        let body = [depth.to_le_bytes(), act.to_le_bytes()].concat();
        client.post("/", &body).status
    };
    // The deepest that still returns, doing nothing there.
    let (mut fits, mut traps) = (0, 1 << 20);
    while fits + 1 < traps {
        let middle = u32::midpoint(fits, traps);
        match status(middle, 0) {
            200 => fits = middle,
            502 => traps = middle,
            other => panic!("{other} at depth {middle}"),
        }
    }
    assert!(1_000 < fits, "the stack is worth its name: {fits} frames");
    for act in 1..=5 {
        let mut served = 0;
        for depth in fits - 150..=fits + 1 {
            let status = status(depth, act);
            assert!(matches!(status, 200 | 502), "{status}: act {act} at depth {depth}");
            served += u32::from(status == 200);
        }
        assert!((1..=151).contains(&served), "act {act}: the edge was crossed, {served} served");
        assert_eq!(status(0, act), 200, "the next call has its whole stack");
    }
    let _last = host.wait_for_line(&["warn edge: ok"]);
}

#[test]
fn loops_in_many_functions_hold_up_nobody() {
    const FUNCTIONS: usize = 8;
    const LOOPS: usize = 8;
    let loops = (0..FUNCTIONS).map(|number| {
        format!(
            "[[function]]\nname = \"loop{number}\"\nmodule = \"harm.wat\"\nroute = \"/{number}\"\n\
             deadline = \"2s\"\nconcurrency = {LOOPS}\n"
        )
    });
    let settings = "[[function]]\nname = \"hello\"\nmodule = \"hello.wat\"\nroute = \"/hello\"\n"
        .to_owned()
        + &loops.collect::<String>();
    let host = Setup::new().file("hello.wat", HELLO).file("harm.wat", HARM).serve(&settings);
    let mut stuck = Vec::new();
    for number in 0..FUNCTIONS * LOOPS {
        let mut client = host.client();
        client.send_get(&format!("/{}?b", number % FUNCTIONS));
        stuck.push(client);
    }
    let all = u64::try_from(FUNCTIONS * LOOPS).unwrap();
    host.wait_for_metrics("all loops are running", |metrics| {
        metrics.sum("midge_queue_depth", &[]) == all
    });
    // An answer costs one slice of one loop: were it one of each loop, there would be 31 in 2 s.
    let mut client = host.client();
    let mut answers = 0;
    while host.metrics().sum("midge_queue_depth", &[]) == all {
        for _ in 0..10 {
            assert_eq!(client.get("/hello").text(), "hello\n");
            answers += 1;
        }
    }
    assert!(60 <= answers, "{answers} answers while {all} loops were running");
    for client in &mut stuck {
        let _id = client.receive().problem(504, "deadline-exceeded");
    }
    host.wait_for_metrics("no call is left", |metrics| metrics.sum("midge_queue_depth", &[]) == 0);
    assert_eq!(client.get("/0?a").status, 200);
}

#[test]
fn memory_is_bounded_and_given_back() {
    let host = host("memory = \"32 MiB\"\ndeadline = \"20s\"\n");
    let pristine = state(&host);
    let mut client = host.client();
    let grown = client.get("/harm?f");
    let pages = u32::from_le_bytes(*grown.body[12..].first_chunk().unwrap());
    assert_eq!(pages, 512, "32 MiB and not a page more");
    assert_eq!(state(&host), pristine);
    let before = host.resident_kib();
    for _ in 0..10 {
        assert_eq!(client.get("/harm?f").body, grown.body);
        assert_eq!(state(&host), pristine);
    }
    let after = host.resident_kib();
    assert!(after < before + 40 * 1024, "from {before} to {after} KiB");
}

#[test]
fn a_guest_that_overwrites_everything_leaves_nothing() {
    let host = host("");
    let pristine = state(&host);
    assert_eq!(pristine[8..12], 7i32.to_le_bytes(), "the global of the template");
    let mut client = host.client();
    for _ in 0..20 {
        assert_eq!(client.get("/harm?h").status, 201);
        assert_eq!(client.get("/harm?a").body, pristine);
    }
}

#[test]
fn twenty_thousand_traps_cost_no_memory_and_no_slot() {
    const TRAPS: usize = 20_000;
    const BATCH: usize = 100;
    let host = host("concurrency = 2\nslots = 2\n");
    let pristine = state(&host);
    let mut client = host.client();
    let batch = Request::get("/harm?c").bytes().repeat(BATCH);
    let mut trap = |count: usize| {
        for _ in 0..count / BATCH {
            client.send(&batch);
            for _ in 0..BATCH {
                assert_eq!(client.receive().status, 502);
            }
        }
    };
    trap(2_000);
    let before = host.resident_kib();
    trap(TRAPS - 2_000);
    let after = host.resident_kib();
    assert!(after < before + 16 * 1024, "from {before} to {after} KiB");

    let metrics = host.metrics();
    let trapped = metrics.sum("midge_function_refused_total", &["function=\"harm\"", "trapped"]);
    assert_eq!(trapped, u64::try_from(TRAPS).unwrap());
    assert_eq!(metrics.starts("harm", "T2"), 1, "one slot served them all");
    assert_eq!(metrics.sum("midge_function_discards_total", &[]), 0);
    assert_eq!(state(&host), pristine);
}

#[test]
fn a_flood_of_lines_is_cut() {
    let host = host("deadline = \"20s\"\n");
    for _ in 0..3 {
        assert_eq!(host.client().get("/harm?g").status, 200);
    }
    assert_eq!(host.client().get("/harm?i").status, 200);
    let _last = host.wait_for_line(&["one line of a guest"]);
    let log = host.log();
    let lines = log.lines().filter(|line| line.contains("state of the template")).count();
    assert_eq!(lines, 3 * 32, "32 lines for each request");
    // The host escapes what steers a terminal: a byte of the guest may become several.
    assert!(log.lines().all(|line| line.len() < 16 * 1024), "lines are cut");
    assert!(host.resident_kib() < 512 * 1024);
}
