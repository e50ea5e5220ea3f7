//! HTTP/1.1 over a socket, as little as the two ports need, with every step in the caller's hand.
//!
//! StarRocks answers before it reads a body, without a `100 Continue`, and closes: a library would smooth that over. Here the
//! head is read, then the caller decides whether the body ever is.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, TcpStream};
use std::ops::Range;

/// Sizes of a request's head that StarRocks' frontend takes.
const MAX_REQUEST_LINE: usize = 4096;
const MAX_HEADERS: usize = 32768;

/// The head of a request.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) method: String,
    /// Path and query as sent.
    pub(crate) target: String,
    /// 0 for HTTP/1.0, 1 for HTTP/1.1.
    pub(crate) minor_version: u8,
    /// Names in lower case, in order of appearance.
    pub(crate) headers: Vec<(String, String)>,
}

impl Head {
    /// The value of a header; the name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }

    /// The path without the query.
    pub(crate) fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// A parameter of the query, percent-decoded.
    pub(crate) fn query(&self, name: &str) -> Option<String> {
        let (_, query) = self.target.split_once('?')?;
        query.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (key == name).then(|| decode(value))
        })
    }

    /// The segments of the path, percent-decoded.
    pub(crate) fn segments(&self) -> Vec<String> {
        self.path().split('/').skip(1).map(decode).collect()
    }

    /// Whether the client waits for `100 Continue` before it sends the body.
    pub(crate) fn expects_continue(&self) -> bool {
        self.minor_version >= 1
            && self.header("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue"))
    }

    /// How the body is framed.
    pub(crate) fn framing(&self) -> Result<Framing, String> {
        if self.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
            return Ok(Framing::Chunked);
        }
        let Some(length) = self.header("content-length") else { return Ok(Framing::Length(0)) };
        length.parse().map(Framing::Length).map_err(|_| format!("bad Content-Length {length}"))
    }
}

/// How a body is framed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Framing {
    Length(u64),
    Chunked,
}

fn decode(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// Why there is no head.
#[derive(Debug)]
pub(crate) enum HeadError {
    /// The client went away, which is how a keep-alive connection ends.
    Closed,
    /// The head cannot be understood or is larger than the limits.
    Bad(String),
}

impl From<io::Error> for HeadError {
    fn from(_: io::Error) -> Self {
        Self::Closed
    }
}

/// What happens to the connection after an answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum After {
    KeepAlive,
    Close,
}

/// An answer, not yet sent.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// Code and reason: `200 OK`.
    pub(crate) status: &'static str,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: String,
    pub(crate) after: After,
}

impl Answer {
    /// An answer with a JSON body on a connection that stays open.
    pub(crate) fn json(status: &'static str, body: String) -> Self {
        let headers = vec![("Content-Type", "application/json".to_owned())];
        Self { status, headers, body, after: After::KeepAlive }
    }

    /// The same answer, after which the connection ends.
    pub(crate) fn closing(mut self) -> Self {
        self.after = After::Close;
        self
    }
}

/// A connection from a client, with what was read from it and not yet used.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    unread: Range<usize>,
}

impl Connection {
    /// Takes over an accepted socket.
    pub(crate) fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: vec![0; 64 << 10], unread: 0..0 })
    }

    /// The socket, for timeouts.
    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// The client's address, as it appears in messages.
    pub(crate) fn peer(&self) -> String {
        self.stream.peer_addr().map_or_else(
            |_| "unknown".into(),
            |peer| match peer.ip() {
                IpAddr::V4(ip) => ip.to_string(),
                IpAddr::V6(ip) => ip.to_string(),
            },
        )
    }

    /// Waits for the head of the next request.
    pub(crate) fn read_head(&mut self) -> Result<Head, HeadError> {
        loop {
            if let Some(head) = self.parse_head()? {
                return Ok(head);
            }
            if self.unread.len() > MAX_REQUEST_LINE + MAX_HEADERS {
                return Err(HeadError::Bad("request head is too large".into()));
            }
            if self.fill()? == 0 {
                return Err(HeadError::Closed);
            }
        }
    }

    fn parse_head(&mut self) -> Result<Option<Head>, HeadError> {
        let mut headers = [httparse::EMPTY_HEADER; 128];
        let mut request = httparse::Request::new(&mut headers);
        let bytes = &self.buffer[self.unread.clone()];
        let length = match request.parse(bytes) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(error) => return Err(HeadError::Bad(error.to_string())),
        };
        let line = bytes.iter().position(|byte| *byte == b'\n').unwrap_or_default();
        if line > MAX_REQUEST_LINE || length - line > MAX_HEADERS {
            return Err(HeadError::Bad("request head is too large".into()));
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let head = Head {
            method: request.method.unwrap_or_default().into(),
            target: request.path.unwrap_or_default().into(),
            minor_version: request.version.unwrap_or(1),
            headers: request.headers.iter().map(|h| (h.name.to_ascii_lowercase(), text(h.value))).collect(),
        };
        self.unread.start += length;
        Ok(Some(head))
    }

    /// Reads more into the buffer; returns how many bytes came.
    fn fill(&mut self) -> io::Result<usize> {
        if self.unread.start > 0 {
            self.buffer.copy_within(self.unread.clone(), 0);
            self.unread = 0..self.unread.len();
        }
        if self.unread.end == self.buffer.len() {
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
        let count = self.stream.read(&mut self.buffer[self.unread.end..])?;
        self.unread.end += count;
        Ok(count)
    }

    /// Takes buffered bytes, or reads from the socket straight into `out`.
    fn read_some(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.unread.is_empty() {
            return self.stream.read(out);
        }
        let count = self.unread.len().min(out.len());
        let from = self.unread.start;
        out[..count].copy_from_slice(&self.buffer[from..from + count]);
        self.unread.start += count;
        Ok(count)
    }

    /// Tells the client to go on with the body.
    pub(crate) fn send_continue(&mut self) -> io::Result<()> {
        self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")
    }

    /// Reads a whole body into `out`, which only ever grows; returns its length.
    ///
    /// Fewer bytes than announced are an error of kind `UnexpectedEof`.
    pub(crate) fn read_body(&mut self, framing: Framing, out: &mut Vec<u8>) -> io::Result<usize> {
        match framing {
            Framing::Length(length) => {
                let length = usize::try_from(length).map_err(|_| io::ErrorKind::InvalidData)?;
                if out.len() < length {
                    out.resize(length, 0);
                }
                self.read_exact(&mut out[..length])?;
                Ok(length)
            }
            Framing::Chunked => self.read_chunks(out),
        }
    }

    fn read_exact(&mut self, mut out: &mut [u8]) -> io::Result<()> {
        while !out.is_empty() {
            let count = self.read_some(out)?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            out = &mut out[count..];
        }
        Ok(())
    }

    fn read_chunks(&mut self, out: &mut Vec<u8>) -> io::Result<usize> {
        let mut total = 0;
        loop {
            let line = self.read_line()?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).map_err(|_| io::ErrorKind::InvalidData)?;
            if size == 0 {
                while !self.read_line()?.is_empty() {}
                return Ok(total);
            }
            if out.len() < total + size {
                out.resize(total + size, 0);
            }
            self.read_exact(&mut out[total..total + size])?;
            total += size;
            self.read_line()?;
        }
    }

    fn read_line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        let mut byte = [0];
        loop {
            self.read_exact(&mut byte)?;
            match byte {
                [b'\n'] => return Ok(String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned()),
                [byte] => line.push(byte),
            }
        }
    }

    /// Sends an answer.
    pub(crate) fn send(&mut self, answer: &Answer) -> io::Result<()> {
        let mut head = format!("HTTP/1.1 {}\r\n", answer.status);
        for (name, value) in &answer.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if answer.after == After::Close {
            head.push_str("Connection: close\r\n");
        }
        head.push_str(&format!("Content-Length: {}\r\n\r\n", answer.body.len()));
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(answer.body.as_bytes());
        self.stream.write_all(&bytes)
    }

    /// Ends the connection after an answer that came before the body: what was announced is still taken off the wire, so
    /// that the answer is not lost in a reset.
    pub(crate) fn close_after_early_answer(mut self, framing: Framing) {
        let Framing::Length(length) = framing else { return };
        let _ = self.stream.shutdown(Shutdown::Write);
        let _ = self.stream.set_read_timeout(Some(std::time::Duration::from_secs(10)));
        let mut left = length;
        let mut sink = vec![0; 64 << 10];
        while left > 0 {
            match self.read_some(&mut sink) {
                Ok(0) | Err(_) => return,
                Ok(count) => left = left.saturating_sub(count as u64),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(target: &str, headers: &[(&str, &str)]) -> Head {
        Head {
            method: "PUT".into(),
            target: target.into(),
            minor_version: 1,
            headers: headers.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect(),
        }
    }

    #[test]
    fn names_in_the_path_are_percent_decoded() {
        let head = head("/api/sh%20op/a%2Fb/_stream_load?label=x%2Dy", &[]);
        assert_eq!(head.segments(), ["api", "sh op", "a/b", "_stream_load"]);
        assert_eq!(head.query("label").as_deref(), Some("x-y"));
    }

    #[test]
    fn expect_is_compared_without_case_and_exactly() {
        assert!(head("/", &[("expect", "100-Continue")]).expects_continue());
        assert!(!head("/", &[("expect", "100")]).expects_continue());
    }

    #[test]
    fn chunked_wins_over_a_length() {
        let both = head("/", &[("content-length", "3"), ("transfer-encoding", "chunked")]);
        assert_eq!(both.framing(), Ok(Framing::Chunked));
        assert!(head("/", &[("content-length", "x")]).framing().is_err());
    }
}
