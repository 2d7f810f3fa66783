// SPDX-License-Identifier: Apache-2.0
//! What compiled programs answer, case by case, and that they answer what the rules say.
#![allow(
    clippy::decimal_bitwise_operands,
    reason = "errno values and system call numbers are decimal numbers"
)]
#![allow(clippy::needless_pass_by_value, reason = "json! makes values to pass on")]

use crate::bpf::{SeccompData, ret};
use crate::error::Problem;
use crate::interp;
use crate::simulate::{Query, Simulator};
use crate::{Arch, Profile, Syscall, X32_BIT, compile};
use proptest::prelude::*;
use serde_json::{Value, json};

const ENOSYS: u32 = ret::ERRNO | 38;
const EPERM: u32 = ret::ERRNO | 1;

type Test = fn(u64, u64) -> bool;

fn profile(value: Value) -> Profile {
    Profile::from_value(&value).unwrap()
}

/// Runs the compiled program on one call.
fn answer(profile: &Profile, native: Arch, arch: Arch, nr: u32, args: [u64; 6]) -> u32 {
    let program = compile(profile, native).unwrap();
    interp::verify(&program.instructions).unwrap();
    let data = SeccompData { nr, arch: arch.audit_token(), instruction_pointer: 0, args };
    interp::run(&program.instructions, &data, native.endian()).unwrap().ret
}

fn number(name: &str, arch: Arch) -> u32 {
    Syscall::by_name(name).unwrap().number(arch).unwrap()
}

fn on_x86_64(profile: &Profile, name: &str, first: u64) -> u32 {
    answer(profile, Arch::X86_64, Arch::X86_64, number(name, Arch::X86_64), [first, 0, 0, 0, 0, 0])
}

#[test]
fn every_action_has_its_return_value() {
    let cases = [
        ("SCMP_ACT_KILL", None, ret::KILL_THREAD),
        ("SCMP_ACT_KILL_THREAD", None, ret::KILL_THREAD),
        ("SCMP_ACT_KILL_PROCESS", None, ret::KILL_PROCESS),
        ("SCMP_ACT_TRAP", None, ret::TRAP),
        ("SCMP_ACT_ERRNO", None, EPERM),
        ("SCMP_ACT_ERRNO", Some(0), ret::ERRNO),
        ("SCMP_ACT_ERRNO", Some(4095), ret::ERRNO | 4095),
        ("SCMP_ACT_TRACE", None, ret::TRACE | 1),
        ("SCMP_ACT_TRACE", Some(65535), ret::TRACE | 65535),
        ("SCMP_ACT_LOG", None, ret::LOG),
        ("SCMP_ACT_NOTIFY", None, ret::USER_NOTIF),
    ];
    for (action, errno, expected) in cases {
        let profile = profile(json!({
            "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/agent",
            "syscalls": [{"names": ["mkdir"], "action": action, "errnoRet": errno}],
        }));
        assert_eq!(on_x86_64(&profile, "mkdir", 0), expected, "{action} {errno:?}");
        assert_eq!(on_x86_64(&profile, "rmdir", 0), ret::ALLOW);
    }
}

#[test]
fn operators_compare_64_unsigned_bits() {
    let big = 0x1_0000_0005_u64;
    let probes = [0, 4, 5, 6, big - 1, big, big + 1, 0x2_0000_0000, 0x1_ffff_ffff, u64::MAX, 0xffff_ffff];
    let operators: [(&str, Test); 6] = [
        ("SCMP_CMP_NE", |a, b| a != b),
        ("SCMP_CMP_LT", |a, b| a < b),
        ("SCMP_CMP_LE", |a, b| a <= b),
        ("SCMP_CMP_EQ", |a, b| a == b),
        ("SCMP_CMP_GE", |a, b| a >= b),
        ("SCMP_CMP_GT", |a, b| a > b),
    ];
    for (op, test) in operators {
        for value in [0, 5, big, u64::MAX] {
            let profile = profile(json!({"defaultAction": "SCMP_ACT_KILL", "syscalls": [
                {"names": ["dup"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "op": op, "value": value}]}]}));
            for probe in probes {
                let expected = if test(probe, value) { ret::ALLOW } else { ret::KILL_THREAD };
                assert_eq!(on_x86_64(&profile, "dup", probe), expected, "{probe:#x} {op} {value:#x}");
            }
        }
    }
}

#[test]
fn masked_comparison_looks_at_the_mask_only() {
    let masked = |mask: u64, want: u64| {
        profile(json!({"defaultAction": "SCMP_ACT_KILL", "syscalls": [
            {"names": ["dup"], "action": "SCMP_ACT_ALLOW",
             "args": [{"index": 0, "op": "SCMP_CMP_MASKED_EQ", "value": mask, "valueTwo": want}]}]}))
    };
    let high = masked(0xff00_0000_0000, 0x1200_0000_0000);
    assert_eq!(on_x86_64(&high, "dup", 0x0034_1234_5678_9abc), ret::ALLOW);
    assert_eq!(on_x86_64(&high, "dup", 0x1300_0000_0000), ret::KILL_THREAD);
    let both = masked(0xf_0000_000f, 0x1_0000_0002);
    assert_eq!(on_x86_64(&both, "dup", 0xf1_0000_00f2), ret::ALLOW);
    assert_eq!(on_x86_64(&both, "dup", 0xf1_0000_00f3), ret::KILL_THREAD);
    // Bits outside the mask do not count, and an empty mask always holds.
    assert_eq!(on_x86_64(&masked(1, 3), "dup", 1), ret::ALLOW);
    assert_eq!(on_x86_64(&masked(0, 9), "dup", 77), ret::ALLOW);
}

#[test]
fn conditions_on_different_arguments_must_all_hold() {
    let profile = profile(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{
        "names": ["dup"], "action": "SCMP_ACT_ALLOW", "args": [
            {"index": 0, "op": "SCMP_CMP_EQ", "value": 1}, {"index": 2, "op": "SCMP_CMP_GT", "value": 7}]}]}));
    let ask = |args| answer(&profile, Arch::X86_64, Arch::X86_64, number("dup", Arch::X86_64), args);
    assert_eq!(ask([1, 0, 8, 0, 0, 0]), ret::ALLOW);
    assert_eq!(ask([1, 0, 7, 0, 0, 0]), EPERM);
    assert_eq!(ask([2, 0, 8, 0, 0, 0]), EPERM);
}

#[test]
fn conditions_on_the_same_argument_are_alternatives() {
    let profile = profile(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{
        "names": ["dup"], "action": "SCMP_ACT_ALLOW", "args": [
            {"index": 0, "op": "SCMP_CMP_EQ", "value": 1}, {"index": 0, "op": "SCMP_CMP_EQ", "value": 2},
            {"index": 1, "op": "SCMP_CMP_EQ", "value": 9}]}]}));
    let ask = |args| answer(&profile, Arch::X86_64, Arch::X86_64, number("dup", Arch::X86_64), args);
    assert_eq!(ask([1, 0, 0, 0, 0, 0]), ret::ALLOW);
    assert_eq!(ask([2, 0, 0, 0, 0, 0]), ret::ALLOW);
    assert_eq!(ask([3, 9, 0, 0, 0, 0]), ret::ALLOW);
    assert_eq!(ask([3, 0, 0, 0, 0, 0]), EPERM);
}

#[test]
fn one_call_has_different_actions_by_argument() {
    let rule = |action: &str, value: u64| json!({"names": ["socket"], "action": action, "args": [{"index": 0, "op": "SCMP_CMP_EQ", "value": value}]});
    let profile = profile(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        rule("SCMP_ACT_ALLOW", 1), rule("SCMP_ACT_LOG", 2), rule("SCMP_ACT_TRAP", 16)]}));
    let answers = [1, 2, 16, 3].map(|domain| on_x86_64(&profile, "socket", domain));
    assert_eq!(answers, [ret::ALLOW, ret::LOG, ret::TRAP, EPERM]);
}

#[test]
fn an_unconditional_rule_decides_and_the_first_one_wins() {
    let profile = profile(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        {"names": ["dup"], "action": "SCMP_ACT_KILL", "args": [{"index": 0, "op": "SCMP_CMP_EQ", "value": 1}]},
        {"names": ["dup"], "action": "SCMP_ACT_ALLOW"},
        {"names": ["dup"], "action": "SCMP_ACT_LOG"}]}));
    assert_eq!(on_x86_64(&profile, "dup", 1), ret::ALLOW);
}

#[test]
fn a_rule_with_the_default_action_has_no_effect() {
    let profile = profile(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        {"names": ["dup"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1},
        {"names": ["dup"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "op": "SCMP_CMP_EQ", "value": 1}]}]}));
    assert_eq!(on_x86_64(&profile, "dup", 1), ret::ALLOW);
    assert_eq!(on_x86_64(&profile, "dup", 2), EPERM);
}

#[test]
fn contradicting_rules_are_refused_with_both_places() {
    let rule = |action: &str| json!({"names": ["dup"], "action": action, "args": [{"index": 0, "op": "SCMP_CMP_EQ", "value": 1}]});
    let profile = profile(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        rule("SCMP_ACT_ALLOW"), rule("SCMP_ACT_ALLOW"), rule("SCMP_ACT_LOG")]}));
    let message = compile(&profile, Arch::X86_64).unwrap_err().to_string();
    assert!(message.starts_with("syscalls[2]: contradicts syscalls["), "{message}");
}

#[test]
fn calls_newer_than_the_profile_fail_with_enosys() {
    let with = |default: &str, last: &str| {
        profile(
            json!({"defaultAction": default, "syscalls": [{"names": ["read", last], "action": "SCMP_ACT_ALLOW"}]}),
        )
    };
    let old = with("SCMP_ACT_ERRNO", "rseq");
    assert_eq!(on_x86_64(&old, "clone3", 0), ENOSYS);
    assert_eq!(on_x86_64(&old, "rseq", 0), ret::ALLOW);
    assert_eq!(on_x86_64(&old, "open", 0), EPERM);
    for killing in ["SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_TRAP"] {
        assert_eq!(on_x86_64(&with(killing, "rseq"), "clone3", 0), ENOSYS, "{killing}");
    }
    for permissive in ["SCMP_ACT_LOG", "SCMP_ACT_TRACE"] {
        assert_ne!(on_x86_64(&with(permissive, "rseq"), "clone3", 0), ENOSYS, "{permissive}");
    }
    assert_eq!(
        answer(&old, Arch::Mips64, Arch::Mips64, number("clone3", Arch::Mips64), [0; 6]),
        ret::ERRNO | 89
    );
    assert_eq!(
        answer(&old, Arch::Parisc, Arch::Parisc, number("clone3", Arch::Parisc), [0; 6]),
        ret::ERRNO | 251
    );
}

#[test]
fn an_explicit_rule_wins_over_enosys() {
    let profile = profile(json!({"defaultAction": "SCMP_ACT_KILL", "syscalls": [
        {"names": ["read"], "action": "SCMP_ACT_ALLOW"},
        {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13},
        {"names": ["openat2"], "action": "SCMP_ACT_KILL"}]}));
    assert_eq!(on_x86_64(&profile, "clone3", 0), ret::ERRNO | 13);
    // Named with the default action: known to the profile, and so no newer call.
    assert_eq!(on_x86_64(&profile, "openat2", 0), ret::KILL_THREAD);
    assert_eq!(on_x86_64(&profile, "futex_wait", 0), ENOSYS);
}

#[test]
fn private_calls_of_arm_say_nothing_about_age() {
    let profile = profile(json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_ARM"],
        "syscalls": [{"names": ["read", "rseq", "set_tls"], "action": "SCMP_ACT_ALLOW"}]}));
    let ask = |nr| answer(&profile, Arch::Aarch64, Arch::Arm, nr, [0; 6]);
    assert_eq!(ask(number("set_tls", Arch::Arm)), ret::ALLOW);
    assert_eq!(ask(number("cacheflush", Arch::Arm)), EPERM);
    assert_eq!(ask(number("clone3", Arch::Arm)), ENOSYS);
}

#[test]
fn number_zero_on_s390_is_a_call_unknown_to_the_kernel() {
    let profile = profile(json!({"defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [{"names": ["read", "rseq"], "action": "SCMP_ACT_ALLOW"}]}));
    assert_eq!(answer(&profile, Arch::S390x, Arch::S390x, 0, [0; 6]), ENOSYS);
    assert_eq!(answer(&profile, Arch::S390x, Arch::S390x, 1, [0; 6]), EPERM);
    assert_eq!(answer(&profile, Arch::X86_64, Arch::X86_64, 0, [0; 6]), ret::ALLOW);
}

#[test]
fn x32_is_judged_by_its_own_numbers_or_killed() {
    let with = |default: &str, archs: &[&str]| {
        profile(json!({"defaultAction": default, "architectures": archs,
            "syscalls": [{"names": ["read", "mkdir"], "action": "SCMP_ACT_LOG"}]}))
    };
    let ask = |profile: &Profile, nr| answer(profile, Arch::X86_64, Arch::X86_64, nr, [0; 6]);
    for default in ["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"] {
        let without = with(default, &["SCMP_ARCH_X86_64"]);
        assert_eq!(ask(&without, X32_BIT | 83), ret::KILL_THREAD);
        assert_eq!(ask(&without, 83), ret::LOG);
        assert_ne!(ask(&without, u32::MAX), ret::KILL_THREAD);
        let listed = with(default, &["SCMP_ARCH_X32"]);
        assert_eq!(ask(&listed, X32_BIT | 83), ret::LOG);
    }
    assert_eq!(ask(&with("SCMP_ACT_ALLOW", &["SCMP_ARCH_X32"]), X32_BIT | 84), ret::ALLOW);
    assert_eq!(ask(&with("SCMP_ACT_ERRNO", &["SCMP_ARCH_X32"]), X32_BIT | 84), ENOSYS);
}

#[test]
fn architectures_that_are_not_listed_are_killed() {
    let only_native = profile(json!({"defaultAction": "SCMP_ACT_ALLOW"}));
    assert_eq!(answer(&only_native, Arch::X86_64, Arch::X86_64, 1, [0; 6]), ret::ALLOW);
    assert_eq!(answer(&only_native, Arch::X86_64, Arch::X86, 1, [0; 6]), ret::KILL_THREAD);
    assert_eq!(answer(&only_native, Arch::X86_64, Arch::Aarch64, 1, [0; 6]), ret::KILL_THREAD);
}

#[test]
fn socketcall_and_ipc_follow_the_calls_behind_them() {
    let profile = profile(
        json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86"], "syscalls": [
        {"names": ["socket", "recv", "shmat"], "action": "SCMP_ACT_ALLOW"},
        {"names": ["semop"], "action": "SCMP_ACT_LOG"},
        {"names": ["connect"], "action": "SCMP_ACT_KILL", "args": [{"index": 0, "op": "SCMP_CMP_EQ", "value": 9}]}]}),
    );
    let ask = |name: &str, first| {
        answer(&profile, Arch::X86_64, Arch::X86, number(name, Arch::X86), [first, 0, 0, 0, 0, 0])
    };
    assert_eq!(ask("socket", 0), ret::ALLOW);
    let by_socketcall = [1, 2, 3, 10].map(|code| ask("socketcall", code));
    assert_eq!(by_socketcall, [ret::ALLOW, EPERM, ret::KILL_THREAD, ret::ALLOW]);
    assert_eq!([1, 2, 21].map(|code| ask("ipc", code)), [ret::LOG, EPERM, ret::ALLOW]);
}

#[test]
fn narrow_architectures_compare_the_low_half() {
    let profile = profile(
        json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86"], "syscalls": [
        {"names": ["dup"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "op": "SCMP_CMP_EQ", "value": u64::MAX}]}]}),
    );
    let ask = |arch, first| answer(&profile, Arch::X86_64, arch, number("dup", arch), [first, 0, 0, 0, 0, 0]);
    assert_eq!(ask(Arch::X86, 0xffff_ffff), ret::ALLOW);
    assert_eq!(ask(Arch::X86_64, 0xffff_ffff), EPERM);
    assert_eq!(ask(Arch::X86_64, u64::MAX), ret::ALLOW);
}

#[test]
fn big_endian_arguments_are_read_from_the_right_halves() {
    let profile = profile(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        {"names": ["dup"], "action": "SCMP_ACT_ALLOW",
         "args": [{"index": 0, "op": "SCMP_CMP_GT", "value": 0x1_0000_0005_u64}]}]}));
    let ask = |first| {
        answer(&profile, Arch::S390x, Arch::S390x, number("dup", Arch::S390x), [first, 0, 0, 0, 0, 0])
    };
    assert_eq!(ask(0x1_0000_0006), ret::ALLOW);
    assert_eq!(ask(0x1_0000_0005), EPERM);
    assert_eq!(ask(0x5_0000_0001), ret::ALLOW);
}

#[test]
fn on_narrow_architectures_rules_contradict_each_other_by_their_low_bits() {
    let rules = |value: u64| {
        profile(json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86"], "syscalls": [
            {"names": ["openat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5,
             "args": [{"index": 0, "op": "SCMP_CMP_EQ", "value": value}]},
            {"names": ["openat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 6,
             "args": [{"index": 0, "op": "SCMP_CMP_EQ", "value": 1}]},
        ]}))
    };
    let error = compile(&rules(0x1_0000_0001), Arch::X86_64).unwrap_err();
    assert!(matches!(error.problem(), Problem::Contradiction { arch: Arch::X86, .. }), "{error}");
    assert!(compile(&rules(0x1_0000_0002), Arch::X86_64).is_ok());
}

#[test]
fn equal_rules_count_once() {
    let rule = json!({"names": ["openat"], "action": "SCMP_ACT_ERRNO",
        "args": [{"index": 0, "op": "SCMP_CMP_EQ", "value": 1}]});
    let of = |count: usize| {
        compile(
            &profile(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": vec![rule.clone(); count]})),
            Arch::X86_64,
        )
        .unwrap()
    };
    assert_eq!(of(1), of(5000));
}

#[test]
fn flags_follow_the_profile_and_the_rules() {
    let flags = |flags: Value, action: &str| {
        let program = compile(
            &profile(json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": flags, "listenerPath": "/agent",
                "syscalls": [{"names": ["mkdir"], "action": action}]})),
            Arch::X86_64,
        )
        .unwrap();
        (program.flags, program.listener.is_some(), program.warnings.len())
    };
    assert_eq!(flags(json!(null), "SCMP_ACT_LOG"), (4, false, 0));
    assert_eq!(flags(json!([]), "SCMP_ACT_LOG"), (0, false, 0));
    assert_eq!(
        flags(json!(["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC"]), "SCMP_ACT_LOG"),
        (2, false, 0)
    );
    assert_eq!(flags(json!(null), "SCMP_ACT_NOTIFY"), (4 | 8, true, 0));
    assert_eq!(flags(json!(["SECCOMP_FILTER_FLAG_TSYNC"]), "SCMP_ACT_NOTIFY"), (8, true, 0));
    let wait = json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]);
    assert_eq!(flags(wait.clone(), "SCMP_ACT_NOTIFY"), (8 | 32, true, 0));
    assert_eq!(flags(wait, "SCMP_ACT_LOG"), (0, false, 1));
}

#[test]
fn what_is_left_out_is_warned_about() {
    let program = compile(
        &profile(
            json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_ARM"], "comment": "x",
            "syscalls": [{"names": ["read", "no_such_call"], "action": "SCMP_ACT_LOG"}]}),
        ),
        Arch::X86_64,
    )
    .unwrap();
    assert_eq!(
        program.warnings,
        [
            "comment: not a property of the spec; ignored",
            "architectures[0]: a kernel for SCMP_ARCH_X86_64 never runs SCMP_ARCH_ARM; left out",
            "syscalls[0].names[1]: unknown system call \"no_such_call\"; left out",
        ]
    );
}

#[test]
fn a_filter_beyond_the_kernels_limit_is_refused_with_its_length() {
    let rules: Vec<Value> = (0..2000)
        .map(|value| {
            json!({"names": ["dup"], "action": "SCMP_ACT_ALLOW", "args": [
                {"index": 0, "op": "SCMP_CMP_EQ", "value": value}, {"index": 1, "op": "SCMP_CMP_EQ", "value": value}]})
        })
        .collect();
    let message =
        compile(&profile(json!({"defaultAction": "SCMP_ACT_KILL", "syscalls": rules})), Arch::X86_64)
            .unwrap_err()
            .to_string();
    assert!(
        message.starts_with("syscalls: the filter needs ") && message.contains("at most 4096"),
        "{message}"
    );
}

#[test]
fn lists_of_values_share_their_loads() {
    let rules: Vec<Value> = (0..1000)
        .map(|value| {
            json!({"names": ["dup"], "action": "SCMP_ACT_ALLOW",
                   "args": [{"index": 0, "op": "SCMP_CMP_EQ", "value": value * 3}]})
        })
        .collect();
    let profile = profile(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules}));
    assert!(compile(&profile, Arch::X86_64).unwrap().instructions.len() < 1100);
    for value in 0..3010 {
        let expected = if value % 3 == 0 && value < 3000 { ret::ALLOW } else { EPERM };
        assert_eq!(on_x86_64(&profile, "dup", value), expected, "{value}");
    }
}

/// Names that cover plain calls, multiplexed ones, private ones, unknown ones, and ones that few have.
fn any_name() -> impl Strategy<Value = &'static str> {
    let special = prop::sample::select(vec![
        "socket",
        "recv",
        "semop",
        "shmat",
        "socketcall",
        "set_tls",
        "nonsense",
        "dup",
    ]);
    let all: Vec<&'static str> = Syscall::all().map(Syscall::name).collect();
    prop_oneof![special, prop::sample::select(all)]
}

fn any_value() -> impl Strategy<Value = u64> {
    prop_oneof![
        0_u64..4,
        Just(u64::MAX),
        Just(0xffff_ffff),
        (0_u64..3).prop_map(|v| v << 32 | 1),
        any::<u64>()
    ]
}

fn any_rule() -> impl Strategy<Value = Value> {
    let operators = prop::sample::select(crate::Operator::ALL.to_vec());
    let condition = (0_u32..6, operators, any_value(), any_value()).prop_map(|(index, op, value, two)| {
        json!({"index": index, "op": op.spec_name(), "value": value, "valueTwo": two})
    });
    let actions = prop::sample::select(crate::Action::ALL.to_vec());
    let args = prop_oneof![2 => Just(Vec::new()), 3 => prop::collection::vec(condition, 0..4)];
    (prop::collection::vec(any_name(), 1..12), actions, args).prop_map(|(names, action, args)| {
        let names: Vec<_> = names.into_iter().filter(|name| *name != "write").collect();
        let names = if names.is_empty() { vec!["read"] } else { names };
        json!({"names": names, "action": action.spec_name(), "args": args})
    })
}

fn any_profile() -> impl Strategy<Value = Profile> {
    let defaults =
        prop::sample::select(vec!["SCMP_ACT_KILL", "SCMP_ACT_ERRNO", "SCMP_ACT_ALLOW", "SCMP_ACT_TRACE"]);
    let archs = prop::collection::vec(prop::sample::select(Arch::ALL.to_vec()), 0..4);
    (defaults, archs, prop::collection::vec(any_rule(), 0..30)).prop_map(|(default, archs, rules)| {
        profile(json!({"defaultAction": default, "architectures": archs, "listenerPath": "/agent", "syscalls": rules}))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn programs_answer_what_the_rules_say(
        profile in any_profile(),
        native in prop::sample::select(Arch::ALL.to_vec()),
        probes in prop::collection::vec((any_name(), any::<u32>(), prop::array::uniform6(any_value())), 40),
    ) {
        let Ok(program) = compile(&profile, native) else { return Ok(()) };
        prop_assert_eq!(interp::verify(&program.instructions), Ok(()));
        let simulator = Simulator::new(&profile, native).unwrap();
        for arch in Arch::ALL.into_iter().filter(|arch| arch.shares_kernel_with(native)) {
            for (name, random, args) in &probes {
                let known = Syscall::by_name(name).and_then(|call| call.number(arch));
                for nr in known.into_iter().flat_map(|nr| [nr, nr + 1, nr.wrapping_sub(1)]).chain([*random, 0, u32::MAX]) {
                    let data = SeccompData { nr, arch: arch.audit_token(), instruction_pointer: 0, args: *args };
                    let ran = interp::run(&program.instructions, &data, native.endian()).unwrap();
                    let query = Query::new(arch, &nr.to_string(), args).unwrap();
                    let told = simulator.ask(&query).unwrap();
                    let (expected, reason) = simulator.explain(told.arch, nr, args);
                    prop_assert_eq!(ran.ret, expected, "{} {} {:?}: {:?}", arch, nr, args, reason);
                    if ran.ret == ret::ALLOW && !simulator.is_conditional(told.arch, nr) {
                        prop_assert!(told.cached, "{arch} {nr}: not in the kernel's allow bitmap");
                    }
                }
            }
        }
    }
}
