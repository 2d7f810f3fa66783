//! The options before the command: where state is kept, who manages cgroups, what is logged where.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use ::log::LevelFilter;

use super::log::{self, Format};
use super::normalise::boolean;
use super::options::any_path;
use crate::cgroup::ManagerChoice;
use crate::container::{self, Settings, Store};
use crate::error::{Doing, Error, Kind, Result};

/// The options that every command shares. They stand before the command's name.
#[derive(Debug, clap::Args)]
pub(super) struct Globals {
    /// Log what is being done, too
    #[arg(long)]
    debug: bool,

    /// Append log records to FILE instead of writing them to standard error
    #[arg(long, value_name = "FILE", value_parser = any_path())]
    log: Option<PathBuf>,

    /// Write log records as text or as json
    #[arg(long, value_name = "FORMAT", default_value = "text", value_parser = format)]
    log_format: Format,

    /// Log records of this level and worse: error, warning, info or debug
    #[arg(long, value_name = "LEVEL", value_parser = level)]
    log_level: Option<LevelFilter>,

    /// Keep the state of containers below DIR, which should be in a tmpfs [default: /run/coracle, or
    /// $XDG_RUNTIME_DIR/coracle for a user]
    #[arg(long, value_name = "DIR", value_parser = any_path())]
    root: Option<PathBuf>,

    /// The criu program that checkpoint and restore use [default: criu of $PATH]
    #[arg(long, value_name = "FILE", value_parser = any_path())]
    criu: Option<PathBuf>,

    /// Let systemd manage cgroups; cgroupsPath is then slice:prefix:name
    #[arg(long)]
    systemd_cgroup: bool,

    /// Who manages cgroups: cgroupfs, systemd or disabled [default: cgroupfs]
    #[arg(long, value_name = "MANAGER", value_parser = manager)]
    cgroup_manager: Option<ManagerChoice>,

    /// Go on where permission on cgroups is missing: true, false, or auto for whoever isn't the host's root
    #[arg(long, value_name = "WHETHER", default_value = "auto", value_parser = rootless)]
    rootless: Rootless,

    /// Print the version
    #[arg(long, short)]
    pub(super) version: bool,
}

/// What a command works with: the containers and the choices of the global options.
pub(super) struct Context {
    pub(super) store: Store,
    pub(super) settings: Settings,
}

/// `None`: found out by the runtime itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rootless(Option<bool>);

impl Globals {
    /// Opens the log that was asked for.
    pub(super) fn start_log(&self) -> Result<()> {
        let level = if self.debug { LevelFilter::Debug } else { self.log_level.unwrap_or(LevelFilter::Info) };
        let file = self.log.as_deref().filter(|file| !file.as_os_str().is_empty());
        log::start(file, self.log_format, level)
    }

    /// Settles where state is kept and who manages cgroups.
    pub(super) fn context(self) -> Result<Context> {
        let manager = match (self.systemd_cgroup, self.cgroup_manager) {
            (false, None) => ManagerChoice::Cgroupfs,
            (true, None | Some(ManagerChoice::Systemd)) => ManagerChoice::Systemd,
            (false, Some(manager)) => manager,
            (true, Some(_)) => {
                return Err(Error::new(
                    Kind::Config,
                    "--systemd-cgroup and --cgroup-manager name different cgroup managers",
                )
                .hint("give one of them"));
            }
        };
        let root = match &self.root {
            Some(root) => given_root(root)?,
            None => default_root()?,
        };
        let settings = Settings {
            manager,
            rootless: self.rootless.0,
            debug: ::log::max_level() >= LevelFilter::Debug,
            criu: self.criu.filter(|path| !path.as_os_str().is_empty()),
        };
        Ok(Context { store: Store::new(&root), settings })
    }
}

fn format(text: &str) -> Result<Format, String> {
    match text {
        "text" => Ok(Format::Text),
        "json" => Ok(Format::Json),
        _ => Err("it must be text or json".to_owned()),
    }
}

fn level(text: &str) -> Result<LevelFilter, String> {
    match text {
        "error" => Ok(LevelFilter::Error),
        "warning" | "warn" => Ok(LevelFilter::Warn),
        "info" => Ok(LevelFilter::Info),
        "debug" => Ok(LevelFilter::Debug),
        _ => Err("it must be error, warning, info or debug".to_owned()),
    }
}

fn manager(text: &str) -> Result<ManagerChoice, String> {
    match text {
        "cgroupfs" => Ok(ManagerChoice::Cgroupfs),
        "systemd" => Ok(ManagerChoice::Systemd),
        "disabled" => Ok(ManagerChoice::Disabled),
        _ => Err("it must be cgroupfs, systemd or disabled".to_owned()),
    }
}

fn rootless(text: &str) -> Result<Rootless, String> {
    if text.is_empty() || text.eq_ignore_ascii_case("auto") {
        return Ok(Rootless(None));
    }
    match boolean(text.as_bytes()) {
        Some(value) => Ok(Rootless(Some(value))),
        None => Err("it must be true, false or auto".to_owned()),
    }
}

/// The absolute form of `--root`. `/` itself is refused, as deleting a container removes a directory below it.
fn given_root(root: &Path) -> Result<PathBuf> {
    if root.as_os_str().is_empty() {
        return Err(Error::new(Kind::Config, "Option --root argument is empty")
            .hint("leave it out, or name a directory"));
    }
    let current = if root.is_absolute() {
        PathBuf::new()
    } else {
        std::env::current_dir()
            .doing(|| format!("find the current directory, to which --root {} is relative", root.display()))?
    };
    let root = cleaned(&current.join(root));
    if root == Path::new("/") {
        return Err(Error::new(Kind::Config, "Option --root argument should not be set to /")
            .hint("name a directory of its own, such as /run/coracle"));
    }
    Ok(root)
}

/// `path` without `.` and `..`, by its text alone, as runc reads it.
fn cleaned(path: &Path) -> PathBuf {
    let mut out = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::ParentDir => {
                out.pop();
            }
            Component::Normal(name) => out.push(name),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    out
}

fn default_root() -> Result<PathBuf> {
    match container::user_runtime_dir() {
        None => Ok(PathBuf::from("/run/coracle")),
        Some(base) => {
            let root = base.join("coracle");
            make_user_root(&root).map_err(|error| {
                error.hint("give a directory of your own with --root, or set XDG_RUNTIME_DIR to one")
            })?;
            Ok(root)
        }
    }
}

/// Makes the user's own state directory. The sticky bit keeps those who tidy the runtime directory (XDG base
/// directory specification) from removing it while containers live.
fn make_user_root(root: &Path) -> Result<()> {
    const MODE: u32 = 0o1700;
    let doing = || format!("make the state directory {}", root.display());
    fs::DirBuilder::new().recursive(true).mode(0o700).create(root).doing(doing)?;
    let flags = rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::CLOEXEC;
    let opened = rustix::fs::open(root, flags, rustix::fs::Mode::empty()).doing(doing)?;
    let directory = fs::File::from(opened);
    let metadata = directory.metadata().doing(doing)?;
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(Error::new(
            Kind::System,
            format!("{} belongs to user {}", root.display(), metadata.uid()),
        ));
    }
    if metadata.mode() & 0o7777 != MODE {
        directory.set_permissions(fs::Permissions::from_mode(MODE)).doing(doing)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_cleaned_by_its_text() {
        for (path, clean) in [("/a/../b/./c//", "/b/c"), ("/../..", "/"), ("/a/b/..", "/a"), ("/", "/")] {
            assert_eq!(cleaned(Path::new(path)), Path::new(clean));
        }
    }

    #[test]
    fn the_root_is_never_the_file_systems_root() {
        for path in ["/", "//", "/..", "/a/.."] {
            assert!(given_root(Path::new(path)).is_err(), "{path}");
        }
    }

    #[test]
    fn rootless_is_a_boolean_or_auto() {
        assert_eq!(rootless("Auto"), Ok(Rootless(None)));
        assert_eq!(rootless("true"), Ok(Rootless(Some(true))));
        assert_eq!(rootless("0"), Ok(Rootless(Some(false))));
        assert!(rootless("maybe").is_err());
    }
}
