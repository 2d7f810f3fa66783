//! `coracle start`.

use super::{Arguments, ID, Subcommand};
use crate::cli::globals::Context;
use crate::container;
use crate::error::Result;

/// The arguments of `start`.
#[derive(Debug, clap::Args)]
pub(crate) struct Start {
    /// The container
    #[arg(value_name = ID)]
    id: String,
}

impl Subcommand for Start {
    const NAME: &'static str = "start";
    const ABOUT: &'static str = "Start the process of a created container";
    const ARGUMENTS: Arguments = Arguments::Exactly(1);

    fn run(self, context: &Context) -> Result<i32> {
        container::start(&context.store, &self.id)?;
        Ok(0)
    }
}
