//! Go-style arguments to the one form that clap is given.
//!
//! Engines write runc's command lines, and runc's flags are Go's: `-no-subreaper` is `--no-subreaper`,
//! `--detach=false` is a flag, a flag may stand after the container's id, and a flag given twice counts
//! the last time. This module owns those rules. It is pure, and knows the flags from clap's own definitions,
//! so that no flag is written down twice. It promises that what comes out begins with flags in the form
//! `--name` or `--name=value`, and that no argument of a container's own command is ever taken for a flag.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Where the flags of a command may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Placement {
    /// Before, between and after the arguments; at most `arguments` of these are expected.
    Anywhere {
        /// The largest number of arguments that the command takes.
        arguments: usize,
    },
    /// Only before the first argument: all that follows it belongs to somebody else (`exec`, `ps`).
    First,
}

/// A command line, taken apart.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Line {
    /// The flags, each as `--name` or `--name=value`.
    pub(super) flags: Vec<OsString>,
    /// Everything that isn't a flag, in order.
    pub(super) arguments: Vec<OsString>,
    /// Whether help was asked for, and how much.
    pub(super) help: Option<Help>,
}

/// How much help is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Help {
    /// `-h`: a line a flag.
    Short,
    /// `--help`: all there is.
    Long,
}

/// What is wrong with a command line. Prints as runc's texts, which scripts know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Misuse {
    /// No such flag; perhaps the second was meant.
    Unknown(String, Option<String>),
    /// The flag takes a value, and none follows.
    NeedsValue(String),
    /// A value that isn't a boolean, and the flag it was given to.
    NotBoolean(String, String),
}

impl fmt::Display for Misuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Misuse::Unknown(flag, None) => write!(f, "flag provided but not defined: -{flag}"),
            Misuse::Unknown(flag, Some(near)) => {
                write!(f, "flag provided but not defined: -{flag}; did you mean --{near}?")
            }
            Misuse::NeedsValue(flag) => write!(f, "flag needs an argument: -{flag}"),
            Misuse::NotBoolean(value, flag) => {
                write!(f, "invalid boolean value \"{value}\" for -{flag}: it must be true or false")
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takes {
    /// A value, in the same argument after `=` or as the next one.
    Value,
    /// Nothing, or `=true` or `=false`; clap is told only that the flag is there.
    Presence,
    /// As `Presence`, where clap is told the boolean, since `false` isn't the same as absence.
    Boolean,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Flag {
    long: String,
    short: Option<u8>,
    takes: Takes,
}

/// The flags of one command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Flags(Vec<Flag>);

impl Flags {
    /// The flags that `command` defines.
    pub(super) fn of(command: &clap::Command) -> Self {
        let flags = command.get_arguments().filter_map(|argument| {
            let takes = match argument.get_num_args() {
                Some(count) if count.min_values() == 0 && count.max_values() > 0 => Takes::Boolean,
                _ if argument.get_action().takes_values() => Takes::Value,
                _ => Takes::Presence,
            };
            let short = argument.get_short().and_then(|short| u8::try_from(short).ok());
            Some(Flag { long: argument.get_long()?.to_owned(), short, takes })
        });
        Self(flags.collect())
    }

    /// As Go's: a flag of one letter is the short one, with one dash or two.
    fn find(&self, name: &[u8]) -> Option<usize> {
        self.0.iter().position(|flag| {
            flag.long.as_bytes() == name || matches!(name, [letter] if flag.short == Some(*letter))
        })
    }

    fn nearest(&self, name: &str) -> Option<String> {
        super::suggest(name, self.0.iter().map(|flag| flag.long.as_str()))
    }
}

/// Takes `words` apart by the `flags` of the command and their `placement`.
pub(super) fn split(
    flags: &Flags,
    words: impl IntoIterator<Item = OsString>,
    placement: Placement,
) -> Result<Line, Misuse> {
    Splitter { flags, booleans: Vec::new(), line: Line::default() }.split(words.into_iter(), placement)
}

struct Splitter<'a> {
    flags: &'a Flags,
    /// The last boolean given to each flag that was named.
    booleans: Vec<(usize, bool)>,
    line: Line,
}

impl Splitter<'_> {
    fn split(
        mut self,
        mut words: impl Iterator<Item = OsString>,
        placement: Placement,
    ) -> Result<Line, Misuse> {
        while let Some(word) = words.next() {
            let bytes = word.as_bytes();
            if bytes == b"--" {
                self.line.arguments.extend(words.by_ref());
            } else if bytes.len() < 2 || bytes[0] != b'-' {
                self.line.arguments.push(word);
                if placement == Placement::First {
                    self.line.arguments.extend(words.by_ref());
                }
            } else if !self.flag(bytes, &mut words)? {
                // `kill ID -9`: a word that is no flag may still be an argument, while one is expected.
                let given = self.line.arguments.len();
                match placement {
                    Placement::Anywhere { arguments } if given > 0 && given < arguments => {
                        self.line.arguments.push(word);
                    }
                    _ => return Err(self.unknown(bytes)),
                }
            }
        }
        for (index, value) in std::mem::take(&mut self.booleans) {
            let Some(flag) = self.flags.0.get(index) else { continue };
            match flag.takes {
                Takes::Boolean => self.line.flags.push(format!("--{}={value}", flag.long).into()),
                _ if value => self.line.flags.push(format!("--{}", flag.long).into()),
                _ => {}
            }
        }
        Ok(self.line)
    }

    /// Takes one word that begins with a dash, and its value; tells whether it is a flag.
    fn flag(&mut self, word: &[u8], words: &mut impl Iterator<Item = OsString>) -> Result<bool, Misuse> {
        let double = word.starts_with(b"--");
        let text = if double { &word[2..] } else { &word[1..] };
        let (name, value) = match text.iter().position(|byte| *byte == b'=') {
            Some(at) => (&text[..at], Some(&text[at + 1..])),
            None => (text, None),
        };
        if let Some(index) = self.flags.find(name) {
            self.found(index, name, value, words)?;
            return Ok(true);
        }
        let help = match name {
            b"h" => Some(Help::Short),
            b"help" => Some(Help::Long),
            _ => None,
        };
        if help.is_some() {
            self.line.help = help;
            return Ok(true);
        }
        if double { Ok(false) } else { self.cluster(text, words) }
    }

    /// Short flags behind one dash: `-td`, `-eA=B`, `-te A=B`. Go's flags don't have these; others' do.
    fn cluster(
        &mut self,
        letters: &[u8],
        words: &mut impl Iterator<Item = OsString>,
    ) -> Result<bool, Misuse> {
        let mut found = Vec::new();
        for (at, letter) in letters.iter().enumerate() {
            let Some(index) = self.flags.find(&[*letter]) else { return Ok(false) };
            if self.flags.0.get(index).is_some_and(|flag| flag.takes == Takes::Value) {
                let rest = &letters[at + 1..];
                let value = rest.strip_prefix(b"=").or_else(|| (!rest.is_empty()).then_some(rest));
                found.push((index, *letter, value));
                break;
            }
            found.push((index, *letter, None));
        }
        for (index, letter, value) in found {
            self.found(index, &[letter], value, words)?;
        }
        Ok(true)
    }

    fn found(
        &mut self,
        index: usize,
        name: &[u8],
        value: Option<&[u8]>,
        words: &mut impl Iterator<Item = OsString>,
    ) -> Result<(), Misuse> {
        let Some(flag) = self.flags.0.get(index) else { return Ok(()) };
        let shown = || String::from_utf8_lossy(name).into_owned();
        if flag.takes == Takes::Value {
            let value = match value {
                Some(value) => OsStr::from_bytes(value).to_owned(),
                None => words.next().ok_or_else(|| Misuse::NeedsValue(shown()))?,
            };
            let mut text = format!("--{}=", flag.long).into_bytes();
            text.extend_from_slice(value.as_bytes());
            self.line.flags.push(OsString::from_vec(text));
            return Ok(());
        }
        let value = match value {
            None => true,
            Some(text) => boolean(text)
                .ok_or_else(|| Misuse::NotBoolean(String::from_utf8_lossy(text).into_owned(), shown()))?,
        };
        self.booleans.retain(|(other, _)| *other != index);
        self.booleans.push((index, value));
        Ok(())
    }

    fn unknown(&self, word: &[u8]) -> Misuse {
        let text = String::from_utf8_lossy(word);
        let name = text.trim_start_matches('-').split('=').next().unwrap_or_default().to_owned();
        let near = self.flags.nearest(&name);
        Misuse::Unknown(name, near)
    }
}

/// A boolean as Go's `strconv.ParseBool` reads it.
pub(super) fn boolean(text: &[u8]) -> Option<bool> {
    match text {
        b"1" | b"t" | b"T" | b"true" | b"TRUE" | b"True" => Some(true),
        b"0" | b"f" | b"F" | b"false" | b"FALSE" | b"False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use clap::{Arg, ArgAction, Command};

    use super::*;

    const ONE: Placement = Placement::Anywhere { arguments: 1 };

    fn flags() -> Flags {
        let presence = |long: &'static str| Arg::new(long).long(long).action(ArgAction::SetTrue);
        Flags::of(
            &Command::new("test")
                .arg(presence("detach").short('d'))
                .arg(presence("tty").short('t'))
                .arg(presence("no-subreaper"))
                .arg(Arg::new("bundle").long("bundle").short('b'))
                .arg(Arg::new("env").long("env").short('e').action(ArgAction::Append))
                .arg(Arg::new("no-new-privs").long("no-new-privs").num_args(0..=1).require_equals(true))
                .arg(Arg::new("id")),
        )
    }

    fn try_split(words: &[&str], placement: Placement) -> Result<(Vec<String>, Vec<String>), String> {
        let words = words.iter().map(OsString::from);
        let text = |list: Vec<OsString>| list.into_iter().map(|word| word.into_string().unwrap()).collect();
        split(&flags(), words, placement)
            .map(|line| (text(line.flags), text(line.arguments)))
            .map_err(|misuse| misuse.to_string())
    }

    #[track_caller]
    fn check(words: &[&str], placement: Placement, flags: &[&str], arguments: &[&str]) {
        let (found, rest) = try_split(words, placement).unwrap();
        assert_eq!(
            (found, rest),
            (
                flags.iter().map(ToString::to_string).collect(),
                arguments.iter().map(ToString::to_string).collect()
            )
        );
    }

    #[test]
    fn a_long_flag_with_one_dash_is_a_long_flag() {
        check(
            &["-no-subreaper", "-bundle=/x", "-env", "A=B", "id"],
            ONE,
            &["--bundle=/x", "--env=A=B", "--no-subreaper"],
            &["id"],
        );
    }

    #[test]
    fn a_short_flag_takes_its_value_in_every_form() {
        for words in [&["-b", "/x"][..], &["-b=/x"], &["-b/x"], &["--b", "/x"], &["--b=/x"]] {
            check(words, ONE, &["--bundle=/x"], &[]);
        }
    }

    #[test]
    fn short_flags_may_be_clustered() {
        check(&["-tde", "A=B", "id"], ONE, &["--env=A=B", "--tty", "--detach"], &["id"]);
        check(&["-teA=B=C", "id"], ONE, &["--env=A=B=C", "--tty"], &["id"]);
    }

    #[test]
    fn flags_may_stand_after_the_id() {
        check(&["id", "-d", "--bundle", "/x"], ONE, &["--bundle=/x", "--detach"], &["id"]);
    }

    #[test]
    fn a_value_may_look_like_a_flag() {
        check(&["--bundle", "--detach", "id"], ONE, &["--bundle=--detach"], &["id"]);
    }

    #[test]
    fn nothing_after_the_first_argument_of_exec_is_a_flag() {
        check(
            &["-t", "id", "-d", "--", "--bundle"],
            Placement::First,
            &["--tty"],
            &["id", "-d", "--", "--bundle"],
        );
        check(&["--", "-id", "-d"], Placement::First, &[], &["-id", "-d"]);
    }

    #[test]
    fn two_dashes_end_the_flags() {
        check(&["-d", "--", "-t"], ONE, &["--detach"], &["-t"]);
    }

    #[test]
    fn a_boolean_flag_takes_a_value_and_the_last_one_counts() {
        check(&["--detach=true"], ONE, &["--detach"], &[]);
        check(&["--detach", "--detach=F"], ONE, &[], &[]);
        check(&["-d=0", "-d=1"], ONE, &["--detach"], &[]);
    }

    #[test]
    fn a_boolean_whose_absence_means_something_else_is_passed_on() {
        check(&["--no-new-privs=false"], ONE, &["--no-new-privs=false"], &[]);
        check(&["--no-new-privs", "id"], ONE, &["--no-new-privs=true"], &["id"]);
    }

    #[test]
    fn a_dash_word_is_an_argument_only_where_one_more_is_expected() {
        let two = Placement::Anywhere { arguments: 2 };
        check(&["id", "-9"], two, &[], &["id", "-9"]);
        assert_eq!(try_split(&["id", "-9"], ONE).unwrap_err(), "flag provided but not defined: -9");
        assert_eq!(try_split(&["-9", "id"], two).unwrap_err(), "flag provided but not defined: -9");
    }

    #[test]
    fn a_single_dash_is_an_argument() {
        check(&["-"], ONE, &[], &["-"]);
    }

    #[test]
    fn misuse_is_told_in_the_words_of_runc() {
        assert_eq!(
            try_split(&["--detahc"], ONE).unwrap_err(),
            "flag provided but not defined: -detahc; did you mean --detach?"
        );
        assert_eq!(try_split(&["-tx"], ONE).unwrap_err(), "flag provided but not defined: -tx");
        assert_eq!(try_split(&["id", "-b"], ONE).unwrap_err(), "flag needs an argument: -b");
        assert_eq!(
            try_split(&["--detach=maybe"], ONE).unwrap_err(),
            "invalid boolean value \"maybe\" for -detach: it must be true or false"
        );
    }

    #[test]
    fn help_is_seen_wherever_a_flag_may_stand() {
        let help =
            |words: [&str; 2], placement| split(&flags(), words.map(OsString::from), placement).unwrap().help;
        assert_eq!(help(["-h", "id"], ONE), Some(Help::Short));
        assert_eq!(help(["id", "--help"], ONE), Some(Help::Long));
        assert_eq!(help(["-help", "id"], Placement::First), Some(Help::Long));
        assert_eq!(help(["id", "--help"], Placement::First), None);
    }

    #[test]
    fn bytes_that_are_not_utf8_pass_unchanged() {
        let path = OsString::from_vec(b"--bundle=/\xff".to_vec());
        let line = split(&flags(), [path.clone(), OsString::from_vec(b"\xfe".to_vec())], ONE).unwrap();
        assert_eq!(line.flags, [path]);
        assert_eq!(line.arguments, [OsString::from_vec(b"\xfe".to_vec())]);
    }
}
