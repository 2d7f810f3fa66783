//! What is wrong with a document, gathered, and told in the order of the document.
//!
//! Checks run section by section, but the reader goes through the file from the top: [`Problems`] takes what every
//! check finds and, once, at the end, looks up where in the text each place stands. Only a document that is refused
//! pays for that, and one that is wrong all over, as an image may have it, not for more than a few.

use std::{collections::HashMap, fmt::Display};

use serde_json::value::RawValue;

use crate::error::{Error, Result};

/// What the checks found so far.
#[derive(Debug)]
pub(super) struct Problems {
    document: &'static str,
    refusals: Vec<Error>,
    /// How many more there are.
    further: usize,
    warnings: Vec<String>,
}

impl Default for Problems {
    fn default() -> Self {
        Self::in_document("config.json")
    }
}

impl Problems {
    /// No problems yet, in a document that warnings call `document`.
    pub(super) fn in_document(document: &'static str) -> Self {
        Self { document, refusals: Vec::new(), further: 0, warnings: Vec::new() }
    }

    /// The value at `place` makes the document unusable; `problem` says how and what would be right.
    pub(super) fn refuse(&mut self, place: impl Into<String>, problem: impl Into<String>) {
        if self.refusals.len() < MOST_REFUSALS {
            self.refusals.push(Error::config(place, problem));
        } else {
            self.further += 1;
        }
    }

    /// The user should hear of this about the value at `place`, but the container can run.
    pub(super) fn warn(&mut self, place: impl Display, warning: impl Display) {
        self.warnings.push(format!("{}: {place}: {warning}", self.document));
    }

    /// Refuses a NUL in any string that would reach the kernel, where it would cut the string short.
    ///
    /// Raw NULs are not JSON, so the text is searched for the escape and parsed again only when it is there.
    pub(super) fn refuse_nul(&mut self, text: &[u8]) {
        // Most documents have no backslash at all, which is quick to see.
        let escaped =
            |escape: &[u8]| text.split(|byte| *byte == b'\\').skip(1).any(|rest| rest.starts_with(escape));
        if !text.contains(&b'\\') || !escaped(b"u0000") {
            return;
        }
        let Ok(document) = serde_json::from_slice::<serde_json::Value>(text) else { return };
        for section in ["root", "mounts", "process", "hostname", "domainname", "hooks", "linux"] {
            if let Some(value) = document.get(section) {
                self.refuse_nul_in(value, section.to_owned());
            }
        }
    }

    fn refuse_nul_in(&mut self, value: &serde_json::Value, place: String) {
        use serde_json::Value;
        match value {
            // The seccomp compiler reads its section, and owns its strings.
            _ if place == "linux.seccomp" => {}
            Value::String(string) if string.contains('\0') => self.refuse(place, NUL),
            Value::Array(elements) => {
                for (index, element) in elements.iter().enumerate() {
                    self.refuse_nul_in(element, format!("{place}[{index}]"));
                }
            }
            Value::Object(members) => {
                for (key, member) in members {
                    if key.contains('\0') {
                        self.refuse(&place, format!("the key {key:?} has a NUL byte; remove it"));
                    }
                    self.refuse_nul_in(member, member_place(&place, key));
                }
            }
            _ => {}
        }
    }

    /// The warnings, or the first refusal in the order of the document `text`. What else is wrong is named in its
    /// advice, so that one run is enough to learn of everything.
    pub(super) fn finish(mut self, text: &[u8]) -> Result<Vec<String>> {
        if self.refusals.is_empty() {
            return Ok(self.warnings);
        }
        // Stable: two refusals of one place keep the order in which the checks found them.
        self.refusals.sort_by_cached_key(|refusal| offset_of(text, refusal.place().unwrap_or_default()));
        let mut refusals = self.refusals.into_iter();
        let Some(first) = refusals.next() else { return Ok(self.warnings) };
        let mut others: Vec<&str> = Vec::new();
        let rest: Vec<Error> = refusals.collect();
        for place in rest.iter().filter_map(Error::place) {
            if Some(place) != first.place() && !others.contains(&place) {
                others.push(place);
            }
        }
        if others.is_empty() {
            return Err(first);
        }
        let named = others.iter().take(OTHERS_NAMED).copied().collect::<Vec<_>>().join(", ");
        let advice = match others.len().saturating_sub(OTHERS_NAMED) + self.further {
            0 => format!("also wrong: {named}"),
            more => format!("also wrong: {named} and {more} more"),
        };
        Err(first.hint(advice))
    }
}

/// How many refusals are put into the order of the document: each takes reading it again.
const MOST_REFUSALS: usize = 16;

/// How many places beside the first one an error names.
const OTHERS_NAMED: usize = 5;

/// The problem with a string that has a NUL in it.
pub(super) const NUL: &str = "has a NUL byte, where the kernel would cut it short; remove it";

/// The place of the member `key` of the object at `place`: `linux.sysctl["net.core.somaxconn"]`, `process.cwd`.
pub fn member_place(place: &str, key: &str) -> String {
    if !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        format!("{place}.{key}")
    } else {
        format!("{place}[{key:?}]")
    }
}

/// Whether `text` has a value at `place` that is not `null`.
pub(super) fn has(text: &[u8], place: &str) -> bool {
    let found = locate(text, place).filter(|(_, exact)| *exact);
    found.and_then(|(offset, _)| text.get(offset..)).is_some_and(|value| !value.starts_with(b"null"))
}

/// Where the value at `place` begins in `text`, or what holds it when it is not there.
fn offset_of(text: &[u8], place: &str) -> usize {
    locate(text, place).map_or(usize::MAX, |(offset, _)| offset)
}

/// The offset of `place` or of the innermost value around it that is there; and whether it is `place` itself.
fn locate(text: &[u8], place: &str) -> Option<(usize, bool)> {
    let whole = std::str::from_utf8(text).ok()?;
    let mut value = whole;
    let mut rest = place;
    while let Some((step, after)) = next_step(rest) {
        match descend(value, &step) {
            Some(inner) => value = inner,
            None => return Some((value.as_ptr() as usize - whole.as_ptr() as usize, false)),
        }
        rest = after;
    }
    Some((value.as_ptr() as usize - whole.as_ptr() as usize, true))
}

/// One step into a document.
enum Step {
    Member(String),
    Element(usize),
}

/// Splits the first step off a place: `mounts`, `[3]`, `["a.b"]`.
fn next_step(place: &str) -> Option<(Step, &str)> {
    let place = place.strip_prefix('.').unwrap_or(place);
    if place.is_empty() {
        return None;
    }
    if let Some(quoted) = place.strip_prefix("[\"") {
        let (key, after) = quoted.split_once("\"]")?;
        return Some((Step::Member(key.replace("\\\"", "\"").replace("\\\\", "\\")), after));
    }
    if let Some(indexed) = place.strip_prefix('[') {
        let (index, after) = indexed.split_once(']')?;
        return Some((Step::Element(index.parse().ok()?), after));
    }
    let end = place.find(['.', '[']).unwrap_or(place.len());
    let (key, after) = place.split_at_checked(end)?;
    Some((Step::Member(key.to_owned()), after))
}

fn descend<'a>(value: &'a str, step: &Step) -> Option<&'a str> {
    match step {
        Step::Member(key) => {
            let members: HashMap<String, &'a RawValue> = serde_json::from_str(value).ok()?;
            members.get(key).map(|member| member.get())
        }
        Step::Element(index) => {
            let elements: Vec<&'a RawValue> = serde_json::from_str(value).ok()?;
            elements.get(*index).map(|element| element.get())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = br#"{"b": {"x.y": 1, "l": [10, {"k": 2}]}, "a": 3}"#;

    #[test]
    fn the_first_problem_in_the_file_is_told_first_and_the_others_are_named() {
        let mut problems = Problems::default();
        problems.refuse("a", "last in the file");
        problems.refuse("b.l[1].k", "second");
        problems.refuse(r#"b["x.y"]"#, "first");
        let error = problems.finish(TEXT).expect_err("there are refusals");
        assert_eq!(error.to_string(), r#"config.json: b["x.y"]: first; also wrong: b.l[1].k, a"#);
    }

    #[test]
    fn a_place_that_is_not_there_counts_as_what_would_hold_it() {
        assert_eq!(locate(TEXT, "b.l[1].missing.deeper"), Some((27, false)));
        assert_eq!(locate(TEXT, "b.l[1].k"), Some((33, true)));
        assert_eq!(locate(TEXT, r#"b["x.y"]"#), Some((14, true)));
        assert!(has(TEXT, "b.l[0]"));
        assert!(!has(TEXT, "b.l[2]"));
    }

    #[test]
    fn many_problems_are_counted_not_listed() {
        let mut problems = Problems::default();
        for index in 0..20 {
            problems.refuse(format!("m[{index}]"), "wrong");
        }
        let error = problems.finish(b"{}").expect_err("there are refusals");
        assert!(error.to_string().ends_with("m[5] and 14 more"), "{error}");
    }

    #[test]
    fn a_document_that_is_wrong_all_over_is_not_read_once_a_problem() {
        let text = format!(r#"{{"m": [{}0]}}"#, "0,".repeat(20_000));
        let mut problems = Problems::default();
        for index in 0..20_000 {
            problems.refuse(format!("m[{index}]"), "wrong");
        }
        let error = problems.finish(text.as_bytes()).expect_err("there are refusals");
        assert!(error.to_string().ends_with("m[5] and 19994 more"), "{error}");
    }
}
