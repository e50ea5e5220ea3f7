//! Everything that calls PostgreSQL.
