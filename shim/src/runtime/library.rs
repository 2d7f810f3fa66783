//! Coracle as a library: calls in this process, or in a fork of it where they block.
//!
//! Signals, lists of processes, statistics and most limits are direct calls: they read and write a few files and don't
//! wait. Making and starting processes, hooks, freezing (which waits until all processes are frozen), limits of memory
//! (which wait until it is taken back), deleting, and anything that waits for systemd, is a worker's.

use std::path::PathBuf;
use std::rc::Rc;

use coracle::cgroup::{Cgroup, ManagerChoice};
use coracle::container::{self, Begun, CreateOptions, ExecOptions, ExecProcess, Settings, Store, Update};
use coracle::error::{Kind, Result};

use super::{Exec, Made, Of, end};
use crate::options::Options;
use crate::reaper::Reaper;
use crate::worker::{self, Output, SoFar, Streams};

/// A container of the library's.
pub struct Library {
    store: Store,
    settings: Settings,
    id: String,
    bundle: PathBuf,
    no_pivot: bool,
    no_new_keyring: bool,
    shares_pids: bool,
    reaper: Rc<Reaper>,
}

impl Library {
    /// The container `id`, which need not be there yet.
    pub fn new(of: Of<'_>, options: &Options, reaper: Rc<Reaper>) -> Self {
        let manager = if options.systemd_cgroup { ManagerChoice::Systemd } else { ManagerChoice::Cgroupfs };
        Self {
            store: Store::new(&options.root.join(of.namespace)),
            // The times of steps, which `debug` tells, would go to the container's standard error.
            settings: Settings { manager, rootless: None, debug: false, criu: None },
            id: of.id.to_owned(),
            bundle: of.bundle.to_owned(),
            no_pivot: options.no_pivot_root,
            no_new_keyring: options.no_new_keyring,
            shares_pids: of.shares_pids,
            reaper,
        }
    }

    async fn work(&self, job: impl FnOnce() -> Result<()>) -> Result<()> {
        worker::run(&self.reaper, Streams::default(), || job().map(|()| ((), None))).await.map(|((), _)| ())
    }

    pub(super) async fn create(&self, _terminal: bool, streams: Streams) -> Result<Begun> {
        let options = CreateOptions {
            bundle: self.bundle.clone(),
            config: "config.json".to_owned(),
            console_socket: None,
            pidfd_socket: None,
            pid_file: None,
            no_pivot: self.no_pivot,
            no_new_keyring: self.no_new_keyring,
            preserve_fds: 0,
        };
        let job =
            |_: &SoFar<'_>| container::create_here(&self.store, &self.settings, &self.id, &options).map(made);
        let clean_up = async |_| match self.delete(true).await {
            Err(error) if error.kind() != Kind::NotFound => {
                log::warn!("container {}: take it away again: {error}", self.id);
            }
            _ => {}
        };
        let (made, master) = worker::run_or_clean_up(&self.reaper, streams, job, clean_up).await?;
        Ok(made.begun(master))
    }

    pub(super) async fn start(&self) -> Result<()> {
        self.work(|| container::start(&self.store, &self.id)).await
    }

    pub(super) async fn exec(&self, exec: Exec) -> Result<Begun> {
        let options = ExecOptions {
            console_socket: None,
            pidfd_socket: None,
            pid_file: None,
            detach: true,
            preserve_fds: 0,
            cgroup: Vec::new(),
            ignore_paused: false,
            process: ExecProcess::Text { text: exec.spec.to_vec(), tty: exec.terminal },
        };
        let job = |so_far: &SoFar<'_>| {
            let announce = |process| so_far.is(&Made::from(process));
            container::exec_here(&self.store, &self.settings, &self.id, &options, &announce).map(made)
        };
        let clean_up = async |begun: Option<Made>| {
            if let Some(begun) = begun {
                end(begun.identity());
            }
        };
        let (made, master) = worker::run_or_clean_up(&self.reaper, exec.streams, job, clean_up)
            .await
            .map_err(|error| error.of_document("process", "the request"))?;
        Ok(made.begun(master))
    }

    pub(super) async fn kill(&self, signal: i32, all: bool) -> Result<()> {
        let kill = || container::kill(&self.store, &self.id, signal, all);
        // Who forks faster than it is signalled must be frozen first, and that may take long.
        if all || (self.shares_pids && signal == libc::SIGKILL) { self.work(kill).await } else { kill() }
    }

    pub(super) async fn delete(&self, force: bool) -> Result<()> {
        self.work(|| container::delete(&self.store, &self.id, force)).await
    }

    #[expect(clippy::unused_async, reason = "the other runtime waits here")]
    pub(super) async fn pids(&self) -> Result<Vec<i32>> {
        container::pids(&self.store, &self.id)
    }

    pub(super) async fn pause(&self) -> Result<()> {
        self.work(|| container::pause(&self.store, &self.id)).await
    }

    pub(super) async fn resume(&self) -> Result<()> {
        self.work(|| container::resume(&self.store, &self.id)).await
    }

    pub(super) async fn update(&self, resources: &[u8]) -> Result<()> {
        let update = Update {
            resources: container::resources_from_json(resources)?,
            l3_cache_schema: None,
            mem_bw_schema: None,
        };
        let change = || container::update(&self.store, &self.id, &update);
        // A lower limit of memory is a write that lasts until the memory is taken back.
        let resources = &update.resources;
        let has_memory = resources.memory().is_some() || resources.unified().is_some();
        let changed = match self.settings.manager {
            ManagerChoice::Cgroupfs if !has_memory => change(),
            _ => self.work(change).await,
        };
        changed.map_err(|error| error.of_document("linux.resources", "the request"))
    }

    pub(super) fn cgroup(&self, _init: i32) -> Result<Cgroup> {
        container::cgroup(&self.store, &self.id)
    }
}

fn made(begun: Begun) -> Output<Made> {
    (begun.process.into(), begun.master)
}
