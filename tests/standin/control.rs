//! The tests' own door, on the frontend's port under `/standin/`.
//!
//! | request | does |
//! |---|---|
//! | `GET /standin/log` | every request so far, with its answer |
//! | `GET /standin/counts` | loads, rows, upserts, deletes and bytes per table, and in total |
//! | `GET /standin/arrivals` | with `--arrivals on`: when the last byte of each load came, and the keys in it |
//! | `GET /standin/labels` | every transaction that is remembered |
//! | `GET`, `POST`, `DELETE /standin/fault` | lists, arms, clears faults |
//! | `POST /standin/reset` | clears log, counts, arrivals, faults and labels; tables stay |
//! | `POST /standin/label_keep` `{"max": n}` | sets `label_keep_max_num` |
//! | `POST /standin/running_limit` `{"max": n}` | sets `max_running_txn_num_per_db` |
//! | `POST /standin/password` `{"password": "…"}` | changes the password |

use serde_json::{Value, json};

use crate::faults::{Fault, Kind};
use crate::http::{After, Answer, Connection, Head};
use crate::server::{Shared, lock};

/// Answers one request.
pub(crate) fn answer(shared: &Shared, connection: &mut Connection, head: &Head, command: &str) -> After {
    let mut body = Vec::new();
    let read =
        head.framing().map_err(|_| ()).and_then(|f| connection.read_body(f, &mut body).map_err(|_| ()));
    let Ok(length) = read else { return After::Close };
    body.truncate(length);
    let answer = match run(shared, &head.method, command, &body) {
        Ok(value) => Answer::json("200 OK", value.to_string()),
        Err(message) => Answer::json("400 Bad Request", json!({ "error": message }).to_string()),
    };
    match connection.send(&answer) {
        Ok(()) => After::KeepAlive,
        Err(_) => After::Close,
    }
}

fn run(shared: &Shared, method: &str, command: &str, body: &[u8]) -> Result<Value, String> {
    let done = json!({ "ok": true });
    match (method, command) {
        ("GET", "log") => return Ok(shared.requests.to_json()),
        ("GET", "counts") => return Ok(shared.counts.to_json()),
        ("GET", "arrivals") => return Ok(shared.arrivals.to_json()),
        ("GET", "labels") => return Ok(json!({ "transactions": shared.labels.list() })),
        ("GET", "fault") => return Ok(json!({ "faults": shared.faults.list() })),
        ("POST", "fault") => arm(shared, serde_json::from_slice(body).map_err(|error| error.to_string())?),
        ("DELETE", "fault") => shared.faults.clear(),
        ("POST", "label_keep") => shared.labels.keep_at_most(maximum(body)?),
        ("POST", "running_limit") => shared.labels.run_at_most(maximum(body)?),
        ("POST", "password") => {
            let document: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
            let password = document["password"].as_str().ok_or("password is missing")?;
            password.clone_into(&mut lock(&shared.password));
        }
        ("POST", "reset") => {
            shared.faults.clear();
            shared.requests.clear();
            shared.counts.clear();
            shared.arrivals.clear();
            shared.labels.clear();
        }
        _ => return Err(format!("there is no {method} /standin/{command}")),
    }
    Ok(done)
}

fn maximum(body: &[u8]) -> Result<usize, String> {
    let document: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let max = document["max"].as_u64().and_then(|max| usize::try_from(max).ok());
    max.ok_or_else(|| "max is missing".into())
}

fn arm(shared: &Shared, fault: Fault) {
    match fault.kind {
        Kind::Restart => {
            shared.labels.restart();
            shared.cut_backend_connections();
        }
        Kind::CloseBe => {
            shared.faults.arm(fault);
            shared.cut_backend_connections();
            shared.wake_backend_listener();
        }
        _ => shared.faults.arm(fault),
    }
}
