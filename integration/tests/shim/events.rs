//! What containerd is told of a task, and in which order.

use coracle_integration::engine::bench::{Bench, Check};
use coracle_integration::engine::events::Event;
use coracle_integration::engine::shim::Shim;
use coracle_integration::{bundle, named};
use rustix::process::Signal;

pub fn checks() -> Vec<(&'static str, Check)> {
    named![
        a_life_is_told_in_order,
        a_short_life_is_told_in_order,
        short_execs_are_told_in_order,
        a_failed_exec_is_not_told_as_started,
        pause_and_resume_are_told,
        an_oom_kill_is_told_before_the_exit,
        the_first_process_is_the_last_to_end,
        the_first_process_is_the_last_to_end_without_a_pid_namespace,
    ]
}

fn topics(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| event.topic.as_str()).collect()
}

fn a_life_is_told_in_order(bench: &Bench) {
    bench.engine.events();
    let shim = Shim::shared(bench);
    let hand = shim.sleeping();
    let pid = shim.tasks.state(&hand.id, "").expect("State").pid;
    let exec = hand.exec("one", &["sh", "-c", "exit 3"]);
    shim.tasks.wait(&hand.id, "one").expect("Wait");
    shim.tasks.delete(&hand.id, "one").expect("Delete");
    hand.end();
    let events = bench.engine.events().until(&hand.id, "/tasks/delete");
    assert_eq!(
        topics(&events),
        [
            "/tasks/create",
            "/tasks/start",
            "/tasks/exec-added",
            "/tasks/exec-started",
            "/tasks/exit",
            "/tasks/exit",
            "/tasks/delete",
        ]
    );
    let pid = u64::from(pid);
    let [create, start, added, started, exec_exit, exit, delete] = events.as_slice() else { unreachable!() };
    assert_eq!((create.text("bundle"), create.number("pid")), (hand.request.bundle.as_str(), pid));
    assert_eq!(create.body["io"]["stdout"], hand.request.stdout.as_str());
    assert_eq!(create.body["rootfs"][0]["source"], hand.request.rootfs[0].source.as_str());
    assert_eq!(start.number("pid"), pid);
    assert_eq!(added.text("exec_id"), "one");
    assert_eq!((started.text("exec_id"), started.number("pid")), ("one", u64::from(exec)));
    assert_eq!(
        (exec_exit.text("id"), exec_exit.number("pid"), exec_exit.number("exit_status")),
        ("one", u64::from(exec), 3)
    );
    assert_eq!(
        (exit.text("id"), exit.number("pid"), exit.number("exit_status")),
        (hand.id.as_str(), pid, 137)
    );
    assert_eq!((delete.number("pid"), delete.number("exit_status")), (pid, 137));
    for event in [exit, delete] {
        // A text or a message with seconds, by the version of ctr.
        let at = &event.body["exited_at"];
        assert!(at.as_str().is_some_and(|at| at.starts_with("20")) || at["seconds"].is_u64(), "{event:?}");
    }
}

fn a_short_life_is_told_in_order(bench: &Bench) {
    bench.engine.events();
    let shim = Shim::shared(bench);
    for _ in 0..8 {
        let hand = shim.container(&["true"]).up();
        hand.exits(0);
        hand.delete();
        let events = bench.engine.events().until(&hand.id, "/tasks/delete");
        assert_eq!(topics(&events), ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"]);
    }
}

fn short_execs_are_told_in_order(bench: &Bench) {
    bench.engine.events();
    let shim = Shim::shared(bench);
    let hand = shim.sleeping();
    for number in 0..10 {
        hand.exec_to_end(&format!("e{number}"), &["true"]);
    }
    hand.end();
    let events = bench.engine.events().until(&hand.id, "/tasks/delete");
    for number in 0..10 {
        let exec = format!("e{number}");
        let of_exec: Vec<&str> = events
            .iter()
            .filter(|event| event.text("exec_id") == exec || event.text("id") == exec)
            .map(|event| event.topic.as_str())
            .collect();
        assert_eq!(of_exec, ["/tasks/exec-added", "/tasks/exec-started", "/tasks/exit"], "of {exec}");
    }
}

fn a_failed_exec_is_not_told_as_started(bench: &Bench) {
    bench.engine.events();
    let shim = Shim::shared(bench);
    let hand = shim.sleeping();
    shim.tasks.exec(&hand.exec_request("one", &["nonesuch"])).expect("Exec");
    shim.tasks.start(&hand.id, "one").expect_err("there is no such program");
    hand.end();
    let events = bench.engine.events().until(&hand.id, "/tasks/delete");
    assert!(!topics(&events).contains(&"/tasks/exec-started"), "{events:#?}");
    let exits: Vec<&str> =
        events.iter().filter(|event| event.topic == "/tasks/exit").map(|e| e.text("id")).collect();
    assert_eq!(exits, [hand.id.as_str()], "what never began does not end");
}

fn pause_and_resume_are_told(bench: &Bench) {
    bench.engine.events();
    let shim = Shim::shared(bench);
    let hand = shim.sleeping();
    shim.tasks.pause(&hand.id).expect("Pause");
    shim.tasks.resume(&hand.id).expect("Resume");
    hand.end();
    let events = bench.engine.events().until(&hand.id, "/tasks/delete");
    assert_eq!(topics(&events)[2..4], ["/tasks/paused", "/tasks/resumed"]);
}

fn an_oom_kill_is_told_before_the_exit(bench: &Bench) {
    bench.engine.events();
    let shim = Shim::shared(bench);
    // dd wants a buffer larger than the limit.
    let hand =
        shim.container(&["dd", "if=/dev/zero", "of=/dev/null", "bs=256M", "count=1"]).config(|config| {
            config["linux"]["resources"]["memory"] =
                serde_json::json!({ "limit": 33_554_432, "swap": 33_554_432 });
        });
    let hand = hand.up();
    hand.exits(137);
    hand.delete();
    let events = bench.engine.events().until(&hand.id, "/tasks/delete");
    let topics = topics(&events);
    let at = |topic: &str| topics.iter().position(|have| *have == topic);
    let oom = at("/tasks/oom");
    assert!(oom.is_some() && oom > at("/tasks/start"), "{topics:?}");
    if bench.runtime.is_ours() {
        assert!(oom < at("/tasks/exit"), "{topics:?}");
    }
}

fn the_first_process_is_the_last_to_end(bench: &Bench) {
    last_to_end(bench, true);
}

fn the_first_process_is_the_last_to_end_without_a_pid_namespace(bench: &Bench) {
    last_to_end(bench, false);
}

#[track_caller]
fn last_to_end(bench: &Bench, pid_namespace: bool) {
    bench.engine.events();
    let shim = Shim::shared(bench);
    let hand = shim.sleeping_container().config(|config| {
        if !pid_namespace {
            bundle::without_namespace(config, "pid");
        }
    });
    let hand = hand.up();
    let execs = ["one", "two", "three", "four"];
    for exec in execs {
        hand.exec(exec, &["sleep", "1000"]);
    }
    shim.tasks.kill(&hand.id, "", Signal::KILL, false).expect("Kill");
    hand.exits(137);
    for exec in execs {
        shim.tasks.wait(&hand.id, exec).expect("Wait");
    }
    hand.delete();
    let events = bench.engine.events().until(&hand.id, "/tasks/delete");
    let mut exits: Vec<&str> =
        events.iter().filter(|e| e.topic == "/tasks/exit").map(|e| e.text("id")).collect();
    assert_eq!(exits.pop(), Some(hand.id.as_str()), "{events:#?}");
    exits.sort_unstable();
    assert_eq!(exits, ["four", "one", "three", "two"]);
}
