//! Attacks on runtimes that have happened, each as a test: a hostile root filesystem, files that are exchanged while
//! the runtime works, processes in the container that watch for one of the runtime's.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use coracle_integration::bundle::{add_mount, grant, push};
use coracle_integration::command::{Running, command, eventually, in_shell, run};
use coracle_integration::console::DescriptorSocket;
use coracle_integration::{Bundle, Checked, Runtime, host, skip, tests};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::{Value, json};

fn main() -> ExitCode {
    coracle_integration::run_tests(tests![
        a_symlink_at_dev_stays_inside,
        symlinks_at_the_usual_mount_points_stay_inside,
        a_symlink_at_proc_is_refused,
        a_symlink_at_sys_is_refused,
        a_relative_symlink_at_proc_is_refused,
        a_file_at_proc_is_refused,
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
        a_destination_that_is_exchanged_stays_inside,
        missing_parents_that_are_exchanged_stay_inside,
        a_bind_destination_that_is_exchanged_stays_inside,
        a_null_device_that_is_exchanged_unmasks_nothing,
        what_is_not_the_null_device_masks_nothing,
        a_proc_directory_that_is_exchanged_is_no_way_out,
        a_symlinked_dev_without_a_mount_stays_inside,
        symlinks_in_dev_without_a_mount_stay_inside,
        a_symlinked_console_without_a_mount_stays_inside,
        a_console_that_is_exchanged_stays_inside,
        a_symlink_at_a_masked_path_does_not_unmask,
        a_symlink_at_a_readonly_path_stays_inside,
        a_working_directory_that_is_a_symlink_stays_inside,
        a_tmpfs_copies_nothing_through_a_symlink,
        the_users_file_may_be_a_symlink_out,
        the_users_file_may_be_a_fifo_or_a_device,
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

/// A directory on the host that nobody may touch, with a file in it.
struct Outside {
    path: PathBuf,
}

impl Outside {
    fn new(rt: &Runtime) -> Self {
        let path = rt.own("outside");
        fs::create_dir(&path).expect("making a directory");
        fs::write(path.join("secret"), "of the host\n").expect("writing a file");
        Self { path }
    }

    /// Demands that it has what it had and nothing else, and that nothing is mounted there.
    #[track_caller]
    fn is_untouched(&self) {
        let names: Vec<_> =
            fs::read_dir(&self.path).expect("it is there").flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(names, ["secret"], "the runtime made something outside the root filesystem");
        assert_eq!(fs::read_to_string(self.path.join("secret")).expect("it is there"), "of the host\n");
        assert!(host::mounts_below(&self.path).is_empty());
    }
}

/// Exchanges two names again and again until it is dropped.
struct Exchange {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Exchange {
    fn start(one: PathBuf, two: PathBuf) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                // A name that the runtime is just using may be busy; the next turn will do.
                let _ = renameat_with(CWD, &one, CWD, &two, RenameFlags::EXCHANGE);
                std::thread::sleep(std::time::Duration::from_micros(20));
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the exchanging thread does not panic");
        }
    }
}

/// Takes every mount at or below `/dev` out of the configuration.
fn without_dev(config: &mut Value) {
    if let Some(mounts) = config["mounts"].as_array_mut() {
        mounts.retain(|mount| !mount["destination"].as_str().is_some_and(|path| path.starts_with("/dev")));
    }
}

fn replace_by_symlink(bundle: &Bundle, inside: &str, target: impl AsRef<Path>) {
    let path = bundle.rootfs(inside);
    let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
    symlink(target, path).expect("making a symlink");
}

fn a_symlink_at_dev_stays_inside(rt: &Runtime) -> Checked {
    rt.coracle_only("runc before 1.4.3 has CVE-2026-41579")?;
    symlink_stays_inside(rt, "dev");
    Ok(())
}

fn symlinks_at_the_usual_mount_points_stay_inside(rt: &Runtime) {
    symlink_stays_inside(rt, "etc");
    symlink_stays_inside(rt, "tmp");
}

fn symlink_stays_inside(rt: &Runtime, name: &str) {
    let outside = Outside::new(rt);
    let bundle = rt.bundle(&["cat", "/proc/self/mountinfo"]).edit(|config| {
        add_mount(config, "/etc/hosts", "bind", "/etc/hostname", &["bind"]);
        add_mount(config, "/tmp/deep", "tmpfs", "tmpfs", &[]);
    });
    replace_by_symlink(&bundle, name, &outside.path);
    let ran = rt.container(&bundle).run();
    outside.is_untouched();
    // What was mounted through the link stands where it leads inside: on the host nobody would see it any more.
    if ran.status.success() {
        let path = outside.path.display();
        let expected = match name {
            "etc" => format!("{path}/hosts"),
            "tmp" => format!("{path}/deep"),
            _ => path.to_string(),
        };
        let inside = host::parse_mounts(&ran.stdout);
        assert!(inside.iter().any(|mount| mount.target == expected), "nothing at {expected}: {ran}");
    }
    rt.assert_clean();
    fs::remove_dir_all(&outside.path).expect("removing a directory of ours");
}

#[track_caller]
fn refused_with_symlink(rt: &Runtime, name: &str, target: &Path) {
    let bundle = rt.bundle(&["true"]);
    replace_by_symlink(&bundle, name, target);
    fs::create_dir_all(bundle.rootfs("tmp/elsewhere")).expect("making a directory");
    rt.container(&bundle).run().exits(1).fails();
    rt.assert_clean();
}

fn a_symlink_at_proc_is_refused(rt: &Runtime) {
    let outside = Outside::new(rt);
    refused_with_symlink(rt, "proc", &outside.path);
    refused_with_symlink(rt, "proc", Path::new("/tmp/elsewhere"));
    outside.is_untouched();
}

fn a_relative_symlink_at_proc_is_refused(rt: &Runtime) {
    refused_with_symlink(rt, "proc", Path::new("tmp/elsewhere"));
}

fn a_symlink_at_sys_is_refused(rt: &Runtime) {
    refused_with_symlink(rt, "sys", Path::new("/tmp/elsewhere"));
    refused_with_symlink(rt, "sys", Path::new("tmp/elsewhere"));
}

fn a_file_at_proc_is_refused(rt: &Runtime) {
    let bundle = rt.bundle(&["true"]);
    fs::remove_dir(bundle.rootfs("proc")).expect("removing an empty directory");
    fs::write(bundle.rootfs("proc"), "").expect("writing a file");
    rt.container(&bundle).run().exits(1).fails();
    rt.assert_clean();
}

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

/// Runs containers while `real` in the root filesystem is exchanged with a symlink to `target`.
fn race(
    rt: &Runtime,
    bundle: &Bundle,
    real: &str,
    target: &Path,
    check: impl Fn(&coracle_integration::Finished),
) {
    let link = bundle.rootfs(&format!("{real}.link"));
    symlink(target, &link).expect("making a symlink");
    let exchange = Exchange::start(bundle.rootfs(real), link);
    for _ in 0..ROUNDS {
        check(&rt.container(bundle).run());
    }
    drop(exchange);
    rt.assert_clean();
}

fn a_destination_that_is_exchanged_stays_inside(rt: &Runtime) -> Checked {
    rt.coracle_only("runc before 1.2 has CVE-2024-45310")?;
    let outside = Outside::new(rt);
    let bundle = rt.bundle(&["cat", "/proc/self/mountinfo"]).edit(|config| {
        add_mount(config, "/work/a/b", "tmpfs", "tmpfs", &[]);
        add_mount(config, "/work/a/file", "bind", "/etc/hostname", &["bind"]);
    });
    fs::create_dir_all(bundle.rootfs("work/a/b")).expect("making a directory");
    bundle.file("work/a/file", "", 0o644);
    race(rt, &bundle, "work/a", &outside.path, |_| outside.is_untouched());
    Ok(())
}

fn missing_parents_that_are_exchanged_stay_inside(rt: &Runtime) -> Checked {
    rt.coracle_only("runc before 1.2 has CVE-2024-45310")?;
    let outside = Outside::new(rt);
    let bundle = rt.bundle(&["true"]).edit(|config| {
        for index in 0..8 {
            add_mount(config, &format!("/work/a/{index}/new/er"), "tmpfs", "tmpfs", &[]);
            add_mount(config, &format!("/work/a/{index}/file"), "bind", "/etc/hostname", &["bind"]);
        }
    });
    fs::create_dir_all(bundle.rootfs("work/a")).expect("making a directory");
    race(rt, &bundle, "work/a", &outside.path, |_| outside.is_untouched());
    Ok(())
}

fn a_bind_destination_that_is_exchanged_stays_inside(rt: &Runtime) {
    // The target is a symlink to the host's root: a mount there would let the container see the host's files.
    let bundle = rt.script("ls /work /work/a 2>/dev/null; cat /proc/self/mountinfo").edit(|config| {
        add_mount(config, "/work/a/b", "bind", "/etc", &["bind", "ro"]);
    });
    fs::create_dir_all(bundle.rootfs("work/a/b")).expect("making a directory");
    let host_only =
        |text: &str| text.lines().any(|line| line.trim() == "lost+found" || line.trim() == "boot");
    race(rt, &bundle, "work/a", Path::new("/"), |ran| assert!(!host_only(&ran.stdout), "{ran}"));
}

fn a_null_device_that_is_exchanged_unmasks_nothing(rt: &Runtime) -> Checked {
    rt.coracle_only("runc before 1.2.8 has CVE-2025-31133")?;
    let bundle = rt.script("cat /etc/masked").edit(|config| {
        without_dev(config);
        push(config, "/linux/maskedPaths", json!("/etc/masked"));
    });
    bundle.file("etc/masked", "unmasked\n", 0o644);
    bundle.file("etc/other", "another file\n", 0o644);
    // The first run makes the device nodes.
    rt.container(&bundle).run().ok();
    race(rt, &bundle, "dev/null", Path::new("/etc/other"), |ran| {
        assert_eq!(ran.stdout, "", "masked by something that is not the null device: {ran}");
    });
    Ok(())
}

fn what_is_not_the_null_device_masks_nothing(rt: &Runtime) -> Checked {
    rt.coracle_only("runc before 1.2.8 has CVE-2025-31133")?;
    let dev = rt.own("dev");
    fs::create_dir(&dev).expect("making a directory");
    let source = dev.to_string_lossy();
    let bundle = rt.script("cat /etc/masked").edit(|config| {
        without_dev(config);
        add_mount(config, "/dev", "bind", &source, &["bind"]);
        push(config, "/linux/maskedPaths", json!("/etc/masked"));
    });
    bundle.file("etc/masked", "unmasked\n", 0o644);
    // There is none.
    assert_eq!(rt.container(&bundle).run().fails_with("/dev/null").stdout, "");
    fs::write(dev.join("null"), "a file\n").expect("writing a file");
    assert_eq!(rt.container(&bundle).run().fails_with("not the character device 1:3").stdout, "");
    Ok(())
}

fn a_proc_directory_that_is_exchanged_is_no_way_out(rt: &Runtime) {
    let outside = Outside::new(rt);
    let bundle = rt.bundle(&["cat", "/proc/self/mountinfo"]).edit(|config| {
        config["linux"]["sysctl"] = json!({ "net.ipv4.ip_forward": "1" });
    });
    race(rt, &bundle, "proc", &outside.path, |ran| {
        outside.is_untouched();
        // The directory itself may have either name by now.
        let strays = host::parse_mounts(&ran.stdout)
            .into_iter()
            .filter(|mount| mount.kind == "proc" && mount.root == "/")
            .find(|mount| !matches!(mount.target.as_str(), "/proc" | "/proc.link"));
        assert_eq!(strays, None, "proc was mounted through the link: {ran}");
    });
}

fn a_symlinked_dev_without_a_mount_stays_inside(rt: &Runtime) -> Checked {
    rt.coracle_only("runc before 1.4.3 has CVE-2026-41579")?;
    let outside = Outside::new(rt);
    let bundle = rt.bundle(&["true"]).edit(without_dev);
    replace_by_symlink(&bundle, "dev", &outside.path);
    let _ = rt.container(&bundle).run();
    outside.is_untouched();
    rt.assert_clean();
    Ok(())
}

fn symlinks_in_dev_without_a_mount_stay_inside(rt: &Runtime) {
    for name in ["null", "zero", "full", "tty", "random", "ptmx", "stdin", "fd", "console"] {
        let outside = rt.own(&format!("outside-{name}"));
        fs::create_dir(&outside).expect("making a directory");
        fs::write(outside.join("secret"), "of the host\n").expect("writing a file");
        for target in [outside.join("secret"), outside.join("new")] {
            let bundle = rt.bundle(&["true"]).edit(without_dev);
            replace_by_symlink(&bundle, &format!("dev/{name}"), &target);
            let _ = rt.container(&bundle).run();
            assert_eq!(
                fs::read_dir(&outside).expect("it is there").count(),
                1,
                "dev/{name}: made a file outside"
            );
            assert_eq!(fs::read_to_string(outside.join("secret")).expect("it is there"), "of the host\n");
        }
    }
}

fn a_symlinked_console_without_a_mount_stays_inside(rt: &Runtime) {
    let outside = Outside::new(rt);
    for target in ["secret", "new"] {
        let bundle = rt.bundle(&["true"]).edit(|config| {
            without_dev(config);
            add_mount(config, "/dev/pts", "devpts", "devpts", &["newinstance", "ptmxmode=0666"]);
            config["process"]["terminal"] = json!(true);
        });
        replace_by_symlink(&bundle, "dev/console", outside.path.join(target));
        let socket = DescriptorSocket::new(rt.scratch(&format!("console-{target}")));
        let c = rt.container(&bundle);
        // Whether it is refused or goes well, the other end of the socket may have been used.
        let _ = Running::start(c.create_command(&["--console-socket", socket.path()])).finish();
        outside.is_untouched();
        let _ = c.call("delete", &["--force"]);
    }
}

fn a_console_that_is_exchanged_stays_inside(rt: &Runtime) {
    let outside = Outside::new(rt);
    let bundle = rt.bundle(&["true"]).edit(|config| {
        without_dev(config);
        add_mount(config, "/dev/pts", "devpts", "devpts", &["newinstance", "ptmxmode=0666"]);
        config["process"]["terminal"] = json!(true);
    });
    bundle.file("dev/console", "", 0o600);
    symlink(outside.path.join("new"), bundle.rootfs("dev/console.link")).expect("making a symlink");
    fs::create_dir(bundle.rootfs("dev/console.dir")).expect("making a directory");
    let socket = DescriptorSocket::new(rt.scratch("console"));
    for other in ["dev/console.link", "dev/console.dir"] {
        let exchange = Exchange::start(bundle.rootfs("dev/console"), bundle.rootfs(other));
        for _ in 0..ROUNDS / 3 {
            let c = rt.container(&bundle);
            let _ = Running::start(c.create_command(&["--console-socket", socket.path()])).finish();
            outside.is_untouched();
            let _ = c.call("delete", &["--force"]);
        }
        drop(exchange);
    }
}

fn a_symlink_at_a_masked_path_does_not_unmask(rt: &Runtime) {
    let bundle = rt.script("cat /etc/masked /etc/behind").edit(|config| {
        push(config, "/linux/maskedPaths", json!("/etc/masked"));
    });
    bundle.file("etc/behind", "behind\n", 0o644);
    replace_by_symlink(&bundle, "etc/masked", "behind");
    // Following the link inside the root masks the file behind it; refusing it is as good.
    let ran = rt.container(&bundle).run();
    assert!(!ran.stdout.contains("behind"), "{ran}");
}

fn a_symlink_at_a_readonly_path_stays_inside(rt: &Runtime) {
    let outside = Outside::new(rt);
    let path = outside.path.display();
    let bundle = rt
        .script(&format!("echo changed > {path}/secret; cat {path}/secret"))
        .edit(|config| push(config, "/linux/readonlyPaths", json!("/etc/frozen")));
    replace_by_symlink(&bundle, "etc/frozen", &outside.path);
    bundle.file(&format!("{path}/secret"), "of the container\n", 0o644);
    // What the link means is in the container: that is what is protected, or nothing runs.
    let ran = rt.container(&bundle).run();
    assert!(!ran.status.success() || ran.stdout == "of the container\n", "{ran}");
    fs::write(outside.path.join("secret"), "of the host\n").expect("the host can still write");
    outside.is_untouched();
}

fn a_working_directory_that_is_a_symlink_stays_inside(rt: &Runtime) {
    let outside = Outside::new(rt);
    let bundle = rt.script("pwd; ls").edit(|config| config["process"]["cwd"] = json!("/work/new"));
    replace_by_symlink(&bundle, "work", &outside.path);
    let ran = rt.container(&bundle).run();
    assert!(!ran.stdout.contains("secret"), "{ran}");
    outside.is_untouched();
    if ran.status.success() {
        let made = bundle.rootfs(&outside.path.join("new").to_string_lossy());
        assert!(made.is_dir(), "{} was to be the working directory: {ran}", made.display());
    }
}

fn a_tmpfs_copies_nothing_through_a_symlink(rt: &Runtime) {
    let outside = Outside::new(rt);
    let bundle = rt.script("cat /data/* /data/*/* 2>/dev/null; true").edit(|config| {
        add_mount(config, "/data", "tmpfs", "tmpfs", &["tmpcopyup"]);
    });
    replace_by_symlink(&bundle, "data", &outside.path);
    let ran = rt.container(&bundle).run();
    assert!(!ran.stdout.contains("of the host"), "{ran}");
    outside.is_untouched();
}

fn the_users_file_may_be_a_symlink_out(rt: &Runtime) {
    let outside = Outside::new(rt);
    fs::write(outside.path.join("secret"), "root:x:0:0::/from-the-host:/bin/sh\n").expect("writing a file");
    let bundle = rt.script("echo $HOME");
    replace_by_symlink(&bundle, "etc/passwd", outside.path.join("secret"));
    let ran = rt.container(&bundle).run();
    assert!(!ran.stdout.contains("from-the-host"), "{ran}");
}

fn the_users_file_may_be_a_fifo_or_a_device(rt: &Runtime) -> Checked {
    rt.coracle_only("runc 1.1 waits for a writer, or reads without an end")?;
    let bundle = rt.script("echo here");
    replace_by_symlink(&bundle, "etc/passwd", "/dev/zero");
    let _ = rt.container(&bundle).run();
    let path = bundle.rootfs("etc/passwd");
    fs::remove_file(&path).expect("removing a symlink");
    rustix::fs::mkfifoat(CWD, &path, rustix::fs::Mode::RUSR).expect("making a fifo");
    // Either answer is fine; not to come back is not.
    let _ = rt.container(&bundle).run();
    Ok(())
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
