//! What the event triggers say of a table, in messages in the log: a JSON object, `{"event": "dropped", "relid": 16384}`.
//!
//! Written by `sql/event_trigger.sql`, read by the decoding callbacks.

use serde::Deserialize;

/// Something that has happened to a table of some mirror.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum TableEvent {
    /// Its rows may have got other values.
    Rewritten {
        /// The table.
        relid: u32,
    },
    /// Columns have other types, and their values are what the types' own cast made of them.
    Retyped {
        /// The table.
        relid: u32,
    },
    /// It is gone.
    Dropped {
        /// The table.
        relid: u32,
    },
    /// It may have other columns, or another name.
    Altered {
        /// The table.
        relid: u32,
        /// `schema.table`.
        name: String,
    },
    /// It is new, and has been written down with a mirror.
    Created,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_the_event_triggers_are_read() {
        let cases = [
            (r#"{"event": "rewritten", "relid": 16384}"#, TableEvent::Rewritten { relid: 16384 }),
            (r#"{"event": "dropped", "relid": 4294967295}"#, TableEvent::Dropped { relid: u32::MAX }),
            (
                r#"{"name": "a.\"b\"", "event": "altered", "relid": 1}"#,
                TableEvent::Altered { relid: 1, name: "a.\"b\"".to_owned() },
            ),
            (r#"{"event": "created", "relid": 1}"#, TableEvent::Created),
        ];
        for (message, expected) in cases {
            assert_eq!(serde_json::from_str::<TableEvent>(message).unwrap(), expected);
        }
    }
}
