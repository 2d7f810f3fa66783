//! A process's streams: FIFOs, files, loggers and terminals, between a client that the test plays and a real process.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio as Descriptor};
use std::time::Duration;

use coracle_shim::io::{Ends, Request, Stdio};
use libtest_mimic::{Arguments, Failed, Trial};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};
use tokio::io::unix::AsyncFd;

/// As with containerd's own shim.
const LIMIT: Duration = Duration::from_secs(10);

type Outcome = Result<(), Failed>;

fn main() {
    let mut arguments = Arguments::from_args();
    // Loggers are made by clone3(2) without an exec in between, which asks for one thread, as the shim has.
    arguments.test_threads = Some(1);
    let test = |name: &str, run: fn(&Place) -> Outcome| {
        Trial::test(name, move || {
            let before = descriptors();
            let place = Place::new()?;
            run(&place)?;
            // Copies that were ended are gone with the event loop's next turn.
            place.block_on(async {
                tokio::task::yield_now().await;
                Ok(())
            })?;
            drop(place);
            match (before, descriptors()) {
                (before, after) if before == after => Ok(()),
                (before, after) => Err(format!("{before} descriptors before, {after} after").into()),
            }
        })
    };
    let trials = vec![
        test("output_waits_in_the_fifo_for_a_reader", output_waits_in_the_fifo_for_a_reader),
        test(
            "a_reader_that_comes_after_the_end_reads_it_all",
            a_reader_that_comes_after_the_end_reads_it_all,
        ),
        test("a_reader_that_comes_back_has_lost_nothing", a_reader_that_comes_back_has_lost_nothing),
        test("a_task_without_a_reader_can_be_deleted", a_task_without_a_reader_can_be_deleted),
        test(
            "output_that_nobody_will_read_does_not_hold_up_delete",
            output_that_nobody_will_read_does_not_hold_up_delete,
        ),
        test("gigabytes_take_no_memory", gigabytes_take_no_memory),
        test(
            "a_process_that_nobody_reads_holds_up_only_itself",
            a_process_that_nobody_reads_holds_up_only_itself,
        ),
        test("input_ends_when_the_client_says_so", input_ends_when_the_client_says_so),
        test("a_process_that_reads_no_input_is_no_error", a_process_that_reads_no_input_is_no_error),
        test("pipes_belong_to_the_owner", pipes_belong_to_the_owner)
            .with_ignored_flag(!rustix::process::geteuid().is_root()),
        test(
            "a_file_is_made_and_appended_to_by_both_outputs",
            a_file_is_made_and_appended_to_by_both_outputs,
        ),
        test("a_full_file_does_not_stop_the_process", a_full_file_does_not_stop_the_process),
        test("a_file_that_cannot_be_made_is_an_error", a_file_that_cannot_be_made_is_an_error),
        test(
            "what_is_in_the_pipe_of_a_file_is_written_when_nobody_waits_any_more",
            what_is_in_the_pipe_of_a_file_is_written_when_nobody_waits_any_more,
        ),
        test("a_terminal_can_have_a_file", a_terminal_can_have_a_file),
        test("a_fast_writer_leaves_others_their_turn", a_fast_writer_leaves_others_their_turn),
        test(
            "a_logger_gets_both_outputs_and_its_environment",
            a_logger_gets_both_outputs_and_its_environment,
        ),
        test("a_logger_that_dies_does_not_stop_the_process", a_logger_that_dies_does_not_stop_the_process),
        test("a_logger_that_heeds_sigterm_may_finish", a_logger_that_heeds_sigterm_may_finish),
        test(
            "a_logger_that_is_missing_is_an_error_with_its_path",
            a_logger_that_is_missing_is_an_error_with_its_path,
        ),
        test("a_strict_logger_must_say_that_it_is_ready", a_strict_logger_must_say_that_it_is_ready),
        test("a_terminal_is_copied_both_ways", a_terminal_is_copied_both_ways),
        test(
            "a_size_set_before_the_terminal_is_there_is_kept",
            a_size_set_before_the_terminal_is_there_is_kept,
        ),
        test(
            "a_terminal_that_is_closed_and_opened_anew_goes_on",
            a_terminal_that_is_closed_and_opened_anew_goes_on,
        ),
        test("the_end_of_a_terminals_input_hangs_it_up", the_end_of_a_terminals_input_hangs_it_up),
        test("a_terminal_can_have_a_logger", a_terminal_can_have_a_logger),
        test("streams_that_are_not_known_are_refused", streams_that_are_not_known_are_refused),
    ];
    libtest_mimic::run(&arguments, trials).exit();
}

/// A directory for FIFOs, and an event loop.
struct Place {
    directory: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
}

impl Place {
    fn new() -> Result<Self, Failed> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        // What the event loop makes when it is first used isn't a test's.
        runtime.block_on(async { tokio::time::sleep(Duration::from_millis(1)).await });
        Ok(Self { directory: tempfile::tempdir()?, runtime })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn fifo(&self, name: &str) -> Result<String, Failed> {
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, self.path(name), rustix::fs::FileType::Fifo, mode, 0)?;
        Ok(self.text(name))
    }

    fn script(&self, name: &str, text: &str) -> Result<String, Failed> {
        let path = self.path(name);
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n"))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
        Ok(path.display().to_string())
    }

    fn block_on<T>(&self, future: impl Future<Output = Result<T, Failed>>) -> Result<T, Failed> {
        self.runtime.block_on(async {
            match tokio::time::timeout(Duration::from_secs(60), future).await {
                Ok(done) => done,
                Err(_) => Err("it hangs".into()),
            }
        })
    }
}

const NOTHING: Request<'static> =
    Request { id: "c1", namespace: "test", stdin: "", stdout: "", stderr: "", terminal: false, owner: None };

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

fn run(script: &str, ends: Ends) -> Result<Child, Failed> {
    let descriptor = |end: Option<OwnedFd>| end.map_or_else(Descriptor::null, Descriptor::from);
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]);
    command.stdin(descriptor(ends.stdin)).stdout(descriptor(ends.stdout)).stderr(descriptor(ends.stderr));
    Ok(command.spawn()?)
}

/// Waits for the process without stopping the event loop.
async fn ended(mut child: Child) -> Result<ExitStatus, Failed> {
    let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
    readable(pidfd).await?;
    Ok(child.wait()?)
}

async fn readable(fd: OwnedFd) -> Result<(), Failed> {
    let fd = coracle_shim::sys::watch(fd, tokio::io::Interest::READABLE)?;
    let _ = fd.readable().await?;
    Ok(())
}

/// Reads until there is as much as that, or the end.
async fn read(file: &AsyncFd<OwnedFd>, enough: usize) -> Result<Vec<u8>, Failed> {
    let mut all = Vec::new();
    let mut buffer = [0; 4096];
    while all.len() < enough {
        let mut guard = file.readable().await?;
        match guard.try_io(|file| Ok(rustix::io::read(file.get_ref(), &mut buffer)?)) {
            Ok(Ok(0)) => break,
            Ok(length) => all.extend_from_slice(&buffer[..length?]),
            Err(_) => {}
        }
    }
    Ok(all)
}

/// Opens a FIFO as a client does: without waiting for the shim.
fn reader(path: &str) -> Result<AsyncFd<OwnedFd>, Failed> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    Ok(coracle_shim::sys::watch(file.into(), tokio::io::Interest::READABLE)?)
}

fn expect(is_so: bool, otherwise: impl Into<String>) -> Outcome {
    if is_so { Ok(()) } else { Err(otherwise.into().into()) }
}

fn same(found: &[u8], expected: &str) -> Outcome {
    let found = String::from_utf8_lossy(found);
    expect(found == expected, format!("{found:?} instead of {expected:?}"))
}

fn output_waits_in_the_fifo_for_a_reader(place: &Place) -> Outcome {
    let (stdout, stderr) = (place.fifo("stdout")?, place.fifo("stderr")?);
    place.block_on(async {
        let request = Request { stdout: &stdout, stderr: &stderr, ..NOTHING };
        let (mut stdio, ends) = Stdio::open(request).await?;
        let child = run("echo out; echo err >&2; sleep 1", ends)?;
        same(&read(&reader(&stdout)?, 4).await?, "out\n")?;
        let err = reader(&stderr)?;
        ended(child).await?;
        expect(stdio.drained(LIMIT).await, "the output has no end")?;
        same(&read(&err, usize::MAX).await?, "err\n")
    })
}

fn a_reader_that_comes_after_the_end_reads_it_all(place: &Place) -> Outcome {
    let stdout = place.fifo("stdout")?;
    place.block_on(async {
        let (stdio, ends) = Stdio::open(Request { stdout: &stdout, ..NOTHING }).await?;
        ended(run("echo all of it", ends)?).await?;
        // The copy has come to its end meanwhile.
        tokio::time::sleep(Duration::from_millis(50)).await;
        same(&read(&reader(&stdout)?, usize::MAX).await?, "all of it\n")?;
        drop(stdio);
        Ok(())
    })
}

fn a_reader_that_comes_back_has_lost_nothing(place: &Place) -> Outcome {
    let (stdout, stdin) = (place.fifo("stdout")?, place.fifo("stdin")?);
    place.block_on(async {
        let (mut stdio, ends) = Stdio::open(Request { stdin: &stdin, stdout: &stdout, ..NOTHING }).await?;
        let child = run("echo one; read x; seq 100000; read x; echo last", ends)?;
        let mut client = OpenOptions::new().write(true).open(&stdin)?;
        let first = reader(&stdout)?;
        same(&read(&first, 4).await?, "one\n")?;
        drop(first);
        client.write_all(b"\n\n")?;
        // More than the pipes hold: it waits for the reader.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let second = reader(&stdout)?;
        let expected: String = (1..=100_000).map(|n| format!("{n}\n")).chain(["last\n".to_owned()]).collect();
        let rest = read(&second, usize::MAX).await?;
        expect(rest == expected.as_bytes(), format!("{} bytes instead of {}", rest.len(), expected.len()))?;
        expect(ended(child).await?.success(), "the process failed")?;
        expect(stdio.drained(LIMIT).await, "the output has no end")
    })
}

fn a_task_without_a_reader_can_be_deleted(place: &Place) -> Outcome {
    let stdout = place.fifo("stdout")?;
    place.block_on(async {
        let (mut stdio, ends) = Stdio::open(Request { stdout: &stdout, ..NOTHING }).await?;
        ended(run("echo unread", ends)?).await?;
        expect(stdio.drained(LIMIT).await, "the output has no end")
    })
}

fn output_that_nobody_will_read_does_not_hold_up_delete(place: &Place) -> Outcome {
    let stdout = place.fifo("stdout")?;
    place.block_on(async {
        let (mut stdio, ends) = Stdio::open(Request { stdout: &stdout, ..NOTHING }).await?;
        let mut child = run("exec yes", ends)?;
        tokio::time::sleep(Duration::from_millis(50)).await;
        child.kill()?;
        ended(child).await?;
        // Not what the limit brought about: the copy has ended by itself.
        expect(stdio.drained(Duration::from_secs(50)).await, "the output has no end")
    })
}

fn gigabytes_take_no_memory(place: &Place) -> Outcome {
    const BYTES: u64 = 2 << 30;
    let stdout = place.fifo("stdout")?;
    place.block_on(async {
        let (mut stdio, ends) = Stdio::open(Request { stdout: &stdout, ..NOTHING }).await?;
        let file = File::open(&stdout);
        let reader =
            Command::new("/bin/sh").args(["-c", "wc -c"]).stdin(file?).stdout(Descriptor::piped()).spawn()?;
        let before = resident()?;
        let child = run(&format!("head -c {BYTES} /dev/zero"), ends)?;
        expect(ended(child).await?.success(), "the process failed")?;
        expect(stdio.drained(LIMIT).await, "the output has no end")?;
        let after = resident()?;
        let counted = reader.wait_with_output()?;
        same(&counted.stdout, &format!("{BYTES}\n"))?;
        expect(after < before + 256, format!("{before} KiB before, {after} after"))
    })
}

/// The resident memory of this process, in KiB.
fn resident() -> Result<u64, Failed> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

fn a_process_that_nobody_reads_holds_up_only_itself(place: &Place) -> Outcome {
    let (unread, read_one) = (place.fifo("unread")?, place.fifo("read")?);
    place.block_on(async {
        let (stuck, ends) = Stdio::open(Request { stdout: &unread, ..NOTHING }).await?;
        let mut waiting = run("exec yes", ends)?;
        let (mut stdio, ends) = Stdio::open(Request { stdout: &read_one, ..NOTHING }).await?;
        let client = reader(&read_one)?;
        let child = run("seq 100000 | tail -n 1", ends)?;
        same(&read(&client, usize::MAX).await?, "100000\n")?;
        ended(child).await?;
        expect(stdio.drained(LIMIT).await, "the output has no end")?;
        // It is told how far it has come: what the two pipes hold, and not more.
        let line = stuck.describe().join("");
        let bytes: u64 =
            line.split(": ").nth(1).and_then(|rest| rest.split(' ').next()).ok_or("no count")?.parse()?;
        expect(bytes <= 64 * 1024, format!("{bytes} bytes were taken"))?;
        expect(waiting.try_wait()?.is_none(), "it should wait")?;
        waiting.kill()?;
        ended(waiting).await?;
        drop(stuck);
        Ok(())
    })
}

fn input_ends_when_the_client_says_so(place: &Place) -> Outcome {
    let (stdin, stdout) = (place.fifo("stdin")?, place.fifo("stdout")?);
    place.block_on(async {
        let (mut stdio, ends) = Stdio::open(Request { stdin: &stdin, stdout: &stdout, ..NOTHING }).await?;
        let output = reader(&stdout)?;
        let child = run("cat", ends)?;
        // Clients come and go, and the input goes on.
        for word in ["one ", "two "] {
            OpenOptions::new().write(true).open(&stdin)?.write_all(word.as_bytes())?;
            same(&read(&output, 4).await?, word)?;
        }
        let mut last = OpenOptions::new().write(true).open(&stdin)?;
        stdio.close_stdin();
        last.write_all(b"three")?;
        drop(last);
        same(&read(&output, usize::MAX).await?, "three")?;
        expect(ended(child).await?.success(), "the process failed")?;
        expect(stdio.drained(LIMIT).await, "the output has no end")
    })
}

fn a_process_that_reads_no_input_is_no_error(place: &Place) -> Outcome {
    let (stdin, stdout) = (place.fifo("stdin")?, place.fifo("stdout")?);
    place.block_on(async {
        let (mut stdio, ends) = Stdio::open(Request { stdin: &stdin, stdout: &stdout, ..NOTHING }).await?;
        let output = reader(&stdout)?;
        let mut client = OpenOptions::new().write(true).open(&stdin)?;
        let child = run("exec <&-; echo on; sleep 1; echo off", ends)?;
        same(&read(&output, 3).await?, "on\n")?;
        client.write_all(b"nobody reads this")?;
        same(&read(&output, usize::MAX).await?, "off\n")?;
        ended(child).await?;
        expect(stdio.drained(LIMIT).await, "the output has no end")
    })
}

fn pipes_belong_to_the_owner(place: &Place) -> Outcome {
    let (stdin, stdout) = (place.fifo("stdin")?, place.fifo("stdout")?);
    place.block_on(async {
        let request =
            Request { stdin: &stdin, stdout: &stdout, stderr: &stdout, owner: Some((1234, 5678)), ..NOTHING };
        let (stdio, ends) = Stdio::open(request).await?;
        for end in [&ends.stdin, &ends.stdout, &ends.stderr] {
            let stat = rustix::fs::fstat(end.as_ref().ok_or("an end is missing")?)?;
            expect((stat.st_uid, stat.st_gid) == (1234, 5678), format!("{} {}", stat.st_uid, stat.st_gid))?;
        }
        drop((stdio, ends));
        Ok(())
    })
}

fn a_file_is_made_and_appended_to_by_both_outputs(place: &Place) -> Outcome {
    let uri = format!("file://{}", place.text("new/directory/log"));
    for round in ["one", "two"] {
        place.block_on(async {
            let (mut stdio, ends) = Stdio::open(Request { stdout: &uri, stderr: &uri, ..NOTHING }).await?;
            let child = run(&format!("echo {round}; sleep 0.1; echo {round} >&2"), ends)?;
            expect(ended(child).await?.success(), "the process failed")?;
            expect(stdio.drained(LIMIT).await, "the output has no end")
        })?;
    }
    same(&std::fs::read(place.path("new/directory/log"))?, "one\none\ntwo\ntwo\n")
}

fn a_full_file_does_not_stop_the_process(place: &Place) -> Outcome {
    place.block_on(async {
        let uri = "file:///dev/full";
        let (mut stdio, ends) = Stdio::open(Request { stdout: uri, stderr: uri, ..NOTHING }).await?;
        let child = run("head -c 1000000 /dev/zero", ends)?;
        expect(ended(child).await?.success(), "the process failed")?;
        expect(stdio.drained(LIMIT).await, "the output has no end")
    })
}

fn a_file_that_cannot_be_made_is_an_error(place: &Place) -> Outcome {
    std::fs::write(place.path("file"), "")?;
    let uri = format!("file://{}", place.text("file/below"));
    place.block_on(async {
        let error = Stdio::open(Request { stdout: &uri, ..NOTHING }).await.err();
        let text = error.map(|error| error.to_string()).unwrap_or_default();
        expect(text.contains(&place.text("file")), text)
    })?;
    no_children(place)
}

fn what_is_in_the_pipe_of_a_file_is_written_when_nobody_waits_any_more(place: &Place) -> Outcome {
    let uri = format!("file://{}", place.text("log"));
    place.block_on(async {
        let (mut stdio, ends) = Stdio::open(Request { stdout: &uri, ..NOTHING }).await?;
        // What stays in the background holds the output.
        let mut child = run("head -c 50000 /dev/zero; exec sleep 1000", ends)?;
        while !matches!(std::fs::read_to_string(format!("/proc/{}/comm", child.id())), Ok(name) if name == "sleep\n")
        {
            tokio::task::yield_now().await;
        }
        let drained = stdio.drained(Duration::ZERO).await;
        child.kill()?;
        child.wait()?;
        expect(!drained, "the output has an end")
    })?;
    same(&std::fs::read(place.path("log"))?, &"\0".repeat(50000))
}

fn a_terminal_can_have_a_file(place: &Place) -> Outcome {
    let uri = format!("file://{}", place.text("log"));
    place.block_on(async {
        let request = Request { stdout: &uri, terminal: true, ..NOTHING };
        let (mut stdio, _ends) = Stdio::open(request).await?;
        let (master, slave) = terminal()?;
        stdio.attach_terminal(master)?;
        let child = run_on(slave, "echo shown")?;
        ended(child).await?;
        expect(stdio.drained(LIMIT).await, "the output has no end")
    })?;
    same(&std::fs::read(place.path("log"))?, "shown\r\n")
}

fn a_fast_writer_leaves_others_their_turn(place: &Place) -> Outcome {
    // What is moved at once, and one time more for the order in which tasks are called.
    const BETWEEN_TURNS: u64 = 2 * (64 << 10);
    let stdout = place.fifo("stdout")?;
    place.block_on(async {
        let (mut stdio, ends) = Stdio::open(Request { stdout: &stdout, ..NOTHING }).await?;
        let mut reader =
            Command::new("/bin/cat").stdin(File::open(&stdout)?).stdout(Descriptor::null()).spawn()?;
        let mut writer = run("exec head -c 500000000 /dev/zero", ends)?;
        let mut most = 0;
        let mut before = 0;
        while writer.try_wait()?.is_none() {
            tokio::task::yield_now().await;
            let moved = moved(&stdio)?;
            most = most.max(moved - before);
            before = moved;
        }
        expect(stdio.drained(LIMIT).await, "the output has no end")?;
        reader.wait()?;
        expect(most <= BETWEEN_TURNS, format!("{most} bytes were moved without a turn of anybody else"))
    })
}

/// How much the only output has moved, in bytes.
fn moved(stdio: &Stdio) -> Result<u64, Failed> {
    let line = stdio.describe().concat();
    let number = line.split(' ').find_map(|word| word.parse().ok());
    number.ok_or_else(|| format!("no number in {line:?}").into())
}

fn a_logger_gets_both_outputs_and_its_environment(place: &Place) -> Outcome {
    let log = place.text("log");
    let logger = place.script(
        "logger",
        r#"echo "$CONTAINER_NAMESPACE $CONTAINER_ID $1 $2" >"$2"; ls /proc/$$/fd >"$2.fds"; grep -c '^[0-9]$' "$2.fds" >>"$2"; exec 5>&-
           cat <&3 >>"$2"; cat <&4 >>"$2""#,
    )?;
    place.block_on(async {
        let uri = format!("binary://{logger}?to={log}");
        let (mut stdio, ends) = Stdio::open(Request { stdout: &uri, stderr: &uri, ..NOTHING }).await?;
        let child = run("echo out; echo err >&2", ends)?;
        ended(child).await?;
        expect(stdio.drained(LIMIT).await, "the output has no end")
    })?;
    // Three standard streams and three of the logger; the shell has those of its own from 10 on.
    same(&std::fs::read(log)?, &format!("test c1 to {}\n6\nout\nerr\n", place.text("log")))
}

fn a_logger_that_dies_does_not_stop_the_process(place: &Place) -> Outcome {
    let logger = place.script("logger", "exec 5>&-; head -c 10 <&3 >/dev/null")?;
    place.block_on(async {
        let uri = format!("binary://{logger}");
        let (mut stdio, ends) = Stdio::open(Request { stdout: &uri, stderr: &uri, ..NOTHING }).await?;
        let child = run("head -c 10000000 /dev/zero && head -c 10000000 /dev/zero >&2", ends)?;
        let status = ended(child).await?;
        expect(status.success(), format!("the process failed: {status}"))?;
        expect(stdio.drained(LIMIT).await, "the output has no end")
    })
}

fn a_logger_that_heeds_sigterm_may_finish(place: &Place) -> Outcome {
    let log = place.text("log");
    let logger = place.script(
        "logger",
        &format!("trap 'echo finished >>{log}; exit 0' TERM; exec 5>&-; cat <&3 >>{log}; while :; do sleep 0.1; done"),
    )?;
    place.block_on(async {
        let uri = format!("binary://{logger}");
        let (mut stdio, ends) = Stdio::open(Request { stdout: &uri, ..NOTHING }).await?;
        ended(run("echo out", ends)?).await?;
        expect(stdio.drained(LIMIT).await, "the output has no end")
    })?;
    same(&std::fs::read(log)?, "out\nfinished\n")
}

fn a_logger_that_is_missing_is_an_error_with_its_path(place: &Place) -> Outcome {
    let uri = format!("binary://{}", place.text("nowhere"));
    place.block_on(async {
        let Err(error) = Stdio::open(Request { stdout: &uri, ..NOTHING }).await else {
            return Err("it started".into());
        };
        let text = error.to_string();
        expect(text.contains(&place.text("nowhere")) && text.contains("no such file"), text)
    })?;
    no_children(place)
}

fn a_strict_logger_must_say_that_it_is_ready(place: &Place) -> Outcome {
    let silent = place.script("silent", "exec 5>&-; cat <&3 >/dev/null")?;
    let ready = place.script("ready", "echo >&5; exec 5>&-; cat <&3 >/dev/null")?;
    place.block_on(async {
        let uri = format!("binary-v2://{silent}");
        let Err(error) = Stdio::open(Request { stdout: &uri, ..NOTHING }).await else {
            return Err("it is taken as ready".into());
        };
        expect(error.to_string().contains("without being ready"), error.to_string())?;
        let uri = format!("binary-v2://{ready}");
        let (mut stdio, ends) = Stdio::open(Request { stdout: &uri, ..NOTHING }).await?;
        drop(ends);
        expect(stdio.drained(LIMIT).await, "the output has no end")
    })?;
    no_children(place)
}

/// Every logger was ended and reaped.
fn no_children(place: &Place) -> Outcome {
    place.block_on(async {
        while waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT)
            .is_ok()
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    })
}

/// A new terminal: its master, and its other side.
fn terminal() -> Result<(OwnedFd, OwnedFd), Failed> {
    use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let slave = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    Ok((master, slave))
}

/// Runs a script on the terminal, in a session of its own. These tests may run below nohup(1), which would make it deaf
/// to a hang-up.
fn run_on(terminal: OwnedFd, script: &str) -> Result<Child, Failed> {
    let mut command = Command::new("env");
    command.args(["--default-signal=HUP", "setsid", "--ctty", "sh", "-c", script]);
    let copy = terminal.try_clone()?;
    Ok(command.stdin(copy.try_clone()?).stdout(copy).stderr(terminal).spawn()?)
}

fn a_terminal_is_copied_both_ways(place: &Place) -> Outcome {
    let (stdin, stdout) = (place.fifo("stdin")?, place.fifo("stdout")?);
    place.block_on(async {
        let request = Request { stdin: &stdin, stdout: &stdout, terminal: true, ..NOTHING };
        let (mut stdio, ends) = Stdio::open(request).await?;
        expect(ends.stdin.is_none() && ends.stdout.is_none(), "a terminal has no pipes")?;
        let (master, slave) = terminal()?;
        stdio.attach_terminal(master)?;
        let child = run_on(slave, "stty -echo; echo ready; read x; stty size; echo $x")?;
        let output = reader(&stdout)?;
        same(&read(&output, 7).await?, "ready\r\n")?;
        stdio.resize(132, 43)?;
        OpenOptions::new().write(true).open(&stdin)?.write_all(b"hello\n")?;
        let status = ended(child).await?;
        stdio.process_ended();
        same(&read(&output, usize::MAX).await?, "43 132\r\nhello\r\n")?;
        expect(status.success(), format!("the process failed: {status}"))?;
        expect(stdio.drained(LIMIT).await, "the output has no end")
    })
}

fn a_size_set_before_the_terminal_is_there_is_kept(place: &Place) -> Outcome {
    let stdout = place.fifo("stdout")?;
    place.block_on(async {
        let (mut stdio, _) = Stdio::open(Request { stdout: &stdout, terminal: true, ..NOTHING }).await?;
        stdio.resize(100, 30)?;
        let (master, slave) = terminal()?;
        stdio.attach_terminal(master)?;
        let output = reader(&stdout)?;
        ended(run_on(slave, "stty size")?).await?;
        expect(stdio.drained(LIMIT).await, "the output has no end")?;
        same(&read(&output, usize::MAX).await?, "30 100\r\n")
    })
}

fn a_terminal_that_is_closed_and_opened_anew_goes_on(place: &Place) -> Outcome {
    let stdout = place.fifo("stdout")?;
    place.block_on(async {
        let (mut stdio, _) = Stdio::open(Request { stdout: &stdout, terminal: true, ..NOTHING }).await?;
        let (master, slave) = terminal()?;
        let name = std::fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&slave)))?;
        stdio.attach_terminal(master)?;
        let output = reader(&stdout)?;
        let script = format!("echo one; exec <&- >&- 2>&-; sleep 0.2; echo two >{}", name.display());
        let child = run_on(slave, &script)?;
        same(&read(&output, 10).await?, "one\r\ntwo\r\n")?;
        ended(child).await?;
        expect(stdio.drained(LIMIT).await, "the output has no end")
    })
}

fn the_end_of_a_terminals_input_hangs_it_up(place: &Place) -> Outcome {
    let (stdin, stdout) = (place.fifo("stdin")?, place.fifo("stdout")?);
    place.block_on(async {
        let request = Request { stdin: &stdin, stdout: &stdout, terminal: true, ..NOTHING };
        let (mut stdio, _) = Stdio::open(request).await?;
        let (master, slave) = terminal()?;
        stdio.attach_terminal(master)?;
        let child = run_on(slave, "echo ready; exec sleep 1000")?;
        let output = reader(&stdout)?;
        same(&read(&output, 7).await?, "ready\r\n")?;
        stdio.close_stdin();
        let status = ended(child).await?;
        let signal = std::os::unix::process::ExitStatusExt::signal(&status);
        expect(signal == Some(1), format!("no SIGHUP: {status}"))?;
        expect(stdio.drained(LIMIT).await, "the output has no end")
    })
}

fn a_terminal_can_have_a_logger(place: &Place) -> Outcome {
    let log = place.text("log");
    let logger = place.script("logger", &format!("exec 5>&-; cat <&4; cat <&3 >{log}"))?;
    place.block_on(async {
        let uri = format!("binary://{logger}");
        let (mut stdio, _) = Stdio::open(Request { stdout: &uri, terminal: true, ..NOTHING }).await?;
        let (master, slave) = terminal()?;
        stdio.attach_terminal(master)?;
        ended(run_on(slave, "echo out")?).await?;
        expect(stdio.drained(LIMIT).await, "the output has no end")
    })?;
    same(&std::fs::read(log)?, "out\r\n")
}

fn streams_that_are_not_known_are_refused(place: &Place) -> Outcome {
    place.block_on(async {
        for uri in ["stream://x", "relative"] {
            expect(Stdio::open(Request { stdout: uri, ..NOTHING }).await.is_err(), uri)?;
        }
        let file = place.path("file");
        File::create(&file)?.write_all(b"x")?;
        let error = Stdio::open(Request { stdin: &place.text("file"), ..NOTHING }).await.err();
        let text = error.map(|error| error.to_string()).unwrap_or_default();
        expect(text.contains("not a FIFO"), text)?;
        let missing = place.text("missing");
        let error = Stdio::open(Request { stdout: &missing, ..NOTHING }).await.err();
        let text = error.map(|error| error.to_string()).unwrap_or_default();
        expect(text.contains(&missing) && text.contains("no such file"), text)
    })
}
