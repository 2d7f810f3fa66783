//! What the benchmark and its launcher share: the start of processes and the wait for them.

pub mod sys;
