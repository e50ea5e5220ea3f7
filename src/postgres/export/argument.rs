//! Texts that are given to the functions, in databases of every encoding.
//!
//! A text that is taken as `&str` must be UTF-8 before any code of ours sees it; so it is taken as bytes.

use pgrx::PgSqlErrorCode;

use super::super::api::failure::Failure;
use super::super::encoding;

/// An argument as text.
///
/// # Errors
///
/// When it has characters that are written differently here and in UTF-8.
pub(super) fn text<'a>(name: &str, bytes: &'a [u8]) -> Result<&'a str, Failure> {
    let refuse = || {
        beyond_ascii(&format!("argument \"{name}\""))
            .hint("Write it in ASCII, or export from a database in UTF8.")
    };
    if encoding::needs_conversion() && !bytes.is_ascii() {
        return Err(refuse());
    }
    str::from_utf8(bytes).map_err(|_| refuse())
}

/// Something has other characters than ASCII where the database's encoding is another one than UTF8.
pub(super) fn beyond_ascii(what: &str) -> Failure {
    let code = PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED;
    let message = format!("{what} has characters that are not ASCII");
    Failure::new(code, message)
        .detail(format!("In a database of encoding {} an export takes ASCII alone.", encoding::name()))
}
