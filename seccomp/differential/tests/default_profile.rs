// SPDX-License-Identifier: Apache-2.0
//! The engines' default profile, compiled by both, asked about every number and about arguments on and beside
//! every value that it names.

use coracle_seccomp::{Arch, Profile, X32_BIT, compile, interp};
use coracle_seccomp_differential::{
    DEFAULT_CAPABILITIES, Model, Optimize, Relation, by_libseccomp, compare, engine_profile, expand,
};

const KERNELS: [(Arch, &str); 12] = [
    (Arch::X86_64, "amd64"),
    (Arch::X86, "x86"),
    (Arch::Aarch64, "arm64"),
    (Arch::Arm, "arm"),
    (Arch::Riscv64, "riscv64"),
    (Arch::S390x, "s390x"),
    (Arch::Ppc64le, "ppc64le"),
    (Arch::Ppc64, "ppc64"),
    (Arch::Mips64, "mips64"),
    (Arch::Mipsel64, "mipsel64"),
    (Arch::Mipsel64n32, "mipsel64n32"),
    (Arch::Parisc64, "parisc64"),
];

/// libseccomp 2.5 gives `_llseek` a number on 64-bit parisc; the kernel's table has it for 32 bits only.
const LLSEEK_OF_PARISC64: (Arch, u32) = (Arch::Parisc64, 140);

#[test]
fn default_profile_gets_the_same_verdicts() {
    let Some(engine) = engine_profile() else {
        println!("skipped: no /usr/share/containers/seccomp.json (Debian: golang-github-containers-common)");
        return;
    };
    for (native, go_arch) in KERNELS {
        for capabilities in [
            &DEFAULT_CAPABILITIES[..],
            &[],
            &["CAP_SYS_ADMIN", "CAP_AUDIT_WRITE", "CAP_SYS_TIME"],
        ] {
            let value = expand(&engine, native, go_arch, capabilities);
            let mut profiles = vec![Profile::from_value(&value).unwrap()];
            // Docker's variant: EPERM by default.
            let mut docker = profiles[0].clone();
            docker.default_errno_ret = Some(1);
            profiles.push(docker);
            for profile in &profiles {
                let ours = compile(profile, native).unwrap().instructions;
                interp::verify(&ours).unwrap();
                for optimize in [Optimize::Chain, Optimize::Tree] {
                    let theirs = by_libseccomp(profile, native, optimize).unwrap();
                    ask(profile, native, &ours, &theirs);
                }
            }
        }
    }
}

fn ask(
    profile: &Profile,
    native: Arch,
    ours: &[coracle_seccomp::SockFilter],
    theirs: &[coracle_seccomp::SockFilter],
) {
    let model = Model::new(profile, native);
    let mut values = vec![0_u64, 1, u64::MAX, 0xffff_ffff];
    for value in profile
        .syscalls
        .iter()
        .flat_map(|rule| &rule.args)
        .flat_map(|arg| [arg.value, arg.value_two])
    {
        values.extend([
            value,
            value.wrapping_sub(1),
            value.wrapping_add(1),
            value | 1 << 32,
        ]);
    }
    values.sort_unstable();
    values.dedup();
    let (mut same, mut enosys) = (0_u64, 0_u64);
    for arch in Arch::ALL
        .into_iter()
        .filter(|arch| arch.shares_kernel_with(native))
    {
        let bases = [
            0,
            4000,
            5000,
            6000,
            0xf_0000,
            X32_BIT - 8,
            X32_BIT,
            0x8000_0000,
            u32::MAX - 8,
        ];
        for nr in bases
            .into_iter()
            .flat_map(|base| (0..600).filter_map(move |step| u32::checked_add(base, step)))
        {
            if (arch, nr) == LLSEEK_OF_PARISC64 {
                continue;
            }
            // Only calls with conditions are worth more than one set of arguments.
            let depth = if model.ask(arch, nr, &[0; 6]).alternatives > 0 {
                values.len()
            } else {
                2
            };
            for (index, value) in values[..depth]
                .iter()
                .flat_map(|value| (0..3).map(move |index| (index, *value)))
            {
                let mut args = [0; 6];
                args[index] = value;
                match compare(&model, native, (ours, theirs), (arch, nr, args)) {
                    Relation::Same => same += 1,
                    Relation::Enosys => enosys += 1,
                    other => panic!("{native}: {arch} {nr} {args:x?}: {other:x?}"),
                }
            }
        }
    }
    println!(
        "{native}: {same} same, {enosys} ENOSYS for newer calls, {} against {} instructions",
        ours.len(),
        theirs.len()
    );
}
