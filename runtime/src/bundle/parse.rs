//! From the text of a document to the types of oci-spec.
//!
//! The way for a good document is short, as `create` is waited for: one pass that finds `linux.seccomp`, one that
//! fills the types. Only when the types refuse the text is it parsed again, to tolerate what is to be tolerated
//! ([`super::tolerate`]) and to say what is wrong where ([`super::explain`]).

use std::borrow::Cow;

use oci_spec::runtime::{LinuxResources, Process, Spec};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, value::RawValue};

use super::{
    explain,
    linux::resources::forget_missing_pids_limit,
    problems::{Problems, member_place},
    tolerate,
};
use crate::error::{Error, Kind, Result};

/// A parsed `config.json`.
pub(super) struct Config {
    pub(super) spec: Spec,
    pub(super) seccomp: Option<Box<RawValue>>,
}

/// Parses `config.json`.
pub(super) fn config(text: &[u8], problems: &mut Problems) -> Result<Config> {
    let sections = find_sections(text)?;
    let odd = sections.capabilities.is_some_and(tolerate::has_odd_capability);
    let (text, seccomp) = match sections.seccomp {
        Some(section) => (Cow::Owned(without(text, section)), Some(section.to_owned())),
        None => (Cow::Borrowed(text), None),
    };
    let mut spec: Spec = typed(&text, odd, tolerate::config, problems)?;
    tolerate::forget_other_platforms(&mut spec, problems);
    tolerate::empty_as_absent(&mut spec);
    Ok(Config { spec, seccomp })
}

/// Parses a process file.
pub(super) fn process(text: &[u8], problems: &mut Problems) -> Result<Process> {
    #[derive(Deserialize)]
    struct Process<'a> {
        #[serde(borrow)]
        capabilities: Option<&'a RawValue>,
    }

    let sections: Option<Process> = serde_json::from_slice(text).ok();
    let capabilities = sections.and_then(|process| process.capabilities);
    let odd = capabilities.is_some_and(|section| tolerate::has_odd_capability(section.get()));
    let mut process = typed(text, odd, tolerate::process, problems)?;
    tolerate::empty_as_absent_in_process(&mut process);
    Ok(process)
}

/// Parses a `linux.resources` object that stands alone. Members that are unknown are warned of: unlike those of a
/// `config.json`, which may be newer than its reader, they were written for this reader.
pub(super) fn resources(text: &[u8], problems: &mut Problems) -> Result<LinuxResources> {
    // The types would take a list, too, and fill the fields in their order.
    if text.trim_ascii_start().starts_with(b"[") {
        return Err(Error::new(Kind::Config, "is a list, but must be an object"));
    }
    let mut resources: LinuxResources = typed(text, false, tolerate::resources, problems)?;
    if let (Ok(written), Ok(read)) = (serde_json::from_slice(text), serde_json::to_value(&resources)) {
        warn_of_unknown(&written, &read, "", problems);
    }
    forget_missing_pids_limit(&mut resources, text, "pids.limit");
    Ok(resources)
}

/// Warns of the members of `written` that did not come through to `read`.
fn warn_of_unknown(written: &Value, read: &Value, place: &str, problems: &mut Problems) {
    match (written, read) {
        (Value::Object(written), Value::Object(read)) => {
            for (name, value) in written.iter().filter(|(_, value)| !value.is_null()) {
                let place = if place.is_empty() { name.clone() } else { member_place(place, name) };
                match read.get(name) {
                    Some(read) => warn_of_unknown(value, read, &place, problems),
                    // An empty string is as absent.
                    None if value == "" => {}
                    None => problems.warn(
                        place,
                        "is unknown and ignored; names are as in linux.resources of config.json",
                    ),
                }
            }
        }
        (Value::Array(written), Value::Array(read)) => {
            for (index, (written, read)) in written.iter().zip(read).enumerate() {
                warn_of_unknown(written, read, &format!("{place}[{index}]"), problems);
            }
        }
        _ => {}
    }
}

/// Fills a type from `text`; when that fails or `odd` says that there is something to tolerate, tolerates, tries
/// again, and explains.
fn typed<T: DeserializeOwned>(
    text: &[u8],
    odd: bool,
    tolerate: fn(&mut Value, &mut Problems) -> bool,
    problems: &mut Problems,
) -> Result<T> {
    let twice = match serde_json::from_slice(text) {
        Ok(value) if !odd => return Ok(value),
        Ok(_) => false,
        // Two members of one name would make one of it as a `Value`, and hide that from the reader.
        Err(error) => error.to_string().starts_with("duplicate field"),
    };
    let mut document: Value = serde_json::from_slice(text).map_err(|error| explain::syntax(text, &error))?;
    // The tolerated document goes back to text, so that the types are compiled for one kind of reader only.
    let text = if !twice && tolerate(&mut document, problems) {
        Cow::Owned(document.to_string().into_bytes())
    } else {
        Cow::Borrowed(text)
    };
    let mut deserializer = serde_json::Deserializer::from_slice(&text);
    serde_path_to_error::deserialize(&mut deserializer).map_err(|error| explain::types(&error))
}

/// Sections of a `config.json` word for word.
#[derive(Default)]
struct Sections<'a> {
    capabilities: Option<&'a str>,
    seccomp: Option<&'a RawValue>,
}

fn find_sections(text: &[u8]) -> Result<Sections<'_>> {
    #[derive(Deserialize)]
    struct Config<'a> {
        #[serde(borrow)]
        process: Option<Process<'a>>,
        #[serde(borrow)]
        linux: Option<Linux<'a>>,
    }
    #[derive(Deserialize)]
    struct Process<'a> {
        #[serde(borrow)]
        capabilities: Option<&'a RawValue>,
    }
    #[derive(Deserialize)]
    struct Linux<'a> {
        #[serde(borrow)]
        seccomp: Option<&'a RawValue>,
    }

    match serde_json::from_slice::<Config>(text) {
        Ok(config) => Ok(Sections {
            capabilities: config.process.and_then(|process| process.capabilities).map(RawValue::get),
            seccomp: config.linux.and_then(|linux| linux.seccomp),
        }),
        // A section that is no object or is there twice: the types will say so, with its place.
        Err(error) if error.is_data() => Ok(Sections::default()),
        Err(error) => Err(explain::syntax(text, &error)),
    }
}

/// The text with `null` in the place of `section`, which is a part of it.
fn without(text: &[u8], section: &RawValue) -> Vec<u8> {
    let section = section.get();
    let start = section.as_ptr() as usize - text.as_ptr() as usize;
    let (before, rest) = text.split_at_checked(start).unwrap_or((text, &[]));
    [before, b"null", rest.get(section.len()..).unwrap_or_default()].concat()
}

#[cfg(test)]
mod tests {
    use super::super::{
        Bundle,
        testing::{accepts, config, config_with, load, refuses},
    };
    use serde_json::{Value, json};
    use std::path::Path;

    fn error_of(text: &str) -> String {
        Bundle::from_json(Path::new("/bundle"), text.as_bytes()).expect_err(text).to_string()
    }

    #[test]
    fn what_is_no_json_is_told_with_line_and_column() {
        let error = error_of("{\n  \"root\": {,}\n}");
        assert!(error.starts_with("JSON error at line 2, column 12"), "{error}");
        assert!(error_of("{\"root\": {").starts_with("JSON ends too early, at line 1"));
        assert_eq!(error_of(" \n"), "the file is empty");
        assert!(error_of("{} x").starts_with("JSON error at line 1, column 4"));
        assert!(error_of("{\"hostname\": \"\u{1}\"}").starts_with("JSON error"));
    }

    #[test]
    fn a_wrong_type_is_told_with_its_place_and_what_belongs_there() {
        for (place, value, at, words) in [
            (
                "process.terminal",
                json!("yes"),
                "process.terminal",
                "is a string \"yes\", but must be true or false",
            ),
            ("process.args", json!("sh"), "process.args", "is a string \"sh\", but must be a list"),
            ("process.args", json!(["sh", 1]), "process.args[1]", "is an integer 1, but must be a string"),
            ("root", json!("rootfs"), "root", "is a string \"rootfs\", but must be an object"),
            ("linux", json!(5), "linux", "is an integer 5, but must be an object"),
            (
                "process.user.uid",
                json!(-1),
                "process.user.uid",
                "is an integer -1, but must be an integer from 0 to",
            ),
            (
                "process.user.uid",
                json!(1.5),
                "process.user.uid",
                "is a number 1.5, but must be an integer from 0 to",
            ),
            ("hostname", json!({}), "hostname", "is an object, but must be a string"),
            ("annotations.a", json!(1), "annotations.a", "is an integer 1, but must be a string"),
            (
                "linux.sysctl",
                json!({"net.a": 1}),
                "linux.sysctl[\"net.a\"]",
                "is an integer 1, but must be a string",
            ),
        ] {
            let error = refuses(place, value, at);
            assert!(error.contains(words), "{error}");
        }
        assert!(error_of("[]").contains("config.json"), "{}", error_of("[]"));
        assert!(error_of("5").contains("must be an object"), "{}", error_of("5"));
    }

    #[test]
    fn what_is_missing_or_there_twice_is_named() {
        let error = refuses("process.cwd", Value::Null, "process.cwd");
        assert!(error.contains("is missing, but required"), "{error}");
        let twice = config().to_string().replacen('{', "{\"hostname\": \"other\",", 1);
        let error = load_text(&twice).expect_err("two hostnames");
        assert!(error.starts_with("config.json: hostname: is there twice"), "{error}");
        let twice = config().to_string().replacen("\"linux\":", "\"linux\": {}, \"linux\":", 1);
        let error = load_text(&twice).expect_err("two linux sections");
        assert!(error.starts_with("config.json: linux: is there twice"), "{error}");
    }

    fn load_text(text: &str) -> Result<Bundle, String> {
        Bundle::from_json(Path::new("/bundle"), text.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn null_is_as_absent_everywhere() {
        for place in [
            "mounts",
            "hooks",
            "annotations",
            "hostname",
            "linux",
            "linux.resources",
            "linux.resources.memory",
            "linux.seccomp",
            "process.env",
            "process.capabilities",
            "process.user.additionalGids",
            "process.user.uid",
            "process.user",
            "linux.devices",
            "linux.sysctl",
            "linux.resources.pids",
        ] {
            let mut config = config_with(place, Value::Null);
            if place == "linux" {
                config["hostname"] = Value::Null;
            }
            load(&config).unwrap_or_else(|error| panic!("{place}: {error}"));
        }
        accepts(
            "hooks",
            json!({"prestart": null, "poststop": [{"path": "/x", "args": null, "timeout": null}]}),
        );
    }

    #[test]
    fn unknown_properties_are_ignored() {
        accepts("futureSection", json!({"a": [1, {"b": null}]}));
        accepts("process.future", json!(true));
        accepts("linux.resources.memory", json!({"limit": 5, "future": "x"}));
    }

    #[test]
    fn sections_of_other_platforms_are_ignored_with_a_warning() {
        for (platform, section) in [
            ("windows", json!({"layerFolders": ["x"]})),
            ("vm", json!({"hypervisor": {"path": "/x"}})),
            ("solaris", json!({"milestone": "x"})),
            ("zos", json!({})),
        ] {
            let bundle = accepts(platform, section);
            assert_eq!(bundle.warnings.len(), 1, "{platform}: {:?}", bundle.warnings);
            assert!(bundle.warnings[0].starts_with(&format!("config.json: {platform}: ")));
            assert_eq!(bundle.spec.vm(), &None);
        }
    }

    #[test]
    fn seccomp_is_handed_over_word_for_word_whatever_is_in_it() {
        let section = "{ \"defaultAction\" : \"SCMP_ACT_FUTURE\",\n \"architectures\":[\"SCMP_ARCH_NEW\"], \"a\": 1.50 }";
        for section in [section, "{}", "[]", "5", "\"\\u0000 }\""] {
            let text = config().to_string().replacen(
                "\"linux\":{",
                &format!("\"linux\":{{\"seccomp\": {section} ,"),
                1,
            );
            let bundle = load_text(&text).unwrap_or_else(|error| panic!("{section}: {error}"));
            assert_eq!(bundle.seccomp.as_ref().map(|raw| raw.get()), Some(section));
            assert_eq!(bundle.spec.linux().as_ref().expect("linux").seccomp(), &None);
        }
        assert!(accepts("linux.seccomp", Value::Null).seccomp.is_none());
    }

    #[test]
    fn a_nul_in_what_reaches_the_kernel_is_refused() {
        for (place, value, at) in [
            ("process.args", json!(["a", "b\0c"]), "process.args[1]"),
            ("process.env", json!(["A=\0"]), "process.env[0]"),
            ("process.cwd", json!("/\0"), "process.cwd"),
            ("root.path", json!("a\0"), "root.path"),
            ("hostname", json!("\0"), "hostname"),
            ("hooks", json!({"poststop": [{"path": "/a\0"}]}), "hooks.poststop[0].path"),
            ("mounts", json!([{"destination": "/\0", "type": "tmpfs"}]), "mounts[0].destination"),
            ("linux.sysctl", json!({"net.a\0": "1"}), "linux.sysctl"),
            ("linux.sysctl", json!({"net.a": "1\0"}), "linux.sysctl[\"net.a\"]"),
        ] {
            let error = refuses(place, value, at);
            assert!(error.contains("NUL"), "{error}");
        }
        accepts("annotations", json!({"a": "\0"}));
        accepts("process.args", json!(["a\\u0000"]));
    }
}
