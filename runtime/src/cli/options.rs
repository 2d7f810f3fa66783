//! Groups of options that several commands share, and how their texts become paths and values.

use std::path::{Path, PathBuf};

use clap::builder::{OsStringValueParser, TypedValueParser};

use crate::container::{CgroupsMode, CreateOptions, listen_fds};
use crate::error::{Doing, Error, Kind, Result};

use super::log;

/// The options of `create`, which `run` has, too.
#[derive(Debug, clap::Args)]
pub(super) struct CreateFlags {
    /// The bundle: the directory with config.json and the root filesystem
    #[arg(long, short, value_name = "DIR", default_value = ".", value_parser = any_path())]
    bundle: PathBuf,

    /// The name of the configuration in the bundle
    #[arg(long, short = 'f', value_name = "NAME", default_value = "config.json")]
    config: String,

    /// Send the terminal's master to this AF_UNIX socket
    #[arg(long, value_name = "SOCKET", value_parser = any_path())]
    console_socket: Option<PathBuf>,

    /// Send a pidfd of the container's first process to this AF_UNIX socket
    #[arg(long, value_name = "SOCKET", value_parser = any_path())]
    pidfd_socket: Option<PathBuf>,

    /// Write the pid of the container's first process to FILE
    #[arg(long, value_name = "FILE", value_parser = any_path())]
    pid_file: Option<PathBuf>,

    /// Enter the root filesystem without pivot_root(2), as one on a ramdisk needs
    #[arg(long)]
    no_pivot: bool,

    /// Leave the container in the caller's session keyring
    #[arg(long)]
    no_new_keyring: bool,

    /// Pass N descriptors more, after standard input, output, error and those of $LISTEN_FDS
    #[arg(long, value_name = "N", default_value = "0")]
    preserve_fds: u32,
}

impl CreateFlags {
    pub(super) fn options(self) -> Result<CreateOptions> {
        check_descriptors(listen_fds(), self.preserve_fds)?;
        Ok(CreateOptions {
            bundle: directory(self.bundle),
            config: if self.config.is_empty() { "config.json".to_owned() } else { self.config },
            console_socket: path(self.console_socket)?,
            pidfd_socket: path(self.pidfd_socket)?,
            pid_file: path(self.pid_file)?,
            no_pivot: self.no_pivot,
            no_new_keyring: self.no_new_keyring,
            preserve_fds: self.preserve_fds,
        })
    }
}

/// clap's parser for paths, but with the empty one, which go-runc's callers may give for "none".
pub(super) fn any_path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

/// The absolute form of an optional path; an empty one is no path, as for runc.
pub(super) fn path(path: Option<PathBuf>) -> Result<Option<PathBuf>> {
    path.filter(|path| !path.as_os_str().is_empty()).map(|path| absolute(&path)).transpose()
}

pub(super) fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).doing(|| format!("find the absolute form of {}", path.display()))
}

/// A directory's path; an empty one is the current directory.
pub(super) fn directory(path: PathBuf) -> PathBuf {
    if path.as_os_str().is_empty() { PathBuf::from(".") } else { path }
}

/// An optional text; an empty one is none, as for runc.
pub(super) fn text(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

/// Whether each of the descriptors to pass on, `sockets` of `$LISTEN_FDS` and `count` after them, is there, and is the
/// caller's: one that isn't could be taken by a file of the runtime itself, such as its log.
pub(super) fn check_descriptors(sockets: u32, count: u32) -> Result<()> {
    let all = sockets.saturating_add(count);
    for number in 3..all.saturating_add(3) {
        let known = Path::new("/proc/self/fd").join(number.to_string()).symlink_metadata().is_ok();
        if !known || i32::try_from(number).ok() == log::descriptor() {
            return Err(Error::new(
                Kind::Config,
                format!("pass on {all} descriptors from number 3: descriptor {number} is not open"),
            )
            .hint("open them all before the call, or ask $LISTEN_FDS and --preserve-fds for fewer"));
        }
    }
    Ok(())
}

/// Reads `--manage-cgroups-mode`.
pub(super) fn cgroups_mode(text: &str) -> Result<CgroupsMode, String> {
    match text {
        "soft" => Ok(CgroupsMode::Soft),
        "full" => Ok(CgroupsMode::Full),
        "strict" => Ok(CgroupsMode::Strict),
        "ignore" => Ok(CgroupsMode::Ignore),
        _ => Err("it must be soft, full, strict or ignore".to_owned()),
    }
}

/// Reads `--empty-ns`, of which CRIU knows one.
pub(super) fn empty_namespace(text: &str) -> Result<String, String> {
    match text {
        "network" => Ok(text.to_owned()),
        _ => Err(format!("namespace {text:?} is not supported; it must be network")),
    }
}

/// Where checkpoints are kept when `--image-path` isn't given: `checkpoint` in the current directory.
pub(super) fn image_path(path: Option<PathBuf>) -> Result<PathBuf> {
    match self::path(path)? {
        Some(path) => Ok(path),
        None => absolute(Path::new("checkpoint")),
    }
}
