//! The options of a mount: one table for all who need it.
//!
//! It owns the names that `mounts[].options` may have (`config.md`, "Mounts"; mount(8), mount_setattr(2)) and what
//! each one means. The bundle checks with it, the plan takes the typed form, `features` prints the names. A name
//! that is not in the table belongs to the filesystem, and is passed on as data.

use rustix::mount::{MountFlags, MountPropagationFlags};

/// The attributes of mount_setattr(2), as its two 64-bit fields take them.
pub mod attr {
    /// `MOUNT_ATTR_RDONLY`: read-only.
    pub const RDONLY: u64 = 0x1;
    /// `MOUNT_ATTR_NOSUID`: set-user-ID bits and file capabilities have no effect.
    pub const NOSUID: u64 = 0x2;
    /// `MOUNT_ATTR_NODEV`: device files cannot be opened.
    pub const NODEV: u64 = 0x4;
    /// `MOUNT_ATTR_NOEXEC`: programs cannot be executed.
    pub const NOEXEC: u64 = 0x8;
    /// `MOUNT_ATTR__ATIME`: the mask of the access-time setting, which is one of the next three.
    pub const ATIME_MASK: u64 = 0x70;
    /// `MOUNT_ATTR_RELATIME`.
    pub const RELATIME: u64 = 0x0;
    /// `MOUNT_ATTR_NOATIME`.
    pub const NOATIME: u64 = 0x10;
    /// `MOUNT_ATTR_STRICTATIME`.
    pub const STRICTATIME: u64 = 0x20;
    /// `MOUNT_ATTR_NODIRATIME`: no access times for directories. Not part of the mask above.
    pub const NODIRATIME: u64 = 0x80;
    /// `MOUNT_ATTR_NOSYMFOLLOW`: symlinks are not followed. Since Linux 5.14.
    pub const NOSYMFOLLOW: u64 = 0x0020_0000;
}

/// `MS_I_VERSION`, which rustix has no name for.
const I_VERSION: MountFlags = MountFlags::from_bits_retain(1 << 23);

/// Whether a mount is a bind mount, and of how much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Bind {
    /// Not a bind mount.
    #[default]
    No,
    /// `bind`: the one mount that the source is on.
    Single,
    /// `rbind`: the mounts below the source too.
    Recursive,
}

/// Whether a mount is to be id-mapped, and how much of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IdMap {
    /// Not asked for by an option. `uidMappings` and `gidMappings` may still ask for it.
    #[default]
    No,
    /// `idmap`: the one mount.
    Single,
    /// `ridmap`: the mounts below it too.
    Recursive,
}

/// What mount_setattr(2) is to do with a mount and all mounts below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecursiveAttributes {
    /// Attributes to set: bits of [`attr`].
    pub set: u64,
    /// Attributes to clear: bits of [`attr`]. Has the whole [`attr::ATIME_MASK`] whenever the access-time setting
    /// changes, as the kernel demands.
    pub clear: u64,
}

/// The options of one mount, typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountOptions {
    /// Flags to set. Bind and remount are not among them, they have fields of their own.
    pub set: MountFlags,
    /// Flags that an option cleared (`rw`, `suid`, …) and no later option set. A bind mount takes over the flags of
    /// its source but for these.
    pub clear: MountFlags,
    /// Propagation types, each with or without `REC`, to be set one after the other.
    pub propagation: Vec<MountPropagationFlags>,
    /// Attributes for the mount and all mounts below it (`rro`, `rnosuid`, …).
    pub recursive: Option<RecursiveAttributes>,
    /// What the filesystem is to interpret: `size=64k`, `mode=755`.
    pub data: Vec<String>,
    /// `bind` or `rbind`.
    pub bind: Bind,
    /// `idmap` or `ridmap`.
    pub idmap: IdMap,
    /// `tmpcopyup`: a tmpfs begins with a copy of what it covers.
    pub tmpcopyup: bool,
    /// `remount`: change the flags of the mount that is there.
    pub remount: bool,
}

/// What one option does.
#[derive(Debug, Clone, Copy)]
enum Effect {
    Set(MountFlags),
    Clear(MountFlags),
    Propagation(MountPropagationFlags),
    SetAll(u64),
    ClearAll(u64),
    /// An access-time setting: these exclude each other.
    SetAtimeAll(u64),
    ClearAtimeAll(u64),
    Bind(Bind),
    IdMap(IdMap),
    TmpCopyUp,
    Remount,
    Nothing,
}

use Effect::{Clear, ClearAll, ClearAtimeAll, Propagation, Set, SetAll, SetAtimeAll};

const REC: MountPropagationFlags = MountPropagationFlags::REC;
const SHARED: MountPropagationFlags = MountPropagationFlags::SHARED;
const SLAVE: MountPropagationFlags = MountPropagationFlags::DOWNSTREAM;
const PRIVATE: MountPropagationFlags = MountPropagationFlags::PRIVATE;
const UNBINDABLE: MountPropagationFlags = MountPropagationFlags::UNBINDABLE;

/// The names, sorted, for the binary search in [`effect`].
const NAMES: [&str; TABLE.len()] = {
    let mut names = [""; TABLE.len()];
    let mut index = 0;
    while index < TABLE.len() {
        names[index] = TABLE[index].0;
        index += 1;
    }
    names
};

const TABLE: [(&str, Effect); 62] = [
    ("async", Clear(MountFlags::SYNCHRONOUS)),
    ("atime", Clear(MountFlags::NOATIME)),
    ("bind", Effect::Bind(Bind::Single)),
    ("defaults", Effect::Nothing),
    ("dev", Clear(MountFlags::NODEV)),
    ("diratime", Clear(MountFlags::NODIRATIME)),
    ("dirsync", Set(MountFlags::DIRSYNC)),
    ("exec", Clear(MountFlags::NOEXEC)),
    ("idmap", Effect::IdMap(IdMap::Single)),
    ("iversion", Set(I_VERSION)),
    ("lazytime", Set(MountFlags::LAZYTIME)),
    ("loud", Clear(MountFlags::SILENT)),
    ("mand", Set(MountFlags::PERMIT_MANDATORY_FILE_LOCKING)),
    ("noatime", Set(MountFlags::NOATIME)),
    ("nodev", Set(MountFlags::NODEV)),
    ("nodiratime", Set(MountFlags::NODIRATIME)),
    ("noexec", Set(MountFlags::NOEXEC)),
    ("noiversion", Clear(I_VERSION)),
    ("nolazytime", Clear(MountFlags::LAZYTIME)),
    ("nomand", Clear(MountFlags::PERMIT_MANDATORY_FILE_LOCKING)),
    ("norelatime", Clear(MountFlags::RELATIME)),
    ("nostrictatime", Clear(MountFlags::STRICTATIME)),
    ("nosuid", Set(MountFlags::NOSUID)),
    ("nosymfollow", Set(MountFlags::NOSYMFOLLOW)),
    ("private", Propagation(PRIVATE)),
    ("ratime", ClearAtimeAll(attr::NOATIME)),
    ("rbind", Effect::Bind(Bind::Recursive)),
    ("rdev", ClearAll(attr::NODEV)),
    ("rdiratime", ClearAll(attr::NODIRATIME)),
    ("relatime", Set(MountFlags::RELATIME)),
    ("remount", Effect::Remount),
    ("rexec", ClearAll(attr::NOEXEC)),
    ("ridmap", Effect::IdMap(IdMap::Recursive)),
    ("rnoatime", SetAtimeAll(attr::NOATIME)),
    ("rnodev", SetAll(attr::NODEV)),
    ("rnodiratime", SetAll(attr::NODIRATIME)),
    ("rnoexec", SetAll(attr::NOEXEC)),
    ("rnorelatime", ClearAtimeAll(attr::RELATIME)),
    ("rnostrictatime", ClearAtimeAll(attr::STRICTATIME)),
    ("rnosuid", SetAll(attr::NOSUID)),
    ("rnosymfollow", SetAll(attr::NOSYMFOLLOW)),
    ("ro", Set(MountFlags::RDONLY)),
    ("rprivate", Propagation(PRIVATE.union(REC))),
    ("rrelatime", SetAtimeAll(attr::RELATIME)),
    ("rro", SetAll(attr::RDONLY)),
    ("rrw", ClearAll(attr::RDONLY)),
    ("rshared", Propagation(SHARED.union(REC))),
    ("rslave", Propagation(SLAVE.union(REC))),
    ("rstrictatime", SetAtimeAll(attr::STRICTATIME)),
    ("rsuid", ClearAll(attr::NOSUID)),
    ("rsymfollow", ClearAll(attr::NOSYMFOLLOW)),
    ("runbindable", Propagation(UNBINDABLE.union(REC))),
    ("rw", Clear(MountFlags::RDONLY)),
    ("shared", Propagation(SHARED)),
    ("silent", Set(MountFlags::SILENT)),
    ("slave", Propagation(SLAVE)),
    ("strictatime", Set(MountFlags::STRICTATIME)),
    ("suid", Clear(MountFlags::NOSUID)),
    ("symfollow", Clear(MountFlags::NOSYMFOLLOW)),
    ("sync", Set(MountFlags::SYNCHRONOUS)),
    ("tmpcopyup", Effect::TmpCopyUp),
    ("unbindable", Propagation(UNBINDABLE)),
];

/// The names of all options that are not the filesystem's, sorted: what `features` lists as `mountOptions`.
pub fn mount_option_names() -> &'static [&'static str] {
    &NAMES
}

/// The propagation type of that name (`rprivate`, `slave`, …), with `REC` when the name begins with `r`.
pub(super) fn propagation(name: &str) -> Option<MountPropagationFlags> {
    match effect(name) {
        Some(Propagation(flags)) => Some(flags),
        _ => None,
    }
}

/// The names that [`propagation`] knows.
pub(super) const PROPAGATIONS: &str =
    "private, rprivate, slave, rslave, shared, rshared, unbindable or runbindable";

fn effect(name: &str) -> Option<Effect> {
    let index = TABLE.binary_search_by(|(known, _)| (*known).cmp(name)).ok()?;
    TABLE.get(index).map(|(_, effect)| *effect)
}

/// Types the options of one mount. Of two options that contradict each other, the later one holds.
pub fn parse_mount_options<S: AsRef<str>>(options: &[S]) -> MountOptions {
    let mut typed = MountOptions {
        set: MountFlags::empty(),
        clear: MountFlags::empty(),
        propagation: Vec::new(),
        recursive: None,
        data: Vec::new(),
        bind: Bind::No,
        idmap: IdMap::No,
        tmpcopyup: false,
        remount: false,
    };
    let (mut set, mut clear) = (0, 0);
    for option in options.iter().map(AsRef::as_ref) {
        match effect(option) {
            None => typed.data.push(option.to_owned()),
            Some(Set(flags)) => {
                typed.set |= flags;
                typed.clear -= flags;
            }
            Some(Clear(flags)) => {
                typed.set -= flags;
                typed.clear |= flags;
            }
            Some(Propagation(flags)) => typed.propagation.push(flags),
            Some(SetAll(bits)) => {
                set |= bits;
                clear &= !bits;
            }
            Some(ClearAll(bits)) => {
                set &= !bits;
                clear |= bits;
            }
            // Access times are a value, not bits: the kernel wants the old one cleared with the whole mask, and
            // refuses two at once (mount_setattr(2)).
            Some(SetAtimeAll(bits)) => {
                set = (set & !attr::ATIME_MASK) | bits;
                clear |= attr::ATIME_MASK;
            }
            Some(ClearAtimeAll(bits)) => {
                set &= !bits;
                clear |= attr::ATIME_MASK;
            }
            Some(Effect::Bind(bind)) => typed.bind = bind,
            Some(Effect::IdMap(idmap)) => typed.idmap = idmap,
            Some(Effect::TmpCopyUp) => typed.tmpcopyup = true,
            Some(Effect::Remount) => typed.remount = true,
            Some(Effect::Nothing) => {}
        }
    }
    if (set, clear) != (0, 0) {
        typed.recursive = Some(RecursiveAttributes { set, clear });
    }
    typed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &str) -> MountOptions {
        parse_mount_options(&options.split(' ').filter(|option| !option.is_empty()).collect::<Vec<_>>())
    }

    #[test]
    fn the_table_is_sorted_and_every_name_is_found() {
        assert!(NAMES.is_sorted());
        for name in mount_option_names() {
            assert!(effect(name).is_some(), "{name}");
        }
    }

    #[test]
    fn the_later_of_two_contradicting_flags_holds() {
        let options = parse("ro nosuid rw");
        assert_eq!((options.set, options.clear), (MountFlags::NOSUID, MountFlags::RDONLY));
        let options = parse("rw ro");
        assert_eq!((options.set, options.clear), (MountFlags::RDONLY, MountFlags::empty()));
        assert_eq!(parse("iversion").set, I_VERSION);
    }

    #[test]
    fn what_the_table_does_not_know_is_data_in_its_order() {
        let options = parse("nosuid mode=755 defaults size=64k acl");
        assert_eq!(options.data, ["mode=755", "size=64k", "acl"]);
        assert_eq!(options.set, MountFlags::NOSUID);
    }

    #[test]
    fn bind_and_propagation_are_not_flags() {
        let options = parse("rbind rslave private remount tmpcopyup ridmap");
        assert_eq!(options.bind, Bind::Recursive);
        assert_eq!(options.propagation, [SLAVE | REC, PRIVATE]);
        assert_eq!(options.idmap, IdMap::Recursive);
        assert!(options.remount && options.tmpcopyup && options.set.is_empty());
        assert_eq!(parse("bind").bind, Bind::Single);
        assert_eq!(parse("ro").bind, Bind::No);
        assert_eq!(parse("idmap").idmap, IdMap::Single);
    }

    #[test]
    fn recursive_attributes_are_set_and_cleared() {
        let both = |set, clear| Some(RecursiveAttributes { set, clear });
        assert_eq!(parse("ro").recursive, None);
        assert_eq!(parse("rro rnosuid").recursive, both(attr::RDONLY | attr::NOSUID, 0));
        assert_eq!(parse("rro rrw").recursive, both(0, attr::RDONLY));
        assert_eq!(parse("rnodiratime").recursive, both(attr::NODIRATIME, 0));
        assert_eq!(
            parse("rdev rexec rsymfollow").recursive,
            both(0, attr::NODEV | attr::NOEXEC | attr::NOSYMFOLLOW)
        );
    }

    #[test]
    fn recursive_access_times_always_clear_the_whole_mask() {
        let mask = |set| Some(RecursiveAttributes { set, clear: attr::ATIME_MASK });
        assert_eq!(parse("rnoatime").recursive, mask(attr::NOATIME));
        assert_eq!(parse("rstrictatime").recursive, mask(attr::STRICTATIME));
        assert_eq!(parse("rrelatime").recursive, mask(attr::RELATIME));
        assert_eq!(parse("ratime").recursive, mask(0));
        assert_eq!(parse("rnostrictatime").recursive, mask(0));
        assert_eq!(parse("rnorelatime").recursive, mask(0));
        assert_eq!(parse("rnoatime rstrictatime").recursive, mask(attr::STRICTATIME));
        assert_eq!(parse("rnoatime ratime").recursive, mask(0));
        assert_eq!(parse("rstrictatime rnorelatime").recursive, mask(attr::STRICTATIME));
    }
}
