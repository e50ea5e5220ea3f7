//! The options of `dbmazz_import`.

use std::time::Duration;

use serde::Deserialize;

use crate::options::parse_duration;

/// What may be asked for.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ImportOptions {
    /// Processes that work at once.
    pub(super) workers: usize,
    /// Whether tables that have rows are emptied first.
    pub(super) truncate: bool,
    /// Whether tables that are missing are created, with all that belongs to them.
    pub(super) schema: bool,
    /// Whether the large objects come along.
    pub(super) large_objects: bool,
    /// Whether one that is not done starts over instead of going on.
    pub(super) restart: bool,
    /// How long it may take, as `10min`; none for as long as it does.
    pub(super) timeout: Option<String>,
}

impl Default for ImportOptions {
    fn default() -> Self {
        Self { workers: 4, truncate: false, schema: true, large_objects: true, restart: false, timeout: None }
    }
}

impl ImportOptions {
    /// Reads a JSON object.
    ///
    /// # Errors
    ///
    /// What is wrong, in words; for an option that is not recognized, with the valid ones.
    pub(super) fn parse(json: &str) -> Result<Self, String> {
        let options: Self = serde_json::from_str(json).map_err(|problem| problem.to_string())?;
        if !(1..=MAX_WORKERS).contains(&options.workers) {
            return Err(format!("invalid value for option \"workers\": it must be from 1 to {MAX_WORKERS}"));
        }
        match options.timeout.as_deref() {
            Some(text) if parse_duration(text).is_none() => {
                Err(format!("invalid value for option \"timeout\": \"{text}\" is no time such as 10min"))
            }
            _ => Ok(options),
        }
    }

    /// How long it may take.
    pub(super) fn timeout(&self) -> Option<Duration> {
        self.timeout.as_deref().and_then(parse_duration).filter(|time| !time.is_zero())
    }
}

const MAX_WORKERS: usize = 64;
