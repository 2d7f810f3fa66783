//! `coracle run`.

use std::path::PathBuf;

use super::{Arguments, ID, Subcommand};
use crate::cli::globals::Context;
use crate::cli::options;
use crate::container::{self, RunOptions};
use crate::error::Result;

/// The flags and arguments of `run`.
#[derive(Debug, clap::Args)]
pub(crate) struct Run {
    #[command(flatten)]
    options: options::CreateFlags,

    /// Return once the container runs
    #[arg(long, short)]
    detach: bool,

    /// Keep the container after its process has ended
    #[arg(long)]
    keep: bool,

    /// Leave the container's orphaned processes to the next subreaper or init
    #[arg(long)]
    no_subreaper: bool,

    /// Write a seccomp profile to FILE that allows the system calls that the container makes
    #[arg(long, value_name = "FILE")]
    seccomp_learn: Option<PathBuf>,

    /// The name of the new container, of its own on this host
    #[arg(value_name = ID)]
    id: String,
}

impl Subcommand for Run {
    const NAME: &'static str = "run";
    const ABOUT: &'static str = "Create a container, start it, and wait for its end";
    const DETAILS: &'static str = "Signals are passed on to the container's process, and its exit status becomes \
        this command's (128 and the signal's number, when a signal ended it). The container is deleted then, \
        unless --keep is given. With --detach it runs on, and `coracle delete` is left to the caller.\n\n\
        With --seccomp-learn no call is denied: linux.seccomp does not apply, every call is recorded, which makes them \
        slow, and at the container's end FILE is a profile to put there. Processes of `coracle exec` are not recorded.";
    const ARGUMENTS: Arguments = Arguments::Exactly(1);
    const ENTERS: bool = true;
    const FAILED: &'static str = "coracle run failed: ";

    fn run(self, context: &Context) -> Result<i32> {
        let options = RunOptions {
            create: self.options.options()?,
            detach: self.detach,
            keep: self.keep,
            no_subreaper: self.no_subreaper,
            learn: self.seccomp_learn.as_deref().map(options::absolute).transpose()?,
        };
        container::run(&context.store, &context.settings, &self.id, &options)
    }
}
