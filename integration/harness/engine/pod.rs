//! Pods and their containers, on a containerd with CRI that has a handler for each runtime.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::mount::{MsFlags, mount};

use super::bench::Bench;
use super::containerd::{Containerd, IMAGE, ShimRuntime, Version};
use super::cri::{
    ContainerConfig, ContainerMetadata, ContainerSecurity, Cri, Executed, Image, LinuxContainer, LinuxPod,
    Namespaces, PodConfig, PodMetadata, PodSecurity, Resources, State,
};
use crate::command::eventually;
use crate::place::Scratch;
use crate::{host, leftovers};

/// The namespace of containerd in which CRI has its containers.
pub const NAMESPACE: &str = "k8s.io";

/// What the pod's own container runs: nothing, until it is told to end.
const PAUSE: &str = "pause:test";

/// The handlers of [`daemon`], each with its type of runtime.
const HANDLERS: [(&str, &str); 3] = [
    ("runc", ShimRuntime::RUNC.kind),
    ("coracle", ShimRuntime::CORACLE.kind),
    ("coracle-root", ShimRuntime::CORACLE.kind),
];

/// A daemon with CRI, a bridge of its own for pods, and these handlers: `runc`, `coracle`, and `coracle-root`, whose
/// options say where the state is.
pub fn daemon(version: Version) -> Containerd {
    daemon_with(version, &HANDLERS, |_| ())
}

/// The same, which knows of runc alone. `fill` puts more into the root filesystem of the pod's own container.
pub fn daemon_of_runc(version: Version, fill: impl FnOnce(&Path)) -> Containerd {
    daemon_with(version, &HANDLERS[..1], fill)
}

fn daemon_with(version: Version, handlers: &[(&str, &str)], fill: impl FnOnce(&Path)) -> Containerd {
    private_cni();
    let daemon = Containerd::with(version, |directory| config(version, directory, handlers));
    daemon.import(NAMESPACE, "busybox:test", &["/bin/sh"]);
    daemon.import_with(NAMESPACE, PAUSE, &["/bin/sleep", "100000"], fill);
    let cri = Cri::at(daemon.path("sock"));
    assert!(eventually(|| cri.answers()), "CRI does not answer: {}", daemon.log());
    daemon
}

/// Plugins remember what they did at a fixed place.
fn private_cni() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        fs::create_dir_all("/var/lib/cni").expect("making /var/lib/cni");
        mount(Some("tmpfs"), "/var/lib/cni", Some("tmpfs"), MsFlags::empty(), Some("mode=755"))
            .expect("a private /var/lib/cni");
    });
}

fn config(version: Version, directory: &Path, handlers: &[(&str, &str)]) -> String {
    // Daemons of several versions run at once, each with a bridge and addresses of its own.
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let at = |name: &str| directory.join(name).display().to_string();
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let network = serde_json::json!({
        "cniVersion": "0.4.0", "name": "pods",
        "plugins": [
            { "type": "bridge", "bridge": format!("pods{number}"), "isGateway": true, "ipMasq": false,
              "ipam": { "type": "host-local", "dataDir": at("addresses"),
                        "ranges": [[{ "subnet": format!("10.{}.0.0/24", 90 + number) }]] } },
        ],
    });
    fs::create_dir(directory.join("cni")).expect("making a directory");
    fs::write(directory.join("cni/pods.conflist"), network.to_string()).expect("writing the network");
    let cri = "plugins.\"io.containerd.grpc.v1.cri\"";
    let mut text = format!(
        "[{cri}]\nsandbox_image = \"docker.io/library/{PAUSE}\"\nrestrict_oom_score_adj = true\n\
         stream_server_address = \"127.0.0.1\"\n\
         [{cri}.cni]\nbin_dir = \"/usr/lib/cni\"\nconf_dir = \"{}\"\n\
         [{cri}.containerd]\ndefault_runtime_name = \"runc\"\n",
        at("cni")
    );
    for (handler, kind) in handlers {
        let entry = format!("[{cri}.containerd.runtimes.{handler}]\nruntime_type = \"{kind}\"\n");
        text.push_str(&entry);
    }
    if !handlers.iter().any(|(handler, _)| *handler == "coracle-root") {
        return text;
    }
    let root = format!("Root = \"{}\"\n", at("runtime-root"));
    // 1.6 hands on the name of a file only, newer ones the section itself.
    let options = if version == Version::V1_6 {
        fs::write(directory.join("coracle.toml"), root).expect("writing the options");
        format!("ConfigPath = \"{}\"\n", at("coracle.toml"))
    } else {
        root
    };
    text + &format!("[{cri}.containerd.runtimes.coracle-root.options]\n{options}")
}

/// A pod. It is removed with its containers when dropped.
pub struct Pod<'b> {
    /// The client.
    pub cri: Cri,
    /// As the pod was made.
    pub config: PodConfig,
    /// The pod's.
    pub id: String,
    bench: &'b Bench,
    containers: RefCell<Vec<String>>,
    scratch: Scratch,
}

impl<'b> Pod<'b> {
    /// Makes a pod.
    #[track_caller]
    pub fn run(bench: &'b Bench) -> Self {
        Self::run_with(bench, |_| ())
    }

    /// Makes a pod whose namespaces are these.
    #[track_caller]
    pub fn sharing(bench: &'b Bench, namespaces: Namespaces) -> Self {
        Self::run_with(bench, |config| {
            let security = PodSecurity { namespaces: Some(namespaces), privileged: false };
            config.linux.get_or_insert_default().security = Some(security);
        })
    }

    /// Makes a pod after a change of what is usual.
    #[track_caller]
    pub fn run_with(bench: &'b Bench, change: impl FnOnce(&mut PodConfig)) -> Self {
        let handler = if bench.runtime.is_ours() { "coracle" } else { "runc" };
        Self::try_run(bench, handler, change).unwrap_or_else(|status| panic!("RunPodSandbox: {status:?}"))
    }

    /// Makes a pod with a handler; gives the daemon's answer when it doesn't.
    pub fn try_run(
        bench: &'b Bench,
        handler: &str,
        change: impl FnOnce(&mut PodConfig),
    ) -> Result<Self, tonic::Status> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let scratch = Scratch::new().expect("a scratch directory");
        let name = format!("pod-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let metadata = PodMetadata {
            uid: format!("{}-{name}", bench.engine.namespace()),
            name,
            namespace: "test".into(),
        };
        let linux = LinuxPod {
            cgroup_parent: format!("/{}/{}", bench.engine.namespace(), metadata.name),
            security: Some(PodSecurity { namespaces: Some(own_processes()), privileged: false }),
        };
        let mut config = PodConfig {
            metadata: Some(metadata),
            log_directory: scratch.path().display().to_string(),
            linux: Some(linux),
        };
        change(&mut config);
        let cri = Cri::at(bench.engine.path("sock"));
        let id = cri.run_pod(&config, handler)?;
        Ok(Self { cri, config, id, bench, containers: RefCell::default(), scratch })
    }

    /// What a container that runs a script is made from. It has the pod's namespaces, and a log of its name.
    pub fn script(&self, name: &str, script: &str) -> ContainerConfig {
        let pod = self.config.linux.as_ref().and_then(|linux| linux.security.clone());
        let security = ContainerSecurity {
            namespaces: pod.and_then(|security| security.namespaces),
            ..ContainerSecurity::default()
        };
        ContainerConfig {
            metadata: Some(ContainerMetadata { name: name.to_owned() }),
            image: Some(Image { image: IMAGE.to_owned() }),
            command: ["sh", "-c", script].map(str::to_owned).to_vec(),
            log_path: format!("{name}.log"),
            linux: Some(LinuxContainer { resources: Some(Resources::default()), security: Some(security) }),
            ..ContainerConfig::default()
        }
    }

    /// Makes and starts a container; gives its id.
    #[track_caller]
    pub fn start(&self, config: &ContainerConfig) -> String {
        let id = self
            .try_start(config)
            .unwrap_or_else(|status| panic!("CreateContainer, StartContainer: {status:?}"));
        // A moment that a short program may have over already.
        assert!(self.cri.status(&id).is_ok());
        id
    }

    /// Makes and starts a container; gives the daemon's answer when it doesn't.
    pub fn try_start(&self, config: &ContainerConfig) -> Result<String, tonic::Status> {
        let id = self.cri.create(&self.id, config, &self.config)?;
        self.containers.borrow_mut().push(id.clone());
        self.cri.start(&id)?;
        Ok(id)
    }

    /// A container that runs until it is stopped; gives its id.
    #[track_caller]
    pub fn sleeping(&self, name: &str) -> String {
        self.start(&self.script(name, "trap 'exit 0' TERM; while :; do sleep 0.1; done"))
    }

    /// Runs a script in a container, and gives what it wrote to standard output; it must succeed.
    #[track_caller]
    pub fn exec(&self, container: &str, script: &str) -> String {
        let ended = self.try_exec(container, script);
        assert_eq!(ended.exit_code, 0, "{script}: {}", String::from_utf8_lossy(&ended.stderr));
        String::from_utf8_lossy(&ended.stdout).into_owned()
    }

    /// Runs a script in a container.
    #[track_caller]
    pub fn try_exec(&self, container: &str, script: &str) -> Executed {
        let command = ["sh", "-c", script];
        self.cri.exec_sync(container, &command, 30).unwrap_or_else(|status| panic!("ExecSync: {status:?}"))
    }

    /// Waits until a container has ended; gives the exit status and the reason.
    #[track_caller]
    pub fn wait_for_end(&self, container: &str) -> (i32, String) {
        let ended = || self.cri.status(container).is_ok_and(|status| status.state == State::Exited as i32);
        assert!(eventually(ended), "{:?}", self.cri.status(container));
        let status = self.cri.status(container).expect("ContainerStatus");
        (status.exit_code, status.reason)
    }

    /// A file in the pod's directory of logs.
    pub fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// The lines of a container's log, each without its time.
    pub fn log(&self, name: &str) -> Vec<String> {
        let text = fs::read_to_string(self.path(&format!("{name}.log"))).unwrap_or_default();
        text.lines()
            .map(|line| line.split_once(' ').map(|(_, rest)| rest.to_owned()).unwrap_or_default())
            .collect()
    }

    /// The shims of this pod.
    pub fn shims(&self) -> Vec<(i32, String)> {
        let all = leftovers::processes(self.bench.engine.namespace());
        all.into_iter()
            .filter(|(_, line)| line.contains("containerd-shim-") && line.contains(&self.id))
            .collect()
    }

    /// A container's first process.
    #[track_caller]
    pub fn pid(&self, container: &str) -> i32 {
        let mut ctr = self.bench.engine.ctr_command(&["--namespace", NAMESPACE, "tasks", "list"]);
        ctr.stdin(std::process::Stdio::null());
        let tasks = crate::command::run(ctr).ok();
        let line = tasks.stdout.lines().find(|line| line.starts_with(container)).map(str::to_owned);
        let pid = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
        pid.unwrap_or_else(|| panic!("no task {container}: {tasks}"))
    }

    /// Stops and removes the pod, and demands that nothing is left of it.
    #[track_caller]
    pub fn end(self) {
        self.cri.stop_pod(&self.id).unwrap_or_else(|status| panic!("StopPodSandbox: {status:?}"));
        self.cri.remove_pod(&self.id).unwrap_or_else(|status| panic!("RemovePodSandbox: {status:?}"));
        assert!(eventually(|| self.shims().is_empty()), "{:?}", self.shims());
        let ids = self.containers.borrow();
        for id in ids.iter().chain([&self.id]) {
            assert!(
                eventually(|| leftovers::cgroups(id).is_empty()),
                "cgroups: {:?}",
                leftovers::cgroups(id)
            );
            let bundle = self
                .bench
                .engine
                .path("state")
                .join("io.containerd.runtime.v2.task")
                .join(NAMESPACE)
                .join(id);
            assert!(eventually(|| !bundle.exists()), "{}", bundle.display());
            assert!(host::mounts_below(&bundle).is_empty());
        }
    }
}

impl Drop for Pod<'_> {
    fn drop(&mut self) {
        let _ = self.cri.stop_pod(&self.id);
        let _ = self.cri.remove_pod(&self.id);
    }
}

/// As Kubernetes has it where a pod does not say: each container has its own processes.
pub fn own_processes() -> Namespaces {
    Namespaces { pid: super::cri::CONTAINER, ..Namespaces::default() }
}
