#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes src/tables/generated.rs: system call names and numbers of every architecture of the OCI runtime spec.

Source: the kernel's user-space headers, as Debian's package linux-libc-dev (architecture "all" since
Debian 13) installs them under usr/lib/linux/uapi/ARCH/asm. Two trees are read, a newer one and an older one:
the newer one decides, the older one adds what newer kernels have dropped (31-bit s390, removed calls).

The committed file was made of linux-libc-dev 7.2.13-1 (Debian sid) and 6.12.107-1 (Debian 13).

    apt-get download linux-libc-dev && dpkg -x linux-libc-dev_*.deb NEW
    tables/generate.py NEW/usr/lib/linux/uapi OLD/usr/lib/linux/uapi > src/tables/generated.rs
"""

import re
import sys

# spec name -> (header, constants that the header's expressions use)
ARCHES = {
    "X86": ("x86/asm/unistd_32.h", {}),
    "X86_64": ("x86/asm/unistd_64.h", {}),
    "X32": ("x86/asm/unistd_x32.h", {"__X32_SYSCALL_BIT": 0x40000000}),
    "ARM": ("arm/asm/unistd-eabi.h", {"__NR_SYSCALL_BASE": 0}),
    "AARCH64": ("arm64/asm/unistd_64.h", {}),
    "MIPS": ("mips/asm/unistd_o32.h", {"__NR_Linux": 4000}),
    "MIPS64": ("mips/asm/unistd_n64.h", {"__NR_Linux": 5000}),
    "MIPS64N32": ("mips/asm/unistd_n32.h", {"__NR_Linux": 6000}),
    "PPC": ("powerpc/asm/unistd_32.h", {}),
    "PPC64": ("powerpc/asm/unistd_64.h", {}),
    "S390": ("s390/asm/unistd_32.h", {}),
    "S390X": ("s390/asm/unistd_64.h", {}),
    "PARISC": ("parisc/asm/unistd_32.h", {}),
    "PARISC64": ("parisc/asm/unistd_64.h", {}),
    "RISCV64": ("riscv/asm/unistd_64.h", {}),
    "LOONGARCH64": ("loongarch/asm/unistd_64.h", {}),
    "M68K": ("m68k/asm/unistd_32.h", {}),
    "SH": ("sh/asm/unistd_32.h", {}),
}

# Arm's private calls stand in asm/unistd.h under another prefix (0x0f0000 + n).
ARM_PRIVATE = {
    "breakpoint": 0x0F0001,
    "cacheflush": 0x0F0002,
    "usr26": 0x0F0003,
    "usr32": 0x0F0004,
    "set_tls": 0x0F0005,
    "get_tls": 0x0F0006,
}

# Calls that reach the kernel only through socketcall(2) or ipc(2) on some
# architectures; their names must be known even where they have no number.
MULTIPLEXED = ["send", "recv", "semop", "semtimedop"]

# The calls that services and shells make most often: what the filter answers first.
HOT = [
    "read", "write", "futex", "openat", "close", "newfstatat", "fstat", "mmap", "munmap", "mprotect",
    "rt_sigaction", "rt_sigprocmask", "epoll_wait", "epoll_pwait", "recvfrom", "sendto", "recvmsg",
    "sendmsg", "poll", "ppoll", "brk", "lseek", "ioctl", "fcntl", "getpid", "clock_gettime", "pread64",
]

# From 424 on (Linux 5.1) a call has one number on every architecture. 31-bit s390 went with Linux 6.19, so that no tree
# of the newer kind has its last calls, which kernels up to 6.18 have all the same.
S390_SHARED = range(424, 470)

DEFINE = re.compile(r"^#define\s+__NR_(\w+)\s+(.+?)\s*$")
NOT_CALLS = {"syscalls", "Linux", "Linux_syscalls", "SYSCALL_BASE"}


def numbers(path, constants):
    """The calls that one header defines."""
    found = {}
    try:
        text = open(path, encoding="ascii").read()
    except FileNotFoundError:
        return found
    for line in text.splitlines():
        match = DEFINE.match(line)
        if not match or match[1] in NOT_CALLS:
            continue
        expression = match[2].split("/*")[0].strip()
        if re.fullmatch(r"[\w\s()+]+", expression) is None:
            sys.exit(f"{path}: cannot read {line!r}")
        found[match[1]] = eval(expression, {"__builtins__": {}}, constants | {f"__NR_{k}": v for k, v in found.items()})
    return found


def fnv1a(name):
    """32-bit FNV-1a; src/tables/mod.rs computes the same."""
    value = 0x811C9DC5
    for byte in name.encode():
        value = ((value ^ byte) * 0x01000193) & 0xFFFFFFFF
    return value


def wrap(items, width=110):
    line, out = "   ", []
    for item in items:
        if len(line) + len(item) + 2 > width:
            out.append(line)
            line = "   "
        line += f" {item},"
    out.append(line)
    return "\n".join(out)


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    table = {}
    for arch, (header, constants) in ARCHES.items():
        calls = {}
        for tree in reversed(sys.argv[1:]):
            calls |= numbers(f"{tree}/{header}", constants)
        if not calls:
            sys.exit(f"no header for {arch}: {header}")
        if arch == "ARM":
            calls |= ARM_PRIVATE
        table[arch] = calls
    shared = {name: number for name, number in table["S390X"].items() if number in S390_SHARED}
    table["S390"] = shared | table["S390"]
    names = sorted(set(MULTIPLEXED).union(*table.values()))
    index = {name: position for position, name in enumerate(names)}

    slots = [0xFFFF] * 2048
    for name in names:
        slot = fnv1a(name) % len(slots)
        while slots[slot] != 0xFFFF:
            slot = (slot + 1) % len(slots)
        slots[slot] = index[name]

    offsets, blob = [0], ""
    for name in names:
        blob += name
        offsets.append(len(blob))

    print("// SPDX-License-Identifier: Apache-2.0")
    print("// Written by tables/generate.py from the kernel's user-space headers; do not edit.\n")
    print("/// `NUMBERS` entry of a call that the architecture does not have.")
    print("pub(super) const NONE: u32 = u32::MAX;\n")
    print(f"/// How many names are known.\npub(super) const COUNT: usize = {len(names)};\n")
    print("/// All names, sorted, without separators; `OFFSETS` cuts them. One string needs no relocations at start.")
    print("pub(super) static NAMES: &str = concat!(")
    for start in range(0, len(blob), 100):
        print(f'    "{blob[start:start + 100]}",')
    print(");\n")
    print("/// Where each name begins in `NAMES`, and the end of the last.")
    print(f"#[rustfmt::skip]\npub(super) static OFFSETS: [u16; COUNT + 1] = [\n{wrap(map(str, offsets))}\n];\n")
    print("/// Open-addressed hash of the names (FNV-1a, linear probing); 0xffff is a free slot.")
    print(f"#[rustfmt::skip]\npub(super) static SLOTS: [u16; {len(slots)}] = [\n{wrap(map(str, slots))}\n];\n")
    print("/// Names that programs use most often, as positions in the list of names.")
    print(f"#[rustfmt::skip]\npub(super) static HOT: [u16; {len(HOT)}] = [\n{wrap(str(index[n]) for n in HOT)}\n];\n")
    print("const X: u32 = NONE;\n")
    for arch, calls in table.items():
        column = [str(calls[name]) if name in calls else "X" for name in names]
        print(f"/// Numbers of `SCMP_ARCH_{arch}` by name.")
        print(f"#[rustfmt::skip]\npub(super) static {arch}: [u32; COUNT] = [\n{wrap(column)}\n];\n")


if __name__ == "__main__":
    main()
