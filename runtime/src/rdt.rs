//! Classes of service of Intel RDT: shares of caches and of memory bandwidth, and their monitoring (runtime-spec,
//! config-linux.md "IntelRdt"; the kernel's Documentation/filesystems/resctrl.rst).
//!
//! It owns what Coracle does below the mount of resctrl: finding it, making a class or checking one that is there,
//! putting processes into it, removing what is the container's own. It promises that a class that was there before is
//! never changed by `create` and never removed, and that an error has the kernel's own words where it left some.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, mkdirat, openat, unlinkat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::error::{Doing, Error, Kind, Result};
use crate::mountinfo;
use crate::plan::rdt::{Line, Rdt};

const PLACE: &str = "linux.intelRdt";
/// Where the kernel puts what it thinks of the last request, below the mount's root.
const LAST_WORDS: &str = "info/last_cmd_status";
/// The directory of monitoring groups in a class.
const MONITORING_GROUPS: &str = "mon_groups";
/// The most that is read of a file here, in bytes.
const LONGEST: usize = 64 * 1024;

/// What is needed to find a container's class again: kept in `state.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// The class's directory.
    pub path: PathBuf,
    /// It was made for this container, and goes with it.
    pub own: bool,
    /// The container's monitoring group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monitoring: Option<PathBuf>,
}

/// A class that is found, or to be made.
#[derive(Debug)]
pub struct Class<'a> {
    wanted: &'a Rdt,
    mount: PathBuf,
    root: OwnedFd,
    /// The class that is there already.
    found: Option<OwnedFd>,
}

impl<'a> Class<'a> {
    /// Looks for the class. Nothing is made yet.
    pub fn look_for(wanted: &'a Rdt) -> Result<Self> {
        let mount = find_mount()?;
        let root = open_directory(CWD, &mount)
            .doing(|| format!("open {}", mount.display()))
            .map_err(|error| error.at(PLACE))?;
        let found = match &wanted.class {
            None => Some(open_directory(&root, Path::new(".")).doing(|| "open the root of resctrl")?),
            Some(name) => match open_directory(&root, Path::new(name)) {
                Ok(class) => Some(class),
                Err(Errno::NOENT) if wanted.own || wanted.settings().next().is_some() => None,
                Err(errno) => {
                    let path = mount.join(name);
                    return Err(Error::os(errno, format!("open the class of service {}", path.display()))
                        .at(format!("{PLACE}.closID"))
                        .hint("a class that is only named must be there: make it, or give schemata for a new one"));
                }
            },
        };
        let class = Self { wanted, mount, root, found };
        if let Some(found) = &class.found {
            class.compare(found)?;
        }
        Ok(class)
    }

    /// What is to be remembered.
    pub fn record(&self) -> Record {
        let path = self.path();
        let monitoring = self.wanted.monitoring.as_ref().map(|name| path.join(MONITORING_GROUPS).join(name));
        Record { own: self.wanted.own && self.found.is_none(), monitoring, path }
    }

    /// What [`Class::make`] has made: the class too, whoever named it.
    pub fn made(&self) -> Record {
        Record { own: self.found.is_none(), ..self.record() }
    }

    fn path(&self) -> PathBuf {
        self.wanted.class.as_ref().map_or_else(|| self.mount.clone(), |name| self.mount.join(name))
    }

    /// Makes the class, where it isn't there, and the monitoring group. What was made goes again when a part fails.
    pub fn make(&self) -> Result<()> {
        let Some(name) = self.wanted.class.as_ref().filter(|_| self.found.is_none()) else {
            let Some(class) = &self.found else { return Ok(()) };
            self.wanted.schemata.iter().try_for_each(|line| self.write_line(class, line))?;
            return self.monitor(class);
        };
        let doing = || format!("make the class of service {}", self.path().display());
        mkdirat(&self.root, name.as_str(), Mode::from_raw_mode(0o755)).doing(doing).map_err(|error| {
            match error.errno() {
                Some(Errno::NOSPC) => self.explain(error.at(PLACE).hint(
                    "all classes of service of this machine are taken: remove one, or share one by its closID",
                )),
                _ => self.explain(error.at(PLACE)),
            }
        })?;
        let filled = open_directory(&self.root, Path::new(name)).doing(doing).and_then(|class| {
            let write = |line: &Line| self.write_line(&class, line);
            self.wanted.settings().try_for_each(write)?;
            self.monitor(&class)
        });
        if filled.is_err() {
            // The failure that led here is the one to tell.
            let _ = unlinkat(&self.root, name.as_str(), AtFlags::REMOVEDIR);
        }
        filled
    }

    /// Makes the monitoring group.
    fn monitor(&self, class: &OwnedFd) -> Result<()> {
        let Some(name) = &self.wanted.monitoring else { return Ok(()) };
        let path = Path::new(MONITORING_GROUPS).join(name);
        mkdirat(class, &path, Mode::from_raw_mode(0o755))
            .doing(|| format!("make the monitoring group {}", self.path().join(&path).display()))
            .map_err(|error| error.at(format!("{PLACE}.enableMonitoring")))
            .map_err(|error| match error.errno() {
                Some(Errno::NOSPC) => {
                    self.explain(error.hint("all monitoring ids of this machine are taken"))
                }
                Some(Errno::NOENT) => error.hint("this machine doesn't support monitoring"),
                _ => self.explain(error),
            })
    }

    fn write_line(&self, class: &OwnedFd, line: &Line) -> Result<()> {
        write(class, "schemata", &format!("{}\n", line.text))
            .doing(|| format!("write {:?} to {}", line.text, self.path().join("schemata").display()))
            .map_err(|error| if line.place.is_empty() { error } else { error.at(line.place.clone()) })
            .map_err(|error| self.explain(error))
    }

    /// Adds the kernel's own words.
    fn explain(&self, error: Error) -> Error {
        match read(&self.root, LAST_WORDS) {
            Ok(words) if !words.trim().is_empty() && words.trim() != "ok" => {
                error.hint(format!("the kernel says: {}", words.trim()))
            }
            _ => error,
        }
    }

    /// A class that is there already must have what `l3CacheSchema` and `memBwSchema` ask for: other containers may be in
    /// it. `schemata` says what it is to have from now on.
    fn compare(&self, class: &OwnedFd) -> Result<()> {
        if self.wanted.matched.is_empty() {
            return Ok(());
        }
        let path = self.path();
        let has = read(class, "schemata").doing(|| format!("read {}", path.join("schemata").display()))?;
        match self.wanted.matched.iter().find(|line| !has_setting(&has, &line.text)) {
            None => Ok(()),
            Some(line) => Err(Error::config(
                line.place.clone(),
                format!(
                    "the class of service {} is there already, and {:?} doesn't match its schemata: {}",
                    path.display(),
                    line.text,
                    has.lines().map(str::trim).collect::<Vec<_>>().join(", ")
                ),
            )
            .hint("give the schemata that it has or none, or name a class that isn't there yet")),
        }
    }
}

impl Record {
    /// Puts a process into the class and the monitoring group. Its children will be born there.
    pub fn add(&self, pid: i32) -> Result<()> {
        [Some(&self.path), self.monitoring.as_ref()].into_iter().flatten().try_for_each(|path| {
            open_directory(CWD, path)
                .and_then(|group| write(&group, "tasks", &pid.to_string()))
                .doing(|| format!("put process {pid} into the class of service {}", path.display()))
                .map_err(|error| error.at(PLACE))
        })
    }

    /// Changes the settings of the class.
    pub fn change(&self, schemata: &[Line]) -> Result<()> {
        let doing = || format!("open the class of service {}", self.path.display());
        let class = open_directory(CWD, &self.path).doing(doing)?;
        let mount = find_mount()?;
        let root = open_directory(CWD, &mount).doing(|| format!("open {}", mount.display()))?;
        let name = self.path.strip_prefix(&mount).ok().and_then(Path::to_str).unwrap_or_default().to_owned();
        let wanted = Rdt {
            class: Some(name),
            own: false,
            matched: Vec::new(),
            schemata: Vec::new(),
            monitoring: None,
        };
        let writer = Class { wanted: &wanted, mount, root, found: None };
        schemata.iter().try_for_each(|line| writer.write_line(&class, line))
    }

    /// Removes the monitoring group, and the class if it is the container's own. What isn't there needs no removing.
    pub fn remove(&self) -> Result<()> {
        let own = self.own.then_some(&self.path);
        [self.monitoring.as_ref(), own].into_iter().flatten().try_for_each(|path| {
            match unlinkat(CWD, path, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT | Errno::NOTDIR) => Ok(()),
                Err(errno) => {
                    Err(Error::os(errno, format!("remove the class of service {}", path.display())))
                }
            }
        })
    }
}

/// Where resctrl is mounted in the runtime's mount namespace.
fn find_mount() -> Result<PathBuf> {
    // Somebody's mount elsewhere may have a name that is no text.
    let table = std::fs::read("/proc/self/mountinfo").doing(|| "read /proc/self/mountinfo")?;
    let mount = mountinfo::parse(&String::from_utf8_lossy(&table))
        .into_iter()
        .find(|mount| mount.fstype == "resctrl");
    mount.map(|mount| mount.target).ok_or_else(|| {
        Error::new(Kind::Unsupported, "no resctrl filesystem is mounted, which Intel RDT is set through")
            .at(PLACE)
            .hint("mount -t resctrl resctrl /sys/fs/resctrl; the CPU must have the feature (cat_l3, mba, cqm in /proc/cpuinfo)")
    })
}

fn open_directory(at: impl AsFd, path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(at, path, flags, Mode::empty())
}

/// Writes to a file that is there, by one call, as resctrl wants it.
fn write(directory: &OwnedFd, name: &str, text: &str) -> Result<(), Errno> {
    let file = openat(directory, name, OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, text.as_bytes()).map(drop)
}

fn read(directory: &OwnedFd, name: &str) -> Result<String, Errno> {
    let file = openat(directory, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let mut bytes = vec![0; LONGEST];
    let length = rustix::io::read(&file, &mut bytes)?;
    bytes.truncate(length);
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Whether schemata as the kernel shows them (padded, with every cache) have what a line asks for.
fn has_setting(schemata: &str, line: &str) -> bool {
    let Some((resource, wanted)) = parse_line(line) else { return false };
    let has = schemata.lines().filter_map(parse_line).find(|(name, _)| *name == resource);
    has.is_some_and(|(_, has)| wanted.iter().all(|domain| has.contains(domain)))
}

/// `L3:0=7ff;1=1f` as its resource, and each cache's id with the value; masks have no leading zeros then.
fn parse_line(line: &str) -> Option<(&str, Vec<(&str, String)>)> {
    let (resource, domains) = line.trim().split_once(':')?;
    let domains = domains.split(';').filter(|domain| !domain.trim().is_empty()).map(|domain| {
        let (id, value) = domain.split_once('=')?;
        let value = value.trim();
        let value = value.strip_prefix("0x").unwrap_or(value).trim_start_matches('0').to_ascii_lowercase();
        Some((id.trim(), value))
    });
    Some((resource.trim(), domains.collect::<Option<_>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_found_however_the_kernel_pads_it() {
        let shown = "    MB:0= 100;1=  70\n    L3:0=007f0;1=1f\n";
        for line in ["L3:0=7f0;1=1f", "L3:1=1F", "MB:0=100;1=70", "L3:0=0x7f0", "MB:0=100;"] {
            assert!(has_setting(shown, line), "{line}");
        }
        for line in ["L3:0=7f", "L2:0=f", "MB:0=10", "L3:2=1f", "L3", "L3:0"] {
            assert!(!has_setting(shown, line), "{line}");
        }
    }
}
