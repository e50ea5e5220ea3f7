//! Who runs the servers. PostgreSQL refuses root, so root runs it as `postgres`.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use super::{Failure, Outcome};

/// The account that servers run under.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Account {
    /// The one that runs the tests.
    Own,
    /// `postgres`, by its user and group number.
    Postgres(u32, u32),
}

impl Account {
    /// The account that PostgreSQL accepts here.
    pub(crate) fn for_servers() -> Outcome<Self> {
        if fs::metadata("/proc/self")?.uid() != 0 {
            return Ok(Self::Own);
        }
        Ok(Self::Postgres(number_of_postgres("-u")?, number_of_postgres("-g")?))
    }

    /// A command under this account, away from directories that it may not enter and from settings of the caller.
    pub(crate) fn command(self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir("/");
        for variable in ["PGDATA", "PGHOST", "PGPORT", "PGUSER", "PGDATABASE", "PGOPTIONS", "PGPASSWORD"] {
            command.env_remove(variable);
        }
        if let Self::Postgres(user, group) = self {
            command.uid(user).gid(group).env("HOME", "/");
        }
        command
    }

    /// A new directory that belongs to this account.
    pub(crate) fn directory(self) -> Outcome<PathBuf> {
        let path = base_directory().join(unique_name());
        fs::create_dir(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        self.own(&path)?;
        Ok(path)
    }

    /// Gives a file or directory to this account.
    pub(crate) fn own(self, path: &Path) -> Outcome {
        if let Self::Postgres(user, group) = self {
            chown(path, Some(user), Some(group))?;
        }
        Ok(())
    }
}

/// Where directories are made: `/tmp`, because the path of a socket may have 107 bytes only.
fn base_directory() -> PathBuf {
    std::env::var_os("DBMAZZ_TEST_DIR").map_or_else(|| PathBuf::from("/tmp"), PathBuf::from)
}

fn unique_name() -> String {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.subsec_nanos());
    format!("dbmazz-{}-{}-{clock:x}", process::id(), COUNTER.fetch_add(1, Ordering::Relaxed))
}

fn number_of_postgres(which: &str) -> Outcome<u32> {
    let output = Command::new("id").args([which, "postgres"]).output()?;
    if !output.status.success() {
        return Err(Failure::new(
            "could not run PostgreSQL as root: there is no user \"postgres\" to run it as",
        ));
    }
    Ok(String::from_utf8(output.stdout)?.trim().parse()?)
}
