//! Running a command with a limit in time. Its output goes to files, never to pipes: a container that lives on with
//! the same descriptors can then neither block the harness nor be blocked by it.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use crate::place;

/// How long a command may take. It is a guard against a hang, not a measure.
pub const LIMIT: Duration = Duration::from_secs(60);

/// A command that has ended.
#[derive(Clone, Debug)]
pub struct Finished {
    /// The command line, for messages.
    pub command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to its standard output.
    pub stdout: String,
    /// What it wrote to its standard error.
    pub stderr: String,
}

impl Finished {
    /// The exit status as a shell shows it: 128 + n when killed by signal n.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| 128 + self.status.signal().unwrap_or(0))
    }

    /// Demands success.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert!(self.status.success(), "this was to succeed: {self}");
        self
    }

    /// Demands an exit status.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code(), code, "another exit status was expected of {self}");
        self
    }

    /// Demands failure by the command's own judgement, not by a signal or a panic.
    #[track_caller]
    pub fn fails(self) -> Self {
        assert!(self.status.code().is_some_and(|code| code != 0), "this was to fail: {self}");
        assert!(!self.stderr.contains("panicked at"), "this panicked: {self}");
        self
    }

    /// Demands failure with a message that contains `part`.
    #[track_caller]
    pub fn fails_with(self, part: &str) -> Self {
        let this = self.fails();
        assert!(this.stderr.contains(part), "its message was to contain {part:?}: {this}");
        this
    }

    /// Demands failure with a message that contains one of `parts`: where runtimes word one fact differently.
    #[track_caller]
    pub fn fails_with_any(self, parts: &[&str]) -> Self {
        let this = self.fails();
        assert!(
            parts.iter().any(|part| this.stderr.contains(part)),
            "its message was to have one of {parts:?}: {this}"
        );
        this
    }

    /// Standard output without blanks at its ends.
    pub fn out(&self) -> &str {
        self.stdout.trim()
    }

    /// The lines of standard output.
    pub fn lines(&self) -> Vec<&str> {
        self.stdout.lines().collect()
    }
}

impl std::fmt::Display for Finished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}", self.command)?;
        writeln!(f, "status: {}", self.code())?;
        writeln!(f, "stdout: {}", self.stdout.trim_end())?;
        write!(f, "stderr: {}", self.stderr.trim_end())
    }
}

/// A command that runs. Killed and waited for when dropped.
#[derive(Debug)]
pub struct Running {
    command: String,
    child: Child,
    stdout: File,
    stderr: File,
    ended: bool,
}

impl Running {
    /// Starts a command with its output in files that have no name.
    #[track_caller]
    pub fn start(command: Command) -> Self {
        let file = || tempfile::tempfile().expect("a temporary file");
        Self::start_into(command, file(), file())
    }

    /// Starts a command with its output in these files, which must be open for reading as well.
    #[track_caller]
    pub fn start_into(mut command: Command, stdout: File, stderr: File) -> Self {
        command.stdout(stdout.try_clone().expect("dup")).stderr(stderr.try_clone().expect("dup"));
        Self::spawn(command, stdout, stderr)
    }

    /// Starts a command with a terminal as its standard descriptors; what it writes is for the terminal's other side.
    #[track_caller]
    pub fn start_on_terminal(mut command: Command, terminal: &File) -> Self {
        let dup = || terminal.try_clone().expect("dup");
        command.stdin(dup()).stdout(dup()).stderr(dup());
        let nothing = || tempfile::tempfile().expect("a temporary file");
        Self::spawn(command, nothing(), nothing())
    }

    #[track_caller]
    fn spawn(mut command: Command, stdout: File, stderr: File) -> Self {
        let line = show(&command);
        place::hold_if_stopping();
        let child = place::with_no_signal_blocked(|| command.spawn());
        let child = child.unwrap_or_else(|error| panic!("could not start {line}: {error}"));
        Self { command: line, child, stdout, stderr, ended: false }
    }

    /// The process id.
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Sends a signal to the command itself.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid()).expect("a process id is positive");
        kill_process(pid, signal).expect("signalling a child of ours");
    }

    /// What has been written so far to standard output.
    pub fn stdout(&self) -> String {
        contents(&self.stdout)
    }

    /// What has been written so far to standard error.
    pub fn stderr(&self) -> String {
        contents(&self.stderr)
    }

    /// Waits until standard output contains `part`.
    #[track_caller]
    pub fn wait_for_output(&self, part: &str) {
        let seen = eventually(|| self.stdout().contains(part));
        assert!(
            seen,
            "{} never wrote {part:?}\nstdout: {}\nstderr: {}",
            self.command,
            self.stdout(),
            self.stderr()
        );
    }

    /// Waits for the end.
    #[track_caller]
    pub fn finish(self) -> Finished {
        self.finish_within(LIMIT)
    }

    /// Waits for the end; a command that outlasts `limit` is killed, and the test fails.
    #[track_caller]
    pub fn finish_within(mut self, limit: Duration) -> Finished {
        assert!(
            wait_for_exit(self.pid(), limit),
            "not finished after {limit:?}: {}\nstdout: {}\nstderr: {}",
            self.command,
            self.stdout(),
            self.stderr()
        );
        let status = self.child.wait().expect("waiting for a child of ours");
        self.ended = true;
        Finished { command: self.command.clone(), status, stdout: self.stdout(), stderr: self.stderr() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Runs a command to its end with nothing on its standard input.
#[track_caller]
pub fn run(mut command: Command) -> Finished {
    command.stdin(Stdio::null());
    Running::start(command).finish()
}

/// Runs a command to its end with a limit of its own, for what builds or downloads.
#[track_caller]
pub fn run_within(limit: Duration, mut command: Command) -> Finished {
    command.stdin(Stdio::null());
    Running::start(command).finish_within(limit)
}

/// Runs a command to its end with `input` on its standard input.
#[track_caller]
pub fn run_with_input(mut command: Command, input: &str) -> Finished {
    let mut file = tempfile::tempfile().expect("a temporary file");
    file.write_all(input.as_bytes()).and_then(|()| file.rewind()).expect("writing a temporary file");
    command.stdin(file);
    Running::start(command).finish()
}

/// A command with arguments.
pub fn command<S: AsRef<std::ffi::OsStr>>(program: S, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

/// A command with a shell around it, whose `script` executes it as `"$@"`: with other limits, or other descriptors.
pub fn in_shell(script: &str, inner: &Command) -> Command {
    let mut shell = command("sh", &["-c", script, "sh"]);
    shell.arg(inner.get_program()).args(inner.get_args());
    shell.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell
}

/// Asks again and again until the answer is yes; false when it never was within the general limit.
pub fn eventually(question: impl FnMut() -> bool) -> bool {
    eventually_within(Duration::from_secs(20), question)
}

/// The same with a limit of its own, for what takes an engine long.
pub fn eventually_within(limit: Duration, mut question: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    let mut pause = Duration::from_millis(5);
    loop {
        if question() {
            return true;
        }
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(pause);
        // Questions are commands, which take from the engine the time that it needs for the answer.
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

fn wait_for_exit(pid: i32, limit: Duration) -> bool {
    let pid = Pid::from_raw(pid).expect("a process id is positive");
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).expect("pidfd_open of a child of ours");
    let end = Instant::now() + limit;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return false,
            Ok(_) => return true,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("poll of a pidfd: {error}"),
        }
    }
}

/// Reads a file from its start by a descriptor of its own, so that nobody's offset moves.
fn contents(file: &File) -> String {
    use std::os::fd::AsRawFd;
    let mut bytes = Vec::new();
    let mut copy =
        File::open(format!("/proc/self/fd/{}", file.as_raw_fd())).expect("reopening an output file");
    copy.read_to_end(&mut bytes).expect("reading an output file");
    String::from_utf8_lossy(&bytes).into_owned()
}

fn show(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|word| word.to_string_lossy().into_owned()));
    words.join(" ")
}
