//! Every technique serves, and all but `reuse` keep requests apart.

use midge_tests::guests::{HARM, example};
use midge_tests::host::Setup;

const TECHNIQUES: [&str; 8] =
    ["jit", "aot", "mmap", "cow", "pool", "pool-scan", "restore", "reuse"];

/// Says why this machine has no such technique; the program says the same.
fn is_refused(technique: &str) -> bool {
    let setup = Setup::new().file("hello.wasm", example("hello"));
    let shown = midge_tests::program::midge(setup.folder(), &["inspect", "hello.wasm", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&shown.stdout).unwrap();
    let rows = report["techniques"].as_array().unwrap();
    let row = rows.iter().find(|row| row["technique"] == technique).unwrap();
    let is_refused = row["is_allowed"] == false;
    if is_refused {
        println!("skipped {technique}: {}", row["reason"]);
    }
    is_refused
}

#[test]
fn each_technique_serves_and_isolates() {
    for technique in TECHNIQUES {
        if is_refused(technique) {
            assert_eq!(technique, "pool-scan", "the others work on every machine");
            continue;
        }
        let settings = ["hello", "counter"].map(|name| {
            format!(
                "[[function]]\nname = \"{name}\"\nmodule = \"{name}.wasm\"\nroute = \"/{name}\"\n\
                 technique = \"{technique}\"\ndeadline = \"10s\"\n"
            )
        });
        let setup = Setup::new().file("hello.wasm", example("hello"));
        let setup = setup.file("counter.wasm", example("counter"));
        let host = setup.serve(&settings.concat());
        assert_eq!(host.ready["functions"][0]["technique"], technique);
        let mut client = host.client();
        for round in 1..=8 {
            assert_eq!(client.get("/hello?name=Ada").text(), "Hello, Ada!\n", "{technique}");
            let count = if technique == "reuse" { round } else { 1 };
            assert_eq!(client.get("/counter").text(), format!("{count}\n"), "{technique}");
        }
    }
}

#[test]
fn each_technique_survives_traps_and_deadlines() {
    for technique in TECHNIQUES {
        if is_refused(technique) {
            continue;
        }
        let setup = Setup::new().file("harm.wat", HARM);
        let host = setup.argument("--technique").argument(technique).run("harm.wat");
        let mut client = host.client();
        for _ in 0..2 {
            let fresh = client.get("/?a");
            assert_eq!(fresh.status, 200, "{technique}");
            for letter in ["c", "d", "e"] {
                let _id = client.get(&format!("/?{letter}")).problem(502, "trapped");
            }
            let _id = client.get("/?b").problem(504, "deadline-exceeded");
            assert_eq!(client.get("/?a").body, fresh.body, "{technique}: nothing is left");
        }
    }
}
