//! What containerd writes to the standard input of `start`, and the answer that it can read.
//!
//! containerd 2.3 and newer writes `BootstrapParams`, older versions the runtime's options as an `Any`. One reads as the
//! other: both begin with two strings, so only a comparison with the flags tells them apart. The protocol's version 3 is
//! claimed only where the new form came, since nothing else tells 1.7, which refuses version 3, from 2.0 to 2.2, which
//! take version 2 as well.

use std::io::Read;

use coracle::error::{Doing, Error, Kind, Result};
use protobuf::Message;

use crate::invocation::Invocation;
use crate::options::Options;
use crate::proto::Any;
use crate::proto::bootstrap::{BootstrapParams, BootstrapResult};

/// The most that is read, in bytes.
const LONGEST: u64 = 10 << 20;

/// `log_level` of `BootstrapParams` for debug, in the steps of Go's slog.
const LEVEL_DEBUG: i32 = -4;

/// What `start` is told.
#[derive(Debug)]
pub struct Bootstrap {
    /// The options of the container.
    pub options: Options,
    /// Log more.
    pub debug: bool,
    /// Where sockets are to be.
    pub socket_dir: Option<String>,
    /// containerd's address for events.
    pub ttrpc_address: Option<String>,
    /// The form that came, and that is answered in.
    form: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// containerd up to 2.2.
    Options,
    /// containerd from 2.3.
    Params,
}

impl Bootstrap {
    /// Reads standard input to its end.
    pub fn read(invocation: &Invocation) -> Result<Self> {
        let mut bytes = Vec::new();
        // Only a person has a terminal there, who would wait for nothing.
        if !rustix::termios::isatty(std::io::stdin()) {
            std::io::stdin()
                .lock()
                .take(LONGEST + 1)
                .read_to_end(&mut bytes)
                .doing(|| "read standard input")?;
        }
        if bytes.len() as u64 > LONGEST {
            return Err(Error::new(Kind::Config, format!("standard input has more than {LONGEST} bytes")));
        }
        Self::parse(&bytes, invocation)
    }

    fn parse(bytes: &[u8], invocation: &Invocation) -> Result<Self> {
        let params = BootstrapParams::parse_from_bytes(bytes)
            .ok()
            .filter(|params| params.instance_id == invocation.id && params.namespace == invocation.namespace);
        let Some(params) = params else {
            let any = Any::parse_from_bytes(bytes).map_err(|error| {
                Error::new(Kind::Config, format!("read the options at standard input: {error}"))
            })?;
            return Ok(Self {
                options: Options::read(Some(&any))?,
                debug: invocation.debug,
                socket_dir: None,
                ttrpc_address: None,
                form: Form::Options,
            });
        };
        let options = params.extensions.iter().filter_map(|extension| extension.value.as_ref());
        let options = options.map(Options::read_known).find_map(Result::transpose).transpose()?;
        Ok(Self {
            options: options.unwrap_or_default(),
            debug: invocation.debug || params.log_level <= LEVEL_DEBUG,
            socket_dir: params.socket_dir.filter(|directory| !directory.is_empty()),
            ttrpc_address: Some(params.containerd_ttrpc_address).filter(|address| !address.is_empty()),
            form: Form::Params,
        })
    }

    /// The answer: where the shim is, and what it speaks.
    pub fn answer(&self, address: &str) -> Result<Vec<u8>> {
        let failed = |error: String| Error::new(Kind::System, format!("write the answer: {error}"));
        match self.form {
            Form::Params => {
                let result = BootstrapResult {
                    version: 3,
                    address: address.to_owned(),
                    protocol: "ttrpc".to_owned(),
                    ..BootstrapResult::default()
                };
                result.write_to_bytes().map_err(|error| failed(error.to_string()))
            }
            // A bare address is version 2 for every version of containerd, and the only form that 1.6 knows.
            Form::Options => Ok(address.as_bytes().to_vec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::bootstrap::Extension;
    use crate::proto::{pack, runc};

    fn invocation() -> Invocation {
        Invocation { namespace: "k8s.io".to_owned(), id: "x".to_owned(), ..Invocation::default() }
    }

    fn options() -> Any {
        pack(&runc::Options { systemd_cgroup: true, ..runc::Options::default() }).unwrap()
    }

    #[test]
    fn options_are_not_taken_for_parameters_though_they_read_as_such() {
        let bytes = options().write_to_bytes().unwrap();
        let got = Bootstrap::parse(&bytes, &invocation()).unwrap();
        assert!(got.options.systemd_cgroup);
        assert_eq!(got.answer("unix:///s").unwrap(), b"unix:///s");
    }

    #[test]
    fn nothing_at_all_is_the_usual_options() {
        let got = Bootstrap::parse(b"", &invocation()).unwrap();
        assert!(!got.options.systemd_cgroup && !got.debug);
    }

    #[test]
    fn parameters_that_match_the_flags_are_answered_with_version_3() {
        let mut params = BootstrapParams {
            instance_id: "x".to_owned(),
            namespace: "k8s.io".to_owned(),
            log_level: LEVEL_DEBUG,
            socket_dir: Some("/run/s".to_owned()),
            ..BootstrapParams::default()
        };
        params.extensions.push(Extension { value: Some(options()).into(), ..Extension::default() });
        let bytes = params.write_to_bytes().unwrap();
        let got = Bootstrap::parse(&bytes, &invocation()).unwrap();
        assert!(got.options.systemd_cgroup && got.debug);
        assert_eq!(got.socket_dir.as_deref(), Some("/run/s"));
        let answer = BootstrapResult::parse_from_bytes(&got.answer("unix:///s").unwrap()).unwrap();
        assert_eq!((answer.version, answer.protocol.as_str()), (3, "ttrpc"));
        let other = Invocation { id: "y".to_owned(), ..invocation() };
        assert!(Bootstrap::parse(&bytes, &other).is_err());
    }
}
