//! From `mounts` of `config.json` to mount steps (runtime-spec, config.md "Mounts").

use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::Mount as Wanted;
use rustix::mount::{MountFlags, MountPropagationFlags};

use super::Facts;
use super::step::MountIdMap;
use super::step::{Action, CgroupHierarchy, Mount, NewFilesystem, Propagation, Step, What};
use super::user::{self, IdMaps};
use crate::bundle::{Bind, IdMap, MountOptions, attr, parse_mount_options};
use crate::error::{Error, Kind, Result};
use crate::sys::mount::Attributes;

/// What the steps for mounts depend on beside the mounts themselves.
pub struct Context<'a> {
    /// The bundle's directory: a relative source begins here.
    pub bundle: &'a Path,
    /// The rootfs on the host, cleaned as destinations are.
    pub rootfs: &'a Path,
    /// The v1 hierarchies as the container is to see them; none on pure cgroup v2.
    pub cgroup_v1: Option<Vec<CgroupHierarchy>>,
    /// The container's v2 cgroup on the host, when it has no cgroup namespace of its own.
    pub cgroup_v2_bind: Option<PathBuf>,
    /// The SELinux context of new filesystems.
    pub label: Option<&'a str>,
    /// What the runtime may do.
    pub facts: &'a Facts,
}

/// The steps for one mount, and those that must wait until devices and hooks are done.
pub struct Planned {
    /// The mount.
    pub now: Step,
    /// Making it read-only, where something is put into it first.
    pub later: Option<Step>,
}

/// Plans one mount.
pub fn plan(index: usize, wanted: &Wanted, context: &Context<'_>) -> Result<Planned> {
    let place = format!("mounts[{index}]");
    let mut options = parse_mount_options(wanted.options().as_deref().unwrap_or_default());
    let target = destination(wanted.destination(), context.rootfs);
    let fstype = wanted.typ().as_deref().unwrap_or_default();
    let is_bind = options.bind != Bind::No || fstype == "bind";
    let mut later = None;
    if !is_bind && !options.remount && target == Path::new("/dev") && options.set.contains(MountFlags::RDONLY)
    {
        options.set -= MountFlags::RDONLY;
        later = Some(Step::new(place.clone(), Action::RemountReadonly { path: target.clone() }));
    }
    let idmap = idmap(&place, wanted, &options, (is_bind, fstype), context.facts)?;
    let source = wanted.source().as_deref();
    let (what, attributes) = if is_bind && options.remount {
        (What::Attributes, bind_attributes(&options))
    } else if is_bind {
        let source = context.bundle.join(source.unwrap_or(Path::new("")));
        let recursive = options.bind == Bind::Recursive;
        (What::Bind { source, recursive }, bind_attributes(&options))
    } else if options.remount {
        let flags = u64::from((options.set | MountFlags::from_bits_retain(libc::MS_REMOUNT as u32)).bits());
        (What::Remount { flags, data: options.data.join(",") }, Attributes::default())
    } else if fstype == "cgroup" {
        cgroup(&options, context)
    } else {
        new_filesystem(fstype, source, &options, context.label)
    };
    let recursive = options
        .recursive
        .map(|change| Attributes { set: change.set, clear: change.clear, propagation: 0 })
        .unwrap_or_default();
    let propagation = options.propagation.iter().map(|flags| propagation(*flags)).collect();
    let named_clear = attributes_of(options.clear) & PLAIN;
    let copy_up = options.tmpcopyup;
    let mount = Mount { target, what, attributes, recursive, propagation, copy_up, named_clear, idmap };
    Ok(Planned { now: Step::new(place, Action::Mount(Box::new(mount))), later })
}

/// How a mount's ids are mapped, if they are to be: config-linux.md says that mappings alone ask for it, and runc that
/// an option alone means the mappings of the user namespace.
fn idmap(
    place: &str,
    wanted: &Wanted,
    options: &MountOptions,
    (is_bind, fstype): (bool, &str),
    facts: &Facts,
) -> Result<Option<MountIdMap>> {
    let uids = wanted.uid_mappings().as_deref().unwrap_or_default();
    let gids = wanted.gid_mappings().as_deref().unwrap_or_default();
    if uids.is_empty() && gids.is_empty() && options.idmap == IdMap::No {
        return Ok(None);
    }
    if options.remount {
        return Err(Error::config(
            place,
            "a remount can't map ids: only a mount that is just being made can",
        )
        .hint("give the mappings where the filesystem is mounted"));
    }
    if !is_bind && fstype == "cgroup" {
        return Err(Error::config(place, "cgroup hierarchies don't support id-mapped mounts").hint(
            "leave the mappings out: a user namespace's cgroup is owned by its root where the host allows it",
        ));
    }
    if facts.capabilities & user::CAP_SYS_ADMIN == 0 {
        return Err(Error::new(Kind::Unsupported, "an id-mapped mount needs CAP_SYS_ADMIN on the host")
            .at(place.to_owned())
            .hint("a rootless container can use files only with the ids that they have"));
    }
    let maps = (!uids.is_empty()).then(|| IdMaps::new(uids, gids, facts));
    Ok(Some(MountIdMap { maps, recursive: options.idmap == IdMap::Recursive }))
}

/// Whether it is the cgroup filesystem at its usual place, to be written.
pub fn is_writable_cgroup(mount: &Wanted) -> bool {
    mount.source().as_deref() == Some(Path::new("cgroup"))
        && clean(mount.destination()) == Path::new("/sys/fs/cgroup")
        && !parse_mount_options(mount.options().as_deref().unwrap_or_default())
            .set
            .contains(MountFlags::RDONLY)
}

/// A propagation type as mount_setattr(2) takes it.
pub fn propagation(flags: MountPropagationFlags) -> Propagation {
    let recursive = flags.contains(MountPropagationFlags::REC);
    Propagation { kind: u64::from((flags - MountPropagationFlags::REC).bits()), recursive }
}

/// Where a mount goes, as seen from inside. A destination that is told as on the host, below the rootfs, is meant so: as
/// with runc.
pub fn destination(given: &Path, rootfs: &Path) -> PathBuf {
    let cleaned = clean(given);
    match cleaned.strip_prefix(rootfs) {
        Ok(inside) if rootfs != Path::new("/") => Path::new("/").join(inside),
        _ => cleaned,
    }
}

/// A path with exactly one leading slash and neither `.` nor `..` in it: what stands before a `..` is dropped, as
/// the container's root would have it.
pub fn clean(path: &Path) -> PathBuf {
    let mut cleaned = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => cleaned.push(name),
            Component::ParentDir => {
                cleaned.pop();
            }
            _ => {}
        }
    }
    cleaned
}

/// Options of a filesystem, which may stand together in one text: `size=64k,mode=755`. A comma behind a backslash
/// belongs to the value (overlayfs).
fn split_data(data: &[String]) -> Vec<(String, Option<String>)> {
    let mut options = Vec::new();
    for text in data {
        let mut start = 0;
        let mut escaped = false;
        for (at, character) in text.char_indices().chain([(text.len(), ',')]) {
            if character == ',' && !escaped {
                let option = &text[start..at];
                start = at + 1;
                if !option.is_empty() {
                    options.push(match option.split_once('=') {
                        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                        None => (option.to_owned(), None),
                    });
                }
            }
            escaped = character == '\\' && !escaped;
        }
    }
    options
}

/// Flags of mount(2) that are attributes of a mount for mount_setattr(2).
fn attributes_of(flags: MountFlags) -> u64 {
    [
        (MountFlags::RDONLY, attr::RDONLY),
        (MountFlags::NOSUID, attr::NOSUID),
        (MountFlags::NODEV, attr::NODEV),
        (MountFlags::NOEXEC, attr::NOEXEC),
        (MountFlags::NODIRATIME, attr::NODIRATIME),
        (MountFlags::NOSYMFOLLOW, attr::NOSYMFOLLOW),
    ]
    .iter()
    .filter(|(flag, _)| flags.contains(*flag))
    .fold(0, |bits, (_, bit)| bits | bit)
        | atime(flags)
}

/// The access-time setting: a value, not bits. `strictatime` wins over `noatime`, as in mount(2).
fn atime(flags: MountFlags) -> u64 {
    if flags.contains(MountFlags::STRICTATIME) {
        attr::STRICTATIME
    } else if flags.contains(MountFlags::NOATIME) {
        attr::NOATIME
    } else {
        attr::RELATIME
    }
}

/// The attributes that are bits, all but the access-time setting.
const PLAIN: u64 =
    attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC | attr::NODIRATIME | attr::NOSYMFOLLOW;

/// A bind mount without flags keeps those of its source. With any, it has exactly those that are given (the
/// access-time settings apart, which stay where none is asked for; taking one back alone, as with `atime`, changes
/// nothing): that is what remounting it does, and runc.
pub fn bind_attributes(options: &MountOptions) -> Attributes {
    let named = options.set | options.clear;
    if named.is_empty() {
        return Attributes::default();
    }
    let times = MountFlags::NOATIME | MountFlags::NODIRATIME | MountFlags::RELATIME | MountFlags::STRICTATIME;
    let set = attributes_of(options.set);
    let clear = PLAIN & !set;
    if options.set.intersects(times) {
        return Attributes { set, clear: clear | attr::ATIME_MASK, propagation: 0 };
    }
    let kept = attr::ATIME_MASK | attr::NODIRATIME;
    Attributes { set: set & !kept, clear: clear & !kept, propagation: 0 }
}

/// Flags that belong to the superblock, by the names that fsconfig(2) knows.
const SUPERBLOCK_FLAGS: [(MountFlags, &str); 5] = [
    (MountFlags::RDONLY, "ro"),
    (MountFlags::SYNCHRONOUS, "sync"),
    (MountFlags::DIRSYNC, "dirsync"),
    (MountFlags::LAZYTIME, "lazytime"),
    (MountFlags::PERMIT_MANDATORY_FILE_LOCKING, "mand"),
];

fn superblock_options(flags: MountFlags) -> impl Iterator<Item = (String, Option<String>)> {
    SUPERBLOCK_FLAGS
        .into_iter()
        .filter(move |(flag, _)| flags.contains(*flag))
        .map(|(_, name)| (name.to_owned(), None))
}

/// Options as mount(2) takes them, who knows the superblock's flags by number only: the flags, and the text of the rest.
/// A label has commas of its own, which are quoted there.
pub fn classic_options(options: &[(String, Option<String>)]) -> (MountFlags, String) {
    let mut flags = MountFlags::empty();
    let mut texts = Vec::new();
    for (name, value) in options {
        match (value, SUPERBLOCK_FLAGS.iter().find(|(_, known)| known == name)) {
            (None, Some((flag, _))) => flags |= *flag,
            (None, None) => texts.push(name.clone()),
            (Some(label), _) if name == "context" => texts.push(format!("{name}=\"{label}\"")),
            (Some(value), _) => texts.push(format!("{name}={value}")),
        }
    }
    (flags, texts.join(","))
}

fn new_filesystem(
    fstype: &str,
    source: Option<&Path>,
    options: &MountOptions,
    label: Option<&str>,
) -> (What, Attributes) {
    let mut flags = options.set;
    let mut after = Attributes::default();
    if options.tmpcopyup && flags.contains(MountFlags::RDONLY) {
        // The copy needs to be written first.
        flags -= MountFlags::RDONLY;
        after.set = attr::RDONLY;
    }
    let source = source.map_or_else(|| fstype.to_owned(), |source| source.to_string_lossy().into_owned());
    let mut new = filesystem(fstype, source, flags, &options.data);
    if let Some(label) = label
        && !matches!(fstype, "proc" | "sysfs" | "mqueue")
    {
        new.options.push(("context".to_owned(), Some(label.to_owned())));
    }
    (What::New(new), after)
}

/// A filesystem with these flags of mount(2), of which some are the superblock's and some the mount's, and these
/// options.
pub fn filesystem(fstype: &str, source: String, flags: MountFlags, data: &[String]) -> NewFilesystem {
    NewFilesystem {
        fstype: fstype.to_owned(),
        source,
        options: superblock_options(flags).chain(split_data(data)).collect(),
        attributes: attributes_of(flags),
    }
}

/// `type: cgroup` is whatever the host has: the v1 hierarchies, or the v2 one.
fn cgroup(options: &MountOptions, context: &Context<'_>) -> (What, Attributes) {
    let attributes = attributes_of(options.set);
    if let Some(hierarchies) = &context.cgroup_v1 {
        let links = hierarchies
            .iter()
            .filter(|hierarchy| hierarchy.name.contains(','))
            .flat_map(|hierarchy| {
                hierarchy
                    .name
                    .split(',')
                    .map(|link| (link.to_owned(), hierarchy.name.clone()))
                    .collect::<Vec<_>>()
            })
            .collect();
        return (
            What::CgroupV1 { hierarchies: hierarchies.clone(), links, attributes },
            Attributes::default(),
        );
    }
    let new = NewFilesystem {
        fstype: "cgroup2".to_owned(),
        source: "cgroup".to_owned(),
        options: split_data(&options.data),
        attributes,
    };
    match &context.cgroup_v2_bind {
        Some(path) => {
            let what = What::CgroupV2 { new, path: path.clone() };
            (what, Attributes { set: attributes, ..Attributes::default() })
        }
        None => (What::New(new), Attributes::default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(options: &[&str]) -> Attributes {
        bind_attributes(&parse_mount_options(options))
    }

    #[test]
    fn a_bind_mount_without_flags_keeps_those_of_its_source() {
        assert_eq!(bind(&["rbind", "rprivate"]), Attributes::default());
    }

    #[test]
    fn a_bind_mount_with_a_flag_has_exactly_the_given_ones() {
        let change = bind(&["bind", "ro"]);
        assert_eq!(change.set, attr::RDONLY);
        assert_eq!(change.clear & attr::NOSUID, attr::NOSUID);
        assert_eq!(change.clear & attr::ATIME_MASK, 0);
        assert_eq!(bind(&["bind", "rw"]).clear & attr::RDONLY, attr::RDONLY);
    }

    #[test]
    fn options_that_stand_together_are_taken_apart_but_for_escaped_commas() {
        let options = split_data(&["size=64k,mode=755".to_owned(), r"lowerdir=/a\,b:/c,index=on".to_owned()]);
        let shown: Vec<_> =
            options.iter().map(|(n, v)| format!("{n}={}", v.as_deref().unwrap_or("-"))).collect();
        assert_eq!(shown, ["size=64k", "mode=755", r"lowerdir=/a\,b:/c", "index=on"]);
    }

    #[test]
    fn mount_gets_the_superblocks_flags_as_flags_and_labels_in_quotes() {
        let context = "system_u:object_r:container_file_t:s0:c1,c2";
        let new = filesystem(
            "overlay",
            "overlay".to_owned(),
            MountFlags::RDONLY | MountFlags::NOSUID,
            &["index=on,volatile".to_owned()],
        );
        let mut options = new.options;
        options.push(("context".to_owned(), Some(context.to_owned())));
        let expected = format!("index=on,volatile,context=\"{context}\"");
        assert_eq!(classic_options(&options), (MountFlags::RDONLY, expected));
    }

    #[test]
    fn a_destination_is_cleaned_inside_the_root() {
        assert_eq!(clean(Path::new("a/../../etc/./x")), Path::new("/etc/x"));
    }
}
