//! `coracle plan`.

use std::path::PathBuf;

use super::{Arguments, Subcommand};
use crate::cli::globals::Context;
use crate::cli::log::printable;
use crate::cli::options::{any_path, directory};
use crate::cli::output;
use crate::container;
use crate::error::Result;

/// The flags of `plan`.
#[derive(Debug, clap::Args)]
pub(crate) struct Plan {
    /// The bundle: the directory with config.json and the root filesystem
    #[arg(long, short, value_name = "DIR", default_value = ".", value_parser = any_path())]
    bundle: PathBuf,

    /// The name of the configuration in the bundle
    #[arg(long, short = 'f', value_name = "NAME", default_value = "config.json")]
    config: String,

    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

impl Subcommand for Plan {
    const NAME: &'static str = "plan";
    const ABOUT: &'static str = "Show what a bundle would do on this host, without doing it";
    const DETAILS: &'static str = "The bundle is checked, and each step is listed in its order: namespaces, cgroup, \
        mounts, devices, limits, capabilities, the program. Nothing is changed.";
    const ARGUMENTS: Arguments = Arguments::Exactly(0);

    fn run(self, context: &Context) -> Result<i32> {
        let plan = container::plan(&directory(self.bundle), &self.config, &context.settings)?;
        let text = if self.json { output::pretty(&plan.json, "  ")? } else { plan.text };
        let text: String = text.lines().flat_map(|line| [printable(line), "\n".to_owned()]).collect();
        output::print(&text)?;
        Ok(0)
    }
}
