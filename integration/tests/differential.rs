//! The same bundles under runc and under the runtime under test: what the container's process sees must be the same.
//!
//! Every difference that is meant is named in `normalise` and `describe`, with the reason.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use coracle_integration::bundle::{add_mount, grant, push, set_capabilities, without_namespace};
use coracle_integration::command::{command, run};
use coracle_integration::host::parse_mounts;
use coracle_integration::{Bundle, Checked, Runtime, host, rootfs, skip, trial_without_runtime};
use libtest_mimic::Trial;
use nix::mount::{MsFlags, mount};
use serde_json::{Value, json};

fn main() -> ExitCode {
    let mut tests: Vec<Trial> = CASES
        .iter()
        .map(|&(name, edit)| {
            trial_without_runtime(name, move || {
                compare(|rt| rt.bundle(&[]).edit(edit));
            })
        })
        .collect();
    tests.push(trial_without_runtime("a_bundle_of_runc_spec", || compare(spec_bundle)));
    tests.push(trial_without_runtime("an_image_unpacked_by_umoci", || {
        compare(|rt| rootfs::umoci_bundle(&rt.bundle_path()));
    }));
    tests.push(trial_without_runtime("a_debian_root_filesystem", debian));
    tests.push(trial_without_runtime("debian_programs_work", debian_programs));
    tests.push(trial_without_runtime("an_exec_in_the_default_container", exec));
    coracle_integration::run_tests(tests)
}

type Edit = fn(&mut Value);

const CASES: [(&str, Edit); 24] = [
    ("the_default_bundle", |_| ()),
    ("a_readonly_root", |config| config["root"]["readonly"] = json!(true)),
    ("an_ordinary_user", |config| {
        config["process"]["user"] =
            json!({ "uid": 1000, "gid": 1000, "additionalGids": [5, 7], "umask": 0o077 });
    }),
    ("an_ordinary_user_with_ambient_capabilities", |config| {
        config["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
        let sets = ["bounding", "effective", "permitted", "inheritable", "ambient"];
        set_capabilities(config, &sets, &["CAP_NET_BIND_SERVICE", "CAP_KILL"]);
    }),
    ("no_capabilities_at_all", |config| {
        config["process"].as_object_mut().expect("an object").remove("capabilities");
    }),
    ("many_capabilities_without_no_new_privileges", |config| {
        grant(
            config,
            &[
                "CAP_CHOWN",
                "CAP_DAC_OVERRIDE",
                "CAP_FSETID",
                "CAP_FOWNER",
                "CAP_MKNOD",
                "CAP_NET_RAW",
                "CAP_SETGID",
                "CAP_SETUID",
                "CAP_SETFCAP",
                "CAP_SETPCAP",
                "CAP_SYS_CHROOT",
                "CAP_SYS_ADMIN",
            ],
        );
        config["process"]["noNewPrivileges"] = json!(false);
    }),
    ("the_hosts_pid_namespace", |config| without_namespace(config, "pid")),
    ("the_hosts_network", |config| without_namespace(config, "network")),
    ("the_hosts_ipc", |config| without_namespace(config, "ipc")),
    ("the_hosts_names", |config| {
        without_namespace(config, "uts");
        config.as_object_mut().expect("an object").remove("hostname");
    }),
    ("a_cgroup_namespace", |config| push(config, "/linux/namespaces", json!({ "type": "cgroup" }))),
    ("resource_limits", |config| {
        config["process"]["rlimits"] = json!([
            { "type": "RLIMIT_CORE", "soft": 0, "hard": 4096 }, { "type": "RLIMIT_FSIZE", "soft": 1_048_576, "hard": 2_097_152 },
            { "type": "RLIMIT_NPROC", "soft": 8000, "hard": 9000 }, { "type": "RLIMIT_NOFILE", "soft": 64, "hard": 64 },
        ]);
        config["process"]["oomScoreAdj"] = json!(500);
    }),
    ("more_mounts", |config| {
        add_mount(config, "/data", "tmpfs", "tmpfs", &["nosuid", "nodev", "size=64k", "mode=1777"]);
        add_mount(config, "/a/b/c", "bind", "/etc", &["rbind", "ro", "nosuid"]);
        add_mount(config, "/etc/hostname", "bind", "/etc/hostname", &["bind", "rprivate"]);
        add_mount(config, "/run", "tmpfs", "tmpfs", &["noexec", "noatime"]);
        add_mount(config, "/run/lock", "tmpfs", "tmpfs", &["strictatime", "nodiratime"]);
        add_mount(config, "/slave", "bind", "/usr/share", &["rbind", "rslave"]);
    }),
    ("no_masks", |config| {
        config["linux"]["maskedPaths"] = json!([]);
        config["linux"]["readonlyPaths"] = json!([]);
    }),
    ("more_masks", |config| {
        for path in ["/etc/passwd", "/usr/bin", "/not/there", "/proc/interrupts"] {
            push(config, "/linux/maskedPaths", json!(path));
        }
        push(config, "/linux/readonlyPaths", json!("/var"));
        push(config, "/linux/readonlyPaths", json!("/etc/group"));
    }),
    ("no_mounts_but_proc", |config| {
        config["mounts"] = json!([{ "destination": "/proc", "type": "proc", "source": "proc" }]);
    }),
    ("no_dev_mount", |config| {
        let mounts = config["mounts"].as_array_mut().expect("a list");
        mounts.retain(|mount| mount["destination"] != "/dev");
    }),
    ("more_devices", |config| {
        config["linux"]["devices"] = json!([
            { "path": "/dev/nought", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 7, "gid": 8 },
            { "path": "/dev/net/tun", "type": "c", "major": 10, "minor": 200 },
            { "path": "/dev/disk0", "type": "b", "major": 7, "minor": 200, "fileMode": 0o600 },
            { "path": "/dev/pipe", "type": "p", "fileMode": 0o666 },
        ]);
        push(
            config,
            "/linux/resources/devices",
            json!({ "allow": true, "type": "c", "major": 10, "minor": 200,
            "access": "rwm" }),
        );
    }),
    ("sysctls", |config| {
        config["linux"]["sysctl"] = json!({ "net.ipv4.ip_forward": "1", "kernel.shmmax": "4096",
            "net.ipv4.ping_group_range": "0 1000" });
    }),
    ("cgroup_limits", |config| {
        config["linux"]["resources"]["memory"] =
            json!({ "limit": 64 << 20, "swap": 64 << 20, "swappiness": 10 });
        config["linux"]["resources"]["cpu"] =
            json!({ "shares": 333, "quota": 40_000, "period": 80_000, "cpus": "0" });
        config["linux"]["resources"]["pids"] = json!({ "limit": 55 });
    }),
    ("a_writable_cgroup_mount", |config| {
        let mount =
            config["mounts"].as_array_mut().and_then(|mounts| mounts.last_mut()).expect("the cgroup mount");
        mount["options"] = json!(["nosuid", "noexec", "nodev"]);
    }),
    ("the_propagation_of_the_root", |config| config["linux"]["rootfsPropagation"] = json!("rslave")),
    ("a_working_directory_that_is_new", |config| config["process"]["cwd"] = json!("/srv/new")),
    ("a_proc_of_options", |config| {
        config["mounts"][0]["options"] = json!(["nosuid", "noexec", "nodev", "hidepid=2"]);
    }),
];

/// What the probe prints: sections of lines, each begun by `== NAME`.
const PROBE: &str = r#"
section() { echo "== $1"; }
section mounts; cat /proc/self/mountinfo
section status; grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp|Umask|SigBlk|SigIgn|SigCgt|Cpus_allowed_list)' /proc/self/status
section limits; cat /proc/self/limits
section cgroup; cat /proc/self/cgroup
section devices; find /dev ! -path '/dev/mqueue*' ! -path '/dev/pts/*' | sort | while read -r f; do stat -c '%n %F %t:%T %a %u:%g' "$f"; readlink "$f"; done
section env; env | sort | grep -v '^CORACLE_TEST_MARK='
section namespaces; for n in cgroup ipc mnt net pid time user uts; do readlink /proc/self/ns/$n; done
section process; pwd; id; umask; hostname; cat /proc/self/oom_score_adj; set -- $(cat /proc/$$/stat); shift 15; echo "priority $3 nice $4"
section descriptors; ls /proc/self/fd
section root; stat -c '%n %F %a %u:%g' / /* 2>/dev/null; ls -A /proc/sys/kernel | head -n 3
section writable; for d in / /dev /proc/sys /sys /tmp /etc /var; do ( : > $d/.probe ) 2>/dev/null && echo "$d writable" && rm -f $d/.probe; done
section masked; for f in /proc/kcore /proc/keys /proc/timer_list /proc/interrupts /etc/passwd; do [ -e $f ] && stat -c '%n %F' $f; done; ls -A /sys/firmware /root 2>&1
section sysctl; cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmax /proc/sys/net/ipv4/ping_group_range /proc/sys/kernel/domainname
section limits-of-cgroup; for f in memory/memory.limit_in_bytes memory/memory.memsw.limit_in_bytes memory/memory.swappiness cpu/cpu.shares cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us cpuset/cpuset.cpus cpuset/cpuset.mems pids/pids.max devices/devices.list blkio/blkio.throttle.read_bps_device; do echo "$f"; cat /sys/fs/cgroup/$f 2>&1; done
section end
true
"#;

/// What a process saw, by section.
type Seen = BTreeMap<String, Vec<String>>;

/// Runs the probe in this bundle, and gives what it saw together with what is left in the root filesystem.
fn probe(rt: &Runtime, bundle: Bundle) -> Seen {
    let bundle = bundle.edit(|config| {
        config["process"]["args"] = json!(["sh", "-c", PROBE]);
        config["process"]["terminal"] = json!(false);
        let mark = json!(format!("{}={}", coracle_integration::leftovers::MARK, rt.mark()));
        if !config["process"]["env"].as_array().is_some_and(|env| env.contains(&mark)) {
            push(config, "/process/env", mark);
        }
    });
    let c = rt.container(&bundle);
    let ran = c.run();
    assert!(ran.status.success(), "{ran}");
    let mut seen = sections(&ran.stdout, &c.id, rt);
    let mut files: Vec<String> = Vec::new();
    list(&bundle.rootfs(""), &bundle.rootfs(""), &mut files);
    files.sort_unstable();
    seen.insert("files left in the rootfs".into(), files);
    seen
}

fn sections(text: &str, id: &str, rt: &Runtime) -> Seen {
    let mut seen = Seen::new();
    let mut section = String::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("== ") {
            name.clone_into(&mut section);
            seen.entry(section.clone()).or_default();
        } else {
            seen.entry(section.clone()).or_default().push(line.replace(id, "ID"));
        }
    }
    assert!(seen.contains_key("end"), "the probe did not come to its end: {text}");
    normalise(&mut seen, rt);
    seen
}

/// Takes out what differs from container to container, and nothing else.
fn normalise(seen: &mut Seen, rt: &Runtime) {
    if let Some(mounts) = seen.get_mut("mounts") {
        let parsed = parse_mounts(&mounts.join("\n"));
        *mounts = parsed.iter().map(|mount| describe(mount, rt)).collect();
    }
    if let Some(namespaces) = seen.get_mut("namespaces") {
        for link in namespaces.iter_mut() {
            let kind = link.split(':').next().unwrap_or_default().to_owned();
            let ours = i32::try_from(std::process::id()).ok().and_then(|pid| host::namespace_of(pid, &kind));
            let shared = ours.as_ref() == Some(link);
            *link = format!("{kind} {}", if shared { "shared" } else { "new" });
        }
    }
    if let Some(status) = seen.get_mut("status") {
        // Signals 32 and 33 are the C library's own. What it spawns ignores them; Go puts one back, and no program
        // can tell.
        for line in status.iter_mut() {
            if let Some(set) =
                line.strip_prefix("SigIgn:\t").and_then(|set| u64::from_str_radix(set, 16).ok())
            {
                *line = format!("SigIgn:\t{:016x}", set & !(0b11 << 31));
            }
        }
    }
    if let Some(root) = seen.get_mut("root") {
        // Directories come in no order.
        root.sort_unstable();
    }
}

/// A mount without numbers: where, what, and with which options.
fn describe(mount: &host::Mount, rt: &Runtime) -> String {
    let scratch = rt.scratch("").to_string_lossy().trim_end_matches('/').to_owned();
    let tags: Vec<&str> = mount.propagation.iter().filter_map(|tag| tag.split(':').next()).collect();
    let root = mount.root.replace(&scratch, "SCRATCH").replace(rt.mark(), "MARK");
    let mut options = mount.options.clone();
    if mount.target == "/sys/fs/cgroup" && mount.kind == "tmpfs" {
        // runc 1.1 leaves the tmpfs that holds the v1 hierarchies writable although `ro` was asked for.
        options.retain(|option| option != "ro" && option != "rw");
    }
    options.sort_unstable();
    let mut of_file_system = mount.super_options.clone();
    of_file_system.sort_unstable();
    // A masked directory is a read-only tmpfs; runtimes share one or make many, with sizes of their own.
    let masked = mount.kind == "tmpfs" && mount.has("ro") && !mount.target.starts_with("/sys/fs/cgroup");
    let (root, source, of_file_system) = if masked {
        (String::new(), String::new(), String::new())
    } else {
        // The name of a bind mount's file system is its host's, the same for both; layers of an overlay are not.
        let layers = mount.kind == "overlay";
        let shown = if layers { String::new() } else { of_file_system.join(",") };
        // The source of a cgroup hierarchy is any word.
        let source = if mount.kind == "cgroup" { String::new() } else { mount.source.clone() };
        (cgroup_root(mount, &root), source, shown)
    };
    format!(
        "{} {} {root} {source} {} [{of_file_system}] {tags:?}",
        mount.target,
        mount.kind,
        options.join(",")
    )
}

/// The root of a cgroup mount without the container's id.
fn cgroup_root(mount: &host::Mount, root: &str) -> String {
    match root.rsplit_once("/MARK") {
        Some((above, _)) if mount.kind.starts_with("cgroup") => format!("{above}/ID"),
        _ => root.to_owned(),
    }
}

/// The names, types and modes of all files below a directory.
fn list(top: &Path, directory: &Path, files: &mut Vec<String>) {
    use std::os::unix::fs::MetadataExt;
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let Ok(metadata) = fs::symlink_metadata(entry.path()) else {
            continue;
        };
        let path = entry.path();
        let name = path.strip_prefix(top).unwrap_or(&path).display();
        files.push(format!(
            "{name} {:o} {}:{} {}",
            metadata.mode(),
            metadata.uid(),
            metadata.gid(),
            metadata.rdev()
        ));
        if metadata.is_dir() {
            list(top, &path, files);
        }
    }
}

/// Runs the probe under both runtimes and demands that it sees the same.
fn compare(bundle: impl Fn(&Runtime) -> Bundle) {
    let yardstick = Runtime::at(host::program("runc").expect("runc is installed (install-test-needs)"));
    let tested = Runtime::under_test();
    let expected = probe(&yardstick, bundle(&yardstick));
    let seen = probe(&tested, bundle(&tested));
    let differences = differences(&expected, &seen);
    assert!(
        differences.is_empty(),
        "runc (-) and the runtime under test (+) differ:\n{}",
        differences.join("\n")
    );
    yardstick.finish().expect("runc leaves nothing behind");
    if let Err(complaint) = tested.finish() {
        panic!("{complaint}");
    }
}

fn differences(expected: &Seen, seen: &Seen) -> Vec<String> {
    let mut differences = Vec::new();
    for (section, lines) in expected {
        let nothing = Vec::new();
        let others = seen.get(section).unwrap_or(&nothing);
        let missing =
            lines.iter().filter(|line| !others.contains(line)).map(|line| format!("{section}: - {line}"));
        let added =
            others.iter().filter(|line| !lines.contains(line)).map(|line| format!("{section}: + {line}"));
        differences.extend(missing.chain(added));
        let same_set =
            lines.iter().all(|line| others.contains(line)) && others.iter().all(|line| lines.contains(line));
        // The order of mounts matters only where one hides another, which the sections on files show.
        if same_set && lines.len() != others.len() {
            differences.push(format!("{section}: {} lines and {}", lines.len(), others.len()));
        }
    }
    differences
}

/// What `runc spec` makes, whoever runs it.
fn spec_bundle(rt: &Runtime) -> Bundle {
    let path = rt.bundle_path();
    rootfs::busybox(&path.join("rootfs"));
    run(command("runc", &["spec", "--bundle", &path.to_string_lossy()])).ok();
    Bundle::open(path)
}

/// A bundle with an overlay over the cached Debian as its root filesystem.
fn debian_bundle(rt: &Runtime, debian: &Path) -> Bundle {
    let path = rt.own("debian");
    for directory in ["rootfs", "layers"] {
        fs::create_dir_all(path.join(directory)).expect("making a directory");
    }
    let layers = path.join("layers");
    mount(Some("tmpfs"), &layers, Some("tmpfs"), MsFlags::empty(), None::<&str>).expect("mounting a tmpfs");
    for layer in ["upper", "work"] {
        fs::create_dir(layers.join(layer)).expect("making a layer");
    }
    let data = format!(
        "lowerdir={},upperdir={},workdir={}",
        debian.display(),
        layers.join("upper").display(),
        layers.join("work").display()
    );
    mount(Some("overlay"), &path.join("rootfs"), Some("overlay"), MsFlags::empty(), Some(data.as_str()))
        .expect("mounting an overlay");
    let mut config = rt.bundle(&[]).config;
    config["process"]["env"] = json!(["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]);
    Bundle::new(path, config)
}

const SUITE: &str = "bookworm";

fn debian() -> Checked {
    match rootfs::debian(SUITE) {
        Ok(path) => compare(|rt| debian_bundle(rt, &path)),
        Err(why) => return skip(why),
    }
    Ok(())
}

fn debian_programs() -> Checked {
    let path = match rootfs::debian(SUITE) {
        Ok(path) => path,
        Err(why) => return skip(why),
    };
    let rt = Runtime::under_test();
    let script = "perl -e 'print 6 * 7, \"\\n\"'; dpkg-query -W -f '${Status}\\n' base-files; \
                  useradd --create-home someone && su someone -c 'id -un; pwd; cd; pwd'; apt-get --version | head -n 1 | cut -c1-3";
    let bundle = debian_bundle(&rt, &path).edit(|config| {
        config["process"]["args"] = json!(["bash", "-c", script]);
        config["process"]["noNewPrivileges"] = json!(false);
        grant(
            config,
            &[
                "CAP_CHOWN",
                "CAP_DAC_OVERRIDE",
                "CAP_FOWNER",
                "CAP_SETUID",
                "CAP_SETGID",
                "CAP_FSETID",
                "CAP_AUDIT_WRITE",
            ],
        );
    });
    let ran = rt.container(&bundle).run().ok();
    assert_eq!(ran.lines(), ["42", "install ok installed", "someone", "/", "/home/someone", "apt"]);
    if let Err(complaint) = rt.finish() {
        panic!("{complaint}");
    }
    Ok(())
}

/// What a process of `exec` sees.
fn exec() {
    let look = |rt: &Runtime| {
        let bundle = rt.sleeper();
        let c = rt.container(&bundle);
        c.up();
        let ran = c.exec(&["sh", "-c", PROBE]).ok();
        let seen = sections(&ran.stdout, &c.id, rt);
        c.call("delete", &["--force"]).ok();
        if let Err(complaint) = rt.finish() {
            panic!("{complaint}");
        }
        seen
    };
    let expected = look(&Runtime::at(host::program("runc").expect("runc is installed")));
    let differences = differences(&expected, &look(&Runtime::under_test()));
    assert!(
        differences.is_empty(),
        "runc (-) and the runtime under test (+) differ:\n{}",
        differences.join("\n")
    );
}
