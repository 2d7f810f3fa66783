//! `state` and `list`: a container as it is shown.

use std::collections::BTreeMap;

use super::state::{Container, Status};
use super::store::Store;
use crate::error::{Kind, Result};

/// What is shown of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerView {
    /// The specification's version, as the bundle gave it.
    pub oci_version: String,
    /// The container's id.
    pub id: String,
    /// The first process's id; 0 when it has ended.
    pub pid: i32,
    /// `creating`, `created`, `running`, `paused` or `stopped`.
    pub status: String,
    /// The bundle's directory.
    pub bundle: String,
    /// The root filesystem.
    pub rootfs: String,
    /// When it was created: RFC 3339.
    pub created: String,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// The name of the user who created it, or the number where there is no name.
    pub owner: String,
}

/// Shows a container.
pub fn state(store: &Store, id: &str) -> Result<ContainerView> {
    view(&Container::open(store, id)?)
}

/// Shows all containers. One that is taken away meanwhile is left out.
pub fn list(store: &Store) -> Result<Vec<ContainerView>> {
    let mut views = Vec::new();
    for id in store.ids()? {
        match Container::open(store, &id).and_then(|container| view(&container)) {
            Ok(view) => views.push(view),
            Err(error) if error.kind() == Kind::NotFound => {}
            Err(error) => log::warn!("container {id}: {error}"),
        }
    }
    Ok(views)
}

fn view(container: &Container) -> Result<ContainerView> {
    let state = &container.state;
    let status = container.status()?;
    Ok(ContainerView {
        oci_version: state.oci_version.clone(),
        id: state.id.clone(),
        pid: if status == Status::Stopped { 0 } else { state.init.map_or(0, |init| init.pid) },
        status: status.name().to_owned(),
        bundle: state.bundle.to_string_lossy().into_owned(),
        rootfs: state.rootfs.to_string_lossy().into_owned(),
        created: state.created.clone(),
        annotations: state.annotations.clone(),
        owner: owner_name(state.owner),
    })
}

/// The user's name by /etc/passwd; runc shows it too. A static program reads the file itself, since the C library
/// would load modules for it.
fn owner_name(uid: u32) -> String {
    let name = std::fs::read_to_string("/etc/passwd").ok().and_then(|passwd| {
        passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
        })
    });
    name.unwrap_or_else(|| uid.to_string())
}
