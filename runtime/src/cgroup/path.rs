//! Where a container's cgroup lies in each hierarchy.
//!
//! Pure. An absolute `linux.cgroupsPath` lies below the root of each hierarchy, a relative one below
//! the runtime's own cgroup, and without one the container's id takes its place, as with runc. No
//! path leads out of where it begins, and none names that place itself.

use std::path::{Component, Path};

use super::layout::{Hierarchy, LayoutKind};
use crate::error::{Error, Result};

const PLACE: &str = "linux.cgroupsPath";

/// The container's cgroup in a hierarchy, below the mount point, without a leading slash.
///
/// On pure v2 a relative path begins at the *parent* of the runtime's own cgroup: a cgroup with
/// processes in it cannot hand controllers to its children (cgroups(7), "no internal processes").
pub fn inner(
    kind: LayoutKind,
    hierarchy: &Hierarchy,
    cgroups_path: Option<&str>,
    id: &str,
) -> Result<String> {
    let wanted = cgroups_path.filter(|path| !path.is_empty());
    let clean = match wanted {
        Some(path) => normalise(path)?,
        None => normalise(id)?,
    };
    if wanted.is_some_and(|path| path.starts_with('/')) {
        return Ok(clean);
    }
    let own = Path::new(&hierarchy.own);
    let start = match kind {
        LayoutKind::V2 => own.parent().unwrap_or(own),
        LayoutKind::V1 | LayoutKind::Hybrid => own,
    };
    let start = start.to_string_lossy();
    if Path::new(start.as_ref()).components().any(|part| part == Component::ParentDir) {
        return Err(Error::config(
            PLACE,
            format!(
                "the runtime's own cgroup, {start}, lies outside its cgroup namespace; use an absolute path"
            ),
        ));
    }
    let start = start.trim_matches('/');
    Ok(if start.is_empty() { clean } else { format!("{start}/{clean}") })
}

/// Takes `.`, `..` and doubled slashes out of a path; refuses one that leaves its start.
pub fn normalise(path: &str) -> Result<String> {
    let mut parts: Vec<&str> = Vec::new();
    if path.contains('\0') {
        return Err(Error::config(PLACE, "holds a NUL byte"));
    }
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                if parts.pop().is_none() {
                    return Err(Error::config(
                        PLACE,
                        format!(
                            "{path:?} leads out of the hierarchy; a path must stay below where it begins"
                        ),
                    ));
                }
            }
            part => parts.push(part),
        }
    }
    if parts.is_empty() {
        return Err(Error::config(
            PLACE,
            format!("{path:?} names the hierarchy's root itself; give the container a cgroup of its own"),
        ));
    }
    Ok(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn hierarchy(own: &str) -> Hierarchy {
        Hierarchy { controllers: vec!["memory".into()], mount: PathBuf::from("/cg"), own: own.into() }
    }

    #[test]
    fn absolute_relative_and_missing_paths_begin_where_runc_begins() {
        let own = hierarchy("/user/me");
        let at = |kind, path| inner(kind, &own, path, "web").unwrap();
        assert_eq!(at(LayoutKind::V1, Some("/a//b/./c")), "a/b/c");
        assert_eq!(at(LayoutKind::V1, Some("a/b")), "user/me/a/b");
        assert_eq!(at(LayoutKind::Hybrid, None), "user/me/web");
        assert_eq!(at(LayoutKind::Hybrid, Some("")), "user/me/web");
        assert_eq!(at(LayoutKind::V2, Some("a/b")), "user/a/b");
        assert_eq!(at(LayoutKind::V2, None), "user/web");
        assert_eq!(inner(LayoutKind::V2, &hierarchy("/"), None, "web").unwrap(), "web");
    }

    #[test]
    fn a_path_never_leads_out_and_never_names_its_start() {
        for path in ["/..", "../x", "/a/../../b", "/", "//", ".", "/a/..", "a\0b"] {
            let error = inner(LayoutKind::V1, &hierarchy("/"), Some(path), "web").unwrap_err();
            assert_eq!(error.place(), Some("linux.cgroupsPath"), "{path:?}");
        }
        assert_eq!(inner(LayoutKind::V1, &hierarchy("/"), Some("/a/../b"), "web").unwrap(), "b");
        assert!(inner(LayoutKind::V1, &hierarchy("/../above"), None, "web").is_err());
    }
}
