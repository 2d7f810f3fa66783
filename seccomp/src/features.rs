// SPDX-License-Identifier: Apache-2.0
//! The `linux.seccomp` section of a runtime's `features` (OCI runtime spec, `features-linux.md`).

use crate::Arch;
use crate::profile::{Action, FilterFlag, Operator};
use serde::Serialize;

/// What this crate can compile, as strings of the spec, each list sorted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Features {
    /// Whether seccomp is supported at all.
    pub enabled: bool,
    /// Known actions.
    pub actions: Vec<&'static str>,
    /// Known comparison operators.
    pub operators: Vec<&'static str>,
    /// Known architectures.
    pub archs: Vec<&'static str>,
    /// Flags that a profile may name.
    pub known_flags: Vec<&'static str>,
    /// Those of them that the running kernel takes; all of them until [`Features::keep_supported`] has asked it.
    pub supported_flags: Vec<&'static str>,
}

/// What this crate can compile.
pub fn features() -> Features {
    let flags = sorted(FilterFlag::ALL.iter().map(|flag| flag.spec_name()));
    Features {
        enabled: true,
        actions: sorted(Action::ALL.iter().map(|action| action.spec_name())),
        operators: sorted(Operator::ALL.iter().map(|operator| operator.spec_name())),
        archs: sorted(Arch::ALL.iter().map(|arch| arch.spec_name())),
        known_flags: flags.clone(),
        supported_flags: flags,
    }
}

impl Features {
    /// Leaves only the flags for which `kernel_takes` answers yes to their bits. A kernel takes a flag when
    /// `seccomp(SECCOMP_SET_MODE_FILTER, bits, NULL)` fails with EFAULT; it answers EINVAL to one it does not
    /// know. `WAIT_KILLABLE_RECV` is asked for together with `NEW_LISTENER`, which it needs.
    #[must_use]
    pub fn keep_supported(mut self, mut kernel_takes: impl FnMut(u32) -> bool) -> Self {
        self.supported_flags.retain(|name| {
            FilterFlag::by_spec_name(name).is_some_and(|flag| {
                let companion =
                    if flag == FilterFlag::WaitKillableRecv { crate::compile::FLAG_NEW_LISTENER } else { 0 };
                kernel_takes(flag.bits() | companion)
            })
        });
        self
    }
}

fn sorted(names: impl Iterator<Item = &'static str>) -> Vec<&'static str> {
    let mut names: Vec<_> = names.collect();
    names.sort_unstable();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_the_specs_strings() {
        let features = features();
        assert_eq!(features.actions.len(), 9);
        assert_eq!(features.operators.len(), 7);
        assert_eq!(features.archs.len(), 23);
        assert!(features.actions.is_sorted() && features.archs.contains(&"SCMP_ARCH_RISCV64"));
        let json = serde_json::to_value(&features).unwrap();
        assert_eq!(json["knownFlags"][3], "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV");
    }

    #[test]
    fn flags_that_the_kernel_refuses_are_not_supported() {
        let features = features().keep_supported(|bits| bits == 1 || bits == (1 << 5 | 1 << 3));
        assert_eq!(
            features.supported_flags,
            ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]
        );
        assert_eq!(features.known_flags.len(), 4);
    }
}
