//! Daemons of their own, with options that would change every other check.

use std::fs;
use std::path::Path;
use std::sync::Once;

use coracle_integration::command::eventually;
use coracle_integration::console::Terminal;
use coracle_integration::engine::containerd::ShimRuntime;
use coracle_integration::engine::docker::{Docker, Kind, write_wrapper};
use coracle_integration::host::{is_alive, mounts_below, status_field};
use nix::mount::{MsFlags, mount};
use rustix::process::Signal;

pub fn containers_outlive_the_daemon(docker: &Docker) {
    let own = Docker::with(docker.kind().clone(), &["--live-restore"]);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let volume = format!("{}:/data", directory.path().display());
    let lives = own.up(&[], "trap 'exit 4' TERM; while :; do sleep 0.1; done");
    let ends = own.up(&["--volume", &volume], "until test -e /data/go; do sleep 0.05; done; exit 7");
    let pid = |text: String| text.parse::<i32>().expect("a process id");
    let (living, ending) = (pid(lives.inspect("{{.State.Pid}}")), pid(ends.inspect("{{.State.Pid}}")));

    own.end_daemon(Signal::KILL);
    fs::write(directory.path().join("go"), "").expect("writing a file");
    assert!(eventually(|| !is_alive(ending)), "it never ended");
    own.start_daemon();

    assert_eq!(pid(lives.inspect("{{.State.Pid}}")), living);
    assert_eq!(lives.exec(&[], &["echo", "alive"]).ok().out(), "alive");
    ends.wait_for("exited");
    lives.call("stop", &["--time", "10"], &[]).ok();
    assert_eq!(lives.inspect("{{.State.ExitCode}}"), "4");
    drop((lives, ends));
    assert_eq!(own.stop(), Vec::<String>::new());
}

/// The user and the group whose subordinate ids the daemon maps, and the first of them.
const REMAPPED: (&str, &str, u32) = ("nobody", "nogroup", 300_000);

/// Gives this program's mount namespace subordinate ids of its own.
fn private_subordinate_ids() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let file = std::env::temp_dir().join(format!("cor.{}.sub", std::process::id()));
        let (user, group, first) = REMAPPED;
        fs::write(&file, format!("{user}:{first}:65536\n{group}:{first}:65536\n")).expect("writing a file");
        for target in ["/etc/subuid", "/etc/subgid"] {
            assert!(Path::new(target).exists(), "{target} is there (install-test-needs: uidmap)");
            mount(Some(&file), target, None::<&str>, MsFlags::MS_BIND, None::<&str>).expect("a bind mount");
        }
        fs::remove_file(&file).expect("removing a file");
    });
}

pub fn with_a_mapped_user_namespace(docker: &Docker) {
    private_subordinate_ids();
    let (user, group, first) = REMAPPED;
    let own = Docker::with(docker.kind().clone(), &["--userns-remap", &format!("{user}:{group}")]);
    let script = "id -u; cat /proc/self/uid_map; touch /new && stat -c %u /new; grep CapEff /proc/self/status; \
                  mount -t tmpfs t /var 2>/dev/null || echo refused; echo x > /dev/null && head -c 1 /dev/zero | wc -c";
    let ran = own.sh(&["--memory", "64m", "--network", "bridge"], script).ok();
    let lines = ran.lines();
    assert_eq!(lines.first(), Some(&"0"), "{ran}");
    let map: Vec<&str> = lines.get(1).copied().unwrap_or_default().split_whitespace().collect();
    assert_eq!(map, ["0", &first.to_string(), "65536"], "{ran}");
    assert_eq!(lines.get(2), Some(&"0"), "{ran}");
    assert_eq!(lines.get(4..), Some(&["refused", "1"][..]), "{ran}");

    let one = own.up(&["--user", "1000", "--init"], "sleep 1000");
    let status =
        fs::read_to_string(format!("/proc/{}/status", one.inspect("{{.State.Pid}}"))).expect("it runs");
    let uid = status_field(&status, "Uid").and_then(|ids| ids.split_whitespace().next());
    assert_eq!(uid, Some((first + 1000).to_string().as_str()));
    assert_eq!(one.exec(&["--user", "0"], &["id", "-u"]).ok().out(), "0");
    let command = one.command("exec", &["--interactive", "--tty"], &["sh"]);
    let (running, mut terminal) = Terminal::around(command);
    terminal.type_in("test -t 0 && echo is-a-\"\"terminal; exit 3\n");
    terminal.read_until("is-a-terminal");
    terminal.read_to_end();
    running.finish().exits(3);

    // A container may ask for the host's ids all the same, and has its own files then.
    let ran = own.sh(&["--userns", "host"], "cat /proc/self/uid_map").ok();
    assert_eq!(ran.lines().first().map(|line| line.split_whitespace().nth(1)), Some(Some("0")), "{ran}");
    let volume = own.path("volume");
    fs::create_dir(&volume).expect("making a directory");
    std::os::unix::fs::chown(&volume, Some(first), Some(first)).expect("chown");
    own.sh(&["--volume", &format!("{}:/data", volume.display())], "touch /data/new").ok();
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(volume.join("new")).expect("it is there"));
    assert_eq!(owner, first);
    own.sh(&["--privileged"], "true").fails_with("privileged mode is incompatible with user namespaces");
    drop(one);
    assert_eq!(own.stop(), Vec::<String>::new());
}

/// `runtimes` of daemon.json with a `runtimeType`, and options that name the program which the shim is to call.
pub fn with_a_runtime_of_a_type_and_options(docker: &Docker) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let at = |name: &str| directory.path().join(name);
    let program = docker.program();
    let (wrapper, log) = (at("wrapper"), at("log"));
    write_wrapper(&wrapper, &log, &program);
    let options = match docker.kind() {
        // containerd's runc shim has options with these names; other shims get the path of a file.
        Kind::Program(_) => serde_json::json!({ "BinaryName": wrapper }),
        Kind::Shim { .. } => {
            let text = format!("BinaryName = \"{}\"\n", wrapper.display());
            fs::write(at("options.toml"), text).expect("writing options");
            serde_json::json!({ "ConfigPath": at("options.toml") })
        }
    };
    let kind = match docker.kind() {
        Kind::Program(_) => ShimRuntime::RUNC.kind,
        Kind::Shim { name, .. } => name,
    };
    let config = serde_json::json!({ "runtimes": { "typed": { "runtimeType": kind, "options": options } } });
    fs::write(at("daemon.json"), config.to_string()).expect("writing daemon.json");
    let own = Docker::with(docker.kind().clone(), &["--config-file", &at("daemon.json").to_string_lossy()]);
    let one = own.up(&["--runtime", "typed"], "trap 'exit 4' TERM; while :; do sleep 0.1; done");
    assert_eq!(one.exec(&[], &["echo", "inside"]).ok().out(), "inside");
    let id = one.inspect("{{.Id}}");
    one.call("stop", &["--time", "10"], &[]).ok();
    assert_eq!(one.inspect("{{.State.ExitCode}}"), "4");
    let log = fs::read_to_string(log).expect("the program was called");
    for verb in [" create ", " start ", " exec ", " delete "] {
        assert!(log.lines().any(|line| line.contains(verb) && line.contains(&id)), "no{verb}in: {log}");
    }
    drop(one);
    assert_eq!(own.stop(), Vec::<String>::new());
}

/// With containerd's image store, the root filesystem is mounted by the shim and not by Docker.
pub fn with_containerds_image_store(docker: &Docker) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("daemon.json");
    let config = serde_json::json!({ "features": { "containerd-snapshotter": true } });
    fs::write(&file, config.to_string()).expect("writing daemon.json");
    let options = ["--config-file", &file.to_string_lossy(), "--storage-driver", "overlayfs"];
    let own = Docker::with(docker.kind().clone(), &options);
    let driver = own.call(&["info", "--format", "{{.Driver}} {{.DriverStatus}}"]).ok();
    assert!(driver.stdout.contains("io.containerd.snapshotter.v1"), "{driver}");

    let ran = own
        .sh(
            &["--memory", "64m", "--read-only", "--tmpfs", "/tmp"],
            "id -u; grep -c ' / overlay ' /proc/mounts",
        )
        .ok();
    assert_eq!(ran.lines(), ["0", "1"]);
    let one = own.up(
        &["--network", "bridge"],
        "test -e /kept || echo kept > /kept; trap 'exit 4' TERM; while :; do sleep 0.1; done",
    );
    assert!(eventually(|| one.exec(&[], &["cat", "/kept"]).out() == "kept"));
    one.call("restart", &["--time", "10"], &[]).ok();
    assert_eq!(one.exec(&[], &["cat", "/kept"]).ok().out(), "kept");
    let image = format!("made-by-{}", one.name);
    one.call("commit", &[], &[&image]).ok();
    let ran = own.call(&["run", "--rm", "--network", "none", &image, "cat", "/kept"]).ok();
    assert_eq!(ran.out(), "kept", "{ran}");
    one.call("stop", &["--time", "10"], &[]).ok();
    assert_eq!(one.inspect("{{.State.ExitCode}}"), "4");
    drop(one);
    let ran = own.run(&[], &["nonesuch"]).exits(127);
    assert!(ran.stderr.contains("executable file not found in $PATH"), "{ran}");
    let roots = || mounts_below(&own.path("exec")).into_iter().filter(|at| at.ends_with("rootfs")).count();
    assert!(eventually(|| roots() == 0), "{:?}", mounts_below(&own.path("exec")));
    assert_eq!(own.stop(), Vec::<String>::new());
}
