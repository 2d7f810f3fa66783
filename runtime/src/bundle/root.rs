//! `root` and `annotations` (`config.md`, "Root" and "Annotations").

use std::{collections::HashMap, fs, io, os::unix::fs::MetadataExt, path::Path};

use oci_spec::runtime::Root;

use super::problems::Problems;
use crate::error::{Doing as _, Error, Result};

pub(super) fn check(root: Option<&Root>, problems: &mut Problems) {
    match root {
        None => problems.refuse("root", "root must be specified; give at least root.path"),
        Some(root) if root.path().as_os_str().is_empty() => {
            problems.refuse(
                "root.path",
                "is empty; give the directory of the root filesystem, such as \"rootfs\"",
            );
        }
        Some(_) => {}
    }
}

/// Whether the rootfs is the runtime's own root directory. A bind mount of that is another place.
fn is_host_root(rootfs: &Path, found: &fs::Metadata) -> bool {
    let same = |root: fs::Metadata| (root.dev(), root.ino()) == (found.dev(), found.ino());
    fs::metadata("/").is_ok_and(same)
        && rootfs.canonicalize().is_ok_and(|canonical| canonical == Path::new("/"))
}

/// Checks that the root filesystem is there, and a directory, and not the host's own where the container has a mount
/// namespace.
pub(super) fn check_directory(rootfs: &Path, has_mount_namespace: bool) -> Result<()> {
    match fs::metadata(rootfs) {
        Ok(metadata) if metadata.is_dir() && has_mount_namespace && is_host_root(rootfs, &metadata) => {
            Err(Error::config(
                "root.path",
                format!("{} is the root of the host, which can't be pivoted into", rootfs.display()),
            )
            .hint("name the directory of an image, or bind / to another place first and name that"))
        }
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(Error::config(
            "root.path",
            format!("invalid rootfs: {} is not a directory", rootfs.display()),
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::config(
            "root.path",
            format!("invalid rootfs: {}: no such file or directory", rootfs.display()),
        )
        .hint("unpack the image there, or change root.path")),
        Err(error) => Err(error)
            .doing(|| format!("look at the rootfs {}", rootfs.display()))
            .map_err(|error| error.at("root.path")),
    }
}

pub(super) fn check_annotations(annotations: Option<&HashMap<String, String>>, problems: &mut Problems) {
    if annotations.is_some_and(|annotations| annotations.contains_key("")) {
        problems.refuse("annotations[\"\"]", "the key is empty; name the annotation");
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{accepts, refuses};
    use serde_json::{Value, json};

    #[test]
    fn a_root_without_a_path_is_refused() {
        refuses("root", Value::Null, "root");
        refuses("root", json!({}), "root.path");
        refuses("root", json!({"path": ""}), "root.path");
        accepts("root", json!({"path": "/some/where", "readonly": true}));
    }

    #[test]
    fn an_annotation_without_a_name_is_refused() {
        refuses("annotations", json!({"a": "", "": "x"}), "annotations[\"\"]");
        accepts("annotations", json!({"org.example.key": ""}));
    }
}
