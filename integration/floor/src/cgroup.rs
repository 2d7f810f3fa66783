//! The container's cgroups of version 1: one in each hierarchy that this process sits in, below its own.

use std::ffi::{CStr, CString};

use crate::sys::{self, Error, Fd, Result};

/// The device rules that runtimes write for `{"allow": false, "access": "rwm"}`: all denied, then what every
/// container may have: mknod of anything, null, zero, full, random, urandom, tty, pts, ptmx.
const ALLOWED_DEVICES: [&[u8]; 10] = [
    b"c *:* m",
    b"b *:* m",
    b"c 1:3 rwm",
    b"c 1:5 rwm",
    b"c 1:7 rwm",
    b"c 1:8 rwm",
    b"c 1:9 rwm",
    b"c 5:0 rwm",
    b"c 136:* rwm",
    b"c 5:2 rwm",
];

/// One hierarchy, and the container's cgroup in it.
pub struct Hierarchy {
    /// The name of its mount: `memory`, `systemd`.
    pub name: CString,
    /// What `mount -t cgroup` calls it: `memory`, `none,name=systemd`.
    pub data: CString,
    /// The container's cgroup.
    pub path: CString,
    parent: String,
    made: bool,
}

/// All cgroups of one container.
pub struct Cgroups {
    /// One in each hierarchy.
    pub hierarchies: Vec<Hierarchy>,
}

fn text(s: String) -> Result<CString> {
    CString::new(s).map_err(|_| Error::new("a cgroup path with a NUL byte", libc::EINVAL))
}

impl Cgroups {
    /// Reads where this process sits and names the cgroups to make. Makes nothing yet.
    pub fn of_this_process(id: Option<&str>) -> Result<Self> {
        let mut buffer = [0u8; 4096];
        let listing = sys::read_file(c"/proc/self/cgroup", &mut buffer)?;
        let listing = String::from_utf8_lossy(listing);
        let id = id.map_or_else(|| format!("coracle-floor-{}", sys::getpid()), str::to_owned);
        let mut hierarchies = Vec::with_capacity(16);
        for line in listing.lines() {
            let mut fields = line.splitn(3, ':');
            let (Some(_), Some(controllers), Some(own)) = (fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            // The line without a controller is the cgroup2 of a hybrid host, where no default bundle has work.
            if controllers.is_empty() {
                continue;
            }
            let (name, data) = match controllers.strip_prefix("name=") {
                Some(name) => (name, format!("none,{controllers}")),
                None => (controllers, controllers.to_owned()),
            };
            let parent = format!("/sys/fs/cgroup/{name}{}", own.trim_end_matches('/'));
            hierarchies.push(Hierarchy {
                name: text(name.to_owned())?,
                data: text(data)?,
                path: text(format!("{parent}/{id}"))?,
                parent,
                made: false,
            });
        }
        if hierarchies.is_empty() {
            return Err(Error::new("find cgroup version 1 in /proc/self/cgroup", libc::ENOENT));
        }
        Ok(Self { hierarchies })
    }

    /// Makes them, gives cpuset its processors and memory nodes, and writes the device rules.
    pub fn make(&mut self) -> Result<()> {
        for hierarchy in &mut self.hierarchies {
            sys::mkdir(&hierarchy.path, 0o755)?;
            hierarchy.made = true;
            match hierarchy.name.to_bytes() {
                b"cpuset" => {
                    // A new cpuset is empty, and an empty one takes no process.
                    for file in ["cpuset.cpus", "cpuset.mems"] {
                        let mut buffer = [0u8; 4096];
                        let value =
                            sys::read_file(&text(format!("{}/{file}", hierarchy.parent))?, &mut buffer)?;
                        hierarchy.write(file, &[value])?;
                    }
                }
                b"devices" => {
                    hierarchy.write("devices.deny", &[b"a"])?;
                    hierarchy.write("devices.allow", &ALLOWED_DEVICES)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Moves the calling process, which has one thread, into all of them.
    pub fn join(&self) -> Result<()> {
        self.hierarchies.iter().try_for_each(|h| h.write("tasks", &[b"0"]))
    }

    /// Moves process `pid` into all of them.
    pub fn attach(&self, pid: i32) -> Result<()> {
        let pid = pid.to_string();
        self.hierarchies.iter().try_for_each(|h| h.write("cgroup.procs", &[pid.as_bytes()]))
    }

    /// Removes those that were made. Goes on after a failure and tells the first.
    pub fn remove(&mut self) -> Result<()> {
        let mut result = Ok(());
        for hierarchy in self.hierarchies.iter_mut().filter(|h| h.made) {
            hierarchy.made = false;
            result = result.and(sys::rmdir(&hierarchy.path));
        }
        result
    }
}

impl Hierarchy {
    fn write(&self, file: &str, values: &[&[u8]]) -> Result<()> {
        let fd: Fd = sys::open_for_writing(&text(format!("{}/{file}", self.path.to_string_lossy()))?)?;
        // Closed by the execve or the exit.
        values.iter().try_for_each(|value| sys::write(fd, value, "write to a cgroup file"))
    }

    /// The mount point in the container.
    pub fn mount_point(&self) -> Result<CString> {
        text(format!("sys/fs/cgroup/{}", self.name.to_string_lossy()))
    }

    /// The path of the container's cgroup on the host.
    pub fn host_path(&self) -> &CStr {
        &self.path
    }
}
