//! `midge new` and `midge dev`: from nothing to a function that is served, and served again with each change.

use midge_tests::guests::HELLO;
use midge_tests::host::Setup;
use midge_tests::program::midge;
use midge_tests::wait::wait_for;

const LANGUAGES: [&str; 7] = ["rust", "c", "zig", "go", "js", "python", "assemblyscript"];
/// Settings, with a route that a test can change.
const SETTINGS: &str = "[[function]]\nname = \"hello\"\nmodule = \"made.wat\"\nroute = \"/*\"\n";

#[test]
fn a_new_folder_has_settings_that_serve_its_module() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for language in LANGUAGES {
        let name = format!("my-{language}");
        let new = ["new", "--lang", language, &name];
        let made = midge(folder.path(), &new);
        assert_eq!(made.code, Some(0), "{made:?}");
        let made = folder.path().join(&name);
        let makefile = std::fs::read_to_string(made.join("Makefile")).expect("it has a Makefile");
        assert!(makefile.contains(&format!("{name}.wasm:")), "{makefile}");
        for file in std::fs::read_dir(&made).expect("it is a folder") {
            let path = file.expect("it can be listed").path();
            let is_ours = path.ends_with("midge.h");
            if path.is_file() && !is_ours {
                let text = std::fs::read_to_string(&path).expect("it is text");
                assert!(!text.contains("NAME"), "{}: every place is filled", path.display());
            }
        }
        std::fs::write(made.join(format!("{name}.wasm")), HELLO).expect("it can be written");
        let checked = midge(&made, &["check"]);
        assert_eq!(checked.code, Some(0), "{checked:?}");
        let again = midge(folder.path(), &new);
        assert_eq!(again.code, Some(1), "what is there is not overwritten");
    }
}

#[test]
fn a_change_is_built_and_served_and_a_broken_one_is_not() {
    let host = Setup::new()
        .file("source.wat", HELLO)
        .file("midge.toml", SETTINGS)
        .argument("--build")
        .argument("! grep -q nonsense source.wat && cp source.wat made.wat")
        .dev();
    let mut client = host.client();
    assert_eq!(client.get("/").text(), "hello\n");
    let write = |text: &str| {
        std::fs::write(host.folder().join("source.wat"), text).expect("the folder is there");
    };
    write(&HELLO.replace("hello\\0a", "other\\0a"));
    wait_for("the change is served", || client.get("/").text() == "other\n");
    write("nonsense");
    wait_for("the failure is told", || host.log().contains("serving what was there before"));
    assert_eq!(client.get("/").text(), "other\n");
    write(HELLO);
    wait_for("the mended one is served", || client.get("/").text() == "hello\n");
}
