//! What a user namespace changes in a plan (runtime-spec, config-linux.md "User namespace mappings";
//! user_namespaces(7)).
//!
//! A process in a new user namespace has every capability there and none on the host. So the plan moves what only the
//! host may do to the host's side (maps, `oom_score_adj`, namespaces by path, sources of bind mounts) and gives the
//! container's side the steps that wait for it. A container without a user namespace has nothing of this.

use std::fmt::Write;

use oci_spec::runtime::{Linux, LinuxIdMapping};
use rustix::process::Resource;
use serde::Serialize;

use super::step::{Action, Step, What};
use super::{Facts, namespaces::Namespaces};
use crate::error::{Error, Kind, Result};

/// Every capability that Linux has from 5.9 on: what a process has in a user namespace that it made or joined.
const ALL_CAPABILITIES: u64 = (1 << 41) - 1;
/// Capability numbers: capabilities(7).
const CAP_SETGID: u64 = 1 << 6;
const CAP_SETUID: u64 = 1 << 7;
/// What mounting needs.
pub const CAP_SYS_ADMIN: u64 = 1 << 21;

/// How the container gets its user namespace.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UserNamespace {
    /// The maps of a new one; none where it is joined by path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maps: Option<IdMaps>,
    /// What is set from outside.
    #[serde(flatten)]
    pub outside: Outside,
    /// The host's side opens the rootfs and the sources of bind mounts, since the namespace's root may not reach them.
    pub sources_by_host: bool,
}

/// What a process in a user namespace can't set for itself, since it takes power over the host.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outside {
    /// The value for `oom_score_adj`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i32>,
    /// Hard limits, which are raised where they are above the runtime's own. Their steps stay, and set them exactly.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hard_limits: Vec<HardLimit>,
}

/// A hard limit of setrlimit(2).
#[derive(Debug, Clone, Serialize)]
pub struct HardLimit {
    /// Its place in `config.json`.
    pub place: String,
    /// `RLIMIT_NOFILE`, say.
    pub name: String,
    /// Its number.
    #[serde(skip)]
    pub resource: Resource,
    /// The limit; `u64::MAX` is no limit.
    pub hard: u64,
}

impl Outside {
    /// Takes out of the steps of a process what is set from outside, and notes what is prepared there.
    pub fn take(steps: &mut Vec<Step>) -> Self {
        let mut outside = Self::default();
        steps.retain(|step| match &step.action {
            Action::OomScoreAdj { value } => {
                outside.oom_score_adj = Some(*value);
                false
            }
            Action::Rlimit { name, resource, hard, .. } => {
                let (place, name) = (step.place.clone(), name.clone());
                outside.hard_limits.push(HardLimit { place, name, resource: *resource, hard: *hard });
                true
            }
            _ => true,
        });
        outside
    }
}

impl UserNamespace {
    /// Whether the runtime may write the maps whoever the process seems to belong to. A user may only while the process
    /// is dumpable, and newuidmap(1) too.
    pub fn maps_are_privileged(&self) -> bool {
        self.maps.as_ref().is_none_or(|maps| maps.writer == Writer::Privileged)
    }
}

/// The maps of a user namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct IdMaps {
    /// Users.
    pub uids: Vec<IdRange>,
    /// Groups.
    pub gids: Vec<IdRange>,
    /// Who writes them.
    pub writer: Writer,
}

/// Ids that are mapped one to one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct IdRange {
    /// The first id in the namespace.
    pub inside: u32,
    /// The first id outside.
    pub outside: u32,
    /// How many there are.
    pub size: u32,
}

/// Who may write a map: user_namespaces(7), "Defining user and group ID mappings".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Writer {
    /// The runtime, with CAP_SETUID and CAP_SETGID.
    Privileged,
    /// The runtime as a user that maps itself only, which must give setgroups(2) up for it.
    Itself,
    /// newuidmap(1) and newgidmap(1).
    Helpers,
}

impl IdMaps {
    /// From the lists of `config.json`.
    pub fn new(uids: &[LinuxIdMapping], gids: &[LinuxIdMapping], facts: &Facts) -> Self {
        let (uids, gids) = (id_ranges(uids), id_ranges(gids));
        let writer = if facts.capabilities & (CAP_SETUID | CAP_SETGID) == CAP_SETUID | CAP_SETGID {
            Writer::Privileged
        } else if maps_only(&uids, facts.uid) && maps_only(&gids, facts.gid) {
            Writer::Itself
        } else {
            Writer::Helpers
        };
        Self { uids, gids, writer }
    }
}

fn maps_only(ranges: &[IdRange], own: u32) -> bool {
    matches!(ranges, [only] if only.size == 1 && only.outside == own)
}

/// The ranges of a list of `config.json`.
pub fn id_ranges(mappings: &[LinuxIdMapping]) -> Vec<IdRange> {
    let range = |mapping: &LinuxIdMapping| IdRange {
        inside: mapping.container_id(),
        outside: mapping.host_id(),
        size: mapping.size(),
    };
    mappings.iter().map(range).collect()
}

/// The ranges that `uid_map` or `gid_map` shows. Lines that can't be read are left out.
pub fn parse_map(text: &str) -> Vec<IdRange> {
    let range = |line: &str| {
        let mut numbers = line.split_ascii_whitespace().map(str::parse);
        let mut next = || numbers.next()?.ok();
        Some(IdRange { inside: next()?, outside: next()?, size: next()? })
    };
    text.lines().filter_map(range).collect()
}

/// The text of `uid_map` or `gid_map`.
pub fn map_text(ranges: &[IdRange]) -> String {
    ranges.iter().fold(String::new(), |mut text, range| {
        // Writing to a text can't fail.
        let _ = writeln!(text, "{} {} {}", range.inside, range.outside, range.size);
        text
    })
}

/// The id outside that `id` inside is, if it is mapped.
pub fn outside(ranges: &[IdRange], id: u32) -> Option<u32> {
    ranges.iter().find_map(|range| {
        let offset = id.checked_sub(range.inside).filter(|offset| *offset < range.size)?;
        range.outside.checked_add(offset)
    })
}

/// The facts as they are for a process in a user namespace: it has all capabilities there.
pub fn facts_inside(facts: &Facts) -> Facts {
    Facts { capabilities: ALL_CAPABILITIES, ..facts.clone() }
}

/// Plans the namespace; nothing when the container stays in the runtime's.
pub fn plan(linux: Option<&Linux>, namespaces: &Namespaces, facts: &Facts) -> Result<Option<UserNamespace>> {
    let new = namespaces.clone & libc::CLONE_NEWUSER as u64 != 0;
    if !new && !namespaces.joins_user() {
        return Ok(None);
    }
    if !namespaces.own_mounts {
        return Err(Error::new(
            Kind::Unsupported,
            "a user namespace has no power over the host's mounts, and the container has no mount namespace of its own",
        )
        .at("linux.namespaces")
        .hint("add {\"type\": \"mount\"} to linux.namespaces"));
    }
    let list =
        |mappings: Option<&Option<Vec<LinuxIdMapping>>>| mappings.and_then(Clone::clone).unwrap_or_default();
    let maps = new.then(|| {
        let uids = list(linux.map(Linux::uid_mappings));
        let gids = list(linux.map(Linux::gid_mappings));
        IdMaps::new(&uids, &gids, facts)
    });
    Ok(Some(UserNamespace {
        maps,
        outside: Outside::default(),
        sources_by_host: facts.capabilities & CAP_SYS_ADMIN != 0,
    }))
}

/// Whether a process keeps the groups it was born with: setgroups(2) was given up for the map.
///
/// newgidmap(1) gives it up too, where it maps nothing but the user's own group.
pub fn refuse_groups(user: &UserNamespace, facts: &Facts, groups: &[u32]) -> Result<()> {
    let denied = user
        .maps
        .as_ref()
        .is_some_and(|maps| maps.writer != Writer::Privileged && maps_only(&maps.gids, facts.gid));
    if denied && !groups.is_empty() {
        return Err(Error::config(
            "process.user.additionalGids",
            "a user who maps only its own group can't have supplementary groups: the kernel denies setgroups(2) for such a map",
        )
        .hint("leave them out, or map subordinate ids too (/etc/subgid, newgidmap)"));
    }
    Ok(())
}

/// Moves to the host's side what is its part, and puts the steps that wait for it in front of the others.
pub fn rearrange(steps: &mut Vec<Step>, user: &mut UserNamespace, time_offsets: Option<String>) {
    user.outside = Outside::take(steps);
    let mut propagation = None;
    let mut cgroups = None;
    let mut host = None;
    let mut sources = 0;
    let mut rest = Vec::with_capacity(steps.len() + 8);
    for step in steps.drain(..) {
        match &step.action {
            Action::JoinNamespace(_) => {}
            Action::RootPropagation(_) => propagation = Some(step),
            Action::JoinCgroups => cgroups = Some(step),
            Action::AwaitHost => host = Some(step),
            Action::BindRoot { .. } => {
                sources += 2;
                rest.push(step);
            }
            Action::Mount(mount) => {
                sources += usize::from(matches!(mount.what, What::Bind { .. }));
                rest.push(step);
            }
            _ => rest.push(step),
        }
    }
    let mut push = |place: &str, action| steps.push(Step::new(place, action));
    if user.maps.is_some() {
        push("linux.uidMappings", Action::AwaitMaps);
    }
    push("", Action::Hide);
    steps.extend(cgroups);
    steps.extend(host);
    // What is cloned from the mounts is to have their propagation.
    steps.extend(propagation);
    if user.sources_by_host && sources > 0 {
        steps.push(Step::new("", Action::Sources { count: sources }));
    }
    steps.push(Step::new("linux.namespaces", Action::NamespaceRoot));
    if let Some(offsets) = time_offsets {
        steps.push(Step::new("linux.timeOffsets", Action::NewTimeNamespace { offsets }));
    }
    steps.append(&mut rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANGES: [IdRange; 2] =
        [IdRange { inside: 0, outside: 1000, size: 1 }, IdRange { inside: 1, outside: 100_000, size: 10 }];

    #[test]
    fn an_id_is_followed_through_its_range() {
        assert_eq!(outside(&RANGES, 0), Some(1000));
        assert_eq!(outside(&RANGES, 10), Some(100_009));
        assert_eq!(outside(&RANGES, 11), None);
        assert_eq!(map_text(&RANGES), "0 1000 1\n1 100000 10\n");
    }

    #[test]
    fn who_writes_the_maps_depends_on_capabilities_and_ids() {
        let mapping = |host: u32| -> Vec<LinuxIdMapping> {
            serde_json::from_value(serde_json::json!([{"containerID": 0, "hostID": host, "size": 1}]))
                .unwrap()
        };
        let user = Facts { capabilities: 0, apparmor: false, selinux: false, uid: 1000, gid: 1000 };
        let root = Facts { capabilities: ALL_CAPABILITIES, uid: 0, gid: 0, ..user.clone() };
        let writer = |host, facts: &Facts| IdMaps::new(&mapping(host), &mapping(host), facts).writer;
        assert_eq!(writer(1000, &root), Writer::Privileged);
        assert_eq!(writer(1000, &user), Writer::Itself);
        assert_eq!(writer(100_000, &user), Writer::Helpers);
    }
}
