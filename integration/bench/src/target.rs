//! What is asked of the subject, and whether it is met. Pure.

use crate::contestant::Verb;

/// Whom a time is compared with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Yardstick {
    /// The bare system calls.
    Floor,
    /// crun.
    Crun,
    /// runc.
    Runc,
}

impl Yardstick {
    /// The name of the contestant.
    pub fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Crun => "crun",
            Self::Runc => "runc",
        }
    }
}

/// A limit for the ratio of two times.
pub struct TimeTarget {
    /// The command.
    pub verb: Verb,
    /// Compared with whom.
    pub yardstick: Yardstick,
    /// The highest ratio that meets it.
    pub at_most: f64,
}

/// What is asked with one bundle.
pub struct Targets {
    /// The limits for times.
    pub times: &'static [TimeTarget],
    /// Whether the limits for system calls and memory hold.
    pub sizes: bool,
}

/// Nothing.
pub const NONE: Targets = Targets { times: &[], sizes: false };

/// With the bundle of `runc spec`: the targets of issue 2.
pub const PLAIN: Targets = Targets {
    times: &[
        TimeTarget { verb: Verb::Run, yardstick: Yardstick::Floor, at_most: 1.3 },
        TimeTarget { verb: Verb::Run, yardstick: Yardstick::Crun, at_most: 0.65 },
        TimeTarget { verb: Verb::Create, yardstick: Yardstick::Crun, at_most: 0.65 },
        TimeTarget { verb: Verb::Start, yardstick: Yardstick::Crun, at_most: 0.5 },
        TimeTarget { verb: Verb::Delete, yardstick: Yardstick::Crun, at_most: 0.5 },
        TimeTarget { verb: Verb::Exec, yardstick: Yardstick::Crun, at_most: 0.5 },
        TimeTarget { verb: Verb::State, yardstick: Yardstick::Crun, at_most: 0.5 },
    ],
    sizes: true,
};

/// With a bundle as engines write it, seccomp profile included: the targets of issue 4.
pub const OF_ENGINES: Targets = Targets {
    times: &[
        TimeTarget { verb: Verb::Run, yardstick: Yardstick::Crun, at_most: 0.65 },
        TimeTarget { verb: Verb::Run, yardstick: Yardstick::Runc, at_most: 0.25 },
        TimeTarget { verb: Verb::Create, yardstick: Yardstick::Crun, at_most: 0.65 },
        TimeTarget { verb: Verb::Create, yardstick: Yardstick::Runc, at_most: 0.25 },
    ],
    sizes: false,
};

/// System calls of one run.
pub const SYSCALLS_AT_MOST: f64 = 400.0;
/// Peak resident memory of a run, in KiB: 2.5 MiB.
pub const RUN_PEAK_BELOW_KIB: f64 = 2560.0;
/// Resident memory of the process that waits between create and start, in KiB.
pub const WAITING_BELOW_KIB: f64 = 700.0;

/// A target with what was measured.
pub struct Verdict {
    /// The target in words: `run at most 1.30 x floor`.
    pub text: String,
    /// The value measured.
    pub value: f64,
    /// Whether the target is met.
    pub met: bool,
}

impl Verdict {
    /// `value` must not exceed `limit`.
    pub fn at_most(text: String, value: f64, limit: f64) -> Self {
        Self { text, value, met: value <= limit }
    }

    /// `value` must stay below `limit`.
    pub fn below(text: String, value: f64, limit: f64) -> Self {
        Self { text, value, met: value < limit }
    }

    /// "met", or "missed" and by how much.
    pub fn word(&self, limit: f64) -> String {
        if self.met {
            "met".to_owned()
        } else {
            format!("missed by {:.0} %", (self.value / limit - 1.0) * 100.0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_at_the_limit_meets_at_most_but_not_below() {
        assert!(Verdict::at_most(String::new(), 400.0, 400.0).met);
        assert!(!Verdict::below(String::new(), 2560.0, 2560.0).met);
    }

    #[test]
    fn a_missed_target_says_by_how_much() {
        assert_eq!(Verdict::at_most(String::new(), 1.56, 1.3).word(1.3), "missed by 20 %");
        assert_eq!(Verdict::at_most(String::new(), 1.2, 1.3).word(1.3), "met");
    }
}
