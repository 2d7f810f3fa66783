// SPDX-License-Identifier: Apache-2.0
//! From a profile to a program for seccomp(2).
//!
//! The program loads the architecture, then the number, finds the number's answer by a binary search, and loads
//! arguments only for calls whose rules have conditions. All other answers depend on architecture and number
//! alone, so that the kernel (5.11 and newer) keeps them in its allow bitmap and does not run the filter at all.

mod args;
mod asm;
#[cfg(test)]
mod tests;
mod tree;

use crate::Arch;
use crate::bpf::{MAX_INSTRUCTIONS, SockFilter, op, ret};
use crate::error::{Error, Problem};
use crate::profile::{Action, FilterFlag, Profile};
use crate::resolve::{self, Decision, Names, Section};
use crate::tables::Syscall;
use asm::{Assembler, Label};
use tree::Cell;

/// `SECCOMP_FILTER_FLAG_NEW_LISTENER`.
pub const FLAG_NEW_LISTENER: u32 = 1 << 3;

/// A compiled profile: what seccomp(2) needs, and what the runtime has to do around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The filter, at most 4096 instructions.
    pub instructions: Vec<SockFilter>,
    /// Flags for `SECCOMP_SET_MODE_FILTER`. `NEW_LISTENER` is among them exactly when `listener` is set.
    pub flags: u32,
    /// Where the listener goes, when a rule says `SCMP_ACT_NOTIFY`.
    pub listener: Option<Listener>,
    /// What was left out of the filter, a sentence each, with its place in the profile.
    pub warnings: Vec<String>,
}

/// The agent that gets the listener's descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Path of its socket (`listenerPath`).
    pub path: String,
    /// Opaque text for it (`listenerMetadata`).
    pub metadata: Option<String>,
}

/// Compiles a profile for a kernel whose native architecture is `native`.
///
/// # Errors
/// What [`Profile::validate`] refuses, rules that contradict each other, and a program that is too long.
pub fn compile(profile: &Profile, native: Arch) -> Result<Program, Error> {
    profile.validate()?;
    let names = Names::of(profile);
    let sections = sections(profile, &names, native)?;
    let instructions = emit(profile, &sections);
    if instructions.len() > MAX_INSTRUCTIONS {
        return Err(Error::new("syscalls", Problem::TooLong(instructions.len())));
    }
    let notifies = profile.syscalls.iter().any(|rule| rule.action == Action::Notify);
    let mut warnings = warnings(profile, &names, native);
    let flags = flags(profile, notifies, &mut warnings);
    let listener = profile
        .listener_path
        .as_ref()
        .filter(|_| notifies)
        .map(|path| Listener { path: path.clone(), metadata: profile.listener_metadata.clone() });
    Ok(Program { instructions, flags, listener, warnings })
}

pub(crate) fn sections(profile: &Profile, names: &Names, native: Arch) -> Result<Vec<Section>, Error> {
    let all = resolve::architectures(profile, native);
    all.iter().map(|&arch| resolve::section(profile, names, arch, &all)).collect()
}

fn flags(profile: &Profile, notifies: bool, warnings: &mut Vec<String>) -> u32 {
    let Some(list) = &profile.flags else {
        return FilterFlag::SpecAllow.bits() | if notifies { FLAG_NEW_LISTENER } else { 0 };
    };
    let mut bits = 0;
    for (index, flag) in list.iter().enumerate() {
        if *flag == FilterFlag::WaitKillableRecv && !notifies {
            // The kernel refuses it without a listener (EINVAL).
            warnings
                .push(format!("flags[{index}]: {flag} has no effect, because no rule says SCMP_ACT_NOTIFY"));
        } else if *flag != FilterFlag::Tsync {
            // The filter is for the one thread that becomes the program: its other threads come to have it by birth.
            // runc takes the flag and doesn't use it either.
            bits |= flag.bits();
        }
    }
    bits | if notifies { FLAG_NEW_LISTENER } else { 0 }
}

fn warnings(profile: &Profile, names: &Names, native: Arch) -> Vec<String> {
    let mut warnings: Vec<String> =
        profile.ignored.iter().map(|path| format!("{path}: not a property of the spec; ignored")).collect();
    for (index, arch) in profile.architectures.iter().enumerate() {
        if !arch.shares_kernel_with(native) {
            warnings
                .push(format!("architectures[{index}]: a kernel for {native} never runs {arch}; left out"));
        }
    }
    for &(rule, index) in &names.unknown {
        let name = profile.syscalls.get(rule as usize).and_then(|rule| rule.names.get(index as usize));
        let name = name.map_or("", String::as_str);
        warnings.push(format!("syscalls[{rule}].names[{index}]: unknown system call {name:?}; left out"));
    }
    warnings
}

/// The answer in a cell of the search tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaf {
    Return(u32),
    Arguments { section: usize, first: u32, count: u32 },
}

fn emit(profile: &Profile, sections: &[Section]) -> Vec<SockFilter> {
    let default = resolve::default_return(profile);
    let mut tokens: Vec<u32> = Vec::with_capacity(sections.len());
    for section in sections {
        if !tokens.contains(&section.arch.audit_token()) {
            tokens.push(section.arch.audit_token());
        }
    }
    let mut asm = Assembler::new();
    let mut entries = Vec::with_capacity(tokens.len());
    // Last first: the native architecture's code then stands right behind the test of the architecture.
    for &token in tokens.iter().rev() {
        if let Some(label) = emit_token(&mut asm, sections, token, default) {
            entries.push((token, asm.then(op::LD_W_ABS, crate::bpf::OFFSET_NR, label)));
        }
    }
    let mut next = asm.ret(ret::KILL_THREAD);
    for (token, label) in entries {
        next = asm.branch(op::JEQ_K, token, label, next);
    }
    asm.then(op::LD_W_ABS, crate::bpf::OFFSET_ARCH, next);
    asm.finish()
}

fn emit_token(asm: &mut Assembler, sections: &[Section], token: u32, default: u32) -> Option<Label> {
    let mut cells = Vec::with_capacity(256);
    let mut members: Vec<(usize, &Section)> =
        sections.iter().enumerate().filter(|(_, section)| section.arch.audit_token() == token).collect();
    // x86_64 and x32 share a token; the numbers of x32 are the larger ones.
    members.sort_by_key(|(_, section)| section.fallbacks.first().map(|entry| entry.0));
    for &(index, section) in &members {
        push_cells(&mut cells, index, section, default);
    }
    let favourite = members.first().map(|(_, section)| section.arch)?;
    let hot = Syscall::hot().filter_map(|call| call.number(favourite));
    let mut blocks: Vec<(Leaf, Label)> = Vec::new();
    tree::emit(asm, &cells, hot, &mut |asm, leaf| match leaf {
        Leaf::Return(value) => asm.ret(value),
        Leaf::Arguments { section, first, count } => {
            if let Some(&(_, label)) = blocks.iter().find(|block| block.0 == leaf) {
                return label;
            }
            let otherwise = asm.ret(default);
            let Some(section) = sections.get(section) else {
                return otherwise;
            };
            let label = args::emit(asm, section.arch, section.alternatives_of(first, count), otherwise);
            blocks.push((leaf, label));
            label
        }
    })
}

/// Adds the cells of one section, which continue where `cells` ends.
fn push_cells(cells: &mut Vec<Cell<Leaf>>, index: usize, section: &Section, default: u32) {
    let mut calls = section.calls.iter().peekable();
    for (position, &(start, fallback)) in section.fallbacks.iter().enumerate() {
        let gap = Leaf::Return(fallback.return_value(default, section.arch));
        let end = section.fallbacks.get(position + 1).map(|next| next.0);
        let mut free = Some(start);
        while let Some(call) = calls.next_if(|call| end.is_none_or(|end| call.number < end)) {
            if let Some(free) = free.filter(|&free| free < call.number) {
                tree::push(cells, free, gap);
            }
            let leaf = match call.decision {
                Decision::Always { ret, .. } => Leaf::Return(ret),
                Decision::When { first, count } => Leaf::Arguments { section: index, first, count },
            };
            tree::push(cells, call.number, leaf);
            free = call.number.checked_add(1);
        }
        if let Some(free) = free.filter(|&free| end.is_none_or(|end| free < end)) {
            tree::push(cells, free, gap);
        }
    }
}
