//! The messages between containerd and the shim: generated from `proto/` at build time.
//!
//! Versions 2 and 3 of the Task service have the same messages; only the service's name differs (`rpc.rs`).

#[allow(missing_docs, clippy::pedantic, clippy::style, clippy::complexity, clippy::perf)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/proto/mod.rs"));
}

pub use generated::{bootstrap, events, forward, metrics_v1, metrics_v2, runc, runtimeoptions, task, types};
use protobuf::Message;
pub use protobuf::well_known_types::any::Any;
pub use protobuf::well_known_types::empty::Empty;
pub use protobuf::well_known_types::timestamp::Timestamp;

/// A message that travels in an [`Any`], which names its type.
pub trait Named: Message {
    /// The full name, as containerd has it in `type_url`, without a prefix.
    const TYPE_URL: &'static str;
}

macro_rules! named {
    ($($message:ty = $name:literal,)*) => { $(impl Named for $message { const TYPE_URL: &'static str = $name; })* };
}

named! {
    events::TaskCreate = "containerd.events.TaskCreate",
    events::TaskStart = "containerd.events.TaskStart",
    events::TaskExecAdded = "containerd.events.TaskExecAdded",
    events::TaskExecStarted = "containerd.events.TaskExecStarted",
    events::TaskPaused = "containerd.events.TaskPaused",
    events::TaskResumed = "containerd.events.TaskResumed",
    events::TaskOOM = "containerd.events.TaskOOM",
    events::TaskExit = "containerd.events.TaskExit",
    events::TaskDelete = "containerd.events.TaskDelete",
    metrics_v1::Metrics = "io.containerd.cgroups.v1.Metrics",
    metrics_v2::Metrics = "io.containerd.cgroups.v2.Metrics",
    runc::Options = "containerd.runc.v1.Options",
    runc::CreateOptions = "containerd.linux.runc.CreateOptions",
    runtimeoptions::Options = "runtimeoptions.v1.Options",
    runc::ProcessDetails = "containerd.runc.v1.ProcessDetails",
}

/// Packs a message with the name of its type.
pub fn pack<M: Named>(message: &M) -> protobuf::Result<Any> {
    Ok(Any { type_url: M::TYPE_URL.to_owned(), value: message.write_to_bytes()?, ..Any::default() })
}

/// Unpacks a message, if it is one of this type. A prefix before the name (`types.googleapis.com/`) is allowed.
pub fn unpack<M: Named>(any: &Any) -> Option<protobuf::Result<M>> {
    let name = any.type_url.rsplit('/').next().unwrap_or_default();
    (name == M::TYPE_URL).then(|| M::parse_from_bytes(&any.value))
}
