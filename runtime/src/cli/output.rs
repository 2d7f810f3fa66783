//! What commands print on standard output.

use std::io::Write;

use serde::Serialize;
use serde_json::ser::{PrettyFormatter, Serializer};

use crate::error::{Doing, Error, Kind, Result};

/// Prints `text`, at once.
pub(super) fn print(text: &str) -> Result<()> {
    write(text.as_bytes())
}

/// Writes `bytes` to standard output, at once.
pub(super) fn write(bytes: &[u8]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).doing(|| "write to standard output")
}

/// `value` as JSON with each level indented by `indent`, without a line's end.
pub(super) fn pretty(value: &impl Serialize, indent: &str) -> Result<String> {
    let mut bytes = Vec::with_capacity(4096);
    let mut serializer =
        Serializer::with_formatter(&mut bytes, PrettyFormatter::with_indent(indent.as_bytes()));
    value.serialize(&mut serializer).map_err(|error| unwritable(&error))?;
    String::from_utf8(bytes).map_err(|error| unwritable(&error))
}

/// `value` as JSON in one line, with its end.
pub(super) fn json_line(value: &impl Serialize) -> Result<String> {
    let mut text = serde_json::to_string(value).map_err(|error| unwritable(&error))?;
    text.push('\n');
    Ok(text)
}

/// As [`json_line`], for a list; an empty one is `null`, as Go and so runc write it.
pub(super) fn json_list<T: Serialize>(list: Vec<T>) -> Result<String> {
    json_line(&Some(list).filter(|list| !list.is_empty()))
}

fn unwritable(error: &dyn std::error::Error) -> Error {
    Error::new(Kind::System, format!("write as JSON: {error}"))
}
