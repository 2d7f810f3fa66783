// SPDX-License-Identifier: Apache-2.0
//! The second opinion: a profile turned into a libseccomp filter in the way runc does it, the engines' default
//! profile expanded to the form of `config.json`, and the comparison of two programs.
//!
//! Development only. The one difference that is meant, ENOSYS for calls newer than the profile, is computed here
//! once more and independently, from names and numbers alone.

mod worker;

pub use worker::{Answer, Worker};

use coracle_seccomp::{
    Action, Arch, Endian, Operator, Profile, SeccompData, SockFilter, Syscall, from_raw, interp,
};
use libseccomp::error::SeccompError;
use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use std::collections::HashMap;
use std::io::{Read, Seek};

/// How libseccomp lays out its filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Optimize {
    /// A chain of tests by priority, its default.
    Chain,
    /// A binary tree of four calls a leaf, as runc asks for above 32 rules.
    Tree,
}

/// The filter that libseccomp makes of a profile; None for an architecture that it does not know.
///
/// # Errors
/// What libseccomp refuses, rules that contradict each other among it.
pub fn by_libseccomp(
    profile: &Profile,
    native: Arch,
    optimize: Optimize,
) -> Result<Vec<SockFilter>, SeccompError> {
    let default = action(profile.default_action, profile.default_errno_ret);
    let mut context = ScmpFilterContext::new(default)?;
    let host = ScmpArch::native();
    let native_arch = arch(native).expect("libseccomp knows the architectures that the tests choose");
    if native_arch != host {
        context.remove_arch(host)?;
        context.add_arch(native_arch)?;
    }
    for listed in &profile.architectures {
        if listed.shares_kernel_with(native)
            && let Some(listed) = arch(*listed)
        {
            context.add_arch(listed)?;
        }
    }
    if optimize == Optimize::Tree {
        context.set_ctl_optimize(2)?;
    }
    for rule in &profile.syscalls {
        let verdict = action(rule.action, rule.errno_ret);
        if verdict == default {
            continue;
        }
        for name in &rule.names {
            let Ok(call) = ScmpSyscall::from_name(name) else {
                continue;
            };
            let conditions: Vec<ScmpArgCompare> = rule
                .args
                .iter()
                .map(|arg| {
                    ScmpArgCompare::new(
                        arg.index,
                        operator(arg.op, arg.value),
                        datum(arg.op, arg.value, arg.value_two),
                    )
                })
                .collect();
            if conditions.is_empty() {
                context.add_rule(verdict, call)?;
            } else if rule.args_are_alternatives() {
                for condition in conditions {
                    context.add_rule_conditional(verdict, call, &[condition])?;
                }
            } else {
                context.add_rule_conditional(verdict, call, &conditions)?;
            }
        }
    }
    let mut file = tempfile::tempfile().expect("a temporary file");
    context.export_bpf(&mut file)?;
    let mut raw = Vec::new();
    file.rewind()
        .and_then(|()| file.read_to_end(&mut raw))
        .expect("reading the exported filter back");
    // libseccomp writes the byte order of the filter's architectures.
    let mut program = from_raw(&raw, native.endian()).expect("whole instructions");
    if native.endian() == Endian::Big {
        for instruction in &mut program {
            restore_return(instruction);
        }
    }
    Ok(program)
}

/// libseccomp 2.5 swaps the operand of some returns twice when it exports a big-endian filter on a little-endian
/// host. The two orders cannot be taken for each other: an action stands in the high half.
fn restore_return(instruction: &mut SockFilter) {
    let is_return = |k: u32| match k >> 16 {
        0 => k == 0,
        0x0005 | 0x7ff0 => true,
        0x0003 | 0x8000 | 0x7fc0 | 0x7ffc | 0x7fff => k & 0xffff == 0,
        _ => false,
    };
    if instruction.code == coracle_seccomp::bpf::op::RET_K && !is_return(instruction.k) {
        instruction.k = instruction.k.swap_bytes();
    }
}

fn action(action: Action, errno: Option<u32>) -> ScmpAction {
    let data = errno.unwrap_or(1);
    match action {
        Action::Kill | Action::KillThread => ScmpAction::KillThread,
        Action::KillProcess => ScmpAction::KillProcess,
        Action::Trap => ScmpAction::Trap,
        Action::Errno => ScmpAction::Errno(data as i32),
        Action::Trace => ScmpAction::Trace(data as u16),
        Action::Allow => ScmpAction::Allow,
        Action::Log => ScmpAction::Log,
        Action::Notify => ScmpAction::Notify,
    }
}

fn operator(op: Operator, value: u64) -> ScmpCompareOp {
    match op {
        Operator::NotEqual => ScmpCompareOp::NotEqual,
        Operator::Less => ScmpCompareOp::Less,
        Operator::LessOrEqual => ScmpCompareOp::LessOrEqual,
        Operator::Equal => ScmpCompareOp::Equal,
        Operator::GreaterOrEqual => ScmpCompareOp::GreaterEqual,
        Operator::Greater => ScmpCompareOp::Greater,
        Operator::MaskedEqual => ScmpCompareOp::MaskedEqual(value),
    }
}

fn datum(op: Operator, value: u64, value_two: u64) -> u64 {
    if op == Operator::MaskedEqual {
        value_two
    } else {
        value
    }
}

/// libseccomp's word for an architecture, where 2.5 has one.
pub fn arch(arch: Arch) -> Option<ScmpArch> {
    Some(match arch {
        Arch::X86 => ScmpArch::X86,
        Arch::X86_64 => ScmpArch::X8664,
        Arch::X32 => ScmpArch::X32,
        Arch::Arm => ScmpArch::Arm,
        Arch::Aarch64 => ScmpArch::Aarch64,
        Arch::Mips => ScmpArch::Mips,
        Arch::Mips64 => ScmpArch::Mips64,
        Arch::Mips64n32 => ScmpArch::Mips64N32,
        Arch::Mipsel => ScmpArch::Mipsel,
        Arch::Mipsel64 => ScmpArch::Mipsel64,
        Arch::Mipsel64n32 => ScmpArch::Mipsel64N32,
        Arch::Ppc => ScmpArch::Ppc,
        Arch::Ppc64 => ScmpArch::Ppc64,
        Arch::Ppc64le => ScmpArch::Ppc64Le,
        Arch::S390 => ScmpArch::S390,
        Arch::S390x => ScmpArch::S390X,
        Arch::Parisc => ScmpArch::Parisc,
        Arch::Parisc64 => ScmpArch::Parisc64,
        Arch::Riscv64 => ScmpArch::Riscv64,
        Arch::Loongarch64 | Arch::M68k | Arch::Sh | Arch::Sheb => return None,
    })
}

/// Whether both sides know the call, with the same number on every architecture that libseccomp has.
pub fn is_common(call: Syscall) -> bool {
    // Rules go in by the host's number, a pseudo number where the host lacks the call; some names do not lead back.
    let translates = ScmpSyscall::from_name(call.name())
        .and_then(ScmpSyscall::get_name)
        .is_ok_and(|name| name == call.name());
    translates
        && Arch::ALL.into_iter().all(|candidate| {
            let Some(theirs) = arch(candidate) else {
                return true;
            };
            let theirs = ScmpSyscall::from_name_by_arch(call.name(), theirs)
                .ok()
                .map(i32::from);
            match (theirs.filter(|number| *number >= 0), call.number(candidate)) {
                (Some(theirs), Some(ours)) => theirs as u32 == ours,
                (None, None) => true,
                // Multiplexed calls have pseudo numbers in libseccomp, also where a number of their own exists.
                (None, Some(_)) => theirs.is_some_and(|number| (-224..=-100).contains(&number)),
                (Some(_), None) => false,
            }
        })
}

/// The newest number that the profile names on `arch`, where the ENOSYS rule is in force: the independent model
/// of the one difference that is meant.
pub fn newest(profile: &Profile, arch: Arch) -> Option<u32> {
    if matches!(
        profile.default_action,
        Action::Allow | Action::Log | Action::Trace
    ) {
        return None;
    }
    let names = profile.syscalls.iter().flat_map(|rule| &rule.names);
    let numbers = names.filter_map(|name| Syscall::by_name(name)?.number(arch));
    numbers
        .filter(|number| arch != Arch::Arm || *number < 0xf_0000)
        .max()
}

/// ENOSYS as the kernel of `arch` numbers it.
pub fn enosys(arch: Arch) -> u32 {
    let errno = match arch.audit_token() & 0xffff {
        8 => 89,
        15 => 251,
        _ => 38,
    };
    0x0005_0000 | errno
}

/// What the rules say of one call, read from the profile with nothing but set logic: no order, no tree, no BPF.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Oracle {
    /// Return values that the rules permit. More than one where conditional rules with different answers hold.
    pub permitted: Vec<u32>,
    /// How many separate sets of conditions the profile has for this number.
    pub alternatives: usize,
    /// Whether the answer is ENOSYS for a call newer than the profile, which libseccomp does not have.
    pub enosys: bool,
}

/// A profile for one kernel, ready to be asked.
pub struct Model<'a> {
    profile: &'a Profile,
    archs: Vec<(Arch, Option<u32>)>,
    default: u32,
    /// The rules that name a number, and the selector where they name it through socketcall(2) or ipc(2).
    named: HashMap<(Arch, u32), Vec<(usize, Option<u64>)>>,
}

/// The calls behind socketcall(2) and ipc(2), with their codes.
const MULTIPLEXED: [(&str, &str, u64); 32] = [
    ("socketcall", "socket", 1),
    ("socketcall", "bind", 2),
    ("socketcall", "connect", 3),
    ("socketcall", "listen", 4),
    ("socketcall", "accept", 5),
    ("socketcall", "getsockname", 6),
    ("socketcall", "getpeername", 7),
    ("socketcall", "socketpair", 8),
    ("socketcall", "send", 9),
    ("socketcall", "recv", 10),
    ("socketcall", "sendto", 11),
    ("socketcall", "recvfrom", 12),
    ("socketcall", "shutdown", 13),
    ("socketcall", "setsockopt", 14),
    ("socketcall", "getsockopt", 15),
    ("socketcall", "sendmsg", 16),
    ("socketcall", "recvmsg", 17),
    ("socketcall", "accept4", 18),
    ("socketcall", "recvmmsg", 19),
    ("socketcall", "sendmmsg", 20),
    ("ipc", "semop", 1),
    ("ipc", "semget", 2),
    ("ipc", "semctl", 3),
    ("ipc", "semtimedop", 4),
    ("ipc", "msgsnd", 11),
    ("ipc", "msgrcv", 12),
    ("ipc", "msgget", 13),
    ("ipc", "msgctl", 14),
    ("ipc", "shmat", 21),
    ("ipc", "shmdt", 22),
    ("ipc", "shmget", 23),
    ("ipc", "shmctl", 24),
];

impl<'a> Model<'a> {
    pub fn new(profile: &'a Profile, native: Arch) -> Self {
        let mut archs = vec![native];
        archs.extend(
            profile
                .architectures
                .iter()
                .filter(|arch| arch.shares_kernel_with(native)),
        );
        let archs: Vec<_> = archs
            .into_iter()
            .map(|arch| (arch, newest(profile, arch)))
            .collect();
        let mut named: HashMap<_, Vec<_>> = HashMap::new();
        for &(arch, _) in &archs {
            let number = |name: &str| Syscall::by_name(name).and_then(|call| call.number(arch));
            for (index, rule) in profile.syscalls.iter().enumerate() {
                for name in &rule.names {
                    if let Some(nr) = number(name) {
                        named.entry((arch, nr)).or_default().push((index, None));
                    }
                    for (multiplexer, _, code) in MULTIPLEXED.iter().filter(|entry| entry.1 == name) {
                        if let Some(nr) = number(multiplexer) {
                            named.entry((arch, nr)).or_default().push((index, Some(*code)));
                        }
                    }
                }
            }
        }
        for rules in named.values_mut() {
            rules.sort_unstable();
            rules.dedup();
        }
        Model {
            profile,
            archs,
            default: profile.default_action.return_value(profile.default_errno_ret),
            named,
        }
    }

    /// What the rules say about one call.
    pub fn ask(&self, arch: Arch, nr: u32, args: &[u64; 6]) -> Oracle {
        let only = |value| Oracle {
            permitted: vec![value],
            alternatives: 0,
            enosys: false,
        };
        let listed = |wanted| self.archs.iter().find(|entry| entry.0 == wanted);
        // x32 shares the token of x86_64, and -1 is a number of x86_64 unless the profile lists x32.
        let x86_64 = matches!(arch, Arch::X86_64 | Arch::X32);
        let arch = match nr {
            u32::MAX if x86_64 && listed(Arch::X32).is_none() => Arch::X86_64,
            coracle_seccomp::X32_BIT.. if x86_64 => Arch::X32,
            _ if x86_64 => Arch::X86_64,
            _ => arch,
        };
        let Some(&(_, newest)) = listed(arch) else {
            return only(0);
        };
        let wide = if arch.has_wide_arguments() {
            u64::MAX
        } else {
            0xffff_ffff
        };
        let (mut holding, mut alternatives, mut always) = (Vec::new(), 0, None);
        for &(index, selector) in self.named.get(&(arch, nr)).into_iter().flatten() {
            let rule = &self.profile.syscalls[index];
            let verdict = rule.action.return_value(rule.errno_ret);
            if verdict == self.default {
                continue;
            }
            let sets: Vec<Vec<_>> = if rule.args_are_alternatives() {
                rule.args.iter().map(|arg| vec![*arg]).collect()
            } else {
                vec![rule.args.clone()]
            };
            for set in sets {
                let tests = set.iter().filter(|arg| selector.is_none() || arg.index != 0);
                let tests: Vec<_> = tests
                    .filter(|arg| arg.op != Operator::MaskedEqual || arg.value & wide != 0)
                    .collect();
                if tests.is_empty() && selector.is_none() {
                    always = always.or(Some(verdict));
                }
                alternatives += 1;
                let selected = selector.is_none_or(|code| args[0] & wide == code);
                if selected && tests.iter().all(|arg| holds(arg, args[arg.index as usize], wide)) {
                    holding.push(verdict);
                }
            }
        }
        if let Some(verdict) = always {
            return only(verdict);
        }
        let exempt = (arch == Arch::Arm && nr >> 16 == 0xf) || (arch == Arch::X86_64 && nr == u32::MAX);
        let newer = newest.is_some_and(|newest| nr > newest) && !exempt;
        let s390 = matches!(arch, Arch::S390 | Arch::S390x) && nr == 0 && newest.is_some();
        if alternatives == 0 && (newer || s390) {
            return Oracle {
                enosys: true,
                ..only(enosys(arch))
            };
        }
        holding.sort_unstable();
        holding.dedup();
        if holding.is_empty() {
            holding.push(self.default);
        }
        Oracle {
            permitted: holding,
            alternatives,
            enosys: false,
        }
    }

    /// What libseccomp says where ours is ENOSYS.
    pub fn default(&self) -> u32 {
        self.default
    }
}

fn holds(condition: &coracle_seccomp::Condition, argument: u64, wide: u64) -> bool {
    let (left, right) = (u128::from(argument & wide), u128::from(condition.value & wide));
    match condition.op {
        Operator::NotEqual => left != right,
        Operator::Less => left < right,
        Operator::LessOrEqual => left <= right,
        Operator::Equal => left == right,
        Operator::GreaterOrEqual => left >= right,
        Operator::Greater => left > right,
        Operator::MaskedEqual => (argument ^ condition.value_two) & condition.value & wide == 0,
    }
}

/// How our answer, libseccomp's and the rules relate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// All the same.
    Same,
    /// Ours is ENOSYS for a call newer than the profile, as runc has it; libseccomp's is the default action.
    Enosys,
    /// Rules with different answers hold at once, and each side follows one of them.
    Overlap,
    /// Ours is what the rules say, libseccomp's is not, and the number has several sets of conditions. When
    /// libseccomp comes back from a nested condition to the next set, it takes the argument that it compared
    /// last for the one that the next set needs.
    Stale,
    /// Anything else: a failure.
    Wrong {
        /// Our return value.
        ours: u32,
        /// libseccomp's.
        theirs: u32,
    },
}

/// Compares two programs and the rules on one call.
pub fn compare(
    model: &Model<'_>,
    native: Arch,
    (ours, theirs): (&[SockFilter], &[SockFilter]),
    (arch, nr, args): (Arch, u32, [u64; 6]),
) -> Relation {
    let data = SeccompData {
        nr,
        arch: arch.audit_token(),
        instruction_pointer: 0x1234_5678_9abc,
        args,
    };
    let run = |program| {
        interp::run(program, &data, native.endian())
            .expect("a program that ends")
            .ret
    };
    let (ours, theirs) = (run(ours), run(theirs));
    let oracle = model.ask(arch, nr, &args);
    let permits = |verdict| oracle.permitted.contains(&verdict);
    if !permits(ours) {
        return Relation::Wrong { ours, theirs };
    }
    match () {
        () if ours == theirs => Relation::Same,
        () if oracle.enosys && theirs == model.default() => Relation::Enosys,
        () if permits(theirs) => Relation::Overlap,
        () if oracle.alternatives > 1 => Relation::Stale,
        () => Relation::Wrong { ours, theirs },
    }
}

/// Expands an engine's profile (`/usr/share/containers/seccomp.json`) to the form of `config.json`, as Podman does
/// for a container with these capabilities.
pub fn expand(
    engine: &serde_json::Value,
    native: Arch,
    go_arch: &str,
    capabilities: &[&str],
) -> serde_json::Value {
    let strings = |value: &serde_json::Value| -> Vec<String> {
        let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
        items
            .iter()
            .filter_map(|item| item.as_str().map(str::to_owned))
            .collect()
    };
    let sub = engine["archMap"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|entry| entry["architecture"] == native.spec_name());
    let mut architectures = vec![native.spec_name().to_owned()];
    architectures.extend(
        sub.map(|entry| strings(&entry["subArchitectures"]))
            .unwrap_or_default(),
    );
    let applies = |rule: &serde_json::Value| {
        let (include, exclude) = (&rule["includes"], &rule["excludes"]);
        let has = |cap: &String| capabilities.contains(&cap.as_str());
        let here = |arch: &String| arch == go_arch;
        let (in_archs, in_caps) = (strings(&include["arches"]), strings(&include["caps"]));
        (in_archs.is_empty() || in_archs.iter().any(here))
            && in_caps.iter().all(has)
            && !strings(&exclude["arches"]).iter().any(here)
            && !strings(&exclude["caps"]).iter().any(has)
    };
    let rules: Vec<serde_json::Value> = engine["syscalls"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|rule| applies(rule))
        .map(|rule| {
            let mut rule = rule.clone();
            if let Some(object) = rule.as_object_mut() {
                object.retain(|key, _| ["names", "action", "args", "errnoRet"].contains(&key.as_str()));
            }
            rule
        })
        .collect();
    let mut profile = serde_json::json!({
        "defaultAction": engine["defaultAction"], "architectures": architectures, "syscalls": rules,
    });
    if !engine["defaultErrnoRet"].is_null() {
        profile["defaultErrnoRet"] = engine["defaultErrnoRet"].clone();
    }
    profile
}

/// Capabilities that Docker and Podman give by default.
pub const DEFAULT_CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// The engines' default profile, from `CORACLE_SECCOMP_PROFILE` or where Debian's golang-github-containers-common
/// installs it; None when it is not there.
pub fn engine_profile() -> Option<serde_json::Value> {
    let path = std::env::var("CORACLE_SECCOMP_PROFILE")
        .unwrap_or_else(|_| "/usr/share/containers/seccomp.json".into());
    let text = std::fs::read_to_string(path).ok()?;
    Some(serde_json::from_str(&text).expect("the engine's profile is JSON"))
}
