//! Copies of a cluster, as administrators make them: of its files, and as a standby.

use std::fs;
use std::path::Path;

use super::{Cluster, Failure, Outcome, Settings};

impl Cluster {
    /// A copy of the files of a cluster that is stopped. It is not started.
    pub(crate) fn copy_files(&self) -> Outcome<Self> {
        self.beside(|copy| {
            copy.run_as_owner(
                "copying a cluster",
                Path::new("/bin/cp"),
                &["-a", path(&self.data())?, path(&copy.data())?],
            )
        })
    }

    /// Replaces the files of a cluster that is stopped by those of another one.
    pub(crate) fn restore_from(&self, copy: &Self) -> Outcome {
        let configuration = fs::read(self.data().join("postgresql.conf"))?;
        fs::remove_dir_all(self.data())?;
        self.run_as_owner(
            "restoring a cluster",
            Path::new("/bin/cp"),
            &["-a", path(&copy.data())?, path(&self.data())?],
        )?;
        Ok(fs::write(self.data().join("postgresql.conf"), configuration)?)
    }

    /// Starts a copy, on a port of its own.
    pub(crate) fn start_copy(&self) -> Outcome {
        self.start_on_a_free_port()
    }

    /// Starts a copy that recovers as far as its own log goes and then begins a new timeline, as after a restore to a
    /// point in time.
    pub(crate) fn start_copy_on_a_new_timeline(&self) -> Outcome {
        self.configure(&Settings::default().set("restore_command", "false"))?;
        self.run_as_owner(
            "asking for recovery",
            Path::new("/bin/sh"),
            &["-c", "touch \"$1\"/recovery.signal", "sh", path(&self.data())?],
        )?;
        self.start_on_a_free_port()
    }

    /// A standby of a cluster that runs, started. Slots of the primary are not on it.
    pub(crate) fn start_standby(&self) -> Outcome<Self> {
        let port = self.port().to_string();
        let standby = self.beside(|standby| {
            let program = self.installation().program("pg_basebackup");
            let data = standby.data();
            let arguments = ["-h", "127.0.0.1", "-p", &port, "-U", "postgres", "-X", "stream", "-R"];
            let arguments =
                [&arguments[..], &["--checkpoint=fast", "--no-sync", "-D", path(&data)?]].concat();
            standby.run_as_owner("taking a base backup", &program, &arguments)
        })?;
        standby.start_on_a_free_port()?;
        Ok(standby)
    }

    /// Copies the files of a replication slot from a cluster to another one that is stopped, as tools for failover did before
    /// PostgreSQL had a way of its own.
    pub(crate) fn give_slot_to(&self, other: &Self, slot: &str) -> Outcome {
        let from = self.data().join("pg_replslot").join(slot);
        let to = other.data().join("pg_replslot");
        self.run_as_owner("copying a slot", Path::new("/bin/cp"), &["-a", path(&from)?, path(&to)?])
    }

    /// Makes a standby a primary.
    pub(crate) fn promote(&self) -> Outcome {
        self.control("promoting a standby", &["promote", "-t", "60"])
    }
}

fn path(path: &Path) -> Outcome<&str> {
    path.to_str().ok_or_else(|| Failure::new("the directory's name is not UTF-8"))
}
