//! The one error type of the runtime.
//!
//! It owns how a failure is told: what was being done, to what, where in `config.json` the wish
//! stood, why it failed and, where we know, what to do about it. It promises that [`Error`]
//! prints as one line, since engines show only the last line of the log.

use std::fmt;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// A result whose error is the runtime's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The class of a failure: what a caller other than a person needs to tell apart.
///
/// The command line turns it into an exit status, the shim into a ttrpc code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// `config.json`, a process file or an option is wrong.
    Config,
    /// The kernel, or something on this host, refused.
    System,
    /// No container of that id is known.
    NotFound,
    /// A container of that id is there already.
    Exists,
    /// The container's state does not allow the operation (not running, paused, already started).
    State,
    /// Coracle does not do this, here or at all.
    Unsupported,
}

/// What went wrong. See the module's page. It is serialisable, since the container's side of a clone tells the
/// host's side of its failures.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Error {
    kind: Kind,
    message: String,
    place: Option<String>,
    #[serde(with = "errno_number")]
    errno: Option<Errno>,
    hint: Option<String>,
}

/// An errno as its number.
mod errno_number {
    use rustix::io::Errno;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    pub fn serialize<S: Serializer>(errno: &Option<Errno>, serializer: S) -> Result<S::Ok, S::Error> {
        errno.map(Errno::raw_os_error).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Errno>, D::Error> {
        Ok(Option::<i32>::deserialize(deserializer)?.map(Errno::from_raw_os_error))
    }
}

impl Error {
    /// A failure told by `message` alone.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), place: None, errno: None, hint: None }
    }

    /// A system call failed with `errno` while `doing` something: "mount tmpfs on /dev/shm".
    pub fn os(errno: Errno, doing: impl Into<String>) -> Self {
        let hint = match errno {
            Errno::MFILE => Some("the caller's limit of open files is too low: ulimit -n".to_owned()),
            Errno::NFILE => {
                Some("the whole system has too many files open: /proc/sys/fs/file-max".to_owned())
            }
            _ => None,
        };
        Self { errno: Some(errno), hint, ..Self::new(Kind::System, doing) }
    }

    /// The value at `place` of `config.json` (`mounts[3].source`) is wrong; `problem` says how and what
    /// would be right.
    pub fn config(place: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { place: Some(place.into()), ..Self::new(Kind::Config, problem) }
    }

    /// The same error, with the place in `config.json` that asked for what failed.
    #[must_use]
    pub fn at(mut self, place: impl Into<String>) -> Self {
        self.place.get_or_insert_with(|| place.into());
        self
    }

    /// The same error, with what the reader can do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint.get_or_insert_with(|| hint.into());
        self
    }

    /// The same error, told as part of a larger operation: "create the cgroup".
    #[must_use]
    pub fn while_doing(mut self, doing: impl fmt::Display) -> Self {
        self.message = format!("{doing}: {}", self.message);
        self
    }

    /// The same error, with at most `most` bytes of each of its texts.
    #[must_use]
    pub fn shortened(&self, most: usize) -> Self {
        let cut = |text: &str| {
            if text.len() <= most {
                return text.to_owned();
            }
            format!("{}…", (0..=most).rev().find_map(|end| text.get(..end)).unwrap_or_default())
        };
        Self {
            message: cut(&self.message),
            place: self.place.as_deref().map(cut),
            hint: self.hint.as_deref().map(cut),
            ..self.clone()
        }
    }

    /// The class of the failure.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The same for a caller who gave `below` (`process`) in a `document` of its own, and not in `config.json`: the place
    /// becomes part of the message, with the document's name.
    #[must_use]
    pub fn of_document(mut self, below: &str, document: &str) -> Self {
        let is_there = |place: &String| {
            place.strip_prefix(below).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        if let Some(place) = self.place.take_if(|place| is_there(place)) {
            self.message = match self.kind {
                Kind::Config => format!("{place} of {document}: {}", self.message),
                _ => format!("{} ({place} of {document})", self.message),
            };
        }
        self
    }

    /// The errno of the system call that failed, if one did.
    pub fn errno(&self) -> Option<Errno> {
        self.errno
    }

    /// The place in `config.json` that asked for what failed, if it is known.
    pub fn place(&self) -> Option<&str> {
        self.place.as_deref()
    }

    /// What to do about it, if it is known.
    pub fn advice(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.place, self.kind) {
            (Some(place), Kind::Config) => write!(f, "config.json: {place}: {}", one_line(&self.message))?,
            _ => write!(f, "{}", one_line(&self.message))?,
        }
        if let Some(errno) = self.errno {
            write!(f, ": {}", describe(errno))?;
        }
        if let (Some(place), false) = (&self.place, self.kind == Kind::Config) {
            write!(f, " ({place} in config.json)")?;
        }
        match &self.hint {
            Some(hint) => write!(f, "; {}", one_line(hint)),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

/// The text of an errno as Go and runc write it: lower case, without the number.
pub fn describe(errno: Errno) -> String {
    let text = std::io::Error::from(errno).to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => format!("errno {}", errno.raw_os_error()),
    }
}

/// Line breaks would make the last line of a log, which engines show, only a part of the error.
fn one_line(text: &str) -> String {
    text.replace('\n', " ")
}

/// Adds what was being done to the error of a system call.
pub trait Doing<T> {
    /// Turns an error into the runtime's, told with `doing`: "open /proc/self/cgroup".
    fn doing<S: Into<String>>(self, doing: impl FnOnce() -> S) -> Result<T>;
}

impl<T> Doing<T> for Result<T, Errno> {
    fn doing<S: Into<String>>(self, doing: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|errno| Error::os(errno, doing()))
    }
}

impl<T> Doing<T> for Result<T, std::io::Error> {
    fn doing<S: Into<String>>(self, doing: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|error| match Errno::from_io_error(&error) {
            Some(errno) => Error::os(errno, doing()),
            None => Error::new(Kind::System, format!("{}: {error}", doing().into())),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_document_that_its_place_is_in() {
        let of = |error: Error| error.of_document("process", "the request").to_string();
        let wrong = Error::config("process.cwd", "it must be absolute");
        assert_eq!(of(wrong), "process.cwd of the request: it must be absolute");
        let failed = Error::os(Errno::NOENT, "execute /x").at("process.args[0]");
        assert_eq!(of(failed), "execute /x (process.args[0] of the request): no such file or directory");
        assert_eq!(of(Error::config("processes", "no")), "config.json: processes: no");
    }

    #[test]
    fn an_error_names_operation_place_errno_and_advice_in_one_line() {
        let error = Error::os(Errno::NOENT, "open the source /nowhere")
            .at("mounts[3].source")
            .hint("make the file\nfirst");
        assert_eq!(
            error.to_string(),
            "open the source /nowhere: no such file or directory (mounts[3].source in config.json); make the file first"
        );
    }

    #[test]
    fn a_config_error_begins_with_its_place() {
        let error = Error::config("process.cwd", "\"tmp\" is not absolute; it must begin with /");
        assert_eq!(
            error.to_string(),
            "config.json: process.cwd: \"tmp\" is not absolute; it must begin with /"
        );
    }

    #[test]
    fn the_first_place_told_is_the_most_exact_one() {
        let error = Error::config("mounts[0].type", "unknown").at("mounts");
        assert_eq!(error.place(), Some("mounts[0].type"));
    }
}
