// SPDX-License-Identifier: Apache-2.0
//! Conditions on arguments as BPF: 64-bit comparisons out of 32-bit words.

use super::asm::{Assembler, Label};
use crate::Arch;
use crate::bpf::{arg_high, arg_low, op};
use crate::profile::{Condition, Operator};
use crate::resolve::Alternative;

/// Code that answers with the first of `alternatives` that holds, or goes on to `otherwise`.
pub(super) fn emit(asm: &mut Assembler, arch: Arch, alternatives: &[Alternative], otherwise: Label) -> Label {
    let mut next = otherwise;
    for run in alternatives.chunk_by(shares_high_word).rev() {
        let Some(first) = run.first() else { continue };
        if run.len() == 1 {
            let mut yes = asm.ret(first.ret);
            for condition in first.conditions.iter().rev() {
                yes = emit_condition(asm, arch, condition, yes, next);
            }
            next = yes;
        } else {
            next = emit_equal_run(asm, arch, run, next);
        }
    }
    next
}

/// Whether both are a single test for equality of the same argument, with the same high word: one load and one
/// test of the high word then serve both.
fn shares_high_word(a: &Alternative, b: &Alternative) -> bool {
    match (a.conditions.as_slice(), b.conditions.as_slice()) {
        ([a], [b]) => {
            a.op == Operator::Equal
                && b.op == Operator::Equal
                && a.index == b.index
                && a.value >> 32 == b.value >> 32
        }
        _ => false,
    }
}

fn emit_equal_run(asm: &mut Assembler, arch: Arch, run: &[Alternative], otherwise: Label) -> Label {
    let mut next = otherwise;
    for alternative in run.iter().rev() {
        if let Some(condition) = alternative.conditions.first() {
            let yes = asm.ret(alternative.ret);
            next = asm.branch(op::JEQ_K, condition.value as u32, yes, next);
        }
    }
    let Some(condition) = run.first().and_then(|alternative| alternative.conditions.first()) else {
        return otherwise;
    };
    let words = Words::of(condition, arch);
    let low = asm.then(op::LD_W_ABS, words.low, next);
    if !arch.has_wide_arguments() {
        return low;
    }
    let high = asm.branch(op::JEQ_K, (condition.value >> 32) as u32, low, otherwise);
    asm.then(op::LD_W_ABS, words.high, high)
}

/// Offsets of an argument's two halves.
struct Words {
    high: u32,
    low: u32,
}

impl Words {
    fn of(condition: &Condition, arch: Arch) -> Self {
        let (index, endian) = (condition.index as u8, arch.endian());
        Words { high: arg_high(index, endian), low: arg_low(index, endian) }
    }
}

fn emit_condition(asm: &mut Assembler, arch: Arch, condition: &Condition, yes: Label, no: Label) -> Label {
    // The kernel has no "less" and "not equal" jumps: they are the others with the targets exchanged.
    let (yes, no, test) = match condition.op {
        Operator::NotEqual => (no, yes, Operator::Equal),
        Operator::Less => (no, yes, Operator::GreaterOrEqual),
        Operator::LessOrEqual => (no, yes, Operator::Greater),
        other => (yes, no, other),
    };
    let wide = arch.has_wide_arguments();
    let words = Words::of(condition, arch);
    let (value_high, value_low) = ((condition.value >> 32) as u32, condition.value as u32);
    match test {
        Operator::MaskedEqual => {
            let (want_high, want_low) = ((condition.value_two >> 32) as u32, condition.value_two as u32);
            let low = emit_masked(asm, words.low, value_low, want_low, yes, no);
            if wide { emit_masked(asm, words.high, value_high, want_high, low, no) } else { low }
        }
        Operator::Greater | Operator::GreaterOrEqual => {
            let code = if test == Operator::Greater { op::JGT_K } else { op::JGE_K };
            let low = asm.branch(code, value_low, yes, no);
            let low = asm.then(op::LD_W_ABS, words.low, low);
            if !wide {
                return low;
            }
            let equal = asm.branch(op::JEQ_K, value_high, low, no);
            let greater = asm.branch(op::JGT_K, value_high, yes, equal);
            asm.then(op::LD_W_ABS, words.high, greater)
        }
        _ => {
            let low = asm.branch(op::JEQ_K, value_low, yes, no);
            let low = asm.then(op::LD_W_ABS, words.low, low);
            if !wide {
                return low;
            }
            let high = asm.branch(op::JEQ_K, value_high, low, no);
            asm.then(op::LD_W_ABS, words.high, high)
        }
    }
}

/// Compares one word under a mask; a mask of nothing always holds.
fn emit_masked(asm: &mut Assembler, offset: u32, mask: u32, want: u32, yes: Label, no: Label) -> Label {
    if mask == 0 {
        return yes;
    }
    let test = asm.branch(op::JEQ_K, want, yes, no);
    let masked = if mask == u32::MAX { test } else { asm.then(op::ALU_AND_K, mask, test) };
    asm.then(op::LD_W_ABS, offset, masked)
}
