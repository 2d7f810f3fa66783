//! Exec and what follows: more processes in a container.

use std::collections::BTreeSet;
use std::fs;

use coracle_integration::engine::bench::{Bench, Check};
use coracle_integration::engine::shim::{Hand, Shim};
use coracle_integration::engine::task::{Any, PROCESS, Status};
use coracle_integration::{host, named};
use rustix::process::Signal;
use serde_json::json;
use ttrpc::proto::Code;

pub fn checks() -> Vec<(&'static str, Check)> {
    named![
        an_exec_is_added_started_waited_for_and_deleted,
        an_exec_has_what_its_process_says,
        an_exec_id_is_taken_until_it_is_deleted,
        an_exec_of_what_is_not_there_harms_nobody,
        an_exec_that_was_never_started_is_deleted,
        an_exec_is_killed_by_its_id,
        an_exec_that_runs_cannot_be_deleted,
        an_exec_that_has_ended_cannot_be_killed,
        an_exec_in_a_stopped_container_is_refused,
        calls_about_an_unknown_exec_are_not_found,
        pids_lists_execs_by_name,
        the_end_of_the_first_process_ends_every_exec,
        execs_run_side_by_side,
        an_exec_whose_process_is_no_json_is_refused,
        an_exec_of_a_paused_container_is_paused,
    ]
}

fn status(hand: &Hand, exec: &str) -> Option<Status> {
    hand.tasks().state(&hand.id, exec).ok().and_then(|state| Status::try_from(state.status).ok())
}

fn an_exec_is_added_started_waited_for_and_deleted(bench: &Bench) {
    let shim = Shim::shared(bench);
    let hand = shim.sleeping();
    let request = hand.exec_request("one", &["sh", "-c", "echo out; sleep 0.2; exit 9"]);
    shim.tasks.exec(&request).expect("Exec");
    assert_eq!(status(&hand, "one"), Some(Status::Created));
    let pid = shim.tasks.start(&hand.id, "one").expect("Start");
    let state = shim.tasks.state(&hand.id, "one").expect("State");
    assert_eq!((state.pid, state.status), (pid, Status::Running as i32));
    assert_eq!(state.stdout, request.stdout);
    let waited = shim.tasks.wait(&hand.id, "one").expect("Wait");
    assert_eq!(waited.exit_status, 9);
    assert_eq!(status(&hand, "one"), Some(Status::Stopped));
    let deleted = shim.tasks.delete(&hand.id, "one").expect("Delete");
    assert_eq!((deleted.pid, deleted.exit_status, deleted.exited_at), (pid, 9, waited.exited_at));
    assert_eq!(fs::read_to_string(hand.path("one")).expect("its output"), "out\n");
    assert_eq!(shim.tasks.state(&hand.id, "one").expect_err("deleted").code, Code::NOT_FOUND);
    assert_eq!(status(&hand, ""), Some(Status::Running));
    hand.end();
}

fn an_exec_has_what_its_process_says(bench: &Bench) {
    let shim = Shim::shared(bench);
    let hand = shim.sleeping();
    let mut request = hand.exec_request("one", &[]);
    let process = json!({
        "args": ["sh", "-c", "id -u; id -g; pwd; echo $WORD; grep CapEff /proc/self/status"],
        "cwd": "/var", "env": ["PATH=/bin", "WORD=value"],
        "user": { "uid": 7, "gid": 8 },
        "capabilities": { "bounding": [], "effective": [], "permitted": [] },
    });
    request.spec = Some(Any::json(PROCESS, &process));
    shim.tasks.exec(&request).expect("Exec");
    shim.tasks.start(&hand.id, "one").expect("Start");
    assert_eq!(shim.tasks.wait(&hand.id, "one").map(|end| end.exit_status), Ok(0));
    shim.tasks.delete(&hand.id, "one").expect("Delete");
    let output = fs::read_to_string(hand.path("one")).expect("its output");
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines, ["7", "8", "/var", "value", "CapEff:\t0000000000000000"]);
    hand.end();
}

fn an_exec_id_is_taken_until_it_is_deleted(bench: &Bench) {
    let shim = Shim::shared(bench);
    let hand = shim.sleeping();
    let request = hand.exec_request("one", &["true"]);
    shim.tasks.exec(&request).expect("Exec");
    assert_eq!(shim.tasks.exec(&request).expect_err("it is taken").code, Code::ALREADY_EXISTS);
    shim.tasks.start(&hand.id, "one").expect("Start");
    shim.tasks.wait(&hand.id, "one").expect("Wait");
    assert_eq!(shim.tasks.exec(&request).expect_err("it is still taken").code, Code::ALREADY_EXISTS);
    shim.tasks.delete(&hand.id, "one").expect("Delete");
    assert_eq!(hand.exec_to_end("one", &["true"]).0, 0);
    hand.end();
}

fn an_exec_of_what_is_not_there_harms_nobody(bench: &Bench) {
    let shim = Shim::shared(bench);
    let hand = shim.sleeping();
    shim.tasks.exec(&hand.exec_request("one", &["nonesuch"])).expect("Exec");
    let failure = shim.tasks.start(&hand.id, "one").expect_err("there is no such program");
    assert!(failure.message.contains("executable file not found in $PATH"), "{failure:?}");
    assert!(!failure.message.contains("config.json"), "it came in the request: {failure:?}");
    shim.tasks.delete(&hand.id, "one").expect("Delete");
    assert_eq!(status(&hand, ""), Some(Status::Running));
    assert_eq!(hand.exec_to_end("two", &["true"]).0, 0);
    hand.end();
}

fn an_exec_that_was_never_started_is_deleted(bench: &Bench) {
    let shim = Shim::shared(bench);
    let hand = shim.sleeping();
    shim.tasks.exec(&hand.exec_request("one", &["true"])).expect("Exec");
    shim.tasks.delete(&hand.id, "one").expect("Delete");
    assert_eq!(status(&hand, "one"), None);
    hand.end();
}

fn an_exec_is_killed_by_its_id(bench: &Bench) {
    let shim = Shim::shared(bench);
    let hand = shim.sleeping();
    let pid = hand.exec("one", &["sleep", "1000"]);
    shim.tasks.kill(&hand.id, "one", Signal::KILL, false).expect("Kill");
    assert_eq!(shim.tasks.wait(&hand.id, "one").map(|end| end.exit_status), Ok(137));
    assert!(!host::is_alive(pid.cast_signed()));
    assert_eq!(status(&hand, ""), Some(Status::Running));
    shim.tasks.delete(&hand.id, "one").expect("Delete");
    hand.end();
}

fn an_exec_that_runs_cannot_be_deleted(bench: &Bench) {
    let shim = Shim::shared(bench);
    let hand = shim.sleeping();
    hand.exec("one", &["sleep", "1000"]);
    let failure = shim.tasks.delete(&hand.id, "one").expect_err("it runs");
    assert!([Code::UNKNOWN, Code::FAILED_PRECONDITION].contains(&failure.code), "{failure:?}");
    assert_eq!(status(&hand, "one"), Some(Status::Running));
    hand.end();
}

fn an_exec_that_has_ended_cannot_be_killed(bench: &Bench) {
    let shim = Shim::shared(bench);
    let hand = shim.sleeping();
    hand.exec("one", &["true"]);
    shim.tasks.wait(&hand.id, "one").expect("Wait");
    let failure = shim.tasks.kill(&hand.id, "one", Signal::TERM, false).expect_err("it has ended");
    assert_eq!(failure.code, Code::NOT_FOUND, "{failure:?}");
    hand.end();
}

fn an_exec_in_a_stopped_container_is_refused(bench: &Bench) {
    let shim = Shim::shared(bench);
    let hand = shim.sleeping();
    shim.tasks.exec(&hand.exec_request("early", &["true"])).expect("Exec");
    shim.tasks.kill(&hand.id, "", Signal::KILL, false).expect("Kill");
    hand.exits(137);
    shim.tasks.exec(&hand.exec_request("late", &["true"])).expect_err("it has ended");
    shim.tasks.start(&hand.id, "early").expect_err("it has ended");
    hand.delete();
}

fn calls_about_an_unknown_exec_are_not_found(bench: &Bench) {
    let shim = Shim::shared(bench);
    let hand = shim.sleeping();
    let (tasks, id, exec) = (&shim.tasks, hand.id.as_str(), "nonesuch");
    let codes = [
        ("State", tasks.state(id, exec).expect_err("State").code),
        ("Start", tasks.start(id, exec).expect_err("Start").code),
        ("Delete", tasks.delete(id, exec).expect_err("Delete").code),
        ("Kill", tasks.kill(id, exec, Signal::KILL, false).expect_err("Kill").code),
        ("Wait", tasks.wait(id, exec).expect_err("Wait").code),
        ("ResizePty", tasks.resize(id, exec, 80, 25).expect_err("ResizePty").code),
    ];
    for (method, code) in codes {
        assert_eq!(code, Code::NOT_FOUND, "{method}");
    }
    let code = tasks.close_stdin(id, exec).expect_err("CloseIO").code;
    assert!([Code::UNKNOWN, Code::NOT_FOUND].contains(&code), "{code:?}");
    hand.end();
}

fn pids_lists_execs_by_name(bench: &Bench) {
    let shim = Shim::shared(bench);
    let hand = shim.sleeping();
    let init = shim.tasks.state(&hand.id, "").expect("State").pid;
    let exec = hand.exec("named", &["sh", "-c", "sleep 1000; true"]);
    let listed = || shim.tasks.pids(&hand.id).expect("Pids");
    assert!(coracle_integration::command::eventually(|| listed().len() == 3), "{:?}", listed());
    for process in listed() {
        let name = (process.pid == exec).then(|| "named".to_owned());
        assert_eq!(process.exec_id(), name, "{process:?}");
    }
    let pids: BTreeSet<u32> = listed().iter().map(|process| process.pid).collect();
    assert!(pids.contains(&init) && pids.contains(&exec), "{pids:?}");
    hand.end();
}

fn the_end_of_the_first_process_ends_every_exec(bench: &Bench) {
    let shim = Shim::shared(bench);
    let hand = shim.sleeping();
    for exec in ["one", "two", "three"] {
        hand.exec(exec, &["sleep", "1000"]);
    }
    shim.tasks.kill(&hand.id, "", Signal::KILL, false).expect("Kill");
    hand.exits(137);
    for exec in ["one", "two", "three"] {
        assert_eq!(shim.tasks.wait(&hand.id, exec).map(|end| end.exit_status), Ok(137));
        shim.tasks.delete(&hand.id, exec).expect("Delete");
    }
    hand.delete();
}

fn execs_run_side_by_side(bench: &Bench) {
    let shim = Shim::shared(bench);
    let hand = shim.sleeping();
    std::thread::scope(|scope| {
        for number in 0..10_u32 {
            let hand = &hand;
            scope.spawn(move || {
                let script = format!("echo {number}; sleep 0.1; exit {number}");
                let ended = hand.exec_to_end(&format!("e{number}"), &["sh", "-c", &script]);
                assert_eq!(ended, (number, format!("{number}\n")));
            });
        }
    });
    hand.end();
}

fn an_exec_whose_process_is_no_json_is_refused(bench: &Bench) {
    let shim = Shim::shared(bench);
    let hand = shim.sleeping();
    let mut request = hand.exec_request("one", &["true"]);
    request.spec = Some(Any { type_url: PROCESS.into(), value: b"{ \"args\": [".to_vec() });
    shim.tasks.exec(&request).expect_err("it is no JSON");
    assert_eq!(status(&hand, "one"), None);
    assert_eq!(hand.exec_to_end("one", &["true"]).0, 0);
    hand.end();
}

fn an_exec_of_a_paused_container_is_paused(bench: &Bench) {
    let shim = Shim::shared(bench);
    let hand = shim.sleeping();
    hand.exec("one", &["sleep", "1000"]);
    shim.tasks.pause(&hand.id).expect("Pause");
    assert_eq!(status(&hand, "one"), Some(Status::Paused));
    shim.tasks.resume(&hand.id).expect("Resume");
    assert_eq!(status(&hand, "one"), Some(Status::Running));
    hand.end();
}
