//! `linux.memoryPolicy` (`config-linux.md`, "Memory Policy"; set_mempolicy(2)).

use oci_spec::runtime::{
    Linux, LinuxMemoryPolicy, MemoryPolicyFlagType as Flag, MemoryPolicyModeType as Mode,
};

use super::super::{id_list::IdList, problems::Problems};

/// The kernel's word on it, which other runtimes leave it to.
const REFUSED: &str = "set_mempolicy(2) takes it for an invalid argument";

pub(super) fn check(linux: &Linux, problems: &mut Problems) {
    let Some(policy) = linux.memory_policy() else { return };
    let nodes = match IdList::parse(policy.nodes().as_deref().unwrap_or_default()) {
        Ok(nodes) => nodes,
        Err(problem) => {
            problems.refuse("linux.memoryPolicy.nodes", format!("invalid memory policy node: {problem}"));
            return;
        }
    };
    let mode = policy.mode();
    match mode {
        Mode::MpolDefault | Mode::MpolLocal if !nodes.is_empty() => {
            problems.refuse("linux.memoryPolicy.nodes", format!("must be empty for {mode}; {REFUSED}"));
        }
        Mode::MpolBind | Mode::MpolInterleave | Mode::MpolWeightedInterleave | Mode::MpolPreferredMany
            if nodes.is_empty() =>
        {
            problems.refuse(
                "linux.memoryPolicy.nodes",
                format!("is empty or missing, but {mode} needs nodes; {REFUSED}"),
            );
        }
        _ => {}
    }
    let has = |flag: Flag| policy.flags().iter().flatten().any(|given| *given == flag);
    let (relative, fixed) = (has(Flag::MpolFRelativeNodes), has(Flag::MpolFStaticNodes));
    if relative && fixed {
        problems.refuse(
            "linux.memoryPolicy.flags",
            format!("MPOL_F_RELATIVE_NODES and MPOL_F_STATIC_NODES exclude each other, keep one; {REFUSED}"),
        );
    }
    let has_no_nodes = match mode {
        Mode::MpolDefault | Mode::MpolLocal => true,
        // Without nodes it is the local policy.
        Mode::MpolPreferred => nodes.is_empty(),
        _ => false,
    };
    if (relative || fixed) && has_no_nodes {
        problems.refuse(
            "linux.memoryPolicy.flags",
            format!("say how to read nodes, but {mode} has none here; {REFUSED}"),
        );
    }
    if has(Flag::MpolFNumaBalancing) && !matches!(mode, Mode::MpolBind | Mode::MpolPreferredMany) {
        problems.refuse(
            "linux.memoryPolicy.flags",
            format!(
                "MPOL_F_NUMA_BALANCING goes with MPOL_BIND or MPOL_PREFERRED_MANY only, not with {mode}; {REFUSED}"
            ),
        );
    }
}

/// What set_mempolicy(2) takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryPolicy {
    /// `MPOL_*` with its `MPOL_F_*` flags.
    pub mode: u32,
    /// The nodes; empty for "none".
    pub nodes: IdList,
}

/// Types a memory policy that has passed the check.
///
/// # Errors
/// The list of nodes is malformed, which the check refuses too.
pub fn parse_memory_policy(policy: &LinuxMemoryPolicy) -> Result<MemoryPolicy, String> {
    let mode = match policy.mode() {
        Mode::MpolDefault => 0,
        Mode::MpolPreferred => 1,
        Mode::MpolBind => 2,
        Mode::MpolInterleave => 3,
        Mode::MpolLocal => 4,
        Mode::MpolPreferredMany => 5,
        Mode::MpolWeightedInterleave => 6,
    };
    let bit = |flag: &Flag| match flag {
        Flag::MpolFStaticNodes => 1 << 15,
        Flag::MpolFRelativeNodes => 1 << 14,
        Flag::MpolFNumaBalancing => 1 << 13,
    };
    let flags = policy.flags().iter().flatten().map(bit).fold(0, |flags, bit| flags | bit);
    let nodes = IdList::parse(policy.nodes().as_deref().unwrap_or_default())?;
    Ok(MemoryPolicy { mode: mode | flags, nodes })
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{accepts, refuses};
    use serde_json::{Value, json};

    fn policy(mode: &str, nodes: &str, flags: &[&str]) -> Value {
        json!({"mode": format!("MPOL_{mode}"), "nodes": nodes, "flags": flags})
    }

    #[test]
    fn modes_and_flags_have_the_kernels_numbers() {
        let number = |value: Value| {
            let bundle = accepts("linux.memoryPolicy", value);
            let linux = bundle.spec.linux().as_ref().expect("linux");
            super::parse_memory_policy(linux.memory_policy().as_ref().expect("a policy")).expect("good nodes")
        };
        let modes =
            ["DEFAULT", "PREFERRED", "BIND", "INTERLEAVE", "LOCAL", "PREFERRED_MANY", "WEIGHTED_INTERLEAVE"];
        for (expected, mode) in modes.iter().enumerate() {
            let nodes = if matches!(*mode, "DEFAULT" | "LOCAL") { "" } else { "0-1" };
            assert_eq!(number(policy(mode, nodes, &[])).mode as usize, expected, "{mode}");
        }
        let bind = number(policy("BIND", "0,2", &["MPOL_F_STATIC_NODES", "MPOL_F_NUMA_BALANCING"]));
        assert_eq!((bind.mode, bind.nodes.mask()), (2 | 1 << 15 | 1 << 13, vec![0b101]));
        assert_eq!(number(policy("BIND", "0", &["MPOL_F_RELATIVE_NODES"])).mode, 2 | 1 << 14);
    }

    #[test]
    fn nodes_and_flags_fit_the_mode() {
        accepts("linux.memoryPolicy", policy("PREFERRED", "", &[]));
        accepts("linux.memoryPolicy", json!({"mode": "MPOL_DEFAULT"}));
        for mode in ["DEFAULT", "LOCAL"] {
            refuses("linux.memoryPolicy", policy(mode, "0", &[]), "linux.memoryPolicy.nodes");
        }
        for mode in ["BIND", "INTERLEAVE", "WEIGHTED_INTERLEAVE", "PREFERRED_MANY"] {
            refuses("linux.memoryPolicy", policy(mode, "", &[]), "linux.memoryPolicy.nodes");
        }
        refuses("linux.memoryPolicy", policy("BIND", "x", &[]), "linux.memoryPolicy.nodes");
        for (mode, nodes, flags) in [
            ("BIND", "0", &["MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"][..]),
            ("DEFAULT", "", &["MPOL_F_STATIC_NODES"]),
            ("INTERLEAVE", "0", &["MPOL_F_NUMA_BALANCING"]),
            ("PREFERRED", "", &["MPOL_F_STATIC_NODES"]),
            ("PREFERRED", "", &["MPOL_F_RELATIVE_NODES"]),
        ] {
            refuses("linux.memoryPolicy", policy(mode, nodes, flags), "linux.memoryPolicy.flags");
        }
        refuses("linux.memoryPolicy", policy("BIND", "0", &["MPOL_F_X"]), "linux.memoryPolicy.flags[0]");
        refuses("linux.memoryPolicy", policy("X", "0", &[]), "linux.memoryPolicy.mode");
    }

    #[test]
    fn a_wrong_policy_is_told_in_the_words_that_runc_has() {
        accepts("linux.memoryPolicy", json!({}));
        for (policy, place, words) in [
            (json!({"mode": "INTERLEAVE", "nodes": "0"}), "mode", "invalid memory policy mode"),
            (json!({"nodes": "0-7"}), "mode", "invalid memory policy mode"),
            (policy("BIND", "0", &["badflag"]), "flags[0]", "invalid memory policy flag"),
            (policy("BIND", "0-9876543210", &[]), "nodes", "invalid memory policy node"),
            (policy("DEFAULT", "0-7", &[]), "nodes", "set_mempolicy(2) takes it for an invalid argument"),
        ] {
            let error = refuses("linux.memoryPolicy", policy, &format!("linux.memoryPolicy.{place}"));
            assert!(error.contains(words), "{error}");
        }
    }
}
