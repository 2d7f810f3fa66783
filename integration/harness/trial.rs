//! One test: a function that gets a runtime, and its verdict. Built on `libtest-mimic`, because a test must be able
//! to say at run time that it was skipped, and why.

use std::process::ExitCode;

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use crate::{Runtime, place};

/// Why a test cannot say anything on this machine or for this runtime.
#[derive(Debug)]
pub struct Skip(String);

/// What a test returns that may be skipped.
pub type Checked = Result<(), Skip>;

/// Ends the test as skipped, with a reason.
pub fn skip(why: impl Into<String>) -> Checked {
    Err(Skip(why.into()))
}

/// What a test function may return: nothing, or [`Checked`].
pub trait Verdict {
    /// Turns it into the verdict that is printed.
    fn completion(self) -> Completion;
}

impl Verdict for () {
    fn completion(self) -> Completion {
        Completion::Completed
    }
}

impl Verdict for Checked {
    fn completion(self) -> Completion {
        match self {
            Ok(()) => Completion::Completed,
            Err(Skip(why)) => Completion::ignored_with(format!("skipped: {why}")),
        }
    }
}

/// A test of the runtime under test. What it leaves behind makes it fail.
pub fn trial<V: Verdict + 'static>(name: &str, test: fn(&Runtime) -> V) -> Trial {
    Trial::ignorable_test(name, move || {
        let runtime = Runtime::under_test();
        let verdict = test(&runtime).completion();
        runtime.finish().map_err(Failed::from)?;
        Ok(verdict)
    })
}

/// A test that brings its own runtimes, such as one that compares two of them.
pub fn trial_without_runtime<V: Verdict + 'static>(
    name: impl Into<String>,
    test: impl FnOnce() -> V + Send + 'static,
) -> Trial {
    Trial::ignorable_test(name.into(), move || Ok(test().completion()))
}

/// The `main` of every test program: enters a private place, then runs the tests that the arguments select.
pub fn run_tests(tests: Vec<Trial>) -> ExitCode {
    let arguments = Arguments::from_args();
    if !arguments.list
        && let Err(error) = place::enter().and_then(|()| Runtime::check_the_one_under_test())
    {
        eprintln!("the tests cannot run: {error}");
        return ExitCode::FAILURE;
    }
    if !arguments.list {
        place::clean_up_on_signals();
    }
    libtest_mimic::run(&arguments, tests).exit_code()
}
