//! StarRocks: loads over HTTP (Stream Load), statements over the MySQL protocol.
//!
//! From the outside in: [`StarRocksSink`] repeats, `exchange` makes one attempt by way of frontend and backend, `http`
//! sends one request. `verdict` is the table of what answers mean; `label_state` asks what became of a load.

mod alter;
mod answer;
mod check;
mod client;
mod columns;
mod config;
pub mod ddl;
mod exchange;
mod fence;
#[cfg(feature = "fuzz")]
pub mod fuzzing;
mod http;
mod label_state;
mod login;
mod options;
mod owner;
mod retries;
mod sql;
mod types;
mod url;
mod verdict;

#[cfg(test)]
mod testing;

use std::sync::Arc;

use super::Sink;

pub use check::{HttpCheckError, ServerInfo, check};
pub use client::StarRocksSink;
pub use columns::{ShapeError, field_name, load_shape};
pub use config::{Secret, StarRocksConfig, TlsVerify};
pub use http::TlsError;
pub use options::{OptionError, validate_mapping_options, validate_server_options};
pub use owner::release_claim;
pub use sql::{SqlSession, TextRow};
pub use types::{ColumnUse, UnsupportedKey, kind_for_chosen_type, map_type};

/// The sink of one load thread. It connects to nothing yet.
///
/// # Errors
/// As [`StarRocksSink::new`].
pub fn open(config: &Arc<StarRocksConfig>) -> Result<Box<dyn Sink>, TlsError> {
    let sink = StarRocksSink::new(Arc::clone(config))?;
    #[cfg(feature = "discard")]
    if let Some(compression) = config.discard {
        return Ok(Box::new(super::discard::DiscardingSink::new(sink, compression)));
    }
    Ok(Box::new(sink))
}
