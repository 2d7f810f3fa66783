//! bpf(2) for `cgroup_device` programs: load, attach, look at what is attached.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

/// One instruction, as `struct bpf_insn` has it.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// Operation.
    pub code: u8,
    /// Destination register in the low four bits, source register in the high four.
    pub registers: u8,
    /// Offset of a jump or of memory.
    pub offset: i16,
    /// Constant.
    pub immediate: i32,
}

const PROG_LOAD: i32 = 5;
const PROG_ATTACH: i32 = 8;
const PROG_GET_FD_BY_ID: i32 = 13;
const OBJ_GET_INFO_BY_FD: i32 = 15;
const PROG_QUERY: i32 = 16;
const TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
const F_ALLOW_MULTI: u32 = 2;
const F_REPLACE: u32 = 4;
/// Length of a program's name with its end, `BPF_OBJ_NAME_LEN`.
const NAME_LENGTH: usize = 16;
/// Programs that one cgroup can have, `BPF_CGROUP_MAX_PROGS`.
const MAX_PROGRAMS: usize = 64;

#[repr(C)]
#[derive(Default)]
struct LoadAttr {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; NAME_LENGTH],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

#[repr(C)]
#[derive(Default)]
struct AttachAttr {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
    replace_bpf_fd: u32,
}

#[repr(C)]
#[derive(Default)]
struct QueryAttr {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    padding: u32,
}

#[repr(C)]
#[derive(Default)]
struct IdAttr {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct InfoAttr {
    fd: u32,
    length: u32,
    info: u64,
}

/// The beginning of `struct bpf_prog_info`.
#[repr(C)]
#[derive(Default)]
struct ProgramInfo {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    jited_len: u32,
    xlated_len: u32,
    jited_insns: u64,
    xlated_insns: u64,
    load_time: u64,
    created_by_uid: u32,
    nr_map_ids: u32,
    map_ids: u64,
    name: [u8; NAME_LENGTH],
}

fn bpf<T>(command: i32, attr: &mut T) -> Result<i32, Errno> {
    let size = size_of::<T>();
    // SAFETY: `attr` is a live, initialised structure of `size` bytes; the kernel reads no more of
    // it, and every pointer that a caller stores in it refers to memory that outlives this call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size) };
    if result < 0 {
        return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO));
    }
    i32::try_from(result).map_err(|_| Errno::OVERFLOW)
}

fn own(fd: i32) -> OwnedFd {
    // SAFETY: the kernel has just given this descriptor to us, and nobody else knows it. bpf(2)
    // sets O_CLOEXEC on it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Loads a program that decides on device access. `name` is cut to 15 bytes.
pub fn load_device_program(instructions: &[Instruction], name: &str) -> Result<OwnedFd, Errno> {
    let license = c"Apache-2.0";
    let mut attr = LoadAttr {
        prog_type: TYPE_CGROUP_DEVICE,
        insn_cnt: instructions.len() as u32,
        insns: instructions.as_ptr() as u64,
        license: license.as_ptr() as u64,
        expected_attach_type: ATTACH_CGROUP_DEVICE,
        ..LoadAttr::default()
    };
    for (to, from) in attr.prog_name.iter_mut().take(NAME_LENGTH - 1).zip(name.bytes()) {
        *to = from;
    }
    bpf(PROG_LOAD, &mut attr).map(own)
}

/// Attaches a program beside those that are there, or, atomically, in the place of `replaced`.
/// `cgroup` must be open for reading, not `O_PATH`.
pub fn attach_device_program(
    cgroup: impl AsFd,
    program: impl AsFd,
    replaced: Option<&OwnedFd>,
) -> Result<(), Errno> {
    let mut attr = AttachAttr {
        target_fd: cgroup.as_fd().as_raw_fd() as u32,
        attach_bpf_fd: program.as_fd().as_raw_fd() as u32,
        attach_type: ATTACH_CGROUP_DEVICE,
        attach_flags: F_ALLOW_MULTI,
        replace_bpf_fd: 0,
    };
    if let Some(replaced) = replaced {
        attr.attach_flags |= F_REPLACE;
        attr.replace_bpf_fd = replaced.as_raw_fd() as u32;
    }
    bpf(PROG_ATTACH, &mut attr).map(drop)
}

/// The attached device programs with their names.
pub fn device_programs(cgroup: impl AsFd) -> Result<Vec<(OwnedFd, String)>, Errno> {
    let mut ids = [0u32; MAX_PROGRAMS];
    let mut attr = QueryAttr {
        target_fd: cgroup.as_fd().as_raw_fd() as u32,
        attach_type: ATTACH_CGROUP_DEVICE,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: MAX_PROGRAMS as u32,
        ..QueryAttr::default()
    };
    bpf(PROG_QUERY, &mut attr)?;
    let mut programs = Vec::new();
    for &id in ids.iter().take(attr.prog_cnt as usize) {
        match bpf(PROG_GET_FD_BY_ID, &mut IdAttr { id, ..IdAttr::default() }) {
            Ok(fd) => {
                let fd = own(fd);
                let name = name_of(&fd)?;
                programs.push((fd, name));
            }
            // Detached since it was listed.
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(programs)
}

fn name_of(program: &OwnedFd) -> Result<String, Errno> {
    let mut info = ProgramInfo::default();
    let mut attr = InfoAttr {
        fd: program.as_raw_fd() as u32,
        length: size_of::<ProgramInfo>() as u32,
        info: std::ptr::from_mut(&mut info) as u64,
    };
    bpf(OBJ_GET_INFO_BY_FD, &mut attr)?;
    let name = info.name.split(|&byte| byte == 0).next().unwrap_or_default();
    Ok(String::from_utf8_lossy(name).into_owned())
}
