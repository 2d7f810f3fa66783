//! What the tests of the bundle's sections share: a small valid configuration, one value of which is replaced.

use serde_json::{Value, json};
use std::path::Path;

use super::Bundle;
use crate::error::Error;

/// A valid configuration with every namespace but the user namespace.
pub(super) fn config() -> Value {
    json!({
        "ociVersion": "1.2.0",
        "root": {"path": "rootfs"},
        "process": {"user": {"uid": 0, "gid": 0}, "args": ["true"], "env": ["PATH=/bin"], "cwd": "/"},
        "hostname": "box",
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": {"namespaces": [
            {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"},
            {"type": "cgroup"}, {"type": "time"},
        ]},
    })
}

/// [`config`] with `value` at `place`, a path of member names such as `linux.resources`.
pub(super) fn config_with(place: &str, value: Value) -> Value {
    let mut config = config();
    put(&mut config, place, value);
    config
}

/// Puts `value` at `place`; objects on the way are made.
pub(super) fn put(config: &mut Value, place: &str, value: Value) {
    let mut target = config;
    for step in place.split('.') {
        target = &mut target[step];
    }
    *target = value;
}

/// Checks `config` as that of a bundle.
pub(super) fn load(config: &Value) -> Result<Bundle, Error> {
    Bundle::from_json(Path::new("/bundle"), config.to_string().as_bytes())
}

/// The configuration with `value` at `place` must be fine; gives the bundle.
#[track_caller]
pub(super) fn accepts(place: &str, value: Value) -> Bundle {
    let shown = value.to_string();
    load(&config_with(place, value)).unwrap_or_else(|error| panic!("{place} = {shown}: {error}"))
}

/// The configuration with `value` at `place` must be refused at `at`; gives the error's text.
#[track_caller]
pub(super) fn refuses(place: &str, value: Value, at: &str) -> String {
    let shown = value.to_string();
    let error =
        load(&config_with(place, value)).err().unwrap_or_else(|| panic!("{place} = {shown} was taken"));
    assert_eq!(error.place(), Some(at), "{place} = {shown}: {error}");
    error.to_string()
}
