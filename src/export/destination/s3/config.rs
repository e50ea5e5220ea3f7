//! How to reach an S3: made from a foreign server and a user mapping of the wrapper `dbmazz_s3`.

use std::path::PathBuf;
use std::time::Duration;

use crate::server_options::{Form, OptionError, Secret, TlsVerify, endpoint, parse_boolean, validate, value};

/// Where an S3 is and how to talk to it. `Debug` does not show the secret.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct S3Config {
    /// `scheme://host:port`.
    pub endpoint: String,
    /// Part of what is signed. Default: `us-east-1`.
    pub region: String,
    /// Whether the bucket is in the path of a URL or in its host. Default: in the path.
    pub url_style: UrlStyle,
    /// The access key: who it is.
    pub access_key: String,
    /// And how that is proved.
    pub secret: Secret,
    /// Certificates to trust for `https`, in PEM form. Default: the public ones.
    pub ca_file: Option<PathBuf>,
    /// Whether the certificate of an `https` URL is checked at all.
    pub tls_verify: TlsVerify,
    /// Longest time for one connection to be made. Default: 5 s.
    pub connect_timeout: Duration,
    /// Longest time for one request. Default: 120 s.
    pub request_timeout: Duration,
    /// How long a request is repeated that may succeed. Default: 120 s.
    pub retry_timeout: Duration,
    /// The bucket.
    pub bucket: String,
    /// What all names begin with; empty, or ends with `/`.
    pub prefix: String,
}

/// Where the name of the bucket is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum UrlStyle {
    /// `https://host/bucket/name`.
    Path,
    /// `https://bucket.host/name`.
    Host,
}

impl S3Config {
    /// Reads the options of a foreign server and of the user mapping for it; bucket and prefix are empty.
    ///
    /// # Errors
    /// When an option is not recognized, not valid or missing.
    pub fn from_options(
        server: &[(String, String)],
        user_mapping: &[(String, String)],
    ) -> Result<Self, OptionError> {
        validate_server_options(server)?;
        validate_mapping_options(user_mapping)?;
        let text = |name| value(server, name).map(str::to_owned);
        let number = |name, usual| value(server, name).and_then(|text| text.parse().ok()).unwrap_or(usual);
        let truth = |name| value(server, name).and_then(parse_boolean).unwrap_or(true);
        let access_key = value(user_mapping, "access_key").or_else(|| value(user_mapping, "key"));
        let endpoint = value(server, "endpoint").and_then(endpoint);
        Ok(Self {
            endpoint: endpoint.ok_or(OptionError::Missing { name: "endpoint" })?,
            region: text("region").unwrap_or_else(|| "us-east-1".to_owned()),
            url_style: if truth("path_style") { UrlStyle::Path } else { UrlStyle::Host },
            access_key: access_key.ok_or(OptionError::Missing { name: "access_key" })?.to_owned(),
            secret: secret(user_mapping)?,
            ca_file: text("ca_file").map(PathBuf::from),
            tls_verify: if truth("tls_verify") { TlsVerify::On } else { TlsVerify::Off },
            connect_timeout: Duration::from_millis(number("connect_timeout_ms", 5_000)),
            request_timeout: Duration::from_secs(number("request_timeout_s", 120)),
            retry_timeout: Duration::from_secs(number("retry_timeout_s", 120)),
            bucket: String::new(),
            prefix: String::new(),
        })
    }
}

fn secret(user_mapping: &[(String, String)]) -> Result<Secret, OptionError> {
    let file = value(user_mapping, "secret_file").map(|path| Secret::File(PathBuf::from(path)));
    let secret = value(user_mapping, "secret").map(|secret| Secret::Password(secret.to_owned()));
    file.or(secret).ok_or(OptionError::Missing { name: "secret" })
}

/// Checks the options of a server, as the wrapper's validator does. Options that are missing are no error here.
///
/// # Errors
/// The first option that is not recognized or whose value is not valid.
pub fn validate_server_options(options: &[(String, String)]) -> Result<(), OptionError> {
    validate(&SERVER_OPTIONS, options)
}

/// Checks the options of a user mapping.
///
/// # Errors
/// The first option that is not recognized or whose value is not valid; a key or a secret given twice.
pub fn validate_mapping_options(options: &[(String, String)]) -> Result<(), OptionError> {
    validate(&MAPPING_OPTIONS, options)?;
    for (one, other) in [("access_key", "key"), ("secret", "secret_file")] {
        if value(options, one).is_some() && value(options, other).is_some() {
            return Err(OptionError::Conflicting { one, other });
        }
    }
    Ok(())
}

const SERVER_OPTIONS: [(&str, Form); 8] = [
    ("endpoint", Form::Url),
    ("region", Form::Name),
    ("path_style", Form::Boolean),
    ("ca_file", Form::Path),
    ("tls_verify", Form::Boolean),
    ("connect_timeout_ms", Form::Positive),
    ("request_timeout_s", Form::Positive),
    ("retry_timeout_s", Form::Positive),
];

const MAPPING_OPTIONS: [(&str, Form); 4] =
    [("access_key", Form::Name), ("key", Form::Name), ("secret", Form::Text), ("secret_file", Form::Path)];

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn options_are_understood_and_the_secret_is_never_shown() {
        let server = options(&[("endpoint", "http://127.0.0.1:9000/"), ("path_style", "off")]);
        let mapping = options(&[("key", "who"), ("secret", "hunter2")]);
        let config = S3Config::from_options(&server, &mapping).unwrap();
        assert_eq!((config.endpoint.as_str(), config.url_style), ("http://127.0.0.1:9000", UrlStyle::Host));
        assert!(!format!("{config:?}").contains("hunter2"));
    }

    #[test]
    fn what_cannot_work_is_refused_at_once() {
        let refused = |name, value| validate_server_options(&options(&[(name, value)])).is_err();
        for (name, value) in [
            ("endpoint", "host:9000"),
            ("endpoint", "http://host/bucket"),
            ("endpoint", "http://user@host"),
            ("url", "http://host"),
            ("ca_file", "ca.pem"),
            ("request_timeout_s", "0"),
        ] {
            assert!(refused(name, value), "{name} '{value}' is taken");
        }
        assert!(!refused("endpoint", "https://s3.example.com"));
        assert!(!refused("endpoint", "http://[::1]:9000"));
        let both = options(&[("secret", "x"), ("secret_file", "/x")]);
        assert!(validate_mapping_options(&both).is_err());
    }
}
