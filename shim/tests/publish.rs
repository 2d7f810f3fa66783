//! Events on their way to a containerd that the test plays: there, away, back, and refusing.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use coracle_shim::proto::events::TaskStart;
use coracle_shim::proto::forward::{Envelope, ForwardRequest};
use coracle_shim::proto::unpack;
use coracle_shim::publish::Publisher;
use protobuf::Message;
use tokio::task::LocalSet;
use ttrpc::r#async::{MethodHandler, Server, Service, TtrpcContext};
use ttrpc::proto::{Request, Response};

/// Long enough for the slowest machine; the tests wait for what happens, not for time.
const LIMIT: Duration = Duration::from_secs(60);

const REFUSED: &str = "/tasks/oom";

type Received = Arc<Mutex<Vec<Envelope>>>;

/// Takes events, but those of one topic.
struct Forward(Received);

#[async_trait::async_trait]
impl MethodHandler for Forward {
    async fn handler(&self, _: TtrpcContext, request: Request) -> ttrpc::Result<Response> {
        let request = ForwardRequest::parse_from_bytes(&request.payload)
            .map_err(|error| ttrpc::Error::Others(error.to_string()))?;
        let envelope = request.envelope.unwrap_or_default();
        let code = if envelope.topic == REFUSED { ttrpc::Code::INVALID_ARGUMENT } else { ttrpc::Code::OK };
        self.0.lock().unwrap().push(envelope);
        let mut response = Response::new();
        response.set_status(ttrpc::get_status(code, ""));
        Ok(response)
    }
}

/// Serves events at the socket.
async fn containerd(socket: &Path, received: &Received) -> Server {
    let _ = std::fs::remove_file(socket);
    let handler: Box<dyn MethodHandler + Send + Sync> = Box::new(Forward(received.clone()));
    let service =
        Service { methods: HashMap::from([("Forward".to_owned(), handler)]), streams: HashMap::new() };
    let name = "containerd.services.events.ttrpc.v1.Events".to_owned();
    let mut server = Server::new()
        .bind(&format!("unix://{}", socket.display()))
        .unwrap()
        .register_service(HashMap::from([(name, service)]));
    server.start().await.unwrap();
    server
}

fn event(pid: u32) -> TaskStart {
    TaskStart { container_id: "c1".to_owned(), pid, ..TaskStart::default() }
}

fn pids(received: &Received) -> Vec<u32> {
    let received = received.lock().unwrap();
    received.iter().map(|envelope| unpack::<TaskStart>(&envelope.event).unwrap().unwrap().pid).collect()
}

/// Runs a test with a socket's path and a place for what is received.
fn with_socket(test: impl AsyncFnOnce(PathBuf, Received)) {
    let directory = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let socket = directory.path().join("containerd.sock.ttrpc");
    LocalSet::new().block_on(&runtime, test(socket, Received::default()));
}

#[test]
fn events_arrive_in_their_order_with_their_namespace_and_type() {
    with_socket(async |socket, received| {
        let _server = containerd(&socket, &received).await;
        let publisher = Publisher::new(&socket.display().to_string(), "k8s.io");
        (0..100).for_each(|pid| publisher.publish("/tasks/start", &event(pid)));
        assert!(publisher.flush(LIMIT).await);
        assert_eq!(pids(&received), (0..100).collect::<Vec<_>>());
        let first = received.lock().unwrap().first().cloned().unwrap();
        assert_eq!((first.namespace.as_str(), first.topic.as_str()), ("k8s.io", "/tasks/start"));
        assert_eq!(first.event.type_url, "containerd.events.TaskStart");
        assert!(first.timestamp.seconds > 0);
    });
}

#[test]
fn events_wait_for_a_containerd_that_is_away() {
    with_socket(async |socket, received| {
        let publisher = Publisher::new(&format!("unix://{}", socket.display()), "default");
        for round in 0..3 {
            (0..10).for_each(|pid| publisher.publish("/tasks/start", &event(round * 10 + pid)));
            assert!(!publisher.flush(Duration::ZERO).await, "nobody is there to take them");
            let mut server = containerd(&socket, &received).await;
            assert!(publisher.flush(LIMIT).await);
            assert_eq!(pids(&received), (0..(round + 1) * 10).collect::<Vec<_>>());
            server.shutdown().await.unwrap();
        }
    });
}

#[test]
fn an_event_that_is_refused_does_not_hold_up_the_others() {
    with_socket(async |socket, received| {
        let _server = containerd(&socket, &received).await;
        let publisher = Publisher::new(&socket.display().to_string(), "default");
        publisher.publish(REFUSED, &event(1));
        publisher.publish("/tasks/start", &event(2));
        assert!(publisher.flush(LIMIT).await);
        let pids = pids(&received);
        assert!(pids.ends_with(&[1, 2]) && pids.iter().filter(|pid| **pid == 1).count() > 1, "{pids:?}");
        assert!(publisher.describe().contains("1 lost"), "{}", publisher.describe());
    });
}

#[test]
fn the_oldest_events_are_lost_when_too_many_wait() {
    with_socket(async |socket, received| {
        let publisher = Publisher::new(&socket.display().to_string(), "default");
        (0..5000).for_each(|pid| publisher.publish("/tasks/start", &event(pid)));
        let _server = containerd(&socket, &received).await;
        assert!(publisher.flush(LIMIT).await);
        let pids = pids(&received);
        assert_eq!((pids.len(), pids.last()), (2048, Some(&4999)));
        assert!(pids.is_sorted());
    });
}
