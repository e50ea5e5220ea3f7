//! A client that streams from a logical slot and never confirms anything.
//!
//! By hand, because no client library of the tests speaks the replication protocol: a login without a password, one
//! command, and then nothing is said any more.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use super::{Cluster, Failure, Outcome};

/// Has the slot until it is dropped.
pub(crate) struct SlotConsumer {
    _stream: TcpStream,
}

impl SlotConsumer {
    /// Takes the slot. The database has had a publication `nothing` since before the slot.
    ///
    /// # Errors
    ///
    /// When the server refuses.
    pub(crate) fn start(cluster: &Cluster, database: &str, slot: &str) -> Outcome<Self> {
        let mut stream = TcpStream::connect(("127.0.0.1", cluster.port()))?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let parameters = format!("user\0postgres\0database\0{database}\0replication\0database\0\0");
        let mut startup = 196_608_u32.to_be_bytes().to_vec();
        startup.extend(parameters.as_bytes());
        stream.write_all(&framed(&startup)?)?;
        while message(&mut stream)? != b'Z' {}
        let command = format!(
            "START_REPLICATION SLOT \"{slot}\" LOGICAL 0/0 (proto_version '1', publication_names 'nothing')\0"
        );
        stream.write_all(b"Q")?;
        stream.write_all(&framed(command.as_bytes())?)?;
        // `CopyBothResponse`.
        while message(&mut stream)? != b'W' {}
        Ok(Self { _stream: stream })
    }
}

/// With its length in front, which counts itself.
fn framed(body: &[u8]) -> Outcome<Vec<u8>> {
    let mut framed = u32::try_from(body.len() + 4)?.to_be_bytes().to_vec();
    framed.extend(body);
    Ok(framed)
}

/// Reads a message; returns its kind.
fn message(stream: &mut TcpStream) -> Outcome<u8> {
    let mut head = [0; 5];
    stream.read_exact(&mut head)?;
    let [kind, length @ ..] = head;
    let mut body = vec![0; usize::try_from(u32::from_be_bytes(length))?.saturating_sub(4)];
    stream.read_exact(&mut body)?;
    if kind == b'E' {
        return Err(Failure::new(format!("the server refused: {}", String::from_utf8_lossy(&body))));
    }
    Ok(kind)
}
