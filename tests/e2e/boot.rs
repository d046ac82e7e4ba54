//! midge as the first process of a machine: started, served by, told to end; its server killed, its settings wrong.
//!
//! In namespaces, natively. Where an emulator is to boot a kernel, `tests/image.rs` does.

use std::process::Command;
use std::thread;

use midge_tests::guests::{HELLO, example};
use midge_tests::http::Request;
use midge_tests::machine::{Machine, MachineEnd};
use midge_tests::wait::{PATIENCE, wait_for};
use rustix::process::{Signal, kill_process};

const PORT: u16 = 8080;
const SETTINGS: &str = "\
listen = \"0.0.0.0:8080\"
workers = 1

[[function]]
name = \"hello\"
module = \"hello.wat\"
route = \"/*\"
deadline = \"10s\"
";
/// What the server has said once it serves.
const SERVING: &str = "serving, ";

fn machine(settings: &str) -> Option<Machine> {
    let files: [(&str, &[u8]); 2] =
        [("etc/midge/midge.toml", settings.as_bytes()), ("etc/midge/hello.wat", HELLO.as_bytes())];
    Machine::start("midge.ip=none", &files)
}

#[test]
fn a_machine_serves_and_switches_itself_off() {
    let Some(mut machine) = machine(SETTINGS) else { return };
    machine.wait_for_text(SERVING, 1);
    assert_eq!(machine.client(PORT).get("/").text(), "hello\n");
    machine.signal(Signal::TERM);
    assert_eq!(machine.wait_for_end(), MachineEnd::Off);
    let console = machine.console();
    for said in [
        "told to switch off",
        "draining for at most",
        "the server has ended: exit status 0",
        " off\n",
    ] {
        assert!(console.contains(said), "`{said}`");
    }
}

#[test]
fn control_alt_delete_starts_it_anew() {
    let Some(mut machine) = machine(SETTINGS) else { return };
    machine.wait_for_text(SERVING, 1);
    machine.signal(Signal::INT);
    assert_eq!(machine.wait_for_end(), MachineEnd::Restart);
}

#[test]
fn a_server_that_is_killed_is_started_again_and_that_is_said() {
    let Some(mut machine) = machine(SETTINGS) else { return };
    machine.wait_for_text(SERVING, 1);
    for round in 1..=2 {
        let (server, _) = machine.servers().pop().expect("it serves");
        kill_process(server, Signal::KILL).expect("it lives");
        machine.wait_for_text("signal 9; starting it again in", round);
        machine.wait_for_text(SERVING, 1 + round);
        assert_eq!(machine.client(PORT).get("/").status, 200);
    }
    machine.signal(Signal::TERM);
    assert_eq!(machine.wait_for_end(), MachineEnd::Off);
}

#[test]
fn settings_with_faults_are_shown_and_the_machine_stays_up() {
    let Some(mut machine) = machine(&SETTINGS.replace("deadline", "deadlin")) else { return };
    // The first process shows them once, however often the server is tried.
    machine.wait_for_text("exit status 1; starting it again in", 2);
    let console = machine.console();
    assert_eq!(console.matches("write: deadline").count(), 1, "the remedy");
    assert!(console.contains("/etc/midge/midge.toml:8:1"), "the place");
    machine.signal(Signal::TERM);
    assert_eq!(machine.wait_for_end(), MachineEnd::Off);
}

#[test]
fn settings_are_read_again_on_a_hangup() {
    let Some(machine) = machine(SETTINGS) else { return };
    machine.wait_for_text(SERVING, 1);
    machine.signal(Signal::HUP);
    machine.wait_for_text("SIGHUP: serving the settings as they are now", 1);
    assert_eq!(machine.client(PORT).get("/").status, 200);
}

#[test]
fn who_serves_is_nobody_and_cannot_become_more() {
    let Some(machine) = machine(SETTINGS) else { return };
    machine.wait_for_text(SERVING, 1);
    let (server, line) = machine.servers().pop().expect("it serves");
    assert_eq!(line, "midge serve /etc/midge/midge.toml ");
    let status = std::fs::read_to_string(format!("/proc/{server}/status")).expect("it lives");
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    assert!(status.contains("Uid:\t65534\t65534\t65534\t65534"), "{status}");
    assert!(status.contains("CapEff:\t0000000000000000"), "{status}");
}

#[test]
fn orphans_are_reaped() {
    let Some(machine) = machine(SETTINGS) else { return };
    machine.wait_for_text(SERVING, 1);
    let mut command = Command::new("nsenter");
    command.args([
        "--target",
        &machine.first().to_string(),
        "--pid",
        "sh",
        "-c",
        "(true & true) &",
    ]);
    assert!(command.status().expect("nsenter is part of util-linux").success());
    wait_for("nobody but the server is left", || machine.servers().len() == 1);
}

#[test]
fn a_server_of_logs_is_told_what_is_said() {
    let words = "midge.ip=none midge.log=udp://127.0.0.1:5514";
    let files =
        [("etc/midge/midge.toml", SETTINGS.as_bytes()), ("etc/midge/hello.wat", HELLO.as_bytes())];
    let Some(mut machine) = Machine::start(words, &files) else { return };
    machine.wait_for_text(SERVING, 1);
    let server = machine.udp(5514);
    server.set_read_timeout(Some(PATIENCE)).expect("a time that is not nought");
    let told = |text: &str| {
        let mut bytes = [0; 4096];
        loop {
            let size = server.recv(&mut bytes).unwrap_or_else(|_| panic!("`{text}` is told"));
            let message = String::from_utf8(bytes[..size].to_vec()).expect("text");
            if message.contains(text) {
                return message;
            }
        }
    };
    // What process 1 says, and what the server says, which is on the console as well.
    let (pid, _) = machine.servers()[0];
    kill_process(pid, Signal::KILL).expect("it lives");
    let ended = told("signal 9; starting it again");
    assert!(
        ended.starts_with("<30>1 20") && ended.contains("Z - midge 1 - - the server"),
        "{ended}"
    );
    let serving = told("serving on http://");
    assert!(!serving.contains(" midge 1 "), "{serving}");
    machine.wait_for_text("INFO serving on http://", 2);
    machine.signal(Signal::TERM);
    told("off");
    assert_eq!(machine.wait_for_end(), MachineEnd::Off);
}

#[test]
fn names_are_asked_of_the_servers_that_the_boot_names() {
    let settings = format!(
        "{SETTINGS}\n[[function]]\nname = \"forward\"\nmodule = \"forward.wasm\"\nroute = \"/forward/*\"\n\
         deadline = \"10s\"\ngrant = {{ http = [\"http://server.test:{PORT}\"], networks = [\"127.0.0.0/8\"] }}\n"
    );
    let (hello, forward) = (HELLO.as_bytes(), example("forward"));
    let files: [(&str, &[u8]); 3] = [
        ("etc/midge/midge.toml", settings.as_bytes()),
        ("etc/midge/hello.wat", hello),
        ("etc/midge/forward.wasm", &forward),
    ];
    let Some(machine) = Machine::start("midge.ip=none midge.dns=127.0.0.1", &files) else { return };
    machine.wait_for_text(SERVING, 1);
    let names = machine.udp(53);
    thread::spawn(move || {
        let mut question = [0; 512];
        while let Ok((size, asker)) = names.recv_from(&mut question) {
            let answer = answer(&question[..size]);
            // The asker may have what it wants by another answer.
            drop(names.send_to(&answer, asker));
        }
    });
    let request = Request::get("/forward/").with("x-origin", &format!("http://server.test:{PORT}"));
    let response = machine.client(PORT).ask(&request);
    assert_eq!((response.status, response.text()), (200, "hello\n"));
}

/// Answers a question for an address of IPv4 with this machine's, others with nothing (RFC 1035, 4.1).
fn answer(question: &[u8]) -> Vec<u8> {
    let name_end = 12 + question[12..].iter().position(|&byte| byte == 0).expect("names end");
    let end = name_end + 5;
    let is_ipv4 = question[name_end + 1..name_end + 3] == [0, 1];
    let mut answer = question[..end].to_vec();
    answer[2..4].copy_from_slice(&[0x81, 0x80]);
    answer[4..12].copy_from_slice(&[0, 1, 0, u8::from(is_ipv4), 0, 0, 0, 0]);
    if is_ipv4 {
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
    }
    answer
}
