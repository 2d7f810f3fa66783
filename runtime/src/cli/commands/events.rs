//! `coracle events`.

use std::time::Duration;

use serde::Serialize;

use super::{Arguments, ID, Subcommand};
use crate::cli::globals::Context;
use crate::cli::output;
use crate::cli::values::duration;
use crate::container::{self, Event, EventsOptions};
use crate::error::Result;

/// The flags and arguments of `events`.
#[derive(Debug, clap::Args)]
pub(crate) struct Events {
    /// Print statistics that often
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration::parse)]
    interval: Duration,

    /// Print the statistics once, and end
    #[arg(long)]
    stats: bool,

    /// Print events as the kernel reports them, without statistics at intervals
    #[arg(long, conflicts_with_all = ["stats", "interval"])]
    push: bool,

    /// The container
    #[arg(value_name = ID)]
    id: String,
}

/// An event as runc prints it.
#[derive(Serialize)]
struct Document<'a> {
    r#type: &'a str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a serde_json::Value>,
}

impl Subcommand for Events {
    const NAME: &'static str = "events";
    const ABOUT: &'static str = "Print a container's resource statistics and events as JSON lines";
    const ARGUMENTS: Arguments = Arguments::Exactly(1);

    fn run(self, context: &Context) -> Result<i32> {
        let options = EventsOptions { interval: self.interval, stats: self.stats, push: self.push };
        let mut report = |event: &Event| output::print(&line(&self.id, event)?);
        container::events(&context.store, &self.id, &options, &mut report)?;
        Ok(0)
    }
}

fn line(id: &str, event: &Event) -> Result<String> {
    output::json_line(&Document { r#type: event.kind, id, data: event.data.as_ref() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_a_line_of_json_with_runcs_keys() {
        let stats = Event { kind: "stats", data: Some(serde_json::json!({"pids": {"current": 1}})) };
        assert_eq!(
            line("x", &stats).unwrap(),
            "{\"type\":\"stats\",\"id\":\"x\",\"data\":{\"pids\":{\"current\":1}}}\n"
        );
        assert_eq!(
            line("x", &Event { kind: "oom", data: None }).unwrap(),
            "{\"type\":\"oom\",\"id\":\"x\"}\n"
        );
    }
}
