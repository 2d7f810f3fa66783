//! `org.systemd.property.*` annotations: properties of the unit in GVariant's text form.
//!
//! Pure. The forms that unit properties have are read: booleans, numbers (with or without a type
//! word or `@` type), strings, and arrays of one of these. A name in `…Sec` becomes `…USec`, as in
//! unit files.

use super::properties::{Property, PropertyValue};
use crate::error::{Error, Result};

const PREFIX: &str = "org.systemd.property.";

/// The property of an annotation; `None` for any other annotation.
pub fn property(key: &str, text: &str) -> Result<Option<Property>> {
    let Some(name) = key.strip_prefix(PREFIX) else { return Ok(None) };
    let place = || format!("annotations[{key:?}]");
    if name.len() < 3 || !name.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        return Err(Error::config(place(), format!("{name:?} is not the name of a unit property")));
    }
    let mut reader = Reader { rest: text };
    let value = reader.value(None).filter(|_| reader.rest.trim().is_empty()).ok_or_else(|| {
        Error::config(
            place(),
            format!(
                "{text:?} is not a GVariant value; write 'text', true, uint64 5 or ['a.service', 'b.service']"
            ),
        )
    })?;
    match name.strip_suffix("Sec").filter(|name| !name.ends_with('U')) {
        None => Ok(Some(Property::new(name, value))),
        Some(stem) => {
            let seconds = match value {
                PropertyValue::I32(seconds) => u64::try_from(seconds).ok(),
                PropertyValue::I64(seconds) => u64::try_from(seconds).ok(),
                PropertyValue::U32(seconds) => Some(u64::from(seconds)),
                PropertyValue::U64(seconds) => Some(seconds),
                PropertyValue::F64(seconds) if seconds >= 0.0 => {
                    return Ok(Some(Property::new(
                        format!("{stem}USec"),
                        PropertyValue::U64((seconds * 1e6) as u64),
                    )));
                }
                _ => None,
            };
            let microseconds = seconds
                .and_then(|seconds| seconds.checked_mul(1_000_000))
                .ok_or_else(|| Error::config(place(), format!("{text:?} is not a number of seconds")))?;
            Ok(Some(Property::new(format!("{stem}USec"), PropertyValue::U64(microseconds))))
        }
    }
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn value(&mut self, kind: Option<char>) -> Option<PropertyValue> {
        self.rest = self.rest.trim_start();
        if let Some(rest) = self.rest.strip_prefix('@') {
            let (kind, rest) = rest.split_once(' ')?;
            self.rest = rest;
            let mut letters = kind.chars();
            return match (letters.next()?, letters.next(), letters.next()) {
                ('a', Some(element), None) => self.value_of_array(Some(element)),
                (kind, None, None) => self.value(Some(kind)),
                _ => None,
            };
        }
        match self.rest.chars().next()? {
            '[' => self.value_of_array(kind),
            '\'' | '"' => {
                self.string().filter(|_| kind.is_none_or(|kind| kind == 's')).map(PropertyValue::Text)
            }
            _ => self.word(kind),
        }
    }

    fn word(&mut self, kind: Option<char>) -> Option<PropertyValue> {
        let end = self.rest.find([' ', ',', ']']).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        let named = match word {
            "boolean" => 'b',
            "int32" => 'i',
            "uint32" => 'u',
            "int64" => 'x',
            "uint64" => 't',
            "double" => 'd',
            "string" => 's',
            _ => return scalar(word, kind),
        };
        if kind.is_some_and(|kind| kind != named) {
            return None;
        }
        self.value(Some(named))
    }

    fn string(&mut self) -> Option<String> {
        let mut chars = self.rest.char_indices();
        let (_, quote) = chars.next()?;
        let mut text = String::new();
        while let Some((at, next)) = chars.next() {
            match next {
                '\\' => match chars.next()?.1 {
                    'n' => text.push('\n'),
                    't' => text.push('\t'),
                    escaped @ ('\\' | '\'' | '"') => text.push(escaped),
                    _ => return None,
                },
                next if next == quote => {
                    self.rest = self.rest.get(at + next.len_utf8()..)?;
                    return Some(text);
                }
                next => text.push(next),
            }
        }
        None
    }

    fn value_of_array(&mut self, mut element: Option<char>) -> Option<PropertyValue> {
        self.rest = self.rest.trim_start().strip_prefix('[')?;
        let mut values = Vec::new();
        loop {
            self.rest = self.rest.trim_start();
            if let Some(rest) = self.rest.strip_prefix(']') {
                self.rest = rest;
                return array(values, element);
            }
            if !values.is_empty() {
                self.rest = self.rest.strip_prefix(',')?;
            }
            let value = self.value(element)?;
            // The first element's type word speaks for all.
            if matches!(value, PropertyValue::U32(_)) {
                element = Some('u');
            }
            values.push(value);
        }
    }
}

fn scalar(word: &str, kind: Option<char>) -> Option<PropertyValue> {
    let signed = |word: &str| match word.strip_prefix("0x") {
        Some(hex) => i64::from_str_radix(hex, 16).ok(),
        None => word.parse::<i64>().ok(),
    };
    match kind {
        Some('b') | None if matches!(word, "true" | "false") => Some(PropertyValue::Bool(word == "true")),
        Some('u') => signed(word)?.try_into().ok().map(PropertyValue::U32),
        Some('x') => signed(word).map(PropertyValue::I64),
        Some('t') => match word.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16).ok().map(PropertyValue::U64),
            None => word.parse().ok().map(PropertyValue::U64),
        },
        Some('d') => word.parse().ok().map(PropertyValue::F64),
        Some('i') | None => match signed(word) {
            Some(number) => number.try_into().ok().map(PropertyValue::I32),
            None if kind.is_none() && word.contains(['.', 'e']) => word.parse().ok().map(PropertyValue::F64),
            None => None,
        },
        _ => None,
    }
}

fn array(values: Vec<PropertyValue>, element: Option<char>) -> Option<PropertyValue> {
    if values.is_empty() {
        return matches!(element, Some('s')).then(|| PropertyValue::Texts(Vec::new()));
    }
    let mut texts = Vec::new();
    let mut numbers = Vec::new();
    for value in values {
        match value {
            PropertyValue::Text(text) => texts.push(text),
            PropertyValue::U32(number) => numbers.push(number),
            _ => return None,
        }
    }
    match (texts.is_empty(), numbers.is_empty()) {
        (false, true) => Some(PropertyValue::Texts(texts)),
        (true, false) => Some(PropertyValue::Numbers(numbers)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, text: &str) -> Result<Property> {
        property(&format!("org.systemd.property.{name}"), text).map(|property| property.unwrap())
    }

    #[test]
    fn values_have_the_types_that_their_text_says() {
        let value = |text: &str| read("Name", text).unwrap().value;
        assert_eq!(value("true"), PropertyValue::Bool(true));
        assert_eq!(value("'it\\'s'"), PropertyValue::Text("it's".into()));
        assert_eq!(value("5"), PropertyValue::I32(5));
        assert_eq!(value("uint64 18446744073709551615"), PropertyValue::U64(u64::MAX));
        assert_eq!(value("@t 7"), PropertyValue::U64(7));
        assert_eq!(value("['a', \"b\"]"), PropertyValue::Texts(vec!["a".into(), "b".into()]));
        assert_eq!(value("@as []"), PropertyValue::Texts(vec![]));
        assert_eq!(value("[uint32 1, 2]"), value("@au [1, 2]"));
    }

    #[test]
    fn seconds_become_microseconds() {
        let property = read("TimeoutStopSec", "uint64 5").unwrap();
        assert_eq!(
            (property.name.as_str(), property.value),
            ("TimeoutStopUSec", PropertyValue::U64(5_000_000))
        );
        assert_eq!(read("TimeoutStopUSec", "uint64 5").unwrap().name, "TimeoutStopUSec");
    }

    #[test]
    fn other_annotations_are_none_and_wrong_values_name_theirs() {
        assert!(property("io.podman.x", "y").unwrap().is_none());
        for (name, text) in
            [("A", "1"), ("Name", "'x"), ("Name", "1 2"), ("Na-me", "1"), ("Name", ""), ("XSec", "'a'")]
        {
            let error = read(name, text).unwrap_err();
            assert_eq!(error.place(), Some(format!("annotations[\"org.systemd.property.{name}\"]").as_str()));
        }
    }
}
