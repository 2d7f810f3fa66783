//! A stand-in for containerd as the receiver of a shim's events, for tests in which containerd is away for a while.
//!
//! Source: `api/services/ttrpc/events/v1/events.proto` of containerd.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use prost::Message;
use ttrpc::proto::{Request, Response};
use ttrpc::sync::{MethodHandler, Server, TtrpcContext};

use super::task::{Any, Timestamp};

/// `containerd.types.Envelope`.
#[derive(Clone, PartialEq, Message)]
pub struct Envelope {
    /// When it happened.
    #[prost(message, optional, tag = "1")]
    pub timestamp: Option<Timestamp>,
    /// The container's namespace.
    #[prost(string, tag = "2")]
    pub namespace: String,
    /// Such as `/tasks/exit`.
    #[prost(string, tag = "3")]
    pub topic: String,
    /// Such as a `containerd.events.TaskExit`.
    #[prost(message, optional, tag = "4")]
    pub event: Option<Any>,
}

/// `ForwardRequest`.
#[derive(Clone, PartialEq, Message)]
struct Forward {
    #[prost(message, optional, tag = "1")]
    envelope: Option<Envelope>,
}

/// Listens for events until it is dropped.
pub struct EventSink {
    received: Arc<Mutex<Vec<Envelope>>>,
    server: Option<Server>,
}

struct Receiver(Arc<Mutex<Vec<Envelope>>>);

impl MethodHandler for Receiver {
    fn handler(&self, context: TtrpcContext, request: Request) -> ttrpc::Result<()> {
        let forward =
            Forward::decode(&*request.payload).map_err(|error| ttrpc::Error::Others(error.to_string()))?;
        let mut received = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        received.extend(forward.envelope);
        context.respond(context.mh.stream_id, Response::default())
    }
}

impl EventSink {
    /// Listens at a path that does not exist yet.
    pub fn listen(path: &Path) -> Self {
        let received = Arc::default();
        let name = "containerd.services.events.ttrpc.v1.Events";
        let method: Box<dyn MethodHandler + Send + Sync> = Box::new(Receiver(Arc::clone(&received)));
        let methods = HashMap::from([(format!("/{name}/Forward"), method)]);
        let mut server = Server::new()
            .bind(&format!("unix://{}", path.display()))
            .expect("binding a socket")
            .register_service(methods);
        server.start().expect("serving");
        Self { received, server: Some(server) }
    }

    /// What has come so far.
    pub fn received(&self) -> Vec<Envelope> {
        self.received.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}

impl Drop for EventSink {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.shutdown();
        }
    }
}
