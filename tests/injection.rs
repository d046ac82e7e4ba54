//! System calls that fail: each failure answers, is told, and is over when the calls work again.
//!
//! Goal: a request gets its answer or a refusal that says why, never another one's state; a build leaves the
//! old artifact or the new one. Method: a library loaded before the C library makes calls fail by schedule
//! (`preload/faults.c`).

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use midge_tests::guests::{HELLO, STATEFUL};
use midge_tests::host::{Host, Setup};
use midge_tests::program::{Ended, command, midge, workspace};

const ENOMEM: i32 = 12;
const ENOSPC: i32 = 28;
const EBUSY: i32 = 16;
/// Requests while calls fail, and once more when they work again.
const REQUESTS: u64 = 400;

/// Which calls fail.
struct Schedule {
    call: &'static str,
    errno: i32,
    first: u64,
    every: u64,
    count: u64,
    switch: Option<PathBuf>,
}

impl Schedule {
    fn environment(&self) -> Vec<(&'static str, OsString)> {
        let number = |number: u64| number.to_string().into();
        let mut variables = vec![
            ("LD_PRELOAD", preload().as_os_str().to_owned()),
            ("MIDGE_FAULT_CALL", self.call.into()),
            ("MIDGE_FAULT_ERRNO", self.errno.to_string().into()),
            ("MIDGE_FAULT_FIRST", number(self.first)),
            ("MIDGE_FAULT_EVERY", number(self.every)),
            ("MIDGE_FAULT_COUNT", number(self.count)),
        ];
        if let Some(switch) = &self.switch {
            variables.push(("MIDGE_FAULT_SWITCH", switch.into()));
            variables.push(("MIDGE_FAULT_THREAD", "midge-worker".into()));
        }
        variables
    }
}

/// Compiles the library, once for this process.
fn preload() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let name = format!("faults-{}.so", std::process::id());
        let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let source = workspace().join("tests/preload/faults.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o"]);
        let status = compiler.arg(&library).arg(source).arg("-ldl").status();
        assert!(status.expect("there is a C compiler").success());
        library
    })
}

/// What a host answered to [`REQUESTS`] requests.
#[derive(Debug, Default)]
struct Answers {
    served: u64,
    refused: u64,
}

fn ask(host: &Host) -> Answers {
    let mut client = host.client();
    let mut answers = Answers::default();
    for request in 0..REQUESTS {
        let response = client.get("/");
        if response.status == 200 {
            assert_eq!(response.text(), "1", "request {request} found another one's state");
            answers.served += 1;
        } else {
            let _instance = response.problem(503, "start-failed");
            answers.refused += 1;
        }
    }
    answers
}

/// A host whose worker's calls fail, under requests; and how often the failures reached a request.
fn serve(call: &'static str, errno: i32, every: u64) -> Answers {
    let setup = Setup::new().file("stateful.wat", STATEFUL);
    let switch = setup.folder().join("calls-fail");
    let schedule = Schedule {
        call,
        errno,
        first: 1,
        every,
        count: u64::MAX >> 1,
        switch: Some(switch.clone()),
    };
    let host = setup.environment(schedule.environment()).function("stateful.wat");
    std::fs::write(&switch, "").expect("the folder takes files");
    let answers = ask(&host);
    std::fs::remove_file(&switch).expect("it is there");
    let healthy = ask(&host);
    assert_eq!((healthy.served, healthy.refused), (REQUESTS, 0), "{call}: it is over: {answers:?}");
    answers
}

#[test]
fn mappings_that_fail_refuse_a_request_and_leak_nothing() {
    for every in [1, 2, 3, 5] {
        let answers = serve("mmap", ENOMEM, every);
        assert!(0 < answers.refused || 1 < every, "{answers:?}");
    }
}

#[test]
fn protections_that_fail_refuse_a_request_and_leak_nothing() {
    for every in [1, 2, 3, 5] {
        serve("mprotect", ENOMEM, every);
    }
}

#[test]
fn a_kernel_that_cannot_tell_written_pages_costs_nothing_but_time() {
    let answers = serve("ioctl", libc::ENOTTY, 1);
    assert_eq!((answers.served, answers.refused), (REQUESTS, 0));
}

#[test]
fn a_ring_that_is_busy_or_interrupted_serves_on() {
    for errno in [EBUSY, libc::EAGAIN, libc::EINTR] {
        let answers = serve("io_uring_enter", errno, 2);
        assert_eq!((answers.served, answers.refused), (REQUESTS, 0));
    }
}

#[test]
fn a_machine_without_rings_is_served_by_epoll_and_told_so() {
    for (errno, reason) in [(libc::EPERM, "io_uring is forbidden"), (libc::ENOSYS, "no io_uring")] {
        let schedule = Schedule {
            call: "io_uring_setup",
            errno,
            first: 1,
            every: 1,
            count: u64::MAX >> 1,
            switch: None,
        };
        let setup = Setup::new().file("stateful.wat", STATEFUL);
        let host = setup.environment(schedule.environment()).function("stateful.wat");
        assert_eq!(host.ready["ring_tier"], "d");
        let answers = ask(&host);
        assert_eq!((answers.served, answers.refused), (REQUESTS, 0));
        let log = host.log();
        assert_eq!(log.matches("served by epoll").count(), 1, "{log}");
        assert!(log.contains(reason), "{log}");

        // Who asks for a ring by name gets none instead of something else.
        let mut command = command(["run", "stateful.wat", "--ring-tier", "a"]);
        command.current_dir(host.folder()).envs(schedule.environment());
        let ended = Ended::from(command.output().expect("midge can be run"));
        assert_eq!(ended.code, Some(1), "{}", ended.stderr);
        assert!(ended.stderr.contains("tier a"), "{}", ended.stderr);
        assert!(ended.stderr.contains(reason), "{}", ended.stderr);
    }
}

#[test]
fn a_build_whose_nth_call_fails_leaves_the_old_artifact_or_the_new_one() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("hello.wat"), HELLO).expect("the folder takes files");
    std::fs::write(folder.path().join("old.wat"), STATEFUL).expect("the folder takes files");
    let out = folder.path().join("out.midge");
    let built = |module: &str| {
        let ended = midge(folder.path(), &["build", module, "-o", "out.midge"]);
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        std::fs::read(&out).expect("an artifact was built")
    };
    let (new, old) = (built("hello.wat"), built("old.wat"));
    for (call, errno) in [
        ("write", ENOSPC),
        ("fsync", libc::EIO),
        ("rename", libc::EACCES),
        ("memfd_create", ENOMEM),
    ] {
        let mut failures = 0;
        for nth in 1.. {
            std::fs::write(&out, &old).expect("the folder takes files");
            let schedule = Schedule { call, errno, first: nth, every: 1, count: 1, switch: None };
            let mut command = command(["build", "hello.wat", "-o", "out.midge"]);
            command.current_dir(folder.path()).envs(schedule.environment());
            let ended = Ended::from(command.output().expect("midge can be run"));
            let found = std::fs::read(&out).expect("it is there");
            match ended.code {
                Some(0) => assert!(found == new, "{call} {nth}: success, and not the new one"),
                Some(1) => {
                    assert!(found == old || found == new, "{call} {nth}: a part of one");
                    assert!(ended.stderr.starts_with("midge: "), "{}", ended.stderr);
                    failures += 1;
                }
                other => panic!("{call} {nth}: {other:?}, {}", ended.stderr),
            }
            if ended.code == Some(0) {
                break;
            }
        }
        assert!(0 < failures || call == "memfd_create", "{call} is called by a build");
    }
    let names = std::fs::read_dir(folder.path()).expect("a folder can be listed");
    assert_eq!(names.count(), 3, "no temporary file is left");
}
