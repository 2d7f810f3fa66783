//! Create, Start, State, Wait, Kill, Pause, Resume, Connect, Delete, Shutdown.

use std::fs;
use std::sync::mpsc;
use std::thread;

use coracle_integration::command::eventually;
use coracle_integration::engine::bench::{Bench, Check};
use coracle_integration::engine::shim::Shim;
use coracle_integration::engine::task::{Failure, Status, Tasks};
use coracle_integration::{host, leftovers, named};
use rustix::process::Signal;
use serde_json::json;
use ttrpc::proto::Code;

pub fn checks() -> Vec<(&'static str, Check)> {
    named![
        a_container_is_created_started_waited_for_and_deleted,
        state_tells_what_create_was_given,
        a_second_create_of_an_id_is_refused,
        create_of_what_is_not_there_is_an_error_and_leaves_nothing,
        create_of_a_broken_configuration_is_an_error_and_leaves_nothing,
        create_with_a_root_filesystem_that_cannot_be_mounted_leaves_nothing,
        a_second_start_is_an_error,
        delete_of_a_running_container_is_an_error,
        a_created_container_is_killed_and_deleted_without_a_start,
        calls_about_an_unknown_container_are_not_found,
        kill_of_a_stopped_container_is_not_found,
        a_signal_reaches_the_first_process,
        kill_all_reaches_every_process,
        pause_and_resume,
        a_paused_container_is_killed,
        wait_is_answered_before_and_after_the_end,
        connect_tells_who_is_there,
        shutdown_waits_for_the_last_container,
        the_shim_ends_with_its_last_container,
        processes_that_outlive_the_first_end_with_the_container,
        hundreds_of_orphans_are_reaped,
    ]
}

pub fn checks_of_ours() -> Vec<(&'static str, Check)> {
    named![
        checkpoint_is_refused_with_a_reason,
        a_create_that_is_killed_leaves_nothing,
        signals_lists_statistics_and_limits_need_no_process,
    ]
}

fn status(shim: &Shim, id: &str) -> Option<Status> {
    shim.tasks.state(id, "").ok().and_then(|state| Status::try_from(state.status).ok())
}

fn code<T: std::fmt::Debug>(answer: Result<T, Failure>) -> Code {
    answer.expect_err("this was to fail").code
}

fn a_container_is_created_started_waited_for_and_deleted(bench: &Bench) {
    let shim = Shim::shared(bench);
    let hand = shim.script("echo here; exit 7");
    let created = shim.tasks.create(&hand.request).expect("Create");
    assert_eq!(status(&shim, &hand.id), Some(Status::Created));
    assert!(host::is_alive(created.cast_signed()), "the first process waits to be started");
    assert_eq!(hand.start(), created, "the process is the one that was created");
    let waited = shim.tasks.wait(&hand.id, "").expect("Wait");
    assert_eq!(waited.exit_status, 7);
    let state = shim.tasks.state(&hand.id, "").expect("State");
    assert_eq!((state.status, state.exit_status), (Status::Stopped as i32, 7));
    assert!(waited.exited_at.is_some_and(|at| at.seconds > 1_700_000_000), "{waited:?}");
    assert_eq!(state.exited_at, waited.exited_at);
    let deleted = shim.tasks.delete(&hand.id, "").expect("Delete");
    assert_eq!((deleted.pid, deleted.exit_status), (created, 7));
    assert_eq!(deleted.exited_at, waited.exited_at);
    assert_eq!(hand.output(), "here\n");
    assert_eq!(code(shim.tasks.state(&hand.id, "")), Code::NOT_FOUND);
    hand.assert_nothing_left();
}

fn state_tells_what_create_was_given(bench: &Bench) {
    let shim = Shim::shared(bench);
    let hand = shim.sleeping();
    let state = shim.tasks.state(&hand.id, "").expect("State");
    assert_eq!((state.id.as_str(), state.exec_id.as_str()), (hand.id.as_str(), ""));
    assert_eq!(state.bundle, hand.request.bundle);
    assert_eq!(
        (state.stdin, state.stdout, state.stderr, state.terminal),
        (hand.request.stdin.clone(), hand.request.stdout.clone(), hand.request.stderr.clone(), false)
    );
    assert_eq!((state.status, state.exit_status), (Status::Running as i32, 0));
    // Go's zero time is of the year 1.
    assert!(state.exited_at.is_none_or(|at| at.seconds <= 0), "{:?}", state.exited_at);
    hand.end();
}

fn a_second_create_of_an_id_is_refused(bench: &Bench) {
    let shim = Shim::shared(bench);
    let hand = shim.sleeping();
    let failure = shim.tasks.create(&hand.request).expect_err("the id is taken");
    if bench.runtime.is_ours() {
        assert_eq!(failure.code, Code::ALREADY_EXISTS, "{failure:?}");
        assert_eq!(status(&shim, &hand.id), Some(Status::Running), "the first is not harmed");
        hand.end();
    }
}

fn create_of_what_is_not_there_is_an_error_and_leaves_nothing(bench: &Bench) {
    let shim = Shim::shared(bench);
    let hand = shim.container(&["nonesuch"]);
    // A runtime may look for the program at create or at start.
    let failure = match shim.tasks.create(&hand.request) {
        Err(failure) => failure,
        Ok(_) => {
            let failure = shim.tasks.start(&hand.id, "").expect_err("there is no such program");
            shim.tasks.delete(&hand.id, "").expect("Delete");
            failure
        }
    };
    assert!(failure.message.contains("executable file not found in $PATH"), "{failure:?}");
    assert_eq!(code(shim.tasks.state(&hand.id, "")), Code::NOT_FOUND);
    hand.assert_nothing_left();
}

fn create_of_a_broken_configuration_is_an_error_and_leaves_nothing(bench: &Bench) {
    let shim = Shim::shared(bench);
    let hand = shim.sleeping_container().config(|config| config["process"]["cwd"] = "nowhere".into());
    let failure = shim.tasks.create(&hand.request).expect_err("a relative directory is refused");
    assert!(failure.message.to_lowercase().contains("cwd"), "{failure:?}");
    assert_eq!(code(shim.tasks.state(&hand.id, "")), Code::NOT_FOUND);
    hand.assert_nothing_left();
}

fn create_with_a_root_filesystem_that_cannot_be_mounted_leaves_nothing(bench: &Bench) {
    let shim = Shim::shared(bench);
    let hand = shim.sleeping_container().request(|request| {
        let mut wrong = request.rootfs[0].clone();
        wrong.source = "/nonesuch".into();
        request.rootfs.push(wrong);
    });
    let failure = shim.tasks.create(&hand.request).expect_err("there is nothing to mount");
    assert!(failure.message.contains("mount"), "{failure:?}");
    assert_eq!(code(shim.tasks.state(&hand.id, "")), Code::NOT_FOUND);
    hand.assert_nothing_left();
}

fn a_second_start_is_an_error(bench: &Bench) {
    let shim = Shim::shared(bench);
    let hand = shim.sleeping();
    let failure = shim.tasks.start(&hand.id, "").expect_err("it runs");
    assert!([Code::UNKNOWN, Code::FAILED_PRECONDITION].contains(&failure.code), "{failure:?}");
    assert_eq!(status(&shim, &hand.id), Some(Status::Running));
    hand.end();
}

fn delete_of_a_running_container_is_an_error(bench: &Bench) {
    let shim = Shim::shared(bench);
    let hand = shim.sleeping();
    let failure = shim.tasks.delete(&hand.id, "").expect_err("it runs");
    assert!([Code::UNKNOWN, Code::FAILED_PRECONDITION].contains(&failure.code), "{failure:?}");
    assert_eq!(status(&shim, &hand.id), Some(Status::Running));
    hand.end();
}

fn a_created_container_is_killed_and_deleted_without_a_start(bench: &Bench) {
    let shim = Shim::shared(bench);
    let hand = shim.sleeping_container().create();
    hand.end();
}

fn calls_about_an_unknown_container_are_not_found(bench: &Bench) {
    let tasks = &Shim::shared(bench).tasks;
    let id = "nonesuch";
    let codes = [
        ("State", code(tasks.state(id, ""))),
        ("Start", code(tasks.start(id, ""))),
        ("Delete", code(tasks.delete(id, ""))),
        ("Pids", code(tasks.pids(id))),
        ("Pause", code(tasks.pause(id))),
        ("Resume", code(tasks.resume(id))),
        ("Kill", code(tasks.kill(id, "", Signal::KILL, false))),
        ("CloseIO", code(tasks.close_stdin(id, ""))),
        ("ResizePty", code(tasks.resize(id, "", 80, 25))),
        ("Update", code(tasks.update(id, &serde_json::json!({})))),
        ("Wait", code(tasks.wait(id, ""))),
        ("Stats", code(tasks.stats(id))),
    ];
    for (method, code) in codes {
        assert_eq!(code, Code::NOT_FOUND, "{method}");
    }
}

fn kill_of_a_stopped_container_is_not_found(bench: &Bench) {
    let shim = Shim::shared(bench);
    let hand = shim.container(&["true"]).up();
    hand.exits(0);
    let failure = shim.tasks.kill(&hand.id, "", Signal::TERM, false).expect_err("it has ended");
    assert_eq!(failure.code, Code::NOT_FOUND, "{failure:?}");
    // The text that Docker and CRI look for.
    assert!(failure.message.contains("process already finished"), "{failure:?}");
    hand.delete();
}

fn a_signal_reaches_the_first_process(bench: &Bench) {
    let shim = Shim::shared(bench);
    let hand = shim.script("trap 'echo got; exit 5' USR1; echo ready; while :; do sleep 0.05; done").up();
    hand.wait_for_output("ready");
    shim.tasks.kill(&hand.id, "", Signal::USR1, false).expect("Kill");
    hand.exits(5);
    hand.delete();
    assert_eq!(hand.output(), "ready\ngot\n");
}

fn kill_all_reaches_every_process(bench: &Bench) {
    let shim = Shim::shared(bench);
    let hand = shim.sleeping();
    let more = hand.exec("more", &["sleep", "1000"]);
    shim.tasks.kill(&hand.id, "", Signal::KILL, true).expect("Kill");
    hand.exits(137);
    assert_eq!(shim.tasks.wait(&hand.id, "more").map(|end| end.exit_status), Ok(137));
    assert!(!host::is_alive(more.cast_signed()));
    hand.delete();
}

fn pause_and_resume(bench: &Bench) {
    let shim = Shim::shared(bench);
    let hand = shim.sleeping();
    shim.tasks.pause(&hand.id).expect("Pause");
    assert_eq!(status(&shim, &hand.id), Some(Status::Paused));
    shim.tasks.resume(&hand.id).expect("Resume");
    assert_eq!(status(&shim, &hand.id), Some(Status::Running));
    hand.end();
}

fn a_paused_container_is_killed(bench: &Bench) {
    let shim = Shim::shared(bench);
    let hand = shim.sleeping();
    shim.tasks.pause(&hand.id).expect("Pause");
    shim.tasks.kill(&hand.id, "", Signal::KILL, false).expect("Kill");
    hand.exits(137);
    hand.delete();
}

fn wait_is_answered_before_and_after_the_end(bench: &Bench) {
    let shim = Shim::shared(bench);
    let hand = shim.sleeping();
    let (told, heard) = mpsc::channel();
    for _ in 0..5 {
        let (told, tasks, id) = (told.clone(), shim.tasks.clone(), hand.id.clone());
        thread::spawn(move || told.send(tasks.wait(&id, "").map(|end| end.exit_status)));
    }
    shim.tasks.kill(&hand.id, "", Signal::KILL, false).expect("Kill");
    for _ in 0..5 {
        assert_eq!(heard.recv().expect("every waiter is answered"), Ok(137));
    }
    hand.exits(137);
    hand.delete();
}

fn connect_tells_who_is_there(bench: &Bench) {
    let shim = Shim::shared(bench);
    let hand = shim.sleeping_container();
    let pid = shim.tasks.create(&hand.request).expect("Create");
    let who = shim.tasks.who(&hand.id).expect("Connect");
    assert_eq!(who.task_pid, pid);
    let line = fs::read_to_string(format!("/proc/{}/cmdline", who.shim_pid)).expect("the shim is there");
    assert!(line.contains("containerd-shim-"), "{line}");
    hand.end();
}

fn signals_lists_statistics_and_limits_need_no_process(bench: &Bench) {
    let shim = Shim::own(bench);
    let hand = shim.script("trap 'echo heard' USR1; echo ready; while :; do sleep 0.1; done").up();
    hand.wait_for_output("ready");
    let pids = host::v1_hierarchy("pids").expect("a pids hierarchy");
    let cgroup = pids.join(bench.engine.namespace()).join(format!("shim-{}", shim.pid()));
    fs::create_dir_all(&cgroup).expect("making a cgroup");
    let limit = |limit: &str| fs::write(cgroup.join("pids.max"), limit).expect("setting a limit");
    limit("1");
    fs::write(cgroup.join("cgroup.procs"), shim.pid().to_string()).expect("moving the shim");
    shim.tasks.state(&hand.id, "").expect("State");
    assert!(!shim.tasks.pids(&hand.id).expect("Pids").is_empty());
    shim.tasks.stats(&hand.id).expect("Stats");
    shim.tasks.update(&hand.id, &json!({ "cpu": { "shares": 333 } })).expect("Update");
    shim.tasks.kill(&hand.id, "", Signal::USR1, false).expect("Kill");
    hand.wait_for_output("heard");
    // What needs one says why it fails, and harms nothing.
    let failure = shim.tasks.pause(&hand.id).expect_err("a worker");
    assert!(failure.message.contains("temporarily unavailable"), "{failure:?}");
    let request = hand.exec_request("one", &["true"]);
    shim.tasks.exec(&request).expect("Exec");
    shim.tasks.start(&hand.id, "one").expect_err("a process");
    shim.tasks.delete(&hand.id, "one").expect("Delete");
    limit("max");
    shim.tasks.pause(&hand.id).expect("Pause");
    shim.tasks.resume(&hand.id).expect("Resume");
    assert_eq!(hand.exec_to_end("two", &["true"]).0, 0);
    hand.end();
    shim.anchor().end();
    assert!(eventually(|| fs::remove_dir(&cgroup).is_ok()), "{}", cgroup.display());
}

fn checkpoint_is_refused_with_a_reason(bench: &Bench) {
    let shim = Shim::shared(bench);
    let hand = shim.sleeping();
    let failure = shim.tasks.checkpoint(&hand.id, &hand.path("image")).expect_err("not there yet");
    assert_eq!(failure.code, Code::UNIMPLEMENTED, "{failure:?}");
    assert!(failure.message.contains("checkpoint"), "{failure:?}");
    assert_eq!(status(&shim, &hand.id), Some(Status::Running));
    hand.end();
}

fn shutdown_waits_for_the_last_container(bench: &Bench) {
    let shim = Shim::shared(bench);
    let hand = shim.sleeping();
    shim.tasks.shutdown(&hand.id).expect("Shutdown");
    assert_eq!(status(&shim, &hand.id), Some(Status::Running), "there are containers, so nothing ends");
    hand.end();
}

fn the_shim_ends_with_its_last_container(bench: &Bench) {
    let shim = Shim::own(bench);
    let (pid, address) = (shim.pid(), shim.address.clone());
    shim.anchor().end();
    assert!(eventually(|| !host::is_alive(pid)), "the shim {pid} is still there");
    let socket = std::path::Path::new(address.trim_start_matches("unix://"));
    assert!(eventually(|| !socket.exists()), "its socket is still there");
    assert!(!Tasks::answers(&address));
}

fn processes_that_outlive_the_first_end_with_the_container(bench: &Bench) {
    let shim = Shim::shared(bench);
    let hand = shim.script("sleep 1000 & sleep 1000 & exit 4").up();
    hand.exits(4);
    hand.delete();
    // Without a pid namespace nothing of the kernel ends them.
    let hand = shim.script("sleep 1000 & exit 4").config(|config| {
        coracle_integration::bundle::without_namespace(config, "pid");
    });
    let hand = hand.up();
    hand.exits(4);
    hand.delete();
    assert!(leftovers::cgroups(&hand.id).is_empty());
}

fn hundreds_of_orphans_are_reaped(bench: &Bench) {
    let shim = Shim::shared(bench);
    let pid = shim.pid();
    let hand = shim.script("i=0; while [ $i -lt 200 ]; do (sleep 0 &); i=$((i+1)); done; sleep 0.2");
    // In the host's pid namespace the shim, as subreaper, becomes their parent.
    let hand = hand.config(|config| coracle_integration::bundle::without_namespace(config, "pid")).up();
    hand.exits(0);
    hand.delete();
    let zombies = || host::pids().into_iter().filter(|&one| host::is_zombie_of(one, pid)).count();
    assert!(eventually(|| zombies() == 0), "{} zombies", zombies());
}

fn a_create_that_is_killed_leaves_nothing(bench: &Bench) {
    let shim = Shim::shared(bench);
    let hand = shim.sleeping_container().config(|config| {
        // The parent of this hook is who makes the container.
        config["hooks"]["createRuntime"] =
            serde_json::json!([{ "path": "/bin/sh", "args": ["sh", "-c", "kill -9 $PPID"] }]);
    });
    let failure = shim.tasks.create(&hand.request).expect_err("it was killed");
    assert!(failure.message.contains("137"), "{failure:?}");
    hand.assert_nothing_left();
    let hand = hand.config(|config| config["hooks"] = serde_json::json!({})).up();
    hand.end();
}
