//! `coracle pause`.

use super::{Arguments, ID, Subcommand};
use crate::cli::globals::Context;
use crate::container;
use crate::error::Result;

/// The arguments of `pause`.
#[derive(Debug, clap::Args)]
pub(crate) struct Pause {
    /// The container
    #[arg(value_name = ID)]
    id: String,
}

impl Subcommand for Pause {
    const NAME: &'static str = "pause";
    const ABOUT: &'static str = "Suspend all processes of a container";
    const ARGUMENTS: Arguments = Arguments::Exactly(1);

    fn run(self, context: &Context) -> Result<i32> {
        container::pause(&context.store, &self.id)?;
        Ok(0)
    }
}
