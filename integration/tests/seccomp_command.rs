//! `coracle seccomp` and the seccomp section of `coracle features`: profiles without a container.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use coracle_integration::command::{Running, run, run_with_input};
use coracle_integration::console::Terminal;
use coracle_integration::seccomp::{engines_default, profile, rule};
use coracle_integration::{Checked, Finished, Runtime, skip, tests};
use serde_json::{Value, json};

fn main() -> ExitCode {
    coracle_integration::run_tests(tests![
        features_tell_what_seccomp_can_do,
        a_group_of_commands_has_help,
        compile_writes_raw_instructions,
        compile_writes_a_c_array_and_a_line_for_bpf_dbg,
        compile_refuses_a_terminal,
        show_names_calls_and_answers,
        simulate_tells_verdict_and_rule,
        check_fails_when_there_is_something_to_find,
        check_knows_every_name_of_the_default_profile,
        a_profile_comes_from_a_file_a_bundle_or_standard_input,
        a_wrong_profile_is_told_with_file_and_place,
    ])
}

/// A small profile in a file.
fn small(rt: &Runtime) -> PathBuf {
    let mut filter = profile(
        "SCMP_ACT_ERRNO",
        &[
            rule(&["read", "write", "exit_group"], "SCMP_ACT_ALLOW"),
            json!({ "names": ["socket"], "action": "SCMP_ACT_KILL_PROCESS",
                    "args": [{ "index": 0, "value": 16, "op": "SCMP_CMP_EQ" }] }),
        ],
    );
    filter["architectures"] = json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]);
    write(rt, "small.json", &filter)
}

fn write(rt: &Runtime, name: &str, value: &Value) -> PathBuf {
    let path = rt.scratch(name);
    fs::write(&path, value.to_string()).expect("writing a profile");
    path
}

/// `coracle seccomp` for a kernel of x86_64, whatever this machine is.
fn seccomp(rt: &Runtime, verb: &str, words: &[&str]) -> Finished {
    run(rt.bare(["seccomp", verb, "--kernel", "SCMP_ARCH_X86_64"].iter().chain(words)))
}

fn features_tell_what_seccomp_can_do(rt: &Runtime) {
    let text = run(rt.bare(["features"])).ok().stdout;
    let features: Value = serde_json::from_str(&text).expect("it is JSON");
    let section = &features["linux"]["seccomp"];
    assert_eq!(section["enabled"], true);
    for (list, member) in [
        ("actions", "SCMP_ACT_NOTIFY"),
        ("operators", "SCMP_CMP_MASKED_EQ"),
        ("archs", "SCMP_ARCH_X86_64"),
        ("knownFlags", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"),
        ("supportedFlags", "SECCOMP_FILTER_FLAG_TSYNC"),
    ] {
        let members = section[list].as_array().unwrap_or_else(|| panic!("{list} is no list: {section}"));
        assert!(members.contains(&json!(member)), "{member} is not in {list}: {section}");
    }
}

fn a_group_of_commands_has_help(rt: &Runtime) -> Checked {
    rt.coracle_only("the command is coracle's")?;
    for words in [["seccomp", "--help"], ["help", "seccomp"]] {
        let help = run(rt.bare(words)).ok();
        for verb in ["compile", "show", "simulate", "check"] {
            assert!(help.stdout.contains(verb), "{verb}: {help}");
        }
    }
    let help = run(rt.bare(["help", "seccomp", "simulate"])).ok();
    assert!(help.stdout.contains("Usage: coracle seccomp simulate"), "{help}");
    run(rt.bare(["seccomp"])).exits(1).fails_with("requires a minimum of 1 argument");
    run(rt.bare(["seccomp", "chekc"])).exits(3).fails_with("did you mean `coracle seccomp check`?");
    Ok(())
}

fn compile_writes_raw_instructions(rt: &Runtime) -> Checked {
    rt.coracle_only("the command is coracle's")?;
    let (source, out) = (small(rt), rt.scratch("filter.bpf"));
    let [source, out] = [&source, &out].map(|path| path.to_string_lossy().into_owned());
    seccomp(rt, "compile", &["--output", &out, &source]).ok();
    let bytes = fs::read(&out).expect("it was written");
    // Whole instructions, the first of which loads the architecture: BPF_LD | BPF_W | BPF_ABS, offset 4.
    assert!(bytes.len() >= 8 * 8 && bytes.len() % 8 == 0, "{} bytes", bytes.len());
    assert_eq!(bytes[..8], [0x20, 0, 0, 0, 4, 0, 0, 0]);
    // Standard output gets the same, to the last byte.
    let piped = rt.scratch("piped.bpf");
    let mut command = rt.bare(["seccomp", "compile", "--kernel", "x86_64", &source]);
    command.stdout(fs::File::create(&piped).expect("making a file"));
    assert!(command.status().expect("it starts").success());
    assert_eq!(fs::read(&piped).expect("it was written"), bytes);
    Ok(())
}

fn compile_writes_a_c_array_and_a_line_for_bpf_dbg(rt: &Runtime) -> Checked {
    rt.coracle_only("the command is coracle's")?;
    let source = small(rt).to_string_lossy().into_owned();
    let array = seccomp(rt, "compile", &[&source, "--c-array", "my_filter"]).ok();
    let line = seccomp(rt, "compile", &[&source, "--bpf-dbg"]).ok();
    let count = line.out().split(',').count() - 1;
    assert!(
        array.out().starts_with(&format!("static const struct sock_filter my_filter[{count}] = {{")),
        "{array}"
    );
    assert_eq!(array.lines().len(), count + 2);
    assert!(line.out().starts_with(&format!("{count},32 0 0 4,")), "{line}");
    seccomp(rt, "compile", &[&source, "--c-array", "1st"]).fails_with("a name in C");
    seccomp(rt, "compile", &[&source, "--c-array", "a", "--bpf-dbg"]).fails();
    Ok(())
}

fn compile_refuses_a_terminal(rt: &Runtime) -> Checked {
    rt.coracle_only("the command is coracle's")?;
    let (mut terminal, slave) = Terminal::new();
    let source = small(rt).to_string_lossy().into_owned();
    let running = Running::start_on_terminal(rt.bare(["seccomp", "compile", &source]), &slave);
    drop(slave);
    let shown = terminal.read_to_end();
    assert_eq!(running.finish().code(), 1);
    assert!(shown.contains("not written to a terminal"), "{shown}");
    Ok(())
}

fn show_names_calls_and_answers(rt: &Runtime) -> Checked {
    rt.coracle_only("the command is coracle's")?;
    let shown = seccomp(rt, "show", &[&small(rt).to_string_lossy()]).ok();
    for part in ["instructions, flags", "SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "socket", "argument 0"] {
        assert!(shown.stdout.contains(part), "{part}: {shown}");
    }
    Ok(())
}

fn simulate_tells_verdict_and_rule(rt: &Runtime) -> Checked {
    rt.coracle_only("the command is coracle's")?;
    let source = small(rt).to_string_lossy().into_owned();
    for (words, verdict, reason) in [
        (vec!["read"], "SCMP_ACT_ALLOW", "syscalls[0]"),
        (vec!["socket", "16"], "SCMP_ACT_KILL_PROCESS", "syscalls[1] because argument 0 == 0x10"),
        (vec!["socket", "0x2"], "errno 1 (EPERM)", "defaultAction"),
        (vec!["openat", "-100"], "errno 38 (ENOSYS)", "newer than the newest call that the profile names"),
        (vec!["--arch", "SCMP_ARCH_X86", "3"], "SCMP_ACT_ALLOW", "syscalls[0]"),
        (vec!["--arch", "SCMP_ARCH_X32", "read"], "SCMP_ACT_KILL", "does not list"),
    ] {
        let words: Vec<&str> = std::iter::once(source.as_str()).chain(words).collect();
        let told = seccomp(rt, "simulate", &words).ok();
        assert!(told.stdout.contains(verdict) && told.stdout.contains(reason), "{words:?}: {told}");
    }
    seccomp(rt, "simulate", &[&source, "no_such_call"]).fails_with("no_such_call");
    seccomp(rt, "simulate", &[&source, "read", "ten"]).fails_with("ten\\\" is not a number");
    seccomp(rt, "simulate", &[&source]).fails_with("no system call is named");
    seccomp(rt, "simulate", &["--arch", "SCMP_ARCH_VAX", &source, "read"]).fails_with("SCMP_ARCH_VAX");
    Ok(())
}

fn check_fails_when_there_is_something_to_find(rt: &Runtime) -> Checked {
    rt.coracle_only("the command is coracle's")?;
    let filter = profile(
        "SCMP_ACT_ERRNO",
        &[
            rule(&["read", "opennat"], "SCMP_ACT_ALLOW"),
            json!({ "names": ["dup"], "action": "SCMP_ACT_ALLOW",
                    "args": [{ "index": 0, "value": 0, "op": "SCMP_CMP_LT" }] }),
        ],
    );
    let found = seccomp(rt, "check", &[&write(rt, "wrong.json", &filter).to_string_lossy()]);
    assert_eq!(found.code(), 1, "{found}");
    assert!(
        found.stdout.contains("syscalls[0].names[1]") && found.stdout.contains("did you mean openat?"),
        "{found}"
    );
    assert!(
        found.stdout.contains("syscalls[1].args[0].value") && found.stdout.contains("never holds"),
        "{found}"
    );
    let fine = seccomp(rt, "check", &[&small(rt).to_string_lossy()]).ok();
    assert_eq!(fine.stdout, "");
    Ok(())
}

fn check_knows_every_name_of_the_default_profile(rt: &Runtime) -> Checked {
    rt.coracle_only("the command is coracle's")?;
    let filter = match engines_default(&["CAP_AUDIT_WRITE"]) {
        Ok(filter) => write(rt, "default.json", &filter),
        Err(why) => return skip(why),
    };
    let checked = run(rt.bare(["seccomp", "check", &filter.to_string_lossy()]));
    // A kernel has never all calls that the profile names: there are notes at least.
    assert!(checked.stdout.contains("note: syscalls["), "{checked}");
    assert!(!checked.stdout.contains("unknown system call"), "{checked}");
    Ok(())
}

fn a_profile_comes_from_a_file_a_bundle_or_standard_input(rt: &Runtime) -> Checked {
    rt.coracle_only("the command is coracle's")?;
    let source = small(rt);
    let text = fs::read_to_string(&source).expect("it was written");
    let source = source.to_string_lossy().into_owned();
    let bundle = rt.script("true").edit(|config| {
        config["linux"]["seccomp"] = serde_json::from_str(&text).expect("it is JSON");
    });
    let directory = bundle.path().to_string_lossy().into_owned();
    let of_file = seccomp(rt, "show", &[&source]).ok().stdout;
    assert_eq!(seccomp(rt, "show", &["--bundle", &directory]).ok().stdout, of_file);
    let piped = run_with_input(rt.bare(["seccomp", "show", "--kernel", "x86_64", "-"]), &text);
    assert_eq!(piped.ok().stdout, of_file);
    let asked = seccomp(rt, "simulate", &["--bundle", &directory, "socket", "16"]).ok();
    assert!(asked.stdout.contains("SCMP_ACT_KILL_PROCESS"), "{asked}");
    seccomp(rt, "show", &["--bundle", &directory, &source]).fails_with("two profiles");
    seccomp(rt, "show", &[]).fails_with("no profile is named");
    let plain = rt.script("true");
    seccomp(rt, "show", &["--bundle", &plain.path().to_string_lossy()]).fails_with("no seccomp profile");
    Ok(())
}

fn a_wrong_profile_is_told_with_file_and_place(rt: &Runtime) -> Checked {
    rt.coracle_only("the command is coracle's")?;
    let wrong = write(rt, "bad.json", &profile("SCMP_ACT_ALLOW", &[rule(&["read"], "SCMP_ACT_SOME")]));
    let file = wrong.to_string_lossy();
    let told = seccomp(rt, "compile", &[&file]).fails();
    assert!(told.stderr.contains(&format!("msg=\"{file}: syscalls[0].action: ")), "{told}");
    assert!(told.stderr.contains("SCMP_ACT_SOME"), "{told}");
    let told = run_with_input(rt.bare(["seccomp", "check", "-"]), "{}").fails();
    assert!(told.stderr.contains("msg=\"standard input: defaultAction: "), "{told}");
    let bundle =
        rt.script("true").edit(|config| config["linux"]["seccomp"] = json!({ "defaultAction": "SOME" }));
    let told = run(rt.bare(["seccomp", "check", "--bundle", &bundle.path().to_string_lossy()])).fails();
    assert!(told.stderr.contains("msg=\"config.json: linux.seccomp.defaultAction: "), "{told}");
    let config = bundle.path().join("config.json");
    seccomp(rt, "check", &[&config.to_string_lossy()]).fails_with("--bundle DIR");
    seccomp(rt, "show", &["/no/such/file"]).fails_with("/no/such/file");
    Ok(())
}
