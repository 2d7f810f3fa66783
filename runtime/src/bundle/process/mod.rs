//! `process` (`config.md`, "Process"): of `config.json`, of a process file, and as `exec` makes it.
//!
//! Places begin with a prefix: `process.` in `config.json`, nothing in a process file.

mod capabilities;
pub(super) mod rlimits;
pub(super) mod scheduling;

use oci_spec::runtime::{Process, User};

use super::problems::{NUL, Problems};

/// Checks everything in `process` that needs no host.
pub(super) fn check(process: &mut Process, prefix: &str, problems: &mut Problems) {
    check_console_size(process, prefix, problems);
    check_user(process.user(), prefix, problems);
    if process.args().as_ref().is_none_or(Vec::is_empty) {
        problems
            .refuse(format!("{prefix}args"), "args must not be empty; give the program and its arguments");
    }
    for (index, variable) in process.env().iter().flatten().enumerate() {
        if let Some(problem) = problem_of_variable(variable) {
            problems.refuse(format!("{prefix}env[{index}]"), problem);
        }
    }
    check_cwd(process, prefix, problems);
    capabilities::check(process, prefix, problems);
    rlimits::check(process.rlimits().as_deref().unwrap_or_default(), prefix, problems);
    if let Some(score) = process.oom_score_adj()
        && !(-1000..=1000).contains(&score)
    {
        problems.refuse(format!("{prefix}oomScoreAdj"), format!("{score} is not from -1000 to 1000"));
    }
    scheduling::check(process, prefix, problems);
}

/// Refuses NULs in the strings of a process that reach the kernel.
pub(super) fn check_no_nul(process: &Process, prefix: &str, problems: &mut Problems) {
    let has_nul = |string: &str| string.contains('\0');
    for (name, list) in [("args", process.args()), ("env", process.env())] {
        for (index, _) in list.iter().flatten().enumerate().filter(|(_, string)| has_nul(string)) {
            problems.refuse(format!("{prefix}{name}[{index}]"), NUL);
        }
    }
    let cwd = process.cwd().to_string_lossy();
    let labels = [("apparmorProfile", process.apparmor_profile()), ("selinuxLabel", process.selinux_label())];
    let labels = labels.iter().filter_map(|(name, label)| Some((*name, label.as_deref()?)));
    for (name, _) in labels.chain([("cwd", &*cwd)]).filter(|(_, string)| has_nul(string)) {
        problems.refuse(format!("{prefix}{name}"), NUL);
    }
}

/// What is wrong with an element of an environment, if anything is.
pub(super) fn problem_of_variable(variable: &str) -> Option<String> {
    match variable.split_once('=') {
        Some(("", _)) => Some(format!(
            "invalid environment variable: name cannot be empty in {variable:?}; write NAME=value"
        )),
        Some(_) => None,
        None => Some(format!("invalid environment variable: missing '=' in {variable:?}; write NAME=value")),
    }
}

fn check_console_size(process: &Process, prefix: &str, problems: &mut Problems) {
    let Some(size) = process.console_size() else { return };
    for (name, value) in [("height", size.height()), ("width", size.width())] {
        if u16::try_from(value).is_err() {
            problems.refuse(
                format!("{prefix}consoleSize.{name}"),
                format!("{value} is larger than a terminal can be, 65535 characters"),
            );
        }
    }
}

fn check_user(user: &User, prefix: &str, problems: &mut Problems) {
    // -1 means "leave it as it is" to setresuid(2) and its kin.
    let not_an_id = format!("{} is not a valid id; the kernel reads it as \"no change\"", u32::MAX);
    for (name, id) in [("uid", user.uid()), ("gid", user.gid())] {
        if id == u32::MAX {
            problems.refuse(format!("{prefix}user.{name}"), &not_an_id);
        }
    }
    if let Some(umask) = user.umask()
        && umask > 0o777
    {
        problems.refuse(
            format!("{prefix}user.umask"),
            format!("{umask} (octal {umask:o}) is not from 0 to 511 (octal 777)"),
        );
    }
    for (index, gid) in user.additional_gids().iter().flatten().enumerate() {
        if *gid == u32::MAX {
            problems.refuse(format!("{prefix}user.additionalGids[{index}]"), &not_an_id);
        }
    }
}

fn check_cwd(process: &Process, prefix: &str, problems: &mut Problems) {
    let cwd = process.cwd();
    if cwd.as_os_str().is_empty() {
        problems.refuse(format!("{prefix}cwd"), "cwd property must not be empty; \"/\" always works");
    } else if !cwd.is_absolute() {
        problems.refuse(
            format!("{prefix}cwd"),
            format!("{:?}: cwd must be an absolute path; it must begin with /", cwd.to_string_lossy()),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{accepts, refuses};
    use serde_json::{Value, json};

    #[test]
    fn a_process_must_be_given_with_args_and_an_absolute_cwd() {
        refuses("process", Value::Null, "process");
        for args in [Value::Null, json!([])] {
            refuses("process.args", args, "process.args");
        }
        for cwd in [Value::Null, json!(""), json!("tmp"), json!("./")] {
            refuses("process.cwd", cwd, "process.cwd");
        }
        accepts("process.cwd", json!("/a/../b"));
    }

    #[test]
    fn a_process_without_user_runs_as_root() {
        let bundle = accepts("process.user", Value::Null);
        let process = bundle.spec.process().as_ref().expect("a process");
        assert_eq!((process.user().uid(), process.user().gid()), (0, 0));
    }

    #[test]
    fn environment_variables_have_a_name_and_an_equals_sign() {
        for good in ["A=", "A=b=c", "a.b-c=d", " =x"] {
            accepts("process.env", json!([good]));
        }
        for bad in ["", "A", "=b"] {
            let error = refuses("process.env", json!(["A=b", bad]), "process.env[1]");
            assert!(error.contains("invalid environment variable"), "{error}");
        }
    }

    #[test]
    fn user_ids_and_umask_have_their_ranges() {
        accepts(
            "process.user",
            json!({"uid": 4_294_967_294_u32, "gid": 1, "umask": 0o777, "additionalGids": [5]}),
        );
        refuses("process.user.uid", json!(u32::MAX), "process.user.uid");
        refuses("process.user.uid", json!(-1), "process.user.uid");
        refuses("process.user.gid", json!(4_294_967_296_u64), "process.user.gid");
        refuses("process.user.additionalGids", json!([0, u32::MAX]), "process.user.additionalGids[1]");
        refuses("process.user.umask", json!(0o1000), "process.user.umask");
    }

    #[test]
    fn oom_score_and_console_size_have_their_ranges() {
        for score in [-1000, 0, 1000] {
            accepts("process.oomScoreAdj", json!(score));
        }
        for score in [-1001, 1001] {
            refuses("process.oomScoreAdj", json!(score), "process.oomScoreAdj");
        }
        accepts("process.consoleSize", json!({"height": 65535, "width": 0}));
        refuses("process.consoleSize", json!({"height": 65536, "width": 0}), "process.consoleSize.height");
    }
}
