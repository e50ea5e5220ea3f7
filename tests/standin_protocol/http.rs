//! HTTP by hand: what is sent and what comes back, byte by byte.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A response as it came.
#[derive(Debug)]
pub(crate) struct Response {
    /// The status line.
    pub(crate) status: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
    /// Whether `100 Continue` came before it.
    pub(crate) continued: bool,
}

impl Response {
    /// A header's value.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(header, _)| header.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

/// A connection with a limit on every wait.
pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

/// Sends a request on a connection of its own; returns the response.
pub(crate) fn exchange(address: SocketAddr, head: &str, body: &[u8]) -> Response {
    let mut stream = connect(address);
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    read_response(&mut stream).expect("a response")
}

/// Reads one response; `None` if the connection ends before it.
pub(crate) fn read_response(stream: &mut TcpStream) -> Option<Response> {
    let mut head = read_head(stream)?;
    let continued = head.starts_with("HTTP/1.1 100 ");
    if continued {
        head = read_head(stream)?;
    }
    let mut lines = head.lines();
    let status = lines.next()?.to_owned();
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let mut response = Response { status, headers, body: String::new(), continued };
    let length = response.header("Content-Length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    response.body = String::from_utf8(body).unwrap();
    Some(response)
}

/// Reads up to the empty line.
pub(crate) fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    Some(String::from_utf8(head).unwrap())
}

/// Whether the server has ended the connection without another byte.
pub(crate) fn is_closed(stream: &mut TcpStream) -> bool {
    matches!(stream.read(&mut [0]), Ok(0))
}
