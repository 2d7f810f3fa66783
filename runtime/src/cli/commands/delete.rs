//! `coracle delete`.

use super::{Arguments, ID, Subcommand};
use crate::cli::globals::Context;
use crate::container;
use crate::error::Result;

/// The flags and arguments of `delete`.
#[derive(Debug, clap::Args)]
pub(crate) struct Delete {
    /// Kill the container first, if it runs; what isn't there is no error
    #[arg(long, short)]
    force: bool,

    /// The container
    #[arg(value_name = ID)]
    id: String,
}

impl Subcommand for Delete {
    const NAME: &'static str = "delete";
    const ABOUT: &'static str = "Delete a stopped container and all that it holds";
    const ARGUMENTS: Arguments = Arguments::Exactly(1);

    fn run(self, context: &Context) -> Result<i32> {
        container::delete(&context.store, &self.id, self.force)?;
        Ok(0)
    }
}
