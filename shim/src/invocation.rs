//! The shim's command line (containerd, `core/runtime/v2/README.md`): which invocation is meant, and its exit status.
//!
//! Flags are in the style of Go's `flag` package: one dash or two, a value after `=` or as the next word, and the command
//! comes last. It promises that nothing is printed to standard error by what succeeds, since containerd reads both.

use std::ffi::OsString;
use std::path::PathBuf;

use coracle::error::{Error, Kind, Result};

use crate::{daemon, delete, info, logger, start};

/// What the program is called in messages and in its version.
pub const NAME: &str = "containerd-shim-coracle-v2";
/// The runtime type by which containerd finds it.
pub const RUNTIME: &str = "io.containerd.coracle.v2";

const USAGE: &str = "\
Usage: containerd-shim-coracle-v2 [FLAG]... [start|delete]

containerd runs this program; the runtime type is io.containerd.coracle.v2.

  -namespace NAME       containerd's namespace
  -id ID                the container
  -address SOCKET       containerd's gRPC socket
  -publish-binary FILE  containerd's own program
  -bundle DIR           the container's bundle (delete)
  -socket SOCKET        not used: the socket's name is made of the other flags
  -debug                log more
  -info                 print what the runtime can do, as protobuf
  -v, -version          print the version
";

/// The flags, and the command.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Invocation {
    /// containerd's namespace.
    pub namespace: String,
    /// The container's id.
    pub id: String,
    /// containerd's gRPC address.
    pub address: String,
    /// containerd's own program.
    pub publish_binary: String,
    /// The bundle; the working directory where it isn't given.
    pub bundle: PathBuf,
    /// Log more.
    pub debug: bool,
    /// `-info`.
    pub info: bool,
    /// `-v`.
    pub version: bool,
    /// `-h`.
    pub help: bool,
    /// `start`, `delete`, or empty for the daemon.
    pub command: String,
}

impl Invocation {
    fn parse(words: impl Iterator<Item = OsString>) -> Result<Self> {
        let mut it = Self::default();
        let mut words = words.map(|word| {
            word.into_string().map_err(|word| wrong(format!("the argument {word:?} is no UTF-8")))
        });
        while let Some(word) = words.next().transpose()? {
            let Some(flag) =
                word.strip_prefix("--").or_else(|| word.strip_prefix('-')).filter(|flag| !flag.is_empty())
            else {
                it.command = word;
                if let Some(further) = words.next().transpose()? {
                    return Err(wrong(format!("there is an argument after {}: {further}", it.command)));
                }
                break;
            };
            let (name, value) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (flag, None),
            };
            let switch = match name {
                "debug" => Some(&mut it.debug),
                "info" => Some(&mut it.info),
                "v" | "version" => Some(&mut it.version),
                "h" | "help" => Some(&mut it.help),
                _ => None,
            };
            if let Some(switch) = switch {
                *switch = match value.as_deref() {
                    None | Some("true" | "1" | "t" | "T" | "TRUE" | "True") => true,
                    Some("false" | "0" | "f" | "F" | "FALSE" | "False") => false,
                    Some(value) => return Err(wrong(format!("-{name} is true or false, not {value:?}"))),
                };
                continue;
            }
            let next = || match value {
                Some(value) => Ok(value),
                None => words.next().unwrap_or_else(|| Err(wrong(format!("-{name} needs a value")))),
            };
            match name {
                "namespace" => it.namespace = next()?,
                "id" => it.id = next()?,
                "address" => it.address = next()?,
                "publish-binary" => it.publish_binary = next()?,
                "bundle" => it.bundle = PathBuf::from(next()?),
                // containerd 1.x has it for shims that were started by hand; the listener is inherited here.
                "socket" => drop(next()?),
                _ => return Err(wrong(format!("there is no flag -{name}"))),
            }
        }
        Ok(it)
    }

    /// Demands what every invocation but `-v` and `-info` needs.
    fn check(&self) -> Result<()> {
        for (flag, value) in [("namespace", &self.namespace), ("id", &self.id)] {
            if value.is_empty() {
                return Err(wrong(format!("-{flag} is missing")));
            }
            // Both become names of directories.
            if value.contains(['/', '\0']) || matches!(value.as_str(), "." | "..") {
                return Err(wrong(format!("-{flag} {value:?} can't be the name of a directory")));
            }
        }
        Ok(())
    }

    /// The bundle that is meant.
    pub fn bundle(&self) -> Result<PathBuf> {
        if !self.bundle.as_os_str().is_empty() {
            return Ok(self.bundle.clone());
        }
        std::env::current_dir().map_err(|error| {
            Error::new(Kind::System, format!("find the bundle, the working directory: {error}"))
        })
    }
}

fn wrong(problem: String) -> Error {
    Error::new(Kind::Config, problem).hint("see -help")
}

/// Does what `argv` asks for, and gives the exit status.
pub fn main(argv: impl Iterator<Item = OsString>) -> i32 {
    if coracle::sys::process::fill_standard_streams().is_err() {
        return 1;
    }
    match Invocation::parse(argv.skip(1)).and_then(|invocation| run(&invocation)) {
        Ok(()) => 0,
        Err(error) => {
            logger::tell(&format!("{NAME}: {error}"));
            1
        }
    }
}

fn run(invocation: &Invocation) -> Result<()> {
    if invocation.help {
        return info::print(USAGE.as_bytes());
    }
    if invocation.version {
        return info::print(info::version().as_bytes());
    }
    if invocation.info {
        return info::info();
    }
    invocation.check()?;
    match invocation.command.as_str() {
        "start" => start::start(invocation),
        "delete" => delete::delete(invocation),
        "" => daemon::run(invocation),
        command => Err(wrong(format!("there is no command {command:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Invocation> {
        Invocation::parse(words.iter().map(OsString::from))
    }

    #[test]
    fn flags_are_those_of_go_with_the_command_last() {
        let got = parse(&[
            "-namespace",
            "n",
            "--id=x",
            "-debug",
            "-address",
            "/a",
            "-publish-binary",
            "b",
            "start",
        ])
        .unwrap();
        let wanted = Invocation {
            namespace: "n".to_owned(),
            id: "x".to_owned(),
            address: "/a".to_owned(),
            publish_binary: "b".to_owned(),
            debug: true,
            command: "start".to_owned(),
            ..Invocation::default()
        };
        assert_eq!(got, wanted);
        assert!(!parse(&["-debug=false"]).unwrap().debug);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for words in [&["-nonsense"][..], &["-id"], &["-debug=maybe"], &["start", "delete"]] {
            assert!(parse(words).is_err(), "{words:?}");
        }
        assert!(parse(&["-namespace", "n", "-id", "../x"]).unwrap().check().is_err());
    }
}
