//! `docker exec`.

use coracle_integration::command::{Running, eventually, run_with_input};
use coracle_integration::console::Terminal;
use coracle_integration::engine::docker::Docker;

const LOOP: &str = "trap 'exit 0' TERM; while :; do sleep 0.1; done";

pub fn shows_output_and_exit_status_of_exec(docker: &Docker) {
    let one = docker.up(&[], LOOP);
    let ran = one.exec(&[], &["sh", "-c", "echo out; echo err >&2; exit 9"]).exits(9);
    assert_eq!((ran.out(), ran.stderr.trim()), ("out", "err"), "{ran}");
    one.exec(&[], &["sh", "-c", "kill -9 $$"]).exits(137);
    assert_eq!(one.status(), "running");
}

pub fn of_what_is_not_there(docker: &Docker) {
    let one = docker.up(&[], LOOP);
    // Docker 26 has one exit status for both.
    let ran = one.exec(&[], &["nonesuch"]).exits(126);
    assert!(format!("{}{}", ran.stdout, ran.stderr).contains("executable file not found in $PATH"), "{ran}");
    one.exec(&[], &["/etc/passwd"]).exits(126);
    one.exec(&["--workdir", "/nonesuch"], &["true"]).fails();
    assert_eq!(one.status(), "running");
    // Docker's own answer, for a container that doesn't run.
    one.call("stop", &["--time", "5"], &[]).ok();
    one.exec(&[], &["true"]).fails_with("is not running");
}

pub fn in_a_terminal_of_its_own(docker: &Docker) {
    let one = docker.up(&[], LOOP);
    let command = one.command("exec", &["--interactive", "--tty"], &["sh"]);
    Terminal::converse(command, "tty", "/dev/pts/", 3);
}

pub fn with_user_directory_and_environment(docker: &Docker) {
    let one = docker.up(&["--env", "FIRST=one"], LOOP);
    let options = ["--user", "1000:4000", "--workdir", "/etc", "--env", "SECOND=two"];
    let ran = one.exec(&options, &["sh", "-c", "id -u; id -g; pwd; echo $FIRST $SECOND"]).ok();
    assert_eq!(ran.lines(), ["1000", "4000", "/etc", "one two"]);
    let ran = one.exec(&["--user", "user"], &["sh", "-c", "id -un; echo $HOME"]).ok();
    assert_eq!(ran.lines(), ["user", "/home/user"]);
}

pub fn with_privileges(docker: &Docker) {
    let one = docker.up(&[], LOOP);
    let bits = |options: &[&str]| {
        let ran = one.exec(options, &["grep", "CapEff", "/proc/self/status"]).ok();
        u64::from_str_radix(ran.out().trim_start_matches("CapEff:").trim(), 16)
            .expect("capabilities are a number")
    };
    // CAP_SYS_ADMIN is in all, and not in the usual ones.
    assert_eq!(bits(&[]) & (1 << 21), 0);
    assert_ne!(bits(&["--privileged"]) & (1 << 21), 0);
}

pub fn detached(docker: &Docker) {
    let one = docker.up(&[], LOOP);
    one.exec(&["--detach"], &["sh", "-c", "echo done > /proof; sleep 1011"]).ok();
    assert!(eventually(|| one.exec(&[], &["cat", "/proof"]).out() == "done"));
    assert!(one.exec(&[], &["ps"]).ok().stdout.contains("sleep 1011"));
    // The end of the first process is the end of all.
    one.call("kill", &[], &[]).ok();
    one.wait_for("exited");
    one.call("start", &[], &[]).ok();
    assert!(!one.exec(&[], &["ps"]).ok().stdout.contains("sleep 1011"));
}

pub fn reads_standard_input(docker: &Docker) {
    let one = docker.up(&[], LOOP);
    let text = "line of text\n".repeat(20_000);
    let ran =
        run_with_input(one.command("exec", &["--interactive"], &["sh", "-c", "cat; exit 4"]), &text).exits(4);
    assert_eq!(ran.stdout.len(), text.len());
}

pub fn many_execs_at_once(docker: &Docker) {
    let one = docker.up(&[], LOOP);
    let start = |index: usize| {
        let script = format!("echo {index}; exit {index}");
        Running::start(one.command("exec", &[], &["sh", "-c", &script]))
    };
    let running: Vec<Running> = (0..20).map(start).collect();
    for (index, each) in running.into_iter().enumerate() {
        let ran = each.finish().exits(i32::try_from(index).unwrap_or_default());
        assert_eq!(ran.out(), index.to_string());
    }
    assert_eq!(one.inspect("{{.State.Running}} {{len .ExecIDs}}"), "true 0");
}
