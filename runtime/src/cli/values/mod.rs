//! Texts of the command line to typed values.
//!
//! It owns the notations that runc's flags have beyond plain numbers: signals, sizes, users, durations. Each
//! parser is pure and strict, and its error says what would be right.

pub(super) mod duration;
pub(super) mod signal;
pub(super) mod size;
pub(super) mod user;
