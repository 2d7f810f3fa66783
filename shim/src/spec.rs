//! What the shim itself wants to know of a bundle, and the small files that it keeps there.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use coracle::error::{Doing, Error, Kind, Result};
use serde::Deserialize;

use crate::failure::Failure;
use crate::options::Options;

/// The parts of `config.json` that matter here; the runtime reads and checks the whole.
#[derive(Debug, Default, Deserialize)]
struct Config {
    #[serde(default)]
    annotations: Option<HashMap<String, String>>,
    #[serde(default)]
    linux: Option<Linux>,
}

#[derive(Debug, Default, Deserialize)]
struct Linux {
    #[serde(default)]
    namespaces: Option<Vec<Namespace>>,
}

#[derive(Debug, Deserialize)]
struct Namespace {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    path: Option<String>,
}

/// The annotations that put a container into a group with others, which share a shim; the first one counts.
const GROUPS: [&str; 2] = ["io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id"];

fn read(bundle: &Path) -> Result<Config> {
    let path = bundle.join("config.json");
    let doing = || format!("read {}", path.display());
    let text = std::fs::read(&path).doing(doing)?;
    serde_json::from_slice(&text).map_err(|error| Error::new(Kind::Config, format!("{}: {error}", doing())))
}

/// The group of the bundle's container, if it is in one.
pub fn group(bundle: &Path) -> Result<Option<String>> {
    let annotations = read(bundle)?.annotations.unwrap_or_default();
    Ok(GROUPS.iter().find_map(|name| annotations.get(*name)).cloned())
}

/// Whether the container has no pid namespace that ends with its first process.
pub fn shares_pids(bundle: &Path) -> Result<bool> {
    let namespaces = read(bundle)?.linux.and_then(|linux| linux.namespaces).unwrap_or_default();
    let own = |namespace: &Namespace| {
        namespace.kind == "pid" && namespace.path.as_ref().is_none_or(String::is_empty)
    };
    Ok(!namespaces.iter().any(own))
}

/// Writes a file of the shim's in the bundle, whose directory others may enter: for the shim's user alone, whatever the
/// umask.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    write_as(OpenOptions::new().write(true).truncate(true), path, bytes)
}

/// Adds to such a file.
pub fn append(path: &Path, bytes: &[u8]) -> Result<()> {
    write_as(OpenOptions::new().append(true), path, bytes)
}

fn write_as(options: &mut OpenOptions, path: &Path, bytes: &[u8]) -> Result<()> {
    options
        .create(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(bytes))
        .doing(|| format!("write {}", path.display()))
}

/// Keeps the runtime's name in the bundle, as containerd's own shim does.
pub fn save_runtime(bundle: &Path, options: &Options) -> Result<()> {
    let path = bundle.join("runtime");
    let name = options.other_runtime.as_deref().map_or_else(|| "coracle".into(), Path::to_string_lossy);
    write(&path, name.as_bytes())
}

/// Where the pid of the first process is kept, for the invocation `delete`.
pub fn pid_file(bundle: &Path) -> PathBuf {
    bundle.join("init.pid")
}

/// Where the pid of an exec's process is kept, until the exec is deleted. Its id may well be `init`, whose name here is none
/// that another id could have.
pub fn exec_pid_file(bundle: &Path, exec_id: &str) -> PathBuf {
    bundle.join(if exec_id == "init" { "init.pid.exec".to_owned() } else { format!("{exec_id}.pid") })
}

/// Keeps a pid in the bundle.
pub fn save_pid(file: &Path, pid: i32) {
    if let Err(error) = write(file, pid.to_string().as_bytes()) {
        log::warn!("{error}");
    }
}

/// The pid of the first process, if it was kept; 0 else.
pub fn load_pid(bundle: &Path) -> u32 {
    let text = std::fs::read_to_string(pid_file(bundle)).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

/// The id of an exec becomes the name of a file.
pub fn check_exec_id(id: &str) -> Result<(), Failure> {
    if id.contains(['/', '\0']) || matches!(id, "." | "..") || id.len() > 200 {
        return Err(Failure::invalid(format!("exec_id {id:?} can't be the name of a file")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_exec_has_the_pid_file_of_the_first_process() {
        let bundle = Path::new("/bundle");
        assert_eq!(exec_pid_file(bundle, "one"), Path::new("/bundle/one.pid"));
        assert_ne!(exec_pid_file(bundle, "init"), pid_file(bundle));
    }
}
