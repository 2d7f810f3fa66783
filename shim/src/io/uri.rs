//! What the text of a standard stream in a request means. Pure.
//!
//! Empty text is no stream. A path, or a `fifo://` URI, is a FIFO that the client made. `file://` is a file to append
//! to. `binary://` and `binary-v2://` name a logger with its arguments as the query. (containerd,
//! `core/runtime/v2/README.md`, "Logging".)

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use coracle::error::{Error, Kind, Result};

/// Where a stream goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Nowhere: the process gets `/dev/null`.
    Null,
    /// A FIFO, or whatever else stands at the path.
    Path(PathBuf),
    /// A file to append to; it and the directories above it are made where they aren't there.
    File(PathBuf),
    /// A logger.
    Binary(Program),
}

/// A logger's command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// The executable's absolute path.
    pub path: PathBuf,
    /// Its arguments: each key of the query, and its value.
    pub arguments: Vec<OsString>,
    /// `binary-v2`: it must write a byte to say that it is ready. Otherwise closing the descriptor does.
    pub says_ready: bool,
}

/// Reads the text of an output stream; `stream` is its name for messages.
pub fn parse_output(stream: &str, text: &str) -> Result<Target> {
    let Some((scheme, rest)) = text.split_once("://") else { return path(stream, text) };
    match scheme {
        "fifo" => Ok(Target::Path(local_path(stream, text, rest)?)),
        "file" => Ok(Target::File(local_path(stream, text, rest)?)),
        "binary" | "binary-v2" => {
            let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
            Ok(Target::Binary(Program {
                path: local_path(stream, text, place)?,
                arguments: arguments(query),
                says_ready: scheme == "binary-v2",
            }))
        }
        _ => Err(unknown(stream, text, "a path, fifo://, file://, binary:// or binary-v2://")),
    }
}

/// Reads the text of standard input, which comes from a FIFO or nowhere.
pub fn parse_input(text: &str) -> Result<Target> {
    let Some((scheme, rest)) = text.split_once("://") else { return path("stdin", text) };
    match scheme {
        "fifo" => Ok(Target::Path(local_path("stdin", text, rest)?)),
        _ => Err(unknown("stdin", text, "a path or fifo://")),
    }
}

fn path(stream: &str, text: &str) -> Result<Target> {
    match text {
        "" => Ok(Target::Null),
        _ if text.starts_with('/') => Ok(Target::Path(PathBuf::from(text))),
        _ => Err(Error::new(
            Kind::Config,
            format!("{stream} is {text:?}: the path of a FIFO must be absolute"),
        )),
    }
}

fn unknown(stream: &str, text: &str, known: &str) -> Error {
    Error::new(Kind::Unsupported, format!("{stream} is {text:?}: this scheme isn't supported"))
        .hint(format!("give {known}"))
}

/// The path of a URI without a host: `///run/x%20y`, after the scheme's colon.
fn local_path(stream: &str, text: &str, rest: &str) -> Result<PathBuf> {
    let path = decode(rest.split('?').next().unwrap_or_default(), false);
    if !path.as_bytes().starts_with(b"/") || path.as_bytes().contains(&0) {
        return Err(Error::new(Kind::Config, format!("{stream} is {text:?}: it names no absolute path"))
            .hint("write three slashes: file:///var/log/x"));
    }
    Ok(PathBuf::from(path))
}

/// `k=v&k2=v2` as `k v k2 v2`, in their order.
fn arguments(query: &str) -> Vec<OsString> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .flat_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            [decode(key, true), decode(value, true)]
        })
        .collect()
}

/// Takes percent-encoding away; in a query a plus sign is a space. What isn't two hexadecimal digits stays as it is.
fn decode(text: &str, is_query: bool) -> OsString {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        match (first, after) {
            (b'%', [high, low, after @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                bytes.push(digit(*high) << 4 | digit(*low));
                rest = after;
            }
            (b'+', _) if is_query => bytes.push(b' '),
            _ => bytes.push(first),
        }
    }
    OsString::from_vec(bytes)
}

fn digit(character: u8) -> u8 {
    char::from(character).to_digit(16).unwrap_or_default() as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn out(text: &str) -> Target {
        parse_output("stdout", text).unwrap()
    }

    #[test]
    fn empty_text_is_no_stream() {
        assert_eq!(out(""), Target::Null);
        assert_eq!(parse_input("").unwrap(), Target::Null);
    }

    #[test]
    fn a_path_is_taken_as_it_stands_and_a_uri_is_decoded() {
        assert_eq!(out("/run/a%20b"), Target::Path("/run/a%20b".into()));
        assert_eq!(out("fifo:///run/a%20b"), Target::Path("/run/a b".into()));
        assert_eq!(out("file:///var/log/a+b"), Target::File("/var/log/a+b".into()));
        assert_eq!(parse_input("fifo:///run/in").unwrap(), Target::Path("/run/in".into()));
    }

    #[test]
    fn a_loggers_arguments_are_keys_and_values_in_their_order() {
        let expected = Program {
            path: "/usr/bin/logger".into(),
            arguments: ["to", "a b&c", "debug", "", "id", "1=2"].map(OsString::from).to_vec(),
            says_ready: false,
        };
        assert_eq!(out("binary:///usr/bin/logger?to=a+b%26c&debug&id=1=2"), Target::Binary(expected.clone()));
        assert_eq!(
            out("binary-v2:///usr/bin/logger"),
            Target::Binary(Program { arguments: Vec::new(), says_ready: true, ..expected })
        );
    }

    #[test]
    fn a_broken_escape_stays_as_it_is() {
        assert_eq!(out("file:///a%2"), Target::File("/a%2".into()));
        assert_eq!(out("file:///a%zz"), Target::File("/a%zz".into()));
    }

    #[test]
    fn what_is_not_known_is_refused_with_what_is() {
        let error = parse_output("stderr", "stream://x").unwrap_err();
        assert_eq!(error.kind(), Kind::Unsupported);
        assert!(
            error.to_string().contains("stderr") && error.to_string().contains("binary-v2://"),
            "{error}"
        );
        for wrong in ["relative", "file://host/path", "file://", "fifo:///a%00b"] {
            assert_eq!(parse_output("stdout", wrong).unwrap_err().kind(), Kind::Config, "{wrong}");
        }
        assert!(parse_input("file:///x").is_err());
    }
}
