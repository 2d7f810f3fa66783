//! Arguments that name what nobody meant.

use coracle_integration::command::{in_shell, run};
use coracle_integration::{Checked, Runtime, tests};
use libtest_mimic::Trial;

pub fn tests() -> Vec<Trial> {
    tests![a_document_without_an_end_is_refused]
}

fn a_document_without_an_end_is_refused(rt: &Runtime) -> Checked {
    rt.coracle_only("runc reads on until memory ends")?;
    let bundle = rt.sleeper();
    let c = rt.container(&bundle);
    c.up();
    // Far less memory than it takes to read on for long.
    let call = |command| run(in_shell("ulimit -v 400000; exec \"$@\"", &command));
    let too_large = "the file is larger than 16 MiB";
    call(rt.command(["update", "--resources", "/dev/zero", &c.id])).exits(1).fails_with(too_large);
    call(rt.command(["exec", "--process", "/dev/zero", &c.id])).exits(255).fails_with(too_large);
    call(rt.command(["seccomp", "check", "/dev/zero"])).exits(1).fails_with(too_large);
    c.call("delete", &["--force"]).ok();
    Ok(())
}
