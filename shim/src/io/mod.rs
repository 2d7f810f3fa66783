//! The standard streams of a container's processes (`shim.md` of the documentation, "Streams").
//!
//! It owns what lies between a process and its client: pipes and their copying, FIFOs, files, loggers and terminals.
//! It promises that nothing here waits or blocks but the task that copies, that what isn't read holds up only who
//! writes it, that a client that goes away and comes back loses nothing, and that dropping a [`Stdio`] ends everything
//! that belongs to it.

mod copy;
mod fifo;
mod file;
mod logger;
mod output;
mod taker;
mod terminal;
mod uri;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use coracle::error::{Doing, Result};
use rustix::fs::{Gid, Uid};
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};

use file::{Destination, Writer};
use logger::Logger;
use output::{Common, Output, Place, Sink};
use terminal::Terminal;
use uri::Target;

use crate::sys;

/// What a client asks for.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The container's id, for loggers.
    pub id: &'a str,
    /// containerd's namespace, for loggers.
    pub namespace: &'a str,
    /// Where standard input comes from; empty for nowhere.
    pub stdin: &'a str,
    /// Where standard output goes to; empty for nowhere.
    pub stdout: &'a str,
    /// Where standard error goes to; empty for nowhere. Not used with a terminal, which has one output.
    pub stderr: &'a str,
    /// The process gets a terminal, which is handed over by [`Stdio::attach_terminal`].
    pub terminal: bool,
    /// The user and group who are to own the pipes (`io_uid`, `io_gid` of the options).
    pub owner: Option<(u32, u32)>,
}

/// What the process is to have as its descriptors 0, 1 and 2; `/dev/null` where there is none. To be closed as soon as
/// the process has them: an output ends when nobody holds it any more.
#[derive(Debug, Default)]
pub struct Ends {
    /// Standard input.
    pub stdin: Option<OwnedFd>,
    /// Standard output.
    pub stdout: Option<OwnedFd>,
    /// Standard error.
    pub stderr: Option<OwnedFd>,
}

/// The streams of one process.
pub struct Stdio {
    common: Arc<Common>,
    outputs: Vec<Output>,
    input: Option<Input>,
    loggers: Vec<Logger>,
    files: Vec<Writer>,
    terminal: Option<Terminal>,
}

/// Standard input that is being copied.
struct Input {
    name: String,
    /// Keeps the input from ending, until the client says that it has.
    holder: Option<OwnedFd>,
    moved: Arc<AtomicU64>,
    task: Option<AbortHandle>,
}

impl Drop for Input {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Stdio {
    /// Opens all that is asked for, starts loggers, and begins to copy. Waits for nothing but a logger that has to say
    /// that it is ready. To be called within a Tokio runtime.
    pub async fn open(request: Request<'_>) -> Result<(Self, Ends)> {
        let input = uri::parse_input(request.stdin)?;
        let stdout = uri::parse_output("stdout", request.stdout)?;
        let stderr =
            if request.terminal { Target::Null } else { uri::parse_output("stderr", request.stderr)? };
        let common = Common {
            running: watch::Sender::new(0),
            deleting: watch::Sender::new(false),
            hangup: watch::Sender::new(false),
        };
        let mut stdio = Self {
            common: Arc::new(common),
            outputs: Vec::new(),
            input: None,
            loggers: Vec::new(),
            files: Vec::new(),
            terminal: None,
        };
        let mut ends = Ends::default();
        if request.terminal {
            stdio.open_terminal(&request, input, stdout).await?;
        } else {
            stdio.open_pipes(&request, input, [stdout, stderr], &mut ends).await?;
        }
        Ok((stdio, ends))
    }

    async fn open_terminal(&mut self, request: &Request<'_>, input: Target, stdout: Target) -> Result<()> {
        let name = format!("terminal, to {}", request.stdout);
        let sink = match stdout {
            Target::Null => Sink::Nothing,
            Target::Path(path) => match Place::open(&path)? {
                Place::Sink(sink) => sink,
                Place::File(file) => self.open_file_of_terminal(Destination::Open(path, file)).await?,
            },
            Target::File(path) => self.open_file_of_terminal(Destination::Path(path)).await?,
            Target::Binary(program) => {
                let (logger, inputs) = Logger::start(&program, request.id, request.namespace).await?;
                own(&inputs.stdout, request.owner)?;
                self.loggers.push(logger);
                Sink::Waitable(waitable(inputs.stdout, Interest::WRITABLE)?)
            }
        };
        let mut reader = None;
        if let Target::Path(path) = input {
            let (input, holder) = fifo::open_input(&path)?;
            reader = Some(input);
            let name = format!("stdin, from {}", path.display());
            self.input = Some(Input { name, holder: Some(holder), moved: Arc::default(), task: None });
        }
        self.terminal = Some(Terminal::new(name, sink, reader));
        Ok(())
    }

    /// What a terminal shows is copied to a file's writer, since the shim holds the terminal.
    async fn open_file_of_terminal(&mut self, destination: Destination) -> Result<Sink> {
        let (reader, end) = pipe(None)?;
        self.files.push(Writer::start(destination, vec![reader]).await?);
        Ok(Sink::Waitable(waitable(end, Interest::WRITABLE)?))
    }

    async fn open_pipes(
        &mut self,
        request: &Request<'_>,
        input: Target,
        outputs: [Target; 2],
        ends: &mut Ends,
    ) -> Result<()> {
        if let Target::Path(path) = input {
            let (reader, holder) = fifo::open_input(&path)?;
            let (end, writer) = pipe(request.owner)?;
            let writer = waitable(writer, Interest::WRITABLE)?;
            let moved: Arc<AtomicU64> = Arc::default();
            let counter = moved.clone();
            let task = tokio::spawn(async move {
                copy::between_pipes(&reader, &writer, &counter).await;
            });
            let (name, task) = (format!("stdin, from {}", path.display()), Some(task.abort_handle()));
            self.input = Some(Input { name, holder: Some(holder), moved, task });
            ends.stdin = Some(end);
        }
        let [stdout, stderr] = outputs;
        if stdout == stderr {
            [ends.stdout, ends.stderr] = self.open_output(["stdout", "stderr"], stdout, request).await?;
        } else {
            [ends.stdout] = self.open_output(["stdout"], stdout, request).await?;
            [ends.stderr] = self.open_output(["stderr"], stderr, request).await?;
        }
        Ok(())
    }

    /// Opens the place where the outputs of these names go to; gives the ends for the process.
    async fn open_output<const N: usize>(
        &mut self,
        names: [&str; N],
        target: Target,
        request: &Request<'_>,
    ) -> Result<[Option<OwnedFd>; N]> {
        let mut ends = [const { None }; N];
        match target {
            Target::Null => {}
            Target::Binary(program) => {
                let (logger, inputs) = Logger::start(&program, request.id, request.namespace).await?;
                self.loggers.push(logger);
                let [mut stdout, mut stderr] = [inputs.stdout, inputs.stderr].map(Some);
                for (name, end) in names.iter().zip(&mut ends) {
                    *end = if *name == "stdout" { stdout.take() } else { stderr.take() };
                    end.iter().try_for_each(|end| own(end, request.owner))?;
                }
            }
            Target::File(path) => self.open_file(Destination::Path(path), &mut ends, request).await?,
            Target::Path(path) => match Place::open(&path)? {
                Place::File(file) => {
                    self.open_file(Destination::Open(path, file), &mut ends, request).await?;
                }
                Place::Sink(first) => {
                    let mut first = Some(first);
                    for (name, end) in names.iter().zip(&mut ends) {
                        // Each output has the place for itself.
                        let sink = match first.take() {
                            Some(sink) => sink,
                            None => Sink::at(&path)?,
                        };
                        *end =
                            Some(self.copy_pipe(format!("{name}, to {}", path.display()), sink, request)?);
                    }
                }
            },
        }
        Ok(ends)
    }

    /// Starts the writer of a file for these ends.
    async fn open_file(
        &mut self,
        destination: Destination,
        ends: &mut [Option<OwnedFd>],
        request: &Request<'_>,
    ) -> Result<()> {
        let mut readers = Vec::with_capacity(ends.len());
        for end in ends {
            let (reader, writer) = pipe(request.owner)?;
            readers.push(reader);
            *end = Some(writer);
        }
        self.files.push(Writer::start(destination, readers).await?);
        Ok(())
    }

    /// Makes a pipe whose one end is copied into the sink; gives the other one.
    fn copy_pipe(&mut self, name: String, sink: Sink, request: &Request<'_>) -> Result<OwnedFd> {
        let (reader, end) = pipe(request.owner)?;
        let reader = waitable(reader, Interest::READABLE)?;
        self.outputs.push(Output::of_pipe(name, reader, sink, &self.common));
        Ok(end)
    }

    /// Takes the process's terminal over, and begins to copy.
    pub fn attach_terminal(&mut self, master: OwnedFd) -> Result<()> {
        let Some(terminal) = &mut self.terminal else { return Ok(()) };
        let (output, input) = terminal.attach(master, &self.common)?;
        self.outputs.extend(output);
        if let (Some(input), Some(wanted)) = (input, &mut self.input) {
            wanted.task = Some(input.start(wanted.moved.clone(), &self.common));
        }
        Ok(())
    }

    /// Sets the terminal's size, in characters. Without a terminal there is nothing to do; before it is attached, the
    /// size is kept for it.
    pub fn resize(&mut self, width: u16, height: u16) -> Result<()> {
        match &mut self.terminal {
            Some(terminal) => terminal.resize(width, height),
            None => Ok(()),
        }
    }

    /// The client has no more input: when the other writers of the FIFO have gone too, the process reads the end.
    pub fn close_stdin(&mut self) {
        if let Some(input) = &mut self.input {
            input.holder = None;
        }
    }

    /// The process has ended. Its terminal's output ends when nobody else holds the terminal; until then it may be
    /// closed and opened anew.
    pub fn process_ended(&mut self) {
        if let Some(terminal) = &mut self.terminal {
            terminal.process_ended();
        }
    }

    /// Waits until all output is copied, but not longer than `limit`; then ends the loggers, which takes up to 14 s
    /// with one that doesn't listen. Says whether all output came to its end. To be called before a task is deleted.
    pub async fn drained(&mut self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        self.process_ended();
        self.common.deleting.send_replace(true);
        let mut running = self.common.running.subscribe();
        let mut ended = timeout_at(deadline, running.wait_for(|count| *count == 0)).await.is_ok();
        for logger in &mut self.loggers {
            ended &= timeout_at(deadline, logger.output_ended()).await.is_ok();
            logger.end().await;
        }
        for file in &mut self.files {
            ended &= timeout_at(deadline, file.output_ended()).await.is_ok();
            file.end(deadline).await;
        }
        ended
    }

    /// Lines that tell a person what is open and how far it is.
    pub fn describe(&self) -> Vec<String> {
        let input = self.input.iter().map(|input| {
            let holder = if input.holder.is_some() { "open" } else { "closed by the client" };
            format!("{}: {} bytes, {holder}", input.name, input.moved.load(Ordering::Relaxed))
        });
        let outputs = self.outputs.iter().map(Output::describe);
        let loggers = self.loggers.iter().map(Logger::describe);
        let files = self.files.iter().map(Writer::describe);
        input.chain(outputs).chain(loggers).chain(files).collect()
    }
}

/// A pipe: the end to read from, and the end to write to.
fn pipe(owner: Option<(u32, u32)>) -> Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).doing(|| "make a pipe")?;
    own(&reader, owner)?;
    Ok((reader, writer))
}

/// Gives a pipe to a user, who may then open it anew through `/proc/self/fd`.
fn own(pipe: &OwnedFd, owner: Option<(u32, u32)>) -> Result<()> {
    let Some((user, group)) = owner else { return Ok(()) };
    rustix::fs::fchown(pipe, Some(Uid::from_raw(user)), Some(Gid::from_raw(group)))
        .doing(|| format!("give a pipe to user {user} and group {group}"))
}

/// Our end of a pipe.
fn waitable(end: OwnedFd, interest: Interest) -> Result<AsyncFd<OwnedFd>> {
    rustix::io::ioctl_fionbio(&end, true).doing(|| "prepare a pipe")?;
    sys::watch(end, interest).doing(|| "wait for a pipe")
}
