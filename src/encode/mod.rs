//! From values to the bytes of a row.

mod value;

pub use value::{Row, Value};
