// SPDX-License-Identifier: Apache-2.0
//! The crate's one error type: what is wrong with a profile, and where in it.

use crate::bpf::MAX_INSTRUCTIONS;
use crate::{Action, Arch};

/// Why a profile was refused.
///
/// Displayed as `PLACE: problem`, where the place is a JSON path relative to `linux.seccomp`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{problem}", prefix(path))]
pub struct Error {
    path: String,
    problem: Problem,
}

/// What is wrong, without the place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The text is not JSON.
    #[error("not valid JSON: {0}")]
    Json(String),
    /// A value of another JSON type was expected.
    #[error("expected {expected}, found {found}")]
    Type {
        /// What the spec wants there.
        expected: &'static str,
        /// What stands there.
        found: String,
    },
    /// A required property is absent.
    #[error("required, but missing")]
    Missing,
    /// A string that is not one of the spec's values.
    #[error("{value:?} is not known; known are {known}")]
    UnknownValue {
        /// The string.
        value: String,
        /// The spec's values, joined by commas.
        known: String,
    },
    /// A rule without any name.
    #[error("a rule must name at least one system call")]
    NoNames,
    /// A name that is the empty string.
    #[error("the empty string is not a system call's name")]
    EmptyName,
    /// An argument index above 5.
    #[error("{0} is out of range: a system call has the arguments 0 to 5")]
    ArgumentIndex(u64),
    /// An errno that the kernel cannot return.
    #[error("{value} is out of range: {} takes 0 to {max}", action.spec_name())]
    ErrnoRange {
        /// The number given.
        value: u64,
        /// The action that would carry it.
        action: Action,
        /// The largest that it takes.
        max: u32,
    },
    /// An errno with an action that carries none.
    #[error("{} carries no errno; only SCMP_ACT_ERRNO and SCMP_ACT_TRACE do: remove it", .0.spec_name())]
    ErrnoNotTaken(Action),
    /// `SCMP_ACT_NOTIFY` as the default action.
    #[error(
        "SCMP_ACT_NOTIFY cannot be the default action: the runtime itself would wait for the agent before it has \
         handed the listener over; name the calls to notify about in syscalls"
    )]
    NotifyByDefault,
    /// `SCMP_ACT_NOTIFY` on write(2).
    #[error(
        "SCMP_ACT_NOTIFY cannot be used for the write syscall: the runtime itself would wait for the agent before it has \
         handed the listener over"
    )]
    NotifyOnWrite,
    /// `SCMP_ACT_NOTIFY` without a socket to send the listener to.
    #[error("required, because {0} uses SCMP_ACT_NOTIFY: the path of the agent's socket")]
    NotifyWithoutListener(String),
    /// A path with a NUL in it.
    #[error("no path: it has a NUL character")]
    NulInPath,
    /// Metadata for an agent that is not named.
    #[error("must not be set without listenerPath")]
    MetadataWithoutListener,
    /// Two rules with the same conditions and different actions.
    #[error("contradicts {other}: same conditions on {arch}, another action")]
    Contradiction {
        /// Place of the other rule.
        other: String,
        /// Where they meet. On 32-bit architectures only the low 32 bits of a value count.
        arch: Arch,
    },
    /// The program is longer than the kernel takes.
    #[error(
        "the filter needs {0} BPF instructions, and the kernel takes at most {MAX_INSTRUCTIONS}; use fewer rules \
         with args, or fewer architectures"
    )]
    TooLong(usize),
}

impl Error {
    pub(crate) fn new(path: impl Into<String>, problem: Problem) -> Self {
        Error { path: path.into(), problem }
    }

    /// JSON path relative to `linux.seccomp`, such as `syscalls[3].args[0].index`; empty for the whole object.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What is wrong there.
    pub fn problem(&self) -> &Problem {
        &self.problem
    }
}

fn prefix(path: &str) -> String {
    if path.is_empty() { String::new() } else { format!("{path}: ") }
}
