//! The backend's HTTP port: takes loads.

use std::net::TcpStream;

use crate::http::{After, Answer, Connection, Framing, Head, HeadError};
use crate::load::{self, Ending, Scratch};
use crate::request_log::Entry;
use crate::server::{Shared, lock};

/// Serves one connection until one side ends it.
pub(crate) fn serve(shared: &Shared, stream: TcpStream) {
    let Ok(connection) = Connection::new(stream) else { return };
    let mut scratch = lock(&shared.scratch).pop().unwrap_or_default();
    serve_with(shared, connection, &mut scratch);
    lock(&shared.scratch).push(scratch);
}

fn serve_with(shared: &Shared, mut connection: Connection, scratch: &mut Scratch) {
    loop {
        let head = match connection.read_head() {
            Ok(head) => head,
            Err(HeadError::Closed) => return,
            Err(HeadError::Bad(message)) => {
                let _ = connection.send(&text("400 Bad Request", message).closing());
                return;
            }
        };
        let Ok(framing) = head.framing() else {
            let _ = connection.send(&text("400 Bad Request", "bad Content-Length".into()).closing());
            return;
        };
        let segments = head.segments();
        let path: Vec<&str> = segments.iter().map(String::as_str).collect();
        match (head.method.as_str(), path.as_slice()) {
            ("PUT", ["api", database, table, "_stream_load"]) => {
                let request = load::Request { head: &head, framing, database, table };
                match load::answer(shared, &mut connection, &request, scratch) {
                    Ending::Answered(After::KeepAlive) => {}
                    Ending::Answered(After::Close) | Ending::Cut => return,
                    Ending::RefusedEarly => {
                        connection.close_after_early_answer(framing);
                        return;
                    }
                }
            }
            _ => {
                if answer_other(shared, &mut connection, &head, framing, &path) == After::Close {
                    return;
                }
            }
        }
    }
}

fn answer_other(
    shared: &Shared,
    connection: &mut Connection,
    head: &Head,
    framing: Framing,
    path: &[&str],
) -> After {
    let mut answer = match (head.method.as_str(), path) {
        ("GET", ["api", "_load_error_log"]) => {
            match head.query("file").and_then(|file| shared.error_log.find(&file)) {
                Some(samples) => text("200 OK", samples),
                None => text("500 Internal Server Error", "file does not exist".into()),
            }
        }
        _ => text("404 Not Found", "Not Found".into()),
    };
    if framing != Framing::Length(0) {
        answer = answer.closing();
    }
    shared.requests.add(Entry::new("be", head, 0, answer.status, &answer.body));
    match connection.send(&answer) {
        Ok(()) => answer.after,
        Err(_) => After::Close,
    }
}

fn text(status: &'static str, body: String) -> Answer {
    Answer { status, headers: vec![("Content-Type", "text/plain".into())], body, after: After::KeepAlive }
}
