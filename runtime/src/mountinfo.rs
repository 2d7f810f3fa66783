//! The mount table: /proc/PID/mountinfo (proc_pid_mountinfo(5)).

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use procfs::process::MountInfo;

/// A mount, as far as it matters to the runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Its number.
    pub id: u64,
    /// The number of the mount that it stands on.
    pub parent: u64,
    /// Whether its root is the filesystem's own root.
    pub is_whole: bool,
    /// Where it stands, seen from the root directory of the process whose table it is.
    pub target: PathBuf,
    /// The filesystem's type.
    pub fstype: String,
}

/// The mounts of a table, in its order. Lines that can't be read are left out.
pub fn parse(table: &str) -> Vec<Mount> {
    let mount = |line| {
        let info = MountInfo::from_line(line).ok()?;
        Some(Mount {
            id: info.mnt_id.try_into().ok()?,
            parent: info.pid.try_into().ok()?,
            is_whole: info.root == "/",
            target: unescape(info.mount_point.to_str()?).into(),
            fstype: info.fs_type,
        })
    };
    table.lines().filter_map(mount).collect()
}

/// Undoes the octal escapes of mountinfo (`\040` is a space).
pub fn unescape(text: &str) -> OsString {
    let mut plain = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let mut ahead = bytes.clone();
        let octal = (byte == b'\\')
            .then(|| {
                let digits = [ahead.next()?, ahead.next()?, ahead.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 8).ok()
            })
            .flatten();
        plain.push(octal.unwrap_or(byte));
        if octal.is_some() {
            bytes = ahead;
        }
    }
    OsString::from_vec(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read_with_its_escapes() {
        let table =
            "23 22 0:21 / /with\\040space rw - proc proc rw\n24 22 0:22 /sub /sys ro - sysfs sysfs rw\n";
        let mounts = parse(table);
        assert_eq!(mounts[0].target, PathBuf::from("/with space"));
        assert_eq!((mounts[0].id, mounts[0].parent, mounts[0].is_whole), (23, 22, true));
        assert_eq!((mounts[1].fstype.as_str(), mounts[1].is_whole), ("sysfs", false));
    }
}
