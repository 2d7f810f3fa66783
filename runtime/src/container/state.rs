//! What is remembered of a container, and what it is doing (runtime-spec, runtime.md "State").

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use oci_spec::runtime::{Hook, LinuxDeviceCgroup};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::host::is_listened_at;
use super::identity::Identity;
use super::listener::Agent;
use super::store::{GATE, Home, STATE_FILE, Store};
use crate::cgroup::{self, Cgroup};
use crate::error::{Doing, Error, Kind, Result};
use crate::hooks::HookState;
use crate::init::host_mounts::HostMount;
use crate::rdt;

/// How far `create` came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// It is at work, or died at it.
    Creating,
    /// It is done.
    Created,
}

/// What a container is doing: runtime-spec, runtime.md "State", and `paused`, which runc has too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// `create` is at work.
    Creating,
    /// It waits for `start`.
    Created,
    /// Its program runs.
    Running,
    /// Its processes are frozen.
    Paused,
    /// Its program has ended, or `create` died.
    Stopped,
}

impl Status {
    /// The word of the specification.
    pub fn name(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

/// What is written to `state.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// The specification's version, as the bundle gave it.
    pub oci_version: String,
    /// The container's id.
    pub id: String,
    /// How far `create` came.
    pub phase: Phase,
    /// The process that creates or created it.
    pub creator: Identity,
    /// The container's first process, once there is one.
    pub init: Option<Identity>,
    /// When it was created: RFC 3339.
    pub created: String,
    /// The user who created it.
    pub owner: u32,
    /// The bundle's directory.
    pub bundle: PathBuf,
    /// The root filesystem.
    pub rootfs: PathBuf,
    /// The container's annotations.
    pub annotations: BTreeMap<String, String>,
    /// Its cgroup.
    pub cgroup: cgroup::Record,
    /// The device rules of the last `update` that changed them; until then those of the configuration hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub devices: Option<Vec<LinuxDeviceCgroup>>,
    /// `CLONE_NEW*` of the namespaces that aren't the runtime's.
    pub namespaces: u64,
    /// Its class of service of Intel RDT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intel_rdt: Option<rdt::Record>,
    /// It has a pid namespace that was made for it, and ends with its first process.
    pub own_pids: bool,
    /// It shares the session keyring of the process that created it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_new_keyring: bool,
    /// Mounts in the host's mount namespace, to be undone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_mounts: Vec<HostMount>,
    /// The poststart hooks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub poststart: Vec<Hook>,
    /// The poststop hooks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub poststop: Vec<Hook>,
    /// The agent that gets the seccomp listener.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seccomp_agent: Option<Agent>,
    /// Its system calls are recorded (`run --seccomp-learn`), and the filter of its bundle doesn't apply.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub learning: bool,
    /// The notification socket of the service manager, at creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notify_socket: Option<PathBuf>,
}

impl State {
    /// The state as hooks get it.
    pub fn for_hooks(&self, status: &'static str) -> HookState {
        HookState {
            oci_version: self.oci_version.clone(),
            id: self.id.clone(),
            status,
            pid: if status == "stopped" { 0 } else { self.init.map_or(0, |init| init.pid) },
            bundle: self.bundle.to_string_lossy().into_owned(),
            annotations: self.annotations.clone().into_iter().collect(),
        }
    }

    /// Reads the text of a container's `state.json`.
    pub fn from_json(home: &Home, text: &[u8]) -> Result<Self> {
        serde_json::from_slice(text).map_err(|error| {
            Error::new(
                Kind::System,
                format!("{} is damaged: {error}", home.path().join(STATE_FILE).display()),
            )
            .hint("`delete --force` removes the container")
        })
    }

    /// The text of `state.json`.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self)
            .map_err(|error| Error::new(Kind::System, format!("write the state: {error}")))
    }
}

/// What a damaged `state.json` still tells of what the container takes up on the host.
#[derive(Debug, Default)]
pub struct Remains {
    /// The container's first process.
    pub init: Option<Identity>,
    /// Its cgroup.
    pub cgroup: Option<cgroup::Record>,
}

impl Remains {
    /// Takes from a text what can be read of it: each field by itself.
    pub fn from_json(text: &[u8]) -> Self {
        let mut fields: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(text).unwrap_or_default();
        let mut field = |name| fields.remove(name).unwrap_or_default();
        Self {
            init: serde_json::from_value(field("init")).ok(),
            cgroup: serde_json::from_value(field("cgroup")).ok(),
        }
    }
}

/// A container that is known: its directory and its state.
#[derive(Debug)]
pub struct Container {
    /// Its directory.
    pub home: Home,
    /// Its state.
    pub state: State,
}

impl Container {
    /// Opens a container.
    pub fn open(store: &Store, id: &str) -> Result<Self> {
        Self::from_home(store.open(id)?)
    }

    /// Reads the state in a container's directory. One that has none yet is just being made, or its creator died
    /// before it came to anything.
    pub fn from_home(home: Home) -> Result<Self> {
        let Some(text) = home.read(STATE_FILE)? else {
            return Err(Error::new(Kind::NotFound, "container does not exist").hint(format!(
                "its directory {} has no state: `delete --force` removes it",
                home.path().display()
            )));
        };
        let state = State::from_json(&home, &text)?;
        Ok(Self { home, state })
    }

    /// The first process's pidfd, if it runs.
    pub fn init(&self) -> Result<Option<OwnedFd>> {
        match self.state.init {
            Some(init) => init.open(),
            None => Ok(None),
        }
    }

    /// Its cgroup.
    pub fn cgroup(&self) -> Result<Cgroup> {
        Cgroup::open(&self.state.cgroup)
    }

    /// Whether the first process waits for `start`. A gate that nobody listens at any more was left by a `start` that
    /// was killed right after it opened it.
    fn waits_at_gate(&self) -> Result<bool> {
        match is_listened_at(self.home.as_fd(), GATE) {
            Err(Errno::CONNREFUSED) => self.home.unlink(GATE).map(|()| false),
            known => known.doing(|| "look whether the container waits for start"),
        }
    }

    /// What it is doing.
    pub fn status(&self) -> Result<Status> {
        self.status_and_init().map(|(status, _)| status)
    }

    /// What it is doing, and the pidfd of its first process.
    pub fn status_and_init(&self) -> Result<(Status, Option<OwnedFd>)> {
        if self.state.phase == Phase::Creating {
            let status =
                if self.state.creator.open()?.is_some() { Status::Creating } else { Status::Stopped };
            return Ok((status, self.init()?));
        }
        let Some(init) = self.init()? else { return Ok((Status::Stopped, None)) };
        let status = if self.cgroup()?.is_frozen()? {
            Status::Paused
        } else if self.waits_at_gate()? {
            Status::Created
        } else {
            Status::Running
        };
        Ok((status, Some(init)))
    }
}
