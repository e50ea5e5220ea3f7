//! Logins: Basic authentication of the HTTP ports, `mysql_native_password` of the MySQL port.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

/// Why a request is not let in.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Refusal {
    /// There is no usable `Authorization: Basic`.
    Missing,
    /// The user is unknown or the password wrong.
    Denied {
        /// The name that was given.
        user: String,
    },
}

/// Compares the value of an `Authorization` header with the one login that there is.
///
/// The password is all that follows the first colon, and `user@suffix` loses the suffix.
pub(crate) fn check(header: Option<&str>, user: &str, password: &str) -> Result<(), Refusal> {
    let (given_user, given_password) = header.and_then(parse).ok_or(Refusal::Missing)?;
    let given_user = given_user.split('@').next().unwrap_or_default();
    if given_user != user || given_password != password {
        return Err(Refusal::Denied { user: given_user.into() });
    }
    Ok(())
}

/// User and password of a header.
pub(crate) fn parse(header: &str) -> Option<(String, String)> {
    let (scheme, encoded) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    Some((user.into(), password.into()))
}

/// What a client that knows the password answers to the server's salt; nothing for an empty password.
pub(crate) fn native_password(salt: &[u8], password: &[u8]) -> Vec<u8> {
    if password.is_empty() {
        return Vec::new();
    }
    let once = Sha1::digest(password);
    let salted = Sha1::new().chain_update(salt).chain_update(Sha1::digest(once)).finalize();
    once.iter().zip(salted).map(|(left, right)| left ^ right).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basic(login: &str) -> String {
        format!("Basic {}", STANDARD.encode(login))
    }

    #[test]
    fn password_may_hold_colons() {
        assert_eq!(check(Some(&basic("root:a:b")), "root", "a:b"), Ok(()));
    }

    #[test]
    fn suffix_of_the_user_is_dropped() {
        assert_eq!(check(Some(&basic("root@cluster:")), "root", ""), Ok(()));
    }

    #[test]
    fn wrong_password_and_missing_header_differ() {
        assert_eq!(check(Some(&basic("root:x")), "root", ""), Err(Refusal::Denied { user: "root".into() }));
        assert_eq!(check(None, "root", ""), Err(Refusal::Missing));
        assert_eq!(check(Some("Bearer x"), "root", ""), Err(Refusal::Missing));
    }
}
