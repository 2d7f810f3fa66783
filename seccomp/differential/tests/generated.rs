// SPDX-License-Identifier: Apache-2.0
//! Generated profiles, compiled by both, asked about named and random numbers with arguments on and beside the
//! values that they name.

use coracle_seccomp::{
    Action, Arch, Condition, Operator, Problem, Profile, Rule, SeccompData, Syscall, compile, interp,
};
use coracle_seccomp_differential::{Answer, Model, Optimize, Relation, Worker, arch, compare, is_common};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use std::cell::{Cell, RefCell};

/// Calls that both sides know and that every architecture beside `native` has. libseccomp 2.5 forgets to load the
/// number when the call that it sorts first is one that the architecture lacks; what we make of such profiles is
/// held against the rules alone, further below.
fn common_names(native: Arch) -> Vec<&'static str> {
    let family: Vec<Arch> = Arch::ALL
        .into_iter()
        .filter(|other| other.shares_kernel_with(native) && arch(*other).is_some())
        .collect();
    let everywhere = |call: &Syscall| family.iter().all(|arch| call.number(*arch).is_some());
    Syscall::all()
        .filter(|call| is_common(*call) && everywhere(call))
        .map(Syscall::name)
        .collect()
}

fn all_names(_: Arch) -> Vec<&'static str> {
    Syscall::all().map(Syscall::name).collect()
}

fn any_value() -> impl Strategy<Value = u64> {
    prop_oneof![
        0_u64..5,
        Just(u64::MAX),
        Just(0xffff_ffff),
        Just(1 << 32),
        (0_u64..3, 0_u64..3).prop_map(|(high, low)| high << 32 | low),
        any::<u64>()
    ]
}

fn any_condition() -> impl Strategy<Value = Condition> {
    (
        0_u32..6,
        prop::sample::select(Operator::ALL.to_vec()),
        any_value(),
        any_value(),
    )
        .prop_map(|(index, op, value, value_two)| Condition {
            index,
            value,
            value_two,
            op,
        })
}

/// Rules over few names, so that rules meet; `actions` limits how many different answers they give.
fn any_rules(
    names: Vec<&'static str>,
    actions: Vec<(Action, Option<u32>)>,
) -> impl Strategy<Value = Vec<Rule>> {
    let few = prop::sample::subsequence(names, 12);
    few.prop_flat_map(move |few| {
        let args = prop_oneof![2 => Just(Vec::new()), 3 => prop::collection::vec(any_condition(), 1..4)];
        let rule = (
            prop::sample::subsequence(few, 1..5),
            prop::sample::select(actions.clone()),
            args,
        );
        let rule = rule.prop_map(|(names, (action, errno_ret), args)| {
            let mut rule = Rule::new(action, names.into_iter().filter(|name| *name != "write"));
            if rule.names.is_empty() {
                rule.names.push("read".into());
            }
            Rule {
                errno_ret,
                args,
                ..rule
            }
        });
        prop::collection::vec(rule, 0..16)
    })
}

fn any_profile(
    names: fn(Arch) -> Vec<&'static str>,
    actions: Vec<(Action, Option<u32>)>,
) -> impl Strategy<Value = (Profile, Arch)> {
    let natives: Vec<Arch> = Arch::ALL
        .into_iter()
        .filter(|native| arch(*native).is_some() && *native != Arch::X32)
        .collect();
    let defaults = vec![
        (Action::Errno, Some(1)),
        (Action::Errno, Some(38)),
        (Action::KillProcess, None),
        (Action::Allow, None),
        (Action::Trap, None),
    ];
    prop::sample::select(natives).prop_flat_map(move |native| {
        let rules = any_rules(names(native), actions.clone());
        (prop::sample::select(defaults.clone()), rules, any::<u8>()).prop_map(
            move |((default, errno), rules, more)| {
                let mut profile = Profile::new(default);
                profile.default_errno_ret = errno;
                let family = Arch::ALL
                    .into_iter()
                    .filter(|other| other.shares_kernel_with(native) && arch(*other).is_some());
                profile.architectures = family
                    .enumerate()
                    .filter(|(bit, _)| more >> bit & 1 != 0)
                    .map(|(_, other)| other)
                    .collect();
                profile.listener_path = Some("/agent".into());
                profile.syscalls = rules;
                (profile, native)
            },
        )
    })
}

#[derive(Default)]
struct Tally {
    profiles: Cell<u64>,
    both_refuse: Cell<u64>,
    only_they_refuse: Cell<u64>,
    only_we_refuse: Cell<u64>,
    endless: Cell<u64>,
    same: Cell<u64>,
    enosys: Cell<u64>,
    overlap: Cell<u64>,
    stale: Cell<u64>,
}

fn add(counter: &Cell<u64>, amount: u64) {
    counter.set(counter.get() + amount);
}

/// Compares one profile.
fn ask(worker: &mut Worker, profile: &Profile, native: Arch, tally: &Tally) -> Result<(), TestCaseError> {
    add(&tally.profiles, 1);
    let ours = compile(profile, native);
    let optimize = if tally.profiles.get() % 2 == 0 && !profile.syscalls.is_empty() {
        Optimize::Tree
    } else {
        Optimize::Chain
    };
    let theirs = worker.compile(profile, native, optimize);
    let (ours, theirs) = match (ours, theirs) {
        (_, Answer::Endless) => return Ok(add(&tally.endless, 1)),
        (Ok(ours), Answer::Filter(theirs)) => (ours.instructions, theirs),
        (Err(_), Answer::Refused) => return Ok(add(&tally.both_refuse, 1)),
        (Ok(_), Answer::Refused) => return Ok(add(&tally.only_they_refuse, 1)),
        // Rules that contradict each other, of which libseccomp notices some only by the way.
        (Err(error), Answer::Filter(_)) if matches!(error.problem(), Problem::Contradiction { .. }) => {
            return Ok(add(&tally.only_we_refuse, 1));
        }
        (Err(error), Answer::Filter(_)) => {
            return Err(TestCaseError::fail(format!("only we refuse: {error}")));
        }
    };
    prop_assert_eq!(interp::verify(&ours), Ok(()));
    let model = Model::new(profile, native);
    probe(profile, native, |call| {
        let relation = compare(&model, native, (&ours, &theirs), call);
        let counter = match relation {
            Relation::Same => &tally.same,
            Relation::Enosys => &tally.enosys,
            Relation::Overlap => &tally.overlap,
            Relation::Stale => &tally.stale,
            Relation::Wrong { .. } => {
                return Err(TestCaseError::fail(format!(
                    "{native}, {optimize:?}: {call:x?}: {relation:x?}"
                )));
            }
        };
        Ok(add(counter, 1))
    })
}

/// Calls `ask` with named and random numbers, and arguments on and beside the values that the profile names.
fn probe(
    profile: &Profile,
    native: Arch,
    mut ask: impl FnMut((Arch, u32, [u64; 6])) -> Result<(), TestCaseError>,
) -> Result<(), TestCaseError> {
    let mut values = vec![0_u64, 1, u64::MAX];
    for arg in profile.syscalls.iter().flat_map(|rule| &rule.args) {
        for value in [
            arg.value,
            arg.value_two,
            arg.value & arg.value_two,
            arg.value_two | !arg.value,
        ] {
            values.extend([
                value,
                value.wrapping_sub(1),
                value.wrapping_add(1),
                value ^ 1 << 32,
            ]);
        }
    }
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        state ^ state >> 29
    };
    for arch in Arch::ALL
        .into_iter()
        .filter(|other| other.shares_kernel_with(native))
    {
        let mut numbers = vec![
            0,
            1,
            102,
            117,
            500,
            coracle_seccomp::X32_BIT,
            0x8000_0001,
            u32::MAX,
            random() as u32,
        ];
        for name in profile.syscalls.iter().flat_map(|rule| &rule.names) {
            if let Some(number) = Syscall::by_name(name).and_then(|call| call.number(arch)) {
                numbers.extend([number.wrapping_sub(1), number, number + 1]);
            }
        }
        numbers.sort_unstable();
        numbers.dedup();
        for nr in numbers {
            for _ in 0..24 {
                let args = std::array::from_fn(|index| {
                    let choice = random();
                    // Selectors of socketcall(2) and ipc(2) get their share.
                    if index == 0 && choice % 4 == 0 {
                        choice >> 8 & 31
                    } else {
                        values[(choice >> 8) as usize % values.len()]
                    }
                });
                ask((arch, nr, args))?;
            }
        }
    }
    Ok(())
}

fn cases() -> u32 {
    std::env::var("CORACLE_DIFFERENTIAL_CASES")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(2000)
}

fn runner() -> TestRunner {
    TestRunner::new(ProptestConfig {
        cases: cases(),
        failure_persistence: None,
        max_shrink_time: 20_000,
        ..ProptestConfig::default()
    })
}

fn run(actions: Vec<(Action, Option<u32>)>) -> Tally {
    let tally = Tally::default();
    let worker = RefCell::new(Worker::new(env!("CARGO_BIN_EXE_by-libseccomp")));
    let result = runner().run(&any_profile(common_names, actions), |(profile, native)| {
        ask(&mut worker.borrow_mut(), &profile, native, &tally)
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    println!(
        "{} profiles ({} refused by both, {} by libseccomp only, {} by us only, {} on which libseccomp \
         does not end); {} verdicts the same, {} ENOSYS for newer \
         calls, {} where rules with different answers overlap, {} where libseccomp compares a stale argument",
        tally.profiles.get(),
        tally.both_refuse.get(),
        tally.only_they_refuse.get(),
        tally.only_we_refuse.get(),
        tally.endless.get(),
        tally.same.get(),
        tally.enosys.get(),
        tally.overlap.get(),
        tally.stale.get()
    );
    tally
}

#[test]
fn profiles_with_one_answer_besides_the_default_get_the_same_verdicts() {
    let tally = run(vec![(Action::Log, None)]);
    assert_eq!(tally.overlap.get(), 0, "one answer cannot overlap with another");
    assert_eq!(
        tally.both_refuse.get() + tally.only_we_refuse.get(),
        0,
        "one answer cannot contradict another"
    );
}

fn many_answers() -> Vec<(Action, Option<u32>)> {
    vec![
        (Action::Allow, None),
        (Action::Log, None),
        (Action::Errno, Some(13)),
        (Action::KillThread, None),
        (Action::Notify, None),
    ]
}

#[test]
fn profiles_with_many_answers_get_the_same_verdicts() {
    run(many_answers());
}

#[test]
fn profiles_of_any_calls_get_what_the_rules_say() {
    let asked = Cell::new(0);
    let result = runner().run(&any_profile(all_names, many_answers()), |(profile, native)| {
        let Ok(program) = compile(&profile, native) else {
            return Ok(());
        };
        let model = Model::new(&profile, native);
        probe(&profile, native, |(arch, nr, args)| {
            let data = SeccompData {
                nr,
                arch: arch.audit_token(),
                instruction_pointer: 0,
                args,
            };
            let ran = interp::run(&program.instructions, &data, native.endian())
                .unwrap()
                .ret;
            let rules = model.ask(arch, nr, &args);
            prop_assert!(
                rules.permitted.contains(&ran),
                "{} {} {:x?}: {:#x}, rules {:x?}",
                arch,
                nr,
                args,
                ran,
                rules
            );
            Ok(add(&asked, 1))
        })
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    println!("{} verdicts as the rules say", asked.get());
}
