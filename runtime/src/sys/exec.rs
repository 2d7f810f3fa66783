//! execve(2) and execveat(2) on strings that were prepared before.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd};
use std::ptr;

use rustix::io::Errno;

use super::check;

/// `argv` or `envp`: C strings and the null-terminated array of pointers to them, ready for the kernel.
pub struct CStringArray {
    strings: Vec<CString>,
    pointers: Vec<*const libc::c_char>,
}

impl CStringArray {
    /// Takes the strings over.
    pub fn new(strings: Vec<CString>) -> Self {
        let pointers = strings.iter().map(|s| s.as_ptr()).chain([ptr::null()]).collect();
        Self { strings, pointers }
    }

    /// The strings.
    pub fn strings(&self) -> &[CString] {
        &self.strings
    }
}

/// Executes the file at `path`. Returns only on failure.
pub fn execve(path: &CStr, argv: &CStringArray, envp: &CStringArray) -> Errno {
    // SAFETY: the path and all strings are NUL-terminated and live until the call replaces the process;
    // both pointer arrays end with a null pointer.
    match check(unsafe {
        libc::syscall(libc::SYS_execve, path.as_ptr(), argv.pointers.as_ptr(), envp.pointers.as_ptr())
    }) {
        Ok(_) => Errno::IO,
        Err(errno) => errno,
    }
}

/// Executes the file that `fd` is. Returns only on failure.
pub fn fexecve(fd: impl AsFd, argv: &CStringArray, envp: &CStringArray) -> Errno {
    // SAFETY: as in `execve`; the empty path with AT_EMPTY_PATH names the descriptor itself.
    match check(unsafe {
        libc::syscall(
            libc::SYS_execveat,
            fd.as_fd().as_raw_fd(),
            c"".as_ptr(),
            argv.pointers.as_ptr(),
            envp.pointers.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    }) {
        Ok(_) => Errno::IO,
        Err(errno) => errno,
    }
}
