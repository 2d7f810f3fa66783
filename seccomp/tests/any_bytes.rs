// SPDX-License-Identifier: Apache-2.0
//! What the fuzz targets promise, held with their corpus, and with what becomes of it when bytes are lost or changed.

use coracle_seccomp::{Arch, Profile, compile, to_raw};

#[path = "../fuzz/promises.rs"]
mod promises;

const PROFILE: &[u8] = include_bytes!("../fuzz/corpus/profile/tour.json");

/// The bytes themselves, cut short, and with each of some bytes changed.
fn changed(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let cut = (0..bytes.len()).step_by(7).map(|end| bytes[..end].to_vec());
    let turned = (0..bytes.len()).step_by(3).flat_map(|place| {
        [0x01, 0x10, 0x80].map(|bits| {
            let mut copy = bytes.to_vec();
            copy[place] ^= bits;
            copy
        })
    });
    std::iter::once(bytes.to_vec()).chain(cut).chain(turned)
}

#[test]
fn any_bytes_are_taken_as_a_profile() {
    changed(PROFILE).for_each(|bytes| promises::of_a_profile(&bytes));
}

#[test]
fn any_bytes_are_taken_as_a_program() {
    let profile = Profile::from_json(std::str::from_utf8(PROFILE).unwrap()).unwrap();
    let program = compile(&profile, Arch::X86_64).unwrap();
    let bytes = to_raw(&program.instructions, Arch::X86_64.endian());
    changed(&bytes).for_each(|bytes| promises::of_a_program(&bytes));
}
