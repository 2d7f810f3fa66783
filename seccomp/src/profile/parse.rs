// SPDX-License-Identifier: Apache-2.0
//! From JSON to a [`Profile`]: types only, each mistake with its place. Ranges and combinations are
//! [`Profile::validate`]'s. A property that is `null` counts as absent, because Go programs write it so.

use super::{Action, Condition, FilterFlag, Operator, Profile, Rule};
use crate::Arch;
use crate::error::{Error, Problem};
use serde_json::{Map, Value};
use std::fmt;

/// A place in the JSON text; turned into a string only when something is wrong there.
#[derive(Clone, Copy)]
enum Place<'a> {
    Root,
    Key(&'a Place<'a>, &'a str),
    Item(&'a Place<'a>, usize),
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Root => Ok(()),
            Place::Key(Place::Root, key) => f.write_str(key),
            Place::Key(parent, key) => write!(f, "{parent}.{key}"),
            Place::Item(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

impl Place<'_> {
    fn error(&self, problem: Problem) -> Error {
        Error::new(self.to_string(), problem)
    }

    fn wrong_type(&self, expected: &'static str, value: &Value) -> Error {
        let found = match value {
            Value::Null => "null".into(),
            Value::Bool(value) => value.to_string(),
            Value::Number(number) => number.to_string(),
            Value::String(text) => format!("the string {text:?}"),
            Value::Array(_) => "an array".into(),
            Value::Object(_) => "an object".into(),
        };
        self.error(Problem::Type { expected, found })
    }
}

pub(super) fn profile(value: &Value) -> Result<Profile, Error> {
    let root = Place::Root;
    let object = as_object(&root, value)?;
    let mut ignored = Vec::new();
    let keys = [
        "defaultAction",
        "defaultErrnoRet",
        "architectures",
        "flags",
        "listenerPath",
        "listenerMetadata",
        "syscalls",
    ];
    note_unknown(&root, object, &keys, &mut ignored);
    let mut profile = Profile::new(required(&root, object, "defaultAction", action)?);
    profile.default_errno_ret = optional(&root, object, "defaultErrnoRet", as_u32)?;
    profile.architectures =
        optional(&root, object, "architectures", |place, value| list(place, value, arch))?
            .unwrap_or_default();
    profile.flags = optional(&root, object, "flags", |place, value| list(place, value, flag))?;
    profile.listener_path = optional(&root, object, "listenerPath", filled_string)?.flatten();
    profile.listener_metadata = optional(&root, object, "listenerMetadata", filled_string)?.flatten();
    profile.syscalls = optional(&root, object, "syscalls", |place, value| {
        list(place, value, |p, v| rule(p, v, &mut ignored))
    })?
    .unwrap_or_default();
    profile.ignored = ignored;
    Ok(profile)
}

fn rule(place: &Place<'_>, value: &Value, ignored: &mut Vec<String>) -> Result<Rule, Error> {
    let object = as_object(place, value)?;
    note_unknown(place, object, &["names", "action", "errnoRet", "args"], ignored);
    Ok(Rule {
        names: required(place, object, "names", |place, value| {
            list(place, value, |place, value| as_str(place, value).map(str::to_owned))
        })?,
        action: required(place, object, "action", action)?,
        errno_ret: optional(place, object, "errnoRet", as_u32)?,
        args: optional(place, object, "args", |place, value| {
            list(place, value, |place, value| condition(place, value, ignored))
        })?
        .unwrap_or_default(),
    })
}

fn condition(place: &Place<'_>, value: &Value, ignored: &mut Vec<String>) -> Result<Condition, Error> {
    let object = as_object(place, value)?;
    note_unknown(place, object, &["index", "value", "valueTwo", "op"], ignored);
    Ok(Condition {
        index: required(place, object, "index", as_u32)?,
        value: required(place, object, "value", as_u64)?,
        value_two: optional(place, object, "valueTwo", as_u64)?.unwrap_or(0),
        op: required(place, object, "op", |place, value| {
            keyword(place, value, Operator::by_spec_name, || names(Operator::ALL))
        })?,
    })
}

fn action(place: &Place<'_>, value: &Value) -> Result<Action, Error> {
    keyword(place, value, Action::by_spec_name, || names(Action::ALL))
}

fn flag(place: &Place<'_>, value: &Value) -> Result<FilterFlag, Error> {
    keyword(place, value, FilterFlag::by_spec_name, || names(FilterFlag::ALL))
}

fn arch(place: &Place<'_>, value: &Value) -> Result<Arch, Error> {
    let find = |text: &str| Arch::ALL.into_iter().find(|arch| arch.spec_name() == text);
    keyword(place, value, find, || names(&Arch::ALL))
}

fn keyword<T>(
    place: &Place<'_>,
    value: &Value,
    find: impl Fn(&str) -> Option<T>,
    known: impl Fn() -> String,
) -> Result<T, Error> {
    let text = as_str(place, value)?;
    find(text).ok_or_else(|| place.error(Problem::UnknownValue { value: text.into(), known: known() }))
}

fn names<T: fmt::Display>(all: &[T]) -> String {
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn optional<T>(
    parent: &Place<'_>,
    object: &Map<String, Value>,
    key: &str,
    read: impl FnOnce(&Place<'_>, &Value) -> Result<T, Error>,
) -> Result<Option<T>, Error> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => read(&Place::Key(parent, key), value).map(Some),
    }
}

fn required<T>(
    parent: &Place<'_>,
    object: &Map<String, Value>,
    key: &str,
    read: impl FnOnce(&Place<'_>, &Value) -> Result<T, Error>,
) -> Result<T, Error> {
    optional(parent, object, key, read)?.ok_or_else(|| Place::Key(parent, key).error(Problem::Missing))
}

fn list<T>(
    place: &Place<'_>,
    value: &Value,
    mut read: impl FnMut(&Place<'_>, &Value) -> Result<T, Error>,
) -> Result<Vec<T>, Error> {
    let items = value.as_array().ok_or_else(|| place.wrong_type("an array", value))?;
    items.iter().enumerate().map(|(index, item)| read(&Place::Item(place, index), item)).collect()
}

fn as_object<'v>(place: &Place<'_>, value: &'v Value) -> Result<&'v Map<String, Value>, Error> {
    value.as_object().ok_or_else(|| place.wrong_type("an object", value))
}

fn as_str<'v>(place: &Place<'_>, value: &'v Value) -> Result<&'v str, Error> {
    value.as_str().ok_or_else(|| place.wrong_type("a string", value))
}

/// A string of which Go's "omitempty" would leave the empty one out.
fn filled_string(place: &Place<'_>, value: &Value) -> Result<Option<String>, Error> {
    as_str(place, value).map(|text| (!text.is_empty()).then(|| text.to_owned()))
}

fn as_u64(place: &Place<'_>, value: &Value) -> Result<u64, Error> {
    value.as_u64().ok_or_else(|| place.wrong_type("an unsigned 64-bit integer", value))
}

fn as_u32(place: &Place<'_>, value: &Value) -> Result<u32, Error> {
    value
        .as_u64()
        .and_then(|number| u32::try_from(number).ok())
        .ok_or_else(|| place.wrong_type("an unsigned 32-bit integer", value))
}

fn note_unknown(place: &Place<'_>, object: &Map<String, Value>, known: &[&str], ignored: &mut Vec<String>) {
    for key in object.keys() {
        if !known.contains(&key.as_str()) {
            ignored.push(Place::Key(place, key).to_string());
        }
    }
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value, reason = "json! makes values to pass on")]
mod tests {
    use super::*;
    use serde_json::json;

    fn refused(value: Value) -> String {
        Profile::from_value(&value).unwrap_err().to_string()
    }

    #[test]
    fn every_property_of_the_spec_is_read() {
        let profile = Profile::from_value(&json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "defaultErrnoRet": 38,
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X32"],
            "flags": ["SECCOMP_FILTER_FLAG_LOG"],
            "listenerPath": "/run/agent.sock",
            "listenerMetadata": "m",
            "syscalls": [{
                "names": ["mkdir"],
                "action": "SCMP_ACT_NOTIFY",
                "args": [{"index": 1, "value": 18_446_744_073_709_551_615_u64, "valueTwo": 2, "op": "SCMP_CMP_MASKED_EQ"}]
            }]
        }))
        .unwrap();
        assert_eq!(profile.default_errno_ret, Some(38));
        assert_eq!(profile.architectures, [Arch::X86_64, Arch::X32]);
        assert_eq!(profile.flags, Some(vec![FilterFlag::Log]));
        assert_eq!(profile.listener_path.as_deref(), Some("/run/agent.sock"));
        assert_eq!(profile.listener_metadata.as_deref(), Some("m"));
        assert_eq!(
            profile.syscalls[0].args,
            [Condition { index: 1, value: u64::MAX, value_two: 2, op: Operator::MaskedEqual }]
        );
        let written = serde_json::to_value(&profile).unwrap();
        assert_eq!(Profile::from_value(&written).unwrap(), profile);
    }

    #[test]
    fn null_counts_as_absent() {
        let profile = Profile::from_value(&json!({
            "defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": null, "architectures": null, "flags": null,
            "syscalls": [{"names": ["read"], "action": "SCMP_ACT_LOG", "args": null, "errnoRet": null}]
        }))
        .unwrap();
        assert_eq!(profile.flags, None);
        assert_eq!(profile.syscalls[0].args, []);
    }

    #[test]
    fn unknown_properties_are_noted_by_place() {
        let profile = Profile::from_value(&json!({
            "defaultAction": "SCMP_ACT_ALLOW", "archMap": [],
            "syscalls": [{"names": ["read"], "action": "SCMP_ACT_LOG", "includes": {}}]
        }))
        .unwrap();
        assert_eq!(profile.ignored, ["archMap", "syscalls[0].includes"]);
    }

    #[test]
    fn mistakes_name_their_place() {
        let rule = |extra: Value| {
            let mut rule = json!({"names": ["read"], "action": "SCMP_ACT_ALLOW"});
            for (key, value) in extra.as_object().unwrap() {
                rule[key] = value.clone();
            }
            json!({"defaultAction": "SCMP_ACT_KILL", "syscalls": [rule]})
        };
        let arg = |extra: Value| {
            let mut arg = json!({"index": 0, "value": 1, "op": "SCMP_CMP_EQ"});
            for (key, value) in extra.as_object().unwrap() {
                arg[key] = value.clone();
            }
            rule(json!({"args": [arg]}))
        };
        let cases = [
            (json!([]), "expected an object, found an array"),
            (json!({}), "defaultAction: required, but missing"),
            (json!({"defaultAction": 1}), "defaultAction: expected a string, found 1"),
            (
                json!({"defaultAction": "ALLOW"}),
                "defaultAction: \"ALLOW\" is not known; known are SCMP_ACT_KILL,",
            ),
            (json!({"defaultAction": "SCMP_ACT_NOTIFY"}), "defaultAction: SCMP_ACT_NOTIFY cannot be"),
            (
                json!({"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1}),
                "defaultErrnoRet: SCMP_ACT_ALLOW carries no errno",
            ),
            (
                json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 4096}),
                "defaultErrnoRet: 4096 is out of range: SCMP_ACT_ERRNO takes 0 to 4095",
            ),
            (
                json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": -1}),
                "defaultErrnoRet: expected an unsigned 32-bit integer, found -1",
            ),
            (
                json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["X86"]}),
                "architectures[0]: \"X86\" is not known",
            ),
            (json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["LOG"]}), "flags[0]: \"LOG\" is not known"),
            (
                json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "m"}),
                "listenerMetadata: must not be set without listenerPath",
            ),
            (rule(json!({"names": []})), "syscalls[0].names: a rule must name"),
            (rule(json!({"names": ["read", ""]})), "syscalls[0].names[1]: the empty string"),
            (rule(json!({"names": [3]})), "syscalls[0].names[0]: expected a string, found 3"),
            (rule(json!({"names": null})), "syscalls[0].names: required, but missing"),
            (
                rule(json!({"action": "SCMP_ACT_NOTIFY"})),
                "listenerPath: required, because syscalls[0].action",
            ),
            (
                rule(json!({"action": "SCMP_ACT_NOTIFY", "names": ["read", "write"]})),
                "syscalls[0].names[1]: SCMP_ACT_NOTIFY cannot be used for the write syscall",
            ),
            (
                rule(json!({"action": "SCMP_ACT_TRACE", "errnoRet": 65536})),
                "syscalls[0].errnoRet: 65536 is out of range: SCMP_ACT_TRACE takes 0 to 65535",
            ),
            (rule(json!({"errnoRet": 1})), "syscalls[0].errnoRet: SCMP_ACT_ALLOW carries no errno"),
            (arg(json!({"index": 6})), "syscalls[0].args[0].index: 6 is out of range"),
            (arg(json!({"value": -1})), "syscalls[0].args[0].value: expected an unsigned 64-bit integer"),
            (arg(json!({"value": 1.5})), "syscalls[0].args[0].value: expected an unsigned 64-bit integer"),
            (arg(json!({"op": "EQ"})), "syscalls[0].args[0].op: \"EQ\" is not known"),
            (arg(json!({"op": null})), "syscalls[0].args[0].op: required, but missing"),
        ];
        for (value, expected) in cases {
            let message = refused(value.clone());
            assert!(message.starts_with(expected), "{value}\n gave: {message}\n not: {expected}");
        }
        assert!(Profile::from_json("{").unwrap_err().to_string().starts_with("not valid JSON:"));
    }
}
