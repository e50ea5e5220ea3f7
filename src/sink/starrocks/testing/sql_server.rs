//! A server that speaks just enough of the MySQL protocol to answer text queries as a test says.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// What the server does with a statement.
pub(in crate::sink::starrocks) enum SqlReply {
    Done,
    Error(u16, &'static str),
    Rows(&'static [&'static str], Vec<Vec<Option<&'static str>>>),
    /// The connection is lost.
    Cut,
}

type Script = dyn Fn(&str) -> SqlReply + Send + Sync;

/// Statements come in at `port`; the login `root` with an empty password is good.
pub(in crate::sink::starrocks) struct SqlServer {
    pub(in crate::sink::starrocks) port: u16,
    seen: Arc<Mutex<Vec<String>>>,
}

impl SqlServer {
    pub(in crate::sink::starrocks) fn start(
        script: impl Fn(&str) -> SqlReply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (log, script): (_, Arc<Script>) = (Arc::clone(&seen), Arc::new(script));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (log, script) = (Arc::clone(&log), Arc::clone(&script));
                thread::spawn(move || serve(Packets::new(stream.unwrap()), &log, script.as_ref()));
            }
        });
        Self { port, seen }
    }

    pub(in crate::sink::starrocks) fn statements(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

fn serve(mut packets: Packets, log: &Mutex<Vec<String>>, script: &Script) -> Option<()> {
    packets.send(&greeting());
    let login = packets.receive()?;
    // Flags, packet size, charset and filler take 32 bytes; then the user, and the length of the proof.
    let root = login.get(32..38)? == b"root\0\0";
    packets.send(&if root { DONE.to_vec() } else { error(1045, "Access denied for user 'x'@'127.0.0.1'") });
    loop {
        packets.sequence = 0;
        let command = packets.receive()?;
        packets.sequence = 1;
        let (QUERY, statement) = command.split_first()? else { return None };
        let statement = String::from_utf8(statement.to_vec()).unwrap();
        log.lock().unwrap().push(statement.clone());
        match script(&statement) {
            SqlReply::Done => packets.send(&DONE),
            SqlReply::Error(code, message) => packets.send(&error(code, message)),
            SqlReply::Rows(columns, rows) => packets.send_rows(columns, &rows),
            SqlReply::Cut => return None,
        }
    }
}

const QUERY: &u8 = &3;
const DONE: [u8; 7] = [0, 0, 0, 2, 0, 0, 0];
const END_OF_ROWS: [u8; 5] = [0xFE, 0, 0, 2, 0];

fn greeting() -> Vec<u8> {
    let mut packet = b"\x0a8.0.33\0\x01\0\0\x00abcdefgh\0".to_vec();
    // Protocol 4.1, transactions, secure connection, plug-in authentication; utf8mb4; autocommit.
    packet.extend([0x01, 0xA2, 45, 2, 0, 0x08, 0, 21]);
    packet.extend([0; 10]);
    packet.extend(b"abcdefghijkl\0mysql_native_password\0");
    packet
}

fn error(code: u16, message: &str) -> Vec<u8> {
    let mut packet = vec![0xFF];
    packet.extend(code.to_le_bytes());
    packet.extend(b"#HY000");
    packet.extend(message.as_bytes());
    packet
}

struct Packets {
    stream: TcpStream,
    sequence: u8,
}

impl Packets {
    const fn new(stream: TcpStream) -> Self {
        Self { stream, sequence: 0 }
    }

    fn send(&mut self, payload: &[u8]) {
        let mut packet = u32::try_from(payload.len()).unwrap().to_le_bytes()[..3].to_vec();
        packet.push(self.sequence);
        packet.extend(payload);
        self.sequence = self.sequence.wrapping_add(1);
        let _ = self.stream.write_all(&packet);
    }

    fn receive(&mut self) -> Option<Vec<u8>> {
        let mut head = [0; 4];
        self.stream.read_exact(&mut head).ok()?;
        self.sequence = head[3].wrapping_add(1);
        let length = u32::from_le_bytes([head[0], head[1], head[2], 0]);
        let mut payload = vec![0; length as usize];
        self.stream.read_exact(&mut payload).ok()?;
        Some(payload)
    }

    fn send_rows(&mut self, columns: &[&str], rows: &[Vec<Option<&str>>]) {
        self.send(&[u8::try_from(columns.len()).unwrap()]);
        for name in columns {
            let mut packet = Vec::new();
            for part in ["def", "", "", "", name, name] {
                push_text(&mut packet, part);
            }
            // Charset, length, VARCHAR, flags, decimals, filler.
            packet.extend([12, 45, 0, 255, 0, 0, 0, 253, 0, 0, 0, 0, 0]);
            self.send(&packet);
        }
        self.send(&END_OF_ROWS);
        for row in rows {
            let mut packet = Vec::new();
            for value in row {
                match value {
                    Some(value) => push_text(&mut packet, value),
                    None => packet.push(0xFB),
                }
            }
            self.send(&packet);
        }
        self.send(&END_OF_ROWS);
    }
}

/// Texts of the tests are shorter than 251 bytes.
fn push_text(packet: &mut Vec<u8>, text: &str) {
    assert!(text.len() < 251);
    packet.push(u8::try_from(text.len()).unwrap());
    packet.extend(text.as_bytes());
}
