//! What a user writes for a destination: an absolute directory, or `s3://bucket/prefix`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where an export is to be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Location {
    /// A directory of the server.
    Directory(PathBuf),
    /// Objects of a bucket.
    S3 {
        /// The bucket.
        bucket: String,
        /// What the names of all objects begin with; empty, or ends with `/`.
        prefix: String,
    },
}

impl FromStr for Location {
    type Err = LocationError;

    fn from_str(text: &str) -> Result<Self, LocationError> {
        if let Some(rest) = text.strip_prefix("s3://") {
            return s3(rest).ok_or_else(|| LocationError::Bucket { text: text.to_owned() });
        }
        // However it is written, a path is one.
        let parts: Vec<&str> = text.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
        if !text.starts_with('/') || parts.is_empty() || text.contains('\0') {
            return Err(LocationError::NotAbsolute { text: text.to_owned() });
        }
        if parts.contains(&"..") {
            return Err(LocationError::Parent { text: text.to_owned() });
        }
        Ok(Self::Directory(PathBuf::from(format!("/{}", parts.join("/")))))
    }
}

fn s3(rest: &str) -> Option<Location> {
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let good_letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-_".contains(c);
    let good_bucket = (3..=63).contains(&bucket.len()) && bucket.chars().all(good_letter);
    let prefix = prefix.trim_end_matches('/');
    let good_part = |part: &str| !matches!(part, "" | "." | "..");
    let good_prefix =
        prefix.is_empty() || (!prefix.contains(['\0', '\\']) && prefix.split('/').all(good_part));
    let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
    (good_bucket && good_prefix).then(|| Location::S3 { bucket: bucket.to_owned(), prefix })
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => write!(f, "{}", path.display()),
            Self::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{}", prefix.trim_end_matches('/')),
        }
    }
}

/// Why a text is no destination.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum LocationError {
    /// Neither an absolute path nor a bucket.
    NotAbsolute {
        /// The text.
        text: String,
    },
    /// A path with `..` in it.
    Parent {
        /// The text.
        text: String,
    },
    /// Begins as a bucket does and is none.
    Bucket {
        /// The text.
        text: String,
    },
}

impl fmt::Display for LocationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAbsolute { text } => {
                write!(f, "\"{text}\" is neither an absolute path nor of the form \"s3://bucket/prefix\"")
            }
            Self::Parent { text } => write!(f, "path \"{text}\" must not contain \"..\""),
            Self::Bucket { text } => write!(f, "\"{text}\" is not of the form \"s3://bucket/prefix\""),
        }
    }
}

impl std::error::Error for LocationError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_and_buckets_are_told_apart() {
        for spelling in ["/a/b", "/a/b/", "//a/./b//", "/./a/b/."] {
            assert_eq!(spelling.parse(), Ok(Location::Directory(PathBuf::from("/a/b"))));
        }
        let bucket = |prefix: &str| Location::S3 { bucket: "shop".to_owned(), prefix: prefix.to_owned() };
        assert_eq!("s3://shop".parse(), Ok(bucket("")));
        assert_eq!("s3://shop/".parse(), Ok(bucket("")));
        assert_eq!("s3://shop/daily/1/".parse(), Ok(bucket("daily/1/")));
        assert_eq!(bucket("daily/1/").to_string(), "s3://shop/daily/1");
    }

    #[test]
    fn relative_paths_and_detours_are_refused() {
        for bad in
            ["", "a/b", "/", "//", "/./", "/a/../b", "/..", "s3://", "s3://A/x", "s3://ab", "s3://shop/a//b"]
        {
            assert!(bad.parse::<Location>().is_err(), "{bad:?} is taken");
        }
        assert!("s3://shop/a/../b".parse::<Location>().is_err());
    }
}
