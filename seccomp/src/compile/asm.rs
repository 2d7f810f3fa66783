// SPDX-License-Identifier: Apache-2.0
//! An assembler that works from the end to the beginning.
//!
//! Classic BPF only jumps forward, so that in this direction every target exists before the jump to it. A
//! conditional jump reaches 255 instructions; where a target is farther away, a copy of it (if it is a return)
//! or a long jump to it is put in between.

use crate::bpf::{SockFilter, op};

/// Farthest target of a conditional jump.
const REACH: usize = u8::MAX as usize;

/// An instruction's place, counted from the end of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Label(usize);

pub(super) struct Assembler {
    /// The program, last instruction first.
    reversed: Vec<SockFilter>,
    /// The copy of each return that was made last.
    returns: Vec<(u32, Label)>,
}

impl Assembler {
    pub(super) fn new() -> Self {
        Assembler { reversed: Vec::with_capacity(512), returns: Vec::with_capacity(8) }
    }

    pub(super) fn finish(mut self) -> Vec<SockFilter> {
        self.reversed.reverse();
        self.reversed
    }

    /// A place that returns `value`.
    pub(super) fn ret(&mut self, value: u32) -> Label {
        match self.returns.iter().find(|entry| entry.0 == value) {
            // Leaves room for the code between here and the jump.
            Some(&(_, label)) if self.distance(label) < REACH - 8 => label,
            _ => self.fresh_return(value),
        }
    }

    /// `code` without jumps, then on to `next`.
    pub(super) fn then(&mut self, code: u16, k: u32, next: Label) -> Label {
        if self.distance(next) != 0 {
            self.copy_or_jump(next);
        }
        self.push(SockFilter::new(code, k))
    }

    /// A conditional jump.
    pub(super) fn branch(&mut self, code: u16, k: u32, mut yes: Label, mut no: Label) -> Label {
        if yes == no {
            return yes;
        }
        loop {
            if self.distance(yes) > REACH {
                yes = self.copy_or_jump(yes);
            } else if self.distance(no) > REACH {
                no = self.copy_or_jump(no);
            } else {
                let (jt, jf) = (self.distance(yes) as u8, self.distance(no) as u8);
                return self.push(SockFilter { code, jt, jf, k });
            }
        }
    }

    /// Instructions between the next one to be pushed and `label`.
    fn distance(&self, label: Label) -> usize {
        self.reversed.len() - label.0 - 1
    }

    fn copy_or_jump(&mut self, target: Label) -> Label {
        match self.reversed.get(target.0) {
            Some(instruction) if instruction.code == op::RET_K => self.fresh_return(instruction.k),
            _ => {
                let distance = self.distance(target) as u32;
                self.push(SockFilter::new(op::JA, distance))
            }
        }
    }

    fn fresh_return(&mut self, value: u32) -> Label {
        let label = self.push(SockFilter::new(op::RET_K, value));
        match self.returns.iter_mut().find(|entry| entry.0 == value) {
            Some(entry) => entry.1 = label,
            None => self.returns.push((value, label)),
        }
        label
    }

    fn push(&mut self, instruction: SockFilter) -> Label {
        self.reversed.push(instruction);
        Label(self.reversed.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bpf::{SeccompData, ret};
    use crate::{Endian, interp};

    fn verdict(program: &[SockFilter], nr: u32) -> u32 {
        interp::verify(program).unwrap();
        interp::run(program, &SeccompData { nr, ..SeccompData::default() }, Endian::Little).unwrap().ret
    }

    #[test]
    fn far_targets_are_reached() {
        let mut asm = Assembler::new();
        let allow = asm.ret(ret::ALLOW);
        let far = asm.then(op::LD_W_ABS, 4, allow);
        let mut chain = asm.ret(ret::TRAP);
        for number in (0..1000).rev() {
            let hit = if number % 2 == 0 { far } else { asm.ret(ret::ERRNO | number) };
            chain = asm.branch(op::JEQ_K, number, hit, chain);
        }
        asm.then(op::LD_W_ABS, 0, chain);
        let program = asm.finish();
        for number in 0..1000 {
            let expected = if number % 2 == 0 { ret::ALLOW } else { ret::ERRNO | number };
            assert_eq!(verdict(&program, number), expected, "{number}");
        }
        assert_eq!(verdict(&program, 1000), ret::TRAP);
    }

    #[test]
    fn a_branch_with_one_target_is_left_out() {
        let mut asm = Assembler::new();
        let allow = asm.ret(ret::ALLOW);
        assert_eq!(asm.branch(op::JEQ_K, 1, allow, allow), allow);
        assert_eq!(asm.finish().len(), 1);
    }
}
