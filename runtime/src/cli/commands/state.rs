//! `coracle state`.

use serde::Serialize;

use super::{Arguments, ID, Subcommand};
use crate::cli::globals::Context;
use crate::cli::output;
use crate::container::{self, ContainerView};
use crate::error::Result;

use std::collections::BTreeMap;

/// The arguments of `state`.
#[derive(Debug, clap::Args)]
pub(crate) struct State {
    /// The container
    #[arg(value_name = ID)]
    id: String,
}

impl Subcommand for State {
    const NAME: &'static str = "state";
    const ABOUT: &'static str = "Print the state of a container as JSON";
    const ARGUMENTS: Arguments = Arguments::Exactly(1);

    fn run(self, context: &Context) -> Result<i32> {
        let view = container::state(&context.store, &self.id)?;
        output::print(&render(&view)?)?;
        Ok(0)
    }
}

/// A container as `state` and `list` print it: the keys of the runtime specification's state, and runc's own.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Document<'a> {
    oci_version: &'a str,
    id: &'a str,
    pid: i32,
    status: &'a str,
    bundle: &'a str,
    rootfs: &'a str,
    created: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
    owner: &'a str,
}

impl<'a> Document<'a> {
    pub(super) fn of(view: &'a ContainerView) -> Self {
        Self {
            oci_version: &view.oci_version,
            id: &view.id,
            pid: view.pid,
            status: &view.status,
            bundle: &view.bundle,
            rootfs: &view.rootfs,
            created: &view.created,
            annotations: &view.annotations,
            owner: &view.owner,
        }
    }
}

fn render(view: &ContainerView) -> Result<String> {
    Ok(output::pretty(&Document::of(view), "  ")? + "\n")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::cli::commands) fn view() -> ContainerView {
        ContainerView {
            oci_version: "1.2.1".into(),
            id: "x".into(),
            pid: 11668,
            status: "created".into(),
            bundle: "/tmp/a".into(),
            rootfs: "/tmp/a/rootfs".into(),
            created: "2026-11-22T11:11:28.356503917Z".into(),
            annotations: BTreeMap::from([("b".into(), "2".into()), ("a".into(), "é".into())]),
            owner: String::new(),
        }
    }

    #[test]
    fn the_state_has_runcs_keys_in_runcs_order() {
        let expected = r#"{
  "ociVersion": "1.2.1",
  "id": "x",
  "pid": 11668,
  "status": "created",
  "bundle": "/tmp/a",
  "rootfs": "/tmp/a/rootfs",
  "created": "2026-11-22T11:11:28.356503917Z",
  "annotations": {
    "a": "é",
    "b": "2"
  },
  "owner": ""
}
"#;
        assert_eq!(render(&view()).unwrap(), expected);
    }

    #[test]
    fn a_state_without_annotations_has_no_such_key() {
        let text = render(&ContainerView { annotations: BTreeMap::new(), ..view() }).unwrap();
        assert!(!text.contains("annotations"));
    }
}
