//! The exit status of a container's first process, kept in the bundle: what the invocation `delete` reports after the
//! shim was killed.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use coracle::error::Doing;
use serde::{Deserialize, Serialize};

use crate::reaper::Exit;
use crate::spec;

/// The file in the bundle.
const FILE: &str = "exitstatus.json";

#[derive(Serialize, Deserialize)]
struct Record {
    exit_status: u32,
    /// Nanoseconds since 1970.
    exited_at: u64,
}

/// Keeps the exit status. A failure is logged: the events tell it as well.
pub fn save(bundle: &Path, exit: Exit) {
    let since = exit.at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let record =
        Record { exit_status: exit.status, exited_at: u64::try_from(since.as_nanos()).unwrap_or(u64::MAX) };
    let path = bundle.join(FILE);
    let new = bundle.join(format!(".{FILE}.new"));
    // A record is plain data, so that this can't fail.
    let text = serde_json::to_vec(&record).unwrap_or_default();
    let doing = || format!("keep the exit status in {}", path.display());
    if let Err(error) = spec::write(&new, &text).and_then(|()| std::fs::rename(&new, &path).doing(doing)) {
        log::warn!("{error}");
    }
}

/// The exit status that was kept, if one was.
pub fn load(bundle: &Path) -> Option<Exit> {
    let record: Record = serde_json::from_slice(&std::fs::read(bundle.join(FILE)).ok()?).ok()?;
    let at = UNIX_EPOCH.checked_add(Duration::from_nanos(record.exited_at)).unwrap_or_else(SystemTime::now);
    Some(Exit { status: record.exit_status, at })
}
