// SPDX-License-Identifier: Apache-2.0
//! A disassembler that knows seccomp: it follows what the accumulator holds, and names architectures, system
//! calls, arguments and actions. Its instructions are in the syntax of the kernel's `bpf_asm`.

use crate::bpf::{DATA_SIZE, OFFSET_ARCH, OFFSET_ARGS, OFFSET_IP, OFFSET_NR, SockFilter, op};
use crate::simulate::Verdict;
use crate::tables::Syscall;
use crate::{Arch, Endian};
use std::fmt::Write;

/// Column where comments begin.
const COMMENT: usize = 40;

/// The program as text, one instruction a line, for a kernel of the byte order of `native`.
pub fn disassemble(program: &[SockFilter], native: Arch) -> String {
    let states = follow(program, native.endian());
    let mut text = String::with_capacity(program.len() * 48);
    for (at, (instruction, state)) in program.iter().zip(&states).enumerate() {
        let line = format!("l{at}: {}", mnemonic(at, *instruction));
        match comment(*instruction, *state, native.endian()) {
            Some(comment) => {
                let _ = writeln!(text, "{line:COMMENT$}; {comment}");
            }
            None => {
                let _ = writeln!(text, "{line}");
            }
        }
    }
    text
}

/// What is known when an instruction is reached.
#[derive(Clone, Copy, PartialEq)]
struct State {
    reached: bool,
    accumulator: Held,
    token: Option<u32>,
}

#[derive(Clone, Copy, PartialEq)]
enum Held {
    Unknown,
    Number,
    Token,
    Low(u32),
    High(u32),
}

impl State {
    const UNREACHED: State = State { reached: false, accumulator: Held::Unknown, token: None };

    /// What holds on both ways to an instruction.
    fn join(&mut self, other: State) {
        if !self.reached {
            *self = State { reached: true, ..other };
            return;
        }
        if self.accumulator != other.accumulator {
            self.accumulator = Held::Unknown;
        }
        if self.token != other.token {
            self.token = None;
        }
    }
}

fn follow(program: &[SockFilter], endian: Endian) -> Vec<State> {
    let mut states = vec![State::UNREACHED; program.len()];
    if let Some(first) = states.first_mut() {
        first.reached = true;
    }
    for (at, instruction) in program.iter().enumerate() {
        let Some(&state) = states.get(at) else { break };
        if !state.reached {
            continue;
        }
        let mut join = |skip: usize, next: State| {
            if let Some(target) = states.get_mut(at.saturating_add(skip).saturating_add(1)) {
                target.join(next);
            }
        };
        let (jt, jf) = (usize::from(instruction.jt), usize::from(instruction.jf));
        match instruction.code {
            op::RET_K | op::RET_A => {}
            op::JA => join(instruction.k as usize, state),
            op::JEQ_K if state.accumulator == Held::Token => {
                join(jt, State { token: Some(instruction.k), ..state });
                join(jf, state);
            }
            code if code & 0x07 == 0x05 => {
                join(jt, state);
                join(jf, state);
            }
            op::LD_W_ABS => join(0, State { accumulator: held(instruction.k, endian), ..state }),
            // Masking does not change what the word is about.
            op::ALU_AND_K | op::ST | op::STX | op::TAX => join(0, state),
            _ => join(0, State { accumulator: Held::Unknown, ..state }),
        }
    }
    states
}

fn held(offset: u32, endian: Endian) -> Held {
    match offset {
        OFFSET_NR => Held::Number,
        OFFSET_ARCH => Held::Token,
        OFFSET_ARGS..DATA_SIZE => {
            let index = (offset - OFFSET_ARGS) / 8;
            let second = offset % 8 >= 4;
            if second == (endian == Endian::Little) { Held::High(index) } else { Held::Low(index) }
        }
        _ => Held::Unknown,
    }
}

fn mnemonic(at: usize, instruction: SockFilter) -> String {
    let SockFilter { code, jt, jf, k } = instruction;
    let target = |skip: usize| at.saturating_add(skip).saturating_add(1);
    let jump = |name: &str, operand: String| {
        let (yes, no) = (target(jt.into()), target(jf.into()));
        format!("{name} {operand}, l{yes}, l{no}")
    };
    let constant = || format!("#{k:#x}");
    let x = || "x".to_owned();
    match code {
        op::LD_W_ABS => format!("ld [{k}]"),
        op::LD_W_LEN => "ld len".into(),
        op::LDX_W_LEN => "ldx len".into(),
        op::LD_IMM => format!("ld #{k:#x}"),
        op::LDX_IMM => format!("ldx #{k:#x}"),
        op::LD_MEM => format!("ld M[{k}]"),
        op::LDX_MEM => format!("ldx M[{k}]"),
        op::ST => format!("st M[{k}]"),
        op::STX => format!("stx M[{k}]"),
        op::TAX => "tax".into(),
        op::TXA => "txa".into(),
        op::RET_K => format!("ret #{k:#x}"),
        op::RET_A => "ret a".into(),
        op::JA => format!("jmp l{}", target(k as usize)),
        op::JEQ_K => jump("jeq", constant()),
        op::JGT_K => jump("jgt", constant()),
        op::JGE_K => jump("jge", constant()),
        op::JSET_K => jump("jset", constant()),
        op::JEQ_X => jump("jeq", x()),
        op::JGT_X => jump("jgt", x()),
        op::JGE_X => jump("jge", x()),
        op::JSET_X => jump("jset", x()),
        op::ALU_NEG => "neg".into(),
        code => match arithmetic(code & !0x08) {
            Some(name) if code & 0x08 == 0 => format!("{name} #{k:#x}"),
            Some(name) => format!("{name} x"),
            None => format!("unknown {code:#06x} {jt} {jf} {k:#x}"),
        },
    }
}

fn arithmetic(code: u16) -> Option<&'static str> {
    Some(match code {
        op::ALU_ADD_K => "add",
        op::ALU_SUB_K => "sub",
        op::ALU_MUL_K => "mul",
        op::ALU_DIV_K => "div",
        op::ALU_OR_K => "or",
        op::ALU_AND_K => "and",
        op::ALU_LSH_K => "lsh",
        op::ALU_RSH_K => "rsh",
        op::ALU_XOR_K => "xor",
        _ => return None,
    })
}

fn comment(instruction: SockFilter, state: State, endian: Endian) -> Option<String> {
    if !state.reached {
        return Some("never reached".into());
    }
    let k = instruction.k;
    match instruction.code {
        op::RET_K => Some(Verdict(k).to_string()),
        op::LD_W_ABS => Some(match held(k, endian) {
            Held::Number => "system call number".into(),
            Held::Token => "architecture".into(),
            Held::Low(index) => format!("argument {index}, low half"),
            Held::High(index) => format!("argument {index}, high half"),
            Held::Unknown if (OFFSET_IP..OFFSET_ARGS).contains(&k) => "instruction pointer".into(),
            Held::Unknown => return None,
        }),
        op::JEQ_K if state.accumulator == Held::Token => {
            let arch = Arch::ALL.into_iter().find(|arch| arch.audit_token() == k && *arch != Arch::X32);
            arch.map(|arch| arch.to_string())
        }
        op::JEQ_K | op::JGE_K | op::JGT_K if state.accumulator == Held::Number => {
            let arch = Arch::from_audit(state.token?, k)?;
            let name = Syscall::by_number(arch, k)?.name();
            let abi = if arch == Arch::X32 { " (x32)" } else { "" };
            Some(match instruction.code {
                op::JEQ_K => format!("{name}{abi}"),
                op::JGE_K => format!("{name}{abi} and up"),
                _ => format!("above {name}{abi}"),
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Action, Profile, Rule, compile};

    #[test]
    fn calls_architectures_and_actions_are_named() {
        let mut profile = Profile::new(Action::Errno);
        profile.syscalls = vec![Rule::new(Action::Allow, ["openat"])];
        let program = compile(&profile, Arch::X86_64).unwrap();
        let text = disassemble(&program.instructions, Arch::X86_64);
        for expected in [
            "; SCMP_ARCH_X86_64",
            "; openat and up\n",
            "; SCMP_ACT_ALLOW",
            "; SCMP_ACT_ERRNO, errno 38 (ENOSYS)",
        ] {
            assert!(text.contains(expected), "{expected} is not in\n{text}");
        }
        assert!(text.starts_with("l0: ld [4] "), "{text}");
    }

    #[test]
    fn any_instruction_has_a_text() {
        for code in 0..0x100 {
            let program = [SockFilter { code, jt: 255, jf: 255, k: u32::MAX }];
            assert!(!disassemble(&program, Arch::S390x).is_empty());
        }
    }
}
