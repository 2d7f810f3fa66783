//! Measures OCI runtimes against each other and against the floor.
//!
//! Every command (run, create, start, state, exec, delete) is started by vfork and execve and timed alone. In
//! each round every contestant has its turn, so that a noisy machine hits all alike; what counts are the
//! ratios. A supervisor process sets the scene, lets a worker measure, and removes whatever is left, however
//! the worker ends.

mod bundle;
mod contestant;
mod measure;
mod report;
mod scene;
mod stats;
mod target;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use coracle_bench::sys;
use serde_json::{Value, json};

use contestant::{Contestant, Role};
use measure::{Amount, Bench, Results, Stop};
use report::BundleReport;
use scene::Scene;

/// Measures OCI runtimes against each other and against the bare system calls, in interleaved runs.
///
/// Needs root, and the peers that integration/peers/fetch brings. Exits with 0 when everything could be
/// measured, whether or not targets are met; with 1 when a contestant failed; with 130 when interrupted.
#[derive(Parser)]
#[command(name = "coracle-bench", version)]
struct Options {
    /// The coracle to measure; without it only the others are measured
    #[arg(long, value_name = "PATH")]
    coracle: Option<PathBuf>,
    /// The floor program [default: beside this program]
    #[arg(long, value_name = "PATH")]
    floor: Option<PathBuf>,
    /// Also measure the floor with these options, for instance "--serial"; may be repeated
    #[arg(long, value_name = "OPTIONS", allow_hyphen_values = true)]
    floor_variant: Vec<String>,
    /// The folder of the peers [default: $CORACLE_PEERS]
    #[arg(long, value_name = "DIR")]
    peers: Option<PathBuf>,
    /// Another OCI runtime to measure; may be repeated
    #[arg(long, value_name = "NAME=PATH")]
    also: Vec<String>,
    /// A bundle to measure with; may be repeated; "list" prints them all
    #[arg(long, value_name = "NAME", default_values = ["default", "docker-like", "userns"])]
    bundle: Vec<String>,
    /// Have systemd make the cgroups (--systemd-cgroup); without the floor, which knows no systemd
    #[arg(long)]
    systemd: bool,
    /// Rounds of run
    #[arg(long, value_name = "N", default_value_t = 200)]
    rounds: usize,
    /// Rounds of create, start, state, exec and delete
    #[arg(long, value_name = "N", default_value_t = 100)]
    lifecycle_rounds: usize,
    /// Runs for peak memory and the count of system calls
    #[arg(long, value_name = "N", default_value_t = 5)]
    inspect_rounds: usize,
    /// Rounds of each kind that are not counted
    #[arg(long, value_name = "N", default_value_t = 3)]
    warm_up: usize,
    /// Milliseconds between two commands
    #[arg(long, value_name = "MS", default_value_t = 2)]
    pause: u64,
    /// Write the results to a file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Where bundles are made
    #[arg(long, value_name = "DIR", default_value_os_t = std::env::temp_dir())]
    work: PathBuf,
}

fn main() -> ExitCode {
    let options = Options::parse();
    if options.bundle.iter().any(|name| name == "list") {
        for kind in bundle::KINDS {
            println!("{:<20} {}", kind.name, kind.about);
        }
        return ExitCode::SUCCESS;
    }
    match supervise(&options) {
        Ok(code) => ExitCode::from(code),
        Err(message) => {
            eprintln!("coracle-bench: {message}");
            ExitCode::FAILURE
        }
    }
}

/// Sets the scene, has a worker measure in it, and clears it.
fn supervise(options: &Options) -> Result<u8, String> {
    let kinds: Vec<&bundle::Kind> = options
        .bundle
        .iter()
        .map(|name| {
            bundle::KINDS
                .iter()
                .find(|kind| kind.name == name)
                .ok_or_else(|| format!("no bundle {name}: --bundle list prints them all"))
        })
        .collect::<Result<_, _>>()?;
    sys::catch_signals();
    sys::become_subreaper().map_err(|e| format!("become a subreaper: {e}"))?;
    let supervisor = std::process::id();
    let scene = Scene::set(&options.work)?;
    let worker = match sys::fork_worker() {
        Ok(Some(worker)) => worker,
        Ok(None) => {
            let code = work(options, &kinds, &scene);
            // Nobody else is left to clear the scene when the supervisor was killed.
            if std::os::unix::process::parent_id() != supervisor {
                let _ = scene.sweep();
            }
            std::process::exit(code.into());
        }
        Err(error) => {
            scene.sweep()?;
            return Err(format!("fork: {error}"));
        }
    };
    let ended = sys::wait(worker);
    sys::forget_worker();
    scene.sweep()?;
    let ended = ended.map_err(|e| format!("wait for the worker: {e}"))?;
    if libc::WIFEXITED(ended.status) {
        Ok(libc::WEXITSTATUS(ended.status) as u8)
    } else {
        Err(format!("the worker ended by {}", ended.describe()))
    }
}

/// The worker's whole life. Gives the exit status.
fn work(options: &Options, kinds: &[&bundle::Kind], scene: &Scene) -> u8 {
    match measure_all(options, kinds, scene) {
        Ok(code) => code,
        Err(Stop::Interrupted) => {
            eprintln!("coracle-bench: interrupted; clearing up");
            130
        }
        Err(Stop::Broken(message)) => {
            eprintln!("coracle-bench: {message}");
            1
        }
    }
}

fn measure_all(options: &Options, kinds: &[&bundle::Kind], scene: &Scene) -> Result<u8, Stop> {
    let broken = Stop::Broken;
    sys::become_subreaper().map_err(|e| broken(format!("become a subreaper: {e}")))?;
    let own = std::env::current_exe().map_err(|e| broken(format!("find this program: {e}")))?;
    let beside = |name: &str| own.with_file_name(name);
    let peers = peers_folder(options).map_err(broken)?;
    let runc = peers.join("bin/runc");
    let amount = Amount {
        run: options.rounds,
        lifecycle: options.lifecycle_rounds,
        inspect: options.inspect_rounds,
        warm_up: options.warm_up,
        pause: Duration::from_millis(options.pause),
    };
    let mut bench = Bench::new(scene, amount, &beside("coracle-bench-launch")).map_err(broken)?;
    let load_before = load();
    let mut reports = Vec::new();
    let coracles = coracles(options, scene).map_err(broken)?;
    for kind in kinds {
        let contestants =
            contestants(options, kind, scene, &peers, &beside("floor"), &coracles).map_err(broken)?;
        let bundles = bundle::make(kind, &scene.folder, &runc, Path::new("/bin/busybox")).map_err(broken)?;
        if reports.is_empty() {
            introduce(&contestants);
            if !has_floor(options) {
                println!("{:<20} left out: it makes cgroups of version 1 only, and without systemd", "floor");
            }
        }
        let mut results: Vec<Results> = contestants.iter().map(|_| Results::default()).collect();
        let say = |what: &str| eprintln!("measuring {what}, bundle {}", kind.name);
        bench.measure(&contestants, &bundles, &mut results, &say)?;
        let report = BundleReport {
            name: kind.name.to_owned(),
            about: kind.about.to_owned(),
            targets: kind.targets,
            contestants,
            results,
        };
        print!("{}", report::table(&report));
        reports.push(report);
    }
    println!(
        "\nPeak memory below {} KiB can't be seen. Load: {load_before} before, {} after.",
        bench.launcher_kib,
        load()
    );
    let left = scene.containers_left();
    if !left.is_empty() {
        println!("FAILED: cgroups were left behind: {}", left.join(" "));
    }
    if let Some(path) = &options.json {
        let mut all = report::json(&reports);
        all["host"] = host(&load_before);
        all["left_behind"] = json!(left);
        let text = serde_json::to_string_pretty(&all).map_err(|e| Stop::Broken(e.to_string()))?;
        fs::write(path, text + "\n").map_err(|e| Stop::Broken(format!("write {}: {e}", path.display())))?;
    }
    let failed = reports.iter().flat_map(|r| &r.results).any(|r| !r.failures.is_empty());
    Ok(u8::from(failed || !left.is_empty()))
}

fn peers_folder(options: &Options) -> Result<PathBuf, String> {
    let folder = options
        .peers
        .clone()
        .or_else(|| std::env::var_os("CORACLE_PEERS").map(PathBuf::from))
        .ok_or("no folder of peers: set CORACLE_PEERS to where integration/peers/fetch has put them")?;
    if folder.join(".complete").exists() {
        Ok(folder)
    } else {
        Err(format!("the peers are not in {}: run integration/peers/fetch", folder.display()))
    }
}

/// Coracle as it was built, and a copy that the filesystem protects from writers, which needs no sealed copy of
/// itself.
fn coracles(options: &Options, scene: &Scene) -> Result<Vec<Contestant>, String> {
    let Some(coracle) = &options.coracle else {
        return Ok(Vec::new());
    };
    let plain = Contestant::new("coracle", coracle, Role::Subject, &scene.state)?;
    let (copy, how) = scene.protected_copy(coracle)?;
    let mut installed = Contestant::new("coracle installed", &copy, Role::Subject, &scene.state)?;
    installed.version = format!("{} ({how})", installed.version);
    Ok(vec![plain, installed])
}

/// All that are compared with one kind of bundle, in the order of the tables.
fn contestants(
    options: &Options,
    kind: &bundle::Kind,
    scene: &Scene,
    peers: &Path,
    floor: &Path,
    coracles: &[Contestant],
) -> Result<Vec<Contestant>, String> {
    let mut all = Vec::new();
    let state = &scene.state;
    if let Some(needed) = kind.floor.filter(|_| has_floor(options)) {
        let floor = options.floor.as_deref().unwrap_or(floor);
        let with = |more: &str| -> Vec<String> {
            needed.iter().map(|s| (*s).to_owned()).chain(more.split_whitespace().map(str::to_owned)).collect()
        };
        all.push(Contestant::new("floor", floor, Role::Floor(with("")), state)?);
        for variant in &options.floor_variant {
            all.push(Contestant::new(&format!("floor {variant}"), floor, Role::Floor(with(variant)), state)?);
        }
    }
    all.extend(coracles.iter().cloned());
    for name in ["crun", "runc"] {
        all.push(Contestant::new(name, &peers.join("bin").join(name), Role::Peer, state)?);
    }
    for also in &options.also {
        let (name, path) = also.split_once('=').ok_or_else(|| format!("--also {also}: must be NAME=PATH"))?;
        all.push(Contestant::new(name, Path::new(path), Role::Peer, state)?);
    }
    for contestant in &mut all {
        contestant.systemd = options.systemd;
    }
    Ok(all)
}

/// Whether the floor can do here what the others do: it makes cgroups of version 1, by itself.
fn has_floor(options: &Options) -> bool {
    !options.systemd && !Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

fn introduce(contestants: &[Contestant]) {
    for contestant in contestants {
        let version = if contestant.version.is_empty() { "-" } else { &contestant.version };
        println!("{:<20} {version}  {}", contestant.name, contestant.program.display());
    }
}

fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().unwrap_or("?").to_owned()
}

fn host(load_before: &str) -> Value {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    json!({
        "kernel": read("/proc/sys/kernel/osrelease"),
        "processors": std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        "load_before": load_before,
        "load_after": load(),
    })
}
