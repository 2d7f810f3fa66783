//! The ttrpc server: connections, their peers, and the way from a request to the service and back.
//!
//! The service lives on one thread and is no thing to be sent elsewhere, as the server wants of its handlers. So each
//! handler is a door: it hands the request in over a channel, and waits for the answer. What it asked for is done to its
//! end, also when the client has gone or its time is up meanwhile.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use coracle::error::{Doing, Result};
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};
use ttrpc::r#async::transport::Listener;
use ttrpc::r#async::{MethodHandler, Server, Service, TtrpcContext};
use ttrpc::proto::{Request, Response};

use crate::failure::Failure;
use crate::guests::{Guest, Guests};
use crate::service::{METHODS, Shim};

/// The names under which containerd knows the service: up to 1.7 the first, from 2.0 the second.
const SERVICES: [&str; 2] = ["containerd.task.v2.Task", "containerd.task.v3.Task"];

/// How long no connection is accepted after one could not be.
const BREATH: Duration = Duration::from_millis(100);

/// A request on its way in.
pub struct Call {
    method: &'static str,
    payload: Vec<u8>,
    answer: oneshot::Sender<Result<Vec<u8>, Failure>>,
}

/// The way in for one method.
struct Door {
    method: &'static str,
    calls: mpsc::UnboundedSender<Call>,
}

#[async_trait::async_trait]
impl MethodHandler for Door {
    async fn handler(&self, _: TtrpcContext, request: Request) -> ttrpc::Result<Response> {
        let (answer, answered) = oneshot::channel();
        let call = Call { method: self.method, payload: request.payload, answer };
        let gone = || ttrpc::get_status(ttrpc::Code::UNAVAILABLE, "the shim is shutting down");
        let result = match self.calls.send(call) {
            Ok(()) => answered.await.map_err(|_| gone()),
            Err(_) => Err(gone()),
        };
        let mut response = Response::new();
        match result {
            Ok(Ok(payload)) => {
                response.payload = payload;
                response.set_status(ttrpc::get_status(ttrpc::Code::OK, ""));
            }
            Ok(Err(failure)) => response.set_status(ttrpc::get_status(failure.code, failure.text)),
            Err(status) => response.set_status(status),
        }
        Ok(response)
    }
}

/// The server on a listening socket, and the requests that come in.
pub fn server(listener: OwnedFd, guests: &Arc<Guests>) -> Result<(Server, mpsc::UnboundedReceiver<Call>)> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let doing = || "listen on the shim's socket";
    rustix::io::ioctl_fionbio(&listener, true).doing(doing)?;
    let listener = UnixListener::from_std(listener.into()).doing(doing)?;
    let services = SERVICES.map(|name| (name.to_owned(), service(&sender)));
    let server = Server::new()
        .add_listener(Listener::new(accept(listener, guests.clone())))
        .register_service(services.into());
    Ok((server, receiver))
}

fn service(calls: &mpsc::UnboundedSender<Call>) -> Service {
    let methods = METHODS.map(|method| {
        let door: Box<dyn MethodHandler + Send + Sync> = Box::new(Door { method, calls: calls.clone() });
        (method.to_owned(), door)
    });
    Service { methods: methods.into(), streams: HashMap::new() }
}

/// The connections of peers with the shim's own user id. Others are refused, whatever the modes of the socket and its
/// directory.
fn accept(
    listener: UnixListener,
    guests: Arc<Guests>,
) -> impl futures_core::Stream<Item = std::io::Result<Guest>> + Send {
    let own = rustix::process::geteuid().as_raw();
    async_stream::stream! {
        loop {
            let (stream, _) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    yield Err(error);
                    // Most likely there are too many open files: the connection waits on, and no event tells of a
                    // descriptor that has become free.
                    tokio::time::sleep(BREATH).await;
                    continue;
                }
            };
            match stream.peer_cred() {
                Ok(peer) if peer.uid() == own => yield Ok(Guest::new(stream, guests.clone())),
                Ok(peer) => log::warn!("refused a connection of user {}", peer.uid()),
                Err(error) => log::warn!("refused a connection: look at its peer: {error}"),
            }
        }
    }
}

/// Hands requests to the service, each to a task of its own.
pub async fn serve(shim: Rc<Shim>, mut calls: mpsc::UnboundedReceiver<Call>) {
    while let Some(Call { method, payload, mut answer }) = calls.recv().await {
        let shim = shim.clone();
        tokio::task::spawn_local(async move {
            let call = shim.call(method, &payload);
            let result = match method {
                // It changes nothing, and could wait long for nobody.
                "Wait" => tokio::select! {
                    result = call => result,
                    () = answer.closed() => return,
                },
                _ => call.await,
            };
            match &result {
                Ok(_) => log::debug!("{method}: done"),
                Err(failure) => log::info!("{method}: {:?}: {failure}", failure.code),
            }
            // The client may have gone.
            let _ = answer.send(result);
        });
    }
}
