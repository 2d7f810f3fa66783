//! `hooks` (`config.md`, "POSIX-platform Hooks").

use oci_spec::runtime::{Hook, Hooks};

use super::{problems::Problems, process};

pub(super) fn check(hooks: Option<&Hooks>, problems: &mut Problems) {
    let Some(hooks) = hooks else { return };
    // The spec still has them, and engines still write them.
    #[allow(deprecated)]
    let prestart = hooks.prestart();
    for (kind, hooks) in [
        ("prestart", prestart),
        ("createRuntime", hooks.create_runtime()),
        ("createContainer", hooks.create_container()),
        ("startContainer", hooks.start_container()),
        ("poststart", hooks.poststart()),
        ("poststop", hooks.poststop()),
    ] {
        for (index, hook) in hooks.iter().flatten().enumerate() {
            check_hook(hook, format_args!("hooks.{kind}[{index}]"), problems);
        }
    }
}

fn check_hook(hook: &Hook, place: std::fmt::Arguments<'_>, problems: &mut Problems) {
    if !hook.path().is_absolute() {
        problems.refuse(
            format!("{place}.path"),
            format!("{:?} is not absolute; a hook's path must begin with /", hook.path().to_string_lossy()),
        );
    }
    if let Some(seconds) = hook.timeout()
        && seconds <= 0
    {
        problems.refuse(
            format!("{place}.timeout"),
            format!("{seconds} is not greater than 0; give seconds, or leave it out for no limit"),
        );
    }
    for (index, variable) in hook.env().iter().flatten().enumerate() {
        if let Some(problem) = process::problem_of_variable(variable) {
            problems.refuse(format!("{place}.env[{index}]"), problem);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{accepts, refuses};
    use serde_json::json;

    #[test]
    fn every_kind_of_hook_is_checked() {
        for kind in
            ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"]
        {
            let place = format!("hooks.{kind}");
            accepts(
                &place,
                json!([{"path": "/bin/true", "args": ["true"], "env": ["A=", "B=1"], "timeout": 1}]),
            );
            refuses(
                &place,
                json!([{"path": "/bin/true"}, {"path": "bin/true"}]),
                &format!("{place}[1].path"),
            );
            refuses(&place, json!([{"path": ""}]), &format!("{place}[0].path"));
            refuses(&place, json!([{"args": ["true"]}]), &format!("{place}[0].path"));
            refuses(&place, json!([{"path": "/bin/true", "timeout": 0}]), &format!("{place}[0].timeout"));
            refuses(&place, json!([{"path": "/bin/true", "timeout": -1}]), &format!("{place}[0].timeout"));
            refuses(
                &place,
                json!([{"path": "/bin/true", "env": ["A=1", "B"]}]),
                &format!("{place}[0].env[1]"),
            );
        }
    }
}
