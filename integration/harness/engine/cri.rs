//! A client of the kubelet's interface to a runtime, CRI v1, as containerd serves it by gRPC: the calls and the parts of
//! their messages that the tests use, by number.
//!
//! Source: `pkg/apis/runtime/v1/api.proto` of Kubernetes' cri-api.

use std::path::PathBuf;
use std::time::Duration;

use prost::Message;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Endpoint;

/// How long a call may take: a guard against a hang, not a measure.
const LIMIT: Duration = Duration::from_secs(60);

/// `PodSandboxMetadata`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct PodMetadata {
    /// The pod's.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The pod's.
    #[prost(string, tag = "2")]
    pub uid: String,
    /// In Kubernetes' sense.
    #[prost(string, tag = "3")]
    pub namespace: String,
}

/// `PodSandboxConfig`.
#[derive(Clone, PartialEq, Message)]
pub struct PodConfig {
    /// Who it is.
    #[prost(message, optional, tag = "1")]
    pub metadata: Option<PodMetadata>,
    /// Where logs are, below which [`ContainerConfig::log_path`] is.
    #[prost(string, tag = "3")]
    pub log_directory: String,
    /// See [`LinuxPod`].
    #[prost(message, optional, tag = "8")]
    pub linux: Option<LinuxPod>,
}

/// `LinuxPodSandboxConfig`.
#[derive(Clone, PartialEq, Message)]
pub struct LinuxPod {
    /// The cgroup above those of the containers.
    #[prost(string, tag = "1")]
    pub cgroup_parent: String,
    /// See [`PodSecurity`].
    #[prost(message, optional, tag = "2")]
    pub security: Option<PodSecurity>,
}

/// `LinuxSandboxSecurityContext`.
#[derive(Clone, PartialEq, Message)]
pub struct PodSecurity {
    /// What is shared with whom.
    #[prost(message, optional, tag = "1")]
    pub namespaces: Option<Namespaces>,
    /// Whether containers may be privileged.
    #[prost(bool, tag = "6")]
    pub privileged: bool,
}

/// `NamespaceMode`: shared within the pod.
pub const POD: i32 = 0;
/// `NamespaceMode`: the container's own.
pub const CONTAINER: i32 = 1;
/// `NamespaceMode`: the host's.
pub const NODE: i32 = 2;

/// `NamespaceOption`; each is a `NamespaceMode`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Namespaces {
    /// [`POD`] or [`NODE`].
    #[prost(int32, tag = "1")]
    pub network: i32,
    /// [`POD`], [`CONTAINER`] or [`NODE`].
    #[prost(int32, tag = "2")]
    pub pid: i32,
    /// [`POD`] or [`NODE`].
    #[prost(int32, tag = "3")]
    pub ipc: i32,
    /// None is the host's.
    #[prost(message, optional, tag = "5")]
    pub user: Option<UserNamespace>,
}

/// `UserNamespace`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct UserNamespace {
    /// [`POD`] or [`NODE`].
    #[prost(int32, tag = "1")]
    pub mode: i32,
    /// Of users.
    #[prost(message, repeated, tag = "2")]
    pub uids: Vec<IdMapping>,
    /// Of groups.
    #[prost(message, repeated, tag = "3")]
    pub gids: Vec<IdMapping>,
}

/// `IDMapping`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct IdMapping {
    /// The first on the host.
    #[prost(uint32, tag = "1")]
    pub host: u32,
    /// The first in the container.
    #[prost(uint32, tag = "2")]
    pub container: u32,
    /// How many.
    #[prost(uint32, tag = "3")]
    pub length: u32,
}

#[derive(Clone, PartialEq, Message)]
struct RunPod {
    #[prost(message, optional, tag = "1")]
    config: Option<PodConfig>,
    #[prost(string, tag = "2")]
    handler: String,
}

/// A message with one text in its first field: the requests and answers that carry an id or an address.
#[derive(Clone, PartialEq, Eq, Message)]
struct Name {
    #[prost(string, tag = "1")]
    name: String,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct Nothing {}

/// `ContainerConfig`.
#[derive(Clone, PartialEq, Message)]
pub struct ContainerConfig {
    /// Its name in the pod.
    #[prost(message, optional, tag = "1")]
    pub metadata: Option<ContainerMetadata>,
    /// The image.
    #[prost(message, optional, tag = "2")]
    pub image: Option<Image>,
    /// In the place of the image's entrypoint.
    #[prost(string, repeated, tag = "3")]
    pub command: Vec<String>,
    /// In the place of the image's command.
    #[prost(string, repeated, tag = "4")]
    pub args: Vec<String>,
    /// Added to its environment.
    #[prost(message, repeated, tag = "6")]
    pub envs: Vec<KeyValue>,
    /// What is mounted from the host.
    #[prost(message, repeated, tag = "7")]
    pub mounts: Vec<Mount>,
    /// Below the pod's directory of logs.
    #[prost(string, tag = "11")]
    pub log_path: String,
    /// Whether somebody may write to it.
    #[prost(bool, tag = "12")]
    pub stdin: bool,
    /// Whether its input ends with the first who attaches.
    #[prost(bool, tag = "13")]
    pub stdin_once: bool,
    /// Whether it has a terminal.
    #[prost(bool, tag = "14")]
    pub tty: bool,
    /// See [`LinuxContainer`].
    #[prost(message, optional, tag = "15")]
    pub linux: Option<LinuxContainer>,
}

/// `KeyValue`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct KeyValue {
    /// The variable.
    #[prost(string, tag = "1")]
    pub key: String,
    /// Its value.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// `ContainerMetadata`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ContainerMetadata {
    /// Its name in the pod.
    #[prost(string, tag = "1")]
    pub name: String,
}

/// `ImageSpec`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Image {
    /// Its name.
    #[prost(string, tag = "1")]
    pub image: String,
}

/// `Mount`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Mount {
    /// Where it is seen.
    #[prost(string, tag = "1")]
    pub container: String,
    /// Where it is.
    #[prost(string, tag = "2")]
    pub host: String,
    /// Whether it can't be written.
    #[prost(bool, tag = "3")]
    pub readonly: bool,
}

/// `LinuxContainerConfig`.
#[derive(Clone, PartialEq, Message)]
pub struct LinuxContainer {
    /// Limits.
    #[prost(message, optional, tag = "1")]
    pub resources: Option<Resources>,
    /// Rights.
    #[prost(message, optional, tag = "2")]
    pub security: Option<ContainerSecurity>,
}

/// `LinuxContainerResources`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Resources {
    /// In microseconds.
    #[prost(int64, tag = "1")]
    pub cpu_period: i64,
    /// In microseconds of each period.
    #[prost(int64, tag = "2")]
    pub cpu_quota: i64,
    /// Relative weight.
    #[prost(int64, tag = "3")]
    pub cpu_shares: i64,
    /// In bytes.
    #[prost(int64, tag = "4")]
    pub memory_limit: i64,
    /// Added to the kernel's score.
    #[prost(int64, tag = "5")]
    pub oom_score_adj: i64,
}

/// `Capability`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Capabilities {
    /// Without `CAP_`.
    #[prost(string, repeated, tag = "1")]
    pub add: Vec<String>,
    /// Without `CAP_`.
    #[prost(string, repeated, tag = "2")]
    pub drop: Vec<String>,
}

/// `Int64Value`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Number {
    /// Of any size.
    #[prost(int64, tag = "1")]
    pub value: i64,
}

/// `SecurityProfile.ProfileType`: the engine's own profile.
pub const RUNTIME_DEFAULT: i32 = 0;
/// `SecurityProfile.ProfileType`: none.
pub const UNCONFINED: i32 = 1;
/// `SecurityProfile.ProfileType`: of a file.
pub const LOCALHOST: i32 = 2;

/// `SecurityProfile`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Profile {
    /// Which kind.
    #[prost(int32, tag = "1")]
    pub kind: i32,
    /// The file, for [`LOCALHOST`].
    #[prost(string, tag = "2")]
    pub file: String,
}

/// `LinuxContainerSecurityContext`.
#[derive(Clone, PartialEq, Message)]
pub struct ContainerSecurity {
    /// More or fewer than the usual ones.
    #[prost(message, optional, tag = "1")]
    pub capabilities: Option<Capabilities>,
    /// All rights.
    #[prost(bool, tag = "2")]
    pub privileged: bool,
    /// What is shared with whom.
    #[prost(message, optional, tag = "3")]
    pub namespaces: Option<Namespaces>,
    /// The user's number.
    #[prost(message, optional, tag = "5")]
    pub user: Option<Number>,
    /// The group's number.
    #[prost(message, optional, tag = "12")]
    pub group: Option<Number>,
    /// Whether the root filesystem can't be written.
    #[prost(bool, tag = "7")]
    pub readonly_rootfs: bool,
    /// More groups.
    #[prost(int64, repeated, tag = "8")]
    pub groups: Vec<i64>,
    /// See prctl(2), `PR_SET_NO_NEW_PRIVS`.
    #[prost(bool, tag = "11")]
    pub no_new_privs: bool,
    /// System calls.
    #[prost(message, optional, tag = "15")]
    pub seccomp: Option<Profile>,
}

#[derive(Clone, PartialEq, Message)]
struct CreateContainer {
    #[prost(string, tag = "1")]
    pod: String,
    #[prost(message, optional, tag = "2")]
    config: Option<ContainerConfig>,
    #[prost(message, optional, tag = "3")]
    pod_config: Option<PodConfig>,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct ExecSync {
    #[prost(string, tag = "1")]
    container: String,
    #[prost(string, repeated, tag = "2")]
    command: Vec<String>,
    #[prost(int64, tag = "3")]
    timeout: i64,
}

/// `ExecSyncResponse`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Executed {
    /// What it wrote.
    #[prost(bytes = "vec", tag = "1")]
    pub stdout: Vec<u8>,
    /// What it wrote.
    #[prost(bytes = "vec", tag = "2")]
    pub stderr: Vec<u8>,
    /// How it ended.
    #[prost(int32, tag = "3")]
    pub exit_code: i32,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct Exec {
    #[prost(string, tag = "1")]
    container: String,
    #[prost(string, repeated, tag = "2")]
    command: Vec<String>,
    #[prost(bool, tag = "3")]
    tty: bool,
    #[prost(bool, tag = "4")]
    stdin: bool,
    #[prost(bool, tag = "5")]
    stdout: bool,
    #[prost(bool, tag = "6")]
    stderr: bool,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct Attach {
    #[prost(string, tag = "1")]
    container: String,
    #[prost(bool, tag = "2")]
    stdin: bool,
    #[prost(bool, tag = "4")]
    stdout: bool,
    #[prost(bool, tag = "5")]
    stderr: bool,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct PortForward {
    #[prost(string, tag = "1")]
    pod: String,
    #[prost(int32, repeated, tag = "2")]
    ports: Vec<i32>,
}

#[derive(Clone, PartialEq, Message)]
struct StatusAnswer {
    #[prost(message, optional, tag = "1")]
    status: Option<ContainerStatus>,
}

/// `ContainerStatus`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ContainerStatus {
    /// See [`State`].
    #[prost(enumeration = "State", tag = "3")]
    pub state: i32,
    /// How it ended.
    #[prost(int32, tag = "7")]
    pub exit_code: i32,
    /// Why it ended, in a word.
    #[prost(string, tag = "10")]
    pub reason: String,
}

/// `ContainerState`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum State {
    /// Made.
    Created = 0,
    /// Runs.
    Running = 1,
    /// Has ended.
    Exited = 2,
    /// Nobody knows.
    Unknown = 3,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct UpdateResources {
    #[prost(string, tag = "1")]
    container: String,
    #[prost(message, optional, tag = "2")]
    linux: Option<Resources>,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct Stop {
    #[prost(string, tag = "1")]
    container: String,
    #[prost(int64, tag = "2")]
    timeout: i64,
}

#[derive(Clone, PartialEq, Message)]
struct StatsAnswer {
    #[prost(message, optional, tag = "1")]
    stats: Option<Stats>,
}

/// `ContainerStats`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Stats {
    /// Of the processor.
    #[prost(message, optional, tag = "2")]
    pub cpu: Option<CpuUsage>,
    /// Of memory.
    #[prost(message, optional, tag = "3")]
    pub memory: Option<MemoryUsage>,
}

/// `CpuUsage`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct CpuUsage {
    /// In nanoseconds, since it began.
    #[prost(message, optional, tag = "2")]
    pub total: Option<Count>,
}

/// `MemoryUsage`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct MemoryUsage {
    /// In bytes, what is in use.
    #[prost(message, optional, tag = "2")]
    pub working_set: Option<Count>,
}

/// `UInt64Value`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Count {
    /// Of any size.
    #[prost(uint64, tag = "1")]
    pub value: u64,
}

/// The answer to a call.
pub type Answer<T> = Result<T, tonic::Status>;

/// A client.
#[derive(Clone, Debug)]
pub struct Cri {
    socket: PathBuf,
}

impl Cri {
    /// Of the daemon at this socket.
    pub fn at(socket: PathBuf) -> Self {
        Self { socket }
    }

    fn call<T>(&self, method: &str, request: impl Message + 'static) -> Answer<T>
    where
        T: Message + Default + 'static,
    {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("an event loop");
        runtime.block_on(async {
            let endpoint =
                Endpoint::from_shared(format!("unix://{}", self.socket.display())).expect("an address");
            let channel = endpoint.timeout(LIMIT).connect().await.expect("connecting to containerd");
            let mut client = tonic::client::Grpc::new(channel);
            client.ready().await.expect("a connection");
            let path = format!("/runtime.v1.RuntimeService/{method}");
            let path = PathAndQuery::from_maybe_shared(path).expect("a path");
            let codec = tonic_prost::ProstCodec::default();
            client.unary(tonic::Request::new(request), path, codec).await.map(tonic::Response::into_inner)
        })
    }

    /// Makes a pod with the runtime of a handler; gives its id.
    pub fn run_pod(&self, config: &PodConfig, handler: &str) -> Answer<String> {
        let request = RunPod { config: Some(config.clone()), handler: handler.to_owned() };
        self.call("RunPodSandbox", request).map(|Name { name }| name)
    }

    /// Stops a pod and its containers.
    pub fn stop_pod(&self, pod: &str) -> Answer<()> {
        self.call("StopPodSandbox", Name { name: pod.to_owned() }).map(|Nothing {}| ())
    }

    /// Removes a pod and its containers.
    pub fn remove_pod(&self, pod: &str) -> Answer<()> {
        self.call("RemovePodSandbox", Name { name: pod.to_owned() }).map(|Nothing {}| ())
    }

    /// Makes a container in a pod; gives its id.
    pub fn create(&self, pod: &str, config: &ContainerConfig, pod_config: &PodConfig) -> Answer<String> {
        let (config, pod_config) = (Some(config.clone()), Some(pod_config.clone()));
        let request = CreateContainer { pod: pod.to_owned(), config, pod_config };
        self.call("CreateContainer", request).map(|Name { name }| name)
    }

    /// Starts a container.
    pub fn start(&self, container: &str) -> Answer<()> {
        self.call("StartContainer", Name { name: container.to_owned() }).map(|Nothing {}| ())
    }

    /// Ends a container, after so many seconds by force.
    pub fn stop(&self, container: &str, timeout: i64) -> Answer<()> {
        let request = Stop { container: container.to_owned(), timeout };
        self.call("StopContainer", request).map(|Nothing {}| ())
    }

    /// Removes a container.
    pub fn remove(&self, container: &str) -> Answer<()> {
        self.call("RemoveContainer", Name { name: container.to_owned() }).map(|Nothing {}| ())
    }

    /// Opens a container's log anew, after it was moved away.
    pub fn reopen_log(&self, container: &str) -> Answer<()> {
        self.call("ReopenContainerLog", Name { name: container.to_owned() }).map(|Nothing {}| ())
    }

    /// How a container is.
    pub fn status(&self, container: &str) -> Answer<ContainerStatus> {
        let answer: StatusAnswer = self.call("ContainerStatus", Name { name: container.to_owned() })?;
        answer.status.ok_or_else(|| tonic::Status::internal("an answer without a status"))
    }

    /// What a container has used.
    pub fn stats(&self, container: &str) -> Answer<Stats> {
        let answer: StatsAnswer = self.call("ContainerStats", Name { name: container.to_owned() })?;
        answer.stats.ok_or_else(|| tonic::Status::internal("an answer without stats"))
    }

    /// Changes a container's limits.
    pub fn update(&self, container: &str, resources: Resources) -> Answer<()> {
        let request = UpdateResources { container: container.to_owned(), linux: Some(resources) };
        self.call("UpdateContainerResources", request).map(|Nothing {}| ())
    }

    /// Runs a command in a container to its end, for so many seconds at the most; 0 is no limit.
    pub fn exec_sync(&self, container: &str, command: &[&str], timeout: i64) -> Answer<Executed> {
        let command = command.iter().map(|&word| word.to_owned()).collect();
        self.call("ExecSync", ExecSync { container: container.to_owned(), command, timeout })
    }

    /// The address at which a command's streams are.
    pub fn exec(&self, container: &str, command: &[&str], tty: bool) -> Answer<String> {
        let command = command.iter().map(|&word| word.to_owned()).collect();
        let container = container.to_owned();
        let request = Exec { container, command, tty, stdin: true, stdout: true, stderr: !tty };
        self.call("Exec", request).map(|Name { name }| name)
    }

    /// The address at which a container's own streams are.
    pub fn attach(&self, container: &str) -> Answer<String> {
        let request = Attach { container: container.to_owned(), stdin: true, stdout: true, stderr: true };
        self.call("Attach", request).map(|Name { name }| name)
    }

    /// The address at which a port of a pod is.
    pub fn port_forward(&self, pod: &str, port: i32) -> Answer<String> {
        let request = PortForward { pod: pod.to_owned(), ports: vec![port] };
        self.call("PortForward", request).map(|Name { name }| name)
    }

    /// True when the daemon answers.
    pub fn answers(&self) -> bool {
        self.call::<AnyVersion>("Version", Nothing {}).is_ok()
    }
}

/// `VersionResponse`, of which nothing is looked at.
#[derive(Clone, PartialEq, Eq, Message)]
struct AnyVersion {}
