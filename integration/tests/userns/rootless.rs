//! The runtime in the hands of an ordinary user.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use coracle_integration::bundle::{grant, join_namespace};
use coracle_integration::command::{Finished, Running, run};
use coracle_integration::console::DescriptorSocket;
use coracle_integration::seccomp::{profile, rule};
use coracle_integration::{Checked, Runtime, host, skip, tests};
use libtest_mimic::Trial;
use nix::mount::{MsFlags, mount};
use serde_json::{Value, json};

use crate::common::{BASE, COUNT, give};

pub fn tests() -> Vec<Trial> {
    tests![
        a_user_runs_the_rootless_starter,
        a_user_drives_the_whole_lifecycle,
        a_user_moves_the_root_and_leaves_no_full_procfs,
        roots_groups_do_not_come_into_a_users_container,
        a_user_maps_subordinate_ids,
        a_user_is_told_of_ranges_that_are_not_its_own,
        a_user_is_told_of_missing_helpers,
        a_user_cannot_have_groups_it_gave_up,
        a_user_is_told_of_a_missing_state_directory,
        a_user_cannot_map_the_ids_of_a_mount,
        a_user_has_a_seccomp_agent,
        a_user_learns_a_seccomp_profile,
        a_user_has_limits_where_only_v1_cgroups_were_given,
        a_user_may_name_a_container_like_one_of_roots,
    ]
}

/// The user of the rootless tests; it needs no entry anywhere but for subordinate ids.
const USER: u32 = 4242;

const NAME: &str = "coracle-user";

/// A directory of the user's with a bundle and a copy of the runtime, and a shell there as the user.
pub struct Rootless<'r> {
    rt: &'r Runtime,
    directory: PathBuf,
}

impl<'r> Rootless<'r> {
    pub fn new(rt: &'r Runtime) -> Self {
        let bundle = rt.script("id -u; cat /proc/self/setgroups");
        let directory = bundle.path().to_owned();
        fs::create_dir_all(directory.join("run")).expect("making a directory");
        fs::copy(rt.binary(), directory.join("runtime")).expect("copying the runtime");
        give(&directory, USER);
        Self { rt, directory }
    }

    /// Replaces config.json by the runtime's own starter, edited.
    pub fn starter(&self, edit: impl FnOnce(&mut Value)) {
        let config = self.directory.join("config.json");
        fs::remove_file(&config).expect("removing config.json");
        self.sh("./runtime spec --rootless").ok();
        let mut value: Value =
            serde_json::from_slice(&fs::read(&config).expect("reading config.json")).expect("JSON");
        value["process"]["terminal"] = json!(false);
        value["process"]["args"] = json!(["sh", "-c", "id -u; cat /proc/self/setgroups"]);
        edit(&mut value);
        fs::write(config, value.to_string()).expect("writing config.json");
    }

    pub fn sh(&self, script: &str) -> Finished {
        run(self.command(script))
    }

    pub fn command(&self, script: &str) -> Command {
        let mut command = Command::new("setpriv");
        let id = USER.to_string();
        command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "sh", "-ec", script]);
        command.current_dir(&self.directory).env("XDG_RUNTIME_DIR", self.directory.join("run"));
        command
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub fn id(&self) -> String {
        format!("{}-rootless", self.rt.mark())
    }
}

/// Gives the user a name and subordinate ids, in the private mount namespace of the tests.
fn subordinate_ids(rt: &Runtime) -> Checked {
    static ONCE: Mutex<bool> = Mutex::new(false);
    if host::program("newuidmap").is_none() {
        return skip("no newuidmap here (package uidmap)");
    }
    let mut done = ONCE.lock().expect("no test panics in here");
    if std::mem::replace(&mut *done, true) {
        return Ok(());
    }
    for (file, line) in [
        ("passwd", format!("{NAME}:x:{USER}:{USER}::/tmp:/bin/sh")),
        ("group", format!("{NAME}:x:{USER}:")),
        ("subuid", format!("{NAME}:{BASE}:{COUNT}")),
        ("subgid", format!("{NAME}:{BASE}:{COUNT}")),
    ] {
        let path = format!("/etc/{file}");
        let own = rt.own(file);
        let text = fs::read_to_string(&path).unwrap_or_default();
        if !Path::new(&path).exists() {
            return skip(format!("no {path} here"));
        }
        fs::write(&own, format!("{text}{line}\n")).expect("writing a file");
        mount(Some(&own), path.as_str(), None::<&str>, MsFlags::MS_BIND, None::<&str>).expect("bind mount");
    }
    Ok(())
}

fn a_user_runs_the_rootless_starter(rt: &Runtime) {
    let user = Rootless::new(rt);
    user.starter(|_| ());
    let seen = user.sh(&format!("./runtime run {}", user.id())).ok();
    assert_eq!(seen.lines(), ["0", "deny"]);
}

fn a_user_drives_the_whole_lifecycle(rt: &Runtime) {
    let user = Rootless::new(rt);
    user.starter(|config| {
        config["process"]["args"] = json!(["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1; done"]);
        config["process"]["oomScoreAdj"] = json!(44);
    });
    let id = user.id();
    let seen = user
        .sh(&format!(
            "./runtime create {id} >log 2>&1; ./runtime start {id}; ./runtime exec {id} id -u; \
             ./runtime exec {id} cat /proc/self/oom_score_adj; ./runtime state {id} | grep -o running; \
             ./runtime kill {id} TERM; until ./runtime state {id} | grep -q stopped; do sleep 0.1; done; \
             ./runtime delete {id}; ./runtime list --quiet"
        ))
        .ok();
    assert_eq!(seen.lines(), ["0", "44", "running"]);
}

fn a_user_moves_the_root_and_leaves_no_full_procfs(rt: &Runtime) {
    let user = Rootless::new(rt);
    user.starter(|config| {
        grant(config, &["CAP_SETFCAP"]);
        let text = "ls -d /bin; unshare -U -r -m -p -f mount -t proc proc /tmp && echo mounted";
        config["process"]["args"] = json!(["sh", "-c", text]);
    });
    let seen = user.sh(&format!("./runtime run --no-pivot {}", user.id())).fails();
    assert_eq!(seen.out(), "/bin", "{seen}");
}

/// Whose user namespace denies setgroups(2): what a process has when it enters, it keeps.
fn roots_groups_do_not_come_into_a_users_container(rt: &Runtime) {
    let user = Rootless::new(rt);
    user.starter(|config| config["process"]["args"] = json!(["sleep", "1000"]));
    let id = user.id();
    user.sh(&format!("./runtime run --detach {id} >log 2>&1 </dev/null")).ok();
    let root = user.directory.join("run/coracle");
    let root = if root.exists() { root } else { user.directory.join("run/runc") };
    let with_groups = |arguments: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--groups", "0,4,24"]).arg(rt.binary()).args(arguments);
        run(command)
    };
    let groups = ["grep", "^Groups:", "/proc/self/status"];
    let seen = with_groups(&[&["--root", &root.to_string_lossy(), "exec", &id], &groups[..]].concat());
    let pid = user.sh(&format!("./runtime state {id}")).ok();
    let pid: Value = serde_json::from_str(&pid.stdout).expect("JSON");
    let bundle = rt.bundle(&groups).edit(|config| {
        join_namespace(config, "user", &format!("/proc/{}/ns/user", pid["pid"]));
        // Group 5 is not mapped.
        let mounts = config["mounts"].as_array_mut().expect("mounts");
        mounts.retain(|mount| mount["type"] != "devpts");
    });
    give(&bundle.rootfs(""), USER);
    let c = rt.container(&bundle);
    let run_line = c.run_command(&[]);
    let arguments: Vec<_> = run_line.get_args().map(|argument| argument.to_string_lossy()).collect();
    let joined = with_groups(&arguments.iter().map(AsRef::as_ref).collect::<Vec<_>>());
    user.sh(&format!("./runtime delete --force {id}")).ok();
    assert_eq!(seen.ok().out(), "Groups:");
    assert_eq!(joined.ok().out(), "Groups:");
}

pub fn multiple(config: &mut Value, size: u32) {
    for list in ["uidMappings", "gidMappings"] {
        config["linux"][list] = json!([
            { "containerID": 0, "hostID": USER, "size": 1 },
            { "containerID": 1, "hostID": BASE, "size": size },
        ]);
    }
}

fn a_user_maps_subordinate_ids(rt: &Runtime) -> Checked {
    subordinate_ids(rt)?;
    let user = Rootless::new(rt);
    user.starter(|config| {
        multiple(config, 1000);
        config["process"]["user"] = json!({ "uid": 5, "gid": 6, "additionalGids": [7] });
        config["process"]["args"] = json!(["sh", "-c", "id -u; id -G"]);
    });
    assert_eq!(user.sh(&format!("./runtime run {}", user.id())).ok().lines(), ["5", "6 7"]);
    Ok(())
}

fn a_user_is_told_of_ranges_that_are_not_its_own(rt: &Runtime) -> Checked {
    rt.coracle_only("the words are ours")?;
    subordinate_ids(rt)?;
    let user = Rootless::new(rt);
    user.starter(|config| multiple(config, COUNT + 1));
    user.sh(&format!("./runtime run {}", user.id()))
        .fails_with("linux.uidMappings")
        .fails_with("/etc/subuid");
    Ok(())
}

fn a_user_is_told_of_missing_helpers(rt: &Runtime) -> Checked {
    rt.coracle_only("the words are ours")?;
    let user = Rootless::new(rt);
    user.starter(|config| multiple(config, 1000));
    user.sh(&format!("PATH=/nowhere ./runtime run {}", user.id()))
        .fails_with("newuidmap")
        .fails_with("package uidmap");
    Ok(())
}

fn a_user_cannot_have_groups_it_gave_up(rt: &Runtime) -> Checked {
    rt.coracle_only("the words are ours")?;
    let user = Rootless::new(rt);
    user.starter(|config| config["process"]["user"]["additionalGids"] = json!([0]));
    user.sh(&format!("./runtime run {}", user.id())).fails_with("process.user.additionalGids");
    // newgidmap gives them up, too, for a user's own group alone.
    user.starter(|config| {
        multiple(config, 1000);
        config["linux"]["gidMappings"].as_array_mut().expect("a list").truncate(1);
        config["process"]["user"]["additionalGids"] = json!([0]);
    });
    user.sh(&format!("./runtime run {}", user.id())).fails_with("process.user.additionalGids");
    Ok(())
}

fn a_user_is_told_of_a_missing_state_directory(rt: &Runtime) -> Checked {
    rt.coracle_only("the words are ours")?;
    let user = Rootless::new(rt);
    user.starter(|_| ());
    user.sh(&format!("unset XDG_RUNTIME_DIR; ./runtime run {}", user.id())).fails_with("--root");
    Ok(())
}

fn a_user_cannot_map_the_ids_of_a_mount(rt: &Runtime) -> Checked {
    rt.coracle_only("the words are ours")?;
    let user = Rootless::new(rt);
    user.starter(|config| {
        let mount =
            json!({ "destination": "/mnt", "type": "tmpfs", "source": "tmpfs", "options": ["idmap"] });
        config["mounts"] = json!([mount]);
    });
    user.sh(&format!("./runtime run {}", user.id()))
        .fails_with("mounts[0]")
        .fails_with("an id-mapped mount needs CAP_SYS_ADMIN on the host");
    Ok(())
}

/// An agent that closes the listener: the calls that it was to decide get ENOSYS.
fn a_user_has_a_seccomp_agent(rt: &Runtime) {
    let user = Rootless::new(rt);
    let socket = DescriptorSocket::new(user.directory.join("agent.sock"));
    give(Path::new(socket.path()), USER);
    let runs = |script: &str| {
        user.starter(|config| {
            let mut filter = profile("SCMP_ACT_ALLOW", &[rule(&["mkdir", "mkdirat"], "SCMP_ACT_NOTIFY")]);
            filter["listenerPath"] = json!(socket.path());
            config["linux"]["seccomp"] = filter;
            config["process"]["args"] = json!(["sh", "-c", script]);
        });
    };
    let id = user.id();
    runs("until mkdir /tmp/new 2>&1 | grep 'not implemented'; do sleep 0.1; done");
    let running = Running::start(user.command(&format!("./runtime run {id}")));
    drop(socket.receive());
    assert!(running.finish().ok().out().contains("not implemented"));

    runs("sleep 1000");
    let script = "./runtime create ID >log 2>&1; ./runtime start ID; ./runtime exec ID true; ./runtime delete --force ID";
    let running = Running::start(user.command(&script.replace("ID", &id)));
    drop(socket.receive());
    drop(socket.receive());
    running.finish().ok();
}

fn a_user_learns_a_seccomp_profile(rt: &Runtime) -> Checked {
    rt.coracle_only("runc does not learn")?;
    let user = Rootless::new(rt);
    user.starter(|_| ());
    let ran =
        user.sh(&format!("./runtime run --seccomp-learn learnt.json {}; cat learnt.json", user.id())).ok();
    assert!(ran.stdout.contains("\"execve\""), "{ran}");
    Ok(())
}

/// The cgroups of version 1 that a user was given; removed at the end.
struct Given(Vec<PathBuf>);

impl Given {
    fn new(name: &str) -> Self {
        let text = fs::read_to_string("/proc/self/cgroup").expect("reading a file of procfs");
        let controllers =
            text.lines().filter_map(|line| line.split(':').nth(1)).filter(|text| !text.is_empty());
        let mut given = Self(Vec::new());
        for controller in controllers.filter_map(|text| text.split(',').next()) {
            let Some(mount) = host::v1_hierarchy(controller) else { continue };
            let path = mount.join(name);
            fs::create_dir(&path).expect("making a cgroup");
            given.0.push(path.clone());
            for file in ["cpuset.cpus", "cpuset.mems"].iter().filter(|_| controller == "cpuset") {
                fs::copy(mount.join(file), path.join(file)).expect("filling a cpuset");
            }
            give(&path, USER);
        }
        given
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        for path in self.0.iter().rev() {
            fs::remove_dir(path).expect("removing an empty cgroup");
        }
    }
}

fn a_user_has_limits_where_only_v1_cgroups_were_given(rt: &Runtime) -> Checked {
    if host::v1_hierarchy("pids").is_none() || !Path::new("/sys/fs/cgroup/unified/cgroup.procs").exists() {
        return skip("this host has no hybrid layout");
    }
    let name = format!("{}-given", rt.mark());
    let given = Given::new(&name);
    let user = Rootless::new(rt);
    user.starter(|config| {
        config["linux"]["cgroupsPath"] = json!(format!("/{name}/box"));
        config["linux"]["resources"] = json!({"pids": {"limit": 7}});
        config["process"]["args"] = json!(["sleep", "1000"]);
    });
    let id = user.id();
    user.sh(&format!("./runtime run --detach {id} >log 2>&1 </dev/null || {{ cat log >&2; exit 1; }}")).ok();
    let limits: Vec<_> =
        given.0.iter().filter_map(|path| fs::read_to_string(path.join("box/pids.max")).ok()).collect();
    let ended = user.sh(&format!("./runtime exec {id} id -u; ./runtime delete --force {id}"));
    assert_eq!(limits, ["7\n"]);
    assert_eq!(ended.ok().lines(), ["0"]);
    Ok(())
}

/// Which has the cgroup that the user's would have by default.
fn a_user_may_name_a_container_like_one_of_roots(rt: &Runtime) {
    let bundle = rt.bundle(&["sleep", "1000"]);
    let roots = rt.container(&bundle);
    roots.up();
    let user = Rootless::new(rt);
    user.starter(|_| ());
    let seen = user.sh(&format!("./runtime run {}", roots.id)).ok();
    assert_eq!(seen.lines(), ["0", "deny"]);
}
