// SPDX-License-Identifier: Apache-2.0
//! Lint: what a profile says that it probably does not mean.

use crate::Arch;
use crate::bpf::ret;
use crate::compile;
use crate::error::Error;
use crate::profile::{Condition, Operator, Profile, Rule};
use crate::resolve::{self, Alternative, Decision, Names, Section};
use crate::simulate::Verdict;
use crate::tables::Syscall;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Kind of a [`Finding`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Concern {
    /// A name that no architecture knows.
    UnknownName,
    /// A property that the spec does not define.
    UnknownProperty,
    /// An architecture that the kernel cannot run.
    ForeignArchitecture,
    /// A call that none of the filter's architectures has.
    AbsentCall,
    /// A rule whose action is the default action.
    NoEffect,
    /// A rule that an earlier one leaves nothing to decide.
    Shadowed,
    /// A condition that no argument meets.
    NeverMatches,
    /// A condition that every argument meets.
    AlwaysMatches,
    /// Conditions that are alternatives although they look like a conjunction.
    Alternatives,
    /// A value of which some bits do not count.
    IgnoredBits,
    /// A condition that the caller can meet or not meet at will, so that what the rule is for can be evaded.
    Evasion,
}

impl Concern {
    /// Whether it is common in sound profiles, which are written for many architectures and kernels.
    pub const fn is_note(self) -> bool {
        matches!(self, Concern::AbsentCall | Concern::NoEffect | Concern::ForeignArchitecture)
    }
}

/// Something to look at in a profile.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// JSON path relative to `linux.seccomp`.
    pub path: String,
    /// What kind of finding.
    pub concern: Concern,
    /// A sentence about it.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.concern.is_note() { "note" } else { "warning" };
        write!(f, "{kind}: {}: {}", self.path, self.message)
    }
}

/// Arguments of which the kernel uses the low 32 bits only.
const NARROW_ARGUMENTS: [(&str, &[u32]); 8] = [
    ("ioctl", &[0, 1]),
    ("socket", &[0, 1, 2]),
    ("socketpair", &[0, 1, 2]),
    ("setsockopt", &[1, 2]),
    ("prctl", &[0]),
    ("fcntl", &[0, 1]),
    ("keyctl", &[0]),
    ("personality", &[0]),
];

/// Looks for mistakes. Findings come in the profile's order.
///
/// # Errors
/// What [`compile`](crate::compile) refuses: a profile must be valid before it can be checked.
pub fn check(profile: &Profile, native: Arch) -> Result<Vec<Finding>, Error> {
    compile::compile(profile, native)?;
    let names = Names::of(profile);
    let sections = compile::sections(profile, &names, native)?;
    let mut report = Report { profile, sections: &sections, findings: BTreeSet::new() };
    report.properties(native);
    for (position, rule) in profile.syscalls.iter().enumerate() {
        report.rule(position, rule);
    }
    report.unconditional();
    report.conditional();
    let mut findings: Vec<Finding> = report.findings.into_iter().map(|(_, finding)| finding).collect();
    findings.dedup();
    Ok(findings)
}

struct Report<'a> {
    profile: &'a Profile,
    sections: &'a [Section],
    /// Findings by their rule; those about the profile as a whole come first.
    findings: BTreeSet<(usize, Finding)>,
}

impl Report<'_> {
    fn add(&mut self, order: usize, path: String, concern: Concern, message: String) {
        self.findings.insert((order, Finding { path, concern, message }));
    }

    fn properties(&mut self, native: Arch) {
        for path in &self.profile.ignored {
            let message = match path.rsplit('.').next() {
                Some("includes" | "excludes" | "archMap") => {
                    "not a property of the spec but of an engine's profile, which the engine expands; ignored"
                }
                _ => "not a property of the spec; ignored",
            };
            self.add(0, path.clone(), Concern::UnknownProperty, message.into());
        }
        for (index, arch) in self.profile.architectures.iter().enumerate() {
            if !arch.shares_kernel_with(native) {
                let message = format!("a kernel for {native} never runs {arch}; left out");
                self.add(0, format!("architectures[{index}]"), Concern::ForeignArchitecture, message);
            }
        }
    }

    fn rule(&mut self, position: usize, rule: &Rule) {
        for (index, name) in rule.names.iter().enumerate() {
            let path = format!("syscalls[{position}].names[{index}]");
            match Syscall::by_name(name) {
                None => {
                    let hint =
                        similar(name).map(|name| format!("; did you mean {name}?")).unwrap_or_default();
                    let message = format!("unknown system call {name:?}{hint}");
                    self.add(position + 1, path, Concern::UnknownName, message);
                }
                Some(call) => {
                    let present = self.sections.iter().any(|section| {
                        call.number(section.arch).is_some() || resolve::is_multiplexed(call, section.arch)
                    });
                    if !present {
                        let message = format!("none of the filter's architectures has {name}");
                        self.add(position + 1, path, Concern::AbsentCall, message);
                    }
                }
            }
        }
        if rule.action.return_value(rule.errno_ret) == resolve::default_return(self.profile) {
            let message = "says the same as defaultAction, and so has no effect".to_owned();
            self.add(position + 1, format!("syscalls[{position}]"), Concern::NoEffect, message);
        }
        for (index, condition) in rule.args.iter().enumerate() {
            self.condition(position, index, condition);
        }
        self.alternatives(position, rule);
        self.evasion(position, rule);
    }

    fn condition(&mut self, position: usize, index: usize, condition: &Condition) {
        let path = |property: &str| format!("syscalls[{position}].args[{index}].{property}");
        let Condition { value, value_two, op, .. } = *condition;
        let constant = match op {
            Operator::Less if value == 0 => {
                Some((Concern::NeverMatches, "nothing is less than 0: never holds"))
            }
            Operator::Greater if value == u64::MAX => {
                Some((Concern::NeverMatches, "nothing is greater than the largest value: never holds"))
            }
            Operator::GreaterOrEqual if value == 0 => Some((Concern::AlwaysMatches, "always holds")),
            Operator::LessOrEqual if value == u64::MAX => Some((Concern::AlwaysMatches, "always holds")),
            Operator::MaskedEqual if value == 0 => {
                Some((Concern::AlwaysMatches, "the mask (value) is 0, so that it always holds"))
            }
            _ => None,
        };
        if let Some((concern, message)) = constant {
            self.add(position + 1, path("value"), concern, message.into());
        }
        if op == Operator::MaskedEqual && value_two & !value != 0 {
            let message =
                format!("bits {:#x} are outside the mask {value:#x} and do not count", value_two & !value);
            self.add(position + 1, path("valueTwo"), Concern::IgnoredBits, message);
        }
        if value > u64::from(u32::MAX)
            && op != Operator::MaskedEqual
            && let Some(narrow) = self.sections.iter().find(|section| !section.arch.has_wide_arguments())
        {
            let message = format!("on {} only the low 32 bits count, {:#x}", narrow.arch, value as u32);
            self.add(position + 1, path("value"), Concern::IgnoredBits, message);
        }
    }

    fn alternatives(&mut self, position: usize, rule: &Rule) {
        if !rule.args_are_alternatives() {
            return;
        }
        let lists_values =
            rule.args.iter().all(|arg| matches!(arg.op, Operator::Equal | Operator::MaskedEqual))
                && rule.args.windows(2).all(|pair| matches!(pair, [a, b] if a.index == b.index));
        if !lists_values {
            let message = "two conditions are about the same argument, which makes all of them alternatives: any \
                           one suffices (as in runc); they are no range and no conjunction";
            self.add(
                position + 1,
                format!("syscalls[{position}].args"),
                Concern::Alternatives,
                message.into(),
            );
        }
    }

    /// Conditions that don't see what the kernel sees, in a rule that permits or denies other than the default action.
    fn evasion(&mut self, position: usize, rule: &Rule) {
        let permits = |value: u32| matches!(value & ret::ACTION, ret::ALLOW | ret::LOG);
        let permitting = permits(rule.action.return_value(rule.errno_ret));
        if permits(resolve::default_return(self.profile)) == permitting || rule.args.is_empty() {
            return;
        }
        self.high_bits(position, rule, permitting);
        self.multiplexed(position, rule, permitting);
    }

    /// A test of 64 bits where the kernel uses 32: setting an unused high bit makes the value unequal and larger.
    fn high_bits(&mut self, position: usize, rule: &Rule, permitting: bool) {
        if !self.sections.iter().any(|section| section.arch.has_wide_arguments()) {
            return;
        }
        for (name, narrow) in NARROW_ARGUMENTS {
            if !rule.names.iter().any(|candidate| candidate == name) {
                continue;
            }
            for (index, condition) in rule.args.iter().enumerate() {
                let Condition { value, op, .. } = *condition;
                let advice = match op {
                    Operator::NotEqual | Operator::Greater | Operator::GreaterOrEqual if permitting => {
                        "permits every value; list those that are meant by SCMP_CMP_EQ".to_owned()
                    }
                    Operator::Equal if !permitting => format!(
                        "evades the rule; use SCMP_CMP_MASKED_EQ with value 4294967295 and valueTwo {value}"
                    ),
                    Operator::Less | Operator::LessOrEqual if !permitting => {
                        "evades the rule; use SCMP_CMP_MASKED_EQ for the bits that are meant".to_owned()
                    }
                    Operator::MaskedEqual if !permitting && value > u64::from(u32::MAX) => {
                        "evades the rule; use a mask (value) of at most 4294967295".to_owned()
                    }
                    _ => continue,
                };
                if narrow.contains(&condition.index) {
                    let message = format!(
                        "the kernel uses the low 32 bits of this argument of {name}, and the test compares 64: a \
                         high bit {advice}"
                    );
                    let path = format!("syscalls[{position}].args[{index}]");
                    self.add(position + 1, path, Concern::Evasion, message);
                }
            }
        }
    }

    /// Conditions on a call that also comes through socketcall(2) or ipc(2): there its first argument is the selector,
    /// and the second one a pointer of the caller's choice.
    fn multiplexed(&mut self, position: usize, rule: &Rule, permitting: bool) {
        // A denial whose conditions are about the first argument alone becomes one of the call whatever its arguments.
        if !permitting && rule.args.iter().all(|condition| condition.index == 0) {
            return;
        }
        for name in &rule.names {
            let Some(call) = Syscall::by_name(name) else { continue };
            let way = self.sections.iter().find(|section| resolve::is_multiplexed(call, section.arch));
            if let Some(section) = way {
                let what =
                    if permitting { "permits it whatever its arguments" } else { "can be evaded there" };
                let message = format!(
                    "on {} {name} also comes through a multiplexing call, where a filter can't see its arguments: the \
                     rule {what}; leave that architecture out, or the conditions",
                    section.arch
                );
                self.add(position + 1, format!("syscalls[{position}].args"), Concern::Evasion, message);
            }
        }
    }

    /// Rules that an unconditional rule for the same call makes void.
    fn unconditional(&mut self) {
        let default = resolve::default_return(self.profile);
        let mut by_name: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (position, rule) in self.profile.syscalls.iter().enumerate() {
            if rule.action.return_value(rule.errno_ret) != default {
                for name in &rule.names {
                    by_name.entry(name).or_default().push(position);
                }
            }
        }
        for (name, positions) in by_name {
            let rules = || {
                positions
                    .iter()
                    .filter_map(|&position| Some((position, self.profile.syscalls.get(position)?)))
            };
            let Some((winner, winning)) = rules().find(|(_, rule)| rule.args.is_empty()) else {
                continue;
            };
            let verdict = Verdict(winning.action.return_value(winning.errno_ret));
            let losers: Vec<usize> = rules().map(|(position, _)| position).filter(|&p| p != winner).collect();
            for loser in losers {
                let message = format!(
                    "never decides about {name}: syscalls[{winner}] does, unconditionally, by {verdict}"
                );
                self.add(loser + 1, format!("syscalls[{loser}]"), Concern::Shadowed, message);
            }
        }
    }

    /// Conditional rules that another conditional rule, tried before them, makes void.
    fn conditional(&mut self) {
        let sections = self.sections;
        for section in sections {
            for call in &section.calls {
                let Decision::When { first, count } = call.decision else {
                    continue;
                };
                let tried = section.alternatives_of(first, count);
                for (index, late) in tried.iter().enumerate() {
                    let Some(early) = tried.iter().take(index).find(|early| covers(early, late)) else {
                        continue;
                    };
                    let (late, early) = (late.rule as usize, early.rule as usize);
                    if late == early {
                        continue;
                    }
                    let name = Syscall::by_number(section.arch, call.number).map_or("", Syscall::name);
                    let message = format!(
                        "some conditions never decide about {name}: those of syscalls[{early}] are tried first and \
                         hold whenever they do"
                    );
                    self.add(late + 1, format!("syscalls[{late}]"), Concern::Shadowed, message);
                }
            }
        }
    }
}

/// Whether `early` holds whenever `late` does.
fn covers(early: &Alternative, late: &Alternative) -> bool {
    early.conditions.iter().all(|wide| late.conditions.iter().any(|narrow| implies(narrow, wide)))
}

/// Whether `wide` holds whenever `narrow` does; says no in doubt.
fn implies(narrow: &Condition, wide: &Condition) -> bool {
    if narrow.index != wide.index {
        return false;
    }
    if narrow == wide {
        return true;
    }
    // The values that meet the narrow condition, as an inclusive range.
    let range = match narrow.op {
        Operator::Equal => Some((narrow.value, narrow.value)),
        Operator::Less => narrow.value.checked_sub(1).map(|last| (0, last)),
        Operator::LessOrEqual => Some((0, narrow.value)),
        Operator::GreaterOrEqual => Some((narrow.value, u64::MAX)),
        Operator::Greater => narrow.value.checked_add(1).map(|first| (first, u64::MAX)),
        Operator::NotEqual | Operator::MaskedEqual => None,
    };
    let Some((low, high)) = range else { return false };
    match wide.op {
        Operator::NotEqual => wide.value < low || wide.value > high,
        Operator::MaskedEqual | Operator::Equal => low == high && wide.holds(low),
        _ => wide.holds(low) && wide.holds(high),
    }
}

/// A known call whose name differs from `name` by one edit.
fn similar(name: &str) -> Option<&'static str> {
    Syscall::all().map(Syscall::name).find(|known| within_one_edit(name.as_bytes(), known.as_bytes()))
}

fn within_one_edit(a: &[u8], b: &[u8]) -> bool {
    let head = a.iter().zip(b).take_while(|(x, y)| x == y).count();
    let tail = |a: &[u8], b: &[u8]| a.get(head..).map(<[u8]>::to_vec) == b.get(head..).map(<[u8]>::to_vec);
    let without = |text: &[u8]| {
        let mut text = text.to_vec();
        if head < text.len() {
            text.remove(head);
        }
        text
    };
    let (shorter_a, shorter_b) = (without(a), without(b));
    match a.len().cmp(&b.len()) {
        std::cmp::Ordering::Equal => shorter_a == shorter_b,
        std::cmp::Ordering::Less => a.len() + 1 == b.len() && tail(a, &shorter_b),
        std::cmp::Ordering::Greater => b.len() + 1 == a.len() && tail(&shorter_a, b),
    }
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value, reason = "json! makes values to pass on")]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn findings(profile: Value) -> Vec<(String, Concern)> {
        let profile = Profile::from_value(&profile).unwrap();
        check(&profile, Arch::X86_64)
            .unwrap()
            .into_iter()
            .map(|finding| (finding.path, finding.concern))
            .collect()
    }

    fn one(rules: Value) -> Vec<(String, Concern)> {
        findings(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules}))
    }

    fn args(index: u32, op: &str, value: u64) -> Value {
        json!({"index": index, "op": op, "value": value})
    }

    #[test]
    fn a_sound_profile_has_no_findings() {
        let rules = json!([
            {"names": ["read", "write"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [args(0, "SCMP_CMP_EQ", 0)]},
            {"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [args(0, "SCMP_CMP_EQ", 8)]},
        ]);
        assert_eq!(one(rules), []);
    }

    #[test]
    fn names_are_checked_and_a_correction_offered() {
        let rules =
            json!([{"names": ["opennat", "no_such", "sync_file_range2"], "action": "SCMP_ACT_ALLOW"}]);
        assert_eq!(
            one(rules.clone()),
            [
                ("syscalls[0].names[0]".into(), Concern::UnknownName),
                ("syscalls[0].names[1]".into(), Concern::UnknownName),
                ("syscalls[0].names[2]".into(), Concern::AbsentCall),
            ]
        );
        let profile =
            Profile::from_value(&json!({"defaultAction": "SCMP_ACT_KILL", "syscalls": rules})).unwrap();
        let text = check(&profile, Arch::X86_64).unwrap()[0].to_string();
        assert_eq!(
            text,
            "warning: syscalls[0].names[0]: unknown system call \"opennat\"; did you mean openat?"
        );
    }

    #[test]
    fn rules_that_never_decide_are_found() {
        let rules = json!([
            {"names": ["clone"], "action": "SCMP_ACT_LOG", "args": [args(0, "SCMP_CMP_EQ", 1)]},
            {"names": ["clone"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["clone", "read"], "action": "SCMP_ACT_KILL"},
            {"names": ["read"], "action": "SCMP_ACT_ERRNO"},
        ]);
        assert_eq!(
            one(rules),
            [
                ("syscalls[0]".into(), Concern::Shadowed),
                ("syscalls[2]".into(), Concern::Shadowed),
                ("syscalls[3]".into(), Concern::NoEffect),
            ]
        );
    }

    #[test]
    fn conditions_that_another_rule_covers_are_found() {
        // The test for (in)equality is tried first, and it holds for every smaller value.
        let rules = json!([
            {"names": ["dup"], "action": "SCMP_ACT_ALLOW", "args": [args(0, "SCMP_CMP_LT", 5)]},
            {"names": ["dup"], "action": "SCMP_ACT_LOG", "args": [args(0, "SCMP_CMP_NE", 9)]},
            {"names": ["dup2"], "action": "SCMP_ACT_ALLOW", "args": [args(0, "SCMP_CMP_LT", 5)]},
            {"names": ["dup2"], "action": "SCMP_ACT_LOG", "args": [args(0, "SCMP_CMP_EQ", 3)]},
        ]);
        assert_eq!(one(rules), [("syscalls[0]".into(), Concern::Shadowed)]);
    }

    #[test]
    fn conditions_that_cannot_mean_what_they_say_are_found() {
        let rule = |args: Value| json!([{"names": ["dup"], "action": "SCMP_ACT_ALLOW", "args": args}]);
        let cases = [
            (rule(json!([args(0, "SCMP_CMP_LT", 0)])), "syscalls[0].args[0].value", Concern::NeverMatches),
            (
                rule(json!([args(0, "SCMP_CMP_GT", u64::MAX)])),
                "syscalls[0].args[0].value",
                Concern::NeverMatches,
            ),
            (rule(json!([args(0, "SCMP_CMP_GE", 0)])), "syscalls[0].args[0].value", Concern::AlwaysMatches),
            (
                rule(json!([{"index": 0, "op": "SCMP_CMP_MASKED_EQ", "value": 3, "valueTwo": 4}])),
                "syscalls[0].args[0].valueTwo",
                Concern::IgnoredBits,
            ),
            (
                rule(json!([args(0, "SCMP_CMP_GE", 3), args(0, "SCMP_CMP_LE", 5)])),
                "syscalls[0].args",
                Concern::Alternatives,
            ),
        ];
        for (rules, path, concern) in cases {
            assert_eq!(one(rules), [(path.to_owned(), concern)]);
        }
    }

    #[test]
    fn denials_that_a_high_bit_evades_are_found() {
        let rules = json!([{"names": ["ioctl"], "action": "SCMP_ACT_ERRNO", "args": [args(1, "SCMP_CMP_EQ", 0x5412)]}]);
        let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules});
        assert_eq!(findings(profile), [("syscalls[0].args[0]".into(), Concern::Evasion)]);
    }

    #[test]
    fn permissions_that_a_high_bit_widens_are_found() {
        let evasion = [("syscalls[0].args[0]".to_owned(), Concern::Evasion)];
        for (op, found) in [
            ("SCMP_CMP_NE", &evasion[..]),
            ("SCMP_CMP_GT", &evasion),
            ("SCMP_CMP_GE", &evasion),
            ("SCMP_CMP_EQ", &[]),
            ("SCMP_CMP_LT", &[]),
            ("SCMP_CMP_LE", &[]),
        ] {
            let rule = json!([{"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [args(0, op, 40)]}]);
            assert_eq!(one(rule), found, "{op}");
        }
        let pointer =
            json!([{"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [args(3, "SCMP_CMP_NE", 40)]}]);
        assert_eq!(one(pointer), [], "no argument of 32 bits");
    }

    #[test]
    fn conditions_that_a_multiplexing_call_goes_round_are_found() {
        let on_x86 = |default: &str, action: &str, index: u32| {
            findings(json!({
                "defaultAction": default,
                "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
                "syscalls": [{"names": ["sendto", "dup"], "action": action, "args": [args(index, "SCMP_CMP_EQ", 1)]}],
            }))
        };
        let evasion = [("syscalls[0].args".to_owned(), Concern::Evasion)];
        assert_eq!(on_x86("SCMP_ACT_ERRNO", "SCMP_ACT_ALLOW", 0), evasion);
        assert_eq!(on_x86("SCMP_ACT_ERRNO", "SCMP_ACT_ALLOW", 2), evasion);
        assert_eq!(on_x86("SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", 2), evasion);
        assert_eq!(on_x86("SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", 0), [], "denied whatever its arguments");
    }

    #[test]
    fn conditions_are_compared_by_the_bits_that_count() {
        let rules = json!([
            {"names": ["_llseek"], "action": "SCMP_ACT_ALLOW", "args": [args(0, "SCMP_CMP_EQ", 0x1_0000_0001)]},
            {"names": ["_llseek"], "action": "SCMP_ACT_LOG", "args": [args(0, "SCMP_CMP_EQ", 1), args(1, "SCMP_CMP_EQ", 0)]},
        ]);
        let found = findings(json!({
            "defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86"], "syscalls": rules
        }));
        assert!(found.contains(&("syscalls[1]".into(), Concern::Shadowed)), "{found:?}");
    }

    #[test]
    fn foreign_architectures_wide_values_and_engine_properties_are_found() {
        let profile = json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_S390X"],
            "archMap": [],
            "syscalls": [{"names": ["dup"], "action": "SCMP_ACT_ALLOW", "args": [args(0, "SCMP_CMP_EQ", 1 << 32)]}],
        });
        assert_eq!(
            findings(profile),
            [
                ("archMap".into(), Concern::UnknownProperty),
                ("architectures[1]".into(), Concern::ForeignArchitecture),
                ("syscalls[0].args[0].value".into(), Concern::IgnoredBits),
            ]
        );
    }
}
