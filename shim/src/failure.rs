//! What an RPC fails with: a ttrpc code and a text.
//!
//! containerd turns the code into one of its error classes (`errdefs`), which clients tell apart; the text is shown to
//! people, and Docker looks into it for its exit statuses 125 to 127.

use coracle::error::{Error, Kind};
use ttrpc::Code;

/// The result of an RPC.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

/// Why an RPC failed.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The class of it.
    pub code: Code,
    /// What was being done, to what, and why it failed.
    pub text: String,
}

impl Failure {
    /// A failure of this class.
    pub fn new(code: Code, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    /// What was asked for isn't there.
    pub fn not_found(text: impl Into<String>) -> Self {
        Self::new(Code::NOT_FOUND, text)
    }

    /// The state of the process or the container doesn't allow it.
    pub fn precondition(text: impl Into<String>) -> Self {
        Self::new(Code::FAILED_PRECONDITION, text)
    }

    /// The request itself is wrong.
    pub fn invalid(text: impl Into<String>) -> Self {
        Self::new(Code::INVALID_ARGUMENT, text)
    }

    /// The same with what was being done before it: `OCI runtime create failed: …`.
    #[must_use]
    pub fn during(mut self, doing: &str) -> Self {
        self.text = format!("{doing}: {}", self.text);
        self
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = match error.kind() {
            // As with containerd's own shim, whose runtime tells nothing but a text.
            Kind::Config | Kind::System => Code::UNKNOWN,
            Kind::NotFound => Code::NOT_FOUND,
            Kind::Exists => Code::ALREADY_EXISTS,
            Kind::State => Code::FAILED_PRECONDITION,
            // UNIMPLEMENTED would be a method that isn't there: containerd tries Create again by an older service then.
            Kind::Unsupported => Code::INVALID_ARGUMENT,
        };
        Self::new(code, error.to_string())
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}
