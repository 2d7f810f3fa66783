//! What tests of mounts share: something to mount, a container that has it, and what it sees of it.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use nix::mount::{MsFlags, mount};

use crate::bundle::{Bundle, add_mount};
use crate::host::Mount;
use crate::runtime::{Container, Runtime};

/// The topmost mount at a path.
#[track_caller]
pub fn at<'m>(mounts: &'m [Mount], target: &str) -> &'m Mount {
    let found = mounts.iter().rev().find(|mount| mount.target == target);
    found.unwrap_or_else(|| panic!("nothing is mounted at {target}: {mounts:#?}"))
}

/// A running container with one more mount.
pub fn with_mount<'r>(
    rt: &'r Runtime,
    to: &str,
    kind: &str,
    from: &str,
    options: &[&str],
) -> (Container<'r>, Bundle) {
    let bundle = rt.sleeper().edit(|config| add_mount(config, to, kind, from, options));
    let c = rt.container(&bundle);
    c.up();
    (c, bundle)
}

/// A directory on the host with a file in it, to bind.
pub fn source(rt: &Runtime, name: &str) -> String {
    let path = rt.own(name);
    fs::create_dir(&path).expect("making a directory to bind");
    fs::write(path.join("file"), "of the host\n").expect("writing a file to bind");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("chmod");
    path.to_string_lossy().into_owned()
}

/// A new tmpfs in the test's own mount namespace.
pub fn tmpfs_at(path: &str, flags: MsFlags) {
    mount(Some("tmpfs"), path, Some("tmpfs"), flags, None::<&str>).expect("mounting a tmpfs");
}
