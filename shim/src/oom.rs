//! OOM kills of a container, told when they happen, and before the end that they cause.

use std::cell::{Cell, RefCell};
use std::os::fd::OwnedFd;
use std::rc::Rc;

use coracle::cgroup::{Cgroup, OomWatch};
use coracle::error::{Doing, Result};
use rustix::event::PollFlags;
use tokio::io::Interest;
use tokio::task::AbortHandle;

use crate::proto::events::TaskOOM;
use crate::service::Shim;

/// Who looks after one container.
pub struct Watcher {
    watch: RefCell<OomWatch>,
    task: Cell<Option<AbortHandle>>,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

/// Begins to look after the container `id`. Nothing where it has no memory cgroup.
pub fn watch(shim: &Rc<Shim>, id: &str, cgroup: &Cgroup) -> Result<Option<Rc<Watcher>>> {
    let Some(watch) = cgroup.watch_oom()? else { return Ok(None) };
    let (descriptor, flags) = watch.descriptor();
    let interest = if flags.contains(PollFlags::PRI) { Interest::PRIORITY } else { Interest::READABLE };
    let doing = || "wait for OOM kills";
    // A duplicate: the event loop owns what it waits for.
    let descriptor: OwnedFd = descriptor.try_clone_to_owned().doing(doing)?;
    let descriptor = crate::sys::watch(descriptor, interest).doing(doing)?;
    let watcher = Rc::new(Watcher { watch: RefCell::new(watch), task: Cell::new(None) });
    let (shim, id, weak) = (shim.clone(), id.to_owned(), Rc::downgrade(&watcher));
    let task = tokio::task::spawn_local(async move {
        while let Ok(mut ready) = descriptor.ready(interest).await {
            ready.clear_ready();
            let Some(watcher) = weak.upgrade() else { return };
            watcher.look(&shim, &id);
        }
    });
    watcher.task.set(Some(task.abort_handle()));
    Ok(Some(watcher))
}

impl Watcher {
    /// Tells of kills that weren't told yet.
    pub fn look(&self, shim: &Shim, id: &str) {
        match self.watch.borrow_mut().take() {
            Ok(false) => {}
            Ok(true) => {
                shim.publish("/tasks/oom", &TaskOOM { container_id: id.to_owned(), ..TaskOOM::default() });
            }
            Err(error) => log::warn!("container {id}: look for OOM kills: {error}"),
        }
    }
}
