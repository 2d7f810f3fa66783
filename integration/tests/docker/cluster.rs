//! Several containers that belong together: compose, a swarm, a registry and its client.

use std::fs;
use std::path::Path;
use std::time::Duration;

use coracle_integration::command::{Finished, command, eventually, eventually_within, run};
use coracle_integration::engine::docker::{ADDRESS, Docker, IMAGE, programs};

pub fn compose_up_and_down(docker: &Docker) {
    let project = format!("all-{}", docker.container().name);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("compose.yaml").display().to_string();
    let text = format!(
        "services:\n\
        \x20 web:\n    image: {IMAGE}\n    command: sh -c 'cp /shared/word /www/index.html; exec httpd -f -p 80 -h /www'\n\
        \x20   volumes: ['shared:/shared:ro']\n    tmpfs: ['/www']\n    init: true\n    read_only: true\n\
        \x20   depends_on: {{ writer: {{ condition: service_completed_successfully }} }}\n\
        \x20   healthcheck: {{ test: ['CMD', 'wget', '-q', '-O', '/dev/null', 'http://127.0.0.1/'], interval: 300ms }}\n\
        \x20   deploy: {{ resources: {{ limits: {{ memory: 64M, cpus: '0.5' }} }} }}\n\
        \x20 writer:\n    image: {IMAGE}\n    command: sh -c 'echo $$WORD > /shared/word'\n\
        \x20   environment: {{ WORD: composed }}\n    volumes: ['shared:/shared']\n\
        \x20 client:\n    image: {IMAGE}\n    command: sleep 1000\n    cap_drop: [ALL]\n    user: '1000'\n\
        \x20   depends_on: {{ web: {{ condition: service_healthy }} }}\n\
        volumes:\n  shared: {{}}\n"
    );
    fs::write(&file, text).expect("writing compose.yaml");
    let compose = |arguments: &[&str]| -> Finished {
        let mut words = vec!["compose", "--project-name", &project, "--file", &file];
        words.extend(arguments);
        docker.call(&words)
    };
    let up = compose(&["up", "--detach", "--pull", "never"]);
    let got = compose(&["exec", "-T", "client", "wget", "-q", "-O", "-", "http://web/"]);
    let running = compose(&["ps", "--services", "--filter", "status=running"]);
    let down = compose(&["down", "--volumes", "--timeout", "1"]);
    up.ok();
    assert_eq!(got.ok().out(), "composed");
    let mut running = running.lines();
    running.sort_unstable();
    assert_eq!(running, ["client", "web"]);
    down.ok();
    let label = format!("label=com.docker.compose.project={project}");
    for words in [["ps", "--all"], ["network", "ls"], ["volume", "ls"]] {
        let [first, second] = words;
        let left = docker.call(&[first, second, "--quiet", "--filter", &label]).ok();
        assert_eq!(left.out(), "", "{left}");
    }
}

/// A swarm thinks in seconds, and more of them on a busy machine.
const LONG: Duration = Duration::from_secs(60);

/// A swarm of one machine, left when dropped.
struct Swarm<'d>(&'d Docker);

impl Drop for Swarm<'_> {
    fn drop(&mut self) {
        let _ = self.0.call(&["swarm", "leave", "--force"]);
    }
}

pub fn a_service_of_a_swarm(docker: &Docker) {
    docker.call(&["swarm", "init", "--advertise-addr", ADDRESS]).ok();
    let swarm = Swarm(docker);
    docker.call(&["network", "create", "--driver", "overlay", "--attachable", "between"]).ok();
    let script = "trap 'exit 0' TERM; mkdir -p /www; echo $WORD > /www/index.html; httpd -p 80 -h /www; \
                  while :; do sleep 0.1; done";
    let words = [
        "service",
        "create",
        "--detach",
        "--name",
        "web",
        "--replicas",
        "3",
        "--env",
        "WORD=first",
        "--network",
        "between",
        "--endpoint-mode",
        "dnsrr",
        "--limit-memory",
        "64M",
        "--update-monitor",
        "100ms",
        "--update-parallelism",
        "3",
        "--stop-grace-period",
        "5s",
        "--restart-delay",
        "100ms",
        "--no-resolve-image",
        IMAGE,
        "sh",
        "-c",
        script,
    ];
    docker.call(&words).ok();
    wait_for_replicas(docker, "3/3");
    // It stays, and with it the network is on this machine also while the tasks are replaced.
    let client = docker.up(&["--network", "between"], "sleep 1000");
    let get = || client.exec(&[], &["wget", "-q", "-O", "-", "http://tasks.web/"]);
    assert!(eventually(|| get().out() == "first"), "{}", get());

    docker
        .call(&["service", "update", "--detach", "--env-add", "WORD=second", "--no-resolve-image", "web"])
        .ok();
    let updated = || {
        docker.call(&["service", "inspect", "--format", "{{.UpdateStatus.State}}", "web"]).out()
            == "completed"
    };
    assert!(eventually_within(LONG, updated), "{}", docker.call(&["service", "ps", "--no-trunc", "web"]));
    wait_for_replicas(docker, "3/3");
    assert!(eventually(|| get().out() == "second"), "{}", get());

    docker.call(&["service", "scale", "--detach", "web=1"]).ok();
    wait_for_replicas(docker, "1/1");
    docker.call(&["service", "scale", "--detach", "web=4"]).ok();
    wait_for_replicas(docker, "4/4");

    // A task that dies is replaced.
    let tasks =
        || docker.call(&["ps", "--quiet", "--filter", "label=com.docker.swarm.service.name=web"]).ok();
    let before = tasks();
    let victim = before.lines().first().copied().unwrap_or_default().to_owned();
    docker.call(&["kill", &victim]).ok();
    let replaced = || {
        let now = tasks();
        now.lines().len() == 4 && !now.lines().contains(&victim.as_str())
    };
    assert!(eventually_within(LONG, replaced), "{}", tasks());

    drop(client);
    docker.call(&["service", "rm", "web"]).ok();
    assert!(eventually_within(LONG, || tasks().out().is_empty()), "{}", tasks());
    let gone = || docker.call(&["network", "rm", "between"]).status.success();
    assert!(eventually_within(LONG, gone), "{}", docker.call(&["network", "inspect", "between"]));
    drop(swarm);
}

#[track_caller]
fn wait_for_replicas(docker: &Docker, replicas: &str) {
    let have = || docker.call(&["service", "ls", "--filter", "name=web", "--format", "{{.Replicas}}"]);
    let tasks = || docker.call(&["service", "ps", "--no-trunc", "web"]);
    assert!(
        eventually_within(LONG, || have().out() == replicas),
        "{} of {replicas}: {}",
        have().out(),
        tasks()
    );
}

/// The files that a program needs to run: itself, its loader and libraries.
fn files_of(program: &Path) -> Vec<String> {
    let name = program.display().to_string();
    let interpreter = run(command("patchelf", &["--print-interpreter", &name])).ok();
    let list = run(command(interpreter.out(), &["--list", &name])).ok();
    let libraries = list
        .lines()
        .into_iter()
        .filter_map(|line| line.split(" => ").nth(1)?.split(' ').next().map(str::to_owned));
    let mut files: Vec<String> = libraries.collect();
    files.extend([interpreter.out().to_owned(), name]);
    files
}

/// An image of Debian's docker-registry: the program where it was unpacked, and a configuration.
fn registry_image(docker: &Docker, image: &str) {
    let program = programs().unwrap_or_else(|why| panic!("{why}")).join("bin/docker-registry");
    let directory = tempfile::tempdir().expect("a temporary directory");
    let at = |name: &str| directory.path().join(name);
    fs::create_dir_all(at("root/data")).expect("making a directory");
    let config = "version: 0.1\nstorage: { filesystem: { rootdirectory: /data }, delete: { enabled: true } }\n\
                  http: { addr: '0.0.0.0:5000' }\nlog: { level: warn }\n";
    fs::write(at("root/config.yml"), config).expect("writing config.yml");
    let archive = at("image.tar").display().to_string();
    let mut tar = command("tar", &["--create", "--dereference", "--absolute-names", "--transform", "s,^/,,"]);
    tar.args(["--file", &archive])
        .args(files_of(&program))
        .arg("-C")
        .arg(at("root"))
        .args(["data", "config.yml"]);
    run(tar).ok();
    let entry = serde_json::json!([program, "serve", "/config.yml"]);
    docker.call(&["import", "--change", &format!("ENTRYPOINT {entry}"), &archive, image]).ok();
}

pub fn a_registry(docker: &Docker) {
    let name = docker.container().name.clone();
    let image = format!("registry-{name}:test");
    registry_image(docker, &image);
    let registry = docker.container();
    let words = [
        "run",
        "--detach",
        "--name",
        &registry.name,
        "--publish",
        "127.0.0.1::5000",
        "--read-only",
        "--volume",
        "/data",
        &image,
    ];
    docker.call(&words).ok();
    let address = registry.call("port", &[], &["5000"]).ok().out().to_owned();
    let there = format!("{address}/box/{name}:1");
    docker.call(&["tag", IMAGE, &there]).ok();
    let pushed = || docker.call(&["push", "--quiet", &there]);
    let mut last = pushed();
    assert!(
        eventually(|| {
            last = if last.status.success() { last.clone() } else { pushed() };
            last.status.success()
        }),
        "{last}, {}",
        registry.call("logs", &[], &[])
    );
    docker.call(&["rmi", &there]).ok();
    docker.call(&["image", "inspect", &there]).fails();
    docker.call(&["pull", "--quiet", &there]).ok();
    let ran = docker.call(&["run", "--rm", "--network", "none", &there, "echo", "pulled"]).ok();
    assert_eq!(ran.out(), "pulled");
    docker.call(&["rmi", &there]).ok();
    drop(registry);
    docker.call(&["rmi", &image]).ok();
}
