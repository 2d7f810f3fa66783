//! `create` and `run`.

use std::os::fd::OwnedFd;

use super::foreground::{self, Signals};
use super::identity::Identity;
use super::launch::{Launched, Wish, launch, read};
use super::learn::{Lesson, Output};
use super::listener::{await_execution, unasked};
use super::options::{CreateOptions, RunOptions, Settings};
use super::process::{self, ended};
use super::store::{Store, remove_pid_file};
use super::{delete, notify, start};
use crate::error::{Error, Kind, Result};
use crate::init::channel::Frame;
use crate::interrupt::Interrupt;

/// Makes a container that waits for [`super::start`].
pub fn create(store: &Store, settings: &Settings, id: &str, options: &CreateOptions) -> Result<()> {
    let bundle = read(id, options)?;
    // A signal in the middle would leave half a container behind.
    let signals = Signals::hold()?;
    let launched = launch(store, settings, id, &bundle, options, Wish::Create, &Interrupt::watch()?)?;
    go(launched).map(drop)?;
    signals.release()
}

/// A process that a caller of the library asked for.
#[derive(Debug)]
pub struct Begun {
    /// Which it is.
    pub process: Identity,
    /// The master of its terminal, if it has one.
    pub master: Option<OwnedFd>,
}

/// As [`create`], for a caller of the library, who serves the terminal itself. The container's first process is the
/// caller's child.
pub fn create_here(store: &Store, settings: &Settings, id: &str, options: &CreateOptions) -> Result<Begun> {
    let bundle = read(id, options)?;
    let signals = Signals::hold()?;
    let interrupt = Interrupt::watch()?;
    let launched = go(launch(store, settings, id, &bundle, options, Wish::CreateHere, &interrupt)?)?;
    signals.release()?;
    match launched.state.init {
        Some(process) => Ok(Begun { process, master: launched.master }),
        None => Err(Error::new(Kind::System, "the container has no process")),
    }
}

/// Makes a container, starts it, and, unless it is detached, waits for its end. Gives the exit status; signals stay held
/// then, since one that comes after the end must not replace it.
pub fn run(store: &Store, settings: &Settings, id: &str, options: &RunOptions) -> Result<i32> {
    let wish = match (&options.learn, options.detach) {
        (None, true) => Wish::Detach,
        (None, false) => Wish::Foreground,
        (Some(_), false) => Wish::Learn,
        (Some(_), true) => {
            return Err(Error::new(
                Kind::Config,
                "a seccomp profile cannot be learnt from a detached container: it is written at the container's end",
            )
            .hint("leave out --detach or --seccomp-learn"));
        }
    };
    let bundle = read(id, &options.create)?;
    let signals = Signals::hold()?;
    let output = options.learn.as_deref().map(Output::open).transpose()?;
    if wish.waits() && !options.no_subreaper {
        process::adopt_orphans()?;
    }
    let interrupt = Interrupt::watch()?;
    let launched = launch(store, settings, id, &bundle, &options.create, wish, &interrupt)?;
    // A service manager that has gone is no reason not to run, as with runc.
    let notify = launched.state.notify_socket.as_deref().and_then(|manager| {
        notify::Proxy::open(&launched.home, &launched.state, manager)
            .inspect_err(|error| log::warn!("{error}"))
            .ok()
    });
    let mut lesson = None;
    let launched = execute(go(launched)?, &interrupt, |launched, listener| {
        if wish == Wish::Learn {
            lesson = Some(Lesson::begin(listener)?);
            return Ok(());
        }
        let agent = launched.state.seccomp_agent.as_ref().ok_or_else(unasked)?;
        agent.take(&listener, launched.pid, &launched.state.for_hooks("created"))
    })
    .inspect_err(|_| {
        options.create.pid_file.as_deref().map(remove_pid_file);
    })?;
    let (mut launched, ()) =
        or_destroy(launched, |launched| start::run_poststart(&launched.state, Some(&interrupt)))?;
    if wish == Wish::Detach {
        if let Some(notify) = notify {
            or_destroy(launched, |launched| notify.wait_until_ready(&launched.pidfd, Some(&interrupt)))?;
        }
        signals.release()?;
        return Ok(0);
    }
    let master = launched.master.take();
    let (launched, status) = or_destroy(launched, |launched| {
        foreground::wait(&signals, launched.pid, &launched.pidfd, master, notify)
    })?;
    let removed = if options.keep { Ok(()) } else { delete::remove(&launched.home, &launched.state) };
    if let (Some(output), Some(lesson)) = (output, lesson) {
        lesson
            .end()
            .and_then(|profile| output.write(&profile))
            .map_err(|error| error.hint(format!("the container itself has ended, with status {status}")))?;
    }
    removed?;
    Ok(status)
}

/// Does something with a container that stands; a failure takes the container away.
fn or_destroy<T>(launched: Launched, act: impl FnOnce(&Launched) -> Result<T>) -> Result<(Launched, T)> {
    match act(&launched) {
        Ok(value) => Ok((launched, value)),
        Err(error) => {
            launched.destroy();
            Err(error)
        }
    }
}

/// Lets a container's first process go on.
fn go(launched: Launched) -> Result<Launched> {
    match launched.channel.send(&Frame::Go) {
        Ok(()) => Ok(launched),
        Err(_) => {
            let error = ended(&launched.pidfd, "before it was started");
            launched.destroy();
            Err(error)
        }
    }
}

/// Waits until the program is executed: then the kernel closes the process's end of the channel.
fn execute(
    launched: Launched,
    interrupt: &Interrupt,
    mut hand_over: impl FnMut(&Launched, OwnedFd) -> Result<()>,
) -> Result<Launched> {
    let executed =
        await_execution(&launched.channel, Some(interrupt), |listener| hand_over(&launched, listener));
    match executed {
        Ok(()) => Ok(launched),
        Err(error) => {
            launched.destroy();
            Err(error)
        }
    }
}
