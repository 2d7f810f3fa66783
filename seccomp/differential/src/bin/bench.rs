// SPDX-License-Identifier: Apache-2.0
//! Compile time, size, and instructions executed, on the engines' default profile: ours against libseccomp's
//! default and its binary tree. Run with `cargo run --release --bin bench`.

use coracle_seccomp::{Arch, Profile, Query, SeccompData, Simulator, SockFilter, Syscall, compile, interp};
use coracle_seccomp_differential::{DEFAULT_CAPABILITIES, Optimize, by_libseccomp, engine_profile, expand};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// The calls that services make most often.
const COMMON: [&str; 20] = [
    "read",
    "write",
    "futex",
    "openat",
    "close",
    "newfstatat",
    "fstat",
    "mmap",
    "munmap",
    "mprotect",
    "rt_sigaction",
    "rt_sigprocmask",
    "epoll_wait",
    "epoll_pwait",
    "recvfrom",
    "sendto",
    "recvmsg",
    "sendmsg",
    "poll",
    "getpid",
];

fn main() {
    let Some(engine) = engine_profile() else {
        eprintln!(
            "no /usr/share/containers/seccomp.json: install golang-github-containers-common, or set CORACLE_SECCOMP_PROFILE"
        );
        std::process::exit(1);
    };
    let native = Arch::X86_64;
    let value = expand(&engine, native, "amd64", &DEFAULT_CAPABILITIES);
    let text = value.to_string();
    let profile = Profile::from_value(&value).expect("the default profile");

    let parse = time(400, || drop(black_box(Profile::from_json(black_box(&text)))));
    let ours_time = time(1000, || drop(black_box(compile(black_box(&profile), native))));
    let chain_time = time(60, || {
        drop(black_box(by_libseccomp(
            black_box(&profile),
            native,
            Optimize::Chain,
        )))
    });
    let tree_time = time(60, || {
        drop(black_box(by_libseccomp(
            black_box(&profile),
            native,
            Optimize::Tree,
        )))
    });

    let ours = compile(&profile, native)
        .expect("the default profile")
        .instructions;
    let chain = by_libseccomp(&profile, native, Optimize::Chain).expect("the default profile");
    let tree = by_libseccomp(&profile, native, Optimize::Tree).expect("the default profile");
    println!(
        "{:26} {:>14} {:>14} {:>14}",
        "", "coracle", "libseccomp", "libseccomp -O2"
    );
    for (index, kind) in ["median", "minimum"].into_iter().enumerate() {
        let [ours, chain, tree, parse] = [ours_time, chain_time, tree_time, parse].map(|times| times[index]);
        println!(
            "{:26} {ours:>14.1?} {chain:>14.1?} {tree:>14.1?}",
            format!("compile, {kind}")
        );
        println!("{:26} {parse:>14.1?}", format!("parse the JSON, {kind}"));
    }
    println!(
        "{:26} {:>14} {:>14} {:>14}",
        "instructions",
        ours.len(),
        chain.len(),
        tree.len()
    );
    println!("instructions executed:");
    let mut sums = [0; 3];
    for name in COMMON {
        let number = Syscall::by_name(name)
            .and_then(|call| call.number(native))
            .expect("a call of x86_64");
        let counts = [&ours, &chain, &tree].map(|program| executed(program, native, number));
        for (sum, count) in sums.iter_mut().zip(counts) {
            *sum += count;
        }
        println!(
            "  {name:24} {:>14} {:>14} {:>14}",
            counts[0], counts[1], counts[2]
        );
    }
    let average = sums.map(|sum| sum as f64 / COMMON.len() as f64);
    println!(
        "  {:24} {:>14.1} {:>14.1} {:>14.1}",
        "average", average[0], average[1], average[2]
    );

    let all: Vec<u32> = Syscall::all().filter_map(|call| call.number(native)).collect();
    let mean = |program: &Vec<SockFilter>| {
        all.iter()
            .map(|number| executed(program, native, *number))
            .sum::<usize>() as f64
            / all.len() as f64
    };
    println!(
        "  {:24} {:>14.1} {:>14.1} {:>14.1}",
        "average of all calls",
        mean(&ours),
        mean(&chain),
        mean(&tree)
    );
    let simulator = Simulator::new(&profile, native).expect("the default profile");
    let cached = COMMON.iter().filter(|name| {
        let query = Query::new(native, name, &[]).expect("a call of x86_64");
        simulator.ask(&query).is_ok_and(|answer| answer.cached)
    });
    println!(
        "{} of these {} never run the filter on Linux 5.11 and newer (allow bitmap)",
        cached.count(),
        COMMON.len()
    );
}

fn executed(program: &[SockFilter], arch: Arch, nr: u32) -> usize {
    let data = SeccompData {
        nr,
        arch: arch.audit_token(),
        ..SeccompData::default()
    };
    interp::run(program, &data, arch.endian())
        .expect("a program that ends")
        .executed
}

/// Median and minimum.
fn time(rounds: usize, mut work: impl FnMut()) -> [Duration; 2] {
    let mut times: Vec<Duration> = (0..rounds)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    [times[rounds / 2], times[0]]
}
