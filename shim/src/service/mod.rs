//! The Task service: what each RPC does (containerd, `core/runtime/v2/README.md`).
//!
//! It owns the containers of this shim. It promises that one RPC never waits for another one's container or process,
//! except where both begin or delete the same process; that an RPC whose client has gone is done to its end; and the
//! order of events (see [`container`]).

pub mod container;
mod control;
mod last_words;
mod lifecycle;
pub mod process;
mod query;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use protobuf::Message;
use tokio::sync::Notify;
use ttrpc::Code;

use crate::failure::{Failure, Result};
use crate::proto::{Named, task};
use crate::publish::Publisher;
use crate::reaper::Reaper;
use container::Container;

pub use last_words::load as load_last_words;

/// The methods of the Task service, which have the same messages in versions 2 and 3.
pub const METHODS: [&str; 17] = [
    "State",
    "Create",
    "Start",
    "Delete",
    "Pids",
    "Pause",
    "Resume",
    "Checkpoint",
    "Kill",
    "Exec",
    "ResizePty",
    "CloseIO",
    "Update",
    "Wait",
    "Stats",
    "Connect",
    "Shutdown",
];

/// The state of the shim.
pub struct Shim {
    /// containerd's namespace.
    pub namespace: String,
    /// Takes exit statuses.
    pub reaper: Rc<Reaper>,
    /// Wakes the main task when the shim is to end.
    pub shutdown: Notify,
    /// No container is taken any more.
    closing: Cell<bool>,
    publisher: Publisher,
    containers: RefCell<BTreeMap<String, Rc<Container>>>,
    /// Containers that are being made.
    creating: RefCell<std::collections::BTreeSet<String>>,
}

impl Shim {
    /// A shim without containers.
    pub fn new(namespace: String, reaper: Rc<Reaper>, publisher: Publisher) -> Rc<Self> {
        Rc::new(Self {
            namespace,
            reaper,
            shutdown: Notify::new(),
            closing: Cell::new(false),
            publisher,
            containers: RefCell::default(),
            creating: RefCell::default(),
        })
    }

    /// Answers a call: the bytes of the request to those of the response.
    pub async fn call(self: Rc<Self>, method: &str, payload: &[u8]) -> Result<Vec<u8>> {
        match method {
            "State" => answer(&self.state(&parse(payload)?)?),
            "Create" => answer(&self.create(parse(payload)?).await?),
            "Start" => answer(&self.start(&parse(payload)?).await?),
            "Delete" => answer(&self.delete(&parse(payload)?).await?),
            "Pids" => answer(&self.pids(&parse(payload)?).await?),
            "Pause" => answer(&self.pause(&parse(payload)?).await?),
            "Resume" => answer(&self.resume(&parse(payload)?).await?),
            "Checkpoint" => answer(&self.checkpoint(&parse(payload)?)?),
            "Kill" => answer(&self.kill(&parse(payload)?).await?),
            "Exec" => answer(&self.exec(parse(payload)?)?),
            "ResizePty" => answer(&self.resize_pty(&parse(payload)?)?),
            "CloseIO" => answer(&self.close_io(&parse(payload)?)?),
            "Update" => answer(&self.update(&parse(payload)?).await?),
            "Wait" => answer(&self.wait(&parse(payload)?).await?),
            "Stats" => answer(&self.stats(&parse(payload)?)?),
            "Connect" => answer(&self.connect(&parse(payload)?)),
            "Shutdown" => answer(&self.shut_down(&parse(payload)?)),
            _ => Err(Failure::new(Code::UNIMPLEMENTED, format!("the Task service has no method {method}"))),
        }
    }

    /// Sends an event.
    pub fn publish<M: Named>(&self, topic: &'static str, event: &M) {
        self.publisher.publish(topic, event);
    }

    /// The publisher of events.
    pub fn publisher(&self) -> &Publisher {
        &self.publisher
    }

    /// The container of this id.
    fn container(&self, id: &str) -> Result<Rc<Container>> {
        let found = self.containers.borrow().get(id).cloned();
        found.ok_or_else(|| Failure::not_found(format!("container not created: {id}")))
    }

    /// Every container.
    pub fn containers(&self) -> Vec<Rc<Container>> {
        self.containers.borrow().values().cloned().collect()
    }

    /// Whether there is a container, or one is being made.
    pub fn has_work(&self) -> bool {
        !self.containers.borrow().is_empty() || !self.creating.borrow().is_empty()
    }

    /// Takes no container any more: the shim is about to end.
    pub fn close(&self) {
        self.closing.set(true);
    }

    /// Lines that tell a person what the shim is doing.
    pub fn describe(&self) -> Vec<String> {
        let mut lines = vec![
            format!("shim of namespace {}, pid {}", self.namespace, std::process::id()),
            self.reaper.describe(),
            self.publisher.describe(),
            format!("containers being made: {:?}", self.creating.borrow()),
        ];
        for container in self.containers() {
            lines.push(format!(
                "container {}: bundle {}, {:?}, {} execs run or begin",
                container.id,
                container.bundle.display(),
                container.freeze.get(),
                container.busy(),
            ));
            lines.extend(container.init.describe());
            lines.extend(container.execs.borrow().values().flat_map(|process| process.describe()));
        }
        lines
    }

    fn connect(&self, request: &task::ConnectRequest) -> task::ConnectResponse {
        let pid = self.container(&request.id).map_or(0, |container| container.init.pid());
        task::ConnectResponse { shim_pid: std::process::id(), task_pid: pid as u32, ..Default::default() }
    }

    fn shut_down(&self, request: &task::ShutdownRequest) -> crate::proto::Empty {
        // A pod's other containers still need the shim, `now` or not.
        if !self.has_work() {
            self.close();
            log::debug!("shutdown was asked for by {}", request.id);
            self.shutdown.notify_one();
        }
        crate::proto::Empty::new()
    }
}

fn parse<M: Message>(payload: &[u8]) -> Result<M> {
    M::parse_from_bytes(payload).map_err(|error| Failure::invalid(format!("read the request: {error}")))
}

fn answer<M: Message>(message: &M) -> Result<Vec<u8>> {
    message
        .write_to_bytes()
        .map_err(|error| Failure::new(Code::INTERNAL, format!("write the response: {error}")))
}
