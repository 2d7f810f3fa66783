//! `coracle ps`.

use std::io::ErrorKind;
use std::process::Command;

use super::list::Format;
use super::{Arguments, ID, Subcommand};
use crate::cli::globals::Context;
use crate::cli::output;
use crate::container;
use crate::error::{Doing, Error, Kind, Result};

/// The flags and arguments of `ps`.
#[derive(Debug, clap::Args)]
pub(crate) struct Ps {
    /// Print a table, or the pids as json
    #[arg(long, short, value_name = "FORMAT", default_value = "table", value_parser = Format::parse)]
    format: Format,

    /// The container
    #[arg(value_name = ID)]
    id: String,

    /// Options of ps(1) for the table [default: -ef]
    #[arg(value_name = "PS-OPTION")]
    options: Vec<String>,
}

impl Subcommand for Ps {
    const NAME: &'static str = "ps";
    const ABOUT: &'static str = "List the processes of a container";
    const DETAILS: &'static str = "The table is that of the host's ps(1), which must show a column PID, with the \
        container's processes only. Everything after the container's name is an option of ps(1).";
    const ARGUMENTS: Arguments = Arguments::AtLeast(1);

    fn run(self, context: &Context) -> Result<i32> {
        if self.format == Format::Json && !self.options.is_empty() {
            return Err(Error::new(Kind::Config, "options of ps(1) were given with --format json")
                .hint("leave out one of them: JSON has the pids only"));
        }
        let pids = container::pids(&context.store, &self.id)?;
        let text = match self.format {
            Format::Json => output::json_list(pids)?,
            Format::Table => filter(&host_processes(&self.options)?, &pids)?,
        };
        output::print(&text)?;
        Ok(0)
    }
}

/// What the host's `ps` says of all processes that `options` select.
fn host_processes(options: &[String]) -> Result<String> {
    let options: Vec<&str> =
        if options.is_empty() { vec!["-ef"] } else { options.iter().map(String::as_str).collect() };
    let doing = || format!("run ps {}", options.join(" "));
    let result = Command::new("ps").args(&options).output();
    if result.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound) {
        return Err(Error::new(Kind::System, "run ps: no such program in $PATH")
            .hint("install procps, or use --format json"));
    }
    let output = result.doing(doing)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Error::new(Kind::Config, format!("{}: {}: {}", doing(), output.status, said.trim())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The heading of `table` and its rows about `pids`.
fn filter(table: &str, pids: &[i32]) -> Result<String> {
    let mut lines = table.lines();
    let heading = lines.next().unwrap_or_default();
    let column = heading.split_whitespace().position(|title| title == "PID").ok_or_else(|| {
        Error::new(Kind::Config, "couldn't find PID field in ps output")
            .hint("let ps show the column pid, as with -o pid,args")
    })?;
    let mut text = format!("{heading}\n");
    for line in lines {
        let pid = line.split_whitespace().nth(column).and_then(|field| field.parse().ok());
        if pid.is_some_and(|pid| pids.contains(&pid)) {
            text.push_str(line);
            text.push('\n');
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_containers_processes_are_shown() {
        let table =
            "UID   PID  PPID CMD\nroot    1     0 init\nroot   12     1 sleep 1\n\nroot  123    12 12\n";
        assert_eq!(filter(table, &[12, 4]).unwrap(), "UID   PID  PPID CMD\nroot   12     1 sleep 1\n");
    }

    #[test]
    fn a_table_without_pids_is_an_error() {
        for table in ["", "COMMAND\nsleep\n"] {
            let error = filter(table, &[1]).unwrap_err().to_string();
            assert!(error.starts_with("couldn't find PID field in ps output"));
        }
    }
}
