//! Whole profiles: the default one of container engines runs what people run, and one that was learnt from a container
//! allows what it needs and no more.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use coracle_integration::bundle::grant;
use coracle_integration::command::{Running, eventually};
use coracle_integration::seccomp::{
    engines_default, needs_the_32_bit_gate, probing, profile, rule, with_probe,
};
use coracle_integration::{Bundle, Checked, Finished, Runtime, Skip, host, rootfs, skip, tests};
use nix::mount::{MsFlags, mount};
use rustix::process::Signal;
use serde_json::{Value, json};

fn main() -> ExitCode {
    coracle_integration::run_tests(tests![
        the_default_profile_runs_a_shell_and_threads,
        the_default_profile_runs_a_package_manager,
        the_default_profile_answers_as_in_runc,
        a_learnt_profile_runs_what_it_was_learnt_from,
        a_learnt_profile_denies_what_was_not_seen,
        learning_passes_exit_status_signals_and_threads_on,
        learning_sees_calls_by_the_32_bit_gate,
        learning_needs_the_foreground,
        learning_tells_at_once_of_a_file_that_cannot_be_written,
        learning_leaves_others_files_alone,
        learning_leaves_no_container_when_the_profile_cannot_be_written,
        an_exec_into_a_learning_container_has_no_filter,
    ])
}

/// The capabilities that engines give by default.
const ENGINES: [&str; 11] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// Gives a container the default profile and capabilities of engines.
fn as_engines_do(config: &mut Value) -> Checked {
    match engines_default(&ENGINES) {
        Ok(filter) => config["linux"]["seccomp"] = filter,
        Err(why) => return skip(why),
    }
    grant(config, &ENGINES);
    config["process"]["noNewPrivileges"] = json!(false);
    Ok(())
}

fn under_engines_default(bundle: Bundle) -> Result<Bundle, Skip> {
    let mut checked = Ok(());
    let bundle = bundle.edit(|config| checked = as_engines_do(config));
    checked.map(|()| bundle)
}

fn the_default_profile_runs_a_shell_and_threads(rt: &Runtime) -> Checked {
    let script = "mkdir /d && echo text > /d/f && cat /d/f | tr a-z A-Z; sleep 0.1 & wait; ls / | wc -l > /dev/null; \
                  /probe threads; unshare -m true 2>/dev/null || echo no; grep ^Seccomp: /proc/self/status | tr -d '\\t'";
    let bundle = under_engines_default(rt.script(script))?;
    with_probe(rt, &bundle)?;
    let ran = rt.container(&bundle).run().ok();
    assert_eq!(ran.lines(), ["TEXT", "counted 32000", "no", "Seccomp:2"]);
    Ok(())
}

const SUITE: &str = "bookworm";

fn the_default_profile_runs_a_package_manager(rt: &Runtime) -> Checked {
    let lower = match rootfs::debian(SUITE) {
        Ok(path) => path,
        Err(why) => return skip(why),
    };
    let overlay = rt.own("debian");
    let path = overlay.join("bundle");
    for name in ["bundle/rootfs", "upper", "work"] {
        fs::create_dir_all(overlay.join(name)).expect("making a directory");
    }
    let data = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.display(),
        overlay.join("upper").display(),
        overlay.join("work").display()
    );
    mount(Some("overlay"), &path.join("rootfs"), Some("overlay"), MsFlags::empty(), Some(data.as_str()))
        .expect("mounting an overlay");
    // A package of one file, built inside and installed.
    let script = "set -e; mkdir -p /p/DEBIAN /p/opt; echo here > /p/opt/file; \
                  printf 'Package: seen\\nVersion: 1\\nArchitecture: all\\nMaintainer: nobody <n@example.org>\\nDescription: of a test\\n' > /p/DEBIAN/control; \
                  dpkg-deb --root-owner-group -b /p /p.deb >/dev/null; apt-get install -qq -y /p.deb >/dev/null 2>&1; cat /opt/file; \
                  dpkg-query -W -f '${Status}\\n' seen; apt-get remove -qq -y seen >/dev/null 2>&1; test ! -e /opt/file; \
                  perl -e 'fork // die; wait; print 6 * 7, \"\\n\"'; useradd --create-home someone; su someone -c 'id -un'";
    let mut config = rt.bundle(&[]).config;
    config["process"]["env"] =
        json!(["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive"]);
    config["process"]["args"] = json!(["bash", "-c", script]);
    let bundle = under_engines_default(Bundle::new(path, config))?;
    let ran = rt.container(&bundle).run().ok();
    assert_eq!(ran.lines(), ["here", "install ok installed", "42", "42", "someone"]);
    Ok(())
}

/// Every call with senseless arguments, under the default profile, here and with runc: errno by errno.
fn the_default_profile_answers_as_in_runc(rt: &Runtime) -> Checked {
    if !cfg!(target_arch = "x86_64") {
        return skip("the sweep knows the calls of x86_64");
    }
    let Some(runc) = host::program("runc") else { return skip("runc is not installed") };
    let sweep = |rt: &Runtime| -> Result<Vec<String>, Skip> {
        let bundle = under_engines_default(probing(rt, &["sweep", "0", "440"])?)?;
        let ran = rt.container(&bundle).run().ok();
        Ok(ran.lines().into_iter().map(str::to_owned).collect())
    };
    let ours = sweep(rt)?;
    let peer = Runtime::at(runc);
    let theirs = sweep(&peer)?;
    if let Err(complaint) = peer.finish() {
        panic!("{complaint}");
    }
    assert!(ours.len() > 340, "the sweep ended early: {:?}", ours.last());
    assert_eq!(ours.len(), theirs.len(), "both sweep alike: {:?}, {:?}", ours.last(), theirs.last());
    let differences: Vec<_> = theirs.iter().zip(&ours).filter(|(theirs, ours)| theirs != ours).collect();
    assert!(differences.is_empty(), "number and errno, runc first: {differences:?}");
    Ok(())
}

/// Runs a bundle while a profile is learnt, and gives both.
fn learn(rt: &Runtime, bundle: &Bundle) -> (Finished, Value) {
    let file = rt.scratch("learnt.json");
    let ran = rt.container(bundle).run_with(&["--seccomp-learn", &file.to_string_lossy()]);
    let text =
        fs::read_to_string(&file).unwrap_or_else(|error| panic!("no profile was written ({error}): {ran}"));
    (ran, serde_json::from_str(&text).unwrap_or_else(|error| panic!("not JSON ({error}): {text}")))
}

fn names(profile: &Value) -> Vec<&str> {
    profile["syscalls"][0]["names"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

fn a_learnt_profile_runs_what_it_was_learnt_from(rt: &Runtime) -> Checked {
    rt.coracle_only("runc does not learn")?;
    for no_new_privileges in [true, false] {
        let bundle = rt.script("mkdir /tmp/new; rmdir /tmp/new; echo text | cat; exit 3").edit(|config| {
            config["process"]["noNewPrivileges"] = json!(no_new_privileges);
        });
        let (ran, filter) = learn(rt, &bundle);
        assert_eq!(ran.exits(3).out(), "text");
        assert_eq!(filter["defaultAction"], "SCMP_ACT_ERRNO");
        let bundle = bundle.edit(|config| config["linux"]["seccomp"] = filter);
        assert_eq!(rt.container(&bundle).run().exits(3).out(), "text");
    }
    Ok(())
}

fn a_learnt_profile_denies_what_was_not_seen(rt: &Runtime) -> Checked {
    rt.coracle_only("runc does not learn")?;
    // The filter of the bundle does not apply meanwhile.
    let bundle = rt.script("if [ -e /more ]; then mkdir /new; echo $?; else echo fine; fi").edit(|config| {
        config["linux"]["seccomp"] = profile("SCMP_ACT_ALLOW", &[rule(&["exit_group"], "SCMP_ACT_KILL")]);
    });
    let (ran, filter) = learn(rt, &bundle);
    assert_eq!(ran.ok().out(), "fine");
    assert!(names(&filter).contains(&"execve") && !names(&filter).contains(&"mkdir"), "{filter}");
    bundle.file("more", "", 0o644);
    let bundle = bundle.edit(|config| config["linux"]["seccomp"] = filter);
    let ran = rt.container(&bundle).run();
    assert_ne!(ran.out(), "0");
    assert!(!bundle.rootfs("new").exists(), "the call was denied: {ran}");
    Ok(())
}

fn learning_passes_exit_status_signals_and_threads_on(rt: &Runtime) -> Checked {
    rt.coracle_only("runc does not learn")?;
    let (ran, filter) = learn(rt, &probing(rt, &["threads"])?);
    assert_eq!(ran.ok().out(), "counted 32000");
    assert!(["clone", "clone3"].iter().any(|call| names(&filter).contains(call)), "{filter}");

    let file = rt.scratch("signalled.json");
    let bundle = rt.script("trap 'exit 7' TERM; echo ready; while :; do sleep 1000 & wait $!; done");
    let c = rt.container(&bundle);
    let running = Running::start(c.run_command(&["--seccomp-learn", &file.to_string_lossy()]));
    running.wait_for_output("ready");
    running.signal(Signal::TERM);
    running.finish().exits(7);
    assert!(file.exists());
    Ok(())
}

fn learning_sees_calls_by_the_32_bit_gate(rt: &Runtime) -> Checked {
    rt.coracle_only("runc does not learn")?;
    needs_the_32_bit_gate(rt)?;
    let (ran, filter) = learn(rt, &probing(rt, &["int80", "39"])?);
    assert_eq!(ran.ok().out(), "errno 14", "39 is mkdir there, and its path is missing");
    assert!(names(&filter).contains(&"mkdir"), "{filter}");
    let architectures = filter["architectures"].as_array().expect("a list");
    assert!(architectures.contains(&json!("SCMP_ARCH_X86")), "{filter}");
    Ok(())
}

fn learning_needs_the_foreground(rt: &Runtime) -> Checked {
    rt.coracle_only("runc does not learn")?;
    let file = rt.scratch("never.json");
    let bundle = rt.sleeper();
    rt.container(&bundle)
        .run_with(&["--detach", "--seccomp-learn", &file.to_string_lossy()])
        .fails_with("--detach");
    assert!(!file.exists());
    rt.assert_clean();
    Ok(())
}

fn learning_tells_at_once_of_a_file_that_cannot_be_written(rt: &Runtime) -> Checked {
    rt.coracle_only("runc does not learn")?;
    let bundle = rt.script("touch /ran");
    for file in [rt.scratch("no/such/place.json"), PathBuf::from("/dev/null"), rt.scratch("")] {
        rt.container(&bundle)
            .run_with(&["--seccomp-learn", &file.to_string_lossy()])
            .fails_with("write the learnt profile");
        assert!(!bundle.rootfs("ran").exists(), "nothing was to run");
        rt.assert_clean();
    }
    Ok(())
}

fn learning_leaves_others_files_alone(rt: &Runtime) -> Checked {
    rt.coracle_only("runc does not learn")?;
    // Opening one of these for writing would wait for ever.
    let planted = rt.scratch(".learnt.json.new");
    rustix::fs::mknodat(rustix::fs::CWD, &planted, rustix::fs::FileType::Fifo, 0o600.into(), 0)
        .expect("mkfifo");
    let (ran, filter) = learn(rt, &rt.script("exit 3"));
    ran.exits(3);
    assert!(names(&filter).contains(&"execve"));
    let left = fs::read_dir(planted.parent().expect("it is in a directory")).expect("reading a directory");
    let left = left.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let left: Vec<_> = left.filter(|name| name.starts_with(".learnt")).collect();
    assert_eq!(left, [".learnt.json.new"]);
    Ok(())
}

fn learning_leaves_no_container_when_the_profile_cannot_be_written(rt: &Runtime) -> Checked {
    rt.coracle_only("runc does not learn")?;
    let place = rt.scratch("place");
    fs::create_dir(&place).expect("making a directory");
    let c = rt.container(&rt.script("echo ready; read; exit 3"));
    let mut command = c.run_command(&["--seccomp-learn", &place.join("p.json").to_string_lossy()]);
    let (reader, writer) = std::io::pipe().expect("pipe");
    command.stdin(reader);
    let running = Running::start(command);
    running.wait_for_output("ready");
    fs::remove_dir(&place).expect("removing the directory");
    drop(writer);
    running.finish().fails_with("write the learnt profile").fails_with("with status 3");
    rt.assert_clean();
    Ok(())
}

fn an_exec_into_a_learning_container_has_no_filter(rt: &Runtime) -> Checked {
    rt.coracle_only("runc does not learn")?;
    let file = rt.scratch("learnt.json");
    let bundle = rt.sleeper().edit(|config| {
        let mut filter = profile("SCMP_ACT_ALLOW", &[rule(&["mkdir"], "SCMP_ACT_NOTIFY")]);
        filter["listenerPath"] = json!("/run/nobody.sock");
        config["linux"]["seccomp"] = filter;
    });
    let c = rt.container(&bundle);
    let running = Running::start(c.run_command(&["--seccomp-learn", &file.to_string_lossy()]));
    assert!(eventually(|| c.call("state", &[]).stdout.contains("running")));
    let ran = c.exec(&["sh", "-c", "mkdir /tmp/new && grep ^Seccomp: /proc/self/status"]).ok();
    assert_eq!(ran.out().split_whitespace().last(), Some("0"));
    assert!(ran.stderr.contains("not recorded"), "{ran}");
    c.kill("TERM").ok();
    running.finish().ok();
    Ok(())
}
