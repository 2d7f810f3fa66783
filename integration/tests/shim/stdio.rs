//! Standard input and output: FIFOs, files, loggers, terminals.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use coracle_integration::command::eventually;
use coracle_integration::engine::bench::{Bench, Check};
use coracle_integration::engine::shim::{Hand, Shim};
use coracle_integration::named;
use ttrpc::proto::Code;

pub fn checks() -> Vec<(&'static str, Check)> {
    named![
        output_goes_through_fifos,
        a_large_output_arrives_whole,
        a_reader_that_comes_back_loses_nothing,
        output_of_a_short_process_is_not_lost,
        input_goes_through_a_fifo_until_it_is_closed,
        a_process_without_input_reads_the_end,
        an_exec_has_its_own_input_and_output,
        a_terminal_has_the_size_that_it_is_given,
        an_exec_in_a_terminal,
        output_is_appended_to_a_file,
        output_goes_to_a_logger,
        a_logger_that_is_not_there_is_an_error,
        an_unknown_kind_of_output_is_refused,
        a_background_process_that_holds_the_output_delays_nobody,
    ]
}

pub fn checks_of_ours() -> Vec<(&'static str, Check)> {
    named![a_fifo_may_be_named_by_its_uri]
}

/// Reads a FIFO to its end, beside the test.
struct Reader {
    read: Arc<Mutex<Vec<u8>>>,
    thread: JoinHandle<()>,
}

impl Reader {
    fn of(fifo: &Path) -> Self {
        let read = Arc::new(Mutex::new(Vec::new()));
        let (into, fifo) = (Arc::clone(&read), fifo.to_owned());
        let thread = thread::spawn(move || {
            // Opening waits for a writer, which is the shim.
            let mut fifo = File::open(fifo).expect("opening a FIFO");
            let mut buffer = vec![0; 65536];
            while let Ok(length @ 1..) = fifo.read(&mut buffer) {
                into.lock().expect("no reader panics").extend_from_slice(&buffer[..length]);
            }
        });
        Self { read, thread }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.read.lock().expect("no reader panics")).into_owned()
    }

    #[track_caller]
    fn wait_for(&self, part: &str) {
        assert!(eventually(|| self.text().contains(part)), "no {part:?} in {:?}", self.text());
    }

    /// All there was; waits for the end.
    fn end(self) -> Vec<u8> {
        self.thread.join().expect("no reader panics");
        Arc::try_unwrap(self.read).expect("the thread has ended").into_inner().expect("no reader panics")
    }
}

/// Sends the container's output to FIFOs that are read.
fn into_fifos(hand: Hand) -> (Hand, Reader, Reader) {
    let (out, err) = (hand.fifo("fifo.out"), hand.fifo("fifo.err"));
    let (stdout, stderr) = (Reader::of(&out), Reader::of(&err));
    let hand = hand.request(|request| {
        request.stdout = out.display().to_string();
        request.stderr = err.display().to_string();
    });
    (hand, stdout, stderr)
}

fn output_goes_through_fifos(bench: &Bench) {
    let shim = Shim::shared(bench);
    let (hand, stdout, stderr) = into_fifos(shim.script("echo out; echo err >&2"));
    let hand = hand.up();
    hand.exits(0);
    hand.delete();
    assert_eq!((stdout.end(), stderr.end()), (b"out\n".to_vec(), b"err\n".to_vec()));
}

fn a_fifo_may_be_named_by_its_uri(bench: &Bench) {
    let shim = Shim::shared(bench);
    let (hand, stdout, stderr) = into_fifos(shim.script("echo out; echo err >&2"));
    let hand = hand.request(|request| {
        for stream in [&mut request.stdout, &mut request.stderr] {
            stream.insert_str(0, "fifo://");
        }
    });
    let hand = hand.up();
    hand.exits(0);
    hand.delete();
    assert_eq!((stdout.end(), stderr.end()), (b"out\n".to_vec(), b"err\n".to_vec()));
}

fn a_large_output_arrives_whole(bench: &Bench) {
    let shim = Shim::shared(bench);
    let script = "i=0; while [ $i -lt 4 ]; do dd if=/bin/busybox bs=1M count=8 2>/dev/null; i=$((i+1)); done";
    let (hand, stdout, _stderr) = into_fifos(shim.script(script));
    let hand = hand.up();
    hand.exits(0);
    hand.delete();
    let busybox = fs::read(shim.busybox().join("bin/busybox")).expect("busybox");
    assert_eq!(busybox.len().min(8 << 20), busybox.len(), "dd copies all of it");
    assert!(stdout.end() == busybox.repeat(4), "something was lost or changed");
}

fn a_reader_that_comes_back_loses_nothing(bench: &Bench) {
    let shim = Shim::shared(bench);
    let script = "i=0; while [ $i -lt 4000 ]; do echo $i; i=$((i+1)); done; sleep 0.3; echo end";
    let hand = shim.script(script);
    let out = hand.fifo("fifo.out");
    let out_and_err = out.display().to_string();
    let hand = hand.request(|request| (request.stdout, request.stderr) = (out_and_err.clone(), out_and_err));
    let opening = thread::spawn({
        let out = out.clone();
        move || File::open(out).expect("opening a FIFO")
    });
    let hand = hand.up();
    let mut first = opening.join().expect("the shim has opened the other end");
    let mut part = vec![0; 1000];
    first.read_exact(&mut part).expect("reading a part");
    drop(first);
    // The container writes on while nobody reads.
    let rest = Reader::of(&out);
    hand.exits(0);
    hand.delete();
    part.extend(rest.end());
    let all: String = (0..4000).map(|number| format!("{number}\n")).chain(["end\n".to_owned()]).collect();
    assert!(part == all.as_bytes(), "{}", String::from_utf8_lossy(&part));
}

fn output_of_a_short_process_is_not_lost(bench: &Bench) {
    let shim = Shim::shared(bench);
    let hand = shim.sleeping();
    for number in 0..10 {
        let exec = format!("e{number}");
        let (out, err) = (hand.fifo(&format!("out.{number}")), hand.fifo(&format!("err.{number}")));
        let (stdout, stderr) = (Reader::of(&out), Reader::of(&err));
        let mut request = hand.exec_request(&exec, &["sh", "-c", "echo short; echo error >&2"]);
        (request.stdout, request.stderr) = (out.display().to_string(), err.display().to_string());
        shim.tasks.exec(&request).expect("Exec");
        shim.tasks.start(&hand.id, &exec).expect("Start");
        shim.tasks.wait(&hand.id, &exec).expect("Wait");
        shim.tasks.delete(&hand.id, &exec).expect("Delete");
        assert_eq!((stdout.end(), stderr.end()), (b"short\n".to_vec(), b"error\n".to_vec()));
    }
    hand.end();
}

fn input_goes_through_a_fifo_until_it_is_closed(bench: &Bench) {
    let shim = Shim::shared(bench);
    let hand = shim.script("cat; echo end");
    let input = hand.fifo("fifo.in");
    let hand = hand.request(|request| request.stdin = input.display().to_string()).up();
    let mut writer = OpenOptions::new().write(true).open(&input).expect("opening a FIFO");
    writer.write_all(b"first\n").expect("writing");
    hand.wait_for_output("first\n");
    writer.write_all(b"second\n").expect("writing");
    hand.wait_for_output("second\n");
    shim.tasks.close_stdin(&hand.id, "").expect("CloseIO");
    drop(writer);
    hand.exits(0);
    hand.delete();
    assert_eq!(hand.output(), "first\nsecond\nend\n");
}

fn a_process_without_input_reads_the_end(bench: &Bench) {
    let shim = Shim::shared(bench);
    let hand = shim.script("cat; echo end").up();
    hand.exits(0);
    hand.delete();
    assert_eq!(hand.output(), "end\n");
}

fn an_exec_has_its_own_input_and_output(bench: &Bench) {
    let shim = Shim::shared(bench);
    let hand = shim.sleeping();
    let input = hand.fifo("fifo.in");
    let mut request = hand.exec_request("one", &["sh", "-c", "read word; echo got $word; cat; exit 6"]);
    request.stdin = input.display().to_string();
    shim.tasks.exec(&request).expect("Exec");
    shim.tasks.start(&hand.id, "one").expect("Start");
    let mut writer = OpenOptions::new().write(true).open(&input).expect("opening a FIFO");
    writer.write_all(b"this\n").expect("writing");
    let output = || fs::read_to_string(hand.path("one")).unwrap_or_default();
    assert!(eventually(|| output() == "got this\n"), "{:?}", output());
    shim.tasks.close_stdin(&hand.id, "one").expect("CloseIO");
    drop(writer);
    assert_eq!(shim.tasks.wait(&hand.id, "one").map(|end| end.exit_status), Ok(6));
    shim.tasks.delete(&hand.id, "one").expect("Delete");
    hand.end();
}

fn a_terminal_has_the_size_that_it_is_given(bench: &Bench) {
    let shim = Shim::shared(bench);
    let hand = shim.container(&["sh"]).config(|config| config["process"]["terminal"] = true.into());
    let (input, output) = (hand.fifo("fifo.in"), hand.fifo("fifo.out"));
    let reader = Reader::of(&output);
    let hand = hand.request(|request| {
        request.terminal = true;
        request.stdin = input.display().to_string();
        request.stdout = output.display().to_string();
        request.stderr = String::new();
    });
    let hand = hand.create();
    shim.tasks.resize(&hand.id, "", 100, 30).expect("ResizePty");
    hand.start();
    let mut writer = OpenOptions::new().write(true).open(&input).expect("opening a FIFO");
    writer.write_all(b"test -t 0 && test -t 1 && echo is-a-'ter'minal; stty size\n").expect("writing");
    reader.wait_for("is-a-terminal");
    reader.wait_for("30 100");
    shim.tasks.resize(&hand.id, "", 90, 40).expect("ResizePty");
    writer.write_all(b"stty size\n").expect("writing");
    reader.wait_for("40 90");
    assert!(shim.tasks.state(&hand.id, "").expect("State").terminal);
    writer.write_all(b"exit 5\n").expect("writing");
    hand.exits(5);
    hand.delete();
    reader.end();
}

fn an_exec_in_a_terminal(bench: &Bench) {
    let shim = Shim::shared(bench);
    let hand = shim.sleeping();
    let (input, output) = (hand.fifo("fifo.in"), hand.fifo("fifo.out"));
    let reader = Reader::of(&output);
    let mut request = hand.exec_request("one", &["sh"]);
    request.terminal = true;
    (request.stdin, request.stdout, request.stderr) =
        (input.display().to_string(), output.display().to_string(), String::new());
    shim.tasks.exec(&request).expect("Exec");
    shim.tasks.start(&hand.id, "one").expect("Start");
    shim.tasks.resize(&hand.id, "one", 77, 33).expect("ResizePty");
    let mut writer = OpenOptions::new().write(true).open(&input).expect("opening a FIFO");
    writer.write_all(b"stty size; tty\n").expect("writing");
    reader.wait_for("33 77");
    reader.wait_for("/dev/pts/");
    // What the terminal driver makes of ^C.
    writer.write_all(b"sh -c 'echo be\"\"gun; exec sleep 1000'\n").expect("writing");
    reader.wait_for("begun");
    writer.write_all(b"\x03").expect("writing");
    writer.write_all(b"exit 4\n").expect("writing");
    assert_eq!(shim.tasks.wait(&hand.id, "one").map(|end| end.exit_status), Ok(4));
    shim.tasks.delete(&hand.id, "one").expect("Delete");
    reader.end();
    hand.end();
}

fn output_is_appended_to_a_file(bench: &Bench) {
    let shim = Shim::shared(bench);
    let hand = shim.script("echo a; echo b >&2; echo c");
    let log = hand.path("not/there/yet/log");
    let uri = format!("file://{}", log.display());
    let hand = hand.request(|request| (request.stdout, request.stderr) = (uri.clone(), uri.clone())).up();
    hand.exits(0);
    let lines = || {
        let text = fs::read_to_string(&log).unwrap_or_default();
        // Nobody promises an order between the two streams.
        text.lines().map(str::to_owned).collect::<BTreeSet<String>>()
    };
    let all = |last: &[&str]| ["a", "b", "c"].iter().chain(last).map(|&line| line.to_owned()).collect();
    assert!(eventually(|| lines() == all(&[])), "{:?}", lines());
    assert_eq!(fs::metadata(&log).expect("the log").permissions().mode() & 0o777, 0o644);
    hand.delete();
    let again =
        shim.script("echo d").request(|request| (request.stdout, request.stderr) = (uri.clone(), uri)).up();
    again.exits(0);
    again.delete();
    assert_eq!(lines(), all(&["d"]));
}

fn output_goes_to_a_logger(bench: &Bench) {
    let shim = Shim::shared(bench);
    let hand = shim.script("echo out; echo err >&2; exit 2");
    let directory = hand.bundle.path().display().to_string();
    let logger = hand.path("logger");
    let script = format!(
        "#!/bin/sh\ntrap '' TERM\necho \"$CONTAINER_ID $CONTAINER_NAMESPACE $*\" >{directory}/told\nexec 5>&-\n\
         cat <&4 >{directory}/log.err &\ncat <&3 >{directory}/log.out\nwait\necho whole >{directory}/ended\n"
    );
    fs::write(&logger, script).expect("writing the logger");
    fs::set_permissions(&logger, fs::Permissions::from_mode(0o755)).expect("chmod");
    let uri = format!("binary://{}?one=two", logger.display());
    let hand = hand.request(|request| (request.stdout, request.stderr) = (uri.clone(), uri)).up();
    hand.exits(2);
    hand.delete();
    let read = |name: &str| fs::read_to_string(hand.path(name)).unwrap_or_default();
    assert_eq!(read("told"), format!("{} {} one two\n", hand.id, bench.engine.namespace()));
    assert!(eventually(|| read("ended") == "whole\n"), "the logger did not see the end");
    assert_eq!((read("log.out").as_str(), read("log.err").as_str()), ("out\n", "err\n"));
}

fn a_logger_that_is_not_there_is_an_error(bench: &Bench) {
    let shim = Shim::shared(bench);
    let uri = "binary:///nonesuch/logger";
    let hand =
        shim.script("true").request(|request| (request.stdout, request.stderr) = (uri.into(), uri.into()));
    shim.tasks.create(&hand.request).expect_err("there is no such logger");
    assert_eq!(shim.tasks.state(&hand.id, "").expect_err("not made").code, Code::NOT_FOUND);
    hand.assert_nothing_left();
}

fn an_unknown_kind_of_output_is_refused(bench: &Bench) {
    let shim = Shim::shared(bench);
    let hand = shim.script("true").request(|request| request.stdout = "gopher://hole".into());
    let failure = shim.tasks.create(&hand.request).expect_err("nobody knows gophers");
    assert!(failure.message.contains("gopher"), "{failure:?}");
    assert_ne!(failure.code, Code::UNIMPLEMENTED, "containerd takes that for an older service");
    hand.assert_nothing_left();
}

fn a_background_process_that_holds_the_output_delays_nobody(bench: &Bench) {
    let shim = Shim::shared(bench);
    let hand = shim.sleeping();
    let fifo = hand.fifo("fifo.out");
    let reader = Reader::of(&fifo);
    let mut request = hand.exec_request("one", &["sh", "-c", "sleep 1000 & echo done"]);
    (request.stdout, request.stderr) = (fifo.display().to_string(), fifo.display().to_string());
    shim.tasks.exec(&request).expect("Exec");
    shim.tasks.start(&hand.id, "one").expect("Start");
    assert_eq!(shim.tasks.wait(&hand.id, "one").map(|end| end.exit_status), Ok(0));
    reader.wait_for("done\n");
    // Delete waits for the rest of the output for a while, and then no longer.
    shim.tasks.delete(&hand.id, "one").expect("Delete");
    hand.end();
    assert_eq!(reader.end(), b"done\n");
}
