//! `coracle list`.

use super::{Arguments, Subcommand, state};
use crate::cli::globals::Context;
use crate::cli::log::printable;
use crate::cli::output;
use crate::container::{self, ContainerView};
use crate::error::Result;

/// The flags of `list`.
#[derive(Debug, clap::Args)]
pub(crate) struct List {
    /// Print a table or json
    #[arg(long, short, value_name = "FORMAT", default_value = "table", value_parser = Format::parse)]
    format: Format,

    /// Print the ids only
    #[arg(long, short)]
    quiet: bool,
}

/// The form of a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// Columns with a heading.
    Table,
    /// One line of JSON.
    Json,
}

impl Format {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match text {
            "table" => Ok(Self::Table),
            "json" => Ok(Self::Json),
            _ => Err("invalid format option; it must be table or json".to_owned()),
        }
    }
}

impl Subcommand for List {
    const NAME: &'static str = "list";
    const ABOUT: &'static str = "List the containers below the state directory (--root)";
    const ARGUMENTS: Arguments = Arguments::Exactly(0);

    fn run(self, context: &Context) -> Result<i32> {
        let views = container::list(&context.store)?;
        let text = match self.format {
            _ if self.quiet => views.iter().flat_map(|view| [view.id.as_str(), "\n"]).collect(),
            Format::Table => table(&views),
            Format::Json => output::json_list(views.iter().map(state::Document::of).collect())?,
        };
        output::print(&text)?;
        Ok(0)
    }
}

/// Columns as runc's: three spaces between them, none narrower than twelve.
fn table(views: &[ContainerView]) -> String {
    const HEADING: [&str; 6] = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"];
    let mut rows = vec![HEADING.map(str::to_owned)];
    rows.extend(views.iter().map(|view| {
        [
            printable(&view.id),
            view.pid.to_string(),
            printable(&view.status),
            printable(&view.bundle),
            printable(&view.created),
            printable(&view.owner),
        ]
    }));
    let mut widths = [0; HEADING.len()];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (cell.chars().count() + 3).max(12).max(*width);
        }
    }
    let mut text = String::new();
    for row in rows {
        let [cells @ .., last] = &row;
        for (cell, width) in cells.iter().zip(widths) {
            text.push_str(cell);
            text.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.chars().count())));
        }
        text.push_str(last);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_runcs_columns() {
        let view = ContainerView { owner: "root".into(), bundle: "/tmp/cl/a".into(), ..state::tests::view() };
        assert_eq!(
            table(&[view]),
            "ID          PID         STATUS      BUNDLE      CREATED                          OWNER\n\
             x           11668       created     /tmp/cl/a   2026-11-22T11:11:28.356503917Z   root\n"
        );
    }

    #[test]
    fn what_a_bundle_is_called_does_not_act_on_the_terminal() {
        let view = ContainerView { bundle: "/tmp/\u{1b}[2J".into(), ..state::tests::view() };
        assert!(table(&[view]).contains("/tmp/\\x1b[2J "));
    }

    #[test]
    fn an_empty_table_has_its_heading() {
        assert_eq!(table(&[]), "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n");
    }
}
