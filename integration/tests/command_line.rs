//! The command line: what engines rely on of runc's, and what is Coracle's own.

use std::fs;
use std::process::ExitCode;

use coracle_integration::command::run;
use coracle_integration::{Bundle, Checked, Runtime, leftovers, tests};
use serde_json::{Value, json};

fn main() -> ExitCode {
    coracle_integration::run_tests(tests![
        version_is_what_engines_read,
        help_lists_every_command,
        every_command_has_help,
        spec_writes_a_bundle_that_runs,
        spec_does_not_overwrite,
        spec_takes_a_bundle_directory,
        features_is_json_of_the_spec,
        the_bundle_is_the_working_directory_by_default,
        the_bundle_may_be_relative,
        flags_take_all_forms_of_go,
        flags_may_follow_the_id,
        global_flags_of_runc_are_taken,
        the_log_in_text_ends_with_the_error,
        the_log_in_json_ends_with_the_error,
        the_error_is_on_standard_error_too,
        debug_writes_more_to_the_log,
        the_log_is_appended_to,
        an_unknown_log_format_is_an_error,
        an_unknown_list_format_is_an_error,
        a_log_that_cannot_be_opened_is_an_error,
        no_subreaper_works_with_one_dash,
        run_takes_a_pid_file,
        plan_shows_what_would_be_done,
        plan_as_json_is_json,
        plan_of_a_bad_bundle_is_the_same_error,
        plan_does_nothing,
        an_error_is_one_record,
        state_is_for_machines,
    ])
}

const COMMANDS: [&str; 13] = [
    "create", "start", "state", "kill", "delete", "run", "exec", "list", "ps", "pause", "resume", "spec",
    "features",
];

fn version_is_what_engines_read(rt: &Runtime) {
    let version = run(rt.bare(["--version"])).ok();
    let first = version.lines().first().copied().unwrap_or_default().to_owned();
    let words: Vec<&str> = first.split(' ').collect();
    assert_eq!(words.get(1), Some(&"version"), "{version}");
    assert!(words.get(2).is_some_and(|number| number.starts_with(|c: char| c.is_ascii_digit())), "{version}");
    assert!(version.lines().iter().any(|line| line.starts_with("spec: 1.")), "{version}");
    assert_eq!(run(rt.bare(["-v"])).ok().stdout, version.stdout);
}

fn help_lists_every_command(rt: &Runtime) {
    for help in ["--help", "-h", "help"] {
        let text = run(rt.bare([help])).ok();
        for command in COMMANDS {
            assert!(text.stdout.contains(command), "{command} is not in: {text}");
        }
    }
}

fn every_command_has_help(rt: &Runtime) {
    for command in COMMANDS {
        let text = run(rt.bare([command, "--help"])).ok();
        assert!(text.stdout.to_lowercase().contains("usage"), "{text}");
    }
}

fn spec_writes_a_bundle_that_runs(rt: &Runtime) {
    let path = rt.bundle_path();
    coracle_integration::rootfs::busybox(&path.join("rootfs"));
    let mut spec = rt.bare(["spec"]);
    spec.current_dir(&path);
    run(spec).ok();
    let bundle = Bundle::open(path).edit(|config| {
        assert_eq!(config["process"]["args"], json!(["sh"]));
        assert_eq!(config["process"]["terminal"], true);
        config["process"]["terminal"] = json!(false);
        config["process"]["args"] = json!(["sh", "-c", "echo ran; touch /new"]);
    });
    let ran = rt.container(&bundle).run().fails();
    assert_eq!(ran.out(), "ran");
    assert!(ran.stderr.contains("Read-only"), "the root of a new spec is read-only: {ran}");
}

fn spec_does_not_overwrite(rt: &Runtime) {
    let path = rt.scratch("empty");
    fs::create_dir(&path).expect("making a directory");
    let spec = || {
        let mut spec = rt.bare(["spec"]);
        spec.current_dir(&path);
        run(spec)
    };
    spec().ok();
    spec().fails_with("config.json");
}

fn spec_takes_a_bundle_directory(rt: &Runtime) {
    let path = rt.scratch("elsewhere");
    fs::create_dir(&path).expect("making a directory");
    run(rt.bare(["spec", "--bundle", &path.to_string_lossy()])).ok();
    let text = fs::read_to_string(path.join("config.json")).expect("it was written");
    let config: Value = serde_json::from_str(&text).expect("it is JSON");
    assert!(config["ociVersion"].as_str().is_some_and(|version| version.starts_with("1.")));
}

fn features_is_json_of_the_spec(rt: &Runtime) {
    let features: Value = serde_json::from_str(&run(rt.bare(["features"])).ok().stdout).expect("JSON");
    assert!(features["ociVersionMin"].is_string() && features["ociVersionMax"].is_string());
    let has = |list: &str, item: &str| {
        let list = features.pointer(list).and_then(Value::as_array);
        assert!(list.is_some_and(|items| items.iter().any(|have| have == item)), "{item}: {features}");
    };
    for hook in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"] {
        has("/hooks", hook);
    }
    for option in ["rbind", "ro", "rro", "nosuid", "tmpcopyup", "rslave"] {
        has("/mountOptions", option);
    }
    for namespace in ["pid", "network", "mount", "ipc", "uts", "cgroup"] {
        has("/linux/namespaces", namespace);
    }
    has("/linux/capabilities", "CAP_SYS_ADMIN");
    assert_eq!(features["linux"]["cgroup"]["v1"], true);
}

fn the_bundle_is_the_working_directory_by_default(rt: &Runtime) {
    let bundle = rt.script("echo here");
    let c = rt.container(&bundle);
    let mut command = rt.command(["run", &c.id]);
    command.current_dir(bundle.path());
    assert_eq!(run(command).ok().out(), "here");
}

fn the_bundle_may_be_relative(rt: &Runtime) {
    let bundle = rt.sleeper();
    let c = rt.container(&bundle);
    let name = bundle.path().file_name().expect("a name").to_owned();
    let mut command = rt.command(["create", "--bundle"]);
    command.arg(name).arg(&c.id).current_dir(rt.scratch(""));
    c.detached(command).ok();
    assert_eq!(c.state()["bundle"], json!(bundle.path()), "the state has the whole path");
    c.start().ok();
}

fn flags_take_all_forms_of_go(rt: &Runtime) {
    let bundle = rt.script("echo here");
    let path = bundle.path().to_string_lossy().into_owned();
    let forms = [
        vec!["--bundle".to_owned(), path.clone()],
        vec![format!("--bundle={path}")],
        vec!["-bundle".to_owned(), path.clone()],
        vec![format!("-bundle={path}")],
        vec!["-b".to_owned(), path.clone()],
        vec![format!("-b={path}")],
    ];
    for form in forms {
        let c = rt.container(&bundle);
        let mut command = rt.command(["run"]);
        command.args(&form).arg(&c.id);
        assert_eq!(run(command).ok().out(), "here", "{form:?}");
    }
}

fn flags_may_follow_the_id(rt: &Runtime) -> Checked {
    rt.coracle_only("runc 1.1 stops reading flags at the id")?;
    let bundle = rt.script("echo here");
    let c = rt.container(&bundle);
    let mut command = rt.command(["run", &c.id, "--bundle"]);
    command.arg(bundle.path());
    assert_eq!(run(command).ok().out(), "here");
    c.detached(c.create_command(&[])).ok();
    rt.call(&["delete", &c.id, "--force"]).ok();
    Ok(())
}

fn global_flags_of_runc_are_taken(rt: &Runtime) {
    let root = rt.root().to_string_lossy().into_owned();
    for flags in [
        &["--rootless=false"][..],
        &["--rootless", "auto"],
        &["--debug"],
        &["--criu", "criu"],
        &["-root", &root],
    ] {
        let mut all = flags.to_vec();
        all.extend(["--root", &root, "list", "-q"]);
        assert_eq!(run(rt.bare(all)).ok().out(), "");
    }
}

/// Runs a failing create with these global flags and a log, and gives the log.
fn log_of_a_failure(rt: &Runtime, flags: &[&str]) -> (String, coracle_integration::Finished) {
    let bundle = rt.bundle(&["nonesuch"]);
    let log = rt.scratch("log");
    let c = rt.container(&bundle);
    let mut command = rt.bare(["--log"]);
    command.arg(&log).args(flags).arg("--root").arg(rt.root());
    command.args(["create", "--bundle"]).arg(bundle.path()).arg(&c.id);
    let finished = run(command).exits(1).fails();
    (fs::read_to_string(&log).expect("the log was written"), finished)
}

const NOT_FOUND: &str = "executable file not found in $PATH";

fn the_log_in_text_ends_with_the_error(rt: &Runtime) {
    let (log, _) = log_of_a_failure(rt, &[]);
    let last = log.lines().last().expect("a line");
    assert!(last.contains("level=error") && last.contains("msg=") && last.contains("time="), "{log}");
    assert!(last.contains(NOT_FOUND), "{log}");
}

fn the_log_in_json_ends_with_the_error(rt: &Runtime) {
    let (log, _) = log_of_a_failure(rt, &["--log-format", "json"]);
    for line in log.lines() {
        let record: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(["level", "msg", "time"].iter().all(|key| record[key].is_string()), "{line}");
    }
    let last: Value = serde_json::from_str(log.lines().last().expect("a line")).expect("JSON");
    assert_eq!(last["level"], "error");
    assert!(last["msg"].as_str().is_some_and(|text| text.contains(NOT_FOUND)), "{log}");
    let time = last["time"].as_str().unwrap_or_default();
    assert!(time.len() >= 20 && time.contains('T'), "RFC 3339: {time}");
}

fn the_error_is_on_standard_error_too(rt: &Runtime) {
    let (_, finished) = log_of_a_failure(rt, &["--log-format", "json"]);
    assert!(finished.stderr.contains(NOT_FOUND), "{finished}");
}

fn debug_writes_more_to_the_log(rt: &Runtime) {
    let (log, _) = log_of_a_failure(rt, &["--debug", "--log-format", "json"]);
    assert!(log.lines().any(|line| line.contains("\"level\":\"debug\"")), "{log}");
    let last = log.lines().rev().find(|line| line.contains("\"level\":\"error\"")).expect("an error");
    assert!(last.contains(NOT_FOUND), "{log}");
}

fn the_log_is_appended_to(rt: &Runtime) {
    let (first, _) = log_of_a_failure(rt, &[]);
    let (second, _) = log_of_a_failure(rt, &[]);
    assert!(second.starts_with(&first) && second.len() > first.len());
}

fn an_unknown_log_format_is_an_error(rt: &Runtime) {
    let refused = run(rt.bare(["--log-format", "yaml", "list"])).fails();
    assert!(format!("{}{}", refused.stdout, refused.stderr).contains("yaml"), "{refused}");
}

fn an_unknown_list_format_is_an_error(rt: &Runtime) {
    rt.call(&["list", "--format", "yaml"]).fails();
    let bundle = rt.sleeper();
    let c = rt.container(&bundle);
    c.up();
    c.call("ps", &["--format", "yaml"]).fails();
}

fn a_log_that_cannot_be_opened_is_an_error(rt: &Runtime) {
    run(rt.bare(["--log", "/not/there/log", "list"])).fails_with("/not/there/log");
}

fn no_subreaper_works_with_one_dash(rt: &Runtime) {
    let bundle = rt.script("echo here");
    for flag in ["-no-subreaper", "--no-subreaper"] {
        assert_eq!(rt.container(&bundle).run_with(&[flag]).ok().out(), "here");
    }
}

fn run_takes_a_pid_file(rt: &Runtime) {
    let bundle = rt.sleeper();
    let c = rt.container(&bundle);
    let file = rt.scratch("pid");
    let command = c.run_command(&["--detach", "--pid-file", &file.to_string_lossy()]);
    c.detached(command).ok();
    assert_eq!(fs::read_to_string(file).expect("the pid file"), c.pid().to_string());
}

const PLAN: &str = "other runtimes have no plan";

fn plan_shows_what_would_be_done(rt: &Runtime) -> Checked {
    rt.coracle_only(PLAN)?;
    let bundle = rt.bundle(&["sh", "-c", "echo here"]).edit(|config| {
        config["linux"]["resources"]["memory"] = json!({ "limit": 67_108_864 });
    });
    let plan = rt.call(&["plan", "--bundle", &bundle.path().to_string_lossy()]).ok();
    for part in ["/dev/mqueue", "67108864", "container", "echo here", "/proc/kcore"] {
        assert!(plan.stdout.contains(part), "{part:?} is not in: {plan}");
    }
    Ok(())
}

fn plan_as_json_is_json(rt: &Runtime) -> Checked {
    rt.coracle_only(PLAN)?;
    let bundle = rt.bundle(&["true"]);
    let plan = rt.call(&["plan", "--json", "--bundle", &bundle.path().to_string_lossy()]).ok();
    let plan: Value = serde_json::from_str(&plan.stdout).unwrap_or_else(|error| panic!("{error}: {plan}"));
    assert!(plan.is_object() || plan.is_array());
    Ok(())
}

fn plan_of_a_bad_bundle_is_the_same_error(rt: &Runtime) -> Checked {
    rt.coracle_only(PLAN)?;
    let bundle = rt.bundle(&["true"]).edit(|config| config["process"]["cwd"] = json!("relative"));
    rt.call(&["plan", "--bundle", &bundle.path().to_string_lossy()]).exits(1).fails_with("process.cwd");
    Ok(())
}

fn plan_does_nothing(rt: &Runtime) -> Checked {
    rt.coracle_only(PLAN)?;
    let bundle = rt.bundle(&["touch", "/ran"]).edit(|config| {
        coracle_integration::bundle::add_mount(config, "/new/directory", "tmpfs", "tmpfs", &[]);
        config["hooks"] = json!({ "createRuntime": [{ "path": "/bin/false" }] });
    });
    rt.call(&["plan", "--bundle", &bundle.path().to_string_lossy()]).ok();
    assert!(!bundle.rootfs("new").exists() && !bundle.rootfs("ran").exists());
    assert_eq!(leftovers::cgroups(rt.mark()), Vec::<std::path::PathBuf>::new());
    rt.assert_clean();
    Ok(())
}

fn an_error_is_one_record(rt: &Runtime) {
    let (log, _) = log_of_a_failure(rt, &["--log-format", "json"]);
    let errors = log.lines().filter(|line| line.contains("\"level\":\"error\"")).count();
    assert_eq!(errors, 1, "{log}");
}

fn state_is_for_machines(rt: &Runtime) {
    let bundle = rt.sleeper();
    let c = rt.container(&bundle);
    c.create().ok();
    let state = c.call("state", &[]).ok();
    assert_eq!(state.stderr, "", "nothing beside the JSON");
    for key in ["ociVersion", "id", "pid", "status", "bundle", "rootfs", "created", "owner"] {
        assert!(state.stdout.contains(&format!("\"{key}\":")), "{key}: {state}");
    }
}
