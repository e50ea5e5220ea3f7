//! Addresses: of load endpoints, of redirects, and the paths behind them.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::table::TargetTable;

/// A URL, cut where the path begins: `http://host:port` and `/path?query`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Url {
    pub(super) base: String,
    pub(super) path: String,
}

impl Url {
    /// Reads the `Location` of an answer from `base`. A user in it is dropped: the login goes in a header.
    pub(super) fn from_location(location: &str, base: &str) -> Option<Self> {
        if location.starts_with('/') {
            return Some(Self { base: base.to_owned(), path: location.to_owned() });
        }
        let (scheme, rest) = location.split_once("://")?;
        if !matches!(scheme, "http" | "https") {
            return None;
        }
        let (authority, path) = rest.split_at(rest.find('/')?);
        let host_and_port = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        if host_and_port.is_empty() {
            return None;
        }
        Some(Self { base: format!("{scheme}://{host_and_port}"), path: path.to_owned() })
    }

    /// The same on another host, whose port stays.
    pub(super) fn with_host(self, host: &str) -> Self {
        let Some((scheme, authority)) = self.base.split_once("://") else { return self };
        let after_host = authority.rfind(']').map_or(0, |end| end + 1);
        let port = authority[after_host..].find(':').map_or("", |colon| &authority[after_host + colon..]);
        Self { base: format!("{scheme}://{host}{port}"), path: self.path }
    }

    pub(super) fn text(&self) -> String {
        format!("{}{}", self.base, self.path)
    }
}

/// Where loads of a table go.
pub(super) fn load_path(target: &TargetTable) -> String {
    format!("/api/{}/{}/_stream_load", encode(&target.database), encode(&target.table))
}

/// Where a label's state is asked.
pub(super) fn state_path(database: &str, label: &str) -> String {
    format!("/api/{}/get_load_state?label={}", encode(database), encode(label))
}

/// Where a running load is cancelled. Frontends take the label from the path or from the query: it stands in both.
pub(super) fn cancel_path(database: &str, label: &str) -> String {
    let label = encode(label);
    format!("/api/{}/{label}/_cancel?label={label}", encode(database))
}

fn encode(name: &str) -> impl std::fmt::Display {
    utf8_percent_encode(name, ENCODED)
}

const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'_').remove(b'-').remove(b'.').remove(b'~');

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_encoded_in_paths() {
        let target = TargetTable { database: "shop".to_owned(), table: "a/b ü".to_owned() };
        assert_eq!(load_path(&target), "/api/shop/a%2Fb%20%C3%BC/_stream_load");
    }

    #[test]
    fn location_loses_its_user_and_keeps_its_query() {
        let url = Url::from_location("http://u:p@be:8040/api/x?y=1", "http://fe:8030").unwrap();
        assert_eq!(url.text(), "http://be:8040/api/x?y=1");
        let url = Url::from_location("/api/x", "http://fe:8030").unwrap();
        assert_eq!(url.text(), "http://fe:8030/api/x");
        assert_eq!(Url::from_location("ftp://be/x", "http://fe:8030"), None);
        assert_eq!(Url::from_location("http://be:8040", "http://fe:8030"), None);
    }

    #[test]
    fn another_host_keeps_the_port() {
        let moved = |base: &str| Url { base: base.to_owned(), path: "/x".to_owned() }.with_host("h").text();
        assert_eq!(moved("http://be:8040"), "http://h:8040/x");
        assert_eq!(moved("http://[::1]:8040"), "http://h:8040/x");
        assert_eq!(moved("http://be"), "http://h/x");
    }
}
