// SPDX-License-Identifier: Apache-2.0
//! Programs for other tools: a C array, raw `struct sock_filter` bytes, and the form that `bpf_dbg` loads.

use crate::Endian;
use crate::bpf::SockFilter;
use std::fmt::Write;

/// Bytes of one `struct sock_filter`.
const SIZE: usize = 8;

/// Why bytes are not a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} bytes are not a whole number of BPF instructions, which have {SIZE} bytes each")]
pub struct RawError(usize);

/// The program as raw `struct sock_filter` array, in the given byte order.
pub fn to_raw(program: &[SockFilter], endian: Endian) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(program.len() * SIZE);
    for instruction in program {
        let (code, k) = match endian {
            Endian::Little => (instruction.code.to_le_bytes(), instruction.k.to_le_bytes()),
            Endian::Big => (instruction.code.to_be_bytes(), instruction.k.to_be_bytes()),
        };
        bytes.extend_from_slice(&code);
        bytes.extend_from_slice(&[instruction.jt, instruction.jf]);
        bytes.extend_from_slice(&k);
    }
    bytes
}

/// Reads what [`to_raw`] writes.
///
/// # Errors
/// A length that is not a multiple of an instruction's.
pub fn from_raw(bytes: &[u8], endian: Endian) -> Result<Vec<SockFilter>, RawError> {
    let (chunks, rest) = bytes.as_chunks::<SIZE>();
    if !rest.is_empty() {
        return Err(RawError(bytes.len()));
    }
    Ok(chunks
        .iter()
        .map(|&[c0, c1, jt, jf, k0, k1, k2, k3]| {
            let (code, k) = ([c0, c1], [k0, k1, k2, k3]);
            match endian {
                Endian::Little => {
                    SockFilter { code: u16::from_le_bytes(code), jt, jf, k: u32::from_le_bytes(k) }
                }
                Endian::Big => {
                    SockFilter { code: u16::from_be_bytes(code), jt, jf, k: u32::from_be_bytes(k) }
                }
            }
        })
        .collect())
}

/// A C definition of the program as `static const struct sock_filter NAME[]` (linux/filter.h).
pub fn to_c_array(program: &[SockFilter], name: &str) -> String {
    let mut text = format!("static const struct sock_filter {name}[{}] = {{\n", program.len());
    for SockFilter { code, jt, jf, k } in program {
        let _ = writeln!(text, "    {{ 0x{code:02x}, {jt}, {jf}, 0x{k:08x} }},");
    }
    text.push_str("};\n");
    text
}

/// One line for `load bpf` of the kernel's `bpf_dbg`, which `tcpdump -ddd` joined by commas has too.
pub fn to_bpf_dbg(program: &[SockFilter]) -> String {
    let mut text = program.len().to_string();
    for SockFilter { code, jt, jf, k } in program {
        let _ = write!(text, ",{code} {jt} {jf} {k}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROGRAM: [SockFilter; 3] = [
        SockFilter { code: 0x20, jt: 0, jf: 0, k: 4 },
        SockFilter { code: 0x15, jt: 0, jf: 1, k: 0xc000_003e },
        SockFilter { code: 0x06, jt: 0, jf: 0, k: 0x7fff_0000 },
    ];

    #[test]
    fn raw_bytes_read_back_in_both_byte_orders() {
        for endian in [Endian::Little, Endian::Big] {
            let raw = to_raw(&PROGRAM, endian);
            assert_eq!(raw.len(), 24);
            assert_eq!(from_raw(&raw, endian).unwrap(), PROGRAM);
        }
        assert_eq!(to_raw(&PROGRAM, Endian::Little)[..8], [0x20, 0, 0, 0, 4, 0, 0, 0]);
        assert_eq!(from_raw(&[0; 9], Endian::Little), Err(RawError(9)));
    }

    #[test]
    fn texts_have_the_forms_that_tools_read() {
        assert_eq!(
            to_c_array(&PROGRAM[..2], "filter"),
            "static const struct sock_filter filter[2] = {\n    { 0x20, 0, 0, 0x00000004 },\n    { 0x15, 0, 1, 0xc000003e },\n};\n"
        );
        assert_eq!(to_bpf_dbg(&PROGRAM), "3,32 0 0 4,21 0 1 3221225534,6 0 0 2147418112");
    }
}
