//! `coracle checkpoint`.

use std::path::PathBuf;

use super::{Arguments, ID, Subcommand};
use crate::cli::globals::Context;
use crate::cli::options::{any_path, cgroups_mode, empty_namespace, image_path, path};
use crate::container::{self, CgroupsMode, CheckpointOptions, PageServer};
use crate::error::{Error, Kind, Result};

/// The flags and arguments of `checkpoint`.
#[derive(Debug, clap::Args)]
pub(crate) struct Checkpoint {
    /// Write CRIU's image files to DIR [default: checkpoint]
    #[arg(long, value_name = "DIR", value_parser = any_path())]
    image_path: Option<PathBuf>,

    /// Write CRIU's work files and logs to DIR
    #[arg(long, value_name = "DIR", value_parser = any_path())]
    work_path: Option<PathBuf>,

    /// The images of the previous pre-dump, relative to the image path
    #[arg(long, value_name = "DIR", value_parser = any_path())]
    parent_path: Option<PathBuf>,

    /// Leave the container running
    #[arg(long)]
    leave_running: bool,

    /// Allow open TCP connections
    #[arg(long)]
    tcp_established: bool,

    /// Skip TCP connections that are being made
    #[arg(long)]
    tcp_skip_in_flight: bool,

    /// Give files that were unlinked a name again where that is possible
    #[arg(long)]
    link_remap: bool,

    /// Allow UNIX sockets whose other end is outside
    #[arg(long)]
    ext_unix_sk: bool,

    /// Allow processes with a terminal of a shell outside
    #[arg(long)]
    shell_job: bool,

    /// Serve memory pages later, on demand (userfaultfd)
    #[arg(long)]
    lazy_pages: bool,

    /// Let CRIU write a zero byte to this descriptor when it is ready to serve pages
    #[arg(long, value_name = "FD", value_parser = status_fd)]
    status_fd: Option<i32>,

    /// Send memory pages to the page server at this address
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = page_server)]
    page_server: Option<PageServer>,

    /// Handle file locks
    #[arg(long)]
    file_locks: bool,

    /// Write the memory only, and leave the container running
    #[arg(long)]
    pre_dump: bool,

    /// How cgroups are saved: soft, full, strict or ignore [default: soft]
    #[arg(long, value_name = "MODE", value_parser = cgroups_mode)]
    manage_cgroups_mode: Option<CgroupsMode>,

    /// Save that there is such a namespace, but not what is in it; CRIU knows network
    #[arg(long, value_name = "NAMESPACE", value_parser = empty_namespace)]
    empty_ns: Vec<String>,

    /// Drop memory pages from older images that newer ones have
    #[arg(long)]
    auto_dedup: bool,

    /// The container
    #[arg(value_name = ID)]
    id: String,
}

impl Subcommand for Checkpoint {
    const NAME: &'static str = "checkpoint";
    const ABOUT: &'static str = "Save a running container to files";
    const ARGUMENTS: Arguments = Arguments::Exactly(1);

    fn run(self, context: &Context) -> Result<i32> {
        let parent_path = self.parent_path.filter(|path| !path.as_os_str().is_empty());
        if parent_path.as_ref().is_some_and(|path| path.is_absolute()) {
            return Err(Error::new(Kind::Config, "--parent-path must be relative")
                .hint("it is relative to --image-path"));
        }
        let options = CheckpointOptions {
            image_path: image_path(self.image_path)?,
            work_path: path(self.work_path)?,
            parent_path,
            leave_running: self.leave_running,
            tcp_established: self.tcp_established,
            tcp_skip_in_flight: self.tcp_skip_in_flight,
            link_remap: self.link_remap,
            ext_unix_sk: self.ext_unix_sk,
            shell_job: self.shell_job,
            lazy_pages: self.lazy_pages,
            status_fd: self.status_fd.filter(|number| *number >= 0),
            page_server: self.page_server,
            file_locks: self.file_locks,
            pre_dump: self.pre_dump,
            manage_cgroups_mode: self.manage_cgroups_mode,
            empty_network_namespace: !self.empty_ns.is_empty(),
            auto_dedup: self.auto_dedup,
        };
        container::checkpoint(&context.store, &context.settings, &self.id, &options)?;
        Ok(0)
    }
}

/// Reads `--status-fd`, of which -1 is none.
fn status_fd(text: &str) -> Result<i32, String> {
    match text.parse() {
        Ok(number) if number >= -1 => Ok(number),
        _ => Err("it must be the number of an open descriptor, or -1".to_owned()),
    }
}

/// Reads `--page-server`; an IPv6 address stands in brackets.
fn page_server(text: &str) -> Result<PageServer, String> {
    let form = || "Use --page-server ADDRESS:PORT to specify page server".to_owned();
    let (address, port) = text.rsplit_once(':').ok_or_else(form)?;
    let bare = address.strip_prefix('[').and_then(|address| address.strip_suffix(']'));
    if address.is_empty() || bare == Some("") || (bare.is_none() && address.contains(':')) {
        return Err(form());
    }
    let port = port.parse().map_err(|_| format!("Invalid port number {port:?}; it must be 0 to 65535"))?;
    Ok(PageServer { address: bare.unwrap_or(address).to_owned(), port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_server_is_an_address_and_a_port() {
        let server = |address: &str, port| Ok(PageServer { address: address.to_owned(), port });
        assert_eq!(page_server("host:80"), server("host", 80));
        assert_eq!(page_server("[::1]:27"), server("::1", 27));
        for text in ["", "host", ":80", "host:", "host:x", "host:65536", "::1:80", "[]:1"] {
            assert!(page_server(text).is_err(), "{text}");
        }
    }
}
