//! Running a program for its exit status and its text, without a thread and without blocking the event loop.
//!
//! The program is executed by a fork of the shim, and is killed when the shim dies.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;

use coracle::error::{Doing, Error, Kind, Result};
use rustix::fs::MemfdFlags;

use crate::reaper::Reaper;
use crate::worker::{self, Streams};

/// How much of a program's output is read, in bytes.
const LONGEST_OUTPUT: u64 = 1 << 20;

/// What a program did.
pub struct Done {
    /// Its exit status, 128 and the signal's number for a signal.
    pub status: u32,
    /// What it wrote to its standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to its standard error.
    pub stderr: String,
}

/// Runs `program` with its output collected and `input` at its standard input.
pub async fn collect(reaper: &Reaper, program: &Path, arguments: &[OsString], input: &[u8]) -> Result<Done> {
    let mut stdin = memory_file("stdin")?;
    std::io::Write::write_all(&mut stdin, input).doing(|| "write a program's input")?;
    stdin.seek(SeekFrom::Start(0)).doing(|| "rewind a program's input")?;
    let (stdout, stderr) = (memory_file("stdout")?, memory_file("stderr")?);
    let copy = |file: &File| file.try_clone().map(OwnedFd::from).doing(|| "duplicate a descriptor");
    let streams =
        Streams { stdin: Some(stdin.into()), stdout: Some(copy(&stdout)?), stderr: Some(copy(&stderr)?) };
    let status = run(reaper, program, arguments, streams).await?;
    Ok(Done { status, stdout: text(stdout)?, stderr: String::from_utf8_lossy(&text(stderr)?).into_owned() })
}

/// Runs `program` with these standard streams, and gives its exit status.
pub async fn run(reaper: &Reaper, program: &Path, arguments: &[OsString], streams: Streams) -> Result<u32> {
    worker::execute(reaper, streams, || {
        let mut command = std::process::Command::new(program);
        command.args(arguments);
        Error::new(Kind::System, format!("execute {}: {}", program.display(), command.exec()))
    })
    .await
}

fn memory_file(name: &str) -> Result<File> {
    rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC)
        .map(File::from)
        .doing(|| "make a memory file for a program")
}

fn text(mut file: File) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    file.seek(SeekFrom::Start(0)).doing(|| "rewind a program's output")?;
    file.take(LONGEST_OUTPUT).read_to_end(&mut text).doing(|| "read a program's output")?;
    Ok(text)
}
