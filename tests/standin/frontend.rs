//! The frontend's HTTP port: redirects loads, knows labels, never takes data.

use std::net::TcpStream;

use crate::answer::json_text;
use crate::auth::Refusal;
use crate::faults::{Fault, GARBAGE, Kind};
use crate::http::{After, Answer, Connection, Framing, Head, HeadError};
use crate::request_log::Entry;
use crate::server::Shared;

/// Serves one connection until one side ends it.
pub(crate) fn serve(shared: &Shared, stream: TcpStream) {
    let Ok(mut connection) = Connection::new(stream) else { return };
    loop {
        let head = match connection.read_head() {
            Ok(head) => head,
            Err(HeadError::Closed) => return,
            Err(HeadError::Bad(message)) => {
                let headers = vec![("Content-Type", "text/html".to_owned())];
                let answer =
                    Answer { status: "400 Bad Request", headers, body: message, after: After::Close };
                let _ = connection.send(&answer);
                return;
            }
        };
        if answer_one(shared, &mut connection, &head) == After::Close {
            return;
        }
    }
}

fn answer_one(shared: &Shared, connection: &mut Connection, head: &Head) -> After {
    let segments = head.segments();
    let path: Vec<&str> = segments.iter().map(String::as_str).collect();
    if let ["standin", command] = path.as_slice() {
        return crate::control::answer(shared, connection, head, command);
    }
    let is_load = matches!(path.as_slice(), ["api", _, _, "_stream_load"]);
    let mut answer = route(shared, &connection.peer(), head, &path);
    // A body that is not read ends the connection: of a load always, of anything else when there is one.
    if is_load || head.framing() != Ok(Framing::Length(0)) {
        answer = answer.closing();
    }
    shared.requests.add(Entry::new("fe", head, 0, answer.status, &answer.body));
    match connection.send(&answer) {
        Ok(()) => answer.after,
        Err(_) => After::Close,
    }
}

fn route(shared: &Shared, peer: &str, head: &Head, path: &[&str]) -> Answer {
    match (head.method.as_str(), path) {
        ("PUT", ["api", database, table, "_stream_load"]) => {
            guarded(shared, peer, head, || load(shared, head, database, table))
        }
        ("GET", ["api", database, "get_load_state"]) => {
            guarded(shared, peer, head, || load_state(shared, head, database))
        }
        ("POST", ["api", database, _, "_cancel"]) => {
            guarded(shared, peer, head, || cancel(shared, head, database))
        }
        _ => Answer {
            status: "404 Not Found",
            headers: vec![("Content-Type", "text/html".into())],
            body: "Not Found".into(),
            after: After::KeepAlive,
        },
    }
}

/// Answers for whoever logs in.
fn guarded(shared: &Shared, peer: &str, head: &Head, answer: impl FnOnce() -> Answer) -> Answer {
    let at_frontend = |fault: &Fault| fault.text() == Some("fe");
    if shared.faults.strike_if(Kind::Http500, "", at_frontend).is_some() {
        return failed("500 Internal Server Error", "null");
    }
    let message = match shared.check_login(head.header("authorization")) {
        Ok(()) => {
            let mut answer = answer();
            if shared.faults.strike_if(Kind::GarbageAnswer, "", at_frontend).is_some() {
                answer = Answer::json("200 OK", GARBAGE.into());
            }
            return answer;
        }
        Err(Refusal::Missing) => "Need auth information.".to_owned(),
        Err(Refusal::Denied { user }) => format!("Access denied for {user}@{peer}"),
    };
    let mut answer = failed("401 Unauthorized", &message);
    // The body is JSON all the same.
    answer.headers =
        vec![("Content-Type", "text/html".into()), ("WWW-Authenticate", "Basic realm=\"\"".into())];
    answer
}

/// The lower-case form of a failure.
fn failed(status: &'static str, message: &str) -> Answer {
    let text = json_text(message);
    Answer::json(
        status,
        format!("{{\"status\":\"FAILED\",\"code\":\"1\",\"msg\":{text},\"message\":{text}}}"),
    )
}

/// The upper-case form of a failure, for loads.
fn load_failed(message: &str) -> Answer {
    let text = json_text(&format!("class com.starrocks.common.DdlException: {message}"));
    Answer::json("200 OK", format!("{{\"Status\":\"FAILED\",\"Message\":{text}}}"))
}

fn load(shared: &Shared, head: &Head, database: &str, table: &str) -> Answer {
    if head.minor_version >= 1 && !head.expects_continue() {
        return load_failed("There is no 100-continue header");
    }
    if database.is_empty() {
        return load_failed("No database selected.");
    }
    if table.is_empty() {
        return load_failed("No table selected.");
    }
    if shared.faults.strike(Kind::NoBackend, table).is_some() {
        return load_failed("No backend alive.");
    }
    let host = match shared.faults.strike(Kind::RedirectDeadHost, table) {
        // Nobody listens on port 1.
        Some(fault) => fault.text().unwrap_or("127.0.0.1:1").to_owned(),
        None if shared.faults.strike(Kind::RedirectLoop, table).is_some() => {
            format!("127.0.0.1:{}", shared.ports.fe)
        }
        None => format!("127.0.0.1:{}", shared.ports.be),
    };
    Answer {
        status: "307 Temporary Redirect",
        headers: vec![("Location", format!("http://{host}{}", head.target))],
        body: String::new(),
        after: After::Close,
    }
}

fn load_state(shared: &Shared, head: &Head, database: &str) -> Answer {
    let Some(label) = head.query("label").filter(|label| !label.is_empty()) else {
        return failed("200 OK", "No label selected.");
    };
    if !shared.storage.lock().catalog.databases.contains_key(database) {
        return failed("200 OK", &format!("unknown database, database={database}"));
    }
    const OK: &str = "\"status\":\"OK\",\"code\":\"0\",\"msg\":\"Success\",\"message\":\"OK\"";
    let body = match shared.labels.find(database, &label) {
        Some((state, reason)) => {
            format!("{{\"state\":\"{}\",\"reason\":{},{OK}}}", state.name(), json_text(&reason))
        }
        None => format!("{{\"state\":\"UNKNOWN\",{OK}}}"),
    };
    Answer::json("200 OK", body)
}

fn cancel(shared: &Shared, head: &Head, database: &str) -> Answer {
    let label = head.query("label").unwrap_or_default();
    match shared.labels.cancel(database, &label) {
        Ok(()) => Answer::json(
            "200 OK",
            "{\"status\":\"OK\",\"code\":\"0\",\"msg\":\"Success\",\"message\":\"OK\"}".into(),
        ),
        Err(message) => failed("200 OK", &message),
    }
}
