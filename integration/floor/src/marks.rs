//! Where the time goes: the moments at which the phases of a run ended, kept in memory that the parent and
//! the container's process share. Costs nothing when it is off.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::sys;

/// A phase that has ended, in the order in which they are printed.
#[derive(Clone, Copy)]
#[repr(usize)]
pub enum Mark {
    /// The parent has begun.
    Begin,
    /// clone3 has returned in the parent.
    Cloned,
    /// The cgroups are there, with their rules.
    CgroupsMade,
    /// The first instruction of the container's process.
    Born,
    /// proc, dev, devpts, shm, mqueue, sysfs, device nodes and links are there.
    Mounted,
    /// The process has found the cgroups ready.
    GatePassed,
    /// It sits in all of them.
    Joined,
    /// They are mounted.
    CgroupsMounted,
    /// pivot_root and the removal of the old root are done.
    Pivoted,
    /// Masked and read-only paths are done.
    Masked,
    /// The process is about to execute.
    Execute,
    /// The parent has reaped the process.
    Reaped,
    /// The cgroups are gone.
    Removed,
}

const NAMES: [&str; 13] = [
    "begin",
    "parent: cloned",
    "parent: cgroups made",
    "child: born",
    "child: mounted",
    "child: gate passed",
    "child: joined cgroups",
    "child: cgroups mounted",
    "child: pivoted",
    "child: masked",
    "child: execute",
    "parent: reaped",
    "parent: cgroups removed",
];

/// The moments, or nothing when they were not asked for.
pub struct Marks(Option<&'static [AtomicU64; NAMES.len()]>);

impl Marks {
    /// Makes the shared memory when `on`.
    pub fn new(on: bool) -> sys::Result<Self> {
        Ok(Self(if on { Some(sys::shared_counters()?) } else { None }))
    }

    /// Notes that `mark` is now.
    pub fn set(&self, mark: Mark) {
        if let Some(slots) = self.0 {
            slots[mark as usize].store(sys::now_ns(), Ordering::Relaxed);
        }
    }

    /// Prints all moments to standard error, in microseconds since the beginning.
    pub fn print(&self) {
        let Some(slots) = self.0 else { return };
        let begin = slots[Mark::Begin as usize].load(Ordering::Relaxed);
        for (slot, name) in slots.iter().zip(NAMES) {
            let at = slot.load(Ordering::Relaxed);
            eprintln!("{:>8} us  {name}", at.saturating_sub(begin) / 1000);
        }
    }
}
