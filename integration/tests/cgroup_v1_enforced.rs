//! Limits on a host with cgroup v1 that hold, not only stand in a file: memory, processes, CPU time, block I/O, and
//! what `events` tells of them. Devices are in `devices.rs`.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use coracle_integration::bundle::push;
use coracle_integration::command::{Running, command, eventually, run, run_with_input};
use coracle_integration::{Checked, Container, Runtime, host, skip, tests};
use serde_json::{Value, json};

fn main() -> ExitCode {
    coracle_integration::run_tests(tests![
        an_oom_kill_is_counted_and_told_by_events,
        push_tells_of_an_oom_kill_and_of_the_exit,
        a_fork_bomb_stops_at_the_limit,
        a_busy_loop_is_throttled_to_its_quota,
        a_throttled_write_waits_until_the_limit_is_lifted,
    ])
}

/// A running container of a shell script with these resources.
fn up<'r>(rt: &'r Runtime, script: &str, key: &str, value: &Value) -> Container<'r> {
    let bundle = rt.script(script).edit(|config| config["linux"]["resources"][key] = value.clone());
    let c = rt.container(&bundle);
    c.up();
    c
}

#[track_caller]
fn directory(c: &Container, controller: &str) -> PathBuf {
    host::cgroup_of(c.pid(), controller).expect("the container has a cgroup there")
}

#[track_caller]
fn read(c: &Container, controller: &str, file: &str) -> String {
    let path = directory(c, controller).join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The number beside `key` in a file such as `cpu.stat`.
#[track_caller]
fn counter(c: &Container, controller: &str, file: &str, key: &str) -> u64 {
    let text = read(c, controller, file);
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok());
    value.unwrap_or_else(|| panic!("{file} has no {key}: {text}"))
}

const SLEEP: &str = "exec sleep 1030";

/// A process that takes memory until it is killed; the container's own goes on.
#[track_caller]
fn eat_memory(c: &Container) {
    let ran = c.exec(&["sh", "-c", "tail -n 1 /dev/zero; echo status $?"]);
    assert!(ran.code() == 137 || ran.out().contains("status 137"), "{ran}");
}

fn an_oom_kill_is_counted_and_told_by_events(rt: &Runtime) -> Checked {
    host::need_v1("memory")?;
    let c = up(rt, SLEEP, "memory", &json!({ "limit": 32 << 20, "swap": 32 << 20 }));
    let events = Running::start(rt.command(["events", "--interval", "1s", &c.id]));
    events.wait_for_output("\"type\":\"stats\"");
    eat_memory(&c);
    events.wait_for_output("\"type\":\"oom\"");
    assert!(counter(&c, "memory", "memory.oom_control", "oom_kill") >= 1);
    assert_eq!(c.status(), "running");
    Ok(())
}

fn push_tells_of_an_oom_kill_and_of_the_exit(rt: &Runtime) -> Checked {
    host::need_v1("memory")?;
    rt.coracle_only("others have no events --push")?;
    let c = up(rt, SLEEP, "memory", &json!({ "limit": 32 << 20, "swap": 32 << 20 }));
    let events = Running::start(rt.command(["events", "--push", &c.id]));
    // It says nothing before there is something to tell, so that it listens shows by its eventfd.
    let listens = || {
        let links = fs::read_dir(format!("/proc/{}/fd", events.pid())).into_iter().flatten().flatten();
        links
            .filter_map(|link| fs::read_link(link.path()).ok())
            .any(|to| to.ends_with("anon_inode:[eventfd]"))
    };
    assert!(eventually(listens), "events --push never listened: {}", events.stderr());
    eat_memory(&c);
    events.wait_for_output("\"type\":\"oom\"");
    c.kill("KILL").ok();
    let told = events.finish().ok();
    let kinds: Vec<String> = told
        .lines()
        .iter()
        .map(|line| {
            let event: Value = serde_json::from_str(line).expect("a line of JSON");
            assert_eq!(event["id"], json!(c.id));
            event["type"].as_str().unwrap_or_default().to_owned()
        })
        .filter(|kind| kind != "pressure")
        .collect();
    // The kernel may say so again before the killed process is gone.
    let (last, others) = kinds.split_last().expect("events");
    assert_eq!(last, "exit", "{told}");
    assert!(!others.is_empty() && others.iter().all(|kind| kind == "oom"), "{told}");
    Ok(())
}

fn a_fork_bomb_stops_at_the_limit(rt: &Runtime) -> Checked {
    host::need_v1("pids")?;
    let c = up(
        rt,
        "sh -c 'while :; do sleep 1031 & done' 2>/dev/null; exec sleep 1032",
        "pids",
        &json!({ "limit": 12 }),
    );
    assert!(eventually(|| counter(&c, "pids", "pids.events", "max") > 0), "no fork was refused");
    let processes: u64 = read(&c, "pids", "pids.current").trim().parse().expect("a number");
    assert!(processes <= 12, "{processes} processes under a limit of 12");
    Ok(())
}

/// Measured in the kernel's own periods and CPU time, so a busy machine changes nothing.
fn a_busy_loop_is_throttled_to_its_quota(rt: &Runtime) -> Checked {
    const QUOTA_US: u64 = 10_000;
    host::need_v1("cpu")?;
    host::need_v1("cpuacct")?;
    let c = up(rt, "while :; do :; done", "cpu", &json!({ "quota": QUOTA_US, "period": 50_000 }));
    let used = || read(&c, "cpuacct", "cpuacct.usage").trim().parse::<u64>().expect("nanoseconds") / 1000;
    let periods = || counter(&c, "cpu", "cpu.stat", "nr_periods");
    let (used_before, periods_before) = (used(), periods());
    assert!(
        eventually(|| periods() >= periods_before + 10 && counter(&c, "cpu", "cpu.stat", "nr_throttled") > 5),
        "it is not throttled: {}",
        read(&c, "cpu", "cpu.stat")
    );
    let used = used() - used_before;
    let periods = periods() - periods_before;
    // A slice that a CPU was given may end in the next period: half as much again, and two periods more.
    let most = (periods + 2) * QUOTA_US * 3 / 2;
    assert!(used <= most, "{used} µs used in {periods} periods of {QUOTA_US} µs each");
    Ok(())
}

/// A loop device over a file of the test's, detached when dropped.
struct Loop {
    path: String,
    number: (u64, u64),
}

impl Loop {
    fn new(rt: &Runtime) -> Result<Loop, String> {
        let file = rt.scratch("disk");
        fs::write(&file, vec![0; 1 << 20]).expect("a file of 1 MiB");
        let file = file.to_str().expect("a path in UTF-8");
        let ran = run(command("losetup", &["--find", "--show", "--direct-io=off", file]));
        if !ran.status.success() {
            return Err(ran.stderr);
        }
        let path = ran.out().to_owned();
        let name = path.trim_start_matches("/dev/");
        let dev = fs::read_to_string(format!("/sys/block/{name}/dev")).expect("the device's number");
        let (major, minor) = dev.trim().split_once(':').expect("MAJOR:MINOR");
        let number = (major.parse().expect("a number"), minor.parse().expect("a number"));
        Ok(Loop { path, number })
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = std::process::Command::new("losetup").args(["--detach", &self.path]).status();
    }
}

fn a_throttled_write_waits_until_the_limit_is_lifted(rt: &Runtime) -> Checked {
    host::need_v1("blkio")?;
    if !host::has_program("losetup") || !fs::exists("/dev/loop-control").unwrap_or(false) {
        return skip("this host has no loop devices");
    }
    let disk = match Loop::new(rt) {
        Ok(disk) => disk,
        Err(why) => return skip(format!("no loop device can be had here: {why}")),
    };
    let (major, minor) = disk.number;
    // 16 KiB at 256 bytes a second take a minute; without the limit they are there at once.
    let limit =
        |rate: u64| json!({ "throttleWriteBpsDevice": [{ "major": major, "minor": minor, "rate": rate }] });
    let writer = |limits: Option<Value>| {
        let script =
            "dd if=/dev/zero of=/dev/disk bs=16k count=1 oflag=direct 2>&1; echo written; exec sleep 1033";
        let bundle = rt.script(script).edit(|config| {
            let device =
                json!({ "path": "/dev/disk", "type": "b", "major": major, "minor": minor, "fileMode": 438 });
            push(config, "/linux/devices", device);
            let rule = json!({ "allow": true, "type": "b", "major": major, "minor": minor, "access": "rw" });
            push(config, "/linux/resources/devices", rule);
            if let Some(limits) = limits {
                config["linux"]["resources"]["blockIO"] = limits;
            }
        });
        let c = rt.container(&bundle);
        c.up();
        c
    };
    let slow = writer(Some(limit(256)));
    let free = writer(None);
    free.wait_for_output("written");
    assert!(!slow.output().contains("written"), "the limit did not hold: {}", slow.output());
    let lifted = json!({ "blockIO": limit(0) }).to_string();
    run_with_input(rt.command(["update", "--resources", "-", &slow.id]), &lifted).ok();
    slow.wait_for_output("written");
    Ok(())
}
