// SPDX-License-Identifier: Apache-2.0
//! A tour: read a profile, compile it, ask it questions, look for mistakes, and print the program.
//!
//! `cargo run --example tour [PROFILE.json]`, where the file holds the `linux.seccomp` object of a `config.json`.

use coracle_seccomp::{Arch, Profile, Query, Simulator, check, compile, disassemble};

const PROFILE: &str = r#"{
    "defaultAction": "SCMP_ACT_ERRNO",
    "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
    "syscalls": [
        {"names": ["read", "write", "openat", "opennat", "exit_group", "clone"], "action": "SCMP_ACT_ALLOW"},
        {"names": ["personality"], "action": "SCMP_ACT_ALLOW",
         "args": [{"index": 0, "value": 0, "op": "SCMP_CMP_EQ"}, {"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]},
        {"names": ["clone"], "action": "SCMP_ACT_KILL_PROCESS",
         "args": [{"index": 0, "value": 268435456, "valueTwo": 268435456, "op": "SCMP_CMP_MASKED_EQ"}]}
    ]
}"#;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let text = match std::env::args().nth(1) {
        Some(path) => std::fs::read_to_string(path)?,
        None => PROFILE.to_owned(),
    };
    let native = Arch::native().ok_or("seccomp does not know this machine's architecture")?;
    let profile = Profile::from_json(&text)?;

    let program = compile(&profile, native)?;
    println!("{} instructions, flags {:#x}", program.instructions.len(), program.flags);
    for warning in &program.warnings {
        println!("warning: {warning}");
    }

    println!("\nWhat happens to");
    let simulator = Simulator::new(&profile, native)?;
    for (call, argument) in
        [("openat", 0), ("personality", 8), ("personality", 9), ("clone3", 0), ("mkdirat", 0)]
    {
        println!("{}\n", simulator.ask(&Query::new(native, call, &[argument])?)?);
    }

    println!("Findings");
    for finding in check(&profile, native)? {
        println!("{finding}");
    }

    println!("\nProgram");
    print!("{}", disassemble(&program.instructions, native));
    Ok(())
}
