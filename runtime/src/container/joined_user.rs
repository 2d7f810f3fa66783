//! User namespaces that are there already: joined by path, or by `exec`. What they map, the kernel says; it must fit what
//! is asked for.

use std::os::fd::OwnedFd;

use oci_spec::runtime::{Linux, LinuxIdMapping, User};

use crate::error::{Error, Kind, Result};
use crate::init::procfs;
use crate::plan::user::{IdRange, id_ranges, outside, parse_map};

/// The maps of a user namespace, as they are seen from the runtime's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Maps {
    uids: Vec<IdRange>,
    gids: Vec<IdRange>,
}

impl Maps {
    /// Of the user namespace that a process is in.
    pub fn of(proc: &OwnedFd, pid: i32) -> Result<Self> {
        let read = |file: &str| procfs::read(proc, &format!("{pid}/{file}")).map(|text| parse_map(&text));
        Ok(Self { uids: read("uid_map")?, gids: read("gid_map")? })
    }

    /// Mappings beside a namespace's path say what it has: engines send both. They may not differ. Says whether they
    /// are given.
    pub fn check_given(&self, linux: Option<&Linux>) -> Result<bool> {
        let list = |mappings: Option<&Option<Vec<LinuxIdMapping>>>| {
            id_ranges(mappings.and_then(Option::as_deref).unwrap_or_default())
        };
        let uids = list(linux.map(Linux::uid_mappings));
        let gids = list(linux.map(Linux::gid_mappings));
        if uids.is_empty() && gids.is_empty() {
            return Ok(false);
        }
        for (place, given, found) in
            [("linux.uidMappings", &uids, &self.uids), ("linux.gidMappings", &gids, &self.gids)]
        {
            if given != found {
                return Err(Error::config(
                    place,
                    format!(
                        "user namespaces enabled, but both namespace path and non-matching mapping specified: the namespace has {}",
                        tell(found)
                    ),
                )
                .hint("leave the mappings out, or the path"));
            }
        }
        Ok(true)
    }

    /// The kernel takes only ids that are mapped.
    pub fn check_process(&self, user: &User) -> Result<()> {
        let additional = user.additional_gids().iter().flatten();
        let groups = std::iter::once(user.gid()).chain(additional.copied());
        let ids = std::iter::once(("user", user.uid(), &self.uids))
            .chain(groups.map(|gid| ("group", gid, &self.gids)));
        for (what, id, ranges) in ids {
            if outside(ranges, id).is_none() {
                let told = format!("{what} {id} is not mapped in the user namespace that is joined");
                return Err(Error::new(Kind::Config, told)
                    .hint(format!("choose an id that it maps: it has {}", tell(ranges))));
            }
        }
        Ok(())
    }

    /// The id outside that a user is.
    pub fn uid_outside(&self, uid: u32) -> Option<u32> {
        outside(&self.uids, uid)
    }
}

/// The first ranges of a map, in words.
fn tell(ranges: &[IdRange]) -> String {
    const TOLD: usize = 3;
    let mut told: Vec<String> = ranges
        .iter()
        .take(TOLD)
        .map(|range| format!("{} ids from {} on at {}", range.size, range.inside, range.outside))
        .collect();
    if ranges.len() > TOLD {
        told.push(format!("{} more ranges", ranges.len() - TOLD));
    }
    if told.is_empty() { "no ids".to_owned() } else { told.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn maps() -> Maps {
        let uids = parse_map("         0       1000          1\n         1     100000         10\n");
        Maps { gids: uids.clone(), uids }
    }

    #[test]
    fn mappings_beside_a_path_are_those_of_the_namespace() {
        let first = json!({"containerID": 0, "hostID": 1000, "size": 1});
        let second = json!({"containerID": 1, "hostID": 100_000, "size": 10});
        let linux = |uids, gids| -> Linux {
            serde_json::from_value(json!({"uidMappings": uids, "gidMappings": gids})).unwrap()
        };
        let both = json!([first, second]);
        assert!(!maps().check_given(None).unwrap());
        assert!(maps().check_given(Some(&linux(both.clone(), both.clone()))).unwrap());
        let error = maps().check_given(Some(&linux(both, json!([first])))).unwrap_err();
        assert_eq!(error.place(), Some("linux.gidMappings"));
        assert!(error.to_string().contains("non-matching mapping specified"), "{error}");
    }

    #[test]
    fn the_ids_of_a_process_are_mapped() {
        let user = |value| -> User { serde_json::from_value(value).unwrap() };
        maps().check_process(&user(json!({"uid": 0, "gid": 10, "additionalGids": [3]}))).unwrap();
        let error =
            maps().check_process(&user(json!({"uid": 0, "gid": 1, "additionalGids": [11]}))).unwrap_err();
        assert!(error.to_string().starts_with("group 11 is not mapped"), "{error}");
    }
}
