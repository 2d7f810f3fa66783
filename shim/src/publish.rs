//! Telling containerd what happened (`containerd.services.events.ttrpc.v1.Events`, method Forward).
//!
//! Events go out one after the other, in the order in which they were published. While containerd is away they wait,
//! and go when its socket is there again. Publishing never waits. Only when more wait than may does the oldest go lost,
//! and the log says which.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use coracle::error::{Doing, Error, Kind};
use protobuf::{Message, MessageField};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::UnixStream;
use tokio::sync::Notify;
use tokio::time::timeout;
use ttrpc::r#async::Client;
use ttrpc::r#async::transport::Socket;

use crate::proto::forward::{Envelope, ForwardRequest};
use crate::proto::{Named, Timestamp, pack};
use crate::sys;

const SERVICE: &str = "containerd.services.events.ttrpc.v1.Events";
const METHOD: &str = "Forward";

/// How many events may wait, as with containerd's own shim.
const CAPACITY: usize = 2048;
/// How long containerd may take for one event.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often an event is offered that containerd answers with an error.
const OFFERS: u32 = 5;
/// How long to wait for containerd when its socket doesn't change: it may be too busy to be connected to.
const PAUSE: Duration = Duration::from_secs(5);

/// The way to containerd.
pub struct Publisher {
    queue: Rc<Queue>,
    namespace: String,
}

/// What waits, and what became of the rest.
struct Queue {
    waiting: RefCell<VecDeque<Event>>,
    /// One event has left the queue and isn't answered yet.
    on_its_way: Cell<bool>,
    changed: Notify,
    sent: Cell<u64>,
    lost: Cell<u64>,
    connected: Cell<bool>,
}

struct Event {
    topic: &'static str,
    /// The encoded request.
    payload: Vec<u8>,
    /// How often containerd has answered it with an error.
    refusals: u32,
}

impl Publisher {
    /// A publisher to the ttrpc socket at `address` (a path, or a `unix://` URI), with nothing to do yet. To be called
    /// within a `LocalSet`.
    pub fn new(address: &str, namespace: &str) -> Self {
        let queue = Rc::new(Queue {
            waiting: RefCell::default(),
            on_its_way: Cell::new(false),
            changed: Notify::new(),
            sent: Cell::new(0),
            lost: Cell::new(0),
            connected: Cell::new(false),
        });
        let path = address.strip_prefix("unix://").unwrap_or(address).to_owned();
        if path.is_empty() {
            log::warn!("containerd gave no address for events (TTRPC_ADDRESS): they stay here");
        } else {
            tokio::task::spawn_local(send_all(queue.clone(), path));
        }
        Self { queue, namespace: namespace.to_owned() }
    }

    /// Puts an event behind those that wait.
    pub fn publish<M: Named>(&self, topic: &'static str, event: &M) {
        match self.encode(topic, event) {
            Ok(payload) => self.queue.push(Event { topic, payload, refusals: 0 }),
            Err(error) => log::error!("encode the event {topic}: {error}"),
        }
    }

    fn encode<M: Named>(&self, topic: &str, event: &M) -> protobuf::Result<Vec<u8>> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let timestamp = Timestamp {
            seconds: since.as_secs() as i64,
            nanos: since.subsec_nanos() as i32,
            ..Timestamp::default()
        };
        let envelope = Envelope {
            timestamp: MessageField::some(timestamp),
            namespace: self.namespace.clone(),
            topic: topic.to_owned(),
            event: MessageField::some(pack(event)?),
            ..Envelope::default()
        };
        ForwardRequest { envelope: MessageField::some(envelope), ..ForwardRequest::default() }
            .write_to_bytes()
    }

    /// Waits until containerd has taken every event, but not longer than `limit`; says whether it has.
    pub async fn flush(&self, limit: Duration) -> bool {
        let empty = async {
            loop {
                // Asked before the look, so that no change in between is missed.
                let changed = self.queue.changed.notified();
                if self.queue.is_empty() {
                    return;
                }
                changed.await;
            }
        };
        timeout(limit, empty).await.is_ok()
    }

    /// One line that tells a person how things are.
    pub fn describe(&self) -> String {
        let queue = &self.queue;
        let waiting = queue.waiting.borrow().len() + usize::from(queue.on_its_way.get());
        let containerd = if queue.connected.get() { "connected" } else { "not connected" };
        format!(
            "events: {} sent, {waiting} waiting, {} lost; containerd {containerd}",
            queue.sent.get(),
            queue.lost.get()
        )
    }
}

impl Queue {
    fn push(&self, event: Event) {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.len() >= CAPACITY
            && let Some(oldest) = waiting.pop_front()
        {
            self.lose(&oldest, "containerd takes none, and too many wait");
        }
        waiting.push_back(event);
        drop(waiting);
        self.changed.notify_waiters();
    }

    fn lose(&self, event: &Event, why: &str) {
        self.lost.set(self.lost.get() + 1);
        log::error!("the event {} is lost: {why}", event.topic);
    }

    fn is_empty(&self) -> bool {
        self.waiting.borrow().is_empty() && !self.on_its_way.get()
    }

    /// Takes the oldest event out, once there is one.
    async fn next(&self) -> Event {
        loop {
            let changed = self.changed.notified();
            if let Some(event) = self.waiting.borrow_mut().pop_front() {
                self.on_its_way.set(true);
                return event;
            }
            changed.await;
        }
    }

    fn arrived(&self) {
        self.on_its_way.set(false);
        self.sent.set(self.sent.get() + 1);
        let mut waiting = self.waiting.borrow_mut();
        if waiting.is_empty() {
            // A burst is over: its room isn't needed any more.
            waiting.shrink_to_fit();
        }
        drop(waiting);
        self.changed.notify_waiters();
    }

    fn refused(&self, event: Event, error: &ttrpc::Error) {
        self.on_its_way.set(false);
        let refusals = event.refusals + 1;
        if refusals >= OFFERS {
            self.lose(&event, &format!("containerd refuses it: {error}"));
        } else {
            self.waiting.borrow_mut().push_front(Event { refusals, ..event });
        }
        self.changed.notify_waiters();
    }

    fn put_back(&self, event: Event) {
        self.on_its_way.set(false);
        self.waiting.borrow_mut().push_front(event);
    }
}

/// Sends events for as long as the publisher lives.
async fn send_all(queue: Rc<Queue>, path: String) {
    let mut client: Option<Client> = None;
    let mut is_away = false;
    loop {
        let event = queue.next().await;
        let used = client.is_some();
        let result = match client.take() {
            Some(client) => forward(client, &event).await,
            None => match connect(&path).await {
                Ok(client) => forward(client, &event).await,
                Err(error) => Err(Failure::Connection(error.to_string())),
            },
        };
        match result {
            Ok(connected) => {
                if is_away {
                    log::info!("containerd takes events again");
                }
                is_away = false;
                client = Some(connected);
                queue.arrived();
            }
            Err(Failure::Refusal(connected, error)) => {
                log::warn!("containerd refuses the event {}: {error}", event.topic);
                client = Some(connected);
                queue.refused(event, &error);
            }
            Err(Failure::Connection(error)) => {
                queue.put_back(event);
                // A connection that was there before may only be that of a containerd that was restarted since.
                if !used {
                    if !is_away {
                        log::warn!("containerd takes no events: {error}; they wait");
                    }
                    is_away = true;
                    change_of(Path::new(&path)).await;
                }
            }
        }
        queue.connected.set(client.is_some());
    }
}

enum Failure {
    /// containerd answered with an error.
    Refusal(Client, ttrpc::Error),
    /// There was no answer.
    Connection(String),
}

async fn connect(path: &str) -> std::io::Result<Client> {
    let stream = timeout(PATIENCE, UnixStream::connect(path)).await.map_err(std::io::Error::other)??;
    Ok(Client::new(Socket::new(stream)))
}

async fn forward(client: Client, event: &Event) -> Result<Client, Failure> {
    let request = ttrpc::proto::Request {
        service: SERVICE.to_owned(),
        method: METHOD.to_owned(),
        timeout_nano: PATIENCE.as_nanos() as i64,
        payload: event.payload.clone(),
        ..ttrpc::proto::Request::default()
    };
    match client.request(request).await {
        Ok(_) => Ok(client),
        Err(error @ ttrpc::Error::RpcStatus(_)) if !is_timeout(&error) => {
            Err(Failure::Refusal(client, error))
        }
        Err(error) => Err(Failure::Connection(error.to_string())),
    }
}

/// Whether the time was up: the client has the same error for that as the server.
fn is_timeout(error: &ttrpc::Error) -> bool {
    matches!(error, ttrpc::Error::RpcStatus(status) if status.code() == ttrpc::Code::DEADLINE_EXCEEDED)
}

/// Waits until something happens to the socket: containerd makes it anew, and sets its owner when it listens.
async fn change_of(socket: &Path) {
    match watch_directory(socket) {
        Ok(watch) => {
            let _ = timeout(PAUSE, watch.readable()).await;
        }
        Err(error) => {
            log::debug!("watch {}: {error}", socket.display());
            tokio::time::sleep(PAUSE).await;
        }
    }
}

fn watch_directory(socket: &Path) -> Result<AsyncFd<OwnedFd>, Error> {
    let directory = socket.parent().ok_or_else(|| Error::new(Kind::Config, "the address is no path"))?;
    let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).doing(|| "begin to watch")?;
    let changes = WatchFlags::CREATE | WatchFlags::ATTRIB | WatchFlags::MOVED_TO | WatchFlags::ONLYDIR;
    inotify::add_watch(&watch, directory, changes).doing(|| "watch the directory")?;
    sys::watch(watch, Interest::READABLE).doing(|| "wait for the directory")
}
