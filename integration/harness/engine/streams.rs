//! The streams of CRI's exec, attach and port-forward, over a websocket: binary frames, of which the first byte is the
//! number of the channel.
//!
//! Source: Kubernetes' subprotocol `v4.channel.k8s.io`.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use tungstenite::client::IntoClientRequest;
use tungstenite::{Message, WebSocket};

/// Where standard input is written; the data of a forwarded port.
pub const INPUT: u8 = 0;
/// Where standard output is read.
pub const OUTPUT: u8 = 1;
/// Where standard error is read.
pub const ERRORS: u8 = 2;
/// Where the end is told, as JSON.
pub const RESULT: u8 = 3;

/// A connection.
pub struct Streams {
    socket: WebSocket<TcpStream>,
    read: [Vec<u8>; 5],
}

impl Streams {
    /// Connects to an address that the daemon gave, such as `http://127.0.0.1:36225/exec/…`.
    pub fn connect(url: &str) -> Self {
        let rest = url.strip_prefix("http://").unwrap_or_else(|| panic!("not an address of streams: {url}"));
        let host = rest.split('/').next().unwrap_or_default();
        let stream = TcpStream::connect(host).unwrap_or_else(|error| panic!("connect to {host}: {error}"));
        stream.set_read_timeout(Some(Duration::from_millis(200))).expect("a limit for reading");
        let mut request = format!("ws://{rest}").into_client_request().expect("a request");
        let protocol = "v4.channel.k8s.io".parse().expect("a header");
        request.headers_mut().insert("Sec-WebSocket-Protocol", protocol);
        let mut result = tungstenite::client(request, stream);
        let (socket, _) = loop {
            match result {
                Ok(connected) => break connected,
                // The limit for reading, which is short.
                Err(tungstenite::HandshakeError::Interrupted(middle)) => result = middle.handshake(),
                Err(error) => panic!("websocket at {url}: {error}"),
            }
        };
        Self { socket, read: Default::default() }
    }

    /// Writes to a channel.
    pub fn write(&mut self, channel: u8, bytes: &[u8]) {
        let frame = [&[channel], bytes].concat();
        self.socket.send(Message::binary(frame)).expect("writing to a websocket");
    }

    /// Says that nobody writes any more.
    pub fn close(&mut self) {
        let _ = self.socket.close(None);
    }

    /// What has been read from a channel.
    pub fn text(&self, channel: u8) -> String {
        self.read
            .get(usize::from(channel))
            .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
            .unwrap_or_default()
    }

    /// Reads until a channel has this in it, or until the other side has closed when it is empty.
    #[track_caller]
    pub fn read_until(&mut self, channel: u8, part: &str) -> String {
        let end = Instant::now() + Duration::from_secs(30);
        while part.is_empty() || !self.text(channel).contains(part) {
            assert!(Instant::now() < end, "no {part:?} on channel {channel}; read: {:?}", self.read);
            match self.socket.read() {
                Ok(Message::Binary(frame)) => {
                    if let Some((&channel, bytes)) = frame.split_first()
                        && let Some(read) = self.read.get_mut(usize::from(channel))
                    {
                        read.extend_from_slice(bytes);
                    }
                }
                Ok(Message::Close(_))
                | Err(tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed) => {
                    assert!(
                        part.is_empty(),
                        "closed before {part:?} on channel {channel}; read: {:?}",
                        self.read
                    );
                    break;
                }
                Err(tungstenite::Error::Io(error))
                    if matches!(
                        error.kind(),
                        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                    ) => {}
                Err(_) if part.is_empty() => break,
                Err(error) => panic!("reading a websocket: {error}; read: {:?}", self.read),
                Ok(_) => {}
            }
        }
        self.text(channel)
    }
}
