//! Starts one command and prints its peak memory.
//!
//! The kernel carries the peak of the memory that a process had before execve over into its `ru_maxrss`
//! (`setmax_mm_hiwater_rss` in `exec_mmap`, fs/exec.c). So the benchmark, which is larger than what it
//! measures, must not start the command itself. This program is small, and prints its own peak too, below which
//! it can't see: "STATUS MAXRSS_KIB OWN_PEAK_KIB".

use std::ffi::CString;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;

use coracle_bench::sys;

fn launch() -> Result<String, String> {
    let arguments: Vec<CString> = std::env::args_os()
        .skip(1)
        .map(|a| CString::new(a.into_vec()))
        .collect::<Result<_, _>>()
        .map_err(|e| e.to_string())?;
    let environment: Vec<CString> = std::env::vars_os()
        .map(|(key, value)| CString::new([key.into_vec(), value.into_vec()].join(&b'=')))
        .collect::<Result<_, _>>()
        .map_err(|e| e.to_string())?;
    let null = File::options().read(true).write(true).open("/dev/null").map_err(|e| e.to_string())?;
    let spawner =
        sys::Spawner::new(null.as_raw_fd(), null.as_raw_fd(), 2, environment).map_err(|e| e.to_string())?;
    let status = std::fs::read_to_string("/proc/self/status").map_err(|e| e.to_string())?;
    let own = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next())
        .ok_or("no VmHWM in /proc/self/status")?;
    let pid = spawner.spawn(&arguments).map_err(|e| format!("start: {e}"))?;
    let ended = sys::wait(pid).map_err(|e| format!("wait: {e}"))?;
    Ok(format!("{} {} {own}", ended.status, ended.maxrss_kib))
}

fn main() -> ExitCode {
    match launch() {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("coracle-bench-launch: {message}");
            ExitCode::FAILURE
        }
    }
}
