//! Another OCI runtime by its command line, which is runc's: what `BinaryName` asks for.
//!
//! As with containerd's own shim, a failure's text is the last error of the runtime's log, and the processes that it
//! makes become children of the shim, since it detaches from them.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};

use coracle::cgroup::Cgroup;
use coracle::container::{Begun, Identity};
use coracle::error::{Doing, Error, Kind, Result};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use serde::Deserialize;

use super::program::{self, Done};
use super::{Exec, Of, end};
use crate::console::ConsoleSocket;
use crate::options::Options;
use crate::reaper::Reaper;
use crate::spec;
use crate::worker::Streams;

/// A container of another runtime's.
pub struct Command {
    program: PathBuf,
    root: PathBuf,
    systemd_cgroup: bool,
    no_pivot: bool,
    no_new_keyring: bool,
    id: String,
    bundle: PathBuf,
    reaper: Rc<Reaper>,
}

/// A record of the runtime's log.
#[derive(Deserialize)]
struct Record {
    level: String,
    msg: String,
}

impl Command {
    /// The container `id`, which need not be there yet.
    pub fn new(program: PathBuf, of: Of<'_>, options: &Options, reaper: Rc<Reaper>) -> Self {
        Self {
            program,
            root: options.root.join(of.namespace),
            systemd_cgroup: options.systemd_cgroup,
            no_pivot: options.no_pivot_root,
            no_new_keyring: options.no_new_keyring,
            id: of.id.to_owned(),
            bundle: of.bundle.to_owned(),
            reaper,
        }
    }

    /// The options before the command, the command, and its arguments.
    fn arguments(&self, log: &Path, words: &[OsString]) -> Vec<OsString> {
        let mut all: Vec<OsString> = vec!["--root".into(), self.root.clone().into()];
        all.extend(["--log".into(), log.into(), "--log-format".into(), "json".into()]);
        if self.systemd_cgroup {
            all.push("--systemd-cgroup".into());
        }
        all.extend_from_slice(words);
        all
    }

    /// The log of one command, in which its error is the last one: another command may run beside it.
    fn new_log(&self) -> PathBuf {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        self.bundle.join(format!("log-{}.json", COUNT.fetch_add(1, Ordering::Relaxed)))
    }

    async fn call(&self, words: &[OsString], input: &[u8]) -> Result<Done> {
        let log = self.new_log();
        let done = program::collect(&self.reaper, &self.program, &self.arguments(&log, words), input).await;
        let told = self.take(&log);
        let done = done?;
        check(done.status, &told, &done.stderr)?;
        Ok(done)
    }

    async fn call_with(&self, words: &[OsString], streams: Streams) -> Result<()> {
        let log = self.new_log();
        let status = program::run(&self.reaper, &self.program, &self.arguments(&log, words), streams).await;
        let told = self.take(&log);
        check(status?, &told, "")
    }

    /// Takes a command's log, to the end of the container's `log.json`. A command that said nothing has made none.
    fn take(&self, log: &Path) -> String {
        let text = std::fs::read_to_string(log).unwrap_or_default();
        let _ = std::fs::remove_file(log);
        if !text.is_empty()
            && let Err(error) = spec::append(&self.bundle.join("log.json"), text.as_bytes())
        {
            log::warn!("{error}");
        }
        text
    }

    pub(super) async fn create(&self, terminal: bool, streams: Streams) -> Result<Begun> {
        let pid_file = spec::pid_file(&self.bundle);
        let mut words: Vec<OsString> = vec!["create".into(), "--bundle".into(), self.bundle.clone().into()];
        words.extend(["--pid-file".into(), pid_file.clone().into()]);
        if self.no_pivot {
            words.push("--no-pivot".into());
        }
        if self.no_new_keyring {
            words.push("--no-new-keyring".into());
        }
        self.make(words, terminal, streams, &pid_file, &[&self.id]).await
    }

    /// Runs a command that makes a process and writes its pid.
    async fn make(
        &self,
        mut words: Vec<OsString>,
        terminal: bool,
        streams: Streams,
        pid_file: &Path,
        last: &[&str],
    ) -> Result<Begun> {
        let console = if terminal { Some(ConsoleSocket::bind(&self.bundle)?) } else { None };
        if let Some(console) = &console {
            words.extend(["--console-socket".into(), console.path().into()]);
        }
        words.extend(last.iter().map(OsString::from));
        self.call_with(&words, streams).await?;
        let master: Option<OwnedFd> = console.map(ConsoleSocket::receive).transpose()?;
        Ok(Begun { process: self.identity(pid_file)?, master })
    }

    /// The process that the runtime wrote to a pid file. It is the shim's child, or a zombie of the shim's.
    fn identity(&self, pid_file: &Path) -> Result<Identity> {
        let doing = || format!("read the pid file {}", pid_file.display());
        let text = std::fs::read_to_string(pid_file).doing(doing)?;
        let pid = text.trim().parse();
        let pid = pid.map_err(|_| Error::new(Kind::System, format!("{}: {text:?} is no pid", doing())))?;
        self.reaper.early(pid).map_or_else(|| Identity::of(pid), Ok)
    }

    /// The process of an exec that failed though the process is there: the runtime was killed half-way, or its terminal
    /// didn't come. A runtime that takes it away itself may have left its pid, which can be anybody's then, but no child
    /// of the shim's.
    fn left_behind(&self, pid_file: &Path) -> Option<Identity> {
        let process = self.identity(pid_file).ok()?;
        let child = WaitId::Pid(Pid::from_raw(process.pid)?);
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        waitid(child, look).is_ok().then_some(process)
    }

    pub(super) async fn start(&self) -> Result<()> {
        self.call(&["start".into(), self.id.clone().into()], b"").await.map(drop)
    }

    pub(super) async fn exec(&self, exec: Exec) -> Result<Begun> {
        // No other file of the bundle has such a name, whatever the exec's id is.
        let process_file = self.bundle.join(format!("{}.process.json", exec.id));
        let pid_file = spec::exec_pid_file(&self.bundle, &exec.id);
        spec::write(&process_file, &with_terminal(&exec.spec, exec.terminal)?)?;
        let mut words: Vec<OsString> = vec!["exec".into(), "--process".into(), process_file.clone().into()];
        words.extend(["--detach".into(), "--pid-file".into(), pid_file.clone().into()]);
        let made = self.make(words, exec.terminal, exec.streams, &pid_file, &[&self.id]).await;
        // Nobody needs it any more; it goes with the bundle at the latest.
        let _ = std::fs::remove_file(&process_file);
        if made.is_err() {
            if let Some(left) = self.left_behind(&pid_file) {
                end(left);
            }
            let _ = std::fs::remove_file(&pid_file);
        }
        made
    }

    pub(super) async fn kill(&self, signal: i32, all: bool) -> Result<()> {
        let mut words: Vec<OsString> = vec!["kill".into()];
        if all {
            words.push("--all".into());
        }
        words.extend([self.id.clone().into(), signal.to_string().into()]);
        self.call(&words, b"").await.map(drop)
    }

    pub(super) async fn delete(&self, force: bool) -> Result<()> {
        let mut words: Vec<OsString> = vec!["delete".into()];
        if force {
            words.push("--force".into());
        }
        words.push(self.id.clone().into());
        self.call(&words, b"").await.map(drop)
    }

    pub(super) async fn pids(&self) -> Result<Vec<i32>> {
        let words = ["ps".into(), "--format".into(), "json".into(), self.id.clone().into()];
        let done = self.call(&words, b"").await?;
        serde_json::from_slice(&done.stdout).map_err(|error| {
            Error::new(Kind::System, format!("read the runtime's list of processes: {error}"))
        })
    }

    pub(super) async fn pause(&self) -> Result<()> {
        self.call(&["pause".into(), self.id.clone().into()], b"").await.map(drop)
    }

    pub(super) async fn resume(&self) -> Result<()> {
        self.call(&["resume".into(), self.id.clone().into()], b"").await.map(drop)
    }

    pub(super) async fn update(&self, resources: &[u8]) -> Result<()> {
        let words = ["update".into(), "--resources=-".into(), self.id.clone().into()];
        self.call(&words, resources).await.map(drop)
    }

    #[expect(clippy::unused_self, reason = "the library looks by the container instead")]
    pub(super) fn cgroup(&self, init: i32) -> Result<Cgroup> {
        Cgroup::of_process(init)
    }
}

/// A failure's text: the log's last error, else what was printed.
fn check(status: u32, log: &str, printed: &str) -> Result<()> {
    if status == 0 {
        return Ok(());
    }
    // runc writes a line for each record, and crun several.
    let records =
        serde_json::Deserializer::from_str(log).into_iter::<Record>().map_while(std::result::Result::ok);
    let text = match records.filter(|record| matches!(record.level.as_str(), "error" | "fatal")).last() {
        Some(record) => record.msg,
        None if !printed.trim().is_empty() => printed.trim().replace('\n', " "),
        None => format!("exit status {status}"),
    };
    let kind = if is_gone(&text) { Kind::NotFound } else { Kind::System };
    Err(Error::new(kind, text))
}

/// What runtimes say of containers and processes that are gone: containerd's shim looks for the same.
fn is_gone(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    [
        "process already finished",
        "process not found",
        "no such process",
        "container not running",
        "does not exist",
    ]
    .iter()
    .any(|sign| text.contains(sign))
}

/// The process with the terminal that the request asks for, whatever the text says.
fn with_terminal(spec: &[u8], terminal: bool) -> Result<Vec<u8>> {
    let wrong =
        |error: serde_json::Error| Error::new(Kind::Config, format!("the process of the exec: {error}"));
    let mut process: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(spec).map_err(wrong)?;
    process.insert("terminal".to_owned(), terminal.into());
    serde_json::to_vec(&process).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_decides_on_the_terminal() {
        let text = with_terminal(br#"{"args":["sh"],"terminal":false}"#, true).unwrap();
        assert_eq!(text, br#"{"args":["sh"],"terminal":true}"#);
        assert!(with_terminal(b"[]", true).is_err());
    }

    #[test]
    fn the_last_error_of_a_log_is_told_however_it_is_laid_out() {
        let runc =
            "{\"level\":\"warning\",\"msg\":\"a\"}\n{\"level\":\"error\",\"msg\":\"b\",\"time\":\"t\"}\n";
        let crun =
            "{\n  \"msg\": \"c\",\n  \"level\": \"error\"\n}{\n  \"msg\": \"d\",\n  \"level\": \"error\"\n}";
        for (log, text) in [(runc, "b"), (crun, "d"), ("", "printed"), ("panic: oops", "printed")] {
            assert!(check(1, log, "printed\n").unwrap_err().to_string().contains(text), "{log}");
        }
        check(0, runc, "").unwrap();
    }

    #[test]
    fn the_words_of_runc_and_crun_for_what_is_gone_are_known() {
        assert!(is_gone("container \"x\" does not exist"));
        assert!(is_gone("kill container: No such process"));
        assert!(!is_gone("permission denied"));
    }
}
