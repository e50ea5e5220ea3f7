//! The SQL functions: `dbmazz_start_mirror` and its kin, and what the views look at.
//!
//! They run in the session of whoever calls them. They check, write down what is wanted in the extension's tables, and
//! tell the launcher at commit ([`pending`]); workers make it so. Every function that can fail returns a `Failure`
//! as an `ErrorReport`, so that the user gets SQLSTATE, detail and hint.
//!
//! The statements that create them are in `sql/functions.sql`, where volatility, strictness and rights are stated;
//! pgrx writes none of its own.

// An ErrorReport is large, and made at most once per call.
#![allow(clippy::result_large_err)]

use pgrx::extension_sql_file;

pub(super) mod arguments;
mod check;
mod drop_guard;
pub(super) mod failure;
mod last_loads;
mod mirror;
mod pending;
mod rejected;
mod release;
mod rewrite;
mod stat;
mod tables;
mod validator;
mod verify_export;
mod wait;

pub(super) use drop_guard::install as install_drop_guard;

extension_sql_file!("../../../sql/schema.sql", name = "schema", bootstrap);
extension_sql_file!("../../../sql/functions.sql", name = "functions", requires = ["schema"]);
extension_sql_file!("../../../sql/fdw.sql", name = "fdw", requires = ["functions"]);
extension_sql_file!("../../../sql/event_trigger.sql", name = "event_trigger", requires = ["functions"]);
extension_sql_file!("../../../sql/views.sql", name = "views", requires = ["functions"]);
extension_sql_file!("../../../sql/import.sql", name = "import", requires = ["export"]);
extension_sql_file!("../../../sql/grants.sql", name = "grants", finalize);
