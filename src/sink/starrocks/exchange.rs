//! One attempt to bring a load to a backend.
//!
//! ```text
//! PUT frontend, Expect, no body ──► 307 Location ──► PUT backend, the whole body, no Expect ──► Status
//! ```
//!
//! A frontend takes no body and a backend must not get a load without one, because it would begin the transaction. So
//! each endpoint is asked once what it is: a frontend knows the path of label states, a backend does not. That also
//! covers a backend that is named directly, and a follower that sends us to its leader.
//!
//! Frontends are tried in order, beginning with the one that answered last. Called by the sink's retry loop.

use std::collections::HashMap;

use super::answer::{LoadAnswer, message_of};
use super::http::{Answer, Failure, Headers, Http};
use super::url::{Url, state_path};

/// How an attempt ended.
#[derive(Debug)]
pub(super) enum Attempt {
    /// With an answer that says what became of the load.
    Answered {
        answer: LoadAnswer,
        /// Who answered: a frontend has not seen the label.
        by: Role,
    },
    /// The login was refused.
    Credentials(String),
    /// No backend has seen the label.
    NotBegun(String),
    /// A backend may have seen the load, and its answer is not known.
    Unknown(String),
}

/// What an endpoint is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Role {
    /// Redirects loads, knows labels.
    Frontend,
    /// Takes loads.
    Backend,
}

/// Why an endpoint is asked what it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Asked {
    /// It is one of the load URLs.
    First,
    /// A frontend has redirected us to it.
    AfterRedirect,
}

/// The endpoints of one StarRocks, as far as they are known.
pub(super) struct Endpoints {
    load_urls: Vec<String>,
    backend_host: Option<String>,
    database: String,
    roles: HashMap<String, Role>,
    /// Index of the load URL that answered last.
    preferred: usize,
}

/// A load, ready to be sent.
pub(super) struct Request<'a> {
    pub(super) path: &'a str,
    pub(super) headers: &'a Headers,
    pub(super) body: &'a [u8],
}

impl Endpoints {
    pub(super) fn new(load_urls: Vec<String>, backend_host: Option<String>, database: String) -> Self {
        Self { load_urls, backend_host, database, roles: HashMap::new(), preferred: 0 }
    }

    /// Sends a load by the first endpoint that takes it.
    pub(super) fn put(&mut self, http: &Http, request: &Request<'_>) -> Attempt {
        let mut failures = Vec::new();
        for (index, url) in self.in_order() {
            match self.put_by(http, &url, request) {
                Attempt::NotBegun(reason) => failures.push(format!("\"{url}\": {reason}")),
                attempt => {
                    self.preferred = index;
                    return attempt;
                }
            }
        }
        Attempt::NotBegun(format!("could not reach StarRocks at {}", failures.join(", ")))
    }

    /// The load URLs, beginning with the one that answered last.
    pub(super) fn in_order(&self) -> Vec<(usize, String)> {
        let all = self.load_urls.iter().cloned().enumerate();
        let mut order: Vec<_> = all.collect();
        order.rotate_left(self.preferred);
        order
    }

    fn put_by(&mut self, http: &Http, load_url: &str, request: &Request<'_>) -> Attempt {
        let mut at = Url { base: load_url.to_owned(), path: request.path.to_owned() };
        for hop in 0..MAX_HOPS {
            let asked = if hop == 0 { Asked::First } else { Asked::AfterRedirect };
            let role = match self.role(http, &at.base, request.headers, asked) {
                Ok(role) => role,
                Err(reason) => return Attempt::NotBegun(reason),
            };
            let hop = match role {
                Role::Frontend => ask(http, &at, request),
                Role::Backend => send(http, &at, request),
            };
            match hop {
                Hop::Ended(attempt) => {
                    if matches!(attempt, Attempt::Unknown(_) | Attempt::NotBegun(_)) {
                        self.roles.remove(&at.base);
                    }
                    return attempt;
                }
                Hop::Redirected(location) => {
                    // Only a frontend redirects.
                    self.roles.insert(at.base.clone(), Role::Frontend);
                    let Some(next) = self.resolve(&location, &at.base) else {
                        return Attempt::NotBegun(format!("redirect to \"{location}\", which is no address"));
                    };
                    at = next;
                }
            }
        }
        Attempt::NotBegun(format!("more than {MAX_HOPS} redirects"))
    }

    /// What an endpoint is; asked at most once as long as it answers.
    pub(super) fn role(
        &mut self,
        http: &Http,
        base: &str,
        headers: &Headers,
        asked: Asked,
    ) -> Result<Role, String> {
        if let Some(role) = self.roles.get(base) {
            return Ok(*role);
        }
        let url = format!("{base}{}", state_path(&self.database, "dbmazz_who_are_you"));
        let login: Vec<_> = headers.iter().filter(|(name, _)| name == "authorization").cloned().collect();
        let role = match http.get(&url, &login) {
            // Somebody is there and does not know the question, and a frontend has sent us: a backend.
            Err(Failure::Cut(_)) if asked == Asked::AfterRedirect => Role::Backend,
            Err(failure) => return Err(format!("\"{base}\": {failure}")),
            Ok(answer) => {
                role_of(&answer).ok_or_else(|| format!("\"{base}\" answered {}", answer.summary()))?
            }
        };
        self.roles.insert(base.to_owned(), role);
        Ok(role)
    }

    /// Where a redirect leads. The host is replaced unless it is one of the load URLs: then it is another frontend.
    fn resolve(&self, location: &str, base: &str) -> Option<Url> {
        let url = Url::from_location(location, base)?;
        match &self.backend_host {
            Some(host) if !self.load_urls.contains(&url.base) => Some(url.with_host(host)),
            _ => Some(url),
        }
    }

    /// Which backend a frontend would send a load of `path` to; none when a load URL is a backend itself. Begins nothing:
    /// no backend is asked.
    pub(super) fn backend_for(
        &self,
        http: &Http,
        path: &str,
        headers: &Headers,
    ) -> Result<Option<Url>, String> {
        let frontends =
            self.in_order().into_iter().filter(|(_, url)| self.roles.get(url) == Some(&Role::Frontend));
        let mut failures = Vec::new();
        for (_, base) in frontends {
            match http.put_empty(&format!("{base}{path}"), headers) {
                Ok(answer) if answer.is_redirect() => {
                    let location = answer.location.unwrap_or_default();
                    let found = self.resolve(&location, &base);
                    return found
                        .map(Some)
                        .ok_or_else(|| format!("redirect to \"{location}\", which is no address"));
                }
                Ok(answer) => failures.push(format!("\"{base}\": {}", message_of(&answer.body))),
                Err(failure) => failures.push(format!("\"{base}\": {failure}")),
            }
        }
        if failures.is_empty() { Ok(None) } else { Err(failures.join(", ")) }
    }

    /// Replaces the host of an address that a backend gave, as for a redirect.
    pub(super) fn reachable(&self, address: &str) -> Option<Url> {
        self.resolve(address, "")
    }
}

/// Frontends answer questions about labels: with JSON, or that they want a login, or that the leader knows.
fn role_of(answer: &Answer) -> Option<Role> {
    if answer.is_redirect() || answer.status == 401 || LoadAnswer::parse(&answer.body).is_some() {
        return Some(Role::Frontend);
    }
    (answer.status < 500 || answer.status == 501).then_some(Role::Backend)
}

enum Hop {
    Ended(Attempt),
    Redirected(String),
}

/// Asks a frontend for a backend. Nothing has begun, whatever happens.
fn ask(http: &Http, at: &Url, request: &Request<'_>) -> Hop {
    let answer = match http.put_empty(&at.text(), request.headers) {
        Ok(answer) => answer,
        Err(failure) => return Hop::Ended(Attempt::NotBegun(failure.to_string())),
    };
    let unreadable = |answer: &Answer| Attempt::NotBegun(format!("the answer was {}", answer.summary()));
    read(answer, Role::Frontend, unreadable)
}

/// Sends the body to a backend.
fn send(http: &Http, at: &Url, request: &Request<'_>) -> Hop {
    match http.put_body(&at.text(), request.headers, request.body) {
        Ok(answer) => not_from_frontend(read(answer, Role::Backend, |answer| {
            Attempt::Unknown(format!("backend \"{}\" answered {}", at.base, answer.summary()))
        })),
        Err(Failure::NotSent(reason)) => {
            Hop::Ended(Attempt::NotBegun(format!("backend \"{}\": {reason}", at.base)))
        }
        Err(Failure::Cut(reason)) => {
            Hop::Ended(Attempt::Unknown(format!("lost backend \"{}\" during a load: {reason}", at.base)))
        }
    }
}

/// Only frontends say `FAILED`; one that stands where a backend was has not looked at the body.
fn not_from_frontend(hop: Hop) -> Hop {
    match hop {
        Hop::Ended(Attempt::Answered { answer, by: Role::Backend })
            if answer.status.eq_ignore_ascii_case("FAILED") =>
        {
            Hop::Ended(Attempt::NotBegun(answer.message))
        }
        other => other,
    }
}

fn read(answer: Answer, by: Role, unreadable: impl Fn(&Answer) -> Attempt) -> Hop {
    if answer.status == 401 {
        return Hop::Ended(Attempt::Credentials(message_of(&answer.body)));
    }
    if answer.is_redirect() && answer.location.is_some() {
        return Hop::Redirected(answer.location.unwrap_or_default());
    }
    // An answer of the server's own error handler is none about the load.
    let parsed = if answer.status < 500 { LoadAnswer::parse(&answer.body) } else { None };
    Hop::Ended(match parsed {
        Some(answer) => Attempt::Answered { answer, by },
        None => unreadable(&answer),
    })
}

/// Follower, leader, backend, and some to spare.
const MAX_HOPS: usize = 5;

#[cfg(test)]
mod tests;
