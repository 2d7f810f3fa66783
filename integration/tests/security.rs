//! Attacks on runtimes that have happened, each as a test: processes in the container that watch for one of the runtime's,
//! its image, its descriptors, what it mounts. Hostile root filesystems are in `hostile_rootfs.rs`.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use coracle_integration::bundle::{add_mount, grant, push};
use coracle_integration::command::{Running, command, eventually, in_shell, run};
use coracle_integration::hostile::Outside;
use coracle_integration::{Checked, Runtime, host, skip, tests};
use rustix::fs::CWD;
use serde_json::{Value, json};

fn main() -> ExitCode {
    coracle_integration::run_tests(tests![
        a_container_process_cannot_look_into_an_exec_of_the_runtime,
        the_runtimes_binary_cannot_be_overwritten,
        the_runtimes_image_inside_is_not_the_writable_binary,
        a_script_of_the_runtime_itself_gives_nothing_away,
        an_immutable_binary_is_not_shown_to_who_may_change_that,
        the_hosts_null_device_is_not_handed_in,
        an_exec_is_not_handed_the_hosts_null_device,
        an_exec_without_a_null_device_inside_has_one_of_its_own,
        a_volume_over_proc_is_refused,
        a_working_directory_through_a_descriptor_is_refused,
        an_exec_working_directory_through_a_descriptor_is_refused,
        no_mount_reaches_the_host_even_when_create_fails,
        a_privileged_container_cannot_reach_the_runtimes_state,
        descriptors_of_the_host_are_not_in_the_container,
        the_runtimes_environment_is_not_in_the_container,
        a_process_that_waits_cannot_be_looked_into,
        parts_of_procfs_and_other_filesystems_are_refused_on_proc,
        what_is_mounted_over_the_hosts_proc_is_not_written_to,
        a_label_that_the_kernel_cannot_apply_is_refused,
        devices_of_the_host_in_a_user_namespace_run_nothing,
        the_path_of_a_bundle_does_not_act_on_a_terminal,
    ])
}

/// How often a race is tried.
const ROUNDS: usize = 30;

fn a_container_process_cannot_look_into_an_exec_of_the_runtime(rt: &Runtime) {
    // Root in the container, but without CAP_SYS_PTRACE, looks for any process whose program is not its own, and for what
    // those have open whose program it can't see. One that has become its own program meanwhile is none.
    let bundle = rt.script(
        "echo ready; while :; do for d in /proc/[0-9]*; do \
         x=$(readlink $d/exe 2>/dev/null); [ \"$x\" = /bin/busybox ] && continue; \
         f=$(ls -l $d/fd 2>/dev/null | grep -e ' -> '); y=$(readlink $d/exe 2>/dev/null); [ \"$y\" = /bin/busybox ] && continue; \
         [ -z \"$x$f\" ] || echo leak: $x $f; done; done",
    );
    let c = rt.container(&bundle);
    c.up();
    c.wait_for_output("ready");
    for _ in 0..ROUNDS {
        // It stays for a moment, so that it can be told from one that is still the runtime's.
        c.exec(&["usleep", "20000"]).ok();
    }
    assert!(!c.output().contains("leak"), "{}", c.output());
}

/// The runtime under test as a copy that may be damaged.
fn copied(rt: &Runtime) -> (Runtime, PathBuf, Vec<u8>) {
    let copy = rt.scratch("copy-of-the-runtime");
    // By a command: a descriptor for writing here would be inherited for a moment by what other tests start, and a
    // program that is open for writing cannot be executed.
    run(command("cp", &[&rt.binary().to_string_lossy(), &copy.to_string_lossy()])).ok();
    let bytes = fs::read(&copy).expect("reading the runtime");
    (Runtime::at(copy.clone()), copy, bytes)
}

fn the_runtimes_binary_cannot_be_overwritten(rt: &Runtime) {
    let (own, copy, before) = copied(rt);
    // A process with all rights but a user namespace keeps the runtime's program open while it runs in the container,
    // and writes to it once it is no longer running.
    let script = "echo ready; n=0; while :; do for d in /proc/[0-9]*; do \
         x=$(readlink $d/exe 2>/dev/null); case \"$x\" in ''|/bin/busybox) continue;; esac; \
         if exec 3< $d/exe; then n=$((n+1)); for i in 1 2 3 4 5 6 7 8; do \
         ( echo overwritten > /proc/self/fd/3 ) 2>/dev/null; ( echo overwritten >> $d/exe ) 2>/dev/null; \
         usleep 2000; done; exec 3<&-; echo \"tried $n\"; fi; done; done 2>/dev/null";
    let bundle = own.script(script).edit(|config| grant(config, &ALL_CAPABILITIES));
    let c = own.container(&bundle);
    c.up();
    c.wait_for_output("ready");
    for _ in 0..ROUNDS {
        c.exec(&["/proc/self/exe", "--version"]);
        c.exec(&["true"]);
    }
    assert!(fs::read(&copy).expect("reading the runtime") == before, "the runtime's binary was overwritten");
    c.call("delete", &["--force"]).ok();
    own.finish().expect("nothing is left");
}

const ALL_CAPABILITIES: [&str; 6] =
    ["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_SYS_ADMIN", "CAP_KILL", "CAP_FOWNER", "CAP_DAC_READ_SEARCH"];

fn the_runtimes_image_inside_is_not_the_writable_binary(rt: &Runtime) {
    let bundle = rt.bundle(&["true"]);
    let c = rt.container(&bundle);
    // Created but not started: the process is the runtime's own, waiting.
    c.create().ok();
    let binary = fs::metadata(rt.binary()).expect("the runtime");
    let image = File::open(format!("/proc/{}/exe", c.pid())).expect("the waiting process");
    let found = image.metadata().expect("its image");
    let same = (found.dev(), found.ino()) == (binary.dev(), binary.ino());
    assert!(!same || protected(&image), "the process inside runs the host's own writable file");
}

/// True when nobody can write to the file as it was opened: its mount is read-only, or the file is immutable.
fn protected(image: &File) -> bool {
    use rustix::fs::{AtFlags, StatVfsMountFlags, StatxAttributes, StatxFlags, fstatvfs, statx};
    let readonly = fstatvfs(image).is_ok_and(|found| found.f_flag.contains(StatVfsMountFlags::RDONLY));
    let fixed = StatxAttributes::IMMUTABLE | StatxAttributes::VERITY;
    let immutable = statx(image, "", AtFlags::EMPTY_PATH, StatxFlags::empty())
        .is_ok_and(|found| found.stx_attributes.intersects(fixed));
    readonly || immutable
}

fn a_script_of_the_runtime_itself_gives_nothing_away(rt: &Runtime) {
    let (own, copy, before) = copied(rt);
    let bundle = own.bundle(&["/entry"]);
    bundle.file("entry", "#!/proc/self/exe\n", 0o755);
    let _ = own.container(&bundle).run();
    assert!(fs::read(&copy).expect("reading the runtime") == before);
    own.finish().expect("nothing is left");
}

/// The runtime under test as a copy that is immutable until this is dropped.
struct Immutable(PathBuf);

impl Immutable {
    fn make(copy: &Path) -> Option<Self> {
        host::program("chattr")?;
        let made = run(command("chattr", &["+i", &copy.to_string_lossy()]));
        made.status.success().then(|| Self(copy.to_owned()))
    }
}

impl Drop for Immutable {
    fn drop(&mut self) {
        run(command("chattr", &["-i", &self.0.to_string_lossy()]));
    }
}

fn an_immutable_binary_is_not_shown_to_who_may_change_that(rt: &Runtime) -> Checked {
    rt.coracle_only("runc knows no immutable binary")?;
    let (own, copy, _) = copied(rt);
    let binary = fs::metadata(&copy).expect("the runtime");
    let is_binary = |pid: i32| {
        let image = fs::metadata(format!("/proc/{pid}/exe")).expect("the waiting process");
        (image.dev(), image.ino()) == (binary.dev(), binary.ino())
    };
    let Some(_immutable) = Immutable::make(&copy) else {
        return skip("no chattr(1), or no immutable files on this file system");
    };
    let plain = own.bundle(&["true"]);
    let c = own.container(&plain);
    c.create().ok();
    assert!(is_binary(c.pid()), "who can't change the flag is kept from writing by it");
    // The flag can be taken away, and the file then be written to, by a descriptor that was opened for reading.
    let script = "echo ready; while :; do for d in /proc/[0-9]*; do \
         x=$(readlink $d/exe 2>/dev/null); case \"$x\" in ''|/bin/busybox) continue;; esac; \
         stat -Lc 'seen %d:%i' $d/exe 2>/dev/null; done; done";
    let bundle = own.script(script).edit(|config| grant(config, &["CAP_LINUX_IMMUTABLE", "CAP_SYS_PTRACE"]));
    let c = own.container(&bundle);
    c.create().ok();
    assert!(!is_binary(c.pid()), "the process inside runs the file whose flag it may take away");
    c.start().ok();
    c.wait_for_output("ready");
    for _ in 0..ROUNDS {
        c.exec(&["true"]).ok();
    }
    let seen = format!("seen {}:{}", binary.dev(), binary.ino());
    assert!(!c.output().contains(&seen), "an exec runs the file whose flag the container may take away");
    own.finish().expect("nothing is left");
    Ok(())
}

/// A null device of this test's, open as an engine's `/dev/null` would be.
fn null_of_the_host(rt: &Runtime) -> (PathBuf, File) {
    use rustix::fs::{FileType, Mode, makedev, mknodat};
    let path = rt.own("null");
    let mode = Mode::from_raw_mode(0o666);
    mknodat(CWD, &path, FileType::CharacterDevice, mode, makedev(1, 3)).expect("making a device");
    let open = File::options().read(true).write(true).open(&path).expect("opening the null device");
    (path, open)
}

/// Tries to close the null device on standard input to everybody else.
const SPOIL: &str =
    "chmod 000 /proc/self/fd/0; chown 4242 /proc/self/fd/0; cat; stat -Lc %t:%T /proc/self/fd/0";

#[track_caller]
fn is_unspoilt(null: &Path, mode: u32) {
    let found = fs::metadata(null).expect("the null device");
    assert_eq!((found.mode(), found.uid()), (mode, 0), "the host's null device was changed from inside");
}

fn the_hosts_null_device_is_not_handed_in(rt: &Runtime) {
    let (path, null) = null_of_the_host(rt);
    let mode = fs::metadata(&path).expect("the null device").mode();
    let bundle = rt.script(SPOIL);
    let c = rt.container(&bundle);
    let mut command = c.run_command(&["--detach"]);
    command.stdin(null);
    c.detached(command).ok();
    // It is a null device still.
    c.wait_for_output("1:3");
    is_unspoilt(&path, mode);
}

fn an_exec_is_not_handed_the_hosts_null_device(rt: &Runtime) -> Checked {
    rt.coracle_only("runc does so for the first process only")?;
    let (path, null) = null_of_the_host(rt);
    let mode = fs::metadata(&path).expect("the null device").mode();
    let bundle = rt.sleeper();
    let c = rt.container(&bundle);
    c.up();
    let mut command = c.exec_command(&[], &["sh", "-c", SPOIL]);
    command.stdin(null);
    assert_eq!(Running::start(command).finish().ok().out(), "1:3");
    is_unspoilt(&path, mode);
    Ok(())
}

fn an_exec_without_a_null_device_inside_has_one_of_its_own(rt: &Runtime) -> Checked {
    rt.coracle_only("runc does so for the first process only")?;
    let (path, null) = null_of_the_host(rt);
    let mode = fs::metadata(&path).expect("the null device").mode();
    let bundle = rt.sleeper();
    let c = rt.container(&bundle);
    c.up();
    c.exec(&["sh", "-c", "rm /dev/null && echo spoilt > /dev/null"]).ok();
    let mut command = c.exec_command(&[], &["sh", "-c", SPOIL]);
    command.stdin(null);
    assert_eq!(Running::start(command).finish().ok().out(), "1:3");
    is_unspoilt(&path, mode);
    Ok(())
}

fn a_volume_over_proc_is_refused(rt: &Runtime) {
    let outside = Outside::new(rt);
    let source = outside.path.to_string_lossy();
    for destination in
        ["/proc", "/proc/self", "/proc/self/attr", "/proc/sys/kernel", "/tmp/../proc/self/attr"]
    {
        let bundle =
            rt.bundle(&["true"]).edit(|config| add_mount(config, destination, "bind", &source, &["bind"]));
        rt.container(&bundle).run().exits(1).fails();
        rt.assert_clean();
    }
}

fn a_working_directory_through_a_descriptor_is_refused(rt: &Runtime) {
    for number in 3..16 {
        let seen =
            rt.sh("pwd; ls", |config| config["process"]["cwd"] = json!(format!("/proc/self/fd/{number}")));
        // Refused, or taken to be some directory of the container: never one of the host.
        let inside = seen.stdout.starts_with('/')
            && !seen.stdout.contains("lost+found")
            && !seen.stdout.contains("cgroup.procs");
        assert!(!seen.status.success() || inside, "{number}: {seen}");
        rt.assert_clean();
    }
}

fn an_exec_working_directory_through_a_descriptor_is_refused(rt: &Runtime) {
    let bundle = rt.sleeper();
    let c = rt.container(&bundle);
    c.up();
    for number in 3..16 {
        let seen = c.exec_with(&["--cwd", &format!("/proc/self/fd/{number}")], &["sh", "-c", "pwd; ls"]);
        let inside = seen.stdout.starts_with('/')
            && !seen.stdout.contains("lost+found")
            && !seen.stdout.contains("cgroup.procs");
        assert!(!seen.status.success() || inside, "{number}: {seen}");
    }
}

fn no_mount_reaches_the_host_even_when_create_fails(rt: &Runtime) {
    let before = fs::read_to_string("/proc/self/mountinfo").expect("our own mounts").lines().count();
    for edit in [
        (|config: &mut Value| config["process"]["args"] = json!(["nonesuch"])) as fn(&mut Value),
        |config| add_mount(config, "/x", "bind", "/not/there", &["bind"]),
        |config| config["hooks"] = json!({ "createContainer": [{ "path": "/bin/false" }] }),
    ] {
        let bundle = rt.bundle(&["true"]).edit(edit);
        rt.container(&bundle).run().fails();
    }
    // Others share this place, so only mounts of this test count.
    assert!(host::mounts_below(&rt.scratch("")).is_empty(), "{before} before");
}

fn a_privileged_container_cannot_reach_the_runtimes_state(rt: &Runtime) {
    let script =
        format!("ls {0} || ls /proc/1/root{0} || ls /proc/self/fd/*/..{0}; true", rt.root().display());
    let bundle = rt.script(&script).edit(|config| grant(config, &ALL_CAPABILITIES));
    let seen = rt.container(&bundle).run().ok();
    assert!(!seen.stdout.contains("state.json") && !seen.stdout.contains(rt.mark()), "{seen}");
}

fn descriptors_of_the_host_are_not_in_the_container(rt: &Runtime) {
    // A created container waits; what its process has open then is within reach of others in its pid namespace.
    let bundle = rt.sleeper();
    let c = rt.container(&bundle);
    c.create().ok();
    let path = format!("/proc/{}/fd", c.pid());
    for entry in fs::read_dir(path).expect("its descriptors").flatten() {
        let target = fs::read_link(entry.path()).unwrap_or_default();
        let is_directory = fs::metadata(entry.path()).is_ok_and(|metadata| metadata.is_dir());
        assert!(!is_directory, "a directory is open: {} -> {}", entry.path().display(), target.display());
    }
    assert!(eventually(|| host::is_alive(c.pid())));
}

fn the_runtimes_environment_is_not_in_the_container(rt: &Runtime) {
    let bundle = rt.script("cat /proc/1/environ | tr '\\0' '\\n'; env");
    let c = rt.container(&bundle);
    let mut command = c.run_command(&[]);
    command.env("SECRET_OF_THE_HOST", "yes");
    let seen = coracle_integration::command::run(command).ok();
    assert!(!seen.stdout.contains("SECRET_OF_THE_HOST"), "{seen}");
}

fn a_process_that_waits_cannot_be_looked_into(rt: &Runtime) -> Checked {
    rt.coracle_only("runc's waiting process can be looked into")?;
    // The same user with the same capabilities: only that the process is not dumpable is in the way.
    let c = rt.container(&rt.sleeper());
    c.create().ok();
    let seen = c
        .exec(&["sh", "-c", "readlink /proc/1/exe; ls -l /proc/1/fd | grep -e ' -> '; cat /proc/1/environ"])
        .fails();
    assert_eq!(seen.stdout, "");
    c.start().ok();
    assert!(eventually(|| c.exec(&["readlink", "/proc/1/exe"]).out() == "/bin/busybox"));
    Ok(())
}

fn parts_of_procfs_and_other_filesystems_are_refused_on_proc(rt: &Runtime) -> Checked {
    rt.coracle_only("runc before 1.2 lets some of them pass")?;
    for (kind, destination) in [
        ("sysfs", "/proc/sys"),
        ("proc", "/proc/sys"),
        ("sysfs", "/proc/1/attr"),
        ("tmpfs", "/proc/self"),
        ("sysfs", "/proc"),
    ] {
        let bundle = rt.bundle(&["true"]).edit(|config| add_mount(config, destination, kind, kind, &[]));
        let ran = rt.container(&bundle).run();
        assert!(!ran.status.success(), "{kind} on {destination}: {ran}");
        rt.assert_clean();
    }
    for source in ["/proc/sys", "/proc/self", "/proc/self/status"] {
        let bundle =
            rt.bundle(&["true"]).edit(|config| add_mount(config, "/proc", "bind", source, &["bind"]));
        let ran = rt.container(&bundle).run();
        assert!(!ran.status.success(), "{source} on /proc: {ran}");
        rt.assert_clean();
    }
    Ok(())
}

fn what_is_mounted_over_the_hosts_proc_is_not_written_to(rt: &Runtime) -> Checked {
    rt.coracle_only("runc before 1.2.8 has CVE-2025-52881")?;
    let bundle = rt.script("cat /proc/sys/net/ipv4/ip_default_ttl").edit(|config| {
        config["linux"]["sysctl"] = json!({ "net.ipv4.ip_default_ttl": "77" });
    });
    // A file that would take the value is there; the real one takes it.
    let script = "mount -t tmpfs none /proc/sys && mkdir -p /proc/sys/net/ipv4 && \
        > /proc/sys/net/ipv4/ip_default_ttl && \"$@\" && echo \"false one: $(cat /proc/sys/net/ipv4/ip_default_ttl)\"";
    let shell = in_shell(script, &rt.container(&bundle).run_command(&[]));
    let mut command = command("unshare", &["--mount", "--propagation", "private"]);
    command.arg(shell.get_program()).args(shell.get_args());
    command.envs(shell.get_envs().filter_map(|(name, value)| Some((name, value?))));
    assert_eq!(run(command).ok().lines(), ["77", "false one: "]);
    Ok(())
}

fn a_label_that_the_kernel_cannot_apply_is_refused(rt: &Runtime) -> Checked {
    rt.coracle_only("runc words it otherwise")?;
    let has_apparmor =
        fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with('Y'));
    if has_apparmor || Path::new("/sys/fs/selinux/enforce").exists() {
        return skip("this kernel has AppArmor or SELinux");
    }
    rt.sh("true", |config| config["process"]["apparmorProfile"] = json!("strict"))
        .fails_with("AppArmor is not enabled");
    rt.sh("true", |config| config["process"]["selinuxLabel"] = json!("u:r:t:s0"))
        .fails_with("SELinux is not enabled");
    rt.sh("true", |config| config["linux"]["mountLabel"] = json!("u:r:t:s0"))
        .fails_with("SELinux is not enabled");
    Ok(())
}

fn the_path_of_a_bundle_does_not_act_on_a_terminal(rt: &Runtime) -> Checked {
    rt.coracle_only("runc prints it as it is")?;
    let path = rt.scratch("b\u{1b}[2J\u{202e}");
    fs::create_dir(&path).expect("making a directory");
    let log = rt.scratch("log").display().to_string();
    let shown = rt.call(&["--log", &log, "run", "--bundle", &path.to_string_lossy(), "x"]).fails();
    assert!(shown.stderr.contains("b\\x1b[2J\\u202e"), "{shown}");
    assert!(!shown.stderr.contains(['\u{1b}', '\u{202e}']), "{shown}");
    Ok(())
}

fn devices_of_the_host_in_a_user_namespace_run_nothing(rt: &Runtime) -> Checked {
    rt.coracle_only("runc adds no flags")?;
    let bundle = rt.bundle(&["cat", "/proc/self/mountinfo"]).edit(|config| {
        push(config, "/linux/namespaces", json!({ "type": "user" }));
        let map = json!([{ "containerID": 0, "hostID": 0, "size": 65536 }]);
        config["linux"]["uidMappings"] = map.clone();
        config["linux"]["gidMappings"] = map;
    });
    let ran = rt.container(&bundle).run().ok();
    let mounts = host::parse_mounts(&ran.stdout);
    let null = mounts.iter().find(|mount| mount.target == "/dev/null").expect("the host's node is bound");
    assert!(null.has("nosuid") && null.has("noexec"), "{null:?}");
    Ok(())
}
