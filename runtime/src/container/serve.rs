//! Answering the container's side while it is at work.

use std::os::fd::{AsFd, OwnedFd};

use oci_spec::runtime::Hooks;

use super::process::ended;
use super::sources::Sources;
use super::state::{Phase, State};
use super::store::{Home, STATE_FILE};
use super::terminal::copy_size;
use crate::error::{Doing, Result};
use crate::hooks::{self, Side};
use crate::init::channel::{Channel, Frame};
use crate::init::host_mounts::HostMount;
use crate::interrupt::{self, Interrupt};

/// What the container's side tells while it is at work, and where that is kept.
pub struct Told<'made> {
    /// The container's directory.
    pub home: &'made Home,
    /// Its state.
    pub state: &'made mut State,
    /// Whether hooks may have run.
    pub hooks_begun: &'made mut bool,
}

impl Told<'_> {
    /// Remembers a mount in the host's tree, also for a `delete` after this process was killed.
    fn host_mount(&mut self, mount: HostMount) -> Result<()> {
        self.state.host_mounts.push(mount);
        let unfinished = State { phase: Phase::Creating, ..self.state.clone() };
        self.home.write(STATE_FILE, &unfinished.to_json()?)
    }
}

/// Answers the container's side until it is ready. Gives the terminal's master, where that comes to us.
pub fn serve(
    channel: &Channel,
    told: &mut Told<'_>,
    given: Option<&Hooks>,
    pidfd: &OwnedFd,
    mut sources: Sources<'_>,
    interrupt: &Interrupt,
) -> Result<Option<OwnedFd>> {
    let mut master = None;
    loop {
        interrupt::wait(channel.as_fd(), Some(interrupt), None)
            .map_err(|error| error.while_doing("wait for the container's first process"))?;
        match channel.receive()? {
            Some(Frame::RuntimeHooks) => {
                *told.hooks_begun = true;
                let hook_state = told.state.for_hooks("creating");
                let prestart = given.and_then(|hooks| hooks.prestart().as_deref()).unwrap_or_default();
                hooks::run(prestart, "prestart", &hook_state, Side::Runtime(Some(interrupt)))?;
                let create = given.and_then(|hooks| hooks.create_runtime().as_deref()).unwrap_or_default();
                hooks::run(create, "createRuntime", &hook_state, Side::Runtime(Some(interrupt)))?;
                channel.send(&Frame::Go).doing(|| "let the container's first process go on")?;
            }
            Some(Frame::Sources(count)) => sources.serve(count)?,
            Some(Frame::MapIds(mount)) => sources.map_ids(&mount)?,
            Some(Frame::HostMount(mount)) => {
                told.host_mount(mount)?;
                channel.send(&Frame::Go).doing(|| "let the container's first process go on")?;
            }
            Some(Frame::Times(lines)) => lines.lines().for_each(|line| log::debug!("{line}")),
            Some(Frame::Console(fd)) => {
                // Before the program looks.
                copy_size(fd.as_fd());
                master = Some(fd);
            }
            Some(Frame::Ready) => {
                *told.hooks_begun = true;
                return Ok(master);
            }
            Some(Frame::Failed(error)) => {
                *told.hooks_begun = true;
                return Err(error);
            }
            Some(_) => {}
            None => return Err(ended(pidfd, "before the container was made")),
        }
    }
}
