//! What a container uses, as containerd's metrics have it.
//!
//! It owns the way from the runtime's measurements to the two messages that clients know, one for each version of
//! cgroups. Every field that containerd's own shim fills is filled.

mod v1;
mod v2;

use coracle::cgroup::Cgroup;
use coracle::error::{Error, Kind, Result};

use crate::proto::{Any, Named, pack};

/// Measures a container.
pub fn of(cgroup: &Cgroup) -> Result<Any> {
    let (stats, details) = (cgroup.stats()?, cgroup.details()?);
    if details.is_v2 {
        packed(&v2::message(&stats, &details))
    } else {
        let partitions = std::fs::read_to_string("/proc/partitions").unwrap_or_default();
        packed(&v1::message(&stats, &details, &partitions))
    }
}

fn packed<M: Named>(message: &M) -> Result<Any> {
    pack(message).map_err(|error| Error::new(Kind::System, format!("encode the metrics: {error}")))
}
