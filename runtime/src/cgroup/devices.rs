//! Which devices a container may make, read and write.
//!
//! It owns the rules (`linux.resources.devices` and the runtime's default ones) and their meaning: a
//! [`Policy`], which says what is the case for every device and which devices are exceptions. The
//! later of two rules wins. Version 1 writes the policy to `devices.allow` and `devices.deny`,
//! version 2 compiles it to a program; both promise never to grant more than the rules say.
//! Sources: runtime-spec "Allowed Device list", kernel cgroup-v1/devices.rst.

use std::collections::BTreeMap;
use std::fmt;

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType, LinuxResources};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};

/// What may be done with a device: `r`ead, `w`rite, `m`ake (mknod).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Access(u8);

impl Access {
    /// No access.
    pub const NONE: Access = Access(0);
    /// To make the device's node.
    pub const MAKE: Access = Access(1);
    /// To read.
    pub const READ: Access = Access(2);
    /// To write.
    pub const WRITE: Access = Access(4);
    /// All three.
    pub const ALL: Access = Access(7);

    /// Reads `rwm` in any order; other letters don't count. `None` when none of the three is there.
    pub fn parse(text: &str) -> Option<Access> {
        let mut access = 0;
        for letter in text.chars() {
            access |= match letter {
                'r' => Access::READ.0,
                'w' => Access::WRITE.0,
                'm' => Access::MAKE.0,
                _ => 0,
            };
        }
        (access != 0).then_some(Access(access))
    }

    /// The bits, as `BPF_DEVCG_ACC_*` of bpf(2) has them.
    pub fn bits(self) -> u8 {
        self.0
    }

    /// What is in either.
    #[must_use]
    pub fn with(self, other: Access) -> Access {
        Access(self.0 | other.0)
    }

    /// What is here and not in `other`.
    #[must_use]
    pub fn without(self, other: Access) -> Access {
        Access(self.0 & !other.0)
    }

    /// What is in both.
    #[must_use]
    pub fn common(self, other: Access) -> Access {
        Access(self.0 & other.0)
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (bit, letter) in [(Access::READ, "r"), (Access::WRITE, "w"), (Access::MAKE, "m")] {
            if self.common(bit) == bit {
                f.write_str(letter)?;
            }
        }
        Ok(())
    }
}

/// The type of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum DeviceKind {
    /// `b`
    Block,
    /// `c`
    Char,
}

impl DeviceKind {
    fn letter(self) -> char {
        match self {
            DeviceKind::Block => 'b',
            DeviceKind::Char => 'c',
        }
    }
}

/// The devices that a rule speaks of; `None` is a wildcard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Devices {
    /// Block or character.
    pub kind: DeviceKind,
    /// Major number.
    pub major: Option<u32>,
    /// Minor number.
    pub minor: Option<u32>,
}

impl Devices {
    fn overlaps(&self, other: &Devices) -> bool {
        let meet = |a: Option<u32>, b: Option<u32>| a.is_none() || b.is_none() || a == b;
        self.kind == other.kind && meet(self.major, other.major) && meet(self.minor, other.minor)
    }

    fn covers(&self, other: &Devices) -> bool {
        let over = |a: Option<u32>, b: Option<u32>| a.is_none() || a == b;
        self.kind == other.kind && over(self.major, other.major) && over(self.minor, other.minor)
    }
}

impl fmt::Display for Devices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |number: Option<u32>| number.map_or("*".to_owned(), |number| number.to_string());
        write!(f, "{} {}:{}", self.kind.letter(), number(self.major), number(self.minor))
    }
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRule {
    /// To allow or to deny.
    pub allow: bool,
    /// Block or character devices; `None` means both.
    pub kind: Option<DeviceKind>,
    /// Major number; `None` means every.
    pub major: Option<u32>,
    /// Minor number; `None` means every.
    pub minor: Option<u32>,
    /// What is allowed or denied.
    pub access: Access,
    /// Where the rule stands in `config.json`; empty for one of the runtime's own.
    pub place: String,
}

impl DeviceRule {
    const fn own(kind: DeviceKind, major: Option<u32>, minor: Option<u32>, access: Access) -> DeviceRule {
        DeviceRule { allow: true, kind: Some(kind), major, minor, access, place: String::new() }
    }
}

/// What every container may use, as runc allows it: making any node, and the devices of the spec's
/// "Default Devices" with the pseudo-terminals and `/dev/net/tun`. Appended to the rules of
/// `config.json`.
pub fn default_rules() -> &'static [DeviceRule] {
    static RULES: [DeviceRule; 11] = [
        DeviceRule::own(DeviceKind::Char, None, None, Access::MAKE),
        DeviceRule::own(DeviceKind::Block, None, None, Access::MAKE),
        DeviceRule::own(DeviceKind::Char, Some(1), Some(3), Access::ALL),
        DeviceRule::own(DeviceKind::Char, Some(1), Some(5), Access::ALL),
        DeviceRule::own(DeviceKind::Char, Some(1), Some(7), Access::ALL),
        DeviceRule::own(DeviceKind::Char, Some(1), Some(8), Access::ALL),
        DeviceRule::own(DeviceKind::Char, Some(1), Some(9), Access::ALL),
        DeviceRule::own(DeviceKind::Char, Some(5), Some(0), Access::ALL),
        DeviceRule::own(DeviceKind::Char, Some(5), Some(2), Access::ALL),
        DeviceRule::own(DeviceKind::Char, Some(10), Some(200), Access::ALL),
        DeviceRule::own(DeviceKind::Char, Some(136), None, Access::ALL),
    ];
    &RULES
}

/// The rules of `linux.resources.devices`, in order.
pub fn spec_rules(resources: Option<&LinuxResources>) -> Result<Vec<DeviceRule>> {
    let rules = resources.and_then(|resources| resources.devices().as_ref()).map_or(&[][..], Vec::as_slice);
    rules.iter().enumerate().map(|(index, rule)| spec_rule(index, rule)).collect()
}

fn spec_rule(index: usize, rule: &LinuxDeviceCgroup) -> Result<DeviceRule> {
    let place = format!("linux.resources.devices[{index}]");
    let kind = match rule.typ().unwrap_or_default() {
        LinuxDeviceType::A => None,
        LinuxDeviceType::B => Some(DeviceKind::Block),
        LinuxDeviceType::C | LinuxDeviceType::U => Some(DeviceKind::Char),
        LinuxDeviceType::P => {
            return Err(Error::config(format!("{place}.type"), "\"p\" is not a device; use a, b, c or u"));
        }
    };
    let number = |name: &str, value: Option<i64>| match value {
        None | Some(-1) => Ok(None),
        Some(value) => u32::try_from(value).map(Some).map_err(|_| {
            Error::config(
                format!("{place}.{name}"),
                format!("{value} is out of range; -1 stands for every number"),
            )
        }),
    };
    let access = match rule.access().as_deref() {
        None | Some("") => Access::ALL,
        Some(text) => Access::parse(text).ok_or_else(|| {
            Error::config(format!("{place}.access"), format!("{text:?} may hold only the letters r, w and m"))
        })?,
    };
    Ok(DeviceRule {
        allow: rule.allow(),
        kind,
        major: number("major", rule.major())?,
        minor: number("minor", rule.minor())?,
        access,
        place,
    })
}

/// What holds for every device, and the devices for which the opposite holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Whether a device that is no exception may be used.
    pub allow_by_default: bool,
    /// The exceptions, with the accesses for which they are exceptions.
    pub exceptions: BTreeMap<Devices, Access>,
}

impl Policy {
    /// Everything is allowed: the state of a new cgroup below an unrestricted one.
    pub fn allow_all() -> Policy {
        Policy { allow_by_default: true, exceptions: BTreeMap::new() }
    }

    /// Nothing is allowed.
    pub fn deny_all() -> Policy {
        Policy { allow_by_default: false, exceptions: BTreeMap::new() }
    }

    /// Applies rules in order. Before the first rule nothing is allowed, as with runc.
    ///
    /// # Errors
    /// When a rule takes back a part of what an earlier wildcard rule said: a list of exceptions
    /// cannot hold that.
    pub fn of<'a>(rules: impl IntoIterator<Item = &'a DeviceRule>) -> Result<Policy> {
        let mut policy = Policy::deny_all();
        for rule in rules {
            policy.apply(rule)?;
        }
        Ok(policy)
    }

    fn apply(&mut self, rule: &DeviceRule) -> Result<()> {
        let every = rule.kind.is_none() && rule.major.is_none() && rule.minor.is_none();
        if every && rule.access == Access::ALL {
            self.allow_by_default = rule.allow;
            self.exceptions.clear();
            return Ok(());
        }
        let kinds: &[DeviceKind] = match rule.kind {
            None => &[DeviceKind::Block, DeviceKind::Char],
            Some(DeviceKind::Block) => &[DeviceKind::Block],
            Some(DeviceKind::Char) => &[DeviceKind::Char],
        };
        for &kind in kinds {
            let devices = Devices { kind, major: rule.major, minor: rule.minor };
            if rule.allow == self.allow_by_default {
                self.take_back(devices, rule)?;
            } else {
                let access = self.exceptions.entry(devices).or_insert(Access::NONE);
                *access = access.with(rule.access);
            }
        }
        Ok(())
    }

    fn take_back(&mut self, devices: Devices, rule: &DeviceRule) -> Result<()> {
        for (exception, access) in &mut self.exceptions {
            if !exception.overlaps(&devices) || access.common(rule.access) == Access::NONE {
                continue;
            }
            if !devices.covers(exception) {
                let (did, undoes) = if rule.allow { ("denied", "allows") } else { ("allowed", "denies") };
                return Err(Error::new(
                    Kind::Unsupported,
                    format!(
                        "a rule {undoes} {devices} {} out of {exception} {access}, {did} before it",
                        rule.access
                    ),
                )
                .at(rule.place.clone())
                .hint("name the devices one by one instead of by a wildcard"));
            }
            *access = access.without(rule.access);
        }
        self.exceptions.retain(|_, access| *access != Access::NONE);
        Ok(())
    }

    /// Reads a cgroup's `devices.list`.
    pub fn parse_list(text: &str) -> Option<Policy> {
        let mut policy = Policy::deny_all();
        for line in text.lines() {
            let mut parts = line.split([' ', ':']);
            let (kind, major, minor, access) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
            let kind = match kind {
                "a" => return Some(Policy::allow_all()),
                "b" => DeviceKind::Block,
                "c" => DeviceKind::Char,
                _ => return None,
            };
            let number = |text: &str| match text {
                "*" => Some(None),
                text => text.parse().ok().map(Some),
            };
            let devices = Devices { kind, major: number(major)?, minor: number(minor)? };
            policy.exceptions.insert(devices, Access::parse(access)?);
        }
        Some(policy)
    }

    /// The version 1 writes that make this policy out of `current`: the file (`devices.allow` or
    /// `devices.deny`) and the value. What was granted and stays granted is granted at every
    /// moment; what is taken away is taken away before anything is given.
    pub fn v1_writes(&self, current: Option<&Policy>) -> Vec<(&'static str, String)> {
        let (same, opposite) = if self.allow_by_default {
            ("devices.allow", "devices.deny")
        } else {
            ("devices.deny", "devices.allow")
        };
        // What an allow-all cgroup denies cannot be read back: devices.list shows only `a *:* rwm`.
        let known = current.filter(|current| {
            current.allow_by_default == self.allow_by_default
                && (!self.allow_by_default || current.exceptions.is_empty())
        });
        let mut writes = Vec::new();
        match known {
            None => writes.push((same, "a".to_owned())),
            Some(current) => {
                for (devices, &access) in &current.exceptions {
                    let kept = self.exceptions.get(devices).copied().unwrap_or(Access::NONE);
                    let gone = access.without(kept);
                    if gone != Access::NONE {
                        writes.push((same, format!("{devices} {gone}")));
                    }
                }
            }
        }
        for (devices, &access) in &self.exceptions {
            let had =
                known.and_then(|current| current.exceptions.get(devices)).copied().unwrap_or(Access::NONE);
            let new = access.without(had);
            if new != Access::NONE {
                writes.push((opposite, format!("{devices} {new}")));
            }
        }
        writes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(allow: bool, text: &str) -> DeviceRule {
        let mut parts = text.split([' ', ':']);
        let kind = match parts.next().unwrap() {
            "b" => Some(DeviceKind::Block),
            "c" => Some(DeviceKind::Char),
            _ => None,
        };
        let mut number = || parts.next().unwrap().parse().ok();
        let (major, minor) = (number(), number());
        let access = Access::parse(parts.next().unwrap()).unwrap();
        DeviceRule { allow, kind, major, minor, access, place: "linux.resources.devices[0]".into() }
    }

    fn texts(policy: &Policy, current: Option<&Policy>) -> Vec<String> {
        policy.v1_writes(current).into_iter().map(|(file, value)| format!("{file} {value}")).collect()
    }

    #[test]
    fn a_default_container_denies_all_and_allows_what_runc_allows() {
        let mut rules = vec![rule(false, "a *:* rwm")];
        rules.extend_from_slice(default_rules());
        let writes = texts(&Policy::of(&rules).unwrap(), Some(&Policy::allow_all()));
        assert_eq!(writes.first().unwrap(), "devices.deny a");
        assert_eq!(writes.len(), 12);
        assert!(writes.contains(&"devices.allow c 136:* rwm".to_owned()));
        assert!(writes.contains(&"devices.allow b *:* m".to_owned()));
    }

    #[test]
    fn an_unrestricted_container_needs_no_write() {
        let mut rules = vec![rule(false, "a *:* rwm"), rule(true, "a *:* rwm")];
        rules.extend_from_slice(default_rules());
        assert!(texts(&Policy::of(&rules).unwrap(), Some(&Policy::allow_all())).is_empty());
    }

    #[test]
    fn the_later_rule_wins() {
        let rules = [
            rule(false, "a *:* rwm"),
            rule(true, "c 1:3 rwm"),
            rule(true, "c 1:5 rw"),
            rule(false, "c 1:3 w"),
            rule(false, "c 1:* r"),
        ];
        let policy = Policy::of(&rules).unwrap();
        let left: Vec<String> = policy.exceptions.iter().map(|(d, a)| format!("{d} {a}")).collect();
        assert_eq!(left, ["c 1:3 m", "c 1:5 w"]);
    }

    #[test]
    fn a_partial_rule_for_all_types_grants_only_what_it_names() {
        let policy = Policy::of(&[rule(false, "a *:* rwm"), rule(true, "a *:* m")]).unwrap();
        assert!(!policy.allow_by_default);
        assert_eq!(
            texts(&policy, None),
            ["devices.deny a", "devices.allow b *:* m", "devices.allow c *:* m"]
        );
    }

    #[test]
    fn a_hole_in_a_wildcard_is_refused_with_its_place() {
        let error = Policy::of(&[rule(false, "a *:* rwm"), rule(true, "c 1:* rwm"), rule(false, "c 1:3 w")])
            .unwrap_err();
        assert_eq!(error.place(), Some("linux.resources.devices[0]"));
    }

    #[test]
    fn an_update_takes_away_before_it_gives_and_leaves_the_rest_alone() {
        let current = Policy::parse_list("c 1:3 rwm\nc 1:5 rwm\nb *:* m\n").unwrap();
        let wanted =
            Policy::of(&[rule(false, "a *:* rwm"), rule(true, "c 1:3 rwm"), rule(true, "c 10:200 rw")]);
        assert_eq!(
            texts(&wanted.unwrap(), Some(&current)),
            ["devices.deny b *:* m", "devices.deny c 1:5 rwm", "devices.allow c 10:200 rw"]
        );
    }
}
