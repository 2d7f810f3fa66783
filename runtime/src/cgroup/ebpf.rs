//! Device rules as a program of cgroup v2.
//!
//! Version 2 has no device files: a `cgroup_device` program is asked for every access. It owns the
//! translation of the rules, which is exact (the last rule that speaks of a device and an access
//! decides, bit by bit, and what no rule speaks of is denied), and the attaching, which replaces an
//! earlier program of ours in one step, so that a container is never without rules. Programs of
//! others (systemd's) stay: an access needs the consent of all. Source: bpf-cgroup(7) and
//! kernel `include/uapi/linux/bpf.h`, `struct bpf_cgroup_dev_ctx`.

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::devices::{Access, DeviceKind, DeviceRule};
use super::file::CgroupDir;
use crate::error::{Doing, Error, Result};
use crate::sys::bpf::{self, Instruction};

/// Our programs are known by this name when one is replaced.
const NAME: &str = "coracle_device";

const DECISION: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
/// The accesses that are asked for and not yet allowed.
const WANTED: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

const LOAD_WORD: u8 = 0x61;
const AND: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const MOVE_REGISTER: u8 = 0xbc;
const MOVE: u8 = 0xb4;
const JUMP_IF_NOT: u8 = 0x56;
const JUMP_IF: u8 = 0x16;
const EXIT: u8 = 0x95;

/// Loads the rules' program and attaches it to the cgroup.
///
/// # Errors
/// When the kernel has no such programs, or this process may not load one.
pub fn attach(dir: &CgroupDir, rules: &[DeviceRule]) -> Result<()> {
    let program = compile(rules);
    let doing = |what: &str| format!("{what} the device rules of {} (a BPF program)", dir.path().display());
    let loaded = load(&program).map_err(|errno| {
        let error = Error::os(errno, doing("load")).at("linux.resources.devices");
        match errno {
            Errno::PERM => error.hint("this needs CAP_BPF and CAP_NET_ADMIN, or CAP_SYS_ADMIN, on the host"),
            Errno::INVAL => error.hint("the kernel must be built with CONFIG_CGROUP_BPF"),
            _ => error,
        }
    })?;
    let cgroup = dir.open_file(".", OFlags::RDONLY | OFlags::DIRECTORY).doing(|| doing("attach"))?;
    let attached = bpf::device_programs(&cgroup).doing(|| doing("look for"))?;
    let ours = attached.iter().find(|(_, name)| name == NAME).map(|(program, _)| program);
    bpf::attach_device_program(&cgroup, &loaded, ours)
        .map_err(|errno| Error::os(errno, doing("attach")).at("linux.resources.devices"))
}

/// Kernels before 5.11 charge programs to RLIMIT_MEMLOCK and say EPERM when it is too low.
fn load(program: &[Instruction]) -> Result<std::os::fd::OwnedFd, Errno> {
    match bpf::load_device_program(program, NAME) {
        Err(Errno::PERM) => {
            let limit = getrlimit(Resource::Memlock);
            // Without CAP_SYS_RESOURCE only up to the hard limit.
            if setrlimit(Resource::Memlock, Rlimit { current: None, maximum: None }).is_err() {
                let _ =
                    setrlimit(Resource::Memlock, Rlimit { current: limit.maximum, maximum: limit.maximum });
            }
            let result = bpf::load_device_program(program, NAME);
            // A container inherits limits: put ours back.
            let _ = setrlimit(Resource::Memlock, limit);
            result
        }
        result => result,
    }
}

/// Translates the rules, last one first.
fn compile(rules: &[DeviceRule]) -> Vec<Instruction> {
    let mut program = vec![
        instruction(LOAD_WORD, KIND, CONTEXT, 0, 0),
        instruction(MOVE_REGISTER, WANTED, KIND, 0, 0),
        instruction(AND, KIND, 0, 0, 0xffff),
        instruction(SHIFT_RIGHT, WANTED, 0, 0, 16),
        instruction(LOAD_WORD, MAJOR, CONTEXT, 4, 0),
        instruction(LOAD_WORD, MINOR, CONTEXT, 8, 0),
    ];
    for rule in rules.iter().rev() {
        program.extend(compile_rule(rule));
        // The verifier refuses what can never be reached.
        if rule.kind.is_none() && rule.major.is_none() && rule.minor.is_none() && rule.access == Access::ALL {
            return program;
        }
    }
    program.extend(decide(false));
    program
}

fn compile_rule(rule: &DeviceRule) -> Vec<Instruction> {
    let mut tests = Vec::new();
    if let Some(kind) = rule.kind {
        let number = match kind {
            DeviceKind::Block => 1,
            DeviceKind::Char => 2,
        };
        tests.push((KIND, number));
    }
    tests.extend(rule.major.map(|major| (MAJOR, major)));
    tests.extend(rule.minor.map(|minor| (MINOR, minor)));
    let access = i32::from(rule.access.bits());
    let mut act = Vec::new();
    if rule.access != Access::ALL {
        if rule.allow {
            act.push(instruction(AND, WANTED, 0, 0, !access));
            act.push(instruction(JUMP_IF_NOT, WANTED, 0, 2, 0));
        } else {
            act.push(instruction(MOVE_REGISTER, CONTEXT, WANTED, 0, 0));
            act.push(instruction(AND, CONTEXT, 0, 0, access));
            act.push(instruction(JUMP_IF, CONTEXT, 0, 2, 0));
        }
    }
    act.extend(decide(rule.allow));
    let mut program = Vec::with_capacity(tests.len() + act.len());
    for (index, &(register, value)) in tests.iter().enumerate() {
        let beyond = tests.len() - index - 1 + act.len();
        program.push(instruction(JUMP_IF_NOT, register, 0, beyond as i16, value as i32));
    }
    program.extend(act);
    program
}

fn decide(allow: bool) -> [Instruction; 2] {
    [instruction(MOVE, DECISION, 0, 0, i32::from(allow)), instruction(EXIT, 0, 0, 0, 0)]
}

const fn instruction(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: source << 4 | destination, offset, immediate }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program as the kernel would; panics on what the verifier would refuse.
    fn run(program: &[Instruction], kind: u32, access: u32, major: u32, minor: u32) -> bool {
        let mut registers = [0u32; 6];
        let context = [access << 16 | kind, major, minor];
        let mut at = 0;
        loop {
            let Instruction { code, registers: pair, offset, immediate } = program[at];
            let (to, from) = ((pair & 15) as usize, (pair >> 4) as usize);
            at += 1;
            match code {
                LOAD_WORD => registers[to] = context[offset as usize / 4],
                AND => registers[to] &= immediate as u32,
                SHIFT_RIGHT => registers[to] >>= immediate,
                MOVE_REGISTER => registers[to] = registers[from],
                MOVE => registers[to] = immediate as u32,
                JUMP_IF_NOT if registers[to] != immediate as u32 => at += offset as usize,
                JUMP_IF if registers[to] == immediate as u32 => at += offset as usize,
                JUMP_IF | JUMP_IF_NOT => {}
                EXIT => return registers[0] == 1,
                code => panic!("unknown instruction {code:#x}"),
            }
        }
    }

    /// What the rules say, straight from their definition.
    fn expected(rules: &[DeviceRule], kind: u32, access: u32, major: u32, minor: u32) -> bool {
        [1, 2, 4].iter().filter(|&&bit| access & bit != 0).all(|&bit| {
            let speaks = |rule: &&DeviceRule| {
                rule.kind.is_none_or(|of| (of == DeviceKind::Block) == (kind == 1))
                    && rule.major.is_none_or(|of| of == major)
                    && rule.minor.is_none_or(|of| of == minor)
                    && u32::from(rule.access.bits()) & bit != 0
            };
            rules.iter().rev().find(speaks).is_some_and(|rule| rule.allow)
        })
    }

    #[test]
    fn a_program_decides_as_the_rules_say_bit_by_bit() {
        let pick = |seed: &mut u64, of: u64| {
            *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (*seed >> 33) % of
        };
        let mut seed = 7;
        for _ in 0..500 {
            let rules: Vec<DeviceRule> = (0..pick(&mut seed, 6))
                .map(|_| DeviceRule {
                    allow: pick(&mut seed, 2) == 1,
                    kind: [None, Some(DeviceKind::Block), Some(DeviceKind::Char)]
                        [pick(&mut seed, 3) as usize],
                    major: [None, Some(1), Some(2)][pick(&mut seed, 3) as usize],
                    minor: [None, Some(1), Some(u32::MAX)][pick(&mut seed, 3) as usize],
                    access: Access::parse(["r", "w", "m", "rw", "rwm"][pick(&mut seed, 5) as usize]).unwrap(),
                    place: String::new(),
                })
                .collect();
            let program = compile(&rules);
            for kind in [1, 2] {
                for access in 1..8 {
                    for (major, minor) in [(1, 1), (1, u32::MAX), (2, 1), (3, 3)] {
                        assert_eq!(
                            run(&program, kind, access, major, minor),
                            expected(&rules, kind, access, major, minor),
                            "{rules:?} {kind} {access} {major}:{minor}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn nothing_stands_behind_a_rule_that_always_decides() {
        let every = |allow| DeviceRule {
            allow,
            kind: None,
            major: None,
            minor: None,
            access: Access::ALL,
            place: String::new(),
        };
        let program = compile(&[every(false), every(true)]);
        assert_eq!(program.len(), 8);
        assert!(run(&program, 1, 7, 9, 9));
    }
}
