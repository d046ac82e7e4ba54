//! Goal: instances are started until something stops them, and what did is named.
//! Method: the lab's own command, with a bound that is reached at once, and one that is none.

use std::process::Command;
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

/// One lab at a time: two share the pages of their program, so one's start makes the other's part smaller.
static ALONE: Mutex<()> = Mutex::new(());

fn density(arguments: &[&str]) -> Value {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut command = Command::new(env!("CARGO_BIN_EXE_midge-lab"));
    command.args(["density", "--json", "--pages", "3"]).args(arguments);
    let output = command.output().expect("the lab runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    serde_json::from_slice(&output.stdout).expect("one object")
}

#[test]
fn as_many_are_started_as_there_may_be() {
    let report = density(&["--most", "40", "--techniques", "cow,restore"]);
    let rows = report["rows"].as_array().expect("rows");
    // The engine's own memories have guard pages alone.
    assert_eq!(rows.len(), 3, "{report:#}");
    assert_eq!(report["left_out"].as_array().map(Vec::len), Some(1), "{report:#}");
    for row in rows {
        assert_eq!(row["instances"]["median"], 40.0, "{row}");
        let kib = row["kib_each"]["median"].as_f64().expect("a figure");
        assert!((8.0..200.0).contains(&kib), "three pages and what the host keeps: {row}");
        assert!(row["limit"]["what"].as_str().expect("a text").contains("--most"), "{row}");
    }
}

#[test]
fn the_machines_memory_is_left_to_others() {
    let report = density(&["--leave", "100000000", "--techniques", "restore"]);
    for row in report["rows"].as_array().expect("rows") {
        let what = row["limit"]["what"].as_str().expect("a text");
        assert!(what.contains("memory: less than 100000000 MiB"), "{row}");
    }
}
