// SPDX-License-Identifier: Apache-2.0
//! Drives `by-libseccomp`, and starts it anew when it does not come to an end.

use crate::Optimize;
use coracle_seccomp::{Arch, Profile, SockFilter};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// How long libseccomp may take for one profile.
const PATIENCE: Duration = Duration::from_secs(5);

/// What libseccomp made of a profile.
pub enum Answer {
    Filter(Vec<SockFilter>),
    Refused,
    /// It did not come to an end.
    Endless,
}

/// A running `by-libseccomp`.
pub struct Worker {
    program: &'static str,
    running: Option<(Child, Receiver<String>)>,
}

impl Worker {
    pub fn new(program: &'static str) -> Self {
        Worker {
            program,
            running: None,
        }
    }

    pub fn compile(&mut self, profile: &Profile, native: Arch, optimize: Optimize) -> Answer {
        let program = self.program;
        let (child, lines) = self.running.get_or_insert_with(|| start(program));
        let question = serde_json::json!([native, optimize == Optimize::Tree, profile]);
        let stdin = child.stdin.as_mut().expect("the worker's stdin");
        writeln!(stdin, "{question}").expect("asking the worker");
        match lines.recv_timeout(PATIENCE) {
            Ok(line) if line == "refused" => Answer::Refused,
            Ok(line) => Answer::Filter(parse(&line)),
            Err(_) => {
                self.stop();
                Answer::Endless
            }
        }
    }

    fn stop(&mut self) {
        if let Some((mut child, _)) = self.running.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop();
    }
}

fn start(program: &str) -> (Child, Receiver<String>) {
    let mut child = Command::new(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("starting the worker");
    let stdout = BufReader::new(child.stdout.take().expect("the worker's stdout"));
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in stdout.lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    (child, receiver)
}

fn parse(line: &str) -> Vec<SockFilter> {
    let instructions = line.split(',').skip(1).map(|instruction| {
        let numbers: Vec<u32> = instruction
            .split(' ')
            .map(|number| number.parse().expect("a number"))
            .collect();
        SockFilter {
            code: numbers[0] as u16,
            jt: numbers[1] as u8,
            jf: numbers[2] as u8,
            k: numbers[3],
        }
    });
    instructions.collect()
}
