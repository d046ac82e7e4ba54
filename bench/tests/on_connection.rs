//! Goal: a program that talks on its input and output is met by a connection, and ends with the process that was started.
//! Method: the lab's own command, with the shell in place of a virtual machine.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended already.
        let _gone = self.0.kill();
        let _gone = self.0.wait();
    }
}

fn start(script: &str) -> (Ended, std::net::SocketAddr) {
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = free.local_addr().expect("an address");
    drop(free);
    let mut command = Command::new(env!("CARGO_BIN_EXE_midge-lab"));
    command.arg("on-connection").arg(address.to_string()).args(["sh", "-c", script]);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    (Ended(command.spawn().expect("the lab runs")), address)
}

fn connect(address: std::net::SocketAddr) -> TcpStream {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        match TcpStream::connect(address) {
            Ok(stream) => return stream,
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

#[test]
fn a_connection_is_the_programs_input_and_output() {
    let (_ended, address) = start("printf !; exec cat");
    let mut stream = connect(address);
    stream.write_all(b"what is sent comes back").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert_eq!(text, "!what is sent comes back");
}

#[test]
fn whoever_ends_the_process_ends_the_program() {
    let (ended, address) = start("printf !; exec sleep 1000");
    let mut stream = connect(address);
    let mut greeting = [0; 1];
    stream.read_exact(&mut greeting).unwrap();
    drop(ended);
    // The program had the connection's only other end.
    assert_eq!(stream.read(&mut greeting).unwrap(), 0);
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = free.local_addr().expect("an address");
    drop(free);
    let mut command = Command::new(env!("CARGO_BIN_EXE_midge-lab"));
    command.arg("on-connection").arg(address.to_string()).arg("no-such-program");
    let child = command.stderr(Stdio::piped()).spawn().expect("the lab runs");
    let _stream = connect(address);
    let output = child.wait_with_output().expect("it ends");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("cannot start no-such-program"), "{text}");
}
