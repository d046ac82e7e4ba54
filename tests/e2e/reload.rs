//! SIGHUP: the settings are read again while requests go on.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use midge_tests::guests::{HARM, HELLO};
use midge_tests::host::{Host, Setup};
use midge_tests::wait::wait_for;
use rustix::process::Signal;

fn settings(route: &str) -> String {
    format!(
        "[[function]]\nname = \"hello\"\nmodule = \"hello.wat\"\nroutes = [\"/hello\", \"{route}\"]\n"
    )
}

#[test]
fn a_reload_under_load_loses_no_request() {
    let host = Setup::new().file("hello.wat", HELLO).serve(&settings("/old"));
    let (is_over, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| load(&host, &is_over, &answered));
        }
        let goes_on = || {
            let seen = answered.load(Ordering::Relaxed);
            wait_for("requests go on", || seen + 50 < answered.load(Ordering::Relaxed));
        };
        let mut client = host.client();
        for round in 0..5 {
            goes_on();
            host.write_settings(&settings(&format!("/new{round}")));
            host.signal(Signal::HUP);
            wait_for("the new route is served", || {
                client.get(&format!("/new{round}")).status == 200
            });
        }
        goes_on();
        is_over.store(true, Ordering::Relaxed);
        let _id = client.get("/old").problem(404, "not-found");
    });
}

/// Asks until it is over; every answer must be the right one.
fn load(host: &Host, is_over: &AtomicBool, answered: &AtomicU64) {
    let mut client = host.client();
    while !is_over.load(Ordering::Relaxed) {
        assert_eq!(client.get("/hello").text(), "hello\n");
        answered.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn settings_with_faults_change_nothing() {
    let host = Setup::new()
        .file("hello.wat", HELLO)
        .file("broken.wat", "(module")
        .serve(&settings("/old"));
    for (bad, reason) in [
        (settings("/new").replace("module", "modul"), "the settings have"),
        (settings("/new").replace("hello.wat", "missing.wat"), "the settings have 1 fault"),
        (settings("/new").replace("hello.wat", "broken.wat"), "cannot build `broken.wat`"),
        ("this is no toml".to_owned(), "fault"),
    ] {
        host.write_settings(&bad);
        host.signal(Signal::HUP);
        let _line = host.wait_for_line(&["SIGHUP: everything stays as it was", reason]);
        let mut client = host.client();
        assert_eq!(client.get("/old").status, 200);
        assert_eq!(client.get("/new").status, 404);
    }
    host.write_settings(&settings("/new"));
    host.signal(Signal::HUP);
    wait_for("the mended settings are served", || host.client().get("/new").status == 200);
}

#[test]
fn a_call_under_way_is_finished_by_what_it_began_with() {
    let slow = "[[function]]\nname = \"harm\"\nmodule = \"harm.wat\"\nroute = \"/harm\"\n";
    let first = format!("{}{slow}deadline = \"2s\"\n", settings("/old"));
    let host = Setup::new().file("hello.wat", HELLO).file("harm.wat", HARM).serve(&first);
    let mut slow_client = host.client();
    slow_client.send_get("/harm?b");
    host.wait_for_metrics("the call is under way", |metrics| {
        metrics.sum("midge_queue_depth", &[]) == 1
    });
    host.write_settings(&settings("/new"));
    host.signal(Signal::HUP);
    wait_for("the new route is served", || host.client().get("/new").status == 200);
    let _id = host.client().get("/harm?a").problem(404, "not-found");
    let _id = slow_client.receive().problem(504, "deadline-exceeded");
    assert_eq!(slow_client.get("/new").status, 200, "its connection stays");
}
