//! What the JSON parser has to say, in words that fit the spec.
//!
//! A syntax error is told with its line and column; a wrong type with the path of the value, what stands there and
//! what belongs there.

use serde_json::error::Category;
use serde_path_to_error::Segment;

use super::problems::member_place;
use crate::error::{Error, Kind};

/// A text that is no JSON.
pub(super) fn syntax(text: &[u8], error: &serde_json::Error) -> Error {
    let (line, column) = (error.line(), error.column());
    let what = without_position(&error.to_string());
    let message = match error.classify() {
        _ if text.iter().all(u8::is_ascii_whitespace) => "the file is empty".to_owned(),
        Category::Eof => format!("JSON ends too early, at line {line}: {what}"),
        _ => format!("JSON error at line {line}, column {column}: {what}"),
    };
    Error::new(Kind::Config, message)
}

/// A document whose value at some path is not of the type that the spec gives it.
pub(super) fn types(error: &serde_path_to_error::Error<serde_json::Error>) -> Error {
    let inner = error.inner();
    if matches!(inner.classify(), Category::Syntax | Category::Eof) {
        return syntax(b"{", inner);
    }
    let whole = without_position(&inner.to_string());
    let path = error.path().iter().fold(String::new(), |path, step| match step {
        Segment::Seq { index } => format!("{path}[{index}]"),
        Segment::Map { key } => member_of(&path, key),
        Segment::Enum { .. } | Segment::Unknown => path,
    });
    if let Some(name) = quoted_after(&whole, "missing field `") {
        let path = member_of(&path, name);
        let what = memory_policy_words(&path);
        return Error::config(path, format!("{what}is missing, but required"));
    }
    if let Some(name) = quoted_after(&whole, "duplicate field `") {
        return Error::config(member_of(&path, name), "is there twice; keep one");
    }
    let problem = format!("{}{}", memory_policy_words(&path), reword(&whole));
    if path.is_empty() {
        Error::new(Kind::Config, format!("config.json {problem}"))
    } else {
        Error::config(path, problem)
    }
}

/// What runc begins a complaint of that part of a memory policy with.
fn memory_policy_words(path: &str) -> &'static str {
    match path.strip_prefix("linux.memoryPolicy.") {
        Some("mode") => "invalid memory policy mode: ",
        Some(part) if part.starts_with("flags") => "invalid memory policy flag: ",
        _ => "",
    }
}

fn member_of(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { member_place(path, name) }
}

fn quoted_after<'a>(text: &'a str, opening: &str) -> Option<&'a str> {
    text.strip_prefix(opening)?.split('`').next()
}

/// The message without the ` at line 3 column 7` that serde_json ends it with.
fn without_position(message: &str) -> String {
    match message.rfind(" at line ") {
        Some(end) => message.get(..end).unwrap_or(message).to_owned(),
        None => message.to_owned(),
    }
}

/// Puts serde's words for types into the spec's.
fn reword(message: &str) -> String {
    let message = super::tolerate::names_as_in_spec(message);
    let Some((found, expected)) = message.split_once(", expected ") else { return message };
    if let Some(value) = found.strip_prefix("unknown variant ") {
        return format!("{} is not a known value; use {expected}", value.replace('`', "\""));
    }
    let value = found.trim_start_matches("invalid type: ").trim_start_matches("invalid value: ");
    format!("is {}, but must be {}", article(value), kind(expected))
}

fn article(value: &str) -> String {
    let value = value.replace('`', "");
    if ["null", "map", "sequence", "string", "integer", "boolean", "floating"]
        .iter()
        .all(|kind| !value.starts_with(kind))
    {
        return value;
    }
    let value = value.replacen("map", "object", 1).replacen("sequence", "list", 1);
    let value = value.replacen("floating point", "number", 1);
    match value.chars().next() {
        Some('n') if value == "null" => value,
        Some('i' | 'o') => format!("an {value}"),
        _ => format!("a {value}"),
    }
}

fn kind(expected: &str) -> String {
    match expected {
        "u8" => "an integer from 0 to 255".to_owned(),
        "u16" => "an integer from 0 to 65535".to_owned(),
        "u32" => "an integer from 0 to 4294967295".to_owned(),
        "u64" | "usize" => "an integer of 0 or more".to_owned(),
        "i32" => "an integer from -2147483648 to 2147483647".to_owned(),
        "i64" | "isize" => "an integer".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" => "an object".to_owned(),
        "path string" => "a string with a path".to_owned(),
        other if other.starts_with("struct ") => "an object".to_owned(),
        other => other.to_owned(),
    }
}
