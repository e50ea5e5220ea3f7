//! The headers of requests.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ureq::http::{HeaderName, HeaderValue};

use super::config::StarRocksConfig;
use crate::sink::{Compression, Load};

/// The `Authorization` header, with the password as of now.
///
/// # Errors
/// In words for the administrator, when the password cannot be read or sent.
pub(super) fn authorization(config: &StarRocksConfig) -> Result<(HeaderName, HeaderValue), String> {
    let password = config.password.reveal()?;
    let encoded = STANDARD.encode(format!("{}:{password}", config.user));
    let value = HeaderValue::try_from(format!("Basic {encoded}"));
    let mut value = value.map_err(|_| "could not put the login into a header".to_owned())?;
    value.set_sensitive(true);
    Ok((HeaderName::from_static("authorization"), value))
}

/// The headers that describe a load.
///
/// # Errors
/// In words, when the columns cannot stand in a header.
pub(super) fn load_headers(
    load: &Load,
    compression: Compression,
    timeout_s: u64,
) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
    // Names beyond ASCII travel as UTF-8; the server reads bytes.
    let columns = HeaderValue::from_bytes(load.shape.columns.as_bytes());
    let columns = columns.map_err(|_| "could not put the columns into a header".to_owned())?;
    let label = HeaderValue::try_from(load.label.to_string());
    let label = label.map_err(|_| "could not put the label into a header".to_owned())?;
    let fixed = |name, value| (HeaderName::from_static(name), HeaderValue::from_static(value));
    let mut headers = vec![
        (HeaderName::from_static("label"), label),
        fixed("format", "json"),
        (HeaderName::from_static("columns"), columns),
        fixed("strict_mode", "true"),
        fixed("max_filter_ratio", "0"),
        (HeaderName::from_static("timeout"), HeaderValue::from(timeout_s)),
    ];
    if load.shape.partial {
        headers.push(fixed("partial_update", "true"));
        headers.push(fixed("partial_update_mode", "row"));
    }
    if compression == Compression::Lz4Frame {
        headers.push(fixed("compression", "lz4_frame"));
    }
    Ok(headers)
}
