//! Misfortunes on demand: what tests arm over `/standin/fault`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::server::lock;

/// What can go wrong.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// The body was read; the connection is cut and the load aborted.
    CutBeforeCommit,
    /// The load is visible; the connection is cut without an answer.
    CutAfterCommit,
    /// The answer of a load is held back for `value` ms, after its commit.
    DelayAnswer,
    /// The backend has a load in hand for `value` ms (default 1000) before it begins it, though its client may have gone.
    DelayBegin,
    /// `100 Continue` is held back for `value` ms.
    DelayContinue,
    /// The load is committed, becomes visible `value` ms later (default 1000), and is answered `Publish Timeout`.
    PublishTimeout,
    /// HTTP 500 from the port named by `value`: `fe` or `be` (default).
    #[serde(rename = "http_500")]
    Http500,
    /// The port named by `value`, `fe` or `be` (default), does what it is asked for and answers nonsense.
    GarbageAnswer,
    /// The load is visible; what comes back is no HTTP.
    GarbageBytes,
    /// A TRUNCATE or CREATE is cut off without an answer; `value` is `before` it was executed or `after` (default).
    CutStatement,
    /// A statement is executed `value.ms` (default 1000) later, though its client may have gone by then: the first one that
    /// has the text `value.of`, or a TRUNCATE. Until then the list of processes shows it, unless `value.hidden` is true; its
    /// connection stays, unless `value.cut` is.
    LateStatement,
    /// Rows are filtered: those that contain `value`, or all.
    RefuseRows,
    /// The frontend finds no backend.
    NoBackend,
    /// The load fails as if its table had too many versions.
    TooManyVersions,
    /// Every login fails, on all ports.
    WrongPassword,
    /// The frontend redirects to `value` (`host:port`), or to a port where nobody listens.
    RedirectDeadHost,
    /// The frontend redirects to itself.
    RedirectLoop,
    /// The load fails with an unknown outcome; `value` is `committed` (default) or `aborted`, the truth.
    FailCommitUnknown,
    /// A label in use is reported as plain `Fail`.
    LabelExistsAsFail,
    /// Acts at once: the backend forgets loads in PREPARE and drops its connections.
    Restart,
    /// The backend's port is closed while this is on.
    CloseBe,
    /// A load gets no answer until the fault is cleared; `value` is `before_commit` (default) or `after_commit`.
    Hang,
    /// A schema change without fast schema evolution takes `value` ms.
    SlowAlter,
    /// The backend refuses in the header phase and resets instead of taking the body off the wire.
    ResetOnRefusal,
}

/// What some box between us and StarRocks might say.
pub(crate) const GARBAGE: &str = "<html>\u{1}{\"Status\": \"Success\"";

/// One armed fault.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fault {
    pub(crate) kind: Kind,
    /// How often it still strikes; -1 until cleared.
    #[serde(default = "once")]
    pub(crate) times: i64,
    /// Only loads of this table; of all whose names begin like this, with `*` at the end.
    #[serde(default)]
    pub(crate) table: Option<String>,
    /// A parameter of the kind.
    #[serde(default)]
    pub(crate) value: Option<serde_json::Value>,
}

fn once() -> i64 {
    1
}

impl Fault {
    /// Whether it may strike loads of this table.
    fn is_for(&self, table: &str) -> bool {
        let Some(name) = self.table.as_deref() else { return true };
        name == table || name.strip_suffix('*').is_some_and(|start| table.starts_with(start))
    }

    /// The parameter as milliseconds.
    pub(crate) fn delay(&self, default_ms: u64) -> Duration {
        let ms = self.value.as_ref().and_then(serde_json::Value::as_u64);
        Duration::from_millis(ms.unwrap_or(default_ms))
    }

    /// Of a parameter that is an object, a member.
    fn member(&self, name: &str) -> Option<&serde_json::Value> {
        self.value.as_ref().and_then(|value| value.get(name))
    }

    /// Whether a statement is the one that is late.
    pub(crate) fn is_about(&self, statement: &str) -> bool {
        let text = self.member("of").and_then(serde_json::Value::as_str);
        statement.contains(text.unwrap_or("TRUNCATE"))
    }

    /// How late it is.
    pub(crate) fn lateness(&self) -> Duration {
        Duration::from_millis(self.member("ms").and_then(serde_json::Value::as_u64).unwrap_or(1000))
    }

    /// Whether a member of the parameter is true.
    pub(crate) fn is(&self, name: &str) -> bool {
        self.member(name).and_then(serde_json::Value::as_bool).unwrap_or_default()
    }

    /// The parameter as text.
    pub(crate) fn text(&self) -> Option<&str> {
        self.value.as_ref().and_then(serde_json::Value::as_str)
    }
}

/// All armed faults.
#[derive(Default)]
pub(crate) struct Faults {
    armed: Mutex<Vec<Fault>>,
    /// How often all were cleared; counted under the lock of `armed`.
    clearances: AtomicU64,
    cleared: Condvar,
}

impl Faults {
    /// Arms one more fault.
    pub(crate) fn arm(&self, fault: Fault) {
        lock(&self.armed).push(fault);
    }

    /// Disarms all.
    pub(crate) fn clear(&self) {
        let mut armed = lock(&self.armed);
        armed.clear();
        self.clearances.fetch_add(1, Ordering::SeqCst);
        self.cleared.notify_all();
    }

    /// What is armed now.
    pub(crate) fn list(&self) -> Vec<Fault> {
        lock(&self.armed).clone()
    }

    /// Lets a fault strike once, if one of the kind is armed for the table.
    pub(crate) fn strike(&self, kind: Kind, table: &str) -> Option<Fault> {
        self.strike_if(kind, table, |_| true)
    }

    /// As [`Faults::strike`], for faults that `applies` agrees to.
    pub(crate) fn strike_if(
        &self,
        kind: Kind,
        table: &str,
        applies: impl Fn(&Fault) -> bool,
    ) -> Option<Fault> {
        let mut armed = lock(&self.armed);
        let index =
            armed.iter().position(|fault| fault.kind == kind && fault.is_for(table) && applies(fault))?;
        let fault = armed.get_mut(index)?;
        if fault.times > 0 {
            fault.times -= 1;
        }
        let struck = fault.clone();
        if struck.times == 0 {
            armed.remove(index);
        }
        Some(struck)
    }

    /// Whether a fault of the kind is armed; does not use it up.
    pub(crate) fn is_armed(&self, kind: Kind) -> bool {
        lock(&self.armed).iter().any(|fault| fault.kind == kind)
    }

    /// Waits until no fault of the kind is armed any more.
    pub(crate) fn wait_until_cleared(&self, kind: Kind) {
        let mut armed = lock(&self.armed);
        while armed.iter().any(|fault| fault.kind == kind) {
            armed = self.cleared.wait(armed).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
    }

    /// How often all faults were cleared so far.
    pub(crate) fn clearances(&self) -> u64 {
        self.clearances.load(Ordering::SeqCst)
    }

    /// Waits until all faults were cleared once more than `seen` times.
    pub(crate) fn wait_for_clearance(&self, seen: u64) {
        let mut armed = lock(&self.armed);
        while self.clearances() == seen {
            armed = self.cleared.wait(armed).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(json: &str) -> Fault {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn fault_strikes_as_often_as_armed() {
        let faults = Faults::default();
        faults.arm(fault(r#"{"kind":"no_backend","times":2}"#));
        let strikes = (0..4).filter(|_| faults.strike(Kind::NoBackend, "t").is_some()).count();
        assert_eq!(strikes, 2);
    }

    #[test]
    fn fault_for_one_table_spares_the_others() {
        let faults = Faults::default();
        faults.arm(fault(r#"{"kind":"hang","times":-1,"table":"orders"}"#));
        assert!(faults.strike(Kind::Hang, "items").is_none());
        assert!(faults.strike(Kind::Hang, "orders").is_some());
        assert!(faults.strike(Kind::Hang, "orders").is_some());
        faults.clear();
        assert!(faults.strike(Kind::Hang, "orders").is_none());
    }

    #[test]
    fn fault_for_tables_of_a_beginning_spares_the_others() {
        let faults = Faults::default();
        faults.arm(fault(r#"{"kind":"hang","times":-1,"table":"copy_of_*"}"#));
        assert!(faults.strike(Kind::Hang, "orders").is_none());
        assert!(faults.strike(Kind::Hang, "copy_of_orders").is_some());
    }

    #[test]
    fn unknown_kinds_and_members_are_refused() {
        assert!(serde_json::from_str::<Fault>(r#"{"kind":"fire"}"#).is_err());
        assert!(serde_json::from_str::<Fault>(r#"{"kind":"hang","time":1}"#).is_err());
        assert_eq!(fault(r#"{"kind":"http_500","value":"fe"}"#).text(), Some("fe"));
    }

    #[test]
    fn late_statement_is_told_by_its_text() {
        let late = fault(r#"{"kind":"late_statement","value":{"of":"SWAP","ms":7,"hidden":true}}"#);
        assert!(late.is_about("ALTER TABLE a SWAP WITH b") && !late.is_about("TRUNCATE TABLE a"));
        assert_eq!(
            (late.lateness(), late.is("hidden"), late.is("cut")),
            (Duration::from_millis(7), true, false)
        );
        assert!(fault(r#"{"kind":"late_statement"}"#).is_about("TRUNCATE TABLE a"));
    }
}
