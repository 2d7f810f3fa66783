//! What containerd tells its subscribers, as `ctr events` prints it.

use serde_json::Value;

use super::containerd::Containerd;
use crate::command::{Running, eventually};

/// One event.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Such as `/tasks/exit`.
    pub topic: String,
    /// The event's fields.
    pub body: Value,
}

impl Event {
    /// A number of the event; 0 when it isn't there, as it is with this format.
    pub fn number(&self, field: &str) -> u64 {
        self.body[field].as_u64().unwrap_or_default()
    }

    /// A text of the event; empty when it isn't there.
    pub fn text(&self, field: &str) -> &str {
        self.body[field].as_str().unwrap_or_default()
    }
}

/// A subscriber.
#[derive(Debug)]
pub struct Events {
    follower: Running,
}

impl Events {
    /// Subscribes; what happens after this has returned is seen.
    pub fn of(engine: &Containerd) -> Self {
        let this = Self { follower: Running::start(engine.ctr_command(&["events"])) };
        // Nothing tells when the subscription stands, but the events that it brings.
        let mut tries = 0;
        let stands = eventually(|| {
            tries += 1;
            engine.ctr(&["namespaces", "label", engine.namespace(), &format!("seen=try-{tries}")]).ok();
            !this.follower.stdout().is_empty()
        });
        assert!(stands, "no event came: {}", this.follower.stderr());
        this
    }

    /// The events about a container's task so far, in their order.
    pub fn of_task(&self, id: &str) -> Vec<Event> {
        let text = self.follower.stdout();
        let all = text.lines().filter_map(parse);
        all.filter(|event| event.topic.starts_with("/tasks/") && event.text("container_id") == id).collect()
    }

    /// Waits until the events about a container's task satisfy a condition, and gives them.
    #[track_caller]
    pub fn wait_for(&self, id: &str, what: &str, mut enough: impl FnMut(&[Event]) -> bool) -> Vec<Event> {
        let came = eventually(|| enough(&self.of_task(id)));
        let events = self.of_task(id);
        assert!(came, "{what} did not come; what came is {events:#?}");
        events
    }

    /// Waits until an event with this topic has come about a container's task, and gives all until now.
    #[track_caller]
    pub fn until(&self, id: &str, topic: &str) -> Vec<Event> {
        self.wait_for(id, topic, |events| events.iter().any(|event| event.topic == topic))
    }
}

/// A line is a time of several words, the namespace, the topic and the event as JSON.
fn parse(line: &str) -> Option<Event> {
    let (before, body) = line.split_at(line.find('{')?);
    let topic = before.split_whitespace().next_back()?.to_owned();
    Some(Event { topic, body: serde_json::from_str(body).ok()? })
}
