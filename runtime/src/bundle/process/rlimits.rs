//! `process.rlimits` (`config.md`, "POSIX process"; getrlimit(2)).

use oci_spec::runtime::{PosixRlimit, PosixRlimitType};
use rustix::process::Resource;

use super::super::problems::Problems;

pub(super) fn check(rlimits: &[PosixRlimit], prefix: &str, problems: &mut Problems) {
    for (index, rlimit) in rlimits.iter().enumerate() {
        if rlimits.iter().take(index).any(|earlier| earlier.typ() == rlimit.typ()) {
            problems.refuse(
                format!("{prefix}rlimits[{index}].type"),
                format!("{} is there twice; keep one", rlimit.typ()),
            );
        }
        if rlimit.soft() > rlimit.hard() {
            problems.refuse(
                format!("{prefix}rlimits[{index}].soft"),
                format!("{} is larger than the hard limit, {}", rlimit.soft(), rlimit.hard()),
            );
        }
    }
}

/// The resource of prlimit(2) that a rlimit is for.
pub fn rlimit_resource(kind: PosixRlimitType) -> Resource {
    use PosixRlimitType as Kind;
    match kind {
        Kind::RlimitCpu => Resource::Cpu,
        Kind::RlimitFsize => Resource::Fsize,
        Kind::RlimitData => Resource::Data,
        Kind::RlimitStack => Resource::Stack,
        Kind::RlimitCore => Resource::Core,
        Kind::RlimitRss => Resource::Rss,
        Kind::RlimitNproc => Resource::Nproc,
        Kind::RlimitNofile => Resource::Nofile,
        Kind::RlimitMemlock => Resource::Memlock,
        Kind::RlimitAs => Resource::As,
        Kind::RlimitLocks => Resource::Locks,
        Kind::RlimitSigpending => Resource::Sigpending,
        Kind::RlimitMsgqueue => Resource::Msgqueue,
        Kind::RlimitNice => Resource::Nice,
        Kind::RlimitRtprio => Resource::Rtprio,
        Kind::RlimitRttime => Resource::Rttime,
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{accepts, refuses};
    use serde_json::json;

    #[test]
    fn every_rlimit_of_linux_is_known_by_its_name() {
        let names = "CPU FSIZE DATA STACK CORE RSS NPROC NOFILE MEMLOCK AS LOCKS SIGPENDING MSGQUEUE NICE RTPRIO RTTIME";
        let bundle = accepts(
            "process.rlimits",
            names
                .split(' ')
                .map(|name| json!({"type": format!("RLIMIT_{name}"), "hard": u64::MAX, "soft": 1}))
                .collect(),
        );
        let rlimits =
            bundle.spec.process().as_ref().and_then(|process| process.rlimits().clone()).expect("rlimits");
        // The kernel's numbers are in this order.
        let numbers: Vec<u32> =
            rlimits.iter().map(|rlimit| super::rlimit_resource(rlimit.typ()) as u32).collect();
        assert_eq!(numbers, (0..16).collect::<Vec<_>>());
    }

    #[test]
    fn an_unknown_rlimit_is_refused_with_the_known_ones() {
        let error = refuses(
            "process.rlimits",
            json!([{"type": "RLIMIT_CORE", "hard": 0, "soft": 0}, {"type": "RLIMIT_FOO", "hard": 1, "soft": 1}]),
            "process.rlimits[1].type",
        );
        assert!(
            error.contains("\"RLIMIT_FOO\" is not a known value") && error.contains("RLIMIT_NOFILE"),
            "{error}"
        );
    }

    #[test]
    fn a_soft_limit_is_at_most_the_hard_one_and_no_limit_comes_twice() {
        let limit = |soft: u64| json!({"type": "RLIMIT_NOFILE", "hard": 10, "soft": soft});
        accepts("process.rlimits", json!([limit(10)]));
        refuses("process.rlimits", json!([limit(11)]), "process.rlimits[0].soft");
        refuses("process.rlimits", json!([limit(1), limit(1)]), "process.rlimits[1].type");
    }
}
