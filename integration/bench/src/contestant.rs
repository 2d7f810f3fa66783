//! Those who are compared, and how each of their commands is started.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a contestant is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Role {
    /// The bare system calls, with these further options. It knows `run` only.
    Floor(Vec<String>),
    /// The runtime whose targets are checked.
    Subject,
    /// A runtime to compare with.
    Peer,
}

/// One of those who are compared.
#[derive(Clone)]
pub struct Contestant {
    /// Its name in the tables.
    pub name: String,
    /// Its program.
    pub program: PathBuf,
    /// What it is.
    pub role: Role,
    /// What `--version` says first.
    pub version: String,
    /// Its state directory.
    pub root: PathBuf,
    /// Whether systemd makes the cgroups.
    pub systemd: bool,
}

/// The commands that are measured one by one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verb {
    /// A whole foreground run of `true`.
    Run,
    /// From nothing to a container that waits.
    Create,
    /// Opens the gate of one that waits.
    Start,
    /// Prints the state of one that runs.
    State,
    /// Runs `true` in one that runs, and waits for it.
    Exec,
    /// Removes one whose process has ended.
    Delete,
}

impl Verb {
    /// All of them, in the order of the tables.
    pub const ALL: [Self; 6] = [Self::Run, Self::Create, Self::Start, Self::Delete, Self::Exec, Self::State];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Create => "create",
            Self::Start => "start",
            Self::State => "state",
            Self::Exec => "exec",
            Self::Delete => "delete",
        }
    }
}

impl Contestant {
    /// Looks at the program and asks for its version.
    pub fn new(name: &str, program: &Path, role: Role, state: &Path) -> Result<Self, String> {
        let program =
            program.canonicalize().map_err(|e| format!("{name}: no program {}: {e}", program.display()))?;
        let version = if matches!(role, Role::Floor(_)) {
            String::new()
        } else {
            let output = Command::new(&program)
                .arg("--version")
                .output()
                .map_err(|e| format!("{name}: start {}: {e}", program.display()))?;
            String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned()
        };
        let root = state.join(name.replace(' ', "-"));
        Ok(Self { name: name.to_owned(), program, role, version, root, systemd: false })
    }

    /// Whether it can do more than `run`.
    pub fn has_lifecycle(&self) -> bool {
        !matches!(self.role, Role::Floor(_))
    }

    /// The command line for `verb` on container `id`.
    pub fn command(&self, verb: Verb, id: &str, bundle: &Path) -> Result<Vec<CString>, String> {
        let mut line: Vec<&[u8]> = vec![self.program.as_os_str().as_bytes()];
        let bundle = bundle.as_os_str().as_bytes();
        if let Role::Floor(options) = &self.role {
            line.extend([b"run".as_slice(), b"--id", id.as_bytes()]);
            line.extend(options.iter().map(String::as_bytes));
            line.push(bundle);
        } else {
            line.extend([b"--root".as_slice(), self.root.as_os_str().as_bytes()]);
            if self.systemd {
                line.push(b"--systemd-cgroup");
            }
            line.push(verb.name().as_bytes());
            if matches!(verb, Verb::Run | Verb::Create) {
                line.extend([b"--bundle".as_slice(), bundle]);
            }
            line.push(id.as_bytes());
            if verb == Verb::Exec {
                line.push(b"true");
            }
        }
        line.into_iter()
            .map(CString::new)
            .collect::<Result<_, _>>()
            .map_err(|_| format!("{}: an argument with a NUL byte", self.name))
    }
}
