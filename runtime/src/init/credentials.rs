//! Giving up privileges: user, groups, capabilities (user_namespaces(7), capabilities(7)).

use std::os::fd::BorrowedFd;

use rustix::fs::{Gid, Uid, fchown, fstat, fstatfs};
use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set, configure_capability_in_ambient_set,
    remove_capability_from_bounding_set, set_capabilities, set_keep_capabilities, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};

use super::null::is_null;
use crate::error::{Doing, Result};
use crate::plan::step::Capabilities;
use crate::sys::process::with_inherited;

/// The highest capability number that any kernel could have: the sets are 64 bits wide.
const CAPABILITY_BITS: u32 = 64;

/// Drops every capability that `keep` doesn't name from the bounding set. The kernel says where its
/// capabilities end.
pub fn limit_bounding_set(keep: u64) -> Result<()> {
    for number in 0..CAPABILITY_BITS {
        if keep & (1 << number) != 0 {
            continue;
        }
        match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << number)) {
            Ok(()) => {}
            Err(Errno::INVAL) => break,
            Err(errno) => {
                return Err(crate::error::Error::os(
                    errno,
                    format!("drop capability {number} from the bounding set"),
                ));
            }
        }
    }
    Ok(())
}

/// Becomes the user. The permitted capabilities are kept, for the step that sets them.
pub fn become_user(uid: u32, gid: u32, groups: &[u32], in_user_namespace: bool) -> Result<()> {
    let groups: Vec<Gid> = groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    match set_thread_groups(&groups) {
        // Denied in this user namespace: the groups are those of the user who made it.
        Err(Errno::PERM) if in_user_namespace && groups.is_empty() => {}
        set => set.doing(|| "set the supplementary groups")?,
    }
    if uid != 0 {
        set_keep_capabilities(true).doing(|| "keep the capabilities over the change of user")?;
    }
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    set_thread_res_gid(gid, gid, gid).doing(|| format!("become group {gid:?}"))?;
    set_thread_res_uid(uid, uid, uid).doing(|| format!("become user {uid:?}"))
}

/// Gives up the supplementary groups, which are the runtime's: in a user namespace that denies setgroups(2) they would
/// stay, and with them access to what is the host's. Who may not do it has its own groups, and keeps them.
pub fn drop_groups() -> Result<()> {
    match set_thread_groups(&[]) {
        Err(Errno::PERM) => Ok(()),
        dropped => dropped.doing(|| "give up the supplementary groups"),
    }
}

/// Becomes user and group 0 of the user namespace that the process has entered, with all capabilities there.
pub fn become_namespace_root() -> Result<()> {
    become_user(0, 0, &[], true).map_err(|error| match error.errno() {
        Some(Errno::INVAL) => error.hint("the user namespace must map user 0 and group 0"),
        _ => error,
    })
}

/// Sets the four sets that a process has of its own. The ambient set comes last, since it may hold only what the
/// permitted and inheritable ones do.
pub fn set(capabilities: &Capabilities) -> Result<()> {
    let sets = CapabilitySets {
        effective: CapabilitySet::from_bits_retain(capabilities.effective),
        permitted: CapabilitySet::from_bits_retain(capabilities.permitted),
        inheritable: CapabilitySet::from_bits_retain(capabilities.inheritable),
    };
    set_capabilities(None, sets).doing(|| "set the capabilities")?;
    clear_ambient_capability_set().doing(|| "clear the ambient set")?;
    for number in (0..CAPABILITY_BITS).filter(|number| capabilities.ambient & (1 << number) != 0) {
        configure_capability_in_ambient_set(CapabilitySet::from_bits_retain(1 << number), true)
            .doing(|| format!("raise capability {number} in the ambient set"))?;
    }
    Ok(())
}

/// Makes all permitted capabilities effective again, which changing the user took away.
pub fn raise_permitted() -> Result<()> {
    let own = rustix::thread::capabilities(None).doing(|| "read the capabilities")?;
    set_capabilities(None, CapabilitySets { effective: own.permitted, ..own })
        .doing(|| "raise the capabilities")
}

/// Gives the standard streams to the user, so that it can open /proc/self/fd/1 again. The null device is
/// everybody's and stays as it is.
pub fn own_stdio(uid: u32) {
    for number in 0..=2 {
        with_inherited(number, |fd| own_stream(fd, uid));
    }
}

/// `PIPEFS_MAGIC` of the kernel's include/uapi/linux/magic.h.
const PIPEFS_MAGIC: u32 = 0x5049_5045;

/// Gives the standard streams that are pipes to a user of the host: the root of a user namespace can't take them itself.
/// A file, a terminal or a FIFO with a name stays its owner's, who may be a person on the host.
pub fn give_pipes(uid: u32) {
    for number in 0..=2 {
        with_inherited(number, |fd| {
            if fstatfs(fd).is_ok_and(|found| found.f_type as u32 == PIPEFS_MAGIC) {
                own_stream(fd, uid);
            }
        });
    }
}

/// A stream that can't be given away (on a read-only filesystem, say, or a socket) still works, so that is no error.
fn own_stream(fd: BorrowedFd<'_>, uid: u32) {
    let Ok(stat) = fstat(fd) else { return };
    if is_null(fd) || stat.st_uid == uid {
        return;
    }
    let _ = fchown(fd, Some(Uid::from_raw(uid)), None);
}
