//! `coracle kill`.

use super::{Arguments, ID, Subcommand};
use crate::cli::globals::Context;
use crate::cli::values::signal;
use crate::container;
use crate::error::Result;

/// The flags and arguments of `kill`.
#[derive(Debug, clap::Args)]
pub(crate) struct Kill {
    /// Send the signal to every process of the container
    #[arg(long, short)]
    all: bool,

    /// The container
    #[arg(value_name = ID)]
    id: String,

    /// The signal: a number, a name of signal(7) with or without SIG, RTMIN+n or RTMAX-n
    #[arg(value_name = "SIGNAL", default_value = "TERM")]
    signal: String,
}

impl Subcommand for Kill {
    const NAME: &'static str = "kill";
    const ABOUT: &'static str = "Send a signal to a container's first process";
    const ARGUMENTS: Arguments = Arguments::Between(1, 2);

    fn run(self, context: &Context) -> Result<i32> {
        // An empty one is none, as for runc.
        let signal = if self.signal.is_empty() { libc::SIGTERM } else { signal::parse(&self.signal)? };
        container::kill(&context.store, &self.id, signal, self.all)?;
        Ok(0)
    }
}
