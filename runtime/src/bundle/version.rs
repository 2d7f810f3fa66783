//! `ociVersion`: the version of the runtime spec that the configuration is written for (`config.md`, "Specification
//! version").
//!
//! Any 1.x is taken: within a major version the spec stays compatible in both directions, so a newer minor
//! version only means properties that may be unknown here, which are to be ignored.

use super::problems::Problems;

const PLACE: &str = "ociVersion";

pub(super) fn check(version: &str, problems: &mut Problems) {
    if version.is_empty() {
        problems.refuse(PLACE, "is missing; give the version of the runtime spec, such as \"1.2.0\"");
        return;
    }
    match major(version) {
        Some("1") => {}
        Some(_) => {
            problems.refuse(PLACE, format!("spec version {version:?} is not supported; versions 1.x are"));
        }
        None => problems.refuse(
            PLACE,
            format!(
                "{version:?} is not a semantic version (MAJOR.MINOR.PATCH, see semver.org), such as \"1.2.0\""
            ),
        ),
    }
}

/// The major version of a semantic version (semver.org, 2.0.0), if it is one.
fn major(version: &str) -> Option<&str> {
    let (version, build) = match version.split_once('+') {
        Some((version, build)) => (version, Some(build)),
        None => (version, None),
    };
    let (core, pre_release) = match version.split_once('-') {
        Some((core, pre_release)) => (core, Some(pre_release)),
        None => (version, None),
    };
    let identifiers = |text: &str| text.split('.').all(is_identifier);
    let numbers = |text: &str| {
        text.split('.').all(|part| !part.bytes().all(|byte| byte.is_ascii_digit()) || is_number(part))
    };
    if !build.is_none_or(identifiers) || !pre_release.is_none_or(|text| identifiers(text) && numbers(text)) {
        return None;
    }
    let mut parts = core.split('.');
    let (major, minor, patch) = (parts.next()?, parts.next()?, parts.next()?);
    (parts.next().is_none() && [major, minor, patch].into_iter().all(is_number)).then_some(major)
}

fn is_identifier(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn is_number(text: &str) -> bool {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits && (text == "0" || !text.starts_with('0'))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{accepts, refuses};
    use serde_json::json;

    #[test]
    fn any_version_one_is_taken() {
        for version in ["1.0.0", "1.0.2-dev", "1.0.0-rc5", "1.3.0", "1.99.7+build.5", "1.3.0-rc.1+a-b"] {
            accepts("ociVersion", json!(version));
        }
    }

    #[test]
    fn other_majors_and_what_is_no_version_are_refused() {
        for version in [
            "0.9.0", "2.0.0", "10.0.0", "1", "1.0", "v1.0.0", "1.0.0.0", "01.0.0", "1.0.0-", "1.0.0-01",
            "1.0.x", " 1.0.0",
        ] {
            refuses("ociVersion", json!(version), "ociVersion");
        }
        refuses("ociVersion", json!(""), "ociVersion");
    }
}
