//! `-info` and `-v`: what the shim tells of itself.
//!
//! containerd runs `-info` once for the options of a runtime and keeps the answer; it must be quick, and must not fail
//! where the runtime that `BinaryName` names isn't there.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use coracle::container::Features;
use coracle::error::{Doing, Error, Kind, Result};
use coracle::version::{COMMIT, SPEC_VERSION, VERSION};
use protobuf::Message;
use serde::de::IgnoredAny;

use crate::invocation::{NAME, RUNTIME};
use crate::options::Options;
use crate::proto::Any;
use crate::proto::types::{RuntimeInfo, RuntimeVersion};

/// The type of the features, which are JSON.
const FEATURES: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";

/// The most that is read of the options, in bytes.
const LONGEST: u64 = 1 << 20;

/// Prints what the runtime can do, as `RuntimeInfo`.
pub fn info() -> Result<()> {
    let mut options = Vec::new();
    if !rustix::termios::isatty(std::io::stdin()) {
        std::io::stdin().lock().take(LONGEST).read_to_end(&mut options).doing(|| "read standard input")?;
    }
    let options = Any::parse_from_bytes(&options)
        .map_err(|error| Error::new(Kind::Config, format!("read the options at standard input: {error}")))?;
    let failed = |error: String| Error::new(Kind::System, format!("write what the runtime can do: {error}"));
    // What is wrong with the options is Create's to say.
    let other = Options::read_known(&options).ok().flatten().and_then(|options| options.other_runtime);
    let features = match other {
        Some(program) => features_of(&program),
        None => Some(serde_json::to_vec(&Features::here()).map_err(|error| failed(error.to_string()))?),
    };
    let features = features.map(|value| Any { type_url: FEATURES.to_owned(), value, ..Any::default() });
    let info = RuntimeInfo {
        name: RUNTIME.to_owned(),
        version: Some(RuntimeVersion {
            version: VERSION.to_owned(),
            revision: COMMIT.unwrap_or_default().to_owned(),
            ..RuntimeVersion::default()
        })
        .into(),
        options: Some(options).filter(|options| !options.type_url.is_empty()).into(),
        features: features.into(),
        ..RuntimeInfo::default()
    };
    print(&info.write_to_bytes().map_err(|error| failed(error.to_string()))?)
}

/// What another runtime says of itself; nothing where it isn't there, or doesn't know the command.
fn features_of(program: &Path) -> Option<Vec<u8>> {
    let mut command = Command::new(program);
    command.arg("features").stdin(Stdio::null()).stderr(Stdio::null());
    let output = command.output().ok().filter(|output| output.status.success())?;
    serde_json::from_slice::<IgnoredAny>(&output.stdout).ok().map(|_| output.stdout)
}

/// The version, for people.
pub fn version() -> String {
    let commit = COMMIT.unwrap_or("unknown");
    format!(
        "{NAME}:\n  Version:  {VERSION}\n  Revision: {commit}\n  OCI runtime specification: {SPEC_VERSION}\n"
    )
}

/// Writes to standard output.
pub fn print(bytes: &[u8]) -> Result<()> {
    let mut output = std::io::stdout().lock();
    output.write_all(bytes).and_then(|()| output.flush()).doing(|| "write to standard output")
}
