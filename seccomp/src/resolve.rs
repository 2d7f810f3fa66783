// SPDX-License-Identifier: Apache-2.0
//! What a profile means: for each architecture, which system call number gets which answer.
//!
//! This is the one place that knows the rules of precedence; the compiler turns its result into BPF, and the
//! simulator asks it which rule decided. The precedence is that of runc with libseccomp, because profiles are
//! written against it:
//!
//! 1. A rule whose action is the default action has no effect (but its names count as known to the profile).
//! 2. An unconditional rule for a call decides it, whatever conditional rules say; the first such rule wins.
//! 3. Conditional rules are tried in an order of their own: conditions on higher arguments first, then tests for
//!    (in)equality before `LT`/`LE` before `GT`/`GE`, then larger values first (for `LT`/`LE` smaller ones), and
//!    of tests with the same value the narrower first.
//! 4. A number above the newest call that the profile names for the architecture fails with ENOSYS when the
//!    default action is restrictive, so that C libraries fall back to older calls.

use crate::bpf::ret;
use crate::error::{Error, Problem};
use crate::profile::{Action, Condition, Operator, Profile};
use crate::tables::Syscall;
use crate::{Arch, arch::X32_BIT};
use std::cmp::Ordering;

/// Arm's private calls (`__ARM_NR_BASE`): they say nothing about the age of a profile.
const ARM_PRIVATE: std::ops::Range<u32> = 0x000f_0000..0x0010_0000;

/// Calls that some 32-bit architectures also take through socketcall(2), with the code that selects each.
const SOCKETCALL: [(&str, u8); 20] = [
    ("socket", 1),
    ("bind", 2),
    ("connect", 3),
    ("listen", 4),
    ("accept", 5),
    ("getsockname", 6),
    ("getpeername", 7),
    ("socketpair", 8),
    ("send", 9),
    ("recv", 10),
    ("sendto", 11),
    ("recvfrom", 12),
    ("shutdown", 13),
    ("setsockopt", 14),
    ("getsockopt", 15),
    ("sendmsg", 16),
    ("recvmsg", 17),
    ("accept4", 18),
    ("recvmmsg", 19),
    ("sendmmsg", 20),
];

/// The same for ipc(2).
const IPC: [(&str, u8); 12] = [
    ("semop", 1),
    ("semget", 2),
    ("semctl", 3),
    ("semtimedop", 4),
    ("msgsnd", 11),
    ("msgrcv", 12),
    ("msgget", 13),
    ("msgctl", 14),
    ("shmat", 21),
    ("shmdt", 22),
    ("shmget", 23),
    ("shmctl", 24),
];

/// The answers for one architecture.
pub(crate) struct Section {
    pub arch: Arch,
    /// Calls with an answer of their own, by rising number, each number once.
    pub calls: Vec<Call>,
    /// What `Decision::When` points into.
    pub alternatives: Vec<Alternative>,
    /// Answers for all other numbers: each holds from its number up to the next one's.
    pub fallbacks: Vec<(u32, Fallback)>,
    /// The newest number that the profile names, where numbers above it fail with ENOSYS.
    pub newest: Option<u32>,
}

pub(crate) struct Call {
    pub number: u32,
    pub decision: Decision,
}

#[derive(Clone, Copy)]
pub(crate) enum Decision {
    /// The same answer whatever the arguments.
    Always { ret: u32, rule: u32 },
    /// The first alternative that holds; if none does, the default action.
    When { first: u32, count: u32 },
}

/// Conditions that must all hold, and the answer when they do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Alternative {
    pub conditions: Vec<Condition>,
    pub ret: u32,
    pub rule: u32,
}

/// Why a number without a rule of its own gets its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fallback {
    Default,
    /// Newer than the profile.
    Enosys,
    /// A number of x32 or x86_64 where the profile does not list that one.
    OtherAbi,
}

impl Fallback {
    pub(crate) fn return_value(self, default: u32, arch: Arch) -> u32 {
        match self {
            Fallback::Default => default,
            Fallback::Enosys => ret::ERRNO | enosys(arch),
            Fallback::OtherAbi => ret::KILL_THREAD,
        }
    }
}

impl Section {
    pub(crate) fn alternatives_of(&self, first: u32, count: u32) -> &[Alternative] {
        self.alternatives.get(first as usize..(first + count) as usize).unwrap_or_default()
    }

    pub(crate) fn call(&self, number: u32) -> Option<&Call> {
        let position = self.calls.binary_search_by_key(&number, |call| call.number).ok()?;
        self.calls.get(position)
    }

    pub(crate) fn fallback(&self, number: u32) -> Fallback {
        let after = self.fallbacks.partition_point(|&(start, _)| start <= number);
        after
            .checked_sub(1)
            .and_then(|index| self.fallbacks.get(index))
            .map_or(Fallback::Default, |entry| entry.1)
    }
}

/// A rule's calls, looked up once for all architectures.
pub(crate) struct Names {
    calls: Vec<(u32, Syscall)>,
    /// Places of names that no architecture knows.
    pub unknown: Vec<(u32, u32)>,
}

impl Names {
    pub(crate) fn of(profile: &Profile) -> Self {
        let mut calls = Vec::with_capacity(profile.syscalls.iter().map(|rule| rule.names.len()).sum());
        let mut unknown = Vec::new();
        for (position, rule) in profile.syscalls.iter().enumerate() {
            for (index, name) in rule.names.iter().enumerate() {
                match Syscall::by_name(name) {
                    Some(call) => calls.push((position as u32, call)),
                    None => unknown.push((position as u32, index as u32)),
                }
            }
        }
        Names { calls, unknown }
    }
}

/// The architectures of the filter: the native one first, then the profile's that the same kernel can run.
pub(crate) fn architectures(profile: &Profile, native: Arch) -> Vec<Arch> {
    let mut chosen = vec![native];
    for &arch in &profile.architectures {
        if arch.shares_kernel_with(native) && !chosen.contains(&arch) {
            chosen.push(arch);
        }
    }
    chosen
}

/// The default action's return value.
pub(crate) fn default_return(profile: &Profile) -> u32 {
    profile.default_action.return_value(profile.default_errno_ret)
}

/// One rule's claim on a number.
struct Claim {
    number: u32,
    rule: u32,
    /// Code of socketcall(2) or ipc(2) that selects the call; 0 for a call of its own.
    selector: u8,
}

/// Works out the answers for `arch`. `all` is the filter's whole set of architectures.
pub(crate) fn section(profile: &Profile, names: &Names, arch: Arch, all: &[Arch]) -> Result<Section, Error> {
    let default = default_return(profile);
    let multiplexer = Multiplexer::of(arch);
    let mut newest: Option<u32> = None;
    let mut zero_named = false;
    let mut claims = Vec::with_capacity(names.calls.len());
    for &(position, call) in &names.calls {
        let Some(rule) = profile.syscalls.get(position as usize) else {
            continue;
        };
        let number = call.number(arch);
        if let Some(number) = number {
            zero_named |= number == 0;
            if !(arch == Arch::Arm && ARM_PRIVATE.contains(&number)) {
                newest = newest.max(Some(number));
            }
        }
        if rule.action.return_value(rule.errno_ret) == default {
            continue;
        }
        if let Some(number) = number {
            claims.push(Claim { number, rule: position, selector: 0 });
        }
        if let Some((number, selector)) = multiplexer.entry(call) {
            claims.push(Claim { number, rule: position, selector });
        }
    }
    // Stable, so that claims on one number stay in the profile's order.
    claims.sort_by_key(|claim| claim.number);

    let mut section = Section {
        arch,
        calls: Vec::with_capacity(claims.len()),
        alternatives: Vec::new(),
        fallbacks: Vec::new(),
        newest: newest.filter(|_| is_restrictive(profile.default_action)),
    };
    for group in claims.chunk_by(|a, b| a.number == b.number) {
        let Some(number) = group.first().map(|claim| claim.number) else {
            continue;
        };
        let decision = decide(profile, group, arch, &mut section.alternatives)?;
        section.calls.push(Call { number, decision });
    }
    section.fallbacks = fallbacks(arch, all, section.newest, zero_named);
    Ok(section)
}

fn decide(
    profile: &Profile,
    group: &[Claim],
    arch: Arch,
    alternatives: &mut Vec<Alternative>,
) -> Result<Decision, Error> {
    let mut new = Vec::with_capacity(group.len());
    for claim in group {
        let Some(rule) = profile.syscalls.get(claim.rule as usize) else {
            continue;
        };
        let ret = rule.action.return_value(rule.errno_ret);
        if rule.args.is_empty() && claim.selector == 0 {
            return Ok(Decision::Always { ret, rule: claim.rule });
        }
        let sets: Vec<Vec<Condition>> = if rule.args_are_alternatives() {
            rule.args.iter().map(|condition| vec![*condition]).collect()
        } else {
            vec![rule.args.clone()]
        };
        for set in sets {
            let conditions = normalise(set, claim.selector, arch);
            if conditions.is_empty() {
                return Ok(Decision::Always { ret, rule: claim.rule });
            }
            new.push(Alternative { conditions, ret, rule: claim.rule });
        }
    }
    new.sort_by(order);
    for pair in new.windows(2) {
        if let [a, b] = pair
            && a.conditions == b.conditions
            && a.ret != b.ret
        {
            let (early, late) = (a.rule.min(b.rule), a.rule.max(b.rule));
            let problem = Problem::Contradiction { other: format!("syscalls[{early}]"), arch };
            return Err(Error::new(format!("syscalls[{late}]"), problem));
        }
    }
    // What remains equal says the same twice.
    new.dedup_by(|later, earlier| later.conditions == earlier.conditions);
    let (first, count) = (alternatives.len() as u32, new.len() as u32);
    alternatives.append(&mut new);
    Ok(Decision::When { first, count })
}

/// Brings conditions into one form: by rising argument, unused bits cleared, those that always hold left out, the
/// selector of a multiplexed call in place of whatever the rule says about argument 0.
fn normalise(mut conditions: Vec<Condition>, selector: u8, arch: Arch) -> Vec<Condition> {
    if selector != 0 {
        conditions.retain(|condition| condition.index != 0);
        conditions.push(Condition { index: 0, value: selector.into(), value_two: 0, op: Operator::Equal });
    }
    let width = width(arch);
    conditions.retain(|condition| condition.op != Operator::MaskedEqual || condition.value & width != 0);
    for condition in &mut conditions {
        condition.value &= width;
        condition.value_two &= if condition.op == Operator::MaskedEqual { condition.value } else { 0 };
    }
    conditions.sort_by_key(|condition| condition.index);
    conditions
}

/// Bits of an argument that conditions see.
pub(crate) fn width(arch: Arch) -> u64 {
    if arch.has_wide_arguments() { u64::MAX } else { u32::MAX.into() }
}

/// The order in which alternatives are tried; see the module's third rule. A shorter list of conditions stands
/// before a longer one that begins with it.
fn order(a: &Alternative, b: &Alternative) -> Ordering {
    for (x, y) in a.conditions.iter().zip(&b.conditions) {
        let rank = y.index.cmp(&x.index).then_with(|| class(y.op).cmp(&class(x.op)));
        let datum = match class(x.op) {
            2 => datum(x).cmp(&datum(y)),
            _ => datum(y).cmp(&datum(x)),
        };
        // Equal in rank and value but not the same test: the narrower one first.
        let rest = narrowness(x.op).cmp(&narrowness(y.op)).then(y.value.cmp(&x.value));
        let decided = rank.then(datum).then(rest);
        if decided != Ordering::Equal {
            return decided;
        }
    }
    a.conditions.len().cmp(&b.conditions.len())
}

fn class(op: Operator) -> u8 {
    match op {
        Operator::MaskedEqual | Operator::Equal | Operator::NotEqual => 3,
        Operator::LessOrEqual | Operator::Less => 2,
        Operator::GreaterOrEqual | Operator::Greater => 1,
    }
}

fn narrowness(op: Operator) -> u8 {
    match op {
        Operator::Equal => 0,
        Operator::NotEqual => 1,
        Operator::MaskedEqual => 2,
        Operator::Less | Operator::Greater => 3,
        Operator::LessOrEqual | Operator::GreaterOrEqual => 4,
    }
}

fn datum(condition: &Condition) -> u64 {
    if condition.op == Operator::MaskedEqual { condition.value_two } else { condition.value }
}

/// Whether calls newer than the profile should fail with ENOSYS rather than get the default action.
pub(crate) fn is_restrictive(default: Action) -> bool {
    !matches!(default, Action::Allow | Action::Log | Action::Trace)
}

/// ENOSYS as `arch` numbers it.
pub(crate) fn enosys(arch: Arch) -> u32 {
    match arch {
        Arch::Mips | Arch::Mips64 | Arch::Mips64n32 | Arch::Mipsel | Arch::Mipsel64 | Arch::Mipsel64n32 => 89,
        Arch::Parisc | Arch::Parisc64 => 251,
        _ => 38,
    }
}

fn fallbacks(arch: Arch, all: &[Arch], newest: Option<u32>, zero_named: bool) -> Vec<(u32, Fallback)> {
    let mut list = vec![(0, Fallback::Default)];
    let after = newest.and_then(|newest| newest.checked_add(1));
    match arch {
        // A 31-bit or 64-bit call whose number does not fit the instruction arrives as number 0 when the kernel
        // does not know it.
        Arch::S390 | Arch::S390x if after.is_some() && !zero_named => {
            list = vec![(0, Fallback::Enosys), (1, Fallback::Default)];
        }
        Arch::X32 => {
            list = vec![(X32_BIT, Fallback::Default)];
            if !all.contains(&Arch::X86_64) {
                list.insert(0, (0, Fallback::OtherAbi));
            }
        }
        _ => {}
    }
    list.extend(after.map(|after| (after, Fallback::Enosys)));
    match arch {
        Arch::Arm if after.is_some() => {
            list.push((ARM_PRIVATE.start, Fallback::Default));
            list.push((ARM_PRIVATE.end, Fallback::Enosys));
        }
        Arch::X86_64 if !all.contains(&Arch::X32) => {
            list.push((X32_BIT, Fallback::OtherAbi));
            // A tracer makes the kernel skip a call by the number -1: not a call of x32.
            list.push((u32::MAX, Fallback::Default));
        }
        _ => {}
    }
    list
}

/// What reaches the kernel of one architecture through socketcall(2) and ipc(2).
struct Multiplexer {
    /// The call, the multiplexer's number, and the code that selects the call there.
    entries: Vec<(Syscall, u32, u8)>,
}

impl Multiplexer {
    fn of(arch: Arch) -> Self {
        let mut entries = Vec::new();
        for (multiplexer, calls) in [("socketcall", &SOCKETCALL[..]), ("ipc", &IPC[..])] {
            if let Some(number) = Syscall::by_name(multiplexer).and_then(|call| call.number(arch)) {
                let known = |&(name, code): &(&str, u8)| Some((Syscall::by_name(name)?, number, code));
                entries.extend(calls.iter().filter_map(known));
            }
        }
        Multiplexer { entries }
    }

    /// The multiplexer's number and the code that selects `call` there.
    fn entry(&self, call: Syscall) -> Option<(u32, u8)> {
        self.entries.iter().find(|entry| entry.0 == call).map(|entry| (entry.1, entry.2))
    }
}

/// Whether `call` reaches the kernel of `arch` through socketcall(2) or ipc(2).
pub(crate) fn is_multiplexed(call: Syscall, arch: Arch) -> bool {
    Multiplexer::of(arch).entry(call).is_some()
}
