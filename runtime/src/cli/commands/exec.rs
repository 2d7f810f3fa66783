//! `coracle exec`.

use std::path::PathBuf;

use super::{Arguments, ID, Subcommand};
use crate::cli::globals::Context;
use crate::cli::options::{any_path, check_descriptors, path, text};
use crate::cli::values::user;
use crate::container::{self, ExecOptions, ExecProcess};
use crate::error::{Error, Kind, Result};

/// The flags and arguments of `exec`.
#[derive(Debug, clap::Args)]
pub(crate) struct Exec {
    /// Send the terminal's master to this AF_UNIX socket
    #[arg(long, value_name = "SOCKET", value_parser = any_path())]
    console_socket: Option<PathBuf>,

    /// Send a pidfd of the new process to this AF_UNIX socket
    #[arg(long, value_name = "SOCKET", value_parser = any_path())]
    pidfd_socket: Option<PathBuf>,

    /// The working directory in the container
    #[arg(long, value_name = "DIR")]
    cwd: Option<String>,

    /// Add NAME=VALUE to the environment
    #[arg(long, short, value_name = "NAME=VALUE")]
    env: Vec<String>,

    /// Give the process a terminal
    #[arg(long, short)]
    tty: bool,

    /// Run as this user, and group, by number
    #[arg(long, short, value_name = "UID[:GID]")]
    user: Option<String>,

    /// Be in this group, too, by number
    #[arg(long, short = 'g', value_name = "GID")]
    additional_gids: Vec<u32>,

    /// Take the whole process from FILE: a `process` object of config.json
    #[arg(long, short, value_name = "FILE", value_parser = any_path(),
          conflicts_with_all = ["cwd", "env", "user", "additional_gids", "process_label", "apparmor", "no_new_privs", "cap", "command"])]
    process: Option<PathBuf>,

    /// Return once the process runs
    #[arg(long, short)]
    detach: bool,

    /// Write the pid of the process to FILE
    #[arg(long, value_name = "FILE", value_parser = any_path())]
    pid_file: Option<PathBuf>,

    /// The SELinux label of the process
    #[arg(long, value_name = "LABEL")]
    process_label: Option<String>,

    /// The AppArmor profile of the process
    #[arg(long, value_name = "PROFILE")]
    apparmor: Option<String>,

    /// Whether the process may gain no privileges by executing a program [default: as config.json says]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "WHETHER")]
    no_new_privs: Option<bool>,

    /// Give the process this capability, too
    #[arg(long, short, value_name = "CAPABILITY")]
    cap: Vec<String>,

    /// Pass N descriptors more, after standard input, output and error
    #[arg(long, value_name = "N", default_value = "0")]
    preserve_fds: u32,

    /// Run in this cgroup below the container's, which must be there already
    #[arg(long, value_name = "[CONTROLLER:]PATH")]
    cgroup: Vec<String>,

    /// Don't refuse when the container is paused; the process waits until it is resumed
    #[arg(long)]
    ignore_paused: bool,

    /// The container
    #[arg(value_name = ID)]
    id: String,

    /// The program to run, and its arguments
    #[arg(value_name = "COMMAND")]
    command: Vec<String>,
}

impl Subcommand for Exec {
    const NAME: &'static str = "exec";
    const ABOUT: &'static str = "Run one more process in a container";
    const DETAILS: &'static str = "The process is like the container's own, but for what the options change; or it \
        is described by a file (--process). Everything after the container's name belongs to the command. The \
        process's exit status becomes this command's; an error before that gives 255.";
    const ARGUMENTS: Arguments = Arguments::AtLeast(1);
    const ENTERS: bool = true;
    const FAILED: &'static str = "exec failed: ";
    const ERROR_STATUS: u8 = 255;

    fn run(self, context: &Context) -> Result<i32> {
        check_descriptors(0, self.preserve_fds)?;
        let process = match path(self.process)? {
            Some(path) => ExecProcess::File { path, tty: self.tty },
            None if self.command.is_empty() => {
                return Err(Error::new(Kind::Config, "exec args cannot be empty")
                    .hint("name the program to run after the container, or give --process FILE"));
            }
            None => ExecProcess::Given {
                args: self.command,
                cwd: text(self.cwd),
                env: self.env,
                tty: self.tty,
                user: text(self.user)
                    .as_deref()
                    .map(user::parse)
                    .transpose()
                    .map_err(|error| Error::new(Kind::Config, error))?,
                additional_gids: self.additional_gids,
                caps: self.cap,
                apparmor: text(self.apparmor),
                process_label: text(self.process_label),
                no_new_privs: self.no_new_privs,
            },
        };
        let options = ExecOptions {
            console_socket: path(self.console_socket)?,
            pidfd_socket: path(self.pidfd_socket)?,
            pid_file: path(self.pid_file)?,
            detach: self.detach,
            preserve_fds: self.preserve_fds,
            cgroup: self.cgroup,
            ignore_paused: self.ignore_paused,
            process,
        };
        container::exec(&context.store, &context.settings, &self.id, &options)
    }
}
