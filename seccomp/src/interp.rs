// SPDX-License-Identifier: Apache-2.0
//! A classic-BPF interpreter with the kernel's rules for seccomp filters (kernel/seccomp.c, net/core/filter.c).
//!
//! [`verify`] accepts what the kernel accepts; [`run`] executes any program without panicking or looping, verified
//! or not; [`is_constant_allow`] tells whether the kernel's allow bitmap answers a call without running the filter.

use crate::Endian;
use crate::bpf::{DATA_SIZE, MAX_INSTRUCTIONS, OFFSET_ARCH, OFFSET_NR, SeccompData, SockFilter, op, ret};

/// Scratch words of a program (`BPF_MEMWORDS`).
const SCRATCH: usize = 16;

/// What a run gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The filter's return value.
    pub ret: u32,
    /// How many instructions were executed, the return included.
    pub executed: usize,
}

/// Why a program is not a seccomp filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// No instruction, or more than the kernel takes.
    #[error("a filter has 1 to {MAX_INSTRUCTIONS} instructions, this one has {0}")]
    Length(usize),
    /// An opcode that seccomp does not allow.
    #[error("instruction {at}: opcode {code:#06x} is not allowed in a seccomp filter")]
    Opcode {
        /// Index of the instruction.
        at: usize,
        /// Its opcode.
        code: u16,
    },
    /// A jump beyond the end.
    #[error("instruction {at}: jumps beyond the end")]
    Jump {
        /// Index of the instruction.
        at: usize,
    },
    /// A load outside `struct seccomp_data`, or not of a whole word of it.
    #[error("instruction {at}: loads at offset {offset}; seccomp_data has the words 0, 4, … {}", DATA_SIZE - 4)]
    Load {
        /// Index of the instruction.
        at: usize,
        /// Its offset.
        offset: u32,
    },
    /// A scratch word beyond the 16th.
    #[error("instruction {at}: there is no scratch word {word}")]
    Scratch {
        /// Index of the instruction.
        at: usize,
        /// Its operand.
        word: u32,
    },
    /// Division by the constant zero, or a shift by 32 and more.
    #[error("instruction {at}: operand {k} is not allowed for this operation")]
    Operand {
        /// Index of the instruction.
        at: usize,
        /// The operand.
        k: u32,
    },
    /// The last instruction does not return.
    #[error("the last instruction does not return")]
    NoReturn,
}

/// Checks a program as the kernel does before it takes a filter.
///
/// # Errors
/// The first instruction that the kernel would refuse.
pub fn verify(program: &[SockFilter]) -> Result<(), Fault> {
    if program.is_empty() || program.len() > MAX_INSTRUCTIONS {
        return Err(Fault::Length(program.len()));
    }
    for (at, instruction) in program.iter().enumerate() {
        let rest = program.len() - at - 1;
        let k = instruction.k;
        match instruction.code {
            op::LD_W_ABS if !k.is_multiple_of(4) || k >= DATA_SIZE => {
                return Err(Fault::Load { at, offset: k });
            }
            op::LD_MEM | op::LDX_MEM | op::ST | op::STX if k as usize >= SCRATCH => {
                return Err(Fault::Scratch { at, word: k });
            }
            op::ALU_DIV_K if k == 0 => return Err(Fault::Operand { at, k }),
            op::ALU_LSH_K | op::ALU_RSH_K if k >= 32 => return Err(Fault::Operand { at, k }),
            op::JA if k as usize >= rest => return Err(Fault::Jump { at }),
            code if is_branch(code) => {
                if instruction.jt.max(instruction.jf) as usize >= rest {
                    return Err(Fault::Jump { at });
                }
            }
            code if is_allowed(code) => {}
            code => return Err(Fault::Opcode { at, code }),
        }
    }
    match program.last().map(|last| last.code) {
        Some(op::RET_K | op::RET_A) => Ok(()),
        _ => Err(Fault::NoReturn),
    }
}

fn is_branch(code: u16) -> bool {
    matches!(
        code,
        op::JEQ_K | op::JEQ_X | op::JGT_K | op::JGT_X | op::JGE_K | op::JGE_X | op::JSET_K | op::JSET_X
    )
}

fn is_allowed(code: u16) -> bool {
    matches!(
        code,
        op::LD_W_ABS
            | op::LD_W_LEN
            | op::LDX_W_LEN
            | op::LD_IMM
            | op::LDX_IMM
            | op::LD_MEM
            | op::LDX_MEM
            | op::ST
            | op::STX
            | op::TAX
            | op::TXA
            | op::JA
            | op::RET_K
            | op::RET_A
    ) || alu(code, 1, 1).is_some()
}

/// Runs a program on one call.
///
/// # Errors
/// A fault that [`verify`] would have found, when the run comes to it.
pub fn run(program: &[SockFilter], data: &SeccompData, endian: Endian) -> Result<Outcome, Fault> {
    if program.is_empty() {
        return Err(Fault::Length(0));
    }
    let (mut a, mut x, mut scratch) = (0_u32, 0_u32, [0_u32; SCRATCH]);
    let (mut at, mut executed) = (0_usize, 0);
    // Jumps only lead forward, so that this ends after at most program.len() steps.
    while let Some(&SockFilter { code, jt, jf, k }) = program.get(at) {
        executed += 1;
        let scratch_fault = Fault::Scratch { at, word: k };
        let mut skip = 0_usize;
        match code {
            op::LD_W_ABS => a = data.word(k, endian).ok_or(Fault::Load { at, offset: k })?,
            op::LD_W_LEN => a = DATA_SIZE,
            op::LDX_W_LEN => x = DATA_SIZE,
            op::LD_IMM => a = k,
            op::LDX_IMM => x = k,
            op::LD_MEM => a = *scratch.get(k as usize).ok_or(scratch_fault)?,
            op::LDX_MEM => x = *scratch.get(k as usize).ok_or(scratch_fault)?,
            op::ST => *scratch.get_mut(k as usize).ok_or(scratch_fault)? = a,
            op::STX => *scratch.get_mut(k as usize).ok_or(scratch_fault)? = x,
            op::TAX => x = a,
            op::TXA => a = x,
            op::RET_K => return Ok(Outcome { ret: k, executed }),
            op::RET_A => return Ok(Outcome { ret: a, executed }),
            op::JA => skip = k as usize,
            _ if is_branch(code) => {
                let operand = if code & 0x08 == 0 { k } else { x };
                skip = usize::from(if compare(code, a, operand) { jt } else { jf });
            }
            _ => {
                let operand = if code & 0x08 == 0 { k } else { x };
                match code {
                    // Division by a register that is zero ends the program with 0, which is KILL_THREAD.
                    op::ALU_DIV_X if operand == 0 => return Ok(Outcome { ret: 0, executed }),
                    op::ALU_DIV_K if operand == 0 => return Err(Fault::Operand { at, k }),
                    _ => a = alu(code, a, operand).ok_or(Fault::Opcode { at, code })?,
                }
            }
        }
        at = at.saturating_add(skip).saturating_add(1);
        if at >= program.len() {
            break;
        }
    }
    Err(Fault::NoReturn)
}

fn compare(code: u16, a: u32, operand: u32) -> bool {
    match code & !0x08 {
        op::JEQ_K => a == operand,
        op::JGT_K => a > operand,
        op::JGE_K => a >= operand,
        _ => a & operand != 0,
    }
}

/// The result of an arithmetic instruction, None for another opcode. The caller refuses division by zero.
fn alu(code: u16, a: u32, operand: u32) -> Option<u32> {
    Some(match code {
        op::ALU_ADD_K | op::ALU_ADD_X => a.wrapping_add(operand),
        op::ALU_SUB_K | op::ALU_SUB_X => a.wrapping_sub(operand),
        op::ALU_MUL_K | op::ALU_MUL_X => a.wrapping_mul(operand),
        op::ALU_DIV_K | op::ALU_DIV_X => a.checked_div(operand).unwrap_or(0),
        op::ALU_OR_K | op::ALU_OR_X => a | operand,
        op::ALU_AND_K | op::ALU_AND_X => a & operand,
        op::ALU_XOR_K | op::ALU_XOR_X => a ^ operand,
        op::ALU_LSH_K | op::ALU_LSH_X => a.wrapping_shl(operand),
        op::ALU_RSH_K | op::ALU_RSH_X => a.wrapping_shr(operand),
        op::ALU_NEG => a.wrapping_neg(),
        _ => return None,
    })
}

/// Whether the filter allows the call by architecture and number alone, in a form that the kernel recognises
/// when it fills its allow bitmap (`seccomp_is_const_allow`, Linux 5.11): such a call never runs the filter.
pub fn is_constant_allow(program: &[SockFilter], arch: u32, nr: u32) -> bool {
    let (mut a, mut at) = (0_u32, 0_usize);
    while let Some(&SockFilter { code, jt, jf, k }) = program.get(at) {
        let mut skip = 0_usize;
        match code {
            op::LD_W_ABS if k == OFFSET_NR => a = nr,
            op::LD_W_ABS if k == OFFSET_ARCH => a = arch,
            op::RET_K => return k == ret::ALLOW,
            op::JA => skip = k as usize,
            op::JEQ_K | op::JGE_K | op::JGT_K | op::JSET_K => {
                skip = usize::from(if compare(code, a, k) { jt } else { jf });
            }
            op::ALU_AND_K => a &= k,
            _ => return false,
        }
        at = at.saturating_add(skip).saturating_add(1);
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run_on(program: &[SockFilter]) -> Result<u32, Fault> {
        let data = SeccompData { nr: 10, arch: 20, instruction_pointer: 0, args: [6, 0, 0, 0, 0, 0] };
        run(program, &data, Endian::Little).map(|outcome| outcome.ret)
    }

    fn plain(code: u16, k: u32) -> SockFilter {
        SockFilter::new(code, k)
    }

    #[test]
    fn arithmetic_follows_the_kernel() {
        let cases = [
            (op::ALU_ADD_K, 5, 15),
            (op::ALU_SUB_K, 11, u32::MAX),
            (op::ALU_MUL_K, 3, 30),
            (op::ALU_DIV_K, 3, 3),
            (op::ALU_OR_K, 5, 15),
            (op::ALU_AND_K, 3, 2),
            (op::ALU_XOR_K, 3, 9),
            (op::ALU_LSH_K, 4, 160),
            (op::ALU_RSH_K, 1, 5),
            (op::ALU_NEG, 0, 10_u32.wrapping_neg()),
        ];
        for (code, k, expected) in cases {
            let program = [plain(op::LD_W_ABS, 0), plain(code, k), plain(op::RET_A, 0)];
            assert_eq!(verify(&program), Ok(()));
            assert_eq!(run_on(&program), Ok(expected), "{code:#x}");
        }
    }

    #[test]
    fn registers_and_scratch_words_keep_their_values() {
        let program = [
            plain(op::LD_W_ABS, 16),
            plain(op::ST, 3),
            plain(op::TAX, 0),
            plain(op::LD_IMM, 7),
            plain(op::ALU_MUL_X, 0),
            plain(op::LDX_MEM, 3),
            plain(op::ALU_SUB_X, 0),
            plain(op::RET_A, 0),
        ];
        assert_eq!(verify(&program), Ok(()));
        assert_eq!(run_on(&program), Ok(36));
    }

    #[test]
    fn division_by_a_zero_register_returns_zero() {
        let program = [plain(op::LD_IMM, 7), plain(op::ALU_DIV_X, 0), plain(op::RET_K, 5)];
        assert_eq!(run_on(&program), Ok(0));
    }

    #[test]
    fn faults_are_found_before_and_during_a_run() {
        let done = plain(op::RET_K, 0);
        let jump = SockFilter { code: op::JEQ_K, jt: 1, jf: 0, k: 0 };
        let cases: [(&[SockFilter], Fault); 9] = [
            (&[], Fault::Length(0)),
            (&[plain(op::LD_W_ABS, 3), done], Fault::Load { at: 0, offset: 3 }),
            (&[plain(op::LD_W_ABS, 64), done], Fault::Load { at: 0, offset: 64 }),
            (&[plain(op::ST, 16), done], Fault::Scratch { at: 0, word: 16 }),
            (&[plain(op::ALU_DIV_K, 0), done], Fault::Operand { at: 0, k: 0 }),
            (&[plain(op::JA, 1), done], Fault::Jump { at: 0 }),
            (&[jump, done], Fault::Jump { at: 0 }),
            (&[plain(0x30, 0), done], Fault::Opcode { at: 0, code: 0x30 }),
            (&[plain(op::LD_IMM, 0)], Fault::NoReturn),
        ];
        for (program, fault) in cases {
            assert_eq!(verify(program), Err(fault));
            if !matches!(fault, Fault::Jump { .. }) {
                assert_eq!(run_on(program), Err(fault));
            }
        }
    }

    #[test]
    fn only_answers_by_number_and_architecture_are_constant() {
        let by_number = [
            plain(op::LD_W_ABS, 0),
            SockFilter { code: op::JEQ_K, jt: 0, jf: 1, k: 1 },
            plain(op::RET_K, ret::ALLOW),
            plain(op::LD_W_ABS, 16),
            plain(op::RET_K, ret::ALLOW),
        ];
        assert!(is_constant_allow(&by_number, 0, 1));
        assert!(!is_constant_allow(&by_number, 0, 2));
    }

    proptest! {
        #[test]
        fn any_program_ends(raw in prop::collection::vec((any::<u16>(), any::<u8>(), any::<u8>(), any::<u32>()), 0..64)) {
            let program: Vec<SockFilter> = raw
                .into_iter()
                .map(|(code, jt, jf, k)| SockFilter { code: code % 0xb0, jt: jt % 8, jf: jf % 8, k: k % 80 })
                .collect();
            let outcome = run_on(&program);
            if verify(&program).is_ok() {
                prop_assert!(outcome.is_ok());
            }
            is_constant_allow(&program, 0, 0);
        }
    }
}
