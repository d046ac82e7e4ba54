//! Where modules come from: the program of `tests/modules`, a workspace of its own, built when it is needed.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use midge_tests::program::workspace;

/// A module with its name; an empty one where a seed gives none.
pub(crate) type Named = (String, Vec<u8>);

/// Returns the modules of so many seeds.
pub(crate) fn of_seeds(first: u64, count: u64) -> Vec<Named> {
    run(&["smith", &first.to_string(), &count.to_string()])
}

/// Returns the modules of the specification's test suite.
pub(crate) fn of_specification() -> Vec<Named> {
    run(&["spec"])
}

fn run(arguments: &[&str]) -> Vec<Named> {
    let output = Command::new(program()).args(arguments).stderr(Stdio::inherit()).output();
    let output = output.expect("the program can be run");
    assert!(output.status.success(), "midge-modules {arguments:?}");
    let mut rest = &output.stdout[..];
    let mut modules = Vec::new();
    while !rest.is_empty() {
        let name = String::from_utf8_lossy(part(&mut rest)).into_owned();
        modules.push((name, part(&mut rest).to_vec()));
    }
    modules
}

/// Takes a part behind its size.
fn part<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let (size, behind) = rest.split_first_chunk().expect("a size");
    let size = usize::try_from(u32::from_le_bytes(*size)).expect("32 bits fit");
    let (part, behind) = behind.split_at(size);
    *rest = behind;
    part
}

fn program() -> &'static PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let test = std::env::current_exe().expect("a test has a path");
        let target = test.ancestors().nth(3).expect("TARGET/PROFILE/deps/TEST").join("modules");
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.args(["build", "--quiet", "--locked", "--manifest-path"]);
        command.arg(workspace().join("tests/modules/Cargo.toml")).arg("--target-dir").arg(&target);
        assert!(command.status().expect("cargo can be run").success(), "midge-modules was built");
        target.join("debug/midge-modules")
    })
}
