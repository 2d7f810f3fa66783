//! Images whose steps run on the runtime: BuildKit, Docker's old builder, Buildah.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use coracle_integration::command::{Finished, run};
use coracle_integration::engine::docker::{Docker, IMAGE, Kind};
use coracle_integration::{place, rootfs};

/// A directory with a Dockerfile.
fn context(text: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    fs::write(directory.path().join("Dockerfile"), text).expect("writing a Dockerfile");
    fs::write(directory.path().join("file"), "from the context\n").expect("writing a file");
    directory
}

/// `docker build --tag IMAGE OPTIONS` in this directory.
fn build(docker: &Docker, builder: &str, image: &str, options: &[&str], text: &str) -> Finished {
    let directory = context(text);
    let mut words = vec!["build", "--tag", image];
    words.extend(options);
    words.push(".");
    let mut command = docker.command(&words);
    command.current_dir(directory.path()).env("DOCKER_BUILDKIT", builder);
    run(command)
}

pub fn with_buildkit(docker: &Docker) {
    let image = format!("built-{}", docker.container().name);
    let text = format!(
        "FROM {IMAGE} AS one\nRUN echo one > /one\n\
         FROM {IMAGE} AS two\nRUN echo two > /two\n\
         FROM {IMAGE}\nCOPY --from=one /one /\nCOPY --from=two /two /\nCOPY file /\nWORKDIR /made\n\
         RUN --mount=type=tmpfs,target=/scratch --mount=type=secret,id=word \
         touch /scratch/x && cat /run/secrets/word > got && chown user .\n\
         RUN --mount=type=cache,target=/cache echo kept > /cache/it\n\
         RUN --network=none test $(ip -o link | wc -l) = 1\n\
         USER user\nRUN id -u > who && ! touch /not-allowed\n\
         CMD cat /one /two /file got who; ls /cache /scratch | wc -l\n"
    );
    let directory = tempfile::tempdir().expect("a temporary directory");
    let secret = directory.path().join("secret");
    fs::write(&secret, "a secret\n").expect("writing a file");
    let secret = format!("id=word,src={}", secret.display());
    build(docker, "1", &image, &["--secret", &secret, "--progress", "plain"], &text).ok();
    let ran = docker.call(&["run", "--rm", "--network", "none", &image]).ok();
    assert_eq!(
        ran.lines().get(..5),
        Some(&["one", "two", "from the context", "a secret", "1000"][..]),
        "{ran}"
    );
    docker.call(&["rmi", &image]).ok();
    // BuildKit calls its runtime by the name `runc`, which is the one under test here.
    let log = fs::read_to_string(docker.path("wrapped.log")).expect("the runtime was called");
    assert!(log.lines().any(|line| line.contains(" run ") && line.contains("buildkit")), "no run in: {log}");

    let failed = build(
        docker,
        "1",
        &image,
        &["--progress", "plain"],
        &format!("FROM {IMAGE}\nRUN echo seen; exit 5\n"),
    );
    failed.fails_with("exit code: 5");
}

pub fn with_the_old_builder(docker: &Docker) {
    let image = format!("built-{}", docker.container().name);
    let text = format!(
        "FROM {IMAGE}\nENV WORD=word\nWORKDIR /made\nCOPY file .\nRUN echo $WORD > got && chown user .\n\
         USER user\nRUN id -u > who\nCMD cat file got who\n"
    );
    build(docker, "0", &image, &["--memory", "64m"], &text).ok();
    let ran = docker.call(&["run", "--rm", "--network", "none", &image]).ok();
    assert_eq!(ran.lines(), ["from the context", "word", "1000"]);
    docker.call(&["rmi", &image]).ok();
    let failed = build(docker, "0", &image, &[], &format!("FROM {IMAGE}\nRUN exit 5\n"));
    failed.fails_with("returned a non-zero code: 5");
}

/// Buildah with a storage of its own, in the daemon's network, and with the daemon's runtime.
struct Buildah<'d> {
    docker: &'d Docker,
    runtime: PathBuf,
    at: PathBuf,
}

impl<'d> Buildah<'d> {
    fn new(docker: &'d Docker) -> Self {
        let Kind::Program(runtime) = docker.kind() else {
            panic!("Buildah has no shims");
        };
        let at = docker.path("buildah");
        fs::create_dir(&at).expect("making a directory");
        Self { docker, runtime: runtime.clone(), at }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut buildah = self.docker.in_network("buildah", &[]);
        buildah.arg("--root").arg(self.at.join("root")).arg("--runroot").arg(self.at.join("runroot"));
        buildah.args(["--storage-driver", "overlay"]).args(arguments);
        buildah.stdin(std::process::Stdio::null());
        buildah
    }

    #[track_caller]
    fn call(&self, arguments: &[&str]) -> Finished {
        run(self.command(arguments))
    }
}

impl Drop for Buildah<'_> {
    fn drop(&mut self) {
        if let Err(error) = place::remove_tree(&self.at) {
            eprintln!("could not remove {}: {error}", self.at.display());
        }
    }
}

pub fn with_buildah(docker: &Docker) {
    let buildah = Buildah::new(docker);
    let runtime = buildah.runtime.display().to_string();
    let archive = buildah.at.join("busybox.tar");
    rootfs::docker_archive(&archive, "localhost/busybox:test");
    let from = format!("docker-archive:{}", archive.display());
    // By default it raises limits, which needs CAP_SYS_RESOURCE.
    let limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000"];
    let take = |name: &str, image: &str| {
        let mut words = vec!["from", "--name", name];
        words.extend(limits);
        words.push(image);
        buildah.call(&words).ok()
    };
    let working = take("working", &from);
    assert_eq!(working.out(), "working");
    let step = |options: &[&str], script: &str| {
        let mut words = vec!["run", "--isolation", "oci", "--runtime", &runtime];
        words.extend(options);
        words.extend(["working", "--", "sh", "-c", script]);
        buildah.call(&words)
    };
    let ran = step(&["--network", "none"], "echo made > /made; id -u; ip -o link | wc -l; exit 0").ok();
    assert_eq!(ran.lines(), ["0", "1"]);
    step(&["--user", "1000", "--env", "A=b"], "test $(id -u) = 1000 && test $A = b && ! touch /new").ok();
    step(&[], "exit 6").exits(6);
    buildah.call(&["commit", "working", "localhost/made:1"]).ok();
    let text = "FROM localhost/made:1\nRUN cat /made && echo more >> /made\nRUN --mount=type=tmpfs,target=/t touch /t/x\n";
    let directory = context(text);
    let folder = directory.path().display().to_string();
    let mut words = vec!["build", "--isolation", "oci", "--runtime", &runtime, "--tag", "localhost/made:2"];
    words.extend(limits);
    words.push(&folder);
    let built = buildah.call(&words).ok();
    assert!(built.stdout.contains("made"), "{built}");
    let again = take("again", "localhost/made:2");
    assert_eq!(again.out(), "again");
    let words = ["run", "--isolation", "oci", "--runtime", &runtime, "again", "--", "cat", "/made"];
    assert_eq!(buildah.call(&words).ok().lines(), ["made", "more"]);
}
