//! `coracle create`.

use super::{Arguments, ID, Subcommand};
use crate::cli::globals::Context;
use crate::cli::options;
use crate::container;
use crate::error::Result;

/// The flags and arguments of `create`.
#[derive(Debug, clap::Args)]
pub(crate) struct Create {
    #[command(flatten)]
    options: options::CreateFlags,

    /// The name of the new container, of its own on this host
    #[arg(value_name = ID)]
    id: String,
}

impl Subcommand for Create {
    const NAME: &'static str = "create";
    const ABOUT: &'static str = "Create a container from a bundle; its process waits for `start`";
    const DETAILS: &'static str = "The bundle's config.json says what the container is; `coracle spec` writes one \
        to start from, and `coracle plan` shows what it would do on this host.";
    const ARGUMENTS: Arguments = Arguments::Exactly(1);
    const ENTERS: bool = true;
    const FAILED: &'static str = "coracle create failed: ";

    fn run(self, context: &Context) -> Result<i32> {
        container::create(&context.store, &context.settings, &self.id, &self.options.options()?)?;
        Ok(0)
    }
}
