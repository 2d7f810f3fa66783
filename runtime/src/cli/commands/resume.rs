//! `coracle resume`.

use super::{Arguments, ID, Subcommand};
use crate::cli::globals::Context;
use crate::container;
use crate::error::Result;

/// The arguments of `resume`.
#[derive(Debug, clap::Args)]
pub(crate) struct Resume {
    /// The container
    #[arg(value_name = ID)]
    id: String,
}

impl Subcommand for Resume {
    const NAME: &'static str = "resume";
    const ABOUT: &'static str = "Let the processes of a paused container go on";
    const ARGUMENTS: Arguments = Arguments::Exactly(1);

    fn run(self, context: &Context) -> Result<i32> {
        container::resume(&context.store, &self.id)?;
        Ok(0)
    }
}
