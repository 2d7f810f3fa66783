//! `coracle features`.

use super::{Arguments, Subcommand};
use crate::cli::globals::Context;
use crate::cli::output;
use crate::container;
use crate::error::Result;

/// `features` has neither flags nor arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Features {}

impl Subcommand for Features {
    const NAME: &'static str = "features";
    const ABOUT: &'static str = "Print what this runtime can do, as JSON";
    const DETAILS: &'static str = "The document is the one of the runtime specification (features.md).";
    const ARGUMENTS: Arguments = Arguments::Exactly(0);

    fn run(self, _: &Context) -> Result<i32> {
        let document = container::Features::here();
        output::print(&(output::pretty(&document, "    ")? + "\n"))?;
        Ok(0)
    }
}
