//! `dbmazz.event`: what happened to the mirrors. At most 10,000 events; old ones go after 30 days, when new ones come.

use pgrx::pg_sys;

use super::query;
use crate::postgres::encoding::own_text;

/// Old events are looked for each time that so many new ones have come …
const TRIM_EVERY: i64 = 100;
/// … and this many are kept, so that there are never more than 10,000.
const KEPT: i64 = 10_000 - TRIM_EVERY;

/// How much an event matters.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::postgres) enum Severity {
    /// Something went as it should.
    Info,
    /// An administrator should look.
    Warning,
    /// Something stopped.
    Error,
}

impl Severity {
    const fn word(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// Something that happened. Texts as in PostgreSQL's messages: the message is no sentence, detail and hint are.
#[derive(Clone, Copy, Debug)]
pub(in crate::postgres) struct Event<'a> {
    /// How much it matters.
    pub(in crate::postgres) severity: Severity,
    /// The mirror that it happened to.
    pub(in crate::postgres) mirror: Option<&'a str>,
    /// The table that it happened to.
    pub(in crate::postgres) relid: Option<pg_sys::Oid>,
    /// What happened.
    pub(in crate::postgres) message: &'a str,
    /// Facts.
    pub(in crate::postgres) detail: Option<&'a str>,
    /// Advice.
    pub(in crate::postgres) hint: Option<&'a str>,
}

impl<'a> Event<'a> {
    /// An event of a mirror as a whole, with nothing more to say.
    pub(in crate::postgres) const fn of(mirror: &'a str, severity: Severity, message: &'a str) -> Self {
        Self { severity, mirror: Some(mirror), relid: None, message, detail: None, hint: None }
    }

    /// Writes it down. Any process, in any transaction that can write.
    pub(in crate::postgres) fn record(&self) {
        let id = query::run_returning(
            "INSERT INTO dbmazz.event (mirror, relid, severity, message, detail, hint)
             VALUES ($1, $2, $3, $4, $5, $6) RETURNING id",
            &[
                self.mirror.into(),
                self.relid.into(),
                self.severity.word().into(),
                own_text(self.message).as_ref().into(),
                self.detail.map(own_text).as_deref().into(),
                self.hint.map(own_text).as_deref().into(),
            ],
            |row| row.must::<i64>(1),
        );
        if id.is_some_and(|id| id % TRIM_EVERY == 0) {
            trim();
        }
    }
}

/// Removes old events. Numbers have gaps, so fewer than [`KEPT`] may be left, never more.
fn trim() {
    query::run(
        "DELETE FROM dbmazz.event WHERE at < pg_catalog.now() - '30 days'::pg_catalog.interval
             OR id <= (SELECT max(id) - $1 FROM dbmazz.event)",
        &[KEPT.into()],
    );
}
