// SPDX-License-Identifier: Apache-2.0
//! The profile: `linux.seccomp` of `config.json` (OCI runtime spec v1.3, `config-linux.md`, "Seccomp") as types.
//!
//! Reading is strict where a mistake would change what the filter does, and names the JSON place of each mistake.
//! It is tolerant where the spec says so: properties that the spec does not define are noted and left alone, and
//! names of system calls are not judged before compilation.

mod parse;

use crate::Arch;
use crate::bpf::ret;
use crate::error::{Error, Problem};
use serde::{Deserialize, Serialize};

/// errno that `SCMP_ACT_ERRNO` and `SCMP_ACT_TRACE` carry when the profile gives none (EPERM).
pub const DEFAULT_ERRNO: u32 = 1;
/// Largest errno of `SCMP_ACT_ERRNO` (the kernel's `MAX_ERRNO`).
pub const MAX_ERRNO: u32 = 4095;
/// Largest number that `SCMP_ACT_TRACE` passes to the tracer.
pub const MAX_TRACE: u32 = 0xffff;

/// A seccomp profile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", try_from = "serde_json::Value")]
pub struct Profile {
    /// What happens to calls that no rule matches.
    pub default_action: Action,
    /// errno of the default action; see [`Action::takes_errno`]. EPERM when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_errno_ret: Option<u32>,
    /// Architectures besides the native one, which is always part of the filter.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub architectures: Vec<Arch>,
    /// Flags for seccomp(2). Absent means `SPEC_ALLOW`; an empty list means none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flags: Option<Vec<FilterFlag>>,
    /// Socket of the agent that gets the listener when a rule says `SCMP_ACT_NOTIFY`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listener_path: Option<String>,
    /// Opaque text for that agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listener_metadata: Option<String>,
    /// The rules.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub syscalls: Vec<Rule>,
    /// JSON paths of properties that the spec does not define; compilation reports them as warnings.
    #[serde(skip)]
    pub ignored: Vec<String>,
}

/// One entry of `syscalls`: an action for some calls, on condition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rule {
    /// Names of system calls, at least one.
    pub names: Vec<String>,
    /// What happens to them.
    pub action: Action,
    /// errno of the action; see [`Action::takes_errno`]. EPERM when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errno_ret: Option<u32>,
    /// All must hold, unless two are about the same argument: then any one suffices (as in runc).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<Condition>,
}

/// A test of one argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Which argument, 0 to 5.
    pub index: u32,
    /// What to compare with, unsigned; the mask for `SCMP_CMP_MASKED_EQ`.
    pub value: u64,
    /// What the masked argument must equal, for `SCMP_CMP_MASKED_EQ`; bits outside the mask do not count.
    #[serde(skip_serializing_if = "is_zero")]
    pub value_two: u64,
    /// The comparison.
    pub op: Operator,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// What the kernel does with a call (`SCMP_ACT_*`, seccomp(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// The old name of [`Action::KillThread`].
    Kill,
    /// The process dies by SIGSYS.
    KillProcess,
    /// The calling thread dies.
    KillThread,
    /// The thread gets SIGSYS.
    Trap,
    /// The call fails with an errno.
    Errno,
    /// A tracer decides; without one the call fails with ENOSYS.
    Trace,
    /// The call is executed.
    Allow,
    /// The call is executed and logged.
    Log,
    /// An agent decides (seccomp_unotify(2)).
    Notify,
}

/// How a condition compares (`SCMP_CMP_*`), always unsigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operator {
    /// Not equal.
    NotEqual,
    /// Less.
    Less,
    /// Less or equal.
    LessOrEqual,
    /// Equal.
    Equal,
    /// Greater or equal.
    GreaterOrEqual,
    /// Greater.
    Greater,
    /// Equal under a mask.
    MaskedEqual,
}

/// A flag of seccomp(2)'s `SECCOMP_SET_MODE_FILTER`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FilterFlag {
    /// All threads of the process get the filter.
    Tsync,
    /// Actions other than ALLOW are logged.
    Log,
    /// Speculative store bypass stays enabled.
    SpecAllow,
    /// A notified call waits uninterrupted by non-fatal signals once the agent has received it (Linux 5.19).
    WaitKillableRecv,
}

/// Gives a plain enum its spec strings: `ALL`, `spec_name`, parsing and serialisation from one list.
macro_rules! spec_strings {
    ($type:ident { $($variant:ident = $text:literal),+ $(,)? }) => {
        impl $type {
            /// All values of the spec.
            pub const ALL: &'static [$type] = &[$($type::$variant),+];

            /// The spec's string.
            pub const fn spec_name(self) -> &'static str {
                match self { $($type::$variant => $text),+ }
            }

            /// Finds a value by the spec's string.
            pub fn by_spec_name(text: &str) -> Option<Self> {
                match text { $($text => Some($type::$variant),)+ _ => None }
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.spec_name())
            }
        }

        impl Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.spec_name())
            }
        }
    };
}

spec_strings!(Action {
    Kill = "SCMP_ACT_KILL",
    KillProcess = "SCMP_ACT_KILL_PROCESS",
    KillThread = "SCMP_ACT_KILL_THREAD",
    Trap = "SCMP_ACT_TRAP",
    Errno = "SCMP_ACT_ERRNO",
    Trace = "SCMP_ACT_TRACE",
    Allow = "SCMP_ACT_ALLOW",
    Log = "SCMP_ACT_LOG",
    Notify = "SCMP_ACT_NOTIFY",
});

spec_strings!(Operator {
    NotEqual = "SCMP_CMP_NE",
    Less = "SCMP_CMP_LT",
    LessOrEqual = "SCMP_CMP_LE",
    Equal = "SCMP_CMP_EQ",
    GreaterOrEqual = "SCMP_CMP_GE",
    Greater = "SCMP_CMP_GT",
    MaskedEqual = "SCMP_CMP_MASKED_EQ",
});

spec_strings!(FilterFlag {
    Tsync = "SECCOMP_FILTER_FLAG_TSYNC",
    Log = "SECCOMP_FILTER_FLAG_LOG",
    SpecAllow = "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    WaitKillableRecv = "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
});

impl Serialize for Arch {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.spec_name())
    }
}

impl FilterFlag {
    /// The bit for seccomp(2) (`SECCOMP_FILTER_FLAG_*`, linux/seccomp.h).
    pub const fn bits(self) -> u32 {
        match self {
            FilterFlag::Tsync => 1,
            FilterFlag::Log => 1 << 1,
            FilterFlag::SpecAllow => 1 << 2,
            FilterFlag::WaitKillableRecv => 1 << 5,
        }
    }
}

impl Action {
    /// Whether `errnoRet` may stand beside it: the errno of `SCMP_ACT_ERRNO`, the message of `SCMP_ACT_TRACE`.
    pub const fn takes_errno(self) -> bool {
        matches!(self, Action::Errno | Action::Trace)
    }

    /// The filter's return value. `errno` counts only where the action takes one; its default is EPERM.
    pub const fn return_value(self, errno: Option<u32>) -> u32 {
        let data = match errno {
            Some(errno) => errno & ret::DATA,
            None => DEFAULT_ERRNO,
        };
        match self {
            Action::Kill | Action::KillThread => ret::KILL_THREAD,
            Action::KillProcess => ret::KILL_PROCESS,
            Action::Trap => ret::TRAP,
            Action::Errno => ret::ERRNO | data,
            Action::Trace => ret::TRACE | data,
            Action::Allow => ret::ALLOW,
            Action::Log => ret::LOG,
            Action::Notify => ret::USER_NOTIF,
        }
    }

    fn check_errno(self, errno: Option<u32>, path: impl FnOnce() -> String) -> Result<(), Error> {
        let Some(value) = errno else { return Ok(()) };
        let max = match self {
            Action::Errno => MAX_ERRNO,
            Action::Trace => MAX_TRACE,
            _ => return Err(Error::new(path(), Problem::ErrnoNotTaken(self))),
        };
        if value > max {
            return Err(Error::new(path(), Problem::ErrnoRange { value: value.into(), action: self, max }));
        }
        Ok(())
    }
}

impl Condition {
    /// Whether the condition holds for an argument, on an architecture that compares 64 bits.
    pub fn holds(&self, argument: u64) -> bool {
        self.holds_within(argument, u64::MAX)
    }

    /// As [`Condition::holds`], with only the bits of `width` compared.
    pub(crate) fn holds_within(&self, argument: u64, width: u64) -> bool {
        let (argument, value) = (argument & width, self.value & width);
        match self.op {
            Operator::NotEqual => argument != value,
            Operator::Less => argument < value,
            Operator::LessOrEqual => argument <= value,
            Operator::Equal => argument == value,
            Operator::GreaterOrEqual => argument >= value,
            Operator::Greater => argument > value,
            Operator::MaskedEqual => argument & value == self.value_two & value,
        }
    }
}

impl Rule {
    /// An unconditional rule.
    pub fn new<S: Into<String>>(action: Action, names: impl IntoIterator<Item = S>) -> Self {
        Rule { names: names.into_iter().map(Into::into).collect(), action, errno_ret: None, args: Vec::new() }
    }

    /// Whether the conditions are alternatives, because two of them are about the same argument.
    pub fn args_are_alternatives(&self) -> bool {
        let mut seen = 0_u64;
        self.args.iter().any(|condition| {
            let bit = 1_u64.checked_shl(condition.index).unwrap_or(0);
            let again = seen & bit != 0;
            seen |= bit;
            again
        })
    }
}

impl Profile {
    /// A profile with no rules.
    pub fn new(default_action: Action) -> Self {
        Profile {
            default_action,
            default_errno_ret: None,
            architectures: Vec::new(),
            flags: None,
            listener_path: None,
            listener_metadata: None,
            syscalls: Vec::new(),
            ignored: Vec::new(),
        }
    }

    /// Reads the `linux.seccomp` object from JSON text and validates it.
    ///
    /// # Errors
    /// Text that is not JSON, values of the wrong type, and whatever [`Profile::validate`] finds.
    pub fn from_json(text: &str) -> Result<Self, Error> {
        let value =
            serde_json::from_str(text).map_err(|error| Error::new("", Problem::Json(error.to_string())))?;
        Self::from_value(&value)
    }

    /// Reads the `linux.seccomp` object and validates it.
    ///
    /// # Errors
    /// Values of the wrong type, and whatever [`Profile::validate`] finds.
    pub fn from_value(value: &serde_json::Value) -> Result<Self, Error> {
        let profile = parse::profile(value)?;
        profile.validate()?;
        Ok(profile)
    }

    /// Checks what types cannot: ranges, and what the spec forbids in combination.
    ///
    /// # Errors
    /// The first violation, with its place.
    pub fn validate(&self) -> Result<(), Error> {
        self.default_action.check_errno(self.default_errno_ret, || "defaultErrnoRet".into())?;
        if self.default_action == Action::Notify {
            return Err(Error::new("defaultAction", Problem::NotifyByDefault));
        }
        for (position, rule) in self.syscalls.iter().enumerate() {
            rule.validate(position)?;
        }
        if self.listener_path.as_ref().is_some_and(|path| path.contains('\0')) {
            return Err(Error::new("listenerPath", Problem::NulInPath));
        }
        if self.listener_path.is_none() {
            if self.listener_metadata.is_some() {
                return Err(Error::new("listenerMetadata", Problem::MetadataWithoutListener));
            }
            if let Some(position) = self.syscalls.iter().position(|rule| rule.action == Action::Notify) {
                let user = format!("syscalls[{position}].action");
                return Err(Error::new("listenerPath", Problem::NotifyWithoutListener(user)));
            }
        }
        Ok(())
    }
}

impl Rule {
    fn validate(&self, position: usize) -> Result<(), Error> {
        let at = |rest: &str| format!("syscalls[{position}].{rest}");
        if self.names.is_empty() {
            return Err(Error::new(at("names"), Problem::NoNames));
        }
        for (index, name) in self.names.iter().enumerate() {
            if name.is_empty() {
                return Err(Error::new(at(&format!("names[{index}]")), Problem::EmptyName));
            }
            if self.action == Action::Notify && name == "write" {
                return Err(Error::new(at(&format!("names[{index}]")), Problem::NotifyOnWrite));
            }
        }
        self.action.check_errno(self.errno_ret, || at("errnoRet"))?;
        for (index, condition) in self.args.iter().enumerate() {
            if condition.index > 5 {
                let place = at(&format!("args[{index}].index"));
                return Err(Error::new(place, Problem::ArgumentIndex(condition.index.into())));
            }
        }
        Ok(())
    }
}

impl TryFrom<serde_json::Value> for Profile {
    type Error = Error;

    fn try_from(value: serde_json::Value) -> Result<Self, Error> {
        Self::from_value(&value)
    }
}
