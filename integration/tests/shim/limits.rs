//! Update and Stats.

use std::collections::BTreeSet;
use std::fs;

use coracle_integration::engine::bench::{Bench, Check};
use coracle_integration::engine::containerd::ShimRuntime;
use coracle_integration::engine::protobuf;
use coracle_integration::engine::shim::{Hand, Shim};
use coracle_integration::{host, named};
use serde_json::json;

pub fn checks() -> Vec<(&'static str, Check)> {
    named![
        update_changes_limits,
        update_of_what_cannot_be_is_an_error,
        stats_are_the_numbers_of_the_cgroup,
        stats_of_a_paused_container,
        stats_of_a_container_that_has_ended,
    ]
}

pub fn checks_of_ours() -> Vec<(&'static str, Check)> {
    named![stats_have_every_field_that_the_yardsticks_have]
}

/// What the kernel has in a file of the container's cgroup, in a v1 hierarchy.
fn cgroup_file(hand: &Hand, controller: &str, file: &str) -> String {
    let pid = hand.tasks().state(&hand.id, "").expect("State").pid.cast_signed();
    let path = host::cgroup_of(pid, controller).expect("a cgroup in this hierarchy").join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).trim().to_owned()
}

fn update_changes_limits(bench: &Bench) {
    let shim = Shim::shared(bench);
    let hand = shim.sleeping_container().config(|config| {
        config["linux"]["resources"]["memory"] = json!({ "limit": 67_108_864 });
    });
    let hand = hand.up();
    assert_eq!(cgroup_file(&hand, "memory", "memory.limit_in_bytes"), "67108864");
    let change = json!({ "memory": { "limit": 33_554_432 }, "cpu": { "shares": 512, "quota": 20_000, "period": 100_000 },
        "pids": { "limit": 50 } });
    shim.tasks.update(&hand.id, &change).expect("Update");
    assert_eq!(cgroup_file(&hand, "memory", "memory.limit_in_bytes"), "33554432");
    assert_eq!(cgroup_file(&hand, "cpu", "cpu.shares"), "512");
    assert_eq!(cgroup_file(&hand, "cpu", "cpu.cfs_quota_us"), "20000");
    assert_eq!(cgroup_file(&hand, "pids", "pids.max"), "50");
    hand.end();
}

fn update_of_what_cannot_be_is_an_error(bench: &Bench) {
    let shim = Shim::shared(bench);
    let hand = shim.sleeping();
    shim.tasks.update(&hand.id, &json!({ "cpu": { "cpus": "4000" } })).expect_err("there are not so many");
    shim.tasks.update(&hand.id, &json!({ "memory": { "limit": "much" } })).expect_err("not a number");
    let failure = shim
        .tasks
        .update(&hand.id, &json!({ "memory": { "limit": 1 } }))
        .expect_err("it needs more than that");
    assert!(!failure.message.contains("config.json"), "it came in the request: {failure:?}");
    assert_eq!(hand.exec_to_end("one", &["true"]).0, 0, "the container goes on");
    hand.end();
}

fn busy(shim: &Shim) -> Hand<'_> {
    // Memory, CPU time in user and system mode, a page of the cache, and a process or two.
    let hand = shim.script(
        "i=0; while [ $i -lt 300 ]; do i=$((i+1)); cat /bin/busybox >/dev/null; done; echo done; sleep 1000",
    );
    let hand = hand.config(|config| {
        config["linux"]["resources"]["memory"] = json!({ "limit": 67_108_864 });
        config["linux"]["resources"]["pids"] = json!({ "limit": 77 });
    });
    let hand = hand.up();
    hand.wait_for_output("done");
    hand
}

fn stats_are_the_numbers_of_the_cgroup(bench: &Bench) {
    let shim = Shim::shared(bench);
    let hand = busy(&shim);
    let stats = shim.tasks.stats(&hand.id).expect("Stats");
    assert_eq!(stats.type_url, "io.containerd.cgroups.v1.Metrics");
    let number = |path: &[u32]| protobuf::number(&stats.value, path);
    assert_eq!(number(&[2, 2]), Some(77), "pids.limit");
    assert!(number(&[2, 1]).is_some_and(|count| (1..=3).contains(&count)), "pids.current");
    // CPU usage in nanoseconds, of user, kernel and both.
    let (total, kernel, user) = (number(&[3, 1, 1]), number(&[3, 1, 2]), number(&[3, 1, 3]));
    assert!(total.is_some_and(|time| (10_000_000..60_000_000_000).contains(&time)), "{total:?}");
    assert!(user.or(kernel).is_some_and(|time| time >= 1_000_000), "{user:?} {kernel:?}");
    // The numbers of MemoryStat.usage, and of its limit and usage.
    assert_eq!(number(&[4, 33, 1]), Some(67_108_864), "memory.usage.limit");
    let used: Option<u64> = number(&[4, 33, 2]);
    assert!(used.is_some_and(|bytes| (4096..67_108_864).contains(&bytes)), "{used:?}");
    hand.end();
}

fn stats_of_a_paused_container(bench: &Bench) {
    let shim = Shim::shared(bench);
    let hand = shim.sleeping();
    shim.tasks.pause(&hand.id).expect("Pause");
    shim.tasks.stats(&hand.id).expect("Stats");
    shim.tasks.resume(&hand.id).expect("Resume");
    hand.end();
}

fn stats_have_every_field_that_the_yardsticks_have(bench: &Bench) {
    let fields = |runtime: ShimRuntime| -> BTreeSet<Vec<u32>> {
        let shim = Shim::shared(&Bench { runtime, ..bench.clone() });
        let hand = busy(&shim);
        let stats = shim.tasks.stats(&hand.id).expect("Stats");
        let fields = protobuf::fields(&stats.value, 2);
        hand.end();
        fields
    };
    let (theirs, ours) = (fields(ShimRuntime::RUNC), fields(bench.runtime.clone()));
    // A 0 is not written. Of memory's own numbers only these are above 0 at any moment: faults, pages in, the limits;
    // and after 32 come messages.
    let certain = |path: &[u32]| match path {
        [4, number] => [7, 9, 16, 17, 24, 26].contains(number) || *number > 32,
        // What was read of disks, and how many processes sleep or run just now.
        [5 | 8, _] => false,
        _ => true,
    };
    let missing: Vec<_> = theirs.difference(&ours).filter(|path| certain(path)).collect();
    assert!(missing.is_empty(), "missing fields, by number: {missing:?}");
}

fn stats_of_a_container_that_has_ended(bench: &Bench) {
    let shim = Shim::shared(bench);
    let hand = shim.sleeping();
    shim.tasks.kill(&hand.id, "", rustix::process::Signal::KILL, false).expect("Kill");
    hand.exits(137);
    let stats = shim.tasks.stats(&hand.id).expect("its cgroup is there until it is deleted");
    assert_eq!(stats.type_url, "io.containerd.cgroups.v1.Metrics");
    hand.delete();
}
