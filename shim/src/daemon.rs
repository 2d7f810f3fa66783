//! The daemon: one thread, one event loop.
//!
//! It owns what wakes the loop: signals, by a descriptor, and requests. SIGCHLD has exit statuses taken, SIGTERM and
//! SIGINT end the shim in order (containers run on; containerd finds them dead to it and cleans up), SIGUSR1 writes what
//! the shim is doing to its log.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use coracle::error::{Doing, Error, Kind, Result};
use coracle::init::channel::{Channel, Frame};
use log::LevelFilter;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Builder;
use tokio::task::LocalSet;

use crate::guests::Guests;
use crate::invocation::Invocation;
use crate::publish::Publisher;
use crate::reaper::Reaper;
use crate::service::Shim;
use crate::{citizen, logger, rpc, socket, sys};

/// The variable with containerd's address for events.
pub const EVENTS: &str = "TTRPC_ADDRESS";

/// How long the shim tries to get rid of its last events.
const FAREWELL: Duration = Duration::from_secs(2);

/// Serves until containerd has no more use for the shim.
pub fn run(invocation: &Invocation) -> Result<()> {
    // First of all: the numbers must still be these sockets'.
    let (listener, starter) =
        sys::take_inherited().doing(|| "take over the socket to listen on").map_err(|error| {
            error.hint("containerd starts the shim by the command `start`, which hands its sockets over")
        })?;
    let starter = Channel::from_socket(starter);
    let done = serve(invocation, listener, &starter);
    if let Err(error) = &done {
        log::error!("{error}");
        // `start` is not there any more, unless this is an early failure.
        let _ = starter.send(&Frame::Failed(error.clone()));
    }
    done
}

fn serve(invocation: &Invocation, listener: OwnedFd, starter: &Channel) -> Result<()> {
    let bundle = invocation.bundle()?;
    let level = if invocation.debug { LevelFilter::Debug } else { LevelFilter::Info };
    logger::to_fifo(&bundle.join("log"), level);
    logger::log_panics();
    if !coracle::seal::is_protected()? {
        return Err(Error::new(Kind::System, "the shim's image could be written by a container")
            .hint("the shim is to be started by its command `start`, which protects it"));
    }
    citizen::settle()?;
    let path = own_path(&listener);
    let events = std::env::var(EVENTS).unwrap_or_default();
    let namespace = invocation.namespace.clone();
    with_reaper_and_signals(async move |reaper, mut signals| {
        let guests = Arc::new(Guests::default());
        let shim = Shim::new(namespace.clone(), reaper, Publisher::new(&events, &namespace));
        let (mut server, calls) = rpc::server(listener, &guests)?;
        server
            .start()
            .await
            .map_err(|error| Error::new(Kind::System, format!("start the server: {error}")))?;
        tokio::task::spawn_local(rpc::serve(shim.clone(), calls));
        starter.send(&Frame::Ready).doing(|| "tell `start` that the shim is ready")?;
        sys::trim_memory();
        let mut unwanted = std::pin::pin!(guests.stay_away(|| shim.has_work()));
        let asked = loop {
            tokio::select! {
                () = shim.shutdown.notified() => break true,
                () = &mut unwanted => {
                    log::info!("nobody has use for this shim: it ends");
                    break false;
                }
                signal = signals.next() => match signal? {
                    Signal::SIGUSR1 => shim.describe().iter().for_each(|line| log::info!("{line}")),
                    Signal::SIGTERM | Signal::SIGINT => {
                        log::info!("ended by a signal");
                        break false;
                    }
                    _ => {}
                },
            }
        };
        shim.close();
        // Nobody is to find the socket any more who would get no answer.
        if let Some(path) = &path {
            socket::remove(path);
        }
        if !shim.publisher().flush(FAREWELL).await {
            log::warn!("the shim ends with events that containerd did not take");
        }
        if asked {
            // Who asked is still to read the answer, and hangs up then.
            guests.leave(FAREWELL).await;
        }
        server.shutdown().await.map_err(|error| Error::new(Kind::System, format!("end the server: {error}")))
    })
}

fn own_path(listener: &std::os::fd::OwnedFd) -> Option<std::path::PathBuf> {
    let address = rustix::net::getsockname(listener).ok()?;
    let address = rustix::net::SocketAddrUnix::try_from(address).ok()?;
    Some(Path::new(address.path()?.to_str().ok()?).to_owned())
}

/// The signals that the loop takes.
struct Signals {
    queue: SignalFd,
    /// A duplicate, for the event loop to own.
    watched: AsyncFd<OwnedFd>,
    reaper: Rc<Reaper>,
}

impl Signals {
    fn new(reaper: Rc<Reaper>) -> Result<Self> {
        let doing = || "make the signal descriptor";
        let mut wanted = SigSet::empty();
        for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGUSR1] {
            wanted.add(signal);
        }
        wanted.thread_block().map_err(io::Error::from).doing(doing)?;
        // A peer that is gone is an error of the write, not the end of the shim.
        sys::ignore_broken_pipes().doing(doing)?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let queue = SignalFd::with_flags(&wanted, flags).map_err(io::Error::from).doing(doing)?;
        let watched = queue.as_fd().try_clone_to_owned().doing(doing)?;
        let watched = sys::watch(watched, Interest::READABLE).doing(doing)?;
        Ok(Self { queue, watched, reaper })
    }

    /// The next signal; the statuses of children are taken before SIGCHLD is given.
    async fn next(&mut self) -> Result<Signal> {
        loop {
            let mut ready = self.watched.readable().await.doing(|| "wait for signals")?;
            match self.queue.read_signal().map_err(io::Error::from).doing(|| "read a signal")? {
                None => ready.clear_ready(),
                Some(info) => match Signal::try_from(info.ssi_signo as i32) {
                    Ok(Signal::SIGCHLD) => {
                        self.reaper.sweep();
                        return Ok(Signal::SIGCHLD);
                    }
                    Ok(signal) => return Ok(signal),
                    Err(_) => {}
                },
            }
        }
    }
}

fn with_reaper_and_signals<T>(body: impl AsyncFnOnce(Rc<Reaper>, Signals) -> Result<T>) -> Result<T> {
    let runtime =
        Builder::new_current_thread().enable_io().enable_time().build().doing(|| "make the event loop")?;
    LocalSet::new().block_on(&runtime, async {
        let reaper = Rc::new(Reaper::default());
        let signals = Signals::new(reaper.clone())?;
        body(reaper, signals).await
    })
}

/// Does something that has workers, outside the daemon.
pub fn with_reaper<T>(body: impl AsyncFnOnce(Rc<Reaper>) -> Result<T>) -> Result<T> {
    with_reaper_and_signals(async |reaper, mut signals| {
        let body = body(reaper);
        let mut body = std::pin::pin!(body);
        loop {
            tokio::select! {
                result = &mut body => return result,
                signal = signals.next() => match signal? {
                    Signal::SIGTERM | Signal::SIGINT => return Err(Error::new(Kind::System, "ended by a signal")),
                    _ => {}
                },
            }
        }
    })
}
