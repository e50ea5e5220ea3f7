//! StarRocks: loads over HTTP (Stream Load), statements over the MySQL protocol.

mod columns;
mod config;
mod options;
mod types;

pub use columns::{ShapeError, field_name, load_shape};
pub use config::{Secret, StarRocksConfig};
pub use options::{OptionError, validate_mapping_options, validate_server_options};
pub use types::{ColumnUse, UnsupportedKey, map_type};
