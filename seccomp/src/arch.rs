// SPDX-License-Identifier: Apache-2.0
//! Architectures of the OCI runtime spec (`config-linux.md`, "Seccomp") and what a filter must know of each:
//! the kernel's `AUDIT_ARCH_*` token, the byte order, the width of an argument, and which architectures one
//! kernel runs side by side.

use std::fmt;
use std::str::FromStr;

/// Bit that marks a system call of the x32 ABI (`__X32_SYSCALL_BIT`).
pub const X32_BIT: u32 = 0x4000_0000;

/// An architecture, named as the spec names it (`SCMP_ARCH_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "each variant is the architecture that it is called after")]
pub enum Arch {
    X86,
    X86_64,
    X32,
    Arm,
    Aarch64,
    Mips,
    Mips64,
    Mips64n32,
    Mipsel,
    Mipsel64,
    Mipsel64n32,
    Ppc,
    Ppc64,
    Ppc64le,
    S390,
    S390x,
    Parisc,
    Parisc64,
    Riscv64,
    Loongarch64,
    M68k,
    Sh,
    Sheb,
}

/// Order of the two halves of a 64-bit value in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endian {
    /// Low half first.
    Little,
    /// High half first.
    Big,
}

/// Which kernel an architecture belongs to: only members of one family meet in one running kernel.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    X86,
    Arm,
    MipsBig,
    MipsLittle,
    PpcBig,
    PpcLittle,
    S390,
    Parisc,
    Riscv,
    Loongarch,
    M68k,
    ShLittle,
    ShBig,
}

impl Arch {
    /// All architectures that the spec lists.
    pub const ALL: [Arch; 23] = [
        Arch::X86,
        Arch::X86_64,
        Arch::X32,
        Arch::Arm,
        Arch::Aarch64,
        Arch::Mips,
        Arch::Mips64,
        Arch::Mips64n32,
        Arch::Mipsel,
        Arch::Mipsel64,
        Arch::Mipsel64n32,
        Arch::Ppc,
        Arch::Ppc64,
        Arch::Ppc64le,
        Arch::S390,
        Arch::S390x,
        Arch::Parisc,
        Arch::Parisc64,
        Arch::Riscv64,
        Arch::Loongarch64,
        Arch::M68k,
        Arch::Sh,
        Arch::Sheb,
    ];

    /// The architecture that this code was built for, or None where seccomp does not know it.
    pub const fn native() -> Option<Arch> {
        let little = cfg!(target_endian = "little");
        if cfg!(all(target_arch = "x86_64", target_pointer_width = "32")) {
            Some(Arch::X32)
        } else if cfg!(target_arch = "x86_64") {
            Some(Arch::X86_64)
        } else if cfg!(target_arch = "x86") {
            Some(Arch::X86)
        } else if cfg!(target_arch = "aarch64") {
            Some(Arch::Aarch64)
        } else if cfg!(target_arch = "arm") {
            Some(Arch::Arm)
        } else if cfg!(target_arch = "riscv64") {
            Some(Arch::Riscv64)
        } else if cfg!(target_arch = "loongarch64") {
            Some(Arch::Loongarch64)
        } else if cfg!(target_arch = "s390x") {
            Some(Arch::S390x)
        } else if cfg!(target_arch = "powerpc64") {
            Some(if little { Arch::Ppc64le } else { Arch::Ppc64 })
        } else if cfg!(target_arch = "powerpc") {
            Some(Arch::Ppc)
        } else if cfg!(all(target_arch = "mips64", target_pointer_width = "32")) {
            Some(if little { Arch::Mipsel64n32 } else { Arch::Mips64n32 })
        } else if cfg!(target_arch = "mips64") {
            Some(if little { Arch::Mipsel64 } else { Arch::Mips64 })
        } else if cfg!(target_arch = "mips") {
            Some(if little { Arch::Mipsel } else { Arch::Mips })
        } else if cfg!(target_arch = "m68k") {
            Some(Arch::M68k)
        } else {
            None
        }
    }

    /// The spec's string, such as `SCMP_ARCH_X86_64`.
    pub const fn spec_name(self) -> &'static str {
        match self {
            Arch::X86 => "SCMP_ARCH_X86",
            Arch::X86_64 => "SCMP_ARCH_X86_64",
            Arch::X32 => "SCMP_ARCH_X32",
            Arch::Arm => "SCMP_ARCH_ARM",
            Arch::Aarch64 => "SCMP_ARCH_AARCH64",
            Arch::Mips => "SCMP_ARCH_MIPS",
            Arch::Mips64 => "SCMP_ARCH_MIPS64",
            Arch::Mips64n32 => "SCMP_ARCH_MIPS64N32",
            Arch::Mipsel => "SCMP_ARCH_MIPSEL",
            Arch::Mipsel64 => "SCMP_ARCH_MIPSEL64",
            Arch::Mipsel64n32 => "SCMP_ARCH_MIPSEL64N32",
            Arch::Ppc => "SCMP_ARCH_PPC",
            Arch::Ppc64 => "SCMP_ARCH_PPC64",
            Arch::Ppc64le => "SCMP_ARCH_PPC64LE",
            Arch::S390 => "SCMP_ARCH_S390",
            Arch::S390x => "SCMP_ARCH_S390X",
            Arch::Parisc => "SCMP_ARCH_PARISC",
            Arch::Parisc64 => "SCMP_ARCH_PARISC64",
            Arch::Riscv64 => "SCMP_ARCH_RISCV64",
            Arch::Loongarch64 => "SCMP_ARCH_LOONGARCH64",
            Arch::M68k => "SCMP_ARCH_M68K",
            Arch::Sh => "SCMP_ARCH_SH",
            Arch::Sheb => "SCMP_ARCH_SHEB",
        }
    }

    /// The kernel's token in `seccomp_data.arch` (`AUDIT_ARCH_*`, linux/audit.h). x32 shares that of x86_64.
    pub const fn audit_token(self) -> u32 {
        match self {
            Arch::X86 => 0x4000_0003,
            Arch::X86_64 | Arch::X32 => 0xc000_003e,
            Arch::Arm => 0x4000_0028,
            Arch::Aarch64 => 0xc000_00b7,
            Arch::Mips => 0x0000_0008,
            Arch::Mips64 => 0x8000_0008,
            Arch::Mips64n32 => 0xa000_0008,
            Arch::Mipsel => 0x4000_0008,
            Arch::Mipsel64 => 0xc000_0008,
            Arch::Mipsel64n32 => 0xe000_0008,
            Arch::Ppc => 0x0000_0014,
            Arch::Ppc64 => 0x8000_0015,
            Arch::Ppc64le => 0xc000_0015,
            Arch::S390 => 0x0000_0016,
            Arch::S390x => 0x8000_0016,
            Arch::Parisc => 0x0000_000f,
            Arch::Parisc64 => 0x8000_000f,
            Arch::Riscv64 => 0xc000_00f3,
            Arch::Loongarch64 => 0xc000_0102,
            Arch::M68k => 0x0000_0004,
            Arch::Sh => 0x4000_002a,
            Arch::Sheb => 0x0000_002a,
        }
    }

    /// The architecture of a call that the kernel reports as (`token`, `number`).
    pub fn from_audit(token: u32, number: u32) -> Option<Arch> {
        if token == Arch::X32.audit_token() {
            // -1 is the number of a call that a tracer has skipped, not a call of x32.
            let x32 = number >= X32_BIT && number != u32::MAX;
            return Some(if x32 { Arch::X32 } else { Arch::X86_64 });
        }
        Arch::ALL.into_iter().find(|arch| arch.audit_token() == token)
    }

    /// Byte order of the kernel that runs this architecture.
    pub const fn endian(self) -> Endian {
        match self {
            Arch::Mips
            | Arch::Mips64
            | Arch::Mips64n32
            | Arch::Ppc
            | Arch::Ppc64
            | Arch::S390
            | Arch::S390x
            | Arch::Parisc
            | Arch::Parisc64
            | Arch::M68k
            | Arch::Sheb => Endian::Big,
            _ => Endian::Little,
        }
    }

    /// Whether conditions compare all 64 bits of an argument. On the others, x32 and n32 included, only the low
    /// 32 bits of the argument and of the profile's value count, as libseccomp has it.
    pub const fn has_wide_arguments(self) -> bool {
        matches!(
            self,
            Arch::X86_64
                | Arch::Aarch64
                | Arch::Mips64
                | Arch::Mipsel64
                | Arch::Ppc64
                | Arch::Ppc64le
                | Arch::S390x
                | Arch::Parisc64
                | Arch::Riscv64
                | Arch::Loongarch64
        )
    }

    /// Whether one running kernel can receive calls of both architectures.
    pub fn shares_kernel_with(self, other: Arch) -> bool {
        self.family() == other.family()
    }

    const fn family(self) -> Family {
        match self {
            Arch::X86 | Arch::X86_64 | Arch::X32 => Family::X86,
            Arch::Arm | Arch::Aarch64 => Family::Arm,
            Arch::Mips | Arch::Mips64 | Arch::Mips64n32 => Family::MipsBig,
            Arch::Mipsel | Arch::Mipsel64 | Arch::Mipsel64n32 => Family::MipsLittle,
            Arch::Ppc | Arch::Ppc64 => Family::PpcBig,
            Arch::Ppc64le => Family::PpcLittle,
            Arch::S390 | Arch::S390x => Family::S390,
            Arch::Parisc | Arch::Parisc64 => Family::Parisc,
            Arch::Riscv64 => Family::Riscv,
            Arch::Loongarch64 => Family::Loongarch,
            Arch::M68k => Family::M68k,
            Arch::Sh => Family::ShLittle,
            Arch::Sheb => Family::ShBig,
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.spec_name())
    }
}

/// Takes the spec's name, or its short lower-case form as people type it (`x86_64`, `aarch64`, `s390x`).
impl FromStr for Arch {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let lower = text.to_ascii_lowercase();
        let short = lower.strip_prefix("scmp_arch_").unwrap_or(&lower);
        let short = match short {
            "amd64" => "x86_64",
            "i386" | "i686" | "386" => "x86",
            "arm64" => "aarch64",
            other => other,
        };
        Arch::ALL
            .into_iter()
            .find(|arch| arch.spec_name()["SCMP_ARCH_".len()..].eq_ignore_ascii_case(short))
            .ok_or_else(|| format!("unknown architecture {text:?}; known are {}", known()))
    }
}

fn known() -> String {
    Arch::ALL.map(Arch::spec_name).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_their_architecture() {
        for arch in Arch::ALL {
            assert_eq!(arch.spec_name().parse(), Ok(arch));
        }
        assert_eq!("amd64".parse(), Ok(Arch::X86_64));
        assert_eq!("s390x".parse(), Ok(Arch::S390x));
        assert!("vax".parse::<Arch>().unwrap_err().contains("SCMP_ARCH_X86_64"));
    }

    #[test]
    fn tokens_tell_byte_order_and_width() {
        for arch in Arch::ALL {
            let token = arch.audit_token();
            assert_eq!(token & 0x4000_0000 != 0, arch.endian() == Endian::Little, "{arch}");
            if arch.has_wide_arguments() {
                assert_ne!(token & 0x8000_0000, 0, "{arch}");
            }
        }
    }

    #[test]
    fn x32_is_told_from_x86_64_by_the_number() {
        let token = Arch::X86_64.audit_token();
        assert_eq!(Arch::from_audit(token, 1), Some(Arch::X86_64));
        assert_eq!(Arch::from_audit(token, X32_BIT | 1), Some(Arch::X32));
        assert_eq!(Arch::from_audit(token, u32::MAX), Some(Arch::X86_64));
        assert_eq!(Arch::from_audit(1, 1), None);
    }
}
