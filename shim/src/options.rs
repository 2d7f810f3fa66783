//! The options of a container: `containerd.runc.v1.Options`, or the TOML of containerd's configuration.
//!
//! For a runtime that isn't its own, containerd's CRI plugin doesn't know the type of the options. It passes the section
//! of its configuration on as text (`runtimeoptions.v1.Options`, field `config_body`, containerd 1.7 and newer), or the path
//! of a file (`config_path`). The keys are then those that runc's shim has there, `SystemdCgroup` and so on.

use std::io::Read;
use std::path::{Path, PathBuf};

use coracle::error::{Doing, Error, Kind, Result};
use serde::{Deserialize, Serialize};

use crate::proto::{self, Any};
use crate::spec;

/// Where runc's shim has the state of containers, below which each namespace has a directory.
const DEFAULT_ROOT: &str = "/run/containerd/runc";

/// The file in the bundle that keeps the options for the invocation `delete`.
pub const FILE: &str = "options.json";

/// The largest file of options that is read, in bytes.
const LARGEST: u64 = 1 << 20;

/// The options, settled.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Options {
    /// Move the root instead of pivot_root(2).
    pub no_pivot_root: bool,
    /// No session keyring for containers.
    pub no_new_keyring: bool,
    /// The cgroup that the shim is to join.
    pub shim_cgroup: Option<String>,
    /// The owner of the pipes at the standard streams, where one is given.
    pub io_uid: u32,
    /// See `io_uid`.
    pub io_gid: u32,
    /// The runtime to run instead of the library.
    pub other_runtime: Option<PathBuf>,
    /// Where the runtime keeps its state, without the namespace.
    pub root: PathBuf,
    /// Let systemd manage cgroups.
    pub systemd_cgroup: bool,
    /// Where CRIU's images and files are.
    pub criu_image_path: String,
    /// See `criu_image_path`.
    pub criu_work_path: String,
}

/// The options in containerd's configuration: what Go's names of the fields are there.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
struct Section {
    no_pivot_root: bool,
    no_new_keyring: bool,
    shim_cgroup: String,
    io_uid: u32,
    io_gid: u32,
    binary_name: String,
    root: String,
    // Old versions of containerd had it; runc decides by itself now.
    criu_path: String,
    systemd_cgroup: bool,
    criu_image_path: String,
    criu_work_path: String,
    // Of runtimeoptions.v1.Options, which the section is read as too.
    type_url: String,
    config_path: String,
    config_body: String,
    // Of the sandbox's shim elsewhere; containerd fills them in itself.
    task_api_address: String,
    task_api_version: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self::settle(proto::runc::Options::default())
    }
}

impl Options {
    /// The options of a Create request, or of the invocation `start`.
    ///
    /// # Errors
    /// They are of another type, or can't be read.
    pub fn read(any: Option<&Any>) -> Result<Self> {
        let Some(any) = any.filter(|any| !any.type_url.is_empty()) else { return Ok(Self::default()) };
        let options = Self::read_known(any)?.ok_or_else(|| {
            Error::new(Kind::Config, format!("the runtime options are of the type {:?}", any.type_url))
                .hint("this shim takes containerd.runc.v1.Options and runtimeoptions.v1.Options")
        })?;
        for (name, value) in
            [("CriuImagePath", &options.criu_image_path), ("CriuWorkPath", &options.criu_work_path)]
        {
            if !value.is_empty() {
                return Err(Error::new(
                    Kind::Unsupported,
                    format!("the runtime option {name} is {value:?}: the runtime has no checkpoint yet"),
                )
                .hint("leave the option out"));
            }
        }
        Ok(options)
    }

    /// The options in `any`; nothing where it holds something else.
    pub fn read_known(any: &Any) -> Result<Option<Self>> {
        if let Some(options) = proto::unpack::<proto::runc::Options>(any) {
            return options.map(|options| Some(Self::settle(options))).map_err(|error| unreadable(&error));
        }
        if let Some(options) = proto::unpack::<proto::runc::CreateOptions>(any) {
            return options.map(|options| Some(Self::of_client(options))).map_err(|error| unreadable(&error));
        }
        let Some(options) = proto::unpack::<proto::runtimeoptions::Options>(any) else { return Ok(None) };
        let options = options.map_err(|error| unreadable(&error))?;
        let (text, from) = match options.config_path.as_str() {
            "" => (options.config_body, "containerd's configuration".to_owned()),
            path => (read_file(Path::new(path))?, path.to_owned()),
        };
        Self::from_toml(&text, &from).map(Some)
    }

    fn from_toml(text: &[u8], from: &str) -> Result<Self> {
        let wrong =
            |problem: String| Error::new(Kind::Config, format!("the runtime options of {from}: {problem}"));
        let text = std::str::from_utf8(text).map_err(|error| wrong(error.to_string()))?;
        let section: Section = toml::from_str(text).map_err(|error| wrong(error.message().to_owned()))?;
        if !section.criu_path.is_empty() {
            log::warn!("the runtime option CriuPath is of no use: the runtime finds criu by $PATH");
        }
        Ok(Self::settle(proto::runc::Options {
            no_pivot_root: section.no_pivot_root,
            no_new_keyring: section.no_new_keyring,
            shim_cgroup: section.shim_cgroup,
            io_uid: section.io_uid,
            io_gid: section.io_gid,
            binary_name: section.binary_name,
            root: section.root,
            systemd_cgroup: section.systemd_cgroup,
            criu_image_path: section.criu_image_path,
            criu_work_path: section.criu_work_path,
            ..proto::runc::Options::default()
        }))
    }

    /// The older form, in which containerd 1.x's client asks for an owner of the streams.
    fn of_client(options: proto::runc::CreateOptions) -> Self {
        Self::settle(proto::runc::Options {
            no_pivot_root: options.no_pivot_root,
            no_new_keyring: options.no_new_keyring,
            shim_cgroup: options.shim_cgroup,
            io_uid: options.io_uid,
            io_gid: options.io_gid,
            criu_image_path: options.criu_image_path,
            criu_work_path: options.criu_work_path,
            ..proto::runc::Options::default()
        })
    }

    fn settle(options: proto::runc::Options) -> Self {
        let given = |text: String| Some(text).filter(|text| !text.is_empty());
        Self {
            no_pivot_root: options.no_pivot_root,
            no_new_keyring: options.no_new_keyring,
            shim_cgroup: given(options.shim_cgroup),
            io_uid: options.io_uid,
            io_gid: options.io_gid,
            other_runtime: given(options.binary_name)
                .map(PathBuf::from)
                .filter(|program| !is_coracle(program)),
            root: given(options.root).map_or_else(|| PathBuf::from(DEFAULT_ROOT), PathBuf::from),
            systemd_cgroup: options.systemd_cgroup,
            criu_image_path: options.criu_image_path,
            criu_work_path: options.criu_work_path,
        }
    }

    /// The owner of the pipes at the standard streams, where it isn't root.
    pub fn owner(&self) -> Option<(u32, u32)> {
        ((self.io_uid, self.io_gid) != (0, 0)).then_some((self.io_uid, self.io_gid))
    }

    /// Keeps the options in the bundle.
    pub fn save(&self, bundle: &Path) -> Result<()> {
        let path = bundle.join(FILE);
        let text = serde_json::to_vec(self)
            .map_err(|error| Error::new(Kind::System, format!("write {}: {error}", path.display())))?;
        spec::write(&path, &text)
    }

    /// The options that were kept in the bundle; the usual ones where there are none.
    pub fn load(bundle: &Path) -> Self {
        std::fs::read(bundle.join(FILE))
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default()
    }
}

/// A binary of this name is the library's own command line: the library does the same.
fn is_coracle(program: &Path) -> bool {
    program.file_name().is_some_and(|name| name == "coracle")
}

fn unreadable(error: &protobuf::Error) -> Error {
    Error::new(Kind::Config, format!("read the runtime options: {error}"))
}

fn read_file(path: &Path) -> Result<Vec<u8>> {
    let doing = || format!("read the runtime options from {}", path.display());
    let mut text = Vec::new();
    std::fs::File::open(path).and_then(|file| file.take(LARGEST).read_to_end(&mut text)).doing(doing)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_runc_are_taken_with_its_default_root() {
        let options = proto::runc::Options {
            systemd_cgroup: true,
            binary_name: "crun".to_owned(),
            ..Default::default()
        };
        let options = Options::read(Some(&proto::pack(&options).unwrap())).unwrap();
        assert!(options.systemd_cgroup);
        assert_eq!(options.other_runtime, Some(PathBuf::from("crun")));
        assert_eq!(options.root, PathBuf::from(DEFAULT_ROOT));
    }

    #[test]
    fn the_older_form_of_containerds_client_is_taken() {
        let options =
            proto::runc::CreateOptions { io_uid: 7, io_gid: 8, no_new_keyring: true, ..Default::default() };
        let options = Options::read(Some(&proto::pack(&options).unwrap())).unwrap();
        assert_eq!((options.owner(), options.no_new_keyring), (Some((7, 8)), true));
    }

    #[test]
    fn what_has_no_effect_is_refused() {
        let options = proto::runc::Options { criu_work_path: "/work".to_owned(), ..Default::default() };
        let error = Options::read(Some(&proto::pack(&options).unwrap())).unwrap_err().to_string();
        assert!(error.contains("CriuWorkPath") && error.contains("leave"), "{error}");
    }

    #[test]
    fn a_binary_called_coracle_is_the_library() {
        let options =
            proto::runc::Options { binary_name: "/usr/local/bin/coracle".to_owned(), ..Default::default() };
        assert_eq!(Options::read(Some(&proto::pack(&options).unwrap())).unwrap().other_runtime, None);
    }

    #[test]
    fn the_section_of_a_configuration_is_taken_as_text() {
        let options = proto::runtimeoptions::Options {
            config_body: b"SystemdCgroup = true\nBinaryName = \"\"\nIoUid = 7\n".to_vec(),
            ..Default::default()
        };
        let options = Options::read(Some(&proto::pack(&options).unwrap())).unwrap();
        assert!(options.systemd_cgroup);
        assert_eq!(options.owner(), Some((7, 0)));
    }

    #[test]
    fn an_unknown_key_or_type_is_refused_with_its_name() {
        let error = Options::from_toml(b"SystemdCgruop = true", "x").unwrap_err().to_string();
        assert!(error.contains("SystemdCgruop"), "{error}");
        let any = Any { type_url: "a.B".to_owned(), ..Any::default() };
        assert!(Options::read(Some(&any)).unwrap_err().to_string().contains("\"a.B\""));
    }
}
