//! `regex-lite` under the name of `regex`.
//!
//! `oci-spec` checks one field (`execCPUAffinity`) with a regular expression, and the engine of the `regex` crate is
//! half of a static binary that is copied into memory at every `create`. `regex-lite`, by the same authors and with
//! the same interface, is a tenth of its size. Cargo puts this crate in its place (`[patch.crates-io]`).

pub use regex_lite::*;
