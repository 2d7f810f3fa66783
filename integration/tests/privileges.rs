//! Which mounts a container gets, by who runs the runtime and whether there is a user namespace: what must work, and what
//! must be refused. The same on coracle, runc 1.3 and crun 1.28; where they differ, the table says so and why.

use std::fs;
use std::os::unix::fs::lchown;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use coracle_integration::bundle::{grant, without_namespace};
use coracle_integration::command::{command, run};
use coracle_integration::{Bundle, Checked, Runtime, host, skip, trial_without_runtime};
use libtest_mimic::Trial;
use nix::mount::{MsFlags, mount};
use serde_json::{Value, json};

/// What the mount under test comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// It is there, and a directory can be made in it.
    Writable,
    /// It is there, not read-only, but its filesystem takes no directory.
    There,
    /// It is there, read-only.
    ReadOnly,
    /// The runtime fails, and says why.
    Refused,
}

use Outcome::{ReadOnly, Refused, There, Writable};

/// Who runs the runtime, and whether the container has a user namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Caller {
    /// Root; none.
    Root,
    /// Root; 65536 ids.
    RootMapped,
    /// A user; none.
    User,
    /// A user; itself as root.
    UserMapped,
}

/// Which runtime, for whom, what it does there, and why.
type Difference = (&'static str, Caller, Outcome, &'static str);

/// A row: the mount, then what each caller gets.
struct Row {
    mount: &'static str,
    outcomes: [(Caller, Outcome); 4],
    /// Where another runtime differs, and why.
    others: &'static [Difference],
}

const fn row(mount: &'static str, root: Outcome, mapped: Outcome, user_mapped: Outcome) -> Row {
    Row {
        mount,
        outcomes: [
            (Caller::Root, root),
            (Caller::RootMapped, mapped),
            // Without privileges there is no container without a user namespace.
            (Caller::User, Refused),
            (Caller::UserMapped, user_mapped),
        ],
        others: &[],
    }
}

/// crun makes a user namespace for a user who asked for none, and tries to go on in it.
const OF_ITSELF: &str = "crun adds a user namespace that the bundle doesn't have";
const HOST_VIEW: &str = "where a new instance is refused, since the namespace it shows is the host's, coracle shows the host's, read-only";

const NO_HOST_VIEW: [Difference; 4] = [
    ("runc", Caller::RootMapped, Refused, HOST_VIEW),
    ("crun", Caller::RootMapped, Refused, HOST_VIEW),
    ("runc", Caller::UserMapped, Refused, HOST_VIEW),
    ("crun", Caller::UserMapped, Refused, HOST_VIEW),
];

/// On cgroup v1 what is mounted is a tmpfs of the container's, with its cgroups below it; on v2 it is the host's hierarchy.
fn cgroup_outcome() -> Outcome {
    if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() { There } else { Writable }
}

const TABLE: [Row; 9] = [
    Row {
        others: &[("crun", Caller::User, Writable, OF_ITSELF)],
        ..row("bind", Writable, Writable, Writable)
    },
    Row {
        others: &[("crun", Caller::User, Writable, OF_ITSELF)],
        ..row("tmpfs", Writable, Writable, Writable)
    },
    Row { others: &[("crun", Caller::User, There, OF_ITSELF)], ..row("proc", There, There, There) },
    Row { others: &NO_HOST_VIEW, ..row("proc-of-the-host", There, ReadOnly, ReadOnly) },
    Row { others: &[("crun", Caller::User, There, OF_ITSELF)], ..row("sysfs", There, There, There) },
    Row { others: &NO_HOST_VIEW, ..row("sysfs-of-the-host", There, ReadOnly, ReadOnly) },
    Row {
        others: &[("crun", Caller::User, Writable, OF_ITSELF)],
        ..row("cgroup", Writable, Writable, Writable)
    },
    Row { others: &[("crun", Caller::User, There, OF_ITSELF)], ..row("mqueue", There, There, There) },
    Row {
        others: &[("crun", Caller::User, Writable, OF_ITSELF)],
        ..row("overlay", Writable, Writable, Writable)
    },
];

fn main() -> ExitCode {
    let mut tests = Vec::new();
    for row in &TABLE {
        for (caller, outcome) in row.outcomes {
            for runtime in ["coracle", "runc", "crun"] {
                let other = row.others.iter().find(|(name, who, ..)| *name == runtime && *who == caller);
                let expected = other.map_or(outcome, |(_, _, outcome, _)| *outcome);
                let expected = match (row.mount, expected) {
                    ("cgroup", Writable) => cgroup_outcome(),
                    _ => expected,
                };
                let name =
                    format!("{}_for_{caller:?}_by_{runtime}", row.mount).to_lowercase().replace('-', "_");
                tests.push(trial(name, row.mount, caller, runtime, expected));
            }
        }
    }
    coracle_integration::run_tests(tests)
}

fn trial(
    name: String,
    what: &'static str,
    caller: Caller,
    runtime: &'static str,
    expected: Outcome,
) -> Trial {
    trial_without_runtime(name, move || -> Checked {
        let Some(binary) = binary(runtime) else {
            return skip(format!("no {runtime} here: integration/peers/fetch brings it"));
        };
        let rt = Runtime::at(binary);
        let found = outcome(&rt, what, caller)?;
        rt.finish().expect("nothing is left behind");
        assert_eq!(found.0, expected, "{}", found.1);
        Ok(())
    })
}

fn binary(runtime: &str) -> Option<PathBuf> {
    if runtime == "coracle" { Some(Runtime::binary_under_test()) } else { Runtime::peer(runtime) }
}

/// The user, who needs no entry anywhere.
const USER: u32 = 4242;
/// The first host id of a privileged container's map.
const BASE: u32 = 200_000;

/// Tells of the mount in one word, and tries to make a directory in it.
const SCRIPT: &str = "grep ' /mnt ' /proc/self/mountinfo | tail -n 1 | sed 's|.* /mnt \\(r[ow]\\).*|\\1|'; \
    mkdir /mnt/made 2>/dev/null && rmdir /mnt/made && echo writable; true";

fn outcome(rt: &Runtime, what: &str, caller: Caller) -> Result<(Outcome, String), coracle_integration::Skip> {
    let is_user = matches!(caller, Caller::User | Caller::UserMapped);
    let bundle = bundle(rt, what, caller);
    hide_controllers(rt);
    let c = rt.container(&bundle);
    let plain = c.run_command(&[]);
    let ran = if is_user {
        let program = bundle.path().join("runtime");
        let binary = if is_reachable(rt.binary()) {
            rt.binary().to_owned()
        } else if fs::copy(rt.binary(), &program).is_ok() && is_static(&program) {
            lchown(&program, Some(USER), Some(USER)).expect("chown");
            program
        } else {
            return Err(skip("an ordinary user can't reach the runtime").expect_err("it is skipped"));
        };
        let mut arguments: Vec<_> = plain.get_args().map(std::ffi::OsStr::to_owned).collect();
        // The state is the user's own.
        if let Some(root) = arguments.get_mut(1) {
            *root = bundle.path().join("state").into_os_string();
        }
        let id = USER.to_string();
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &id, "--regid", &id, "--clear-groups"]).arg(binary).args(arguments);
        command.env("XDG_RUNTIME_DIR", bundle.path()).stdin(std::process::Stdio::null());
        run(command)
    } else {
        run(plain)
    };
    let text = ran.to_string();
    let lines = ran.lines();
    let outcome = match (ran.status.success(), lines.as_slice()) {
        (true, [.., "rw", "writable"]) => Writable,
        (true, [.., "rw"]) => There,
        (true, [.., "ro"]) => ReadOnly,
        (false, _) => Refused,
        _ => panic!("the script said something else: {text}"),
    };
    assert!(outcome != Refused || !ran.stderr.trim().is_empty(), "a refusal needs a reason: {text}");
    Ok((outcome, text))
}

fn bundle(rt: &Runtime, what: &str, caller: Caller) -> Bundle {
    let owner = match caller {
        Caller::Root => 0,
        Caller::RootMapped => BASE,
        Caller::User | Caller::UserMapped => USER,
    };
    let bundle = rt.script(SCRIPT).edit(|config| {
        grant(config, &["CAP_SYS_ADMIN"]);
        config["mounts"].as_array_mut().expect("mounts").retain(|mount| {
            ["/proc", "/dev"].contains(&mount["destination"].as_str().unwrap_or_default())
        });
        config["linux"]["maskedPaths"] = json!([]);
        config["linux"]["readonlyPaths"] = json!([]);
        config["linux"].as_object_mut().expect("an object").remove("resources");
        match what {
            "proc-of-the-host" => {
                without_namespace(config, "pid");
                config["mounts"][0] = json!({ "destination": "/proc", "type": "bind", "source": "/proc", "options": ["rbind"] });
            }
            "sysfs-of-the-host" => without_namespace(config, "network"),
            _ => {}
        }
        let size = match caller {
            Caller::Root | Caller::User => return,
            Caller::RootMapped => 65_536,
            Caller::UserMapped => 1,
        };
        coracle_integration::bundle::push(config, "/linux/namespaces", json!({ "type": "user" }));
        for list in ["uidMappings", "gidMappings"] {
            config["linux"][list] = json!([{ "containerID": 0, "hostID": owner, "size": size }]);
        }
    });
    let source = bundle.path().join("source");
    for name in ["lower", "upper", "work"] {
        fs::create_dir_all(source.join(name)).expect("making a directory");
    }
    let mount = mount_of(what, &source);
    let bundle = bundle.edit(|config| coracle_integration::bundle::push(config, "/mounts", mount));
    fs::create_dir_all(bundle.rootfs("/mnt")).expect("making a directory");
    run(command("chown", &["-hR", &format!("{owner}:{owner}"), &bundle.path().to_string_lossy()])).ok();
    bundle
}

fn mount_of(what: &str, source: &Path) -> Value {
    let (kind, from, options) = match what {
        "bind" => ("bind", source.display().to_string(), vec!["rbind".to_owned()]),
        "tmpfs" => ("tmpfs", "tmpfs".to_owned(), vec!["mode=777".to_owned()]),
        "overlay" => {
            let option = |name: &str, path: &str| format!("{name}={}", source.join(path).display());
            let options =
                vec![option("lowerdir", "lower"), option("upperdir", "upper"), option("workdir", "work")];
            ("overlay", "overlay".to_owned(), options)
        }
        other => {
            let kind = other.split('-').next().unwrap_or_default();
            (kind, kind.to_owned(), Vec::new())
        }
    };
    json!({ "destination": "/mnt", "type": kind, "source": from, "options": options })
}

/// crun refuses a host with both versions of cgroups: it is not shown that there is the second one.
fn hide_controllers(rt: &Runtime) {
    let controllers = "/sys/fs/cgroup/unified/cgroup.controllers";
    let is_crun = rt.binary().file_name().is_some_and(|name| name == "crun");
    if is_crun
        && Path::new(controllers).is_file()
        && !fs::read_to_string(controllers).unwrap_or_default().is_empty()
    {
        mount(Some("/dev/null"), controllers, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .expect("bind mount");
    }
}

/// Whether everybody may execute a file.
fn is_reachable(path: &Path) -> bool {
    let id = USER.to_string();
    let test = ["--reuid", &id, "--regid", &id, "--clear-groups", "test", "-x", &path.to_string_lossy()];
    host::has_program("setpriv") && run(command("setpriv", &test)).status.success()
}

/// Whether a copy of a program works: it needs no other file.
fn is_static(path: &Path) -> bool {
    !fs::read(path).unwrap_or_default().windows(8).any(|part| part == b"ld-linux")
}
