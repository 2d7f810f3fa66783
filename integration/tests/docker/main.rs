//! Docker 26 with the runtime under test as its default runtime, driven by its own command line.
//!
//! Each check runs on a daemon whose default runtime is the program under test by `--add-runtime`, and again on one
//! whose default runtime is the shim `io.containerd.coracle.v2`, when that was built. The yardstick is a daemon with
//! runc, on which a check that failed is run too: when it fails there as well, it says nothing and is skipped. That the
//! checks pass with runc is shown by running them with `CORACLE_BIN` set to it.
//!
//! Docker's default seccomp profile is on in all of them.

mod build;
mod cluster;
mod daemons;
mod exec;
mod files;
mod life;
mod network;
mod process;
mod run;
mod watch;

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, OnceLock};

use coracle_integration::engine::containerd::{ShimRuntime, our_shim};
use coracle_integration::engine::docker::{self, Docker, Kind};
use coracle_integration::engine::{judge, outcome};
use coracle_integration::{Checked, Runtime, skip, trial_without_runtime};
use libtest_mimic::Trial;

/// A check that a daemon does its work with its runtime: a function that panics when it does not.
type Check = fn(&Docker);

/// Makes a list of checks and their names out of functions.
macro_rules! checks {
    ($($module:ident::$name:ident),* $(,)?) => {
        [$((concat!(stringify!($module), "::", stringify!($name)), $module::$name as Check)),*]
    };
}

fn main() -> ExitCode {
    let checks = checks![
        run::shows_output_and_exit_status,
        run::in_a_terminal,
        run::passes_standard_input,
        run::with_environment_directory_and_entrypoint,
        run::of_what_is_not_there_is_127,
        run::of_what_is_not_executable_is_126,
        run::with_a_memory_limit,
        run::below_a_cgroup_of_its_own,
        run::beyond_its_memory_is_killed_and_reported,
        run::with_limits_of_the_processor,
        run::with_a_limit_of_processes,
        run::with_sysctls,
        run::with_hostname_and_hosts,
        run::with_an_init_that_reaps,
        run::with_the_runtime_of_the_option,
        run::many_at_once,
        process::as_another_user,
        process::with_capabilities_added_and_dropped,
        process::privileged,
        process::with_ulimits_and_a_score,
        process::with_seccomp_profiles,
        process::without_new_privileges,
        process::with_devices,
        process::with_the_pid_namespaces_of_others,
        process::with_the_ipc_namespaces_of_others,
        process::with_the_network_namespaces_of_others,
        process::with_the_names_of_the_host,
        process::with_a_cgroup_namespace,
        files::a_read_only_root_with_tmpfs,
        files::bind_mounts_and_their_options,
        files::a_read_only_bind_mount_is_so_below,
        files::propagation_from_the_host,
        files::a_named_volume_lives_on,
        files::parts_of_volumes_and_volumes_of_others,
        files::masked_and_read_only_paths,
        files::copy_to_and_from,
        files::commit_diff_and_export,
        exec::shows_output_and_exit_status_of_exec,
        exec::of_what_is_not_there,
        exec::in_a_terminal_of_its_own,
        exec::with_user_directory_and_environment,
        exec::with_privileges,
        exec::detached,
        exec::reads_standard_input,
        exec::many_execs_at_once,
        life::create_start_and_remove,
        life::stop_ends_it_in_time_and_says_how,
        life::stop_kills_what_ignores_the_signal,
        life::kill_sends_a_signal,
        life::restart_gives_a_new_process,
        life::restart_policies,
        life::pause_and_unpause,
        life::update_of_limits,
        life::attach_and_detach,
        life::signals_of_the_client_are_passed_on,
        life::wait_gives_the_exit_status,
        life::rm_by_force_leaves_nothing,
        life::starts_that_race,
        watch::logs,
        watch::top,
        watch::stats,
        watch::events,
        watch::health,
        network::bridge_with_names,
        network::connect_and_disconnect,
        network::published_ports,
        build::with_the_old_builder,
        cluster::compose_up_and_down,
        cluster::a_service_of_a_swarm,
        cluster::a_registry,
        daemons::containers_outlive_the_daemon,
        daemons::with_a_mapped_user_namespace,
        daemons::with_containerds_image_store,
        daemons::with_a_runtime_of_a_type_and_options,
    ];
    // What these start has a runtime of its own, and knows no shims.
    let without_shim = checks![build::with_buildkit, build::with_buildah];
    let mut tests: Vec<Trial> = Vec::new();
    for (name, check) in checks.into_iter().chain(without_shim) {
        tests.push(trial(name, check, Choice::Program));
    }
    for (name, check) in checks {
        tests.push(trial(name, check, Choice::Shim));
    }
    let code = coracle_integration::run_tests(tests);
    let left: Vec<String> =
        DAEMONS.iter().filter_map(OnceLock::get).flatten().flat_map(Docker::stop).collect();
    if !left.is_empty() {
        eprintln!("left behind: {left:?}");
        return ExitCode::FAILURE;
    }
    code
}

/// By the order of [`Choice`]: the daemon that all checks of a choice share, or why there is none.
static DAEMONS: [OnceLock<Option<Docker>>; 3] = [const { OnceLock::new() }; 3];

/// The runtime that a daemon has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Choice {
    /// The program under test.
    Program,
    /// Our shim.
    Shim,
    /// runc, as Docker has it.
    Yardstick,
}

impl Choice {
    /// What the daemon is told; an error says what is missing on this machine.
    fn kind(self) -> Result<Kind, String> {
        let programs = docker::programs()?;
        match self {
            Self::Program => {
                let binary = Runtime::binary_under_test();
                let binary =
                    binary.canonicalize().map_err(|error| format!("{}: {error}", binary.display()))?;
                Ok(Kind::Program(binary))
            }
            Self::Shim => {
                let program = our_shim()?;
                Ok(Kind::Shim { name: ShimRuntime::CORACLE.kind, program })
            }
            Self::Yardstick => Ok(Kind::Program(programs.join("bin/runc"))),
        }
    }

    /// The daemon, which is started when the first check asks for it.
    fn daemon(self, kind: Kind) -> &'static Docker {
        let daemon = DAEMONS[self as usize].get_or_init(|| match outcome_of_start(kind) {
            Ok(docker) => Some(docker),
            Err(why) => {
                eprintln!("a Docker daemon did not start: {why}");
                None
            }
        });
        daemon.as_ref().expect("the daemon started")
    }
}

/// A daemon, or why it didn't start: a panic inside `get_or_init` would be tried again by every check.
fn outcome_of_start(kind: Kind) -> Result<Docker, String> {
    let mut started = None;
    outcome(|| started = Some(Docker::start(kind)))?;
    started.ok_or_else(|| "it gave no daemon".into())
}

/// The test of one check with one choice.
fn trial(name: &'static str, check: Check, choice: Choice) -> Trial {
    let title = if choice == Choice::Shim { format!("shim::{name}") } else { name.to_owned() };
    trial_without_runtime(title, move || -> Checked {
        let kind = match choice.kind() {
            Ok(kind) => kind,
            Err(why) => return skip(why),
        };
        if Runtime::binary_under_test().file_name().is_some_and(|name| name == "runc") {
            // The yardstick proves the check itself, so here nothing is excused.
            check(choice.daemon(kind));
            return Ok(());
        }
        let tested = outcome(|| check(choice.daemon(kind)));
        judge(&tested, || yardstick(name, check))
    })
}

/// How the check ended with runc. It runs once, whichever test asks first.
fn yardstick(name: &'static str, check: Check) -> Result<(), String> {
    type Outcomes = HashMap<&'static str, Arc<OnceLock<Result<(), String>>>>;
    static OUTCOMES: Mutex<Option<Outcomes>> = Mutex::new(None);
    let outcomes = || OUTCOMES.lock().expect("no check runs while this is held");
    let mine = outcomes().get_or_insert_default().entry(name).or_default().clone();
    mine.get_or_init(|| {
        let kind = Choice::Yardstick.kind()?;
        outcome(|| check(Choice::Yardstick.daemon(kind)))
    })
    .clone()
}
