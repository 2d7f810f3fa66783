//! Containers that share a shim, as those of a pod do.

use std::collections::BTreeSet;

use coracle_integration::command::{Running, eventually};
use coracle_integration::engine::bench::{Bench, Check, Id, SLEEP};
use coracle_integration::engine::shim::{Shim, address_of};
use coracle_integration::{host, named};

pub fn checks() -> Vec<(&'static str, Check)> {
    named![
        a_pod_of_five_has_one_shim,
        containers_of_one_group_that_start_at_once_have_one_shim,
        containers_of_other_groups_have_other_shims,
    ]
}

#[track_caller]
fn assert_one_shim(bench: &Bench, containers: Vec<Id>) {
    let addresses: BTreeSet<String> = containers.iter().map(|id| address_of(bench.engine, id)).collect();
    assert_eq!(addresses.len(), 1, "{addresses:?}");
    let mut containers = containers.into_iter();
    let shim = Shim::of(bench, containers.next().expect("there are five"));
    let pid = shim.pid();
    shim.anchor().end_in_group();
    let rest: Vec<Id> = containers.collect();
    for id in &rest {
        assert_eq!(bench.engine.status(id), "RUNNING", "the first one's end is not the others'");
    }
    for id in rest {
        assert!(host::is_alive(pid), "the shim has ended before its containers");
        id.end_in_group();
    }
    assert!(eventually(|| !host::is_alive(pid)), "the shim {pid} is still there");
}

fn a_pod_of_five_has_one_shim(bench: &Bench) {
    let group = format!("io.kubernetes.cri.sandbox-id={}", &*bench.id());
    let containers = (0..5).map(|_| bench.sleeping(&["--annotation", &group])).collect();
    assert_one_shim(bench, containers);
}

fn containers_of_one_group_that_start_at_once_have_one_shim(bench: &Bench) {
    let group = format!("io.containerd.runc.v2.group={}", &*bench.id());
    let ids: Vec<Id> = (0..5).map(|_| bench.id()).collect();
    let start = |id: &Id| {
        Running::start(bench.run_command(&["--detach", "--null-io", "--annotation", &group], id, &SLEEP))
    };
    let starting: Vec<Running> = ids.iter().map(start).collect();
    for one in starting {
        one.finish().ok();
    }
    assert_one_shim(bench, ids);
}

fn containers_of_other_groups_have_other_shims(bench: &Bench) {
    let of_group =
        |group: &str| bench.sleeping(&["--annotation", &format!("io.containerd.runc.v2.group={group}")]);
    let (one, two) = (of_group("one"), of_group("two"));
    assert_ne!(address_of(bench.engine, &one), address_of(bench.engine, &two));
    one.end();
    two.end();
}
