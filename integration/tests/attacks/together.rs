//! Commands that meet at one container.

use std::fs::{self, File};

use coracle_integration::bundle::without_namespace;
use coracle_integration::command::{Running, eventually};
use coracle_integration::{Checked, Runtime, host, tests};
use libtest_mimic::Trial;
use rustix::fs::{FlockOperation, flock};

pub fn tests() -> Vec<Trial> {
    tests![a_slow_delete_leaves_the_next_container_of_that_name_alone]
}

/// The names of a container, of its cgroup and of its directory, are free again when one of two deletes has ended.
fn a_slow_delete_leaves_the_next_container_of_that_name_alone(rt: &Runtime) -> Checked {
    rt.coracle_only("runc has no such lock")?;
    // What its cgroup holds is killed.
    let bundle = rt.sleeper().edit(|config| without_namespace(config, "pid"));
    let c = rt.container(&bundle);
    c.up();
    c.kill("KILL").ok();
    c.wait_for("stopped");
    let home = rt.root().join(&c.id);
    // This is the faster delete.
    let other = File::open(&home).expect("opening the container's directory");
    flock(&other, FlockOperation::LockExclusive).expect("locking it");
    let slow = Running::start(rt.command(["delete", &c.id]));
    assert!(eventually(|| host::is_asleep(slow.pid())), "{}", slow.stderr());
    fs::remove_dir_all(&home).expect("removing the directory");
    c.create().ok();
    flock(&other, FlockOperation::Unlock).expect("unlocking it");
    slow.finish().ok();
    assert_eq!(c.status(), "created");
    c.start().ok();
    c.wait_for("running");
    c.call("delete", &["--force"]).ok();
    rt.assert_clean();
    Ok(())
}
