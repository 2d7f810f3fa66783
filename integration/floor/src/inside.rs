//! The container's side: from the clone to the execve. Every constant here is a line of the `config.json` that
//! `runc spec` writes.

use std::ffi::{CStr, CString};

use libc::{
    MS_BIND, MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_PRIVATE, MS_RDONLY, MS_REC, MS_REMOUNT, MS_STRICTATIME,
};

use crate::cgroup::Cgroups;
use crate::marks::{Mark, Marks};
use crate::run::{Attach, Options};
use crate::sys::{self, Error, Fd, Result};

const MASKED: [&CStr; 10] = [
    c"/proc/acpi",
    c"/proc/asound",
    c"/proc/kcore",
    c"/proc/keys",
    c"/proc/latency_stats",
    c"/proc/timer_list",
    c"/proc/timer_stats",
    c"/proc/sched_debug",
    c"/sys/firmware",
    c"/proc/scsi",
];

const READ_ONLY: [&CStr; 5] = [c"/proc/bus", c"/proc/fs", c"/proc/irq", c"/proc/sys", c"/proc/sysrq-trigger"];

/// Path, major and minor number of the device nodes that every container has.
const DEVICES: [(&CStr, u32, u32); 6] = [
    (c"dev/null", 1, 3),
    (c"dev/zero", 1, 5),
    (c"dev/full", 1, 7),
    (c"dev/random", 1, 8),
    (c"dev/urandom", 1, 9),
    (c"dev/tty", 5, 0),
];

const LINKS: [(&CStr, &CStr); 5] = [
    (c"pts/ptmx", c"dev/ptmx"),
    (c"/proc/self/fd", c"dev/fd"),
    (c"/proc/self/fd/0", c"dev/stdin"),
    (c"/proc/self/fd/1", c"dev/stdout"),
    (c"/proc/self/fd/2", c"dev/stderr"),
];

const CAP_KILL: u32 = 5;
const CAP_NET_BIND_SERVICE: u32 = 10;
const CAP_AUDIT_WRITE: u32 = 29;
const CAPABILITIES: u64 = 1 << CAP_KILL | 1 << CAP_NET_BIND_SERVICE | 1 << CAP_AUDIT_WRITE;

/// Where the process waits until its cgroups are there.
pub struct Gate(pub Fd);

/// Builds the container around the calling process and executes. Tells a failure on standard error.
pub fn enter(options: &Options, cgroups: &Cgroups, gate: &Gate, marks: &Marks) -> ! {
    let error = match build(options, cgroups, gate, marks) {
        Ok(never) => match never {},
        Err(error) => error,
    };
    eprintln!("floor: in the container: {error}");
    sys::exit(1)
}

fn build(
    options: &Options,
    cgroups: &Cgroups,
    gate: &Gate,
    marks: &Marks,
) -> Result<std::convert::Infallible> {
    if !options.serial {
        sys::unshare(libc::CLONE_NEWNET)?;
    }
    sys::mount(None, c"/", None, MS_REC | MS_PRIVATE, None)?;
    sys::mount(Some(&options.rootfs), &options.rootfs, None, MS_BIND | MS_REC, None)?;
    sys::chdir(&options.rootfs)?;
    default_mounts()?;
    devices()?;
    marks.set(Mark::Mounted);

    sys::wait_for_byte(gate.0)?;
    marks.set(Mark::GatePassed);
    if options.attach == Attach::Tasks {
        cgroups.join()?;
    }
    marks.set(Mark::Joined);
    mount_cgroups(cgroups, options.cgroup_namespace)?;
    marks.set(Mark::CgroupsMounted);

    sys::pivot_root(c".", c".")?;
    // The old root now lies on top of the new one.
    sys::umount_detach(c".")?;
    sys::mount(None, c"/", None, MS_REMOUNT | MS_BIND | MS_RDONLY, None)?;
    marks.set(Mark::Pivoted);
    mask()?;
    marks.set(Mark::Masked);

    sys::sethostname(b"runc")?;
    sys::set_nofile(1024)?;
    sys::clear_groups()?;
    for capability in 0..=sys::LAST_CAPABILITY {
        if CAPABILITIES & 1 << capability == 0 {
            sys::drop_from_bounding_set(capability)?;
        }
    }
    sys::set_capabilities(CAPABILITIES)?;
    sys::no_new_privs()?;
    sys::close_from(3)?;
    marks.set(Mark::Execute);
    let environment = [
        c"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
        c"TERM=xterm".to_owned(),
    ];
    sys::execute(&options.program, &environment)
}

fn default_mounts() -> Result<()> {
    let quiet = MS_NOSUID | MS_NOEXEC | MS_NODEV;
    sys::mount(Some(c"proc"), c"proc", Some(c"proc"), 0, None)?;
    let dev = c"mode=755,size=65536k";
    sys::mount(Some(c"tmpfs"), c"dev", Some(c"tmpfs"), MS_NOSUID | MS_STRICTATIME, Some(dev))?;
    for directory in [c"dev/pts", c"dev/shm", c"dev/mqueue"] {
        sys::mkdir(directory, 0o755)?;
    }
    let pts = c"newinstance,ptmxmode=0666,mode=0620,gid=5";
    sys::mount(Some(c"devpts"), c"dev/pts", Some(c"devpts"), MS_NOSUID | MS_NOEXEC, Some(pts))?;
    sys::mount(Some(c"shm"), c"dev/shm", Some(c"tmpfs"), quiet, Some(c"mode=1777,size=65536k"))?;
    sys::mount(Some(c"mqueue"), c"dev/mqueue", Some(c"mqueue"), quiet, None)?;
    sys::mount(Some(c"sysfs"), c"sys", Some(c"sysfs"), quiet | MS_RDONLY, None)
}

fn devices() -> Result<()> {
    sys::umask(0);
    for (path, major, minor) in DEVICES {
        sys::mknod(path, major, minor)?;
    }
    for (target, path) in LINKS {
        sys::symlink(target, path)?;
    }
    sys::umask(0o022);
    Ok(())
}

/// A tmpfs that holds one mount for each hierarchy, then all of it read-only in one call.
fn mount_cgroups(cgroups: &Cgroups, namespace: bool) -> Result<()> {
    if namespace {
        sys::unshare(libc::CLONE_NEWCGROUP)?;
    }
    let quiet = MS_NOSUID | MS_NOEXEC | MS_NODEV;
    sys::mount(Some(c"cgroup"), c"sys/fs/cgroup", Some(c"tmpfs"), quiet, Some(c"mode=755"))?;
    for hierarchy in &cgroups.hierarchies {
        let point: CString = hierarchy.mount_point()?;
        sys::mkdir(&point, 0o755)?;
        if namespace {
            sys::mount(Some(c"cgroup"), &point, Some(c"cgroup"), quiet, Some(&hierarchy.data))?;
        } else {
            sys::mount(Some(hierarchy.host_path()), &point, None, MS_BIND, None)?;
        }
    }
    sys::seal_tree(c"sys/fs/cgroup")
}

fn mask() -> Result<()> {
    for path in MASKED {
        match sys::mount(Some(c"/dev/null"), path, None, MS_BIND, None) {
            Err(Error { errno: libc::ENOENT, .. }) => {}
            // A directory takes no bind of a file.
            Err(Error { errno: libc::ENOTDIR, .. }) => {
                sys::mount(
                    Some(c"tmpfs"),
                    path,
                    Some(c"tmpfs"),
                    MS_RDONLY,
                    Some(c"nr_blocks=1,nr_inodes=1"),
                )?;
            }
            other => other?,
        }
    }
    for path in READ_ONLY {
        match sys::mount(Some(path), path, None, MS_BIND | MS_REC, None) {
            Err(Error { errno: libc::ENOENT, .. }) => {}
            other => {
                other?;
                sys::mount(None, path, None, MS_REMOUNT | MS_BIND | MS_RDONLY, None)?;
            }
        }
    }
    Ok(())
}
