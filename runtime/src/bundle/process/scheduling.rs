//! `process.scheduler`, `process.ioPriority` and `process.execCPUAffinity` (`config.md`, "Linux Process";
//! sched_setattr(2), ioprio_set(2), sched_setaffinity(2)).
//!
//! It promises that what passes here is taken by the kernel as far as the values go; whether the caller may ask for
//! it, the kernel decides.

use oci_spec::runtime::{
    IOPriorityClass, LinuxIOPriority, LinuxSchedulerFlag, LinuxSchedulerPolicy, Process, Scheduler,
};

use super::super::{
    id_list::IdList,
    problems::{Problems, has},
};

pub(super) fn check(process: &Process, prefix: &str, problems: &mut Problems) {
    if let Some(scheduler) = process.scheduler() {
        check_scheduler(scheduler, prefix, problems);
    }
    if let Some(priority) = process.io_priority()
        && !(0..=7).contains(&priority.priority())
    {
        problems.refuse(
            format!("{prefix}ioPriority.priority"),
            format!("{} is not from 0 (highest) to 7 (lowest)", priority.priority()),
        );
    }
    let Some(affinity) = process.exec_cpu_affinity() else { return };
    for (name, list) in [("initial", affinity.initial()), ("final", affinity.cpu_affinity_final())] {
        if let Some(Err(problem)) = list.as_deref().map(IdList::parse) {
            problems.refuse(format!("{prefix}execCPUAffinity.{name}"), problem);
        }
    }
}

/// Refuses an `ioPriority` without a class, which the types make best effort.
pub(in super::super) fn check_class(process: &Process, prefix: &str, text: &[u8], problems: &mut Problems) {
    if process.io_priority().is_none() {
        return;
    }
    let place = format!("{prefix}ioPriority.class");
    if !has(text, &place) {
        problems.refuse(place, "is missing; use IOPRIO_CLASS_RT, IOPRIO_CLASS_BE or IOPRIO_CLASS_IDLE");
    }
}

fn check_scheduler(scheduler: &Scheduler, prefix: &str, problems: &mut Problems) {
    use LinuxSchedulerPolicy as Policy;
    let policy = *scheduler.policy();
    let mut refuse =
        |name: &str, problem: String| problems.refuse(format!("{prefix}scheduler.{name}"), problem);

    if policy == Policy::SchedIso {
        refuse("policy", "SCHED_ISO is reserved, but no Linux has it; use another policy".to_owned());
    }
    let nice = scheduler.nice().unwrap_or_default();
    if !(-20..=19).contains(&nice) {
        refuse("nice", format!("{nice} is not from -20 (most favoured) to 19"));
    }
    let priority = scheduler.priority().unwrap_or_default();
    match policy {
        Policy::SchedFifo | Policy::SchedRr if !(1..=99).contains(&priority) => {
            refuse("priority", format!("{priority} is not from 1 to 99, which {policy} needs"));
        }
        Policy::SchedFifo | Policy::SchedRr => {}
        _ if priority != 0 => {
            refuse(
                "priority",
                format!("is {priority}, but only SCHED_FIFO and SCHED_RR have one; remove it"),
            );
        }
        _ => {}
    }
    let [runtime, deadline, period] = [scheduler.runtime(), scheduler.deadline(), scheduler.period()]
        .map(|value| value.unwrap_or_default());
    if policy != Policy::SchedDeadline {
        for (name, value) in [("runtime", runtime), ("deadline", deadline), ("period", period)] {
            if value != 0 {
                refuse(name, format!("is {value}, but only SCHED_DEADLINE has one; remove it"));
            }
        }
        return;
    }
    // The kernel's bounds (sched(7)): a resolution of 1024 ns, and a top bit that it keeps for itself.
    if runtime < 1024 {
        refuse("runtime", format!("{runtime} ns is less than 1024 ns, the least that SCHED_DEADLINE takes"));
    }
    for (name, value) in [("deadline", deadline), ("period", period)] {
        if value >= 1 << 63 {
            refuse(name, format!("{value} ns is too long; it must be below 2^63 ns"));
        }
    }
    if runtime > deadline {
        refuse("runtime", format!("{runtime} ns is longer than the deadline, {deadline} ns"));
    }
    if period != 0 && deadline > period {
        refuse("deadline", format!("{deadline} ns is longer than the period, {period} ns"));
    }
}

/// What sched_setattr(2) takes, from a checked `process.scheduler`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SchedulerAttributes {
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// From -20 to 19; for `SCHED_OTHER` and `SCHED_BATCH`.
    pub nice: i32,
    /// From 1 to 99 for `SCHED_FIFO` and `SCHED_RR`, otherwise 0.
    pub priority: u32,
    /// Nanoseconds; for `SCHED_DEADLINE`.
    pub runtime: u64,
    /// Nanoseconds; for `SCHED_DEADLINE`.
    pub deadline: u64,
    /// Nanoseconds, 0 for the deadline's length; for `SCHED_DEADLINE`.
    pub period: u64,
}

/// Types a scheduler for sched_setattr(2).
pub fn scheduler_attributes(scheduler: &Scheduler) -> SchedulerAttributes {
    use LinuxSchedulerFlag as Flag;
    use LinuxSchedulerPolicy as Policy;
    let policy = match scheduler.policy() {
        Policy::SchedOther => 0,
        Policy::SchedFifo => 1,
        Policy::SchedRr => 2,
        Policy::SchedBatch => 3,
        Policy::SchedIso => 4,
        Policy::SchedIdle => 5,
        Policy::SchedDeadline => 6,
    };
    let bit = |flag: &Flag| match flag {
        Flag::SchedResetOnFork => 0x01,
        Flag::SchedFlagReclaim => 0x02,
        Flag::SchedFlagDLOverrun => 0x04,
        Flag::SchedFlagKeepPolicy => 0x08,
        Flag::SchedFlagKeepParams => 0x10,
        Flag::SchedFlagUtilClampMin => 0x20,
        Flag::SchedFlagUtilClampMax => 0x40,
    };
    SchedulerAttributes {
        policy,
        flags: scheduler.flags().iter().flatten().map(bit).fold(0, |flags, bit| flags | bit),
        nice: scheduler.nice().unwrap_or_default(),
        priority: scheduler.priority().unwrap_or_default().unsigned_abs(),
        runtime: scheduler.runtime().unwrap_or_default(),
        deadline: scheduler.deadline().unwrap_or_default(),
        period: scheduler.period().unwrap_or_default(),
    }
}

/// The value of ioprio_set(2) for a checked `process.ioPriority`: the class above bit 13, the priority below.
pub fn io_priority(priority: &LinuxIOPriority) -> i32 {
    let class = match priority.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    class << 13 | priority.priority() as i32
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{accepts, refuses};
    use super::*;
    use serde_json::{Value, json};

    fn attributes(scheduler: Value) -> SchedulerAttributes {
        let bundle = accepts("process.scheduler", scheduler);
        let process = bundle.spec.process().as_ref().expect("a process");
        scheduler_attributes(process.scheduler().as_ref().expect("a scheduler"))
    }

    #[test]
    fn every_policy_and_flag_has_the_kernels_number() {
        for (number, policy) in ["OTHER", "FIFO", "RR", "BATCH"].iter().enumerate() {
            let priority = u32::from(matches!(number, 1 | 2));
            let scheduler = json!({"policy": format!("SCHED_{policy}"), "priority": priority});
            assert_eq!(attributes(scheduler).policy as usize, number);
        }
        assert_eq!(attributes(json!({"policy": "SCHED_IDLE"})).policy, 5);
        let flags = [
            "FLAG_RESET_ON_FORK",
            "FLAG_RECLAIM",
            "FLAG_DL_OVERRUN",
            "FLAG_KEEP_POLICY",
            "FLAG_KEEP_PARAMS",
            "FLAG_UTIL_CLAMP_MIN",
            "FLAG_UTIL_CLAMP_MAX",
        ];
        for (bit, flag) in flags.iter().enumerate() {
            let scheduler = json!({"policy": "SCHED_OTHER", "flags": [format!("SCHED_{flag}")]});
            assert_eq!(attributes(scheduler).flags, 1 << bit, "{flag}");
        }
    }

    #[test]
    fn an_unknown_policy_or_flag_is_refused_with_the_names_of_the_spec() {
        let error = refuses("process.scheduler", json!({"policy": "SCHED_FOO"}), "process.scheduler.policy");
        assert!(error.contains("`SCHED_DEADLINE`"), "{error}");
        let scheduler = json!({"policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_FOO"]});
        let error = refuses("process.scheduler", scheduler, "process.scheduler.flags[0]");
        assert!(error.contains("`SCHED_FLAG_DL_OVERRUN`"), "{error}");
        refuses("process.scheduler", json!({"nice": 1}), "process.scheduler.policy");
        refuses("process.scheduler", json!({"policy": "SCHED_ISO"}), "process.scheduler.policy");
    }

    #[test]
    fn nice_and_priority_belong_to_their_policies() {
        for nice in [-20, 19] {
            accepts("process.scheduler", json!({"policy": "SCHED_OTHER", "nice": nice}));
        }
        for nice in [-21, 20] {
            refuses(
                "process.scheduler",
                json!({"policy": "SCHED_BATCH", "nice": nice}),
                "process.scheduler.nice",
            );
        }
        for policy in ["SCHED_FIFO", "SCHED_RR"] {
            accepts("process.scheduler", json!({"policy": policy, "priority": 99}));
            for priority in [Value::Null, json!(0), json!(100), json!(-1)] {
                let scheduler = json!({"policy": policy, "priority": priority});
                refuses("process.scheduler", scheduler, "process.scheduler.priority");
            }
        }
        let scheduler = json!({"policy": "SCHED_OTHER", "priority": 1});
        refuses("process.scheduler", scheduler, "process.scheduler.priority");
    }

    #[test]
    fn a_deadline_is_within_its_period_and_the_runtime_within_the_deadline() {
        let deadline = |runtime: u64, deadline: u64, period: u64| json!({"policy": "SCHED_DEADLINE", "runtime": runtime, "deadline": deadline, "period": period});
        accepts("process.scheduler", deadline(1024, 2048, 4096));
        accepts("process.scheduler", deadline(1024, 1024, 0));
        refuses("process.scheduler", deadline(1023, 2048, 4096), "process.scheduler.runtime");
        refuses("process.scheduler", deadline(4096, 2048, 4096), "process.scheduler.runtime");
        refuses("process.scheduler", deadline(1024, 8192, 4096), "process.scheduler.deadline");
        refuses("process.scheduler", deadline(1024, 1 << 63, 0), "process.scheduler.deadline");
        let scheduler = json!({"policy": "SCHED_OTHER", "period": 5});
        refuses("process.scheduler", scheduler, "process.scheduler.period");
    }

    #[test]
    fn an_io_priority_is_a_class_and_a_level() {
        for (class, number) in [("RT", 1), ("BE", 2), ("IDLE", 3)] {
            let bundle = accepts(
                "process.ioPriority",
                json!({"class": format!("IOPRIO_CLASS_{class}"), "priority": 7}),
            );
            let process = bundle.spec.process().as_ref().expect("a process");
            let priority = process.io_priority().as_ref().expect("a priority");
            assert_eq!(io_priority(priority), number << 13 | 7);
        }
        for wrong in [-1, 8] {
            let priority = json!({"class": "IOPRIO_CLASS_BE", "priority": wrong});
            refuses("process.ioPriority", priority, "process.ioPriority.priority");
        }
        refuses("process.ioPriority", json!({"priority": 1}), "process.ioPriority.class");
        refuses("process.ioPriority", json!({"class": "IOPRIO_CLASS_NONE"}), "process.ioPriority.class");
    }

    #[test]
    fn cpu_affinities_are_lists() {
        accepts("process.execCPUAffinity", json!({"initial": "0-3,7", "final": "4096"}));
        let bundle = accepts("process.execCPUAffinity", json!({"initial": "0,, 1-2", "final": ""}));
        let process = bundle.spec.process().as_ref().expect("a process");
        let affinity = process.exec_cpu_affinity().as_ref().expect("an affinity");
        assert_eq!(
            (affinity.initial().as_deref(), affinity.cpu_affinity_final().as_deref()),
            (Some("0,1-2"), None)
        );
        refuses("process.execCPUAffinity", json!({"initial": "3-1"}), "process.execCPUAffinity.initial");
        refuses("process.execCPUAffinity", json!({"final": "a"}), "process.execCPUAffinity.final");
    }
}
