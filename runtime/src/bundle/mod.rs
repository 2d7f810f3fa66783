//! The bundle: `config.json` read, checked and typed.
//!
//! It owns the way from the bytes of a bundle's `config.json` (runtime-spec 1.3, `bundle.md`, `config.md`,
//! `config-linux.md`) to a [`Bundle`] that the plan can rely on, and of a process file to a
//! [`Process`]. It promises that
//!
//! * bad input is an error, never a panic; the error names the JSON path (`mounts[3].source`), what is wrong and
//!   what would be right, and is the first one in the order of the document;
//! * what the spec says to tolerate is tolerated: unknown properties are ignored, an unknown capability is dropped
//!   with a warning, `null` is as absent;
//! * what other platforms own (`windows`, `solaris`, `vm`, `zos`) is dropped with a warning;
//! * nothing here looks at the host but for the file itself and for whether the rootfs is a directory.
//!
//! One file a section of the spec. The maps of the document (`linux.sysctl`, `annotations`, …) come out in no
//! order: whoever acts on them sorts them first.

mod explain;
mod hooks;
mod id_list;
mod linux;
mod mount_options;
mod mounts;
mod parse;
mod problems;
mod process;
#[cfg(test)]
mod random_tests;
mod root;
#[cfg(test)]
mod testing;
mod tolerate;
mod version;

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use oci_spec::runtime::{LinuxNamespaceType, LinuxResources, Process, Spec};
use serde_json::value::RawValue;

pub use id_list::{IdList, check_cpuset};
pub use linux::memory_policy::{MemoryPolicy, parse_memory_policy};
pub use linux::net_devices::{LONGEST_NAME as LONGEST_DEVICE_NAME, TEMPLATE as DEVICE_NAME_TEMPLATE};
pub use linux::paths::{parse_rootfs_propagation, personality};
pub use linux::sysctl::{Sysctl, parse_sysctl, shared as shared_sysctl};
pub use mount_options::{
    Bind, IdMap, MountOptions, RecursiveAttributes, attr, mount_option_names, parse_mount_options,
};
pub use problems::member_place;
pub use process::rlimits::rlimit_resource;
pub use process::scheduling::{SchedulerAttributes, io_priority, scheduler_attributes};

use crate::error::{Doing as _, Error, Kind, Result};
use problems::Problems;

/// The largest `config.json` that is read, in bytes: a guard against reading a device or an endless file.
const MAX_CONFIG: u64 = 16 << 20;

/// Room for a `config.json` of the usual size, in bytes, so that one read takes it.
const USUAL_CONFIG: usize = 32 << 10;

/// What the places of a process begin with when it is a section of `config.json`.
const IN_CONFIG: &str = "process.";

/// A bundle whose `config.json` has passed every check that needs no host.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// The bundle's directory: absolute, symlinks resolved.
    pub dir: PathBuf,
    /// The root filesystem: absolute. Its last components may still be symlinks.
    pub rootfs: PathBuf,
    /// The configuration. `linux.seccomp` is not in it (see [`Bundle::seccomp`]), strings that are empty where
    /// the spec means "not given" are absent, the type bits of a device's `fileMode` are gone.
    pub spec: Spec,
    /// `linux.seccomp` word for word, for the seccomp compiler: its types here would refuse architectures and
    /// flags that the spec tolerates.
    pub seccomp: Option<Box<RawValue>>,
    /// The text that all this was read from.
    pub source: Vec<u8>,
    /// What the user should hear of but what does not stop the container.
    pub warnings: Vec<String>,
}

impl Bundle {
    /// Reads `config_name` (`config.json` but for `--config`) in the directory `dir` and checks it.
    ///
    /// # Errors
    /// The directory or the file cannot be read, the file is no JSON, breaks a rule of the spec, or the rootfs is
    /// no directory.
    pub fn load(dir: &Path, config_name: &str) -> Result<Bundle> {
        let dir = dir.canonicalize().doing(|| format!("open the bundle {}", dir.display()))?;
        let path = dir.join(config_name);
        let text = match read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::new(
                    Kind::Config,
                    format!("JSON specification file {config_name} not found"),
                )
                .hint(format!("the bundle is {}; `coracle spec` writes a first one", dir.display())));
            }
            read => read.doing(|| format!("read {}", path.display()))?,
        };
        let bundle = Self::from_json(&dir, &text)?;
        let namespaces = linux::namespaces_of(&bundle.spec);
        root::check_directory(&bundle.rootfs, linux::has(namespaces, LinuxNamespaceType::Mount))?;
        Ok(bundle)
    }

    /// Checks the configuration `text` as that of a bundle at `dir`, which should be absolute. Touches no file
    /// system, so it does not know whether the rootfs is there.
    ///
    /// # Errors
    /// `text` is no JSON or breaks a rule of the spec.
    pub fn from_json(dir: &Path, text: &[u8]) -> Result<Bundle> {
        let mut problems = Problems::default();
        let parse::Config { mut spec, seccomp } = parse::config(text, &mut problems)?;
        check(&mut spec, text, &mut problems);
        let warnings = problems.finish(text)?;
        let rootfs = match spec.root() {
            Some(root) => dir.join(root.path()),
            None => dir.to_path_buf(),
        };
        Ok(Bundle { dir: dir.to_path_buf(), rootfs, spec, seccomp, source: text.to_vec(), warnings })
    }
}

/// Reads and checks a process file (`exec --process`): the `process` object of `config.json`, alone in a file.
/// Gives the process and what to warn of.
///
/// # Errors
/// The file cannot be read, is no JSON, or breaks a rule of the spec. The message names the file and the path in it.
pub fn load_process(path: &Path) -> Result<(Process, Vec<String>)> {
    let text = read(path).doing(|| format!("read the process file {}", path.display()))?;
    process_from_json(&text).map_err(|error| {
        let told = error.to_string();
        Error::new(Kind::Config, format!("process file {}: {}", path.display(), without_document(&told)))
    })
}

/// What is told of a document, without the name that `config.json` would have there.
fn without_document(told: &str) -> &str {
    told.strip_prefix("config.json").map_or(told, |rest| rest.trim_start_matches([':', ' ']))
}

/// [`load_process`] without the file.
///
/// # Errors
/// The text is no JSON, or breaks a rule of the spec.
pub fn process_from_json(text: &[u8]) -> Result<(Process, Vec<String>)> {
    let mut problems = Problems::in_document("process file");
    let mut process = parse::process(text, &mut problems)?;
    process::scheduling::check_class(&process, "", text, &mut problems);
    process::check(&mut process, "", &mut problems);
    process::check_no_nul(&process, "", &mut problems);
    let warnings = problems.finish(text)?;
    Ok((process, warnings))
}

/// Checks a process that was not read from a file: one that `exec` made from its options. Places are told as
/// `process.cwd`. Gives what to warn of.
///
/// # Errors
/// The process breaks a rule of the spec.
pub fn check_process(process: &mut Process) -> Result<Vec<String>> {
    let mut problems = Problems::default();
    process::check(process, IN_CONFIG, &mut problems);
    process::check_no_nul(process, IN_CONFIG, &mut problems);
    problems.finish(b"")
}

/// Checks limits that were not read from `config.json`: those of `update`. They may lean on limits that the
/// cgroup has already, so that `memory.swap` may stand alone. Gives what to warn of.
///
/// # Errors
/// A value breaks a rule of the spec or of the kernel.
pub fn check_resources(resources: &LinuxResources) -> Result<Vec<String>> {
    let mut problems = Problems::default();
    linux::resources::check(resources, linux::resources::Use::Update, &mut problems);
    problems.finish(b"")
}

/// Reads limits that stand alone: the `linux.resources` object. Gives them and what to warn of. [`check_resources`] is
/// the next step.
///
/// # Errors
/// The text is no JSON, or a value has the wrong type. The message names the path in the object.
pub fn resources_from_json(text: &[u8]) -> Result<(LinuxResources, Vec<String>)> {
    let mut problems = Problems::in_document("resources");
    let resources = parse::resources(text, &mut problems)
        .map_err(|error| Error::new(Kind::Config, without_document(&error.to_string())))?;
    Ok((resources, problems.finish(text)?))
}

fn check(spec: &mut Spec, text: &[u8], problems: &mut Problems) {
    version::check(spec.version(), problems);
    root::check(spec.root().as_ref(), problems);
    match spec.process_mut() {
        Some(process) => {
            process::scheduling::check_class(process, IN_CONFIG, text, problems);
            process::check(process, IN_CONFIG, problems);
        }
        None => problems.refuse("process", "process property must not be empty; give at least args and cwd"),
    }
    mounts::check(spec, problems);
    hooks::check(spec.hooks().as_ref(), problems);
    root::check_annotations(spec.annotations().as_ref(), problems);
    linux::check(spec, text, problems);
    problems.refuse_nul(text);
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    read_all(File::open(path)?)
}

/// Reads a document to its end, which a device may not have.
///
/// # Errors
/// It is larger than any configuration.
pub fn read_all(from: impl Read) -> io::Result<Vec<u8>> {
    let mut text = Vec::with_capacity(USUAL_CONFIG);
    from.take(MAX_CONFIG + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_CONFIG {
        return Err(io::Error::other(format!("the file is larger than {} MiB", MAX_CONFIG >> 20)));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A directory of its own for a test, removed at the end.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("coracle-bundle-{}-{name}", std::process::id()));
            // One that was killed may have left it.
            let _ = fs::remove_dir_all(&dir);
            fs::create_dir(&dir).expect("a fresh directory");
            Self(dir)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_bundle_is_loaded_from_its_directory_with_symlinks_resolved() {
        let scratch = Scratch::new("load");
        let dir = scratch.0.join("bundle");
        fs::create_dir_all(dir.join("rootfs")).expect("directories");
        fs::write(dir.join("config.json"), testing::config().to_string()).expect("a file");
        let link = scratch.0.join("link");
        std::os::unix::fs::symlink(&dir, &link).expect("a symlink");
        let bundle = Bundle::load(&link, "config.json").expect("a good bundle");
        let real = dir.canonicalize().expect("the real directory");
        assert_eq!((&bundle.dir, &bundle.rootfs), (&real, &real.join("rootfs")));
        assert_eq!(bundle.warnings, Vec::<String>::new());
    }

    #[test]
    fn what_is_not_there_is_named() {
        let scratch = Scratch::new("missing");
        let dir = &scratch.0;
        let error = Bundle::load(&dir.join("none"), "config.json").expect_err("no bundle").to_string();
        assert!(error.contains("/none: no such file or directory"), "{error}");
        let error = Bundle::load(dir, "config.json").expect_err("no configuration").to_string();
        assert!(error.starts_with("JSON specification file config.json not found"), "{error}");
        fs::write(dir.join("config.json"), testing::config().to_string()).expect("a file");
        let error = Bundle::load(dir, "config.json").expect_err("no rootfs");
        assert_eq!(error.place(), Some("root.path"));
        assert!(error.to_string().contains("/rootfs: no such file or directory"), "{error}");
        fs::write(dir.join("rootfs"), "").expect("a file");
        let error = Bundle::load(dir, "config.json").expect_err("a file for a rootfs");
        assert!(error.to_string().contains("/rootfs is not a directory"), "{error}");
    }

    #[test]
    fn a_file_without_end_is_not_read_to_its_end() {
        let error = Bundle::load(Path::new("/dev"), "zero").expect_err("too large").to_string();
        assert!(error.contains("read /dev/zero: the file is larger than 16 MiB"), "{error}");
    }

    #[test]
    fn a_process_file_is_a_process_alone_and_its_errors_name_it() {
        let scratch = Scratch::new("process");
        let path = scratch.0.join("process.json");
        let text = r#"{"args": ["sh"], "cwd": "/", "capabilities": {"bounding": ["CAP_FOO"]}}"#;
        fs::write(&path, text).expect("a file");
        let (process, warnings) = load_process(&path).expect("a good process");
        assert_eq!(process.args().as_deref(), Some(&["sh".to_owned()][..]));
        assert!(warnings[0].starts_with("process file: capabilities.bounding: "), "{warnings:?}");
        for (text, told) in [
            (r#"{"args": ["sh"], "cwd": "x"}"#, ": cwd: \"x\": cwd must be an absolute path"),
            (r#"{"args": ["sh", "\u0000"], "cwd": "/"}"#, ": args[1]: has a NUL byte"),
            (r#"{"args": "sh", "cwd": "/"}"#, ": args: is a string"),
            ("{", ": JSON ends too early"),
        ] {
            fs::write(&path, text).expect("a file");
            let error = load_process(&path).expect_err(text).to_string();
            assert!(error.starts_with(&format!("process file {}{told}", path.display())), "{error}");
        }
        let error = load_process(&scratch.0.join("none")).expect_err("no file").to_string();
        assert!(error.starts_with("read the process file ") && error.contains("no such file"), "{error}");
    }

    #[test]
    fn limits_that_stand_alone_name_the_place_of_their_mistake() {
        let told = |text: &[u8]| resources_from_json(text).expect_err("wrong").to_string();
        let error = told(br#"{"memory": {"limit": "x"}}"#);
        assert!(error.starts_with("memory.limit: is a string \"x\", but must be an integer"), "{error}");
        assert!(told(b"{} {}").contains("trailing"));
        assert_eq!(told(b"[]"), "is a list, but must be an object");
        assert!(told(b"5").ends_with("must be an object"));
        assert!(resources_from_json(b"").is_err());
        let (resources, warnings) = resources_from_json(br#"{"pids": {"limit": 5}}"#).expect("limits");
        assert_eq!((resources.pids().expect("a limit").limit(), warnings.len()), (5, 0));
    }

    #[test]
    fn limits_that_stand_alone_are_read_as_those_of_config_json() {
        let read = |text: &str| resources_from_json(text.as_bytes()).expect("limits").0;
        assert_eq!(read(r#"{"pids": {}}"#).pids(), &None);
        assert_eq!(read(r#"{"pids": {"limit": 0}}"#).pids().expect("a limit").limit(), 0);
        assert_eq!(read(r#"{"memory": null, "pids": {"limit": null}}"#).pids(), &None);
        let huge = read(r#"{"hugepageLimits": [{"pageSize": "2MB", "limit": 9223372036854775808}]}"#);
        assert_eq!(huge.hugepage_limits().as_ref().expect("a limit")[0].limit(), i64::MAX);
        let devices = read(r#"{"devices": [{"allow": false, "type": "", "access": "rwm"}]}"#);
        assert_eq!(devices.devices().as_ref().expect("a rule")[0].typ(), None);
    }

    #[test]
    fn limits_that_nobody_knows_are_warned_of() {
        let warnings = |text: &str| resources_from_json(text.as_bytes()).expect("limits").1;
        assert_eq!(
            warnings(
                r#"{"momery": {"limit": 5}, "CPU": {}, "memory": {"limit": 5, "max": 6, "swap": null}}"#
            ),
            [
                "resources: CPU: is unknown and ignored; names are as in linux.resources of config.json",
                "resources: memory.max: is unknown and ignored; names are as in linux.resources of config.json",
                "resources: momery: is unknown and ignored; names are as in linux.resources of config.json",
            ]
        );
        let known = r#"{"devices": [{"allow": true, "type": "", "major": 1, "access": "r"}], "unified": {"a.b": "c"},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 9223372036854775808}], "rdma": {"x": {"hcaHandles": 1}},
            "blockIO": {"weightDevice": [{"major": 1, "minor": 2, "weight": 3}], "throttleReadIOPSDevice": []},
            "network": {"classID": 1}, "cpu": {"realtimeRuntime": 5, "cpus": "0"}}"#;
        assert_eq!(warnings(known), Vec::<String>::new());
    }

    #[test]
    fn a_process_that_exec_made_is_checked_as_one_of_config_json() {
        let process = |cwd: &str| -> Process {
            serde_json::from_value(serde_json::json!({"user": {}, "args": ["sh"], "cwd": cwd}))
                .expect("a process")
        };
        assert_eq!(check_process(&mut process("/")).expect("a good process"), Vec::<String>::new());
        let error = check_process(&mut process("x\0")).expect_err("a relative cwd");
        assert_eq!(error.place(), Some("process.cwd"));
    }
}
