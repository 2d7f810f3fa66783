//! The parent's side of a run: clone, cgroups, wait, removal.

use std::ffi::CString;

use crate::cgroup::Cgroups;
use crate::inside::{self, Gate};
use crate::marks::{Mark, Marks};
use crate::sys::{self, Error};

/// How the container's process gets into its cgroups.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Attach {
    /// It writes "0" to each `tasks` file itself. The kernel then moves only the calling thread, and takes no
    /// global lock (`cgroup_procs_write_start` in kernel/cgroup/cgroup.c).
    Tasks,
    /// The parent writes its pid to each `cgroup.procs`. The kernel takes `cgroup_threadgroup_rwsem` for
    /// writing, which waits for an RCU grace period when nobody did so shortly before.
    Procs,
}

/// What to run and how.
pub struct Options {
    /// The name of the cgroups; made from the pid when missing.
    pub id: Option<String>,
    /// The root filesystem.
    pub rootfs: CString,
    /// The program and its arguments.
    pub program: Vec<CString>,
    /// How to join the cgroups.
    pub attach: Attach,
    /// Nothing at the same time: the cgroups first, then a clone with all namespaces. Otherwise the parent makes
    /// the cgroups while the process makes its network namespace, which is most of what a clone costs, and its
    /// mounts.
    pub serial: bool,
    /// With a cgroup namespace.
    pub cgroup_namespace: bool,
    /// Print the times of the phases.
    pub times: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            id: None,
            rootfs: CString::default(),
            program: vec![c"/bin/true".to_owned()],
            attach: Attach::Tasks,
            serial: false,
            cgroup_namespace: false,
            times: false,
        }
    }
}

/// Runs the container. Gives the exit status that a shell would: the program's own, or 128 and the signal.
pub fn run(options: &Options) -> Result<u8, Error> {
    let marks = Marks::new(options.times)?;
    marks.set(Mark::Begin);
    let mut cgroups = Cgroups::of_this_process(options.id.as_deref())?;
    let outcome = run_in(options, &mut cgroups, &marks);
    let removed = cgroups.remove();
    marks.set(Mark::Removed);
    let status = outcome?;
    removed?;
    marks.print();
    Ok(status)
}

fn run_in(options: &Options, cgroups: &mut Cgroups, marks: &Marks) -> Result<u8, Error> {
    // One byte from the parent says that the cgroups are ready; end of file says that it failed.
    let (gate, opener) = sys::pipe()?;
    let make = |cgroups: &mut Cgroups| {
        cgroups.make()?;
        marks.set(Mark::CgroupsMade);
        Ok(())
    };
    if options.serial {
        make(cgroups)?;
    }
    let mut flags = libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | libc::CLONE_NEWNS;
    if options.serial {
        flags |= libc::CLONE_NEWNET;
    }
    let Some(child) = sys::clone3(flags)? else {
        marks.set(Mark::Born);
        sys::close(opener);
        inside::enter(options, cgroups, &Gate(gate), marks);
    };
    marks.set(Mark::Cloned);
    sys::close(gate);
    let prepared = (|| {
        if !options.serial {
            make(cgroups)?;
        }
        if options.attach == Attach::Procs {
            cgroups.attach(child)?;
        }
        sys::write(opener, b"g", "open the gate")
    })();
    sys::close(opener);
    // The child ends by itself: the gate is open, or at its end.
    let status = sys::wait(child)?;
    marks.set(Mark::Reaped);
    prepared?;
    Ok(status)
}
