//! Every technique serves, and all but `reuse` keep requests apart.

use midge_tests::guests::{HARM, example};
use midge_tests::host::Setup;

const TECHNIQUES: [&str; 8] =
    ["jit", "aot", "mmap", "cow", "pool", "pool-scan", "restore", "reuse"];

/// Says why this machine has no such technique; the program says the same.
fn is_refused(technique: &str) -> bool {
    let setup = Setup::new().file("hello.wasm", example("hello"));
    let shown = midge_tests::program::midge(setup.folder(), &["inspect", "hello.wasm", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&shown.stdout).expect("JSON");
    let rows = report["techniques"].as_array().expect("a list");
    let row =
        rows.iter().find(|row| row["technique"] == technique).expect("each technique has a row");
    let is_refused = row["is_allowed"] == false;
    if is_refused {
        midge_tests::skip(&format!("skipped {technique}: {}", row["reason"]));
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
        let settings = [("harm", "10s"), ("short", "200ms")].map(|(name, deadline)| {
            format!(
                "[[function]]\nname = \"{name}\"\nmodule = \"harm.wat\"\nroute = \"/{name}\"\n\
                 technique = \"{technique}\"\ndeadline = \"{deadline}\"\n"
            )
        });
        let host = Setup::new().file("harm.wat", HARM).serve(&settings.concat());
        let mut client = host.client();
        let fresh = client.get("/harm?a");
        for _ in 0..2 {
            for letter in ["c", "d", "e"] {
                let _id = client.get(&format!("/harm?{letter}")).problem(502, "trapped");
            }
            let _id = client.get("/short?b").problem(504, "deadline-exceeded");
            assert_eq!(client.get("/harm?a").body, fresh.body, "{technique}: nothing is left");
        }
    }
}

#[test]
fn run_serves_with_each_technique_on_every_path() {
    for technique in TECHNIQUES {
        if is_refused(technique) {
            continue;
        }
        let setup = Setup::new().file("hello.wasm", example("hello"));
        let host = setup.argument("--technique").argument(technique).run("hello.wasm");
        assert_eq!(host.ready["schema"], "midge/serve/1");
        assert_eq!(host.ready["functions"][0]["technique"], technique);
        let mut client = host.client();
        assert_eq!(client.get("/?name=Ada").text(), "Hello, Ada!\n", "{technique}");
        assert_eq!(client.get("/a/b?name=Ada").text(), "Hello, Ada!\n", "{technique}");
    }
}

#[test]
fn a_function_is_isolated_as_its_settings_demand() {
    let setup = Setup::new().file("counter.wasm", example("counter"));
    let build = |arguments: &[&str]| {
        let ended = midge_tests::program::midge(setup.folder(), arguments);
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    };
    build(&["build", "counter.wasm", "-o", "guarded.midge"]);
    build(&["build", "counter.wasm", "-o", "checked.midge", "--isolation", "bounds-checked"]);
    let function = |module: &str| {
        format!(
            "[[function]]\nname = \"{0}\"\nmodule = \"{module}\"\nroute = \"/{0}\"\n\
             isolation = \"bounds-checked\"\n",
            module.replace('.', "-"),
        )
    };

    let check = |settings: String| {
        std::fs::write(setup.folder().join("one.toml"), settings).expect("the folder takes files");
        midge_tests::program::midge(
            setup.folder(),
            &["serve", "one.toml", "--listen", "127.0.0.1:0"],
        )
    };
    let refused = check(function("guarded.midge"));
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    assert!(refused.stderr.contains("midge build counter.wasm --isolation"), "{}", refused.stderr);
    let refused = check(function("checked.midge") + "technique = \"pool\"\n");
    assert!(refused.stderr.contains("isolated by bounds checks"), "{}", refused.stderr);

    let module = setup.folder().join("checked.midge");
    let checked = std::fs::read(module).expect("it was built");
    let host = Setup::new()
        .file("checked.midge", checked)
        .file("counter.wasm", example("counter"))
        .serve(&(function("checked.midge") + &function("counter.wasm")));
    let mut client = host.client();
    for path in ["/checked-midge", "/counter-wasm", "/checked-midge", "/counter-wasm"] {
        assert_eq!(client.get(path).text().trim(), "1", "{path}");
    }
}
