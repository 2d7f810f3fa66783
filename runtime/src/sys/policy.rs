//! Scheduling, I/O priority, memory policy and personality of the calling thread.

use rustix::io::Errno;

use super::check;

/// `struct sched_attr` of sched_setattr(2), first published size.
#[repr(C)]
#[derive(Debug, Default, Clone, Copy, serde::Serialize)]
pub struct SchedAttr {
    /// Size of this struct, in bytes; set by [`set_scheduler`].
    pub size: u32,
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// Nice value, -20 to 19, for `SCHED_OTHER` and `SCHED_BATCH`.
    pub nice: i32,
    /// Static priority, 1 to 99, for `SCHED_FIFO` and `SCHED_RR`.
    pub priority: u32,
    /// `SCHED_DEADLINE`: runtime in nanoseconds.
    pub runtime: u64,
    /// `SCHED_DEADLINE`: deadline in nanoseconds.
    pub deadline: u64,
    /// `SCHED_DEADLINE`: period in nanoseconds.
    pub period: u64,
}

/// Sets the scheduling policy and attributes.
pub fn set_scheduler(attr: SchedAttr) -> Result<(), Errno> {
    let attr = SchedAttr { size: std::mem::size_of::<SchedAttr>() as u32, ..attr };
    // SAFETY: `attr` has the layout of the kernel's struct and tells its size; it outlives the call.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) }).map(drop)
}

/// Sets the I/O priority: class and level, packed as ioprio_set(2) takes them.
pub fn set_io_priority(value: i32) -> Result<(), Errno> {
    const WHO_PROCESS: libc::c_int = 1;
    // SAFETY: only integers are passed.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, value) }).map(drop)
}

/// Sets the execution domain: `PER_LINUX` or `PER_LINUX32`. See personality(2).
pub fn set_personality(persona: u64) -> Result<(), Errno> {
    // SAFETY: only an integer is passed.
    check(unsafe { libc::syscall(libc::SYS_personality, persona) }).map(drop)
}

/// Sets the memory policy of the thread. `mode` is `MPOL_*` with its flags, `nodes` the mask, lowest node
/// first. See set_mempolicy(2).
pub fn set_memory_policy(mode: u32, nodes: &[u64]) -> Result<(), Errno> {
    let bits = nodes.len() * 64;
    let mask = if nodes.is_empty() { std::ptr::null() } else { nodes.as_ptr() };
    // The kernel looks at one bit less than it is told: its maxnode counts from one.
    let maxnode = if nodes.is_empty() { 0 } else { bits + 1 };
    // SAFETY: the mask has `bits` bits and outlives the call.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, maxnode) }).map(drop)
}
