// SPDX-License-Identifier: Apache-2.0
//! The search over system call numbers.
//!
//! All 2^32 numbers are cut into cells, maximal runs of numbers with one answer. Comparisons find the cell; the
//! tree of comparisons leans towards the calls that programs make most often, which moves them nearer to the
//! root and costs no instruction.

use super::asm::{Assembler, Label};
use crate::bpf::op;

/// How much heavier a cell gets by each hot call in it than by being there at all.
const HOT_WEIGHT: u32 = 24;

/// Numbers from `start` up to the next cell's, and their answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cell<L> {
    pub start: u32,
    pub leaf: L,
}

/// Adds a cell, unless it would only continue the last one.
pub(super) fn push<L: PartialEq>(cells: &mut Vec<Cell<L>>, start: u32, leaf: L) {
    if cells.last().is_none_or(|last| last.leaf != leaf) {
        cells.push(Cell { start, leaf });
    }
}

/// A run of numbers with one answer, but for at most one number in it.
struct Region<L> {
    start: u32,
    leaf: L,
    exception: Option<(u32, L)>,
    weight: u32,
}

/// Emits the tree. `cells` begins at number 0; `hot` lists numbers to favour. The number is in the accumulator.
pub(super) fn emit<L: Copy + PartialEq>(
    asm: &mut Assembler,
    cells: &[Cell<L>],
    hot: impl Iterator<Item = u32>,
    leaf: &mut impl FnMut(&mut Assembler, L) -> Label,
) -> Option<Label> {
    let mut regions = regions(cells);
    for number in hot {
        let after = regions.partition_point(|region| region.start <= number);
        if let Some(region) = after.checked_sub(1).and_then(|index| regions.get_mut(index)) {
            region.weight += HOT_WEIGHT;
        }
    }
    emit_part(asm, &regions, leaf)
}

/// Takes single numbers between two cells of the same answer as exceptions of one region: finding one then takes
/// one test for equality instead of two boundaries.
fn regions<L: Copy + PartialEq>(cells: &[Cell<L>]) -> Vec<Region<L>> {
    let mut regions = Vec::with_capacity(cells.len());
    let mut rest = cells;
    // Where the first of `rest` begins, when an exception has cut its head off.
    let mut start = None;
    while let [first, tail @ ..] = rest {
        let mut region = Region {
            start: start.take().unwrap_or(first.start),
            leaf: first.leaf,
            exception: None,
            weight: 1,
        };
        rest = tail;
        if let [single, next, after @ ..] = tail
            && next.leaf == first.leaf
            && next.start == single.start + 1
        {
            region.exception = Some((single.start, single.leaf));
            // When the cell behind it holds an exception too, it makes a region of its own.
            let repeats = matches!(after, [second, third, ..]
                if third.leaf == next.leaf && third.start == second.start + 1);
            if repeats {
                start = Some(next.start);
                rest = tail.get(1..).unwrap_or_default();
            } else {
                rest = after;
            }
        }
        regions.push(region);
    }
    regions
}

fn emit_part<L: Copy + PartialEq>(
    asm: &mut Assembler,
    regions: &[Region<L>],
    leaf: &mut impl FnMut(&mut Assembler, L) -> Label,
) -> Option<Label> {
    match regions {
        [] => None,
        [region] => {
            let Some((number, exception)) = region.exception else {
                return Some(leaf(asm, region.leaf));
            };
            let rest = leaf(asm, region.leaf);
            let hit = leaf(asm, exception);
            Some(asm.branch(op::JEQ_K, number, hit, rest))
        }
        _ => {
            let (low, high) = regions.split_at(balance(regions));
            let boundary = high.first()?.start;
            let high = emit_part(asm, high, leaf)?;
            let low = emit_part(asm, low, leaf)?;
            Some(asm.branch(op::JGE_K, boundary, high, low))
        }
    }
}

/// Where to cut at least two regions so that both sides weigh about the same.
fn balance<L>(regions: &[Region<L>]) -> usize {
    let total: u32 = regions.iter().map(|region| region.weight).sum();
    let (mut sum, mut best, mut best_gap) = (0, 1, u32::MAX);
    for (index, region) in regions.iter().enumerate().take(regions.len() - 1) {
        sum += region.weight;
        let gap = sum.abs_diff(total - sum);
        if gap < best_gap {
            (best, best_gap) = (index + 1, gap);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Endian;
    use crate::bpf::{SeccompData, SockFilter};
    use crate::interp;
    use proptest::prelude::*;

    fn compile(answers: &[(u32, u32)]) -> Vec<SockFilter> {
        let mut cells = Vec::new();
        for &(start, leaf) in answers {
            push(&mut cells, start, leaf);
        }
        let mut asm = Assembler::new();
        let root = emit(&mut asm, &cells, [0, 1, 3].into_iter(), &mut |asm, value| asm.ret(value)).unwrap();
        asm.then(op::LD_W_ABS, 0, root);
        asm.finish()
    }

    fn answer(program: &[SockFilter], nr: u32) -> u32 {
        interp::run(program, &SeccompData { nr, ..SeccompData::default() }, Endian::Little).unwrap().ret
    }

    #[test]
    fn isolated_numbers_cost_one_test_each() {
        // Default 0, exceptions at 10, 20 and 30: two boundaries and three tests, a load and two returns.
        let program = compile(&[(0, 0), (10, 1), (11, 0), (20, 1), (21, 0), (30, 1), (31, 0)]);
        assert_eq!(program.iter().filter(|i| i.code == op::JEQ_K).count(), 3);
        assert_eq!(program.iter().filter(|i| i.code == op::JGE_K).count(), 2);
        for number in 0..40 {
            assert_eq!(
                answer(&program, number),
                u32::from(number > 0 && number % 10 == 0 && number < 40),
                "{number}"
            );
        }
    }

    proptest! {
        #[test]
        fn every_number_finds_its_cell(steps in prop::collection::vec((1_u32..4, 0_u32..3), 1..400)) {
            let mut answers = vec![(0, 0)];
            let mut at = 0;
            for (width, leaf) in steps {
                at += width;
                answers.push((at, leaf));
            }
            let program = compile(&answers);
            prop_assert!(interp::verify(&program).is_ok());
            for number in 0..at + 2 {
                let expected = answers.iter().rev().find(|entry| entry.0 <= number).unwrap().1;
                prop_assert_eq!(answer(&program, number), expected, "number {}", number);
            }
            prop_assert_eq!(answer(&program, u32::MAX), answers.last().unwrap().1);
        }
    }
}
