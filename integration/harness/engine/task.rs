//! A client of containerd's Task service, which a shim serves by ttrpc on its socket: the messages are written down
//! here by number, so that a shim's mistake in one of them is not repeated in its tests.
//!
//! Source: `api/runtime/task/v2/shim.proto` and `v3/task.proto` of containerd; both versions have the same messages.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use prost::Message;
use ttrpc::proto::{Code, Request};
use ttrpc::sync::Client;

/// How long a call may take: a guard against a hang, not a measure.
const LIMIT: Duration = Duration::from_secs(30);

/// A value with the name of its type, `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
pub struct Any {
    /// The type's name, which containerd writes without a host.
    #[prost(string, tag = "1")]
    pub type_url: String,
    /// The value, in the form that its type says.
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

impl Any {
    /// A message as a value of the type named.
    pub fn of(type_url: &str, message: &impl Message) -> Self {
        Self { type_url: type_url.to_owned(), value: message.encode_to_vec() }
    }

    /// JSON as a value of the type named.
    pub fn json(type_url: &str, json: &serde_json::Value) -> Self {
        Self { type_url: type_url.to_owned(), value: json.to_string().into_bytes() }
    }
}

/// `google.protobuf.Timestamp`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Timestamp {
    /// Since 1970.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// Of the second.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

/// `containerd.types.Mount`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Mount {
    /// The file system's type, such as `bind`.
    #[prost(string, tag = "1")]
    pub kind: String,
    /// What is mounted.
    #[prost(string, tag = "2")]
    pub source: String,
    /// Where, below the root filesystem.
    #[prost(string, tag = "3")]
    pub target: String,
    /// Options as in fstab(5).
    #[prost(string, repeated, tag = "4")]
    pub options: Vec<String>,
}

/// `CreateTaskRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct Create {
    /// The container's.
    #[prost(string, tag = "1")]
    pub id: String,
    /// The bundle's directory.
    #[prost(string, tag = "2")]
    pub bundle: String,
    /// What is mounted at the bundle's `rootfs`, in this order.
    #[prost(message, repeated, tag = "3")]
    pub rootfs: Vec<Mount>,
    /// Whether the process gets a terminal.
    #[prost(bool, tag = "4")]
    pub terminal: bool,
    /// Path or URI; empty for none.
    #[prost(string, tag = "5")]
    pub stdin: String,
    /// Path or URI; empty for none.
    #[prost(string, tag = "6")]
    pub stdout: String,
    /// Path or URI; empty for none.
    #[prost(string, tag = "7")]
    pub stderr: String,
    /// The directory of a checkpoint to restore from; empty for none.
    #[prost(string, tag = "8")]
    pub checkpoint: String,
    /// `containerd.runc.v1.Options`.
    #[prost(message, optional, tag = "10")]
    pub options: Option<Any>,
}

/// `containerd.runc.v1.Options`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Options {
    /// `runc create --no-pivot`.
    #[prost(bool, tag = "1")]
    pub no_pivot_root: bool,
    /// `runc create --no-new-keyring`.
    #[prost(bool, tag = "2")]
    pub no_new_keyring: bool,
    /// The cgroup that the shim itself joins.
    #[prost(string, tag = "3")]
    pub shim_cgroup: String,
    /// The owner of the process's pipes.
    #[prost(uint32, tag = "4")]
    pub io_uid: u32,
    /// The group of the process's pipes.
    #[prost(uint32, tag = "5")]
    pub io_gid: u32,
    /// The OCI runtime to run.
    #[prost(string, tag = "6")]
    pub binary_name: String,
    /// The OCI runtime's `--root`, below which is a directory for each namespace.
    #[prost(string, tag = "7")]
    pub root: String,
    /// Whether systemd makes the cgroup.
    #[prost(bool, tag = "9")]
    pub systemd_cgroup: bool,
}

/// The name of the type [`Options`].
pub const OPTIONS: &str = "containerd.runc.v1.Options";

/// `ExecProcessRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct Exec {
    /// The container's.
    #[prost(string, tag = "1")]
    pub id: String,
    /// The new process's name.
    #[prost(string, tag = "2")]
    pub exec_id: String,
    /// Whether the process gets a terminal.
    #[prost(bool, tag = "3")]
    pub terminal: bool,
    /// As in [`Create`].
    #[prost(string, tag = "4")]
    pub stdin: String,
    /// As in [`Create`].
    #[prost(string, tag = "5")]
    pub stdout: String,
    /// As in [`Create`].
    #[prost(string, tag = "6")]
    pub stderr: String,
    /// The `process` section of a configuration, as JSON.
    #[prost(message, optional, tag = "7")]
    pub spec: Option<Any>,
}

/// The name of the type of [`Exec::spec`].
pub const PROCESS: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";

/// The request of most calls: which process. An empty `exec_id` is the container's first.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Process {
    /// The container's.
    #[prost(string, tag = "1")]
    pub id: String,
    /// The exec's.
    #[prost(string, tag = "2")]
    pub exec_id: String,
}

/// `DeleteResponse`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Deleted {
    /// Of the process.
    #[prost(uint32, tag = "1")]
    pub pid: u32,
    /// As a shell shows it.
    #[prost(uint32, tag = "2")]
    pub exit_status: u32,
    /// When it ended.
    #[prost(message, optional, tag = "3")]
    pub exited_at: Option<Timestamp>,
}

/// `StateResponse`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct State {
    /// The container's.
    #[prost(string, tag = "1")]
    pub id: String,
    /// The bundle's directory.
    #[prost(string, tag = "2")]
    pub bundle: String,
    /// Of the process.
    #[prost(uint32, tag = "3")]
    pub pid: u32,
    /// See [`Status`].
    #[prost(enumeration = "Status", tag = "4")]
    pub status: i32,
    /// As it was given.
    #[prost(string, tag = "5")]
    pub stdin: String,
    /// As it was given.
    #[prost(string, tag = "6")]
    pub stdout: String,
    /// As it was given.
    #[prost(string, tag = "7")]
    pub stderr: String,
    /// As it was given.
    #[prost(bool, tag = "8")]
    pub terminal: bool,
    /// As a shell shows it, once it has ended.
    #[prost(uint32, tag = "9")]
    pub exit_status: u32,
    /// When it ended.
    #[prost(message, optional, tag = "10")]
    pub exited_at: Option<Timestamp>,
    /// The exec's.
    #[prost(string, tag = "11")]
    pub exec_id: String,
}

/// `containerd.v1.types.Status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum Status {
    /// None of the others.
    Unknown = 0,
    /// Made, and waits to be started.
    Created = 1,
    /// Runs.
    Running = 2,
    /// Has ended.
    Stopped = 3,
    /// Is frozen.
    Paused = 4,
    /// Is being frozen.
    Pausing = 5,
}

/// `KillRequest`.
#[derive(Clone, PartialEq, Eq, Message)]
struct Kill {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "2")]
    exec_id: String,
    #[prost(uint32, tag = "3")]
    signal: u32,
    #[prost(bool, tag = "4")]
    all: bool,
}

/// `CloseIORequest`.
#[derive(Clone, PartialEq, Eq, Message)]
struct CloseIo {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "2")]
    exec_id: String,
    #[prost(bool, tag = "3")]
    stdin: bool,
}

/// `ResizePtyRequest`.
#[derive(Clone, PartialEq, Eq, Message)]
struct Resize {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "2")]
    exec_id: String,
    #[prost(uint32, tag = "3")]
    width: u32,
    #[prost(uint32, tag = "4")]
    height: u32,
}

/// `UpdateTaskRequest`.
#[derive(Clone, PartialEq, Message)]
struct Update {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(message, optional, tag = "2")]
    resources: Option<Any>,
    #[prost(map = "string, string", tag = "3")]
    annotations: HashMap<String, String>,
}

/// `CheckpointTaskRequest`.
#[derive(Clone, PartialEq, Message)]
struct Checkpoint {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "2")]
    path: String,
}

/// `ShutdownRequest`.
#[derive(Clone, PartialEq, Eq, Message)]
struct Shutdown {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(bool, tag = "2")]
    now: bool,
}

/// The one number that `CreateTaskResponse` and `StartResponse` have.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
struct Pid {
    #[prost(uint32, tag = "1")]
    pid: u32,
}

/// `PidsResponse`.
#[derive(Clone, PartialEq, Message)]
struct Pids {
    #[prost(message, repeated, tag = "1")]
    processes: Vec<ProcessInfo>,
}

/// `containerd.v1.types.ProcessInfo`.
#[derive(Clone, PartialEq, Message)]
pub struct ProcessInfo {
    /// Of a process in the container.
    #[prost(uint32, tag = "1")]
    pub pid: u32,
    /// `containerd.runc.v1.ProcessDetails` for an exec.
    #[prost(message, optional, tag = "2")]
    pub info: Option<Any>,
}

impl ProcessInfo {
    /// The exec's name, when this is one.
    pub fn exec_id(&self) -> Option<String> {
        #[derive(Clone, PartialEq, Eq, Message)]
        struct Details {
            #[prost(string, tag = "1")]
            exec_id: String,
        }
        let info = self.info.as_ref()?;
        assert_eq!(info.type_url, "containerd.runc.v1.ProcessDetails");
        Some(Details::decode(&*info.value).expect("ProcessDetails").exec_id)
    }
}

/// `WaitResponse`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Waited {
    /// As a shell shows it.
    #[prost(uint32, tag = "1")]
    pub exit_status: u32,
    /// When it ended.
    #[prost(message, optional, tag = "2")]
    pub exited_at: Option<Timestamp>,
}

/// `StatsResponse`.
#[derive(Clone, PartialEq, Message)]
struct Stats {
    #[prost(message, optional, tag = "1")]
    stats: Option<Any>,
}

/// `ConnectResponse`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Connected {
    /// The shim.
    #[prost(uint32, tag = "1")]
    pub shim_pid: u32,
    /// The container's first process.
    #[prost(uint32, tag = "2")]
    pub task_pid: u32,
    /// Of the service.
    #[prost(string, tag = "3")]
    pub version: String,
}

/// Why a call failed: the code and the message that the shim answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What kind of failure.
    pub code: Code,
    /// In words.
    pub message: String,
}

/// The answer to a call.
pub type Answer<T> = Result<T, Failure>;

/// A connection to a shim.
#[derive(Clone)]
pub struct Tasks {
    client: Client,
    service: String,
}

impl Tasks {
    /// Connects to the socket at `address`, such as `unix:///run/containerd/s/…`, for `version` 2 or 3 of the service.
    #[track_caller]
    pub fn connect(address: &str, version: u32) -> Self {
        let client = Client::connect(address).unwrap_or_else(|error| panic!("connect to {address}: {error}"));
        Self { client, service: format!("containerd.task.v{version}.Task") }
    }

    /// True when something answers at the address.
    pub fn answers(address: &str) -> bool {
        let path = address.strip_prefix("unix://").unwrap_or(address);
        std::os::unix::net::UnixStream::connect(Path::new(path)).is_ok()
    }

    /// One call of any method.
    #[track_caller]
    pub fn call<T: Message + Default>(&self, method: &str, request: &impl Message) -> Answer<T> {
        self.try_call(method, request).unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    /// The same; an error when the connection breaks.
    fn try_call<T: Message + Default>(
        &self,
        method: &str,
        request: &impl Message,
    ) -> ttrpc::Result<Answer<T>> {
        let request = Request {
            service: self.service.clone(),
            method: method.to_owned(),
            payload: request.encode_to_vec(),
            timeout_nano: i64::try_from(LIMIT.as_nanos()).unwrap_or(i64::MAX),
            ..Request::default()
        };
        match self.client.request(request) {
            Ok(response) => Ok(Ok(T::decode(&*response.payload).expect("a message of this type"))),
            Err(ttrpc::Error::RpcStatus(status)) => {
                Ok(Err(Failure { code: status.code(), message: status.message }))
            }
            Err(error) => Err(error),
        }
    }

    #[track_caller]
    fn of_process<T: Message + Default>(&self, method: &str, id: &str, exec: &str) -> Answer<T> {
        self.call(method, &Process { id: id.to_owned(), exec_id: exec.to_owned() })
    }

    /// Makes a container; gives the pid of its first process.
    #[track_caller]
    pub fn create(&self, request: &Create) -> Answer<u32> {
        self.call("Create", request).map(|Pid { pid }| pid)
    }

    /// Starts a container, or an exec when `exec` isn't empty; gives its pid.
    #[track_caller]
    pub fn start(&self, id: &str, exec: &str) -> Answer<u32> {
        self.of_process("Start", id, exec).map(|Pid { pid }| pid)
    }

    /// Deletes a container or an exec.
    #[track_caller]
    pub fn delete(&self, id: &str, exec: &str) -> Answer<Deleted> {
        self.of_process("Delete", id, exec)
    }

    /// Adds a process.
    #[track_caller]
    pub fn exec(&self, request: &Exec) -> Answer<()> {
        self.call("Exec", request)
    }

    /// What there is to know of a process.
    #[track_caller]
    pub fn state(&self, id: &str, exec: &str) -> Answer<State> {
        self.of_process("State", id, exec)
    }

    /// The processes of a container.
    #[track_caller]
    pub fn pids(&self, id: &str) -> Answer<Vec<ProcessInfo>> {
        self.of_process("Pids", id, "").map(|Pids { processes }| processes)
    }

    /// Freezes a container.
    #[track_caller]
    pub fn pause(&self, id: &str) -> Answer<()> {
        self.of_process("Pause", id, "")
    }

    /// Lets a frozen container go on.
    #[track_caller]
    pub fn resume(&self, id: &str) -> Answer<()> {
        self.of_process("Resume", id, "")
    }

    /// Signals a process, or all of a container.
    #[track_caller]
    pub fn kill(&self, id: &str, exec: &str, signal: rustix::process::Signal, all: bool) -> Answer<()> {
        let signal = signal.as_raw().cast_unsigned();
        self.call("Kill", &Kill { id: id.to_owned(), exec_id: exec.to_owned(), signal, all })
    }

    /// Closes the shim's end of a process's standard input.
    #[track_caller]
    pub fn close_stdin(&self, id: &str, exec: &str) -> Answer<()> {
        self.call("CloseIO", &CloseIo { id: id.to_owned(), exec_id: exec.to_owned(), stdin: true })
    }

    /// Sets the size of a process's terminal.
    #[track_caller]
    pub fn resize(&self, id: &str, exec: &str, width: u32, height: u32) -> Answer<()> {
        self.call("ResizePty", &Resize { id: id.to_owned(), exec_id: exec.to_owned(), width, height })
    }

    /// Changes limits; `resources` is the section of the configuration.
    #[track_caller]
    pub fn update(&self, id: &str, resources: &serde_json::Value) -> Answer<()> {
        let kind = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";
        let resources = Some(Any::json(kind, resources));
        self.call("Update", &Update { id: id.to_owned(), resources, annotations: HashMap::new() })
    }

    /// Waits until a process has ended.
    #[track_caller]
    pub fn wait(&self, id: &str, exec: &str) -> Answer<Waited> {
        self.of_process("Wait", id, exec)
    }

    /// What the container's cgroup has used.
    #[track_caller]
    pub fn stats(&self, id: &str) -> Answer<Any> {
        self.of_process("Stats", id, "").map(|Stats { stats }| stats.expect("stats"))
    }

    /// Who is there.
    #[track_caller]
    pub fn who(&self, id: &str) -> Answer<Connected> {
        self.of_process("Connect", id, "")
    }

    /// Writes a container's memory to `path`.
    #[track_caller]
    pub fn checkpoint(&self, id: &str, path: &Path) -> Answer<()> {
        self.call("Checkpoint", &Checkpoint { id: id.to_owned(), path: path.display().to_string() })
    }

    /// Asks the shim to end. It may have done so before it answers.
    pub fn shutdown(&self, id: &str) -> Answer<()> {
        self.try_call("Shutdown", &Shutdown { id: id.to_owned(), now: false }).unwrap_or(Ok(()))
    }
}
