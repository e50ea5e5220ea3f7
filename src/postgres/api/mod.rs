//! The SQL functions.
