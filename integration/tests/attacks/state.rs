//! A container's own files, damaged: every command says which file it is, and none fails by itself.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use coracle_integration::command::in_shell;
use coracle_integration::{Checked, Runtime, tests};
use libtest_mimic::Trial;

pub fn tests() -> Vec<Trial> {
    tests![
        an_impossible_process_id_is_no_process,
        a_damaged_copy_of_the_configuration_is_named,
        nobody_else_can_call_the_process_that_waits,
    ]
}

fn an_impossible_process_id_is_no_process(rt: &Runtime) -> Checked {
    rt.coracle_only("runc keeps another state")?;
    let bundle = rt.sleeper();
    let c = rt.container(&bundle);
    c.up();
    let path = rt.root().join(&c.id).join("state.json");
    let right = fs::read_to_string(&path).expect("reading the state");
    let pid = format!("\"init\":{{\"pid\":{},", c.pid());
    assert!(right.contains(&pid), "{right}");
    for number in [-1, 0, i32::MIN] {
        let wrong = right.replace(&pid, &format!("\"init\":{{\"pid\":{number},"));
        fs::write(&path, wrong).expect("writing the state");
        assert_eq!(c.status(), "stopped", "{number}");
        c.exec(&["true"]).fails_with("cannot exec in a stopped container");
        c.call("events", &["--stats"]).fails();
    }
    fs::write(&path, right).expect("writing the state");
    c.call("delete", &["--force"]).ok();
    rt.assert_clean();
    Ok(())
}

fn a_damaged_copy_of_the_configuration_is_named(rt: &Runtime) -> Checked {
    rt.coracle_only("runc keeps another state")?;
    let bundle = rt.sleeper();
    let c = rt.container(&bundle);
    c.up();
    let path = rt.root().join(&c.id).join("config.json");
    let right = fs::read(&path).expect("reading the configuration");
    for wrong in [&right[..right.len() / 2], b"{\"ociVersion\":\"1.0.2\",\"mounts\":[{}]}", b"\xff", b""] {
        fs::write(&path, wrong).expect("writing the configuration");
        let name = format!("{} is damaged", path.display());
        c.exec(&["true"]).exits(255).fails_with(&name);
        c.call("update", &["--memory", "100000000"]).exits(1).fails_with(&name);
    }
    fs::remove_file(&path).expect("removing the configuration");
    c.exec(&["true"]).exits(255).fails_with(&format!("{} is missing", path.display()));
    c.call("delete", &["--force"]).ok();
    rt.assert_clean();
    Ok(())
}

/// Engines keep the directory of all containers open to everybody, and may have no umask: whoever could call the process
/// that waits could start it, and would get what it hands over.
fn nobody_else_can_call_the_process_that_waits(rt: &Runtime) -> Checked {
    rt.coracle_only("runc waits at a FIFO")?;
    let bundle = rt.sleeper();
    let c = rt.container(&bundle);
    c.detached(in_shell("umask 0; exec \"$@\"", &c.create_command(&[]))).ok();
    let gate = fs::metadata(rt.root().join(&c.id).join("start.sock")).expect("the gate");
    assert_eq!(gate.permissions().mode() & 0o777, 0o600);
    c.start().ok();
    c.wait_for("running");
    c.call("delete", &["--force"]).ok();
    rt.assert_clean();
    Ok(())
}
