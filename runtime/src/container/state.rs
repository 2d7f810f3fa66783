//! What is remembered of a container, and what it is doing (runtime-spec, runtime.md "State").

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use oci_spec::runtime::{Hook, LinuxDeviceCgroup};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::host::call;
use super::identity::Identity;
use super::listener::Agent;
use super::store::{GATE, Home, STATE_FILE, Store};
use crate::cgroup::{self, Cgroup};
use crate::error::{Error, Kind, Result};
use crate::hooks::HookState;
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
    /// Mounts in the host's mount namespace, to be undone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_mounts: Vec<PathBuf>,
    /// The poststart hooks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub poststart: Vec<Hook>,
    /// The poststop hooks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub poststop: Vec<Hook>,
    /// The agent that gets the seccomp listener.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seccomp_agent: Option<Agent>,
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

    /// The text of `state.json`.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self)
            .map_err(|error| Error::new(Kind::System, format!("write the state: {error}")))
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
        let state = serde_json::from_slice(&text).map_err(|error| {
            Error::new(
                Kind::System,
                format!("{} is damaged: {error}", home.path().join(STATE_FILE).display()),
            )
            .hint("`delete --force` removes the container")
        })?;
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
        match call(self.home.as_fd(), GATE) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(_) => self.home.unlink(GATE).map(|()| false),
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
