//! Measures our shim against containerd's own, on one daemon, in turns.
//!
//! `ctr version` is the price of asking at all, and is taken off both sides. Memory is what the kernel counts as each
//! shim's share (`smaps_rollup`, Pss). CPU is that of the shims and of all that they have waited for.

use std::fs;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use coracle_integration::engine::containerd::{Containerd, ShimRuntime, Version, our_shim};
use coracle_integration::engine::shim::{address_of, service_version};
use coracle_integration::engine::task::{Any, Exec, PROCESS, Tasks};
use coracle_integration::{leftovers, place};
use serde_json::json;

/// Measures our shim against containerd's own.
///
/// Needs root. The shim is $CORACLE_SHIM_BIN, or what lies beside $CORACLE_BIN.
#[derive(Parser)]
#[command(name = "coracle-bench-shim", version)]
struct Options {
    /// The containerd to measure on: 1.6, 1.7 or 2.1
    #[arg(long, value_name = "VERSION", default_value = "1.6")]
    containerd: String,
    /// Rounds of run and of exec
    #[arg(long, value_name = "N", default_value_t = 30)]
    rounds: usize,
    /// How many containers are started, measured and deleted at once
    #[arg(long, value_name = "N", default_value_t = 100)]
    many: usize,
    /// Containers with an exec probe every 100 ms
    #[arg(long, value_name = "N", default_value_t = 20)]
    probed: usize,
    /// How long they are probed, in seconds
    #[arg(long, value_name = "S", default_value_t = 5)]
    probing: u64,
}

/// The two, ours first.
const BOTH: [(&str, ShimRuntime); 2] = [("coracle", ShimRuntime::CORACLE), ("runc", ShimRuntime::RUNC)];

fn main() -> ExitCode {
    let options = Options::parse();
    match measure(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("coracle-bench-shim: {message}");
            ExitCode::FAILURE
        }
    }
}

fn measure(options: &Options) -> Result<(), String> {
    let version = Version::ALL.into_iter().find(|version| version.number() == options.containerd);
    let version = version.ok_or_else(|| format!("there is no containerd {} here", options.containerd))?;
    our_shim()?;
    version.programs()?;
    place::enter()?;
    place::clean_up_on_signals();
    let engine = Containerd::of(version);
    println!("containerd {}; medians; ratios without `ctr version`", version.number());
    commands(&engine, options.rounds);
    alone(&engine, options.rounds);
    crowd(&engine, options.many);
    probes(&engine, options.probed, Duration::from_secs(options.probing));
    engine.stop();
    Ok(())
}

/// The time of one call of `ctr`, in milliseconds.
fn time(engine: &Containerd, words: &[&str]) -> f64 {
    let begun = Instant::now();
    engine.ctr(words).ok();
    begun.elapsed().as_secs_f64() * 1e3
}

fn start(engine: &Containerd, runtime: &ShimRuntime, id: &str) {
    engine.run(runtime, &["--detach", "--null-io"], id, &["sleep", "100000"]).ok();
}

fn commands(engine: &Containerd, rounds: usize) {
    for (name, runtime) in &BOTH {
        start(engine, runtime, &format!("{name}-idle"));
    }
    let mut version = Vec::new();
    let mut runs = [const { Vec::new() }; 2];
    let mut execs = [const { Vec::new() }; 2];
    for round in 0..rounds {
        version.push(time(engine, &["version"]));
        for (index, (name, runtime)) in BOTH.iter().enumerate() {
            let begun = Instant::now();
            engine.run(runtime, &["--rm"], &format!("{name}-{round}"), &["true"]).ok();
            runs[index].push(begun.elapsed().as_secs_f64() * 1e3);
            let (exec, idle) = (format!("e{round}"), format!("{name}-idle"));
            execs[index].push(time(engine, &["tasks", "exec", "--exec-id", &exec, &idle, "true"]));
        }
    }
    let version = median(&mut version);
    println!("ctr version           {version:8.1} ms");
    for (what, samples) in [("ctr run --rm true", &mut runs), ("ctr task exec true", &mut execs)] {
        let [own, other] = samples.each_mut().map(|samples| median(samples));
        let ratio = (own - version) / (other - version);
        println!("{what:20}  {own:8.1} ms   runc {other:8.1} ms   ratio {ratio:.2}");
    }
    for (name, _) in &BOTH {
        engine.remove(&format!("{name}-idle"));
    }
}

/// The shims' own part of an exec: its four calls on their sockets, without `ctr` and the daemon, and without streams.
fn alone(engine: &Containerd, rounds: usize) {
    let ids = BOTH.each_ref().map(|(name, runtime)| {
        let id = format!("{name}-alone");
        start(engine, runtime, &id);
        id
    });
    let shims =
        ids.each_ref().map(|id| Tasks::connect(&address_of(engine, id), service_version(engine.version())));
    let process = json!({
        "args": ["true"], "cwd": "/", "user": { "uid": 0, "gid": 0 }, "env": ["PATH=/bin"],
    });
    let mut samples = [const { Vec::new() }; 2];
    for round in 0..rounds {
        for ((tasks, id), samples) in shims.iter().zip(&ids).zip(&mut samples) {
            let exec_id = format!("e{round}");
            let spec = Some(Any::json(PROCESS, &process));
            let request = Exec { id: id.clone(), exec_id: exec_id.clone(), spec, ..Exec::default() };
            let begun = Instant::now();
            tasks.exec(&request).expect("Exec");
            tasks.start(id, &exec_id).expect("Start");
            tasks.wait(id, &exec_id).expect("Wait");
            tasks.delete(id, &exec_id).expect("Delete");
            samples.push(begun.elapsed().as_secs_f64() * 1e3);
        }
    }
    let [own, other] = samples.each_mut().map(|samples| median(samples));
    println!("{:20}  {own:8.1} ms   runc {other:8.1} ms   ratio {:.2}", "its calls alone", own / other);
    for id in &ids {
        engine.remove(id);
    }
}

/// Many containers at once: the time they take, and the memory of their shims.
fn crowd(engine: &Containerd, count: usize) {
    for (name, runtime) in &BOTH {
        let ids: Vec<String> = (0..count).map(|number| format!("{name}-many-{number}")).collect();
        let begun = Instant::now();
        for (index, id) in ids.iter().enumerate() {
            start(engine, runtime, id);
            if index == 0 {
                let (share, threads) = shares(engine);
                println!("{name:8} one idle shim: {share:.2} MiB PSS, {threads} threads");
            }
        }
        let started = begun.elapsed();
        let (share, _) = shares(engine);
        let begun = Instant::now();
        for id in &ids {
            engine.ctr(&["tasks", "kill", "--signal", "KILL", id]).ok();
        }
        for id in &ids {
            engine.remove(id);
        }
        println!(
            "{name:8} {count} containers: started in {:.1} s, killed and deleted in {:.1} s; {share:.2} MiB PSS each",
            started.as_secs_f64(),
            begun.elapsed().as_secs_f64()
        );
    }
}

/// An exec in each of some containers every 100 ms: the CPU time of their shims.
fn probes(engine: &Containerd, count: usize, time: Duration) {
    for (name, runtime) in &BOTH {
        let ids: Vec<String> = (0..count).map(|number| format!("{name}-probed-{number}")).collect();
        for id in &ids {
            start(engine, runtime, id);
        }
        let before = cpu(engine);
        let begun = Instant::now();
        let mut done = 0_u32;
        while begun.elapsed() < time {
            let next = begun + Duration::from_millis(100) * (done / count.max(1) as u32);
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
            let Some(id) = ids.get(done as usize % count.max(1)) else { break };
            engine.ctr(&["tasks", "exec", "--exec-id", &format!("p{done}"), id, "true"]).ok();
            done += 1;
        }
        let used = cpu(engine) - before;
        println!(
            "{name:8} {done} probes of {count} containers: {:.2} ms CPU each",
            used / f64::from(done.max(1))
        );
        for id in &ids {
            engine.remove(id);
        }
    }
}

/// The shims of this daemon.
fn shims(engine: &Containerd) -> Vec<i32> {
    let all = leftovers::processes(engine.namespace());
    all.into_iter().filter(|(_, line)| line.contains("containerd-shim")).map(|(pid, _)| pid).collect()
}

/// The mean proportional share of the shims, in MiB, and how many threads one has.
fn shares(engine: &Containerd) -> (f64, usize) {
    let shims = shims(engine);
    let share = |pid: &i32| -> f64 {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0.0)
    };
    let total: f64 = shims.iter().map(share).sum();
    let threads = |pid: &i32| fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    (total / 1024.0 / shims.len().max(1) as f64, shims.iter().map(threads).max().unwrap_or(0))
}

/// The CPU time of the shims and of what they have waited for, in milliseconds: proc_pid_stat(5), fields 14 to 17.
fn cpu(engine: &Containerd) -> f64 {
    const TICK: f64 = 10.0;
    let of = |pid: &i32| -> f64 {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let rest = text.rsplit(") ").next().unwrap_or_default();
        rest.split(' ').skip(11).take(4).filter_map(|field| field.parse::<f64>().ok()).sum()
    };
    shims(engine).iter().map(of).sum::<f64>() * TICK
}

fn median(samples: &mut [f64]) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples.get(samples.len() / 2).copied().unwrap_or(f64::NAN)
}
