//! The invocation `delete`: takes away what a shim that is gone has left of a container, and tells how it ended.
//!
//! containerd runs it after the shim was killed, and (up to 1.7) after each end of a shim. It can be repeated, and finds
//! each part done already.

use std::path::Path;
use std::rc::Rc;
use std::time::SystemTime;

use coracle::error::{Error, Kind, Result};
use protobuf::Message;

use crate::invocation::Invocation;
use crate::options::Options;
use crate::proto::task::DeleteResponse;
use crate::reaper::{Exit, Reaper};
use crate::runtime::{Of, Runtime};
use crate::service::load_last_words;
use crate::service::process::exited_at;
use crate::{daemon, info, logger, rootfs, socket, spec};

/// The exit status of a container whose end nobody saw: that of SIGKILL.
const UNSEEN: u32 = 128 + 9;

/// Takes the container away, and prints how it ended.
pub fn delete(invocation: &Invocation) -> Result<()> {
    let level = if invocation.debug { log::LevelFilter::Debug } else { log::LevelFilter::Error };
    logger::to_stderr(level);
    let bundle = invocation.bundle()?;
    let seen = load_last_words(&bundle);
    let cleaned = daemon::with_reaper(async |reaper| {
        clean(&reaper, invocation, &bundle).await;
        Ok(())
    });
    if let Err(error) = cleaned {
        log::error!("clean up after container {}: {error}", invocation.id);
    }
    if let Ok(address) = std::fs::read_to_string(bundle.join("address")) {
        socket::remove_dead(socket::path_of(&address));
    }
    let exit = seen.unwrap_or(Exit { status: UNSEEN, at: SystemTime::now() });
    let response = DeleteResponse {
        pid: spec::load_pid(&bundle),
        exit_status: exit.status,
        exited_at: exited_at(Some(exit)),
        ..DeleteResponse::default()
    };
    let bytes = response
        .write_to_bytes()
        .map_err(|error| Error::new(Kind::System, format!("write the answer: {error}")))?;
    info::print(&bytes)
}

/// Takes away what can be. Whatever the runtime fails with, the rest is done, and the exit status told: containerd takes
/// the container for gone either way.
async fn clean(reaper: &Rc<Reaper>, invocation: &Invocation, bundle: &Path) {
    let options = Options::load(bundle);
    let of = Of { namespace: &invocation.namespace, id: &invocation.id, bundle, shares_pids: false };
    let runtime = Runtime::new(of, &options, reaper.clone());
    if let Err(error) = runtime.delete(true).await
        && error.kind() != Kind::NotFound
    {
        log::error!("take container {} away: {error}", invocation.id);
    }
    rootfs::unmount_all(reaper, &bundle.join("rootfs")).await;
}
