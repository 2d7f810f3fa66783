//! The few D-Bus messages that a container costs.
//!
//! It owns a connection to systemd: its private socket, or the message bus where that is closed to
//! us. Values are encoded by `zvariant`; the connection is made here because `zbus` brings threads
//! and an executor (and 1.2 MB more), and a runtime that clones processes must stay single-threaded.
//! It promises that no wait lasts longer than [`PATIENCE`]. Source: D-Bus specification, "Message Protocol" and "Authentication Protocol".

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;
use zvariant::serialized::{Context, Data};
use zvariant::{
    BE, DynamicType, LE, ObjectPath, OwnedObjectPath, OwnedValue, SerializeValue, Signature, Type, Value,
    to_bytes,
};

use crate::error::{Doing, Error, Kind, Result};

/// How long systemd may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// No message of ours or for us is anywhere near it.
const LONGEST_MESSAGE: usize = 1 << 20;

const AUTHENTICATION: &str = "who we are";
const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
const DBUS: &str = "org.freedesktop.DBus";
const DBUS_PATH: &str = "/org/freedesktop/DBus";

const CALL: u8 = 1;
const REPLY: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;

/// Fixed header and fields of a message.
type Header<V> = (u8, u8, u8, u8, u32, u32, Vec<(u8, V)>);

/// A connection to a systemd manager.
#[derive(Debug)]
pub struct Bus {
    stream: UnixStream,
    socket: PathBuf,
    /// Whether the other end is systemd itself, not a bus.
    direct: bool,
    serial: u32,
    unread: Vec<u8>,
    signals: VecDeque<Message>,
}

#[derive(Debug)]
struct Message {
    kind: u8,
    member: String,
    error: String,
    reply_to: u32,
    body: Vec<u8>,
    signature: String,
    little_endian: bool,
}

/// An error that systemd answered with.
#[derive(Debug)]
pub struct Refusal {
    /// `org.freedesktop.systemd1.UnitExists` …
    pub name: String,
    /// A sentence.
    pub text: String,
}

impl Bus {
    /// Connects to the system's manager, or to that of the user.
    pub fn connect(user: bool) -> Result<Bus> {
        let (private, public) = sockets(user)?;
        match UnixStream::connect(&private) {
            Ok(stream) => Bus::new(stream, private, true),
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::NotFound | ErrorKind::PermissionDenied | ErrorKind::ConnectionRefused
                ) =>
            {
                let stream = UnixStream::connect(&public)
                    .doing(|| format!("connect to systemd at {} or {}", private.display(), public.display()));
                let mut bus = Bus::new(stream.map_err(|error| error.hint(NO_SYSTEMD))?, public, false)?;
                bus.register()?;
                Ok(bus)
            }
            Err(error) => Err(error)
                .doing(|| format!("connect to systemd at {}", private.display()))
                .map_err(|error| error.hint(NO_SYSTEMD)),
        }
    }

    fn new(stream: UnixStream, socket: PathBuf, direct: bool) -> Result<Bus> {
        let mut bus = Bus { stream, socket, direct, serial: 0, unread: Vec::new(), signals: VecDeque::new() };
        // Who we are is what the kernel tells the other end: no uid, which a user namespace would
        // make a wrong one. All lines leave at once, but no call with them: systemd reads it together
        // with the lines, and then waits for more.
        bus.send(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n", AUTHENTICATION)?;
        bus.finish_authentication()?;
        Ok(bus)
    }

    fn send(&mut self, bytes: &[u8], what: &str) -> Result<()> {
        let socket = &self.socket;
        let sent = self.stream.set_write_timeout(Some(PATIENCE)).and_then(|()| self.stream.write_all(bytes));
        sent.doing(|| format!("send {what} to systemd at {}", socket.display()))
    }

    /// A bus wants to be greeted, and to be told which signals to pass on.
    fn register(&mut self) -> Result<()> {
        let rule = "type='signal',interface='org.freedesktop.systemd1.Manager',member='JobRemoved'";
        self.call_on(DBUS, DBUS_PATH, DBUS, "Hello", &())?
            .map_err(|refusal| self.refused("Hello", &refusal))?;
        let answer = self.call_on(DBUS, DBUS_PATH, DBUS, "AddMatch", &(rule,))?;
        answer.map_err(|refusal| self.refused("AddMatch", &refusal))?;
        Ok(())
    }

    /// Calls a method of the manager that gives no value, or whose value does not matter.
    pub fn call<T: Serialize + DynamicType>(
        &mut self,
        method: &str,
        body: &T,
    ) -> Result<Result<(), Refusal>> {
        Ok(self.call_on(SYSTEMD, MANAGER_PATH, MANAGER, method, body)?.map(drop))
    }

    /// Calls a method of the manager that starts a job, and waits until the job is done. The inner
    /// result is the job's: `done`, `failed`, `timeout` …
    pub fn run_job<T: Serialize + DynamicType>(
        &mut self,
        method: &str,
        body: &T,
    ) -> Result<Result<String, Refusal>> {
        let until = Instant::now() + PATIENCE;
        let reply = match self.call_on(SYSTEMD, MANAGER_PATH, MANAGER, method, body)? {
            Ok(reply) => reply,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let job: OwnedObjectPath = decode(&reply, method)?;
        loop {
            let signal = match self.signals.pop_front() {
                Some(signal) => signal,
                None => self.receive(until, method)?,
            };
            if signal.kind == SIGNAL && signal.member == "JobRemoved" {
                let (_, path, _, result): (u32, OwnedObjectPath, String, String) =
                    decode(&signal, "JobRemoved")?;
                if path == job {
                    return Ok(Ok(result));
                }
            }
        }
    }

    fn call_on<T: Serialize + DynamicType>(
        &mut self,
        destination: &str,
        path: &str,
        interface: &str,
        method: &str,
        body: &T,
    ) -> Result<Result<Message, Refusal>> {
        let until = Instant::now() + PATIENCE;
        self.serial += 1;
        let serial = self.serial;
        let message = encode(serial, (!self.direct).then_some(destination), path, interface, method, body)?;
        self.send(&message, method)?;
        loop {
            let answer = self.receive(until, method)?;
            match answer.kind {
                REPLY if answer.reply_to == serial => return Ok(Ok(answer)),
                ERROR if answer.reply_to == serial => {
                    let text = if answer.signature.starts_with('s') {
                        decode(&answer, "an error")?
                    } else {
                        String::new()
                    };
                    return Ok(Err(Refusal { name: answer.error, text }));
                }
                SIGNAL => self.signals.push_back(answer),
                _ => {}
            }
        }
    }

    /// The error of a call that systemd refused.
    pub fn refused(&self, method: &str, refusal: &Refusal) -> Error {
        Error::new(
            Kind::System,
            format!(
                "systemd at {} refused {method}: {} ({})",
                self.socket.display(),
                refusal.text,
                refusal.name
            ),
        )
    }

    /// The next message, whatever it is.
    fn receive(&mut self, until: Instant, method: &str) -> Result<Message> {
        self.fill(16, until, method)?;
        let little_endian = self.unread.first() == Some(&b'l');
        let word = |bytes: &[u8], at: usize| {
            let word =
                bytes.get(at..at + 4).and_then(|word| <[u8; 4]>::try_from(word).ok()).unwrap_or_default();
            if little_endian { u32::from_le_bytes(word) } else { u32::from_be_bytes(word) }
        };
        let (body, fields) = (word(&self.unread, 4) as usize, word(&self.unread, 12) as usize);
        let header = (16 + fields).next_multiple_of(8);
        if body > LONGEST_MESSAGE || fields > LONGEST_MESSAGE {
            return Err(self.garbled(method));
        }
        self.fill(header + body, until, method)?;
        let mut bytes: Vec<u8> = self.unread.drain(..header + body).collect();
        let body = bytes.split_off(header);
        parse(&bytes, body, little_endian).ok_or_else(|| self.garbled(method))
    }

    fn garbled(&self, method: &str) -> Error {
        Error::new(
            Kind::System,
            format!("systemd at {} answered {method} with what is no D-Bus message", self.socket.display()),
        )
    }

    /// The lines before the first message: `DATA` and `OK …`.
    fn finish_authentication(&mut self) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(end) = self.unread.windows(2).position(|pair| pair == b"\r\n") {
                let line: Vec<u8> = self.unread.drain(..end + 2).collect();
                let line = String::from_utf8_lossy(&line);
                if line.starts_with("OK") {
                    return Ok(());
                }
                if !line.starts_with("DATA") {
                    return Err(Error::new(
                        Kind::System,
                        format!(
                            "systemd at {} does not let this user in: {}",
                            self.socket.display(),
                            line.trim_end()
                        ),
                    ));
                }
            } else if self.unread.len() > LONGEST_MESSAGE {
                return Err(self.garbled(AUTHENTICATION));
            } else {
                self.fill(self.unread.len() + 1, until, AUTHENTICATION)?;
            }
        }
    }

    /// Reads until `length` bytes are there.
    fn fill(&mut self, length: usize, until: Instant, method: &str) -> Result<()> {
        let socket = &self.socket;
        let doing = || format!("wait for systemd at {} to answer {method}", socket.display());
        let mut buffer = [0; 4096];
        while self.unread.len() < length {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::new(
                    Kind::System,
                    format!("{}: no answer in {} s", doing(), PATIENCE.as_secs()),
                ));
            }
            self.stream.set_read_timeout(Some(left)).doing(doing)?;
            match self.stream.read(&mut buffer) {
                Ok(0) => {
                    return Err(Error::new(Kind::System, format!("{}: it closed the connection", doing())));
                }
                Ok(count) => self.unread.extend(buffer.iter().take(count)),
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                    ) => {}
                Err(error) => return Err(error).doing(doing),
            }
        }
        Ok(())
    }
}

const NO_SYSTEMD: &str =
    "is systemd running here? Otherwise use the cgroupfs manager (without --systemd-cgroup)";

/// The private socket and that of the bus.
fn sockets(user: bool) -> Result<(PathBuf, PathBuf)> {
    let address = |name: &str| {
        let address = std::env::var(name).ok()?;
        let path = address.split(';').find_map(|address| address.strip_prefix("unix:path="))?;
        Some(PathBuf::from(path.split(',').next()?))
    };
    if !user {
        let public =
            address("DBUS_SYSTEM_BUS_ADDRESS").unwrap_or_else(|| "/run/dbus/system_bus_socket".into());
        return Ok(("/run/systemd/private".into(), public));
    }
    let Some(runtime) = std::env::var_os("XDG_RUNTIME_DIR").filter(|path| Path::new(path).is_absolute())
    else {
        return Err(Error::new(Kind::System, "connect to the user's systemd: XDG_RUNTIME_DIR is not set")
            .hint("log in through systemd-logind (machinectl shell, or loginctl enable-linger)"));
    };
    let runtime = PathBuf::from(runtime);
    let public = address("DBUS_SESSION_BUS_ADDRESS").unwrap_or_else(|| runtime.join("bus"));
    Ok((runtime.join("systemd/private"), public))
}

/// The value of a header field: a variant.
enum Field<'a> {
    Path(ObjectPath<'a>),
    Text(&'a str),
    Signature(Types),
}

/// The types of a body, one after the other: not in the parentheses of a structure, which
/// `zvariant`'s own signatures would get.
struct Types(String);

impl Type for Types {
    const SIGNATURE: &'static Signature = &Signature::Signature;
}

impl Serialize for Types {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl Type for Field<'_> {
    const SIGNATURE: &'static Signature = &Signature::Variant;
}

impl Serialize for Field<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Field::Path(path) => SerializeValue(path).serialize(serializer),
            Field::Text(text) => SerializeValue(text).serialize(serializer),
            Field::Signature(types) => SerializeValue(types).serialize(serializer),
        }
    }
}

fn encode<T: Serialize + DynamicType>(
    serial: u32,
    destination: Option<&str>,
    path: &str,
    interface: &str,
    member: &str,
    body: &T,
) -> Result<Vec<u8>> {
    let wrong =
        |error: zvariant::Error| Error::new(Kind::System, format!("write the D-Bus call {member}: {error}"));
    let context = Context::new_dbus(LE, 0);
    let signature = body.signature();
    let body = to_bytes(context, body).map_err(wrong)?;
    let mut fields = vec![
        (1, Field::Path(ObjectPath::try_from(path).map_err(wrong)?)),
        (2, Field::Text(interface)),
        (3, Field::Text(member)),
    ];
    fields.extend(destination.map(|destination| (6, Field::Text(destination))));
    if signature != Signature::Unit {
        fields.push((8, Field::Signature(Types(signature.to_string_no_parens()))));
    }
    let header: Header<Field<'_>> = (b'l', CALL, 0, 1, body.len() as u32, serial, fields);
    let mut message = to_bytes(context, &header).map_err(wrong)?.to_vec();
    message.resize(message.len().next_multiple_of(8), 0);
    message.extend_from_slice(&body);
    Ok(message)
}

fn parse(header: &[u8], body: Vec<u8>, little_endian: bool) -> Option<Message> {
    let context = Context::new_dbus(if little_endian { LE } else { BE }, 0);
    let data = Data::new(header, context);
    let ((_, kind, _, _, _, _, fields), _): (Header<OwnedValue>, usize) = data.deserialize().ok()?;
    let mut message = Message {
        kind,
        member: String::new(),
        error: String::new(),
        reply_to: 0,
        body,
        signature: String::new(),
        little_endian,
    };
    for (field, value) in fields {
        match (field, &*value) {
            (3, Value::Str(member)) => message.member = member.to_string(),
            (4, Value::Str(name)) => message.error = name.to_string(),
            (5, Value::U32(serial)) => message.reply_to = *serial,
            (8, Value::Signature(signature)) => message.signature = signature.to_string_no_parens(),
            _ => {}
        }
    }
    Some(message)
}

fn decode<T: for<'a> serde::Deserialize<'a> + Type>(message: &Message, what: &str) -> Result<T> {
    let context = Context::new_dbus(if message.little_endian { LE } else { BE }, 0);
    let (value, _) = Data::new(message.body.as_slice(), context)
        .deserialize()
        .map_err(|error| Error::new(Kind::System, format!("read {what} of systemd: {error}")))?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_read_back_as_it_was_written() {
        let bytes = encode(7, Some("a.b"), "/a", "a.b.C", "Do", &("unit", vec![1u32, 2])).unwrap();
        let fields = u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize;
        let header = (16 + fields).next_multiple_of(8);
        let message = parse(&bytes[..header], bytes[header..].to_vec(), true).unwrap();
        assert_eq!((message.kind, message.member.as_str(), message.signature.as_str()), (CALL, "Do", "sau"));
        let raw = bytes.windows(5).any(|window| window == b"\x03sau\0");
        assert!(raw, "the signature is flat: {bytes:?}");
        let body: (String, Vec<u32>) = decode(&message, "a test").unwrap();
        assert_eq!(body, ("unit".to_owned(), vec![1, 2]));
        assert_eq!(u32::from_le_bytes(bytes[4..8].try_into().unwrap()) as usize, message.body.len());
    }

    #[test]
    fn garbage_is_no_message() {
        assert!(
            parse(&[b'l', 2, 0, 1, 255, 255, 255, 255, 0, 0, 0, 0, 9, 9, 9, 9], Vec::new(), true).is_none()
        );
    }
}
