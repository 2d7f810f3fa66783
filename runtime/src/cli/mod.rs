//! The command line: argv to one command, what it prints, and its exit status.
//!
//! It is runc's command line, which engines and scripts speak, with Coracle's own additions. This module owns
//! the way from argv to a command and from an error to an exit status; each command is a file in `commands`,
//! with its flags defined once, by clap, for parsing, help, man pages and completions alike. It promises that a
//! call builds the definition of the named command only, that no option is accepted and then ignored, and
//! that bad input ends in an error.

mod commands;
mod globals;
mod log;
mod normalise;
mod options;
mod output;
mod values;

use std::ffi::OsString;

use clap::{ArgMatches, Args, Command, FromArgMatches};

use crate::error::{Error, Kind, Result};
use crate::seal::Writers;
use crate::sys::signal::hear_of_children;
use crate::version::{COMMIT, SPEC_VERSION, VERSION};
use globals::{Context, Globals};
use normalise::{Flags, Help, Line, Placement};

const ABOUT: &str = "A low-level OCI container runtime";
const LONG_ABOUT: &str = "Coracle makes and runs containers as the OCI runtime specification describes them. \
    Engines such as containerd, Docker and Podman call it; it can be used by hand, too.\n\n\
    A container is made from a bundle: a directory with a file config.json and a root filesystem. \
    `coracle spec` writes a config.json to start from, `coracle plan` shows what a bundle would do on this \
    host, and `coracle run ID` runs it.";

/// One command, as clap's derived definition plus what the runtime adds.
trait Subcommand: Args {
    /// Its name in argv.
    const NAME: &'static str;
    /// One line for lists.
    const ABOUT: &'static str;
    /// More for its own help, after that line.
    const DETAILS: &'static str = "";
    /// How many arguments it takes.
    const ARGUMENTS: Arguments;
    /// What begins the text of its errors.
    const FAILED: &'static str = "";
    /// The exit status of its errors.
    const ERROR_STATUS: u8 = 1;
    /// Whether it makes a process that enters a container, and so must run from an image that such a process can't write.
    const ENTERS: bool = false;
    /// The group that it belongs to: `seccomp` for `coracle seccomp compile`.
    const GROUP: &'static str = "";

    /// Does it, and gives the exit status.
    fn run(self, context: &Context) -> Result<i32>;
}

/// How many arguments a command takes.
#[derive(Debug, Clone, Copy)]
enum Arguments {
    /// That many.
    Exactly(usize),
    /// From the first to the second number.
    Between(usize, usize),
    /// That many or more, where all after the first belongs to somebody else's command line.
    AtLeast(usize),
}

impl Arguments {
    fn placement(self) -> Placement {
        match self {
            Self::Exactly(arguments) | Self::Between(_, arguments) => Placement::Anywhere { arguments },
            Self::AtLeast(_) => Placement::First,
        }
    }

    /// The text of runc for a wrong number, if `given` is one.
    fn problem(self, name: &str, given: usize) -> Option<String> {
        let problem = match self {
            Self::Exactly(count) if given != count => format!("exactly {count}"),
            Self::Between(least, _) | Self::AtLeast(least) if given < least => {
                format!("a minimum of {least}")
            }
            Self::Between(_, most) if given > most => format!("a maximum of {most}"),
            _ => return None,
        };
        Some(format!("coracle: \"{name}\" requires {problem} argument(s)"))
    }
}

/// A row of the table of commands: a [`Subcommand`] without its type.
struct Entry {
    group: &'static str,
    name: &'static str,
    about: &'static str,
    details: &'static str,
    arguments: Arguments,
    failed: &'static str,
    error_status: u8,
    enters: bool,
    define: fn(Command) -> Command,
    what: What,
}

/// What stands behind a name.
enum What {
    /// A command.
    Command(fn(&ArgMatches, &Context) -> Result<i32>),
    /// A group of commands, one of which is named next.
    Group(&'static [Entry]),
}

impl Entry {
    const fn of<S: Subcommand>() -> Self {
        Self {
            group: S::GROUP,
            name: S::NAME,
            about: S::ABOUT,
            details: S::DETAILS,
            arguments: S::ARGUMENTS,
            failed: S::FAILED,
            error_status: S::ERROR_STATUS,
            enters: S::ENTERS,
            define: S::augment_args,
            what: What::Command(|matches, context| {
                S::from_arg_matches(matches).map_err(|error| misuse(&error))?.run(context)
            }),
        }
    }

    /// A group of commands.
    const fn group(
        name: &'static str,
        about: &'static str,
        details: &'static str,
        entries: &'static [Entry],
    ) -> Self {
        Self {
            group: "",
            name,
            about,
            details,
            arguments: Arguments::AtLeast(1),
            failed: "",
            error_status: 1,
            enters: false,
            define: |command| command,
            what: What::Group(entries),
        }
    }

    /// All words that name it: `seccomp compile`.
    fn full_name(&self) -> String {
        format!("{} {}", self.group, self.name).trim_start().to_owned()
    }

    /// The flags and arguments, which parsing needs.
    fn definition(&self) -> Command {
        (self.define)(Command::new(self.name).args_override_self(true))
    }

    /// The definition with all that help and manuals say.
    fn documented(&self) -> Command {
        let command = self
            .definition()
            .about(self.about)
            .bin_name(format!("coracle {}", self.full_name()))
            .max_term_width(100);
        let command = match self.details {
            "" => command.long_about(self.about),
            details => command.long_about(format!("{}\n\n{details}", self.about)),
        };
        match self.what {
            What::Command(_) => command,
            What::Group(entries) => command
                .subcommands(entries.iter().map(Entry::documented))
                .subcommand_value_name("COMMAND")
                .disable_help_subcommand(true),
        }
    }
}

/// What ends a call without a command's own exit status.
enum Stop {
    /// Help was asked for.
    Help(Box<Command>, Help),
    /// The version was asked for.
    Version,
    /// The command line is wrong; the help of what was named is shown.
    Usage(Error, Box<Command>),
    /// There is no such command.
    NoCommand(Error),
    /// The command, or what comes before it, failed.
    Failed(Error, Option<&'static Entry>),
}

/// Runs the command of `argv`, whose first word is the program's name, and gives the exit status: the command's
/// own, or 1 for an error, 255 for an error of `exec`, 3 for an unknown command.
pub fn main(argv: impl IntoIterator<Item = OsString>) -> i32 {
    let ready = crate::sys::process::fill_standard_streams().and_then(|()| hear_of_children());
    if let Err(errno) = ready {
        // There is nowhere to say it.
        return errno.raw_os_error() & 0xff;
    }
    let status = match dispatch(argv.into_iter().skip(1)) {
        Ok(status) => status,
        Err(stop) => end(stop),
    };
    // An exit status has eight bits (exit(3)).
    status & 0xff
}

fn dispatch(words: impl Iterator<Item = OsString>) -> Result<i32, Stop> {
    let definition = Globals::augment_args(Command::new("coracle").args_override_self(true));
    let usage = |error| Stop::Usage(error, Box::new(command()));
    let line = normalise::split(&Flags::of(&definition), words, Placement::First)
        .map_err(|misuse| usage(Error::new(Kind::Config, misuse.to_string())))?;
    let globals = matches(definition, line.flags, Vec::new())
        .and_then(|matches| Globals::from_arg_matches(&matches))
        .map_err(|error| usage(misuse(&error)))?;
    if globals.version {
        return Err(Stop::Version);
    }
    globals.start_log().map_err(|error| Stop::Failed(error, None))?;
    let mut words = line.arguments.into_iter();
    let name = match words.next() {
        Some(name) if line.help.is_none() => name,
        _ => return Err(Stop::Help(Box::new(command()), line.help.unwrap_or(Help::Long))),
    };
    if matches!(name.to_str(), Some("help" | "h")) {
        let topic = match words.next() {
            Some(topic) => {
                let mut entry = find(&commands::ALL, &topic)?;
                if let (What::Group(entries), Some(topic)) = (&entry.what, words.next()) {
                    entry = find(entries, &topic)?;
                }
                entry.documented()
            }
            None => command(),
        };
        return Err(Stop::Help(Box::new(topic), Help::Long));
    }
    let mut entry = find(&commands::ALL, &name)?;
    let run = loop {
        match entry.what {
            What::Command(run) => break run,
            What::Group(entries) => {
                words = split(entry, words)?.arguments.into_iter();
                let name = words.next().unwrap_or_default();
                entry = find(entries, &name)?;
            }
        }
    };
    if entry.enters {
        // Before anything else is done: it may begin this program anew.
        crate::seal::ensure(Writers::Ordinary).map_err(|error| Stop::Failed(error, Some(entry)))?;
    }
    let arguments = parse(entry, words)?;
    ::log::debug!("{} of coracle {VERSION}", entry.full_name());
    let context = globals.context().map_err(|error| Stop::Failed(error, Some(entry)))?;
    run(&arguments, &context).map_err(|error| Stop::Failed(error, Some(entry)))
}

/// The arguments that `words` are to `entry`.
fn parse(entry: &'static Entry, words: impl Iterator<Item = OsString>) -> Result<ArgMatches, Stop> {
    let line = split(entry, words)?;
    matches(entry.definition(), line.flags, line.arguments)
        .map_err(|error| Stop::Usage(misuse(&error), Box::new(entry.documented())))
}

/// Takes `words` apart as `entry` wants them.
fn split(entry: &'static Entry, words: impl Iterator<Item = OsString>) -> Result<Line, Stop> {
    let usage = |text| Stop::Usage(Error::new(Kind::Config, text), Box::new(entry.documented()));
    let line = normalise::split(&Flags::of(&entry.definition()), words, entry.arguments.placement())
        .map_err(|misuse| usage(misuse.to_string()))?;
    if let Some(help) = line.help {
        return Err(Stop::Help(Box::new(entry.documented()), help));
    }
    match entry.arguments.problem(&entry.full_name(), line.arguments.len()) {
        Some(problem) => Err(usage(problem)),
        None => Ok(line),
    }
}

fn matches(
    definition: Command,
    flags: Vec<OsString>,
    arguments: Vec<OsString>,
) -> Result<ArgMatches, clap::Error> {
    let separator = (!arguments.is_empty()).then(|| OsString::from("--"));
    definition.no_binary_name(true).try_get_matches_from(flags.into_iter().chain(separator).chain(arguments))
}

/// clap's error as one of the runtime's, in one line and runc's words.
fn misuse(error: &clap::Error) -> Error {
    use clap::error::{ContextKind, ContextValue, ErrorKind};

    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let wrong_value = matches!(error.kind(), ErrorKind::InvalidValue | ErrorKind::ValueValidation);
    let text = match (context(ContextKind::InvalidArg), context(ContextKind::InvalidValue)) {
        (Some(argument), Some(value)) if wrong_value => {
            let flag = argument.split([' ', '=']).next().unwrap_or_default().trim_start_matches('-');
            let reason = std::error::Error::source(error)
                .map_or_else(|| "it is not accepted".to_owned(), ToString::to_string);
            format!("invalid value {value:?} for flag -{flag}: {reason}")
        }
        _ => {
            let text = error.to_string();
            text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
        }
    };
    Error::new(Kind::Config, text)
}

fn find(entries: &'static [Entry], name: &std::ffi::OsStr) -> Result<&'static Entry, Stop> {
    entries.iter().find(|entry| name == entry.name).ok_or_else(|| {
        let name = name.to_string_lossy();
        let error = Error::new(Kind::Config, format!("No help topic for '{name}'"));
        let near = suggest(&name, entries.iter().map(|entry| entry.name));
        let near = near.and_then(|near| entries.iter().find(|entry| entry.name == near));
        Stop::NoCommand(error.hint(match (near, entries.first()) {
            (Some(near), _) => {
                format!("there is no such command; did you mean `coracle {}`?", near.full_name())
            }
            (None, Some(Entry { group, .. })) if !group.is_empty() => {
                format!("there is no such command; `coracle help {group}` lists those that are")
            }
            _ => "there is no such command; `coracle help` lists those that are".to_owned(),
        }))
    })
}

/// The one of `names` that was probably meant by `name`.
fn suggest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<String> {
    names
        .map(|known| (strsim::jaro_winkler(name, known), known))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|one, other| one.0.total_cmp(&other.0))
        .map(|(_, known)| known.to_owned())
}

/// Tells why the call ends, and gives its exit status.
fn end(stop: Stop) -> i32 {
    match stop {
        Stop::Help(mut command, Help::Short) => printed("help", &command.render_help().to_string()),
        Stop::Help(mut command, Help::Long) => printed("help", &command.render_long_help().to_string()),
        Stop::Version => printed("version", &version()),
        Stop::Usage(error, mut command) => {
            let text = error.to_string();
            // As runc: the help goes to standard output, and the error's own record comes last.
            let _ = output::print(&format!("Incorrect Usage: {text}\n\n{}", command.render_help()));
            log::failed("", &text, &error);
            1
        }
        Stop::NoCommand(error) => {
            log::failed("", &error.to_string(), &error);
            3
        }
        Stop::Failed(error, None) => {
            log::failed("", &error.to_string(), &error);
            1
        }
        Stop::Failed(error, Some(entry)) => {
            log::failed(&entry.full_name(), &format!("{}{error}", entry.failed), &error);
            i32::from(entry.error_status)
        }
    }
}

fn printed(what: &str, text: &str) -> i32 {
    match output::print(text) {
        Ok(()) => 0,
        Err(error) => {
            log::failed(what, &error.to_string(), &error);
            1
        }
    }
}

/// The version in runc's lines, which containerd and Docker read.
fn version() -> String {
    format!("coracle version {VERSION}\ncommit: {}\nspec: {SPEC_VERSION}\n", COMMIT.unwrap_or("unknown"))
}

/// The whole command line, with every command: for the list of commands, man pages and completions.
pub fn command() -> Command {
    let command = Globals::augment_args(Command::new("coracle").max_term_width(100));
    let command = command.about(ABOUT).long_about(LONG_ABOUT);
    command.subcommands(commands::ALL.iter().map(Entry::documented)).subcommand_value_name("COMMAND")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_definition_holds_together() {
        command().debug_assert();
        for entry in all() {
            entry.documented().debug_assert();
        }
    }

    /// Every command and every group.
    fn all() -> Vec<&'static Entry> {
        let mut found: Vec<&Entry> = commands::ALL.iter().collect();
        found.extend(commands::ALL.iter().flat_map(|entry| match entry.what {
            What::Group(entries) => entries,
            What::Command(_) => &[],
        }));
        found
    }

    #[test]
    fn the_commands_of_a_group_say_so() {
        for entry in &commands::ALL {
            let What::Group(entries) = entry.what else { continue };
            assert!(entries.iter().all(|inner| inner.group == entry.name), "{}", entry.name);
        }
    }

    #[test]
    fn every_flag_is_documented() {
        for entry in all() {
            for argument in entry.definition().get_arguments() {
                assert!(argument.get_help().is_some(), "{} {}", entry.name, argument.get_id());
            }
        }
    }

    #[test]
    fn a_wrong_number_of_arguments_is_told_in_the_words_of_runc() {
        let check = |arguments: Arguments, given| arguments.problem("x", given);
        assert_eq!(check(Arguments::Exactly(1), 1), None);
        assert_eq!(check(Arguments::Exactly(1), 0).unwrap(), "coracle: \"x\" requires exactly 1 argument(s)");
        assert_eq!(
            check(Arguments::Between(1, 2), 0).unwrap(),
            "coracle: \"x\" requires a minimum of 1 argument(s)"
        );
        assert_eq!(
            check(Arguments::Between(1, 2), 3).unwrap(),
            "coracle: \"x\" requires a maximum of 2 argument(s)"
        );
        assert_eq!(check(Arguments::AtLeast(1), 9), None);
    }

    #[test]
    fn the_version_has_the_lines_that_engines_read() {
        let text = version();
        let starts: Vec<&str> = text.lines().map(|line| line.split_once(' ').unwrap().0).collect();
        assert_eq!(starts, ["coracle", "commit:", "spec:"]);
        assert!(text.starts_with("coracle version "));
    }

    #[test]
    fn a_value_that_does_not_parse_is_told_with_its_flag() {
        let words = ["create", "--preserve-fds", "abc", "id"].map(OsString::from);
        match dispatch(words.into_iter()) {
            Err(Stop::Usage(error, _)) => {
                let text = error.to_string();
                assert!(text.starts_with("invalid value \"abc\" for flag -preserve-fds: "), "{text}");
            }
            _ => panic!("abc is no number of descriptors"),
        }
    }

    #[test]
    fn near_names_are_suggested() {
        let names = || ["start", "state", "delete"].into_iter();
        assert_eq!(suggest("strat", names()).as_deref(), Some("start"));
        assert_eq!(suggest("xyz", names()), None);
    }
}
