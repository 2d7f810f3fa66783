//! `coracle restore`.

use std::path::PathBuf;

use super::{Arguments, ID, Subcommand};
use crate::cli::globals::Context;
use crate::cli::options::{any_path, cgroups_mode, directory, empty_namespace, image_path, path, text};
use crate::container::{self, CgroupsMode, RestoreOptions};
use crate::error::Result;

/// The flags and arguments of `restore`.
#[derive(Debug, clap::Args)]
pub(crate) struct Restore {
    /// Send the terminal's master to this AF_UNIX socket
    #[arg(long, value_name = "SOCKET", value_parser = any_path())]
    console_socket: Option<PathBuf>,

    /// Read CRIU's image files from DIR [default: checkpoint]
    #[arg(long, value_name = "DIR", value_parser = any_path())]
    image_path: Option<PathBuf>,

    /// Write CRIU's work files and logs to DIR
    #[arg(long, value_name = "DIR", value_parser = any_path())]
    work_path: Option<PathBuf>,

    /// Allow open TCP connections
    #[arg(long)]
    tcp_established: bool,

    /// Allow UNIX sockets whose other end is outside
    #[arg(long)]
    ext_unix_sk: bool,

    /// Allow processes with a terminal of a shell outside
    #[arg(long)]
    shell_job: bool,

    /// Handle file locks
    #[arg(long)]
    file_locks: bool,

    /// How cgroups are restored: soft, full, strict or ignore [default: soft]
    #[arg(long, value_name = "MODE", value_parser = cgroups_mode)]
    manage_cgroups_mode: Option<CgroupsMode>,

    /// The bundle: the directory with config.json and the root filesystem
    #[arg(long, short, value_name = "DIR", default_value = ".", value_parser = any_path())]
    bundle: PathBuf,

    /// Return once the container runs
    #[arg(long, short)]
    detach: bool,

    /// Write the pid of the container's first process to FILE
    #[arg(long, value_name = "FILE", value_parser = any_path())]
    pid_file: Option<PathBuf>,

    /// Leave the container's orphaned processes to the next subreaper or init
    #[arg(long)]
    no_subreaper: bool,

    /// Enter the root filesystem without pivot_root(2), as one on a ramdisk needs
    #[arg(long)]
    no_pivot: bool,

    /// Make such a namespace new instead of restoring what was in it; CRIU knows network
    #[arg(long, value_name = "NAMESPACE", value_parser = empty_namespace)]
    empty_ns: Vec<String>,

    /// Drop memory pages from the images once they are restored
    #[arg(long)]
    auto_dedup: bool,

    /// Fetch memory pages later, on demand (userfaultfd)
    #[arg(long)]
    lazy_pages: bool,

    /// Restore with this LSM profile
    #[arg(long, value_name = "TYPE:NAME")]
    lsm_profile: Option<String>,

    /// Mount with this LSM context
    #[arg(long, value_name = "CONTEXT")]
    lsm_mount_context: Option<String>,

    /// The name of the new container, of its own on this host
    #[arg(value_name = ID)]
    id: String,
}

impl Subcommand for Restore {
    const NAME: &'static str = "restore";
    const ABOUT: &'static str = "Restore a container from files that `checkpoint` wrote";
    const ARGUMENTS: Arguments = Arguments::Exactly(1);
    const ENTERS: bool = true;

    fn run(self, context: &Context) -> Result<i32> {
        let options = RestoreOptions {
            bundle: directory(self.bundle),
            console_socket: path(self.console_socket)?,
            pid_file: path(self.pid_file)?,
            image_path: image_path(self.image_path)?,
            work_path: path(self.work_path)?,
            detach: self.detach,
            no_subreaper: self.no_subreaper,
            no_pivot: self.no_pivot,
            tcp_established: self.tcp_established,
            ext_unix_sk: self.ext_unix_sk,
            shell_job: self.shell_job,
            file_locks: self.file_locks,
            manage_cgroups_mode: self.manage_cgroups_mode,
            empty_network_namespace: !self.empty_ns.is_empty(),
            auto_dedup: self.auto_dedup,
            lazy_pages: self.lazy_pages,
            lsm_profile: text(self.lsm_profile),
            lsm_mount_context: text(self.lsm_mount_context),
        };
        container::restore(&context.store, &context.settings, &self.id, &options)
    }
}
