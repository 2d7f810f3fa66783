//! The memory of the calling process.

use rustix::io::Errno;

use super::check;

unsafe extern "C" {
    /// The linker's: where the program's image begins.
    static __executable_start: u8;
    /// The linker's: where its code ends.
    static etext: u8;
}

/// Gives the pages of the program's code back to the kernel, which has them in its page cache anyway: a process that
/// waits holds memory only for what it needs to go on. They come back when they are executed.
pub fn give_back_code() -> Result<(), Errno> {
    let page = rustix::param::page_size();
    let start = (&raw const __executable_start) as usize & !(page - 1);
    let end = (&raw const etext) as usize & !(page - 1);
    // SAFETY: the range is the program's image up to the end of its code, which is mapped from a file, read-only and
    // private: dropping its pages loses nothing, not even for the code that is executing.
    check(i64::from(unsafe {
        libc::madvise(start as *mut libc::c_void, end.saturating_sub(start), libc::MADV_DONTNEED)
    }))
    .map(drop)
}
