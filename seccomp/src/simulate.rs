// SPDX-License-Identifier: Apache-2.0
//! What happens to one system call under a profile, and which rule says so.
//!
//! The verdict comes from running the compiled program; the reason comes from the rules themselves. Tests hold
//! the two together.

use crate::bpf::{SeccompData, SockFilter, ret};
use crate::compile;
use crate::error::Error;
use crate::interp;
use crate::profile::{Action, Condition, Profile};
use crate::resolve::{self, Decision, Fallback, Names, Section};
use crate::tables::Syscall;
use crate::{Arch, X32_BIT};
use std::fmt;

/// A filter's return value, readable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Verdict(pub u32);

impl Verdict {
    /// The action. Values that no action has count as the kernel counts them: as `KILL_PROCESS`.
    pub const fn action(self) -> Action {
        match self.0 & ret::ACTION {
            ret::KILL_THREAD => Action::KillThread,
            ret::TRAP => Action::Trap,
            ret::ERRNO => Action::Errno,
            ret::USER_NOTIF => Action::Notify,
            ret::TRACE => Action::Trace,
            ret::LOG => Action::Log,
            ret::ALLOW => Action::Allow,
            _ => Action::KillProcess,
        }
    }

    /// What the action carries: an errno, or a message for the tracer.
    pub const fn data(self) -> u32 {
        self.0 & ret::DATA
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.action())?;
        match (self.action(), self.data()) {
            (Action::Errno, 1) => f.write_str(", errno 1 (EPERM)"),
            (Action::Errno, 38) => f.write_str(", errno 38 (ENOSYS)"),
            (Action::Errno, errno) => write!(f, ", errno {errno}"),
            (Action::Trace, message) => write!(f, ", message {message}"),
            _ => Ok(()),
        }
    }
}

/// A system call to ask about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query {
    arch: Arch,
    number: u32,
    args: [u64; 6],
}

/// Why a question cannot be asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// Neither a known name nor a number.
    #[error("{0:?} is neither the name nor the number of a system call")]
    UnknownCall(String),
    /// A call that the architecture lacks.
    #[error("{arch} has no system call {name}{}", if *.multiplexed { " of its own; ask about socketcall or ipc" } else { "" })]
    NotOnArchitecture {
        /// The call.
        name: String,
        /// The architecture.
        arch: Arch,
        /// Whether socketcall(2) or ipc(2) stands in for it.
        multiplexed: bool,
    },
    /// More than six arguments.
    #[error("{0} arguments given; a system call has at most 6")]
    TooManyArguments(usize),
    /// The profile does not compile.
    #[error(transparent)]
    Profile(#[from] Error),
    /// An architecture that the kernel cannot run.
    #[error("a kernel for {native} never runs {arch}")]
    OtherKernel {
        /// The architecture asked about.
        arch: Arch,
        /// The kernel's own.
        native: Arch,
    },
}

impl Query {
    /// Asks about `call`, a name or a number (decimal, or hexadecimal after `0x`), on `arch`. Arguments that are
    /// not given are 0.
    ///
    /// # Errors
    /// An unknown call, one that `arch` lacks, or too many arguments.
    pub fn new(arch: Arch, call: &str, args: &[u64]) -> Result<Self, QueryError> {
        let number = match Syscall::by_name(call) {
            Some(found) => found.number(arch).ok_or_else(|| QueryError::NotOnArchitecture {
                name: call.into(),
                arch,
                multiplexed: resolve::is_multiplexed(found, arch),
            })?,
            None => parse_number(call).ok_or_else(|| QueryError::UnknownCall(call.into()))?,
        };
        let mut all = [0; 6];
        all.get_mut(..args.len()).ok_or(QueryError::TooManyArguments(args.len()))?.copy_from_slice(args);
        Ok(Query { arch, number, args: all })
    }
}

fn parse_number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// Which part of a profile decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A rule, by its position in `syscalls`, and the conditions that held (none: it is unconditional).
    Rule {
        /// Position in `syscalls`.
        index: usize,
        /// What held, in the order tested.
        conditions: Vec<Condition>,
    },
    /// No rule matched.
    Default,
    /// The number is above the newest that the profile names, so that the call fails with ENOSYS.
    NewerThanProfile {
        /// That newest number.
        newest: u32,
    },
    /// Number 0 on s390 stands for a call that the kernel does not know.
    UnknownToKernel,
    /// An x32 number where the profile does not list x32, or the reverse.
    OtherAbi,
    /// The profile does not list the architecture.
    ArchitectureNotListed,
}

/// The answer to a [`Query`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Simulation {
    /// Architecture asked about.
    pub arch: Arch,
    /// System call number.
    pub number: u32,
    /// Its name, when it has one.
    pub name: Option<&'static str>,
    /// What the kernel would do.
    pub verdict: Verdict,
    /// Who says so.
    pub reason: Reason,
    /// BPF instructions executed.
    pub executed: usize,
    /// Whether the kernel's allow bitmap (Linux 5.11) answers without running the filter.
    pub cached: bool,
}

impl fmt::Display for Simulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.unwrap_or("unknown call");
        writeln!(f, "{name} ({}) on {}: {}", self.number, self.arch, self.verdict)?;
        match &self.reason {
            Reason::Rule { index, conditions } => {
                write!(f, "decided by syscalls[{index}]")?;
                for (position, condition) in conditions.iter().enumerate() {
                    write!(
                        f,
                        "{}{}",
                        if position == 0 { " because " } else { " and " },
                        Describe(condition)
                    )?;
                }
                writeln!(f)?;
            }
            Reason::Default => writeln!(f, "decided by defaultAction: no rule matches")?,
            Reason::NewerThanProfile { newest } => {
                let name = Syscall::by_number(self.arch, *newest).map_or("unknown call", Syscall::name);
                writeln!(f, "newer than the newest call that the profile names, {name} ({newest})")?;
            }
            Reason::UnknownToKernel => writeln!(f, "number 0 stands for a call unknown to the kernel")?,
            Reason::OtherAbi => {
                let other = if self.arch == Arch::X32 { Arch::X32 } else { Arch::X86_64 };
                writeln!(f, "the profile does not list {other}")?;
            }
            Reason::ArchitectureNotListed => writeln!(f, "the profile does not list {}", self.arch)?,
        }
        let cached = if self.cached { "; the kernel's allow bitmap answers without them" } else { "" };
        write!(f, "{} BPF instructions{cached}", self.executed)
    }
}

/// A condition as people write it.
struct Describe<'a>(&'a Condition);

impl fmt::Display for Describe<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use crate::profile::Operator;
        let Condition { index, value, value_two, op } = *self.0;
        let sign = match op {
            Operator::MaskedEqual => return write!(f, "argument {index} & {value:#x} == {value_two:#x}"),
            Operator::NotEqual => "!=",
            Operator::Less => "<",
            Operator::LessOrEqual => "<=",
            Operator::Equal => "==",
            Operator::GreaterOrEqual => ">=",
            Operator::Greater => ">",
        };
        write!(f, "argument {index} {sign} {value:#x}")
    }
}

/// A compiled profile to ask many questions.
pub struct Simulator {
    native: Arch,
    default: u32,
    sections: Vec<Section>,
    program: Vec<SockFilter>,
}

/// Asks one question.
///
/// # Errors
/// What [`compile`](crate::compile) refuses, and an architecture that the kernel cannot run.
pub fn simulate(profile: &Profile, native: Arch, query: &Query) -> Result<Simulation, QueryError> {
    Simulator::new(profile, native)?.ask(query)
}

impl Simulator {
    /// Compiles the profile.
    ///
    /// # Errors
    /// What [`compile`](crate::compile) refuses.
    pub fn new(profile: &Profile, native: Arch) -> Result<Self, Error> {
        let program = compile::compile(profile, native)?.instructions;
        let sections = compile::sections(profile, &Names::of(profile), native)?;
        Ok(Simulator { native, default: resolve::default_return(profile), sections, program })
    }

    /// Asks what happens to a call.
    ///
    /// # Errors
    /// An architecture that the kernel cannot run.
    pub fn ask(&self, query: &Query) -> Result<Simulation, QueryError> {
        let Query { arch, number, args } = *query;
        if !arch.shares_kernel_with(self.native) {
            return Err(QueryError::OtherKernel { arch, native: self.native });
        }
        let token = arch.audit_token();
        let arch = match Arch::from_audit(token, number).unwrap_or(arch) {
            // With x32 in the profile, all large numbers are its own, -1 included.
            Arch::X86_64 if number >= X32_BIT && self.lists(Arch::X32) => Arch::X32,
            arch => arch,
        };
        let data = SeccompData { nr: number, arch: token, instruction_pointer: 0, args };
        let (expected, reason) = self.explain(arch, number, &args);
        // A compiled program always returns; if it did not, the kernel would have refused it.
        let outcome = interp::run(&self.program, &data, self.native.endian());
        let (verdict, executed) = outcome.map_or((expected, 0), |outcome| (outcome.ret, outcome.executed));
        debug_assert_eq!(verdict, expected, "the program and the rules differ on {query:?}");
        Ok(Simulation {
            arch,
            number,
            name: Syscall::by_number(arch, number).map(Syscall::name),
            verdict: Verdict(verdict),
            reason,
            executed,
            cached: interp::is_constant_allow(&self.program, token, number),
        })
    }

    /// The compiled program.
    pub fn program(&self) -> &[SockFilter] {
        &self.program
    }

    /// Whether the answer depends on arguments.
    #[cfg(test)]
    pub(crate) fn is_conditional(&self, arch: Arch, number: u32) -> bool {
        let section = self.sections.iter().find(|section| section.arch == arch);
        let call = section.and_then(|section| section.call(number));
        call.is_some_and(|call| matches!(call.decision, Decision::When { .. }))
    }

    fn lists(&self, arch: Arch) -> bool {
        self.sections.iter().any(|section| section.arch == arch)
    }

    /// The answer by the rules alone, without the program.
    pub(crate) fn explain(&self, arch: Arch, number: u32, args: &[u64; 6]) -> (u32, Reason) {
        let token = arch.audit_token();
        let same_token = || self.sections.iter().filter(|section| section.arch.audit_token() == token);
        let Some(section) = same_token().find(|section| section.arch == arch) else {
            return match same_token().next() {
                Some(_) => (ret::KILL_THREAD, Reason::OtherAbi),
                None => (ret::KILL_THREAD, Reason::ArchitectureNotListed),
            };
        };
        let Some(call) = section.call(number) else {
            let fallback = section.fallback(number);
            let reason = match (fallback, section.newest) {
                (Fallback::Default, _) => Reason::Default,
                (Fallback::OtherAbi, _) => Reason::OtherAbi,
                (Fallback::Enosys, Some(newest)) if number > newest => Reason::NewerThanProfile { newest },
                (Fallback::Enosys, _) => Reason::UnknownToKernel,
            };
            return (fallback.return_value(self.default, arch), reason);
        };
        match call.decision {
            Decision::Always { ret, rule } => {
                (ret, Reason::Rule { index: rule as usize, conditions: Vec::new() })
            }
            Decision::When { first, count } => {
                let width = resolve::width(arch);
                let holds = |condition: &Condition| {
                    args.get(condition.index as usize).is_some_and(|&arg| condition.holds_within(arg, width))
                };
                let alternatives = section.alternatives_of(first, count);
                match alternatives.iter().find(|alternative| alternative.conditions.iter().all(holds)) {
                    Some(found) => {
                        let conditions = found.conditions.clone();
                        (found.ret, Reason::Rule { index: found.rule as usize, conditions })
                    }
                    None => (self.default, Reason::Default),
                }
            }
        }
    }
}
