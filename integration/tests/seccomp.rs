//! `linux.seccomp` in a real kernel: each action as the container's process sees it, when the filter is loaded and
//! by whom, and agents that get a listener.

use std::process::ExitCode;

use coracle_integration::bundle::set_capabilities;
use coracle_integration::seccomp::{MKDIR, ask, needs_the_32_bit_gate, on_mkdir, profile, rule};
use coracle_integration::{Checked, Finished, Runtime, Skip, host, tests};
use serde_json::{Value, json};

fn main() -> ExitCode {
    coracle_integration::run_tests(tests![
        errno_fails_the_call_with_its_number,
        errno_without_a_number_is_eperm,
        kill_process_ends_the_container_with_sigsys,
        kill_ends_the_only_thread_with_sigsys,
        kill_thread_leaves_the_other_threads,
        trap_sends_a_signal_that_can_be_handled,
        trap_without_a_handler_ends_the_process,
        log_executes_the_call,
        trace_without_a_tracer_is_enosys,
        trace_tells_a_tracer_the_number,
        a_rule_of_allow_overrides_the_default,
        conditions_decide_by_arguments,
        conditions_on_one_argument_are_alternatives,
        conditions_compare_64_bits,
        calls_by_the_32_bit_gate_are_filtered,
        an_architecture_that_is_not_listed_is_killed,
        calls_newer_than_the_profile_are_enosys,
        an_explicit_rule_for_a_newer_call_wins,
        unknown_names_are_skipped,
        a_section_that_says_nothing_is_no_filter,
        the_filter_is_loaded_with_no_new_privileges,
        the_filter_is_loaded_without_no_new_privileges,
        the_filter_is_loaded_for_a_user_without_capabilities,
        a_created_container_gets_the_filter_at_start,
        an_exec_gets_the_filter_too,
        flags_of_the_profile_are_taken,
        the_log_tells_the_sum_of_the_flags,
        a_wrong_profile_is_told_with_its_place,
    ])
}

/// What a small static program calls, and what a runtime calls between loading the filter and executing it.
const BASIC: [&str; 56] = [
    "arch_prctl",
    "brk",
    "capget",
    "capset",
    "clock_nanosleep",
    "clone",
    "close",
    "close_range",
    "dup2",
    "epoll_create1",
    "epoll_ctl",
    "epoll_pwait",
    "eventfd2",
    "execve",
    "exit",
    "exit_group",
    "faccessat",
    "fcntl",
    "fstat",
    "fstatfs",
    "futex",
    "getdents64",
    "getpid",
    "getppid",
    "getrandom",
    "gettid",
    "ioctl",
    "lseek",
    "madvise",
    "mincore",
    "mmap",
    "mprotect",
    "munmap",
    "nanosleep",
    "newfstatat",
    "openat",
    "pipe2",
    "prctl",
    "prlimit64",
    "read",
    "readlink",
    "readlinkat",
    "rseq",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "sched_getaffinity",
    "sched_yield",
    "set_robust_list",
    "set_tid_address",
    "sigaltstack",
    "statx",
    "tgkill",
    "uname",
    "unlinkat",
    "write",
];

/// The numbers of calls on this architecture.
const MKDIRAT: &str = if cfg!(target_arch = "x86_64") { "258" } else { "34" };
const PERSONALITY: &str = if cfg!(target_arch = "x86_64") { "135" } else { "92" };

/// mkdirat(AT_FDCWD, NULL, 0), which fails with EFAULT where it is executed.
const CALL: [&str; 3] = ["call", MKDIRAT, "-100"];
const EFAULT: &str = "errno 14";

fn errno_fails_the_call_with_its_number(rt: &Runtime) {
    let ran = rt.sh("mkdir /new; echo $?; ls -d /new", |config| {
        let mut denied = rule(&MKDIR, "SCMP_ACT_ERRNO");
        denied["errnoRet"] = json!(28);
        config["linux"]["seccomp"] = profile("SCMP_ACT_ALLOW", &[denied]);
    });
    assert_eq!(ran.out(), "1");
    assert!(ran.stderr.contains("No space left on device"), "28 is ENOSPC: {ran}");
}

fn errno_without_a_number_is_eperm(rt: &Runtime) -> Checked {
    assert_eq!(ask(rt, &CALL, on_mkdir("SCMP_ACT_ERRNO"))?.ok().out(), "errno 1");
    Ok(())
}

fn kill_process_ends_the_container_with_sigsys(rt: &Runtime) -> Checked {
    ask(rt, &CALL, on_mkdir("SCMP_ACT_KILL_PROCESS"))?.exits(128 + 31);
    ask(rt, &["thread", MKDIRAT], on_mkdir("SCMP_ACT_KILL_PROCESS"))?.exits(128 + 31);
    Ok(())
}

fn kill_ends_the_only_thread_with_sigsys(rt: &Runtime) -> Checked {
    ask(rt, &CALL, on_mkdir("SCMP_ACT_KILL"))?.exits(128 + 31);
    ask(rt, &CALL, on_mkdir("SCMP_ACT_KILL_THREAD"))?.exits(128 + 31);
    Ok(())
}

fn kill_thread_leaves_the_other_threads(rt: &Runtime) -> Checked {
    for action in ["SCMP_ACT_KILL", "SCMP_ACT_KILL_THREAD"] {
        let ran = ask(rt, &["thread", MKDIRAT], on_mkdir(action))?.ok();
        assert_eq!(ran.out(), "the first thread lives");
    }
    Ok(())
}

fn trap_sends_a_signal_that_can_be_handled(rt: &Runtime) -> Checked {
    let ran = ask(rt, &["trap", MKDIRAT], on_mkdir("SCMP_ACT_TRAP"))?.ok();
    assert_eq!(ran.out(), format!("signal 31 code 1 call {MKDIRAT} data 0"));
    Ok(())
}

fn trap_without_a_handler_ends_the_process(rt: &Runtime) -> Checked {
    ask(rt, &CALL, on_mkdir("SCMP_ACT_TRAP"))?.exits(128 + 31);
    Ok(())
}

fn log_executes_the_call(rt: &Runtime) {
    let ran = rt.sh("mkdir /new && ls -d /new", |config| {
        config["linux"]["seccomp"] = on_mkdir("SCMP_ACT_LOG");
    });
    assert_eq!(ran.ok().out(), "/new");
}

fn trace_without_a_tracer_is_enosys(rt: &Runtime) -> Checked {
    assert_eq!(ask(rt, &CALL, on_mkdir("SCMP_ACT_TRACE"))?.ok().out(), "errno 38");
    Ok(())
}

fn trace_tells_a_tracer_the_number(rt: &Runtime) -> Checked {
    let mut traced = rule(&MKDIR, "SCMP_ACT_TRACE");
    traced["errnoRet"] = json!(1234);
    let ran = ask(rt, &["trace", MKDIRAT], profile("SCMP_ACT_ALLOW", &[traced]))?.ok();
    assert_eq!(ran.out(), "told 1234, then errno 14", "and the call is executed");
    Ok(())
}

fn a_rule_of_allow_overrides_the_default(rt: &Runtime) -> Checked {
    let allowed = |names: &[&str]| {
        profile("SCMP_ACT_ERRNO", &[rule(&BASIC, "SCMP_ACT_ALLOW"), rule(names, "SCMP_ACT_ALLOW")])
    };
    assert_eq!(ask(rt, &CALL, allowed(&["mkdirat"]))?.ok().out(), EFAULT);
    assert_eq!(ask(rt, &CALL, allowed(&["rmdir"]))?.ok().out(), "errno 1");
    Ok(())
}

/// The default is to allow, but for `personality` under these conditions.
fn personality_denied(args: &Value) -> Value {
    profile(
        "SCMP_ACT_ALLOW",
        &[json!({ "names": ["personality"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95, "args": args })],
    )
}

fn personality(rt: &Runtime, argument: &str, args: &Value) -> Result<bool, Skip> {
    let ran = ask(rt, &["call", PERSONALITY, argument], personality_denied(args))?.ok();
    Ok(ran.out() == "errno 95")
}

fn conditions_decide_by_arguments(rt: &Runtime) -> Checked {
    // Operator, value, valueTwo, an argument that it holds for, one that it doesn't.
    for (op, value, two, yes, no) in [
        ("SCMP_CMP_EQ", 8, 0, "8", "0"),
        ("SCMP_CMP_NE", 8, 0, "0", "8"),
        ("SCMP_CMP_LT", 8, 0, "0", "8"),
        ("SCMP_CMP_LE", 8, 0, "8", "0x20008"),
        ("SCMP_CMP_GT", 8, 0, "0x20000", "8"),
        ("SCMP_CMP_GE", 8, 0, "8", "0"),
        ("SCMP_CMP_MASKED_EQ", 0x2_0008, 0x2_0000, "0x20000", "0x20008"),
    ] {
        let args = || json!([{ "index": 0, "value": value, "valueTwo": two, "op": op }]);
        assert!(personality(rt, yes, &args())?, "{op} {value} holds for {yes}");
        assert!(!personality(rt, no, &args())?, "{op} {value} does not hold for {no}");
    }
    Ok(())
}

fn conditions_on_one_argument_are_alternatives(rt: &Runtime) -> Checked {
    let args = || json!([{ "index": 0, "value": 0, "op": "SCMP_CMP_EQ" }, { "index": 0, "value": 8, "op": "SCMP_CMP_EQ" }]);
    assert!(personality(rt, "0", &args())? && personality(rt, "8", &args())?);
    assert!(!personality(rt, "0x20000", &args())?);
    Ok(())
}

fn conditions_compare_64_bits(rt: &Runtime) -> Checked {
    let args = || json!([{ "index": 0, "value": 0x1_0000_0008_u64, "op": "SCMP_CMP_EQ" }]);
    assert!(personality(rt, "0x100000008", &args())?);
    assert!(!personality(rt, "8", &args())?);
    Ok(())
}

/// mkdir(NULL) by the 32-bit gate: its number is another.
const CALL_32: [&str; 2] = ["int80", "39"];

fn with_32_bits(mut filter: Value) -> Value {
    filter["architectures"] = json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]);
    filter
}

fn calls_by_the_32_bit_gate_are_filtered(rt: &Runtime) -> Checked {
    needs_the_32_bit_gate(rt)?;
    assert_eq!(ask(rt, &CALL_32, with_32_bits(on_mkdir("SCMP_ACT_ERRNO")))?.ok().out(), "errno 1");
    assert_eq!(ask(rt, &CALL_32, with_32_bits(on_mkdir("SCMP_ACT_ALLOW")))?.ok().out(), EFAULT);
    ask(rt, &CALL_32, with_32_bits(on_mkdir("SCMP_ACT_KILL_PROCESS")))?.exits(128 + 31);
    // socketcall(SYS_SOCKET): 102 is socketcall, 1 is its number for socket.
    let socket = || with_32_bits(profile("SCMP_ACT_ALLOW", &[rule(&["socket"], "SCMP_ACT_ERRNO")]));
    assert_eq!(ask(rt, &["int80", "102", "1"], socket())?.ok().out(), "errno 1");
    assert_eq!(ask(rt, &["int80", "359", "1", "1"], socket())?.ok().out(), "errno 1");
    Ok(())
}

fn an_architecture_that_is_not_listed_is_killed(rt: &Runtime) -> Checked {
    needs_the_32_bit_gate(rt)?;
    ask(rt, &CALL_32, native_only(on_mkdir("SCMP_ACT_ALLOW")))?.exits(128 + 31);
    Ok(())
}

/// The numbers of pidfd_getfd, faccessat2 and of one that nobody has; the newest in [`BASIC`] is close_range, 436.
const PIDFD_GETFD: &str = "438";
const FACCESSAT2: &str = "439";
const NOBODYS: &str = "9999";

/// Lists the native architecture: runc answers ENOSYS for those only that are listed.
fn native_only(mut filter: Value) -> Value {
    let native = if cfg!(target_arch = "x86_64") { "SCMP_ARCH_X86_64" } else { "SCMP_ARCH_AARCH64" };
    filter["architectures"] = json!([native]);
    filter
}

fn calls_newer_than_the_profile_are_enosys(rt: &Runtime) -> Checked {
    let filter = || native_only(profile("SCMP_ACT_ERRNO", &[rule(&BASIC, "SCMP_ACT_ALLOW")]));
    for newer in [PIDFD_GETFD, FACCESSAT2, NOBODYS] {
        assert_eq!(ask(rt, &["call", newer], filter())?.ok().out(), "errno 38", "{newer}");
    }
    assert_eq!(ask(rt, &CALL, filter())?.ok().out(), "errno 1", "an old call is denied as the profile says");
    Ok(())
}

fn an_explicit_rule_for_a_newer_call_wins(rt: &Runtime) -> Checked {
    let filter = || {
        let mut denied = rule(&["faccessat2"], "SCMP_ACT_ERRNO");
        denied["errnoRet"] = json!(13);
        native_only(profile("SCMP_ACT_ERRNO", &[rule(&BASIC, "SCMP_ACT_ALLOW"), denied]))
    };
    assert_eq!(ask(rt, &["call", FACCESSAT2], filter())?.ok().out(), "errno 13");
    assert_eq!(ask(rt, &["call", PIDFD_GETFD], filter())?.ok().out(), "errno 1", "no longer newer");
    assert_eq!(ask(rt, &["call", NOBODYS], filter())?.ok().out(), "errno 38");
    Ok(())
}

fn unknown_names_are_skipped(rt: &Runtime) {
    let ran = rt.sh("mkdir /new; echo $?", |config| {
        config["linux"]["seccomp"] =
            profile("SCMP_ACT_ALLOW", &[rule(&["no_such_call", "mkdir", "mkdirat"], "SCMP_ACT_ERRNO")]);
    });
    assert_eq!(ran.ok().out(), "1");
}

fn a_section_that_says_nothing_is_no_filter(rt: &Runtime) {
    let ran = rt.sh("grep ^Seccomp: /proc/self/status", |config| config["linux"]["seccomp"] = json!({})).ok();
    assert_eq!(ran.out().split_whitespace().last(), Some("0"));
}

const STATUS: &str =
    "grep -E '^(Seccomp|NoNewPrivs|CapEff):' /proc/self/status | tr -d '\\t'; mkdir /tmp/new; echo $?";

/// What [`STATUS`] prints, in the order of the file.
fn status(ran: Finished) -> Vec<String> {
    ran.ok().lines().into_iter().map(str::to_owned).collect()
}

fn the_filter_is_loaded_with_no_new_privileges(rt: &Runtime) {
    let ran = rt.sh(STATUS, |config| {
        set_capabilities(config, &["bounding", "effective", "permitted"], &["CAP_KILL"]);
        config["linux"]["seccomp"] = on_mkdir("SCMP_ACT_ERRNO");
    });
    assert_eq!(status(ran), ["CapEff:0000000000000020", "NoNewPrivs:1", "Seccomp:2", "1"]);
}

fn the_filter_is_loaded_without_no_new_privileges(rt: &Runtime) {
    let ran = rt.sh(STATUS, |config| {
        set_capabilities(config, &["bounding", "effective", "permitted"], &["CAP_KILL"]);
        config["process"]["noNewPrivileges"] = json!(false);
        config["linux"]["seccomp"] = on_mkdir("SCMP_ACT_ERRNO");
    });
    assert_eq!(status(ran), ["CapEff:0000000000000020", "NoNewPrivs:0", "Seccomp:2", "1"]);
}

fn the_filter_is_loaded_for_a_user_without_capabilities(rt: &Runtime) {
    for privileges in [true, false] {
        let ran = rt.sh(&format!("id -u; {STATUS}"), |config| {
            set_capabilities(config, &["bounding", "effective", "permitted"], &[]);
            config["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
            config["process"]["noNewPrivileges"] = json!(privileges);
            config["linux"]["seccomp"] = on_mkdir("SCMP_ACT_ERRNO");
        });
        let privileges = format!("NoNewPrivs:{}", i32::from(privileges));
        assert_eq!(status(ran), ["1000", "CapEff:0000000000000000", &privileges, "Seccomp:2", "1"]);
    }
}

fn a_created_container_gets_the_filter_at_start(rt: &Runtime) {
    let bundle = rt.script(&format!("{STATUS}; sleep 1000")).edit(|config| {
        config["linux"]["seccomp"] = on_mkdir("SCMP_ACT_ERRNO");
    });
    let c = rt.container(&bundle);
    c.up();
    c.wait_for_output("Operation not permitted");
    assert_eq!(host::status_field(&c.proc("status"), "Seccomp"), Some("2"));
}

fn an_exec_gets_the_filter_too(rt: &Runtime) {
    let bundle = rt.sleeper().edit(|config| config["linux"]["seccomp"] = on_mkdir("SCMP_ACT_ERRNO"));
    let c = rt.container(&bundle);
    c.up();
    let seen = status(c.exec(&["sh", "-c", STATUS]));
    assert_eq!(seen.last().map(String::as_str), Some("1"));
    assert!(seen.contains(&"Seccomp:2".to_owned()), "{seen:?}");
    let seen = status(c.exec_with(&["--user", "1000:1000"], &["sh", "-c", STATUS]));
    assert_eq!(seen.last().map(String::as_str), Some("1"));
}

fn flags_of_the_profile_are_taken(rt: &Runtime) -> Checked {
    rt.coracle_only("runc before 1.2 has no flags")?;
    let with_flags = |flags: Value| {
        rt.sh("mkdir /new || echo denied", |config| {
            let mut filter = on_mkdir("SCMP_ACT_ERRNO");
            filter["flags"] = flags;
            config["linux"]["seccomp"] = filter;
        })
    };
    for flags in [
        json!([]),
        json!(["SECCOMP_FILTER_FLAG_LOG"]),
        json!(["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"]),
    ] {
        assert!(with_flags(flags).ok().out() == "denied");
    }
    with_flags(json!(["SECCOMP_FILTER_FLAG_SOON"])).fails_with("SECCOMP_FILTER_FLAG_SOON");
    rt.assert_clean();
    Ok(())
}

fn the_log_tells_the_sum_of_the_flags(rt: &Runtime) -> Checked {
    rt.coracle_only("runc before 1.2 has no flags")?;
    let (log, tsync, spec_allow) =
        ("SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_SPEC_ALLOW");
    // As runc counts: TSYNC is for filters of more threads than one, and never asked for.
    for (flags, sum) in [
        (json!(null), 4),
        (json!([]), 0),
        (json!([tsync]), 0),
        (json!([log, tsync]), 2),
        (json!([log, tsync, spec_allow]), 6),
    ] {
        let bundle = rt.script("true").edit(|config| {
            let mut filter = on_mkdir("SCMP_ACT_ERRNO");
            if !flags.is_null() {
                filter["flags"] = flags.clone();
            }
            config["linux"]["seccomp"] = filter;
        });
        let c = rt.container(&bundle);
        let path = bundle.path().to_string_lossy();
        let ran = rt.call(&["--debug", "run", "--bundle", &path, &c.id]).ok();
        let told = format!("seccomp filter flags: {sum}\"");
        assert!(ran.stderr.contains(&told), "{flags} should be {sum}: {ran}");
    }
    Ok(())
}

fn a_wrong_profile_is_told_with_its_place(rt: &Runtime) -> Checked {
    rt.coracle_only("runc names the value at most")?;
    for (filter, place, problem) in [
        (json!({ "defaultAction": "SCMP_ACT_PERHAPS" }), "linux.seccomp.defaultAction", "SCMP_ACT_PERHAPS"),
        (
            json!({ "syscalls": [rule(&["read"], "SCMP_ACT_ALLOW")] }),
            "linux.seccomp.defaultAction",
            "missing",
        ),
        (
            profile("SCMP_ACT_ALLOW", &[json!({ "names": [], "action": "SCMP_ACT_ERRNO" })]),
            "linux.seccomp.syscalls[0].names",
            "at least one",
        ),
        (
            personality_denied(&json!([{ "index": 6, "value": 0, "op": "SCMP_CMP_EQ" }])),
            "linux.seccomp.syscalls[0].args[0].index",
            "0 to 5",
        ),
    ] {
        let ran = rt.sh("true", |config| config["linux"]["seccomp"] = filter).fails_with(place);
        assert!(ran.stderr.contains(problem), "{problem}: {ran}");
        rt.assert_clean();
    }
    Ok(())
}
