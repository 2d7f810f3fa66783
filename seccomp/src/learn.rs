// SPDX-License-Identifier: Apache-2.0
//! From observed system calls to a profile that allows exactly them.

use crate::Arch;
use crate::profile::{Action, Profile, Rule};
use crate::tables::Syscall;
use std::collections::BTreeSet;

/// A profile that allows the observed calls and fails all others with EPERM (newer ones with ENOSYS).
///
/// `calls` are pairs of `AUDIT_ARCH_*` token and number, as `seccomp_data`, the audit log and a seccomp listener
/// report them. Names hold for every architecture of the profile. Returns the pairs that have no known name as
/// well: the profile cannot allow those.
pub fn profile_of_calls(
    native: Arch,
    calls: impl IntoIterator<Item = (u32, u32)>,
) -> (Profile, Vec<(u32, u32)>) {
    let (mut names, mut archs, mut unknown) = (BTreeSet::new(), BTreeSet::from([native]), Vec::new());
    for (token, number) in calls.into_iter().collect::<BTreeSet<_>>() {
        match Arch::from_audit(token, number).map(|arch| (arch, Syscall::by_number(arch, number))) {
            Some((arch, Some(call))) => {
                archs.insert(arch);
                names.insert(call.name());
            }
            _ => unknown.push((token, number)),
        }
    }
    let mut profile = Profile::new(Action::Errno);
    profile.architectures = archs.into_iter().collect();
    if !names.is_empty() {
        profile.syscalls.push(Rule::new(Action::Allow, names));
    }
    (profile, unknown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Query, simulate};

    #[test]
    fn observed_calls_are_allowed_and_others_are_not() {
        let token = Arch::X86_64.audit_token();
        let calls = [(token, 0), (token, 257), (Arch::X86.audit_token(), 4), (token, 257), (token, 9999)];
        let (profile, unknown) = profile_of_calls(Arch::X86_64, calls);
        assert_eq!(unknown, [(token, 9999)]);
        assert_eq!(profile.architectures, [Arch::X86, Arch::X86_64]);
        assert_eq!(profile.syscalls[0].names, ["openat", "read", "write"]);
        let verdict = |name: &str| {
            let query = Query::new(Arch::X86_64, name, &[]).unwrap();
            simulate(&profile, Arch::X86_64, &query).unwrap().verdict.action()
        };
        assert_eq!(verdict("openat"), Action::Allow);
        assert_eq!(verdict("close"), Action::Errno);
        assert_eq!(Profile::from_json(&serde_json::to_string(&profile).unwrap()).unwrap(), profile);
    }
}
