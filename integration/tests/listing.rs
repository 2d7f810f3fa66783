//! What `state`, `list` and `ps` say of containers.

use std::process::ExitCode;

use coracle_integration::command::{eventually, run};
use coracle_integration::{Runtime, host, tests};
use serde_json::{Value, json};

fn main() -> ExitCode {
    coracle_integration::run_tests(tests![
        state_says_what_the_spec_asks_for,
        annotations_appear_in_the_state,
        list_shows_every_container,
        list_quiet_shows_ids_only,
        list_of_an_empty_root_is_empty,
        ps_shows_the_processes,
        ps_json_is_a_list_of_host_pids,
        ps_passes_arguments_on,
    ])
}

fn state_says_what_the_spec_asks_for(rt: &Runtime) {
    let bundle = rt.sleeper();
    let c = rt.container(&bundle);
    c.up();
    let state = c.state();
    assert!(state["ociVersion"].as_str().is_some_and(|version| version.starts_with("1.")), "{state}");
    assert_eq!(state["id"], json!(c.id));
    assert_eq!(state["status"], "running");
    assert_eq!(state["bundle"], json!(bundle.path()));
    assert_eq!(state["rootfs"], json!(bundle.rootfs("")).as_str().unwrap_or_default().trim_end_matches('/'));
    assert!(
        state["created"].as_str().is_some_and(|time| time.contains('T') && time.ends_with('Z')),
        "{state}"
    );
    assert!(host::is_alive(c.pid()));

    c.kill("KILL").ok();
    c.wait_for("stopped");
    assert_eq!(c.state()["pid"], 0, "a stopped container has no process");
}

fn annotations_appear_in_the_state(rt: &Runtime) {
    let annotations = json!({ "org.example.key": "value", "empty": "" });
    let bundle = rt.sleeper().edit(|config| config["annotations"] = annotations.clone());
    let c = rt.container(&bundle);
    c.create().ok();
    assert_eq!(c.state()["annotations"], annotations);
}

fn list_shows_every_container(rt: &Runtime) {
    let bundle = rt.sleeper();
    let (one, two) = (rt.container(&bundle), rt.container(&bundle));
    one.create().ok();
    two.up();
    let listed = rt.call(&["list", "--format", "json"]).ok();
    let list: Value = serde_json::from_str(&listed.stdout).expect("JSON");
    let list = list.as_array().expect("a list");
    assert_eq!(list.len(), 2, "{listed}");
    for (c, status) in [(&one, "created"), (&two, "running")] {
        let entry = list.iter().find(|entry| entry["id"] == json!(c.id)).expect("each container is listed");
        assert_eq!(entry["status"], status);
        assert_eq!(entry["pid"], c.pid());
        assert_eq!(entry["bundle"], json!(bundle.path()));
    }
    let table = rt.call(&["list"]).ok();
    let header: Vec<&str> = table.lines().first().expect("a header").split_whitespace().collect();
    assert_eq!(header, ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]);
    assert_eq!(table.lines().len(), 3, "{table}");
}

fn list_quiet_shows_ids_only(rt: &Runtime) {
    let bundle = rt.sleeper();
    let c = rt.container(&bundle);
    c.create().ok();
    assert_eq!(rt.call(&["list", "-q"]).ok().out(), c.id);
}

fn list_of_an_empty_root_is_empty(rt: &Runtime) {
    assert_eq!(rt.call(&["list", "--quiet"]).ok().out(), "");
    let json = rt.call(&["list", "--format", "json"]).ok();
    let list: Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert!(list.is_null() || list.as_array().is_some_and(Vec::is_empty), "{json}");
}

fn ps_shows_the_processes(rt: &Runtime) {
    let bundle = rt.script("sleep 1005 & sleep 1006; true");
    let c = rt.container(&bundle);
    c.up();
    assert!(eventually(|| {
        let table = c.call("ps", &[]).ok();
        table.stdout.contains("sleep 1005") && table.stdout.contains("sleep 1006")
    }));
    let table = c.call("ps", &[]).ok();
    assert!(table.lines().first().is_some_and(|header| header.contains("PID")), "{table}");
}

fn ps_json_is_a_list_of_host_pids(rt: &Runtime) {
    let bundle = rt.script("sleep 1007 & sleep 1008; true");
    let c = rt.container(&bundle);
    c.up();
    let pids = || -> Vec<i32> {
        let json = c.call("ps", &["--format", "json"]).ok();
        serde_json::from_str(&json.stdout).unwrap_or_else(|error| panic!("{error}: {json}"))
    };
    assert!(eventually(|| pids().len() == 3), "{:?}", pids());
    assert!(pids().contains(&c.pid()));
    assert!(pids().into_iter().all(host::is_alive));
}

fn ps_passes_arguments_on(rt: &Runtime) {
    let bundle = rt.sleeper();
    let c = rt.container(&bundle);
    c.up();
    let table = run(rt.command(["ps", &c.id, "-o", "pid,comm"])).ok();
    let header: Vec<&str> = table.lines().first().expect("a header").split_whitespace().collect();
    assert_eq!(header, ["PID", "COMMAND"]);
    assert!(table.stdout.contains(&c.pid().to_string()), "{table}");
}
