//! The measuring itself: one command at a time, one contestant after the other in each round.

use std::ffi::CString;
use std::fs;
use std::io::{Read, Seek};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::bundle::Bundles;
use crate::contestant::{Contestant, Verb};
use crate::scene::Scene;
use coracle_bench::sys::{self, Ended, Spawner};

/// No command takes longer than this, or it is killed.
const WATCHDOG_SECONDS: i64 = 30;

/// Wall-clock milliseconds and CPU milliseconds of one command.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// From before the vfork until wait4 gave the status.
    pub wall_ms: f64,
    /// User and system time of the command and of the children that it waited for.
    pub cpu_ms: f64,
}

/// All that was measured of one contestant with one bundle. A missing sample is nothing, so that rounds stay
/// aligned between contestants.
#[derive(Default)]
pub struct Results {
    /// For each [`Verb`], one entry a round.
    samples: [Vec<Option<Sample>>; 6],
    /// Peak resident memory of `run` in KiB, a sample a run.
    pub run_peak_kib: Vec<f64>,
    /// Resident and proportional memory in KiB of the process that waits between create and start.
    pub waiting_rss_kib: Vec<f64>,
    /// See there.
    pub waiting_pss_kib: Vec<f64>,
    /// System calls of one `run`, of all its processes.
    pub syscalls: Vec<f64>,
    /// What went wrong; the contestant was left out from there on.
    pub failures: Vec<String>,
}

impl Results {
    /// The samples of a verb.
    pub fn of(&self, verb: Verb) -> &[Option<Sample>] {
        &self.samples[verb as usize]
    }

    fn add(&mut self, verb: Verb, sample: Option<Sample>) {
        self.samples[verb as usize].push(sample);
    }
}

/// Why measuring stopped.
pub enum Stop {
    /// The user asked for it.
    Interrupted,
    /// The benchmark itself can't go on.
    Broken(String),
}

/// How many rounds of each, and the pause between commands.
pub struct Amount {
    /// Rounds of `run`.
    pub run: usize,
    /// Rounds of create, start, state, exec and delete.
    pub lifecycle: usize,
    /// Runs for peak memory and for counting system calls.
    pub inspect: usize,
    /// Rounds that are not counted, before each kind.
    pub warm_up: usize,
    /// Time for the kernel to finish what it does later (network namespaces, RCU) before the next command.
    pub pause: Duration,
}

/// Starts commands and keeps what they print.
pub struct Bench<'a> {
    scene: &'a Scene,
    spawner: Spawner,
    output: fs::File,
    error: fs::File,
    amount: Amount,
    launch: CString,
    serial: usize,
    /// Peak memory of the program that measures peak memory, in KiB: smaller peaks can't be seen.
    pub launcher_kib: f64,
}

impl<'a> Bench<'a> {
    /// `launch` is the small program that measures memory.
    pub fn new(scene: &'a Scene, amount: Amount, launch: &Path) -> Result<Self, String> {
        let told = |e: std::io::Error| format!("prepare to start commands: {e}");
        let null = fs::File::open("/dev/null").map_err(told)?;
        let output = fs::File::from(sys::memory_file(c"output").map_err(told)?);
        let error = fs::File::from(sys::memory_file(c"error").map_err(told)?);
        let environment = vec![
            c"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
            c"HOME=/root".to_owned(),
        ];
        let spawner = Spawner::new(null.as_raw_fd(), output.as_raw_fd(), error.as_raw_fd(), environment)
            .map_err(told)?;
        // The descriptor must live as long as the spawner, which is as long as this process.
        std::mem::forget(null);
        let launch = CString::new(launch.to_string_lossy().as_bytes())
            .map_err(|_| "the path of coracle-bench-launch has a NUL byte".to_owned())?;
        Ok(Self { scene, spawner, output, error, amount, launch, serial: 0, launcher_kib: 0.0 })
    }

    /// Measures all contestants with one bundle. Each gets its results even when a later one breaks.
    pub fn measure(
        &mut self,
        contestants: &[Contestant],
        bundles: &Bundles,
        results: &mut [Results],
        say: &dyn Fn(&str),
    ) -> Result<(), Stop> {
        say("run");
        self.rounds(self.amount.run, contestants, results, |bench, contestant, result, counted| {
            let sample = bench.run_once(contestant, &bundles.short);
            let (sample, outcome) = split(sample);
            if counted {
                result.add(Verb::Run, sample);
            }
            outcome
        })?;
        say("create, start, state, exec, delete");
        self.rounds(self.amount.lifecycle, contestants, results, |bench, contestant, result, counted| {
            if !contestant.has_lifecycle() {
                return Ok(());
            }
            let mut life = Life::default();
            let outcome = bench.lifecycle(contestant, &bundles.long, &mut life);
            if counted {
                for (verb, sample) in life.samples {
                    result.add(verb, sample);
                }
                result.waiting_rss_kib.extend(life.waiting.map(|(rss, _)| rss));
                result.waiting_pss_kib.extend(life.waiting.map(|(_, pss)| pss));
            }
            outcome
        })?;
        say("memory and system calls");
        self.rounds(self.amount.inspect, contestants, results, |bench, contestant, result, counted| {
            if counted {
                result.run_peak_kib.push(bench.peak(contestant, &bundles.short)?);
                result.syscalls.push(bench.count_syscalls(contestant, &bundles.short)?);
            }
            Ok(())
        })
    }

    /// Rounds of `one` for each contestant that has not failed, the first of each round being another than the
    /// first of the round before.
    fn rounds(
        &mut self,
        count: usize,
        contestants: &[Contestant],
        results: &mut [Results],
        mut one: impl FnMut(&mut Self, &Contestant, &mut Results, bool) -> Result<(), String>,
    ) -> Result<(), Stop> {
        // A contestant that failed at one kind of command may still be good at the next.
        let mut out = vec![false; contestants.len()];
        for round in 0..self.amount.warm_up + count {
            for turn in 0..contestants.len() {
                let at = (round + turn) % contestants.len();
                let (Some(contestant), Some(result)) = (contestants.get(at), results.get_mut(at)) else {
                    continue;
                };
                if out[at] {
                    continue;
                }
                if sys::interrupted() {
                    return Err(Stop::Interrupted);
                }
                if let Err(failure) = one(self, contestant, result, round >= self.amount.warm_up) {
                    if sys::interrupted() {
                        return Err(Stop::Interrupted);
                    }
                    out[at] = true;
                    result.failures.push(failure);
                    self.scene.sweep_containers().map_err(Stop::Broken)?;
                }
                sys::reap();
            }
        }
        Ok(())
    }

    fn next_id(&mut self) -> String {
        self.serial += 1;
        format!("{}{}", self.scene.prefix, self.serial)
    }

    /// Starts a command and waits for it, timed.
    fn time(&mut self, command: &[CString]) -> Result<(Sample, Ended), String> {
        std::thread::sleep(self.amount.pause);
        for file in [&mut self.output, &mut self.error] {
            file.set_len(0).and_then(|()| file.rewind()).map_err(|e| format!("empty a memory file: {e}"))?;
        }
        sys::watchdog(WATCHDOG_SECONDS);
        let begin = Instant::now();
        let pid = self.spawner.spawn(command).map_err(|e| format!("start {}: {e}", shown(command)))?;
        let ended = sys::wait(pid).map_err(|e| format!("wait for {}: {e}", shown(command)))?;
        let wall = begin.elapsed();
        let late = sys::timed_out();
        sys::watchdog(0);
        if late {
            return Err(format!("{}: killed after {WATCHDOG_SECONDS} s", shown(command)));
        }
        let sample = Sample { wall_ms: wall.as_secs_f64() * 1e3, cpu_ms: ended.cpu_us as f64 / 1e3 };
        Ok((sample, ended))
    }

    /// The same, where all but exit status 0 is a failure.
    fn succeed(&mut self, command: &[CString]) -> Result<Sample, String> {
        let (sample, ended) = self.time(command)?;
        if ended.success() {
            return Ok(sample);
        }
        let mut message = String::new();
        let _ = self.error.rewind().and_then(|()| self.error.read_to_string(&mut message));
        let last = message.lines().last().unwrap_or("no message").trim();
        Err(format!("{}: {}: {last}", shown(command), ended.describe()))
    }

    fn printed(&mut self) -> Result<String, String> {
        let mut text = String::new();
        self.output
            .rewind()
            .and_then(|()| self.output.read_to_string(&mut text))
            .map_err(|e| format!("read what a command printed: {e}"))?;
        Ok(text)
    }

    fn run_once(&mut self, contestant: &Contestant, bundle: &Path) -> Result<Sample, String> {
        let id = self.next_id();
        self.succeed(&contestant.command(Verb::Run, &id, bundle)?)
    }

    fn lifecycle(&mut self, contestant: &Contestant, bundle: &Path, life: &mut Life) -> Result<(), String> {
        let id = self.next_id();
        let mut step = |bench: &mut Self, verb: Verb| -> Result<(), String> {
            let sample = bench.succeed(&contestant.command(verb, &id, bundle)?)?;
            life.note(verb, sample);
            Ok(())
        };
        step(self, Verb::Create)?;
        let state = contestant.command(Verb::State, &id, bundle)?;
        self.succeed(&state)?;
        let pid = pid_of(&self.printed()?, "created")?;
        let waiting = memory_of(pid)?;
        step(self, Verb::Start)?;
        step(self, Verb::State)?;
        pid_of(&self.printed()?, "running")?;
        step(self, Verb::Exec)?;
        // As the nearest subreaper this process is the parent, so that the pid stays the container's until the
        // wait below.
        sys::kill(pid, libc::SIGKILL).map_err(|e| format!("kill the container's process {pid}: {e}"))?;
        sys::wait(pid).map_err(|e| format!("wait for the container's process {pid}: {e}"))?;
        step(self, Verb::Delete)?;
        life.waiting = Some(waiting);
        Ok(())
    }

    /// Peak resident memory in KiB of a run.
    fn peak(&mut self, contestant: &Contestant, bundle: &Path) -> Result<f64, String> {
        let id = self.next_id();
        let mut command = vec![self.launch.clone()];
        command.extend(contestant.command(Verb::Run, &id, bundle)?);
        self.succeed(&command)?;
        let line = self.printed()?;
        let numbers: Vec<u64> = line.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        match numbers[..] {
            [0, peak, own] => {
                self.launcher_kib = self.launcher_kib.max(own as f64);
                Ok(peak as f64)
            }
            _ => Err(format!("{}: failed: {line}", shown(&command))),
        }
    }

    /// How many system calls a run makes, in all its processes, from its execve to the exit of the last.
    fn count_syscalls(&mut self, contestant: &Contestant, bundle: &Path) -> Result<f64, String> {
        let id = self.next_id();
        let summary = self.scene.folder.join("strace");
        let text = |s: &str| CString::new(s).map_err(|e| e.to_string());
        let mut command = vec![text("/usr/bin/strace")?, text("-f")?, text("-c")?, text("-o")?];
        command.push(text(&summary.to_string_lossy())?);
        command.extend(contestant.command(Verb::Run, &id, bundle)?);
        self.succeed(&command)?;
        let summary = fs::read_to_string(&summary).map_err(|e| format!("read strace's summary: {e}"))?;
        total_calls(&summary).ok_or_else(|| format!("no total in strace's summary: {summary}"))
    }
}

/// What one lifecycle gave until it ended or failed.
struct Life {
    samples: [(Verb, Option<Sample>); 5],
    waiting: Option<(f64, f64)>,
}

impl Default for Life {
    fn default() -> Self {
        let verbs = [Verb::Create, Verb::Start, Verb::State, Verb::Exec, Verb::Delete];
        Self { samples: verbs.map(|verb| (verb, None)), waiting: None }
    }
}

impl Life {
    fn note(&mut self, verb: Verb, sample: Sample) {
        for (own, slot) in &mut self.samples {
            if *own == verb {
                *slot = Some(sample);
            }
        }
    }
}

fn split(sample: Result<Sample, String>) -> (Option<Sample>, Result<(), String>) {
    match sample {
        Ok(sample) => (Some(sample), Ok(())),
        Err(failure) => (None, Err(failure)),
    }
}

fn shown(command: &[CString]) -> String {
    let words: Vec<_> = command.iter().map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}

/// The pid in what `state` printed, which must say that the container is `status`.
fn pid_of(state: &str, status: &str) -> Result<i32, String> {
    let value: Value =
        serde_json::from_str(state).map_err(|e| format!("state printed no JSON: {e}: {state}"))?;
    if value["status"] != status {
        return Err(format!("state says {} where {status} was expected", value["status"]));
    }
    match value["pid"].as_i64() {
        Some(pid) if pid > 1 => Ok(pid as i32),
        _ => Err(format!("state has no pid: {state}")),
    }
}

/// Resident and proportional memory of a process, in KiB.
fn memory_of(pid: i32) -> Result<(f64, f64), String> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let rollup = fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
    let field = |name: &str| {
        rollup
            .lines()
            .find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse::<f64>().ok())
            .ok_or_else(|| format!("{path}: no {name}"))
    };
    Ok((field("Rss:")?, field("Pss:")?))
}

/// The number of calls in the last line of `strace -c`: `100.00 0.001 3 246 9 total`.
fn total_calls(summary: &str) -> Option<f64> {
    let total = summary.lines().rev().find(|line| line.trim_end().ends_with("total"))?;
    total.split_whitespace().nth(3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_of_strace_is_the_fourth_field_of_its_last_line() {
        let summary = "% time     seconds  usecs/call     calls    errors syscall\n\
                       ------ ----------- ----------- --------- --------- ----------------\n\
                       60.00    0.000300         100         3           mount\n\
                       100.00    0.000904           3       247         9 total\n";
        assert_eq!(total_calls(summary), Some(247.0));
        assert_eq!(total_calls("strace: no such program\n"), None);
    }

    #[test]
    fn a_state_with_another_status_is_a_failure() {
        assert_eq!(pid_of(r#"{"status": "created", "pid": 7}"#, "created"), Ok(7));
        assert!(pid_of(r#"{"status": "stopped", "pid": 7}"#, "running").is_err());
        assert!(pid_of(r#"{"status": "running"}"#, "running").is_err());
        assert!(pid_of("", "running").is_err());
    }
}
