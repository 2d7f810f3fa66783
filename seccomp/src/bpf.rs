// SPDX-License-Identifier: Apache-2.0
//! Classic BPF as seccomp takes it (linux/filter.h, linux/seccomp.h): the instruction, the opcodes, the layout of
//! `struct seccomp_data`, and a filter's return values.

use crate::Endian;

/// Most instructions that the kernel takes in one filter (`BPF_MAXINSNS`).
pub const MAX_INSTRUCTIONS: usize = 4096;

/// Size of `struct seccomp_data` in bytes.
pub const DATA_SIZE: u32 = 64;
/// Offset of `seccomp_data.nr`.
pub const OFFSET_NR: u32 = 0;
/// Offset of `seccomp_data.arch`.
pub const OFFSET_ARCH: u32 = 4;
/// Offset of `seccomp_data.instruction_pointer`.
pub const OFFSET_IP: u32 = 8;
/// Offset of `seccomp_data.args[0]`.
pub const OFFSET_ARGS: u32 = 16;

/// One classic BPF instruction, laid out as the kernel's `struct sock_filter`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SockFilter {
    /// Opcode.
    pub code: u16,
    /// Instructions to skip when a conditional jump's test holds.
    pub jt: u8,
    /// Instructions to skip when it does not.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

impl SockFilter {
    /// An instruction without jumps.
    pub const fn new(code: u16, k: u32) -> Self {
        SockFilter { code, jt: 0, jf: 0, k }
    }
}

/// Opcodes that the kernel allows in a seccomp filter (`seccomp_check_filter` in kernel/seccomp.c).
#[allow(
    missing_docs,
    reason = "the names are those of linux/bpf_common.h, joined: class, then mode or operation"
)]
pub mod op {
    pub const LD_W_ABS: u16 = 0x20;
    pub const LD_W_LEN: u16 = 0x80;
    pub const LDX_W_LEN: u16 = 0x81;
    pub const LD_IMM: u16 = 0x00;
    pub const LDX_IMM: u16 = 0x01;
    pub const LD_MEM: u16 = 0x60;
    pub const LDX_MEM: u16 = 0x61;
    pub const ST: u16 = 0x02;
    pub const STX: u16 = 0x03;
    pub const TAX: u16 = 0x07;
    pub const TXA: u16 = 0x87;
    pub const ALU_ADD_K: u16 = 0x04;
    pub const ALU_ADD_X: u16 = 0x0c;
    pub const ALU_SUB_K: u16 = 0x14;
    pub const ALU_SUB_X: u16 = 0x1c;
    pub const ALU_MUL_K: u16 = 0x24;
    pub const ALU_MUL_X: u16 = 0x2c;
    pub const ALU_DIV_K: u16 = 0x34;
    pub const ALU_DIV_X: u16 = 0x3c;
    pub const ALU_OR_K: u16 = 0x44;
    pub const ALU_OR_X: u16 = 0x4c;
    pub const ALU_AND_K: u16 = 0x54;
    pub const ALU_AND_X: u16 = 0x5c;
    pub const ALU_LSH_K: u16 = 0x64;
    pub const ALU_LSH_X: u16 = 0x6c;
    pub const ALU_RSH_K: u16 = 0x74;
    pub const ALU_RSH_X: u16 = 0x7c;
    pub const ALU_NEG: u16 = 0x84;
    pub const ALU_XOR_K: u16 = 0xa4;
    pub const ALU_XOR_X: u16 = 0xac;
    pub const JA: u16 = 0x05;
    pub const JEQ_K: u16 = 0x15;
    pub const JEQ_X: u16 = 0x1d;
    pub const JGT_K: u16 = 0x25;
    pub const JGT_X: u16 = 0x2d;
    pub const JGE_K: u16 = 0x35;
    pub const JGE_X: u16 = 0x3d;
    pub const JSET_K: u16 = 0x45;
    pub const JSET_X: u16 = 0x4d;
    pub const RET_K: u16 = 0x06;
    pub const RET_A: u16 = 0x16;
}

/// Return values of a filter; the low 16 bits carry data for `ERRNO` and `TRACE`.
#[allow(missing_docs, reason = "the names are those of linux/seccomp.h without SECCOMP_RET_")]
pub mod ret {
    pub const KILL_PROCESS: u32 = 0x8000_0000;
    pub const KILL_THREAD: u32 = 0x0000_0000;
    pub const TRAP: u32 = 0x0003_0000;
    pub const ERRNO: u32 = 0x0005_0000;
    pub const USER_NOTIF: u32 = 0x7fc0_0000;
    pub const TRACE: u32 = 0x7ff0_0000;
    pub const LOG: u32 = 0x7ffc_0000;
    pub const ALLOW: u32 = 0x7fff_0000;
    /// Bits that choose the action.
    pub const ACTION: u32 = 0xffff_0000;
    /// Bits that carry its data.
    pub const DATA: u32 = 0x0000_ffff;
}

/// What the kernel shows a filter: `struct seccomp_data`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SeccompData {
    /// System call number.
    pub nr: u32,
    /// `AUDIT_ARCH_*` token of the calling convention.
    pub arch: u32,
    /// Instruction pointer at the time of the call.
    pub instruction_pointer: u64,
    /// The six arguments.
    pub args: [u64; 6],
}

impl SeccompData {
    /// The 32-bit word at `offset`, or None where the kernel would refuse the load.
    pub fn word(&self, offset: u32, endian: Endian) -> Option<u32> {
        if !offset.is_multiple_of(4) || offset >= DATA_SIZE {
            return None;
        }
        let wide = match offset {
            OFFSET_NR => return Some(self.nr),
            OFFSET_ARCH => return Some(self.arch),
            OFFSET_IP..OFFSET_ARGS => self.instruction_pointer,
            _ => *self.args.get(((offset - OFFSET_ARGS) / 8) as usize)?,
        };
        let second = offset % 8 == 4;
        let high = second == (endian == Endian::Little);
        Some(if high { (wide >> 32) as u32 } else { wide as u32 })
    }
}

/// Offset of the low half of argument `index`.
pub(crate) const fn arg_low(index: u8, endian: Endian) -> u32 {
    OFFSET_ARGS + 8 * index as u32 + if matches!(endian, Endian::Big) { 4 } else { 0 }
}

/// Offset of the high half of argument `index`.
pub(crate) const fn arg_high(index: u8, endian: Endian) -> u32 {
    OFFSET_ARGS + 8 * index as u32 + if matches!(endian, Endian::Big) { 0 } else { 4 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_follow_the_byte_order() {
        let data = SeccompData { nr: 7, arch: 9, instruction_pointer: 0, args: [0x1111_2222_3333_4444; 6] };
        for index in 0..6 {
            for endian in [Endian::Little, Endian::Big] {
                assert_eq!(data.word(arg_low(index, endian), endian), Some(0x3333_4444));
                assert_eq!(data.word(arg_high(index, endian), endian), Some(0x1111_2222));
            }
        }
        assert_eq!(data.word(OFFSET_NR, Endian::Big), Some(7));
        assert_eq!(data.word(OFFSET_ARCH, Endian::Little), Some(9));
        assert_eq!(data.word(64, Endian::Little), None);
        assert_eq!(data.word(2, Endian::Little), None);
    }
}
