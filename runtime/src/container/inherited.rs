//! The descriptors that a program inherits from the caller: those of socket activation, and those that are asked for.

use crate::error::{Doing, Error, Kind, Result};
use crate::sys::process::{close_on_exec_from, is_open};

/// The number of descriptors that socket activation passed to this very process: sd_listen_fds(3). The variables are
/// inherited by processes that they aren't meant for.
pub fn listen_fds() -> u32 {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    let own = rustix::process::getpid().as_raw_nonzero().get();
    match (number("LISTEN_PID"), number("LISTEN_FDS")) {
        (Some(pid), Some(count)) if i64::from(pid) == i64::from(own) => count,
        _ => 0,
    }
}

/// How many descriptors, from 0 on, a program keeps: after the standard ones those of socket activation, and those that the
/// caller asked for. Each must be open: its number could else become a file of the runtime's. What isn't kept is closed when
/// anything is executed, hooks too.
pub fn kept_descriptors(sockets: u32, preserve: u32) -> Result<u32> {
    let keep = 3_u32.checked_add(sockets).and_then(|keep| keep.checked_add(preserve));
    let closed = |number: &u32| i32::try_from(*number).is_ok_and(|number| !is_open(number));
    match keep.and_then(|keep| (3..keep).find(closed).map_or(Some(keep), |_| None)) {
        Some(keep) => {
            close_on_exec_from(3).doing(|| "keep the caller's descriptors from hooks")?;
            Ok(keep)
        }
        None => Err(Error::new(Kind::Config, "not all descriptors that are to be passed on are open")
            .hint("--preserve-fds and $LISTEN_FDS count descriptors from 3 on, without gaps")),
    }
}
