// SPDX-License-Identifier: Apache-2.0
//! System call names and numbers.
//!
//! Owns the generated tables (`tables/generate.py` writes them from the kernel's headers) and the two questions
//! asked of them: which name is this, and which number has it on that architecture. Looking a name up costs one
//! hash; nothing is parsed or built at run time, and the tables hold no pointers, so that a position-independent
//! program has nothing to relocate for them.

#[allow(clippy::unreadable_literal, reason = "a table of numbers, written by a program")]
mod generated;

use crate::Arch;
use generated::{COUNT, NAMES, NONE, OFFSETS, SLOTS};

/// A system call name that at least one architecture knows. Numbers come from [`Syscall::number`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Syscall(u16);

impl Syscall {
    /// Finds a call by its name as the kernel's headers write it (`openat`, `clone3`, `_llseek`).
    pub fn by_name(name: &str) -> Option<Self> {
        let mut slot = hash(name) as usize;
        loop {
            slot %= SLOTS.len();
            let index = *SLOTS.get(slot)?;
            if index as usize >= COUNT {
                return None;
            }
            if Syscall(index).name() == name {
                return Some(Syscall(index));
            }
            slot += 1;
        }
    }

    /// Finds the call that has `number` on `arch`. For x32 the number carries `__X32_SYSCALL_BIT`.
    pub fn by_number(arch: Arch, number: u32) -> Option<Self> {
        if number == NONE {
            return None;
        }
        column(arch).iter().position(|&entry| entry == number).map(|index| Syscall(index as u16))
    }

    /// The name.
    pub fn name(self) -> &'static str {
        let index = self.0 as usize;
        match (OFFSETS.get(index), OFFSETS.get(index + 1)) {
            (Some(&start), Some(&end)) => NAMES.get(start as usize..end as usize).unwrap_or_default(),
            _ => "",
        }
    }

    /// The number on `arch`; for x32 it carries `__X32_SYSCALL_BIT`. None where the architecture lacks the call.
    pub fn number(self, arch: Arch) -> Option<u32> {
        column(arch).get(self.0 as usize).copied().filter(|&number| number != NONE)
    }

    /// Every known call, sorted by name.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..COUNT as u16).map(Syscall)
    }

    /// The calls that programs make most often: the compiled filter answers them in the fewest steps.
    pub fn hot() -> impl Iterator<Item = Self> {
        generated::HOT.iter().copied().map(Syscall)
    }
}

/// 32-bit FNV-1a, as `tables/generate.py` computes it.
fn hash(name: &str) -> u32 {
    name.bytes().fold(0x811c_9dc5, |value, byte| (value ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// The numbers of one architecture. Byte order does not change them.
fn column(arch: Arch) -> &'static [u32; COUNT] {
    match arch {
        Arch::X86 => &generated::X86,
        Arch::X86_64 => &generated::X86_64,
        Arch::X32 => &generated::X32,
        Arch::Arm => &generated::ARM,
        Arch::Aarch64 => &generated::AARCH64,
        Arch::Mips | Arch::Mipsel => &generated::MIPS,
        Arch::Mips64 | Arch::Mipsel64 => &generated::MIPS64,
        Arch::Mips64n32 | Arch::Mipsel64n32 => &generated::MIPS64N32,
        Arch::Ppc => &generated::PPC,
        Arch::Ppc64 | Arch::Ppc64le => &generated::PPC64,
        Arch::S390 => &generated::S390,
        Arch::S390x => &generated::S390X,
        Arch::Parisc => &generated::PARISC,
        Arch::Parisc64 => &generated::PARISC64,
        Arch::Riscv64 => &generated::RISCV64,
        Arch::Loongarch64 => &generated::LOONGARCH64,
        Arch::M68k => &generated::M68K,
        Arch::Sh | Arch::Sheb => &generated::SH,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_finds_itself() {
        let mut previous = "";
        for call in Syscall::all() {
            assert_eq!(Syscall::by_name(call.name()), Some(call), "{}", call.name());
            assert!(previous < call.name(), "{previous} stands before {}", call.name());
            previous = call.name();
        }
    }

    #[test]
    fn unknown_names_are_not_found() {
        for name in ["", "Read", "read ", "no_such_call", "openat2x", "\u{e9}"] {
            assert_eq!(Syscall::by_name(name), None, "{name:?}");
        }
    }

    #[test]
    fn known_numbers_hold_on_every_family() {
        let cases = [
            ("openat", Arch::X86_64, Some(257)),
            ("openat", Arch::X86, Some(295)),
            ("openat", Arch::X32, Some(0x4000_0101)),
            ("openat", Arch::Aarch64, Some(56)),
            ("openat", Arch::Arm, Some(322)),
            ("openat", Arch::Riscv64, Some(56)),
            ("openat", Arch::Loongarch64, Some(56)),
            ("openat", Arch::S390x, Some(288)),
            ("openat", Arch::S390, Some(288)),
            ("file_setattr", Arch::S390, Some(469)),
            ("listns", Arch::S390, None),
            ("openat", Arch::Ppc64le, Some(286)),
            ("openat", Arch::Mips, Some(4288)),
            ("openat", Arch::Mipsel64, Some(5247)),
            ("openat", Arch::Mips64n32, Some(6251)),
            ("set_tls", Arch::Arm, Some(0x000f_0005)),
            ("open", Arch::Aarch64, None),
            ("socketcall", Arch::X86, Some(102)),
            ("socketcall", Arch::X86_64, None),
            ("clone3", Arch::X86_64, Some(435)),
            ("send", Arch::X86, None),
        ];
        for (name, arch, number) in cases {
            let call = Syscall::by_name(name).unwrap();
            assert_eq!(call.number(arch), number, "{name} on {arch}");
        }
    }

    #[test]
    fn numbers_lead_back_to_a_name_with_that_number() {
        for arch in Arch::ALL {
            for call in Syscall::all() {
                if let Some(number) = call.number(arch) {
                    let back = Syscall::by_number(arch, number).unwrap();
                    assert_eq!(back.number(arch), Some(number));
                }
            }
            assert_eq!(Syscall::by_number(arch, u32::MAX), None);
        }
    }
}
