//! Running OCI hooks (runtime-spec, config.md "POSIX-platform Hooks").
//!
//! Each hook gets the container's state as JSON on its standard input, exactly the environment and arguments
//! that it asks for, and no descriptor of ours. What it prints is shown when it fails. A hook that outlives
//! its timeout is killed, and that is a failure.

use std::collections::HashMap;
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use oci_spec::runtime::Hook;
use rustix::fs::MemfdFlags;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::Serialize;

use crate::error::{Doing, Error, Kind, Result};
use crate::interrupt::{self, Interrupt, Waited};
use crate::sys::process::close_on_exec_from;

/// How much of what a failed hook printed is shown, in bytes: the end of it, where the reason mostly stands.
const SHOWN_OUTPUT: u64 = 4096;

/// The container's state as hooks get it: runtime-spec, runtime.md "State".
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HookState {
    /// The version of the specification.
    pub oci_version: String,
    /// The container's id.
    pub id: String,
    /// `creating`, `created`, `running` or `stopped`.
    pub status: &'static str,
    /// The init process's id where the hook runs; absent once it has ended.
    #[serde(skip_serializing_if = "is_zero")]
    pub pid: i32,
    /// The bundle's directory.
    pub bundle: String,
    /// The container's annotations.
    #[serde(skip_serializing_if = "HashMap::is_empty")]
    pub annotations: HashMap<String, String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(pid: &i32) -> bool {
    *pid == 0
}

/// On which side of the clone a hook runs.
#[derive(Debug, Clone, Copy)]
pub enum Side<'a> {
    /// The runtime's: in the bundle's directory, since a relative path in a hook's arguments is meant so.
    /// An interrupt ends it.
    Runtime(Option<&'a Interrupt>),
    /// The container's: where the caller is.
    Container {
        /// For hooks without an environment of their own.
        env: &'a [CString],
    },
}

/// Runs the hooks called `name` one after the other; the first failure ends it, and so does an interrupt.
pub fn run(hooks: &[Hook], name: &str, state: &HookState, side: Side<'_>) -> Result<()> {
    for (index, hook) in hooks.iter().enumerate() {
        run_one(hook, state, side).map_err(|error| {
            error
                .while_doing(format_args!("error running {name} hook #{index}"))
                .at(format!("hooks.{name}[{index}]"))
        })?;
    }
    Ok(())
}

/// Runs the hooks called `name`, all of them; failures come back as warnings.
pub fn run_all(hooks: &[Hook], name: &str, state: &HookState) -> Vec<Error> {
    let mut failures = Vec::new();
    for (index, hook) in hooks.iter().enumerate() {
        if let Err(error) = run_one(hook, state, Side::Runtime(None)) {
            failures.push(
                error
                    .while_doing(format_args!("error running {name} hook #{index}"))
                    .at(format!("hooks.{name}[{index}]")),
            );
        }
    }
    failures
}

fn run_one(hook: &Hook, state: &HookState, side: Side<'_>) -> Result<()> {
    let path = hook.path();
    let mut input = memory_file("hook-stdin")?;
    serde_json::to_writer(&mut input, state)
        .map_err(|error| Error::new(Kind::System, format!("write the state for the hook: {error}")))?;
    input.seek(SeekFrom::Start(0)).doing(|| "rewind the state for the hook")?;
    let output = memory_file("hook-output")?;
    let copy = || output.try_clone().doing(|| "duplicate the hook's output file");

    let mut command = Command::new(path);
    command.stdin(input).stdout(copy()?).stderr(copy()?);
    match (hook.env(), side) {
        (Some(own), _) => {
            command.env_clear();
            command.envs(own.iter().map(|entry| entry.split_once('=').unwrap_or((entry, ""))));
        }
        (None, Side::Container { env }) => {
            command.env_clear();
            command.envs(env.iter().filter_map(|entry| name_and_value(entry.to_bytes())));
        }
        // The caller's, as with runc.
        (None, Side::Runtime(_)) => {}
    }
    // The bundle may be gone when the container is deleted.
    if matches!(side, Side::Runtime(_)) && Path::new(&state.bundle).is_dir() {
        command.current_dir(&state.bundle);
    }
    if let Some((name, rest)) = hook.args().as_deref().and_then(<[String]>::split_first) {
        command.arg0(name).args(rest);
    }
    crate::sys::signal::reset_before_exec(&mut command);
    // The caller's too: who deletes a container, or starts it, may have left some open.
    close_on_exec_from(3).doing(|| "keep descriptors from the hook")?;
    let mut child = command.spawn().doing(|| format!("execute {}", path.display()))?;
    let timeout = hook.timeout().and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs);
    let interrupt = match side {
        Side::Runtime(interrupt) => interrupt,
        Side::Container { .. } => None,
    };
    let Some(status) = wait(&mut child, timeout, interrupt)? else {
        return Err(Error::new(
            Kind::System,
            format!(
                "{} ran longer than its timeout of {} s and was killed",
                path.display(),
                timeout.unwrap_or_default().as_secs()
            ),
        ));
    };
    if status.success() {
        return Ok(());
    }
    Err(Error::new(
        Kind::System,
        format!("{}: {}, output: {}", path.display(), describe(status), shown(output)),
    ))
}

fn name_and_value(entry: &[u8]) -> Option<(&OsStr, &OsStr)> {
    let at = entry.iter().position(|byte| *byte == b'=')?;
    Some((OsStr::from_bytes(entry.get(..at)?), OsStr::from_bytes(entry.get(at + 1..)?)))
}

/// Waits for the child. With a timeout that passes, kills it and returns nothing; an interrupt kills it too.
fn wait(
    child: &mut Child,
    timeout: Option<Duration>,
    interrupt: Option<&Interrupt>,
) -> Result<Option<ExitStatus>> {
    if timeout.is_some() || interrupt.is_some() {
        let pid = Pid::from_child(child);
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).doing(|| "open the hook's pidfd")?;
        let waited = interrupt::wait(pidfd.as_fd(), interrupt, timeout);
        if waited.as_ref().ok() != Some(&Waited::Ready) {
            child.kill().doing(|| "kill the hook")?;
            child.wait().doing(|| "wait for the hook")?;
            return waited.map(|_| None);
        }
    }
    child.wait().map(Some).doing(|| "wait for the hook")
}

fn memory_file(name: &str) -> Result<File> {
    rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC)
        .map(File::from)
        .doing(|| "make a memory file for the hook")
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal: {}", crate::sys::signal::describe(signal)),
        (None, None) => status.to_string(),
    }
}

/// The end of what the hook printed.
fn shown(mut output: File) -> String {
    let mut text = Vec::new();
    let left_out = output.metadata().map_or(0, |file| file.len().saturating_sub(SHOWN_OUTPUT));
    let read =
        output.seek(SeekFrom::Start(left_out)).and_then(|_| output.take(SHOWN_OUTPUT).read_to_end(&mut text));
    let mark = if left_out == 0 { "" } else { "... " };
    match read {
        Ok(_) => format!("{mark}{}", String::from_utf8_lossy(&text).trim_end()),
        Err(error) => format!("(unreadable: {error})"),
    }
}
