//! Goal: each fault is found, at its place, with its remedy. Method: a file with one function, to which the
//! case adds lines; the module lies in a folder of its own.

use std::time::Duration;

use super::*;

const HELLO: &str = "[[function]]\nname = \"hello\"\nmodule = \"hello.wasm\"\nroute = \"/hello\"\n";

fn load(text: &str, overrides: &Overrides) -> Result<Settings, Complaints> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("hello.wasm"), b"").unwrap();
    read(Source::new(&folder.path().join("midge.toml"), text.into()), overrides)
}

/// Expects exactly these faults, as `line:column what -> instead`.
#[track_caller]
fn check(text: &str, expected: &[&str]) {
    let found: Vec<String> = match load(text, &Overrides::default()) {
        Ok(_) => Vec::new(),
        Err(complaints) => complaints
            .placed()
            .map(|(place, complaint)| {
                let Complaint { what, instead, .. } = complaint;
                format!("{}:{} {what} -> {instead}", place.line, place.column)
            })
            .collect(),
    };
    assert_eq!(found, expected, "{text}");
}

#[test]
fn a_file_without_faults_gives_settings_with_origins() {
    let text = format!(
        "workers = 3\n[log]\nlevel = \"warn\"\n{HELLO}deadline = \"5s\"\nhost = \"Example.ORG\"\n"
    );
    let settings = load(&text, &Overrides::default()).unwrap();
    assert_eq!(settings.workers.value, Workers::Count(3));
    assert_eq!(settings.workers.origin.to_string(), "line 1:11");
    assert_eq!(settings.log.level.value, LogLevel::Warn);
    assert_eq!(settings.listen.origin, Origin::Default);
    let function = &settings.functions[0];
    assert_eq!(function.deadline.value, Duration::from_secs(5));
    assert_eq!(function.host.value.as_deref(), Some("example.org"));
    assert_eq!(function.routes.value, [Pattern::Exact("/hello".into())]);
    assert!(function.module.value.is_absolute());
}

#[test]
fn overrides_win_over_the_file() {
    let workers = Setting { value: Workers::Count(7), origin: Origin::Flag("--workers") };
    let overrides = Overrides { workers: Some(workers.clone()), ..Overrides::default() };
    let settings = load(&format!("workers = 3\n{HELLO}"), &overrides).unwrap();
    assert_eq!(settings.workers, workers);
}

#[test]
fn a_module_alone_is_a_function_on_every_path() {
    let settings = Settings::of_one(Path::new("dir/My App.wasm"), &Overrides::default());
    assert_eq!(settings.functions[0].name.value, "my-app");
    assert_eq!(settings.functions[0].routes.value, [Pattern::Prefix("/".into())]);
    assert_eq!(settings.file, None);
}

#[test]
fn slots_follow_a_lower_concurrency() {
    let settings = load(&format!("{HELLO}concurrency = 2\n"), &Overrides::default()).unwrap();
    assert_eq!(settings.functions[0].slots, Setting::default(2));
}

#[test]
fn unknown_keys_are_named_with_the_nearest() {
    check(
        &format!("lissten = 1\n{HELLO}dead_line = \"1s\"\ncolour = 1\n[limits]\nidel = \"1s\"\n"),
        &[
            "1:1 `lissten` is no setting of the file -> listen",
            "6:1 `dead_line` is no setting of [[function]] -> deadline",
            "7:1 `colour` is no setting of [[function]] -> one of: name module route routes host \
             methods technique isolation metering fuel deadline memory body stream_body stream_time response \
             concurrency slots server_timing compress arguments environment grant files scratch",
            "9:1 `idel` is no setting of [limits] -> idle",
        ],
    );
}

#[test]
fn wrong_types_and_ranges_are_named_with_the_right_ones() {
    for (line, expected) in [
        (
            "deadline = 100",
            "5:12 `deadline` takes a duration with its unit, found integer `100` -> \"100ms\"",
        ),
        (
            "deadline = \"100\"",
            "5:12 deadline: `100` is no duration: the unit is missing; units are ns, us, ms, s, m, \
             h -> \"100ms\"",
        ),
        ("deadline = \"2h\"", "5:12 deadline: `2h` is outside of 1ms to 10m -> \"10m\""),
        ("memory = \"1 B\"", "5:10 memory: `1 B` is outside of 64 KiB to 4 GiB -> \"64 KiB\""),
        ("concurrency = -1", "5:15 concurrency: `-1` is outside of 1 to 16384 -> 1"),
        ("slots = 100", "5:9 100 slots are more than 64 calls use -> 64, or raise `concurrency`"),
        (
            "server_timing = \"yes\"",
            "5:17 `server_timing` takes `true` or `false`, found string `\"yes\"` -> true",
        ),
        ("technique = \"restor\"", "5:13 `restor` is no technique -> \"restore\""),
        (
            "technique = \"magic\"",
            "5:13 `magic` is no technique -> one of: auto jit aot mmap cow pool pool-scan restore \
             reuse",
        ),
        ("methods = [\"get\"]", "5:12 `get` is no method -> \"GET\""),
        (
            "methods = []",
            "5:11 `methods` takes a list of methods, found array `[]` -> [\"GET\", \"POST\"]",
        ),
        (
            "host = \"a:80\"",
            "5:8 `a:80` is no host name -> a name without port, like \"api.example.org\"",
        ),
    ] {
        check(&format!("{HELLO}{line}\n"), &[expected]);
    }
}

#[test]
fn addresses_and_workers_are_checked() {
    for (line, expected) in [
        ("listen = \"localhost\"", "1:10 `localhost` is no address with a port"),
        ("workers = 0", "1:11 workers: 0 workers, expected 1 to 1024"),
        ("workers = \"1-x\"", "1:11 workers: `1-x` is no CPU and no range of CPUs"),
        ("admin = \"127.0.0.1:8080\"", "1:9 `listen` and `admin` are both 127.0.0.1:8080"),
    ] {
        let complaints = load(&format!("{line}\n{HELLO}"), &Overrides::default()).unwrap_err();
        let (place, complaint) = complaints.placed().next().unwrap();
        let found = format!("{}:{} {}", place.line, place.column, complaint.what);
        assert_eq!(found, expected);
    }
}

#[test]
fn a_function_needs_name_module_and_route() {
    check("", &["1:1 there is no function -> a [[function]] with name, module, route"]);
    check(
        "[[function]]\n",
        &[
            "1:1 the function has no `name` -> name = \"hello\"",
            "1:1 the function has no `module` -> module = \"hello.wasm\"",
            "1:1 the function has no `route` -> route = \"/hello\"",
        ],
    );
    check(
        "[[function]]\nname = \"Big Name\"\nmodule = \"helo.wasm\"\nroute = \"/a*\"\n",
        &[
            "2:8 `Big Name` is no name of a function -> \"big-name\": 1 to 64 of a-z 0-9 - _ .",
            "3:10 module `helo.wasm`: no such file -> \"hello.wasm\"",
            "4:9 route `/a*`: `*` stands at the end alone, behind a `/` -> \"/x\" for one path, \
             \"/x/*\" for all below it",
        ],
    );
}

#[test]
fn names_and_routes_are_unique() {
    let again = HELLO.replace("\"/hello\"", "[\"/a\", \"/hello\"]");
    check(
        &format!("{HELLO}{again}"),
        &[
            "6:8 function `hello` stands at 2:8 already -> another name",
            "8:16 route `/hello` stands at 4:9 already -> another route, or another `host`",
        ],
    );
    check(&format!("{HELLO}{}host = \"a.b\"\n", HELLO.replace("\"hello\"", "\"b\"")), &[]);
}

#[test]
fn functions_with_other_faults_are_compared_too() {
    let faulty = HELLO.replace("hello.wasm", "none");
    check(
        &format!("{faulty}{HELLO}"),
        &[
            "3:10 module `none`: no such file -> the path of a module, relative to this file",
            "6:8 function `hello` stands at 2:8 already -> another name",
            "8:9 route `/hello` stands at 4:9 already -> another route, or another `host`",
        ],
    );
}

#[test]
fn keys_that_stand_twice_are_found_beside_other_faults() {
    check(
        &format!("workers = 1\nworkers = 2\nlisen = 1\n{HELLO}"),
        &[
            "2:1 `workers` stands here twice -> it once",
            "3:1 `lisen` is no setting of the file -> listen",
        ],
    );
}

#[test]
fn broken_text_is_reported_alone() {
    let complaints = load("workers = \n[[function\n", &Overrides::default()).unwrap_err();
    assert!(complaints.placed().all(|(_, complaint)| complaint.instead.contains("toml.io")));
}

mod props {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_text_gives_settings_or_complaints(text in "[a-z=\\[\\]\" \n0-9é.]{0,200}") {
            if let Err(complaints) = load(&text, &Overrides::default()) {
                prop_assert!(!complaints.to_string().is_empty());
            }
        }

        #[test]
        fn any_value_of_a_function_gives_settings_or_complaints(value in "\\PC{0,40}") {
            for name in Part::Function.names() {
                let quoted = toml::Value::String(value.clone());
                if let Err(complaints) = load(&format!("{HELLO}{name} = {quoted}\n"), &Overrides::default()) {
                    prop_assert!(!complaints.to_string().is_empty());
                }
            }
        }
    }
}

#[test]
fn a_grant_names_servers_and_networks() {
    let with = |lines: &str| load(&format!("{HELLO}{lines}\n"), &Overrides::default());
    let table = "[function.grant]\nhttp = [\"https://A.example\", \"http://*.b.example:81\"]\n\
                 networks = [\"10.0.0.0/8\"]";
    let inline = "grant = { http = [\"https://a.example:443/\", \"http://*.B.example:81\"], \
                  networks = [\"10.0.0.0/8\"] }";
    for lines in [table, inline] {
        let settings = with(lines).unwrap();
        let grant = &settings.functions[0].grant.value;
        let http: Vec<_> = grant.http.iter().map(ToString::to_string).collect();
        assert_eq!(http, ["https://a.example", "http://*.b.example:81"]);
        assert_eq!(grant.networks.to_string(), "10.0.0.0/8");
    }
    assert!(with("").unwrap().functions[0].grant.value.is_empty());
    assert_eq!(with(inline).unwrap().functions[0].slots, Setting::default(64));
    assert_eq!(with("").unwrap().functions[0].slots, Setting::default(8));
    check(
        &format!(
            "{HELLO}[function.grant]\nhttp = [\"a.example\"]\nnetworks = [\"here\"]\nhtp = 1\n"
        ),
        &[
            "6:9 `a.example` is not fit for `http`: it begins with neither `http://` nor `https://` \
             -> \"https://api.example.com\"",
            "7:13 `here` is not fit for `networks`: `here` is no address and no network such as \
             `10.0.0.0/8` -> \"10.0.0.0/8\"",
            "8:1 `htp` is no setting of [function.grant] -> http",
        ],
    );
}

#[test]
fn programs_get_folders() {
    let with = |files: &str| format!("{HELLO}files = {files}\n");
    let settings = load(&with("[\".\", \".:/srv/data\"]"), &Overrides::default()).unwrap();
    let guests = settings.functions[0].files.value.0.iter().map(|mapping| mapping.guest.as_str());
    assert_eq!(guests.collect::<Vec<_>>(), ["/", "/srv/data"]);
    check(
        &with("[\"gone:/a\", \":/b\", 1, \".:/c\", \".:/c\"]"),
        &[
            "5:10 folder `gone`: no such folder -> a folder, relative to this file",
            "5:21 `:/b` names no folder and path -> [\"data:/data\"]",
            "5:28 `files` takes a text, found integer `1` -> [\"data:/data\"]",
            "5:39 two folders are `/c` for the guest -> FOLDER:GUEST-PATH, with another path",
        ],
    );
    check(
        &with("\"data\""),
        &["5:9 `files` takes a list of texts, found string `\"data\"` -> [\"data:/data\"]"],
    );
}

#[test]
fn programs_get_a_folder_in_memory() {
    let with = |scratch: &str| format!("{HELLO}scratch = {scratch}\n");
    let settings = load(&with("\"8 MiB:/work\""), &Overrides::default()).unwrap();
    assert_eq!(settings.functions[0].scratch.value.to_string(), "8 MiB:/work");
    let settings = load(HELLO, &Overrides::default()).unwrap();
    assert_eq!(settings.functions[0].scratch.value.0, None);
    let range = "expected 64 KiB to 512 MiB";
    check(&with("\"1 KiB\""), &[&format!("5:11 scratch: `1 KiB`: {range} -> \"64 MiB\"")]);
    check(&with("true"), &["5:11 `scratch` takes a text, found boolean `true` -> \"64 MiB\""]);
    check(
        &with("\"1 MiB:\""),
        &[
            "5:11 scratch: `1 MiB:`: the path has 1 to 255 bytes, and no control character -> \"64 MiB\"",
        ],
    );
}

#[test]
fn programs_get_words() {
    let with = |lines: &str| load(&format!("{HELLO}{lines}\n"), &Overrides::default());
    let settings =
        with("arguments = [\"-v\", \"two words\"]\nenvironment = [\"A=b=c\", \"D=\"]").unwrap();
    assert_eq!(settings.functions[0].arguments.value.0, ["-v", "two words"]);
    assert_eq!(settings.functions[0].environment.value.0, ["A=b=c", "D="]);
    check(
        &format!("{HELLO}environment = [\"A\", \"=b\"]\narguments = \"x\"\n"),
        &[
            "5:16 `A` is not fit for `environment` -> [\"NAME=value\"]",
            "5:21 `=b` is not fit for `environment` -> [\"NAME=value\"]",
            "6:13 `arguments` takes a list of texts, found string `\"x\"` -> [\"--verbose\"]",
        ],
    );
    check(
        &format!("{HELLO}arguments = [\"{}\"]\n", "x".repeat(20_000)),
        &[
            "5:13 arguments and environment have more than 256 entries or 16384 bytes -> fewer or shorter ones",
        ],
    );
}

#[test]
fn places_to_report_to_are_read_and_refused_with_a_remedy() {
    let text = format!(
        "[log]\nsyslog = \"tcp://Logs\"\n[push]\nurl = \"http://gateway:9091/a\"\nevery = \"1m\"\n{HELLO}"
    );
    let settings = load(&text, &Overrides::default()).unwrap();
    let shown = |value: Option<String>| value.unwrap();
    assert_eq!(shown(settings.log.syslog.value.map(|it| it.to_string())), "tcp://logs:514");
    assert_eq!(shown(settings.push.url.value.map(|it| it.to_string())), "http://gateway:9091/a");
    assert_eq!(settings.push.every.value, Duration::from_secs(60));
    check(
        &format!(
            "[log]\nsyslog = \"logs:514\"\n[push]\nurl = \"https://gateway/\"\nevery = \"1ms\"\n{HELLO}"
        ),
        &[
            "2:10 `logs:514` is not fit for `syslog`: it begins with neither `udp://` nor `tcp://` -> \
             \"udp://logs.example:514\"",
            "4:7 `https://gateway/` is not fit for `url`: nothing is pushed over TLS: name a proxy nearby \
             that speaks it, by http -> \"http://gateway:9091/metrics/job/midge\"",
            "5:9 every: `1ms` is outside of 1s to 1h -> \"1s\"",
        ],
    );
}
