//! What the commands ask of the container room.

use std::path::PathBuf;
use std::time::Duration;

use oci_spec::runtime::LinuxResources;

use super::host;
use crate::cgroup::ManagerChoice;

/// What holds for all commands of a call.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Who manages cgroups.
    pub manager: ManagerChoice,
    /// `--rootless`; `None` is `auto`.
    pub rootless: Option<bool>,
    /// Tell more.
    pub debug: bool,
    /// Where the `criu` program is.
    pub criu: Option<PathBuf>,
}

impl Settings {
    /// Whether this is not the host's root: cgroups that it may not make are no error.
    pub fn is_rootless(&self) -> bool {
        self.rootless.unwrap_or_else(|| !is_host_root())
    }

    /// Whether containers get rules for devices. Only the host's root can set them, and saying `--rootless=true` doesn't allow
    /// its containers more.
    pub fn has_device_rules(&self) -> bool {
        !self.is_rootless() || is_host_root()
    }

    /// Whether systemd means the user's own, not the system's.
    pub fn has_user_systemd(&self) -> bool {
        self.rootless
            .unwrap_or_else(|| !rustix::process::geteuid().is_root() || host::user_runtime_dir().is_some())
    }
}

fn is_host_root() -> bool {
    rustix::process::geteuid().is_root() && !crate::sys::process::in_user_namespace()
}

/// The options of `create`, which `run` has too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateOptions {
    /// The bundle's directory.
    pub bundle: PathBuf,
    /// The name of the configuration in it.
    pub config: String,
    /// Where the terminal's master is sent.
    pub console_socket: Option<PathBuf>,
    /// Where the first process's pidfd is sent.
    pub pidfd_socket: Option<PathBuf>,
    /// Where the first process's id is written.
    pub pid_file: Option<PathBuf>,
    /// Don't pivot_root(2).
    pub no_pivot: bool,
    /// Stay in the caller's session keyring.
    pub no_new_keyring: bool,
    /// How many descriptors are passed on after the standard ones and those of `$LISTEN_FDS`.
    pub preserve_fds: u32,
}

/// The options of `run`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunOptions {
    /// Those it shares with `create`.
    pub create: CreateOptions,
    /// Return once the program runs.
    pub detach: bool,
    /// Keep the container after its end.
    pub keep: bool,
    /// Leave orphaned processes to others.
    pub no_subreaper: bool,
    /// Where a seccomp profile that allows what the container called is written.
    pub learn: Option<PathBuf>,
}

/// The options of `exec`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecOptions {
    /// Where the terminal's master is sent.
    pub console_socket: Option<PathBuf>,
    /// Where the process's pidfd is sent.
    pub pidfd_socket: Option<PathBuf>,
    /// Where the process's id is written.
    pub pid_file: Option<PathBuf>,
    /// Return once the program runs.
    pub detach: bool,
    /// How many descriptors are passed on after the standard ones and those of `$LISTEN_FDS`.
    pub preserve_fds: u32,
    /// Sub-cgroups to join: `[CONTROLLER:]PATH`.
    pub cgroup: Vec<String>,
    /// Also execute in a paused container; the process starts when it is resumed.
    pub ignore_paused: bool,
    /// What to execute.
    pub process: ExecProcess,
}

/// The process that `exec` adds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecProcess {
    /// A process file; `tty` asks for a terminal even where the file doesn't.
    File {
        /// The file.
        path: PathBuf,
        /// A terminal is asked for.
        tty: bool,
    },
    /// The text of a process file, from an engine that calls the runtime as a library.
    Text {
        /// The `process` object.
        text: Vec<u8>,
        /// A terminal is asked for, or not, whatever the text says.
        tty: bool,
    },
    /// The process of `config.json`, changed by options.
    Given {
        /// The program and its arguments.
        args: Vec<String>,
        /// The working directory.
        cwd: Option<String>,
        /// Entries added to the environment.
        env: Vec<String>,
        /// A terminal is asked for.
        tty: bool,
        /// The user.
        user: Option<ExecUser>,
        /// Groups added.
        additional_gids: Vec<u32>,
        /// Capabilities added.
        caps: Vec<String>,
        /// The AppArmor profile.
        apparmor: Option<String>,
        /// The SELinux label.
        process_label: Option<String>,
        /// no_new_privs; `None`: as `config.json` says.
        no_new_privs: Option<bool>,
    },
}

/// The user of `exec --user`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExecUser {
    /// User id.
    pub uid: u32,
    /// Group id; `None`: the group of `config.json`.
    pub gid: Option<u32>,
}

/// What `update` changes.
#[derive(Debug, Clone)]
pub struct Update {
    /// The limits that are named.
    pub resources: LinuxResources,
    /// Intel RDT's cache allocation.
    pub l3_cache_schema: Option<String>,
    /// Intel RDT's memory bandwidth allocation.
    pub mem_bw_schema: Option<String>,
}

/// The options of `events`.
#[derive(Debug, Clone, Copy)]
pub struct EventsOptions {
    /// The time between two statistics.
    pub interval: Duration,
    /// Print the statistics once and end.
    pub stats: bool,
    /// Report what the kernel notifies of, instead of by interval.
    pub push: bool,
}

/// What CRIU does with cgroups: criu(8), `--manage-cgroups`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupsMode {
    /// Restore what is missing.
    Soft,
    /// Restore all.
    Full,
    /// Fail where they are there already.
    Strict,
    /// Leave them alone.
    Ignore,
}

/// Where CRIU's page server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageServer {
    /// Its address.
    pub address: String,
    /// Its port.
    pub port: u16,
}

/// The options of `checkpoint`.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "each is the option of the same name: criu(8)")]
pub struct CheckpointOptions {
    pub image_path: PathBuf,
    pub work_path: Option<PathBuf>,
    pub parent_path: Option<PathBuf>,
    pub leave_running: bool,
    pub tcp_established: bool,
    pub tcp_skip_in_flight: bool,
    pub link_remap: bool,
    pub ext_unix_sk: bool,
    pub shell_job: bool,
    pub lazy_pages: bool,
    pub status_fd: Option<i32>,
    pub page_server: Option<PageServer>,
    pub file_locks: bool,
    pub pre_dump: bool,
    pub manage_cgroups_mode: Option<CgroupsMode>,
    pub empty_network_namespace: bool,
    pub auto_dedup: bool,
}

/// The options of `restore`.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "each is the option of the same name: criu(8)")]
pub struct RestoreOptions {
    pub bundle: PathBuf,
    pub console_socket: Option<PathBuf>,
    pub pid_file: Option<PathBuf>,
    pub image_path: PathBuf,
    pub work_path: Option<PathBuf>,
    pub detach: bool,
    pub no_subreaper: bool,
    pub no_pivot: bool,
    pub tcp_established: bool,
    pub ext_unix_sk: bool,
    pub shell_job: bool,
    pub file_locks: bool,
    pub manage_cgroups_mode: Option<CgroupsMode>,
    pub empty_network_namespace: bool,
    pub auto_dedup: bool,
    pub lazy_pages: bool,
    pub lsm_profile: Option<String>,
    pub lsm_mount_context: Option<String>,
}
