//! Which PostgreSQL is used: the one that `PG_CONFIG`, `pg_config`, or Debian's directories name.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Failure, Outcome};

/// The programs of one PostgreSQL installation.
#[derive(Clone, Debug)]
pub(crate) struct Installation {
    bindir: PathBuf,
    major: u32,
}

impl Installation {
    /// Finds it.
    ///
    /// # Errors
    ///
    /// When no `pg_config` answers, or its installation has no server.
    pub(crate) fn find() -> Outcome<Self> {
        let pg_config =
            std::env::var_os("PG_CONFIG").map_or_else(|| PathBuf::from("pg_config"), PathBuf::from);
        let bindir = ask(&pg_config, "--bindir").map(PathBuf::from).or_else(|_| newest_of_debian())?;
        let major = major_of(
            &ask(&bindir.join("pg_config"), "--version").or_else(|_| ask(&pg_config, "--version"))?,
        )?;
        if !bindir.join("postgres").is_file() {
            return Err(Failure::new(format!("there is no PostgreSQL server in \"{}\"", bindir.display())));
        }
        Ok(Self { bindir, major })
    }

    /// The path of one program.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.bindir.join(name)
    }

    /// Where the scripts of extensions are.
    ///
    /// # Errors
    ///
    /// When its `pg_config` does not answer.
    pub(crate) fn extension_directory(&self) -> Outcome<PathBuf> {
        let pg_config =
            std::env::var_os("PG_CONFIG").map_or_else(|| self.program("pg_config"), PathBuf::from);
        Ok(PathBuf::from(ask(&pg_config, "--sharedir")?).join("extension"))
    }

    /// The major version.
    pub(crate) fn major(&self) -> u32 {
        self.major
    }
}

fn ask(pg_config: &Path, what: &str) -> Outcome<String> {
    let output = Command::new(pg_config)
        .arg(what)
        .output()
        .map_err(|error| Failure::from(error).while_doing(format_args!("run \"{}\"", pg_config.display())))?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

fn newest_of_debian() -> Outcome<PathBuf> {
    let majors = std::fs::read_dir("/usr/lib/postgresql")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let newest = majors.max().ok_or_else(|| Failure::new("could not find a PostgreSQL installation"))?;
    Ok(PathBuf::from(format!("/usr/lib/postgresql/{newest}/bin")))
}

/// `PostgreSQL 15.20 (Debian …)` is 15.
fn major_of(version: &str) -> Outcome<u32> {
    let number = version.split_whitespace().nth(1).unwrap_or_default();
    let major = number.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
    Ok(major.parse()?)
}
