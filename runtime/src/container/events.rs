//! `events`: what happens to a container, and what it uses.

use std::time::{Duration, Instant};

use super::options::EventsOptions;
use super::state::{Container, Status};
use super::store::Store;
use crate::cgroup::{self, Watch};
use crate::error::{Error, Kind, Result};

/// One thing to report.
#[derive(Debug, Clone)]
pub struct Event {
    /// `stats`, `oom`, `pressure` or `exit`.
    pub kind: &'static str,
    /// What belongs to it.
    pub data: Option<serde_json::Value>,
}

/// Reports events of a container until it ends, or, with `stats`, its statistics once.
pub fn events(
    store: &Store,
    id: &str,
    options: &EventsOptions,
    report: &mut dyn FnMut(&Event) -> Result<()>,
) -> Result<()> {
    let container = Container::open(store, id)?;
    if container.status()? == Status::Stopped {
        return Err(Error::new(Kind::State, format!("container with id {id} is not running")));
    }
    if options.stats {
        return report(&statistics(&container)?);
    }
    let mut happenings = container.cgroup()?.events(&Watch::default())?;
    // An interval may be longer than the clock can tell.
    let after = |interval| Instant::now().checked_add(interval);
    let mut next = after(options.interval);
    loop {
        let limit = next.filter(|_| !options.push).map(|next| next.saturating_duration_since(Instant::now()));
        match happenings.wait(limit)? {
            Some(cgroup::Event::Oom { kills }) => report(&Event {
                kind: "oom",
                data: options.push.then(|| serde_json::json!({ "kills": kills })),
            })?,
            Some(cgroup::Event::Pressure { resource }) if options.push => {
                report(&Event { kind: "pressure", data: Some(serde_json::json!({ "resource": resource })) })?;
            }
            Some(cgroup::Event::Pressure { .. }) => {}
            Some(cgroup::Event::Empty) => {
                return if options.push { report(&Event { kind: "exit", data: None }) } else { Ok(()) };
            }
            None if container.status()? == Status::Stopped => return Ok(()),
            None if options.push => return Ok(()),
            None => {
                report(&statistics(&container)?)?;
                next = after(options.interval.max(Duration::from_millis(1)));
            }
        }
    }
}

fn statistics(container: &Container) -> Result<Event> {
    let data = serde_json::to_value(container.cgroup()?.stats()?)
        .map_err(|error| Error::new(Kind::System, format!("write the statistics: {error}")))?;
    Ok(Event { kind: "stats", data: Some(data) })
}
