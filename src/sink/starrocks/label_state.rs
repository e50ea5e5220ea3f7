//! What the frontends know about a label.

use super::answer::{StateAnswer, message_of};
use super::exchange::{Asked, Endpoints, Role};
use super::http::{Answer, Failure, Headers, Http};
use super::url::{Url, cancel_path, state_path};

/// The state of the last transaction that had a label.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum LabelState {
    /// Running.
    Prepare,
    /// Done, not yet visible.
    Committed,
    /// Done and visible.
    Visible,
    /// Failed.
    Aborted,
    /// None, or forgotten.
    Unknown,
}

/// Why no frontend told.
#[derive(Debug)]
pub(super) enum Untold {
    /// Every load URL is a backend.
    NoFrontend,
    /// The login was refused.
    Credentials(String),
    /// Nobody answered, or not sensibly.
    Trouble(String),
}

/// Asks every frontend in turn until one tells.
pub(super) fn ask(
    http: &Http,
    endpoints: &mut Endpoints,
    login: &Headers,
    database: &str,
    label: &str,
) -> Result<LabelState, Untold> {
    let path = state_path(database, label);
    each_frontend(http, endpoints, login, |base| {
        let answer = follow(&Url { base: base.to_owned(), path: path.clone() }, |url| http.get(url, login));
        read_state(answer.map_err(|failure| Untold::Trouble(failure.to_string()))?)
    })
}

/// Asks for a running load to be aborted. Whether it was is for the next [`ask`] to find out.
pub(super) fn cancel(
    http: &Http,
    endpoints: &mut Endpoints,
    login: &Headers,
    database: &str,
    label: &str,
) -> Result<(), Untold> {
    let path = cancel_path(database, label);
    each_frontend(http, endpoints, login, |base| {
        let url = Url { base: base.to_owned(), path: path.clone() };
        let answer = follow(&url, |url| http.post_empty(url, login));
        let answer = answer.map_err(|failure| Untold::Trouble(failure.to_string()))?;
        match answer.status {
            401 => Err(Untold::Credentials(message_of(&answer.body))),
            _ => Ok(()),
        }
    })
}

fn each_frontend<T>(
    http: &Http,
    endpoints: &mut Endpoints,
    login: &Headers,
    mut question: impl FnMut(&str) -> Result<T, Untold>,
) -> Result<T, Untold> {
    let mut failures = Vec::new();
    for (_, base) in endpoints.in_order() {
        match endpoints.role(http, &base, login, Asked::First) {
            Ok(Role::Backend) => continue,
            Err(reason) => {
                failures.push(reason);
                continue;
            }
            Ok(Role::Frontend) => {}
        }
        match question(&base) {
            Err(Untold::Trouble(reason)) => failures.push(format!("\"{base}\": {reason}")),
            told => return told,
        }
    }
    if failures.is_empty() {
        return Err(Untold::NoFrontend);
    }
    Err(Untold::Trouble(format!("could not ask for a label at {}", failures.join(", "))))
}

/// Followers send us to the leader. The login goes along: the leader is part of the same StarRocks.
fn follow(start: &Url, mut request: impl FnMut(&str) -> Result<Answer, Failure>) -> Result<Answer, Failure> {
    let mut at = start.clone();
    for _ in 0..MAX_HOPS {
        let answer = request(&at.text())?;
        let next = answer.location.as_deref().filter(|_| answer.is_redirect());
        match next.and_then(|location| Url::from_location(location, &at.base)) {
            Some(url) => at = url,
            None => return Ok(answer),
        }
    }
    Err(Failure::NotSent(format!("more than {MAX_HOPS} redirects")))
}

fn read_state(answer: Answer) -> Result<LabelState, Untold> {
    if answer.status == 401 {
        return Err(Untold::Credentials(message_of(&answer.body)));
    }
    let senseless = || Untold::Trouble(format!("the answer was {}", answer.summary()));
    let state = StateAnswer::parse(&answer.body).ok_or_else(senseless)?;
    match state.state.as_deref() {
        Some("PREPARE" | "PREPARED") => Ok(LabelState::Prepare),
        Some("COMMITTED") => Ok(LabelState::Committed),
        Some("VISIBLE") => Ok(LabelState::Visible),
        Some("ABORTED") => Ok(LabelState::Aborted),
        Some("UNKNOWN") => Ok(LabelState::Unknown),
        // A database that is not there has no labels.
        None if is_unknown_database(&state) => Ok(LabelState::Unknown),
        _ => Err(senseless()),
    }
}

fn is_unknown_database(state: &StateAnswer) -> bool {
    let message = state.message.to_ascii_lowercase();
    state.status.eq_ignore_ascii_case("FAILED") && message.contains("unknown database")
}

const MAX_HOPS: usize = 5;
