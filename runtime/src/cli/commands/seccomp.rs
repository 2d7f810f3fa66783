//! `coracle seccomp`: what a seccomp profile does, without running anything.

use std::fmt::Write as _;
use std::fs::File;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use coracle_seccomp::{Arch, Profile, Program, Query, check, compile, disassemble, simulate};
use coracle_seccomp::{to_bpf_dbg, to_c_array, to_raw};

use super::{Arguments, Entry, Subcommand};
use crate::bundle::read_all;
use crate::cli::globals::Context;
use crate::cli::options::{any_path, directory};
use crate::cli::output;
use crate::error::{Doing, Error, Kind, Result};

/// The group's name.
const NAME: &str = "seccomp";

/// The group.
pub(crate) const GROUP: Entry = Entry::group(
    NAME,
    "Compile, show, simulate and check seccomp profiles",
    "A profile is the `linux.seccomp` object of a config.json: in a file of its own, on standard input (`-`), or in a \
     bundle (--bundle). `coracle run --seccomp-learn FILE` writes one that allows what a container was seen to call.",
    &[Entry::of::<Compile>(), Entry::of::<Show>(), Entry::of::<Simulate>(), Entry::of::<Check>()],
);

/// Where a profile is, and what it is compiled for.
#[derive(Debug, clap::Args)]
struct Source {
    /// Take the profile of this bundle: `linux.seccomp` of its config.json
    #[arg(long, short, value_name = "DIR", value_parser = any_path())]
    bundle: Option<PathBuf>,

    /// The name of the configuration in the bundle
    #[arg(long, short = 'f', value_name = "NAME", default_value = "config.json", requires = "bundle")]
    config: String,

    /// Compile for a kernel of this architecture, such as SCMP_ARCH_AARCH64, instead of this machine's
    #[arg(long, value_name = "ARCH")]
    kernel: Option<Arch>,
}

/// A profile, where it was found, and the kernel's architecture.
struct Found {
    profile: Profile,
    /// What errors and findings begin with: a file's name, or `linux.seccomp`.
    place: String,
    native: Arch,
}

impl Source {
    /// Reads the profile, from `file` or from the bundle.
    fn find(self, file: Option<&Path>) -> Result<Found> {
        let native = self.kernel.or_else(Arch::native).ok_or_else(|| {
            Error::new(
                Kind::Unsupported,
                format!("seccomp filters for {} are not supported", std::env::consts::ARCH),
            )
            .hint("name another kernel's architecture with --kernel")
        })?;
        let (profile, place) = match (self.bundle, file) {
            (Some(_), Some(file)) => {
                return Err(Error::new(
                    Kind::Config,
                    format!("two profiles are named: {} and the bundle's", file.display()),
                )
                .hint("give a file or --bundle, not both"));
            }
            (None, None) => {
                return Err(Error::new(Kind::Config, "no profile is named")
                    .hint("give a file, `-` for standard input, or --bundle DIR"));
            }
            (Some(bundle), None) => (of_bundle(&directory(bundle).join(self.config))?, IN_BUNDLE.to_owned()),
            (None, Some(file)) => of_file(file)?,
        };
        Ok(Found { profile, place, native })
    }
}

fn of_bundle(path: &Path) -> Result<Profile> {
    let text = File::open(path).and_then(read_all).doing(|| format!("read {}", path.display()))?;
    let config: serde_json::Value = serde_json::from_slice(&text)
        .map_err(|error| Error::new(Kind::Config, format!("{} is not JSON: {error}", path.display())))?;
    let section = config.pointer("/linux/seccomp").filter(|section| !section.is_null()).ok_or_else(|| {
        Error::config(IN_BUNDLE, format!("{} has no seccomp profile", path.display()))
            .hint("a container of it makes system calls without a filter")
    })?;
    Profile::from_value(section).map_err(|error| refused(IN_BUNDLE, &error))
}

fn of_file(file: &Path) -> Result<(Profile, String)> {
    let as_text = |bytes| String::from_utf8(bytes).map_err(std::io::Error::other);
    let (name, text) = if file == Path::new("-") {
        let text = read_all(std::io::stdin()).and_then(as_text);
        ("standard input".to_owned(), text.doing(|| "read a profile from standard input")?)
    } else {
        let text = File::open(file).and_then(read_all).and_then(as_text);
        (file.display().to_string(), text.doing(|| format!("read the profile {}", file.display()))?)
    };
    let profile = Profile::from_json(&text).map_err(|error| {
        let error = refused(&name, &error);
        match serde_json::from_str::<serde_json::Value>(&text) {
            Ok(value) if value.get("ociVersion").is_some() => {
                error.hint("this is a whole config.json; `--bundle DIR` takes the profile out of a bundle's")
            }
            _ => error,
        }
    })?;
    Ok((profile, name))
}

/// Where a bundle has its profile.
const IN_BUNDLE: &str = "linux.seccomp";

/// The library's error, with the profile's own place before the place in it: a place in a bundle's configuration, or in
/// the file that was named.
fn refused(place: &str, error: &coracle_seccomp::Error) -> Error {
    let (path, problem) = (error.path(), error.problem());
    match (place, path.is_empty()) {
        (IN_BUNDLE, true) => Error::config(IN_BUNDLE, problem.to_string()),
        (IN_BUNDLE, false) => Error::config(format!("{IN_BUNDLE}.{path}"), problem.to_string()),
        (file, true) => Error::new(Kind::Config, format!("{file}: {problem}")),
        (file, false) => Error::new(Kind::Config, format!("{file}: {path}: {problem}")),
    }
}

impl Found {
    fn compile(&self) -> Result<Program> {
        let program = compile(&self.profile, self.native).map_err(|error| refused(&self.place, &error))?;
        for warning in &program.warnings {
            log::warn!("{}: {warning}", self.place);
        }
        Ok(program)
    }
}

/// The flags of `seccomp compile`.
#[derive(Debug, clap::Args)]
struct Compile {
    #[command(flatten)]
    source: Source,

    /// Write a C array of this name instead of raw instructions
    #[arg(long, value_name = "NAME", value_parser = c_name, conflicts_with = "bpf_dbg")]
    c_array: Option<String>,

    /// Write one line for `load bpf` of the kernel's bpf_dbg instead of raw instructions
    #[arg(long)]
    bpf_dbg: bool,

    /// Write to FILE instead of standard output
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,

    /// The profile, or - for standard input
    #[arg(value_name = "PROFILE")]
    profile: Option<PathBuf>,
}

/// An identifier of C.
fn c_name(text: &str) -> Result<String, String> {
    let letters = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if letters && text.bytes().next().is_some_and(|first| !first.is_ascii_digit()) {
        Ok(text.to_owned())
    } else {
        Err("it must be a name in C: letters, digits and _, not beginning with a digit".to_owned())
    }
}

impl Subcommand for Compile {
    const NAME: &'static str = "compile";
    const GROUP: &'static str = NAME;
    const ABOUT: &'static str = "Write the BPF program of a profile";
    const DETAILS: &'static str = "Without --c-array and --bpf-dbg the program is written as an array of struct \
        sock_filter in the byte order of its kernel, as seccomp(2) takes it. The flags that the profile asks for are \
        not part of it; `coracle seccomp show` tells them.";
    const ARGUMENTS: Arguments = Arguments::Between(0, 1);

    fn run(self, _: &Context) -> Result<i32> {
        let found = self.source.find(self.profile.as_deref())?;
        let program = found.compile()?.instructions;
        let bytes = match &self.c_array {
            Some(name) => to_c_array(&program, name).into_bytes(),
            None if self.bpf_dbg => format!("{}\n", to_bpf_dbg(&program)).into_bytes(),
            None if self.output.is_none() && std::io::stdout().is_terminal() => {
                return Err(Error::new(
                    Kind::Config,
                    "raw instructions are not written to a terminal",
                )
                .hint("give --output FILE, --c-array NAME or --bpf-dbg; `coracle seccomp show` prints them readably"));
            }
            None => to_raw(&program, found.native.endian()),
        };
        match &self.output {
            Some(path) => std::fs::write(path, bytes).doing(|| format!("write {}", path.display()))?,
            None => output::write(&bytes)?,
        }
        Ok(0)
    }
}

/// The flags of `seccomp show`.
#[derive(Debug, clap::Args)]
struct Show {
    #[command(flatten)]
    source: Source,

    /// The profile, or - for standard input
    #[arg(value_name = "PROFILE")]
    profile: Option<PathBuf>,
}

impl Subcommand for Show {
    const NAME: &'static str = "show";
    const GROUP: &'static str = NAME;
    const ABOUT: &'static str = "Print the BPF program of a profile, readably";
    const ARGUMENTS: Arguments = Arguments::Between(0, 1);

    fn run(self, _: &Context) -> Result<i32> {
        let found = self.source.find(self.profile.as_deref())?;
        let program = found.compile()?;
        let mut text = format!("; {} instructions, flags {:#x}", program.instructions.len(), program.flags);
        if let Some(listener) = &program.listener {
            let _ = write!(text, ", listener {}", listener.path);
        }
        text.push('\n');
        text.push_str(&disassemble(&program.instructions, found.native));
        output::print(&text)?;
        Ok(0)
    }
}

/// The flags of `seccomp simulate`.
#[derive(Debug, clap::Args)]
struct Simulate {
    #[command(flatten)]
    source: Source,

    /// The architecture by which the call comes in, such as SCMP_ARCH_X86; the kernel's own otherwise
    #[arg(long, value_name = "ARCH")]
    arch: Option<Arch>,

    /// The profile or - (not with --bundle), the call's name or number, and up to six numbers as its arguments
    #[arg(value_name = "PROFILE CALL ARGUMENT")]
    words: Vec<String>,
}

impl Subcommand for Simulate {
    const NAME: &'static str = "simulate";
    const GROUP: &'static str = NAME;
    const ABOUT: &'static str = "Tell what happens to a system call, and which rule says so";
    const DETAILS: &'static str = "Arguments are decimal or, after 0x, hexadecimal; a negative one stands for its \
        64 bits. Those not given are 0. Example: `coracle seccomp simulate profile.json socket 2 1`.";
    const ARGUMENTS: Arguments = Arguments::Between(1, 8);

    fn run(self, _: &Context) -> Result<i32> {
        let mut words = self.words.iter();
        let file = if self.source.bundle.is_none() { words.next().map(PathBuf::from) } else { None };
        let call = words.next().ok_or_else(|| {
            Error::new(Kind::Config, "no system call is named")
                .hint("give its name or number after the profile")
        })?;
        let arguments = words.map(|word| argument(word)).collect::<Result<Vec<u64>>>()?;
        let found = self.source.find(file.as_deref())?;
        let query = Query::new(self.arch.unwrap_or(found.native), call, &arguments);
        let answer = query
            .and_then(|query| simulate(&found.profile, found.native, &query))
            .map_err(|error| Error::new(Kind::Config, error.to_string()))?;
        output::print(&format!("{answer}\n"))?;
        Ok(0)
    }
}

/// A system call's argument as its 64 bits.
fn argument(word: &str) -> Result<u64> {
    let number = match word.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => word.parse().ok().or_else(|| word.parse::<i64>().ok().map(|number| number as u64)),
    };
    number.ok_or_else(|| {
        Error::new(Kind::Config, format!("{word:?} is not a number of 64 bits"))
            .hint("a system call's argument is decimal, or hexadecimal after 0x")
    })
}

/// The flags of `seccomp check`.
#[derive(Debug, clap::Args)]
struct Check {
    #[command(flatten)]
    source: Source,

    /// The profile, or - for standard input
    #[arg(value_name = "PROFILE")]
    profile: Option<PathBuf>,
}

impl Subcommand for Check {
    const NAME: &'static str = "check";
    const GROUP: &'static str = NAME;
    const ABOUT: &'static str = "Find what a profile says and probably does not mean";
    const DETAILS: &'static str = "Each finding is a line: `warning` for a probable mistake, `note` for what is common \
        in sound profiles. The exit status is 1 when there is a warning.";
    const ARGUMENTS: Arguments = Arguments::Between(0, 1);

    fn run(self, _: &Context) -> Result<i32> {
        let found = self.source.find(self.profile.as_deref())?;
        let findings = check(&found.profile, found.native).map_err(|error| refused(&found.place, &error))?;
        let text = findings.iter().fold(String::new(), |text, finding| format!("{text}{finding}\n"));
        output::print(&text)?;
        Ok(i32::from(findings.iter().any(|finding| !finding.concern.is_note())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_decimal_hexadecimal_or_negative() {
        assert_eq!(argument("10").unwrap(), 10);
        assert_eq!(argument("0x10").unwrap(), 16);
        assert_eq!(argument("18446744073709551615").unwrap(), u64::MAX);
        assert_eq!(argument("-100").unwrap(), (-100_i64) as u64);
        for wrong in ["", "0x", "ten", "18446744073709551616", "1.5"] {
            assert!(argument(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_array_has_a_name_of_c() {
        assert!(c_name("filter_1").is_ok() && c_name("_f").is_ok());
        assert!(c_name("1f").is_err() && c_name("a-b").is_err() && c_name("").is_err());
    }
}
