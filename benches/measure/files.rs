//! Where exports and dumps are written: a directory in memory (`/dev/shm`) and one on the disk. What was written is removed
//! before the next run, outside of the measured time.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use dbmazz::export::manifest::Manifest;

use crate::harness::{Failure, Outcome};
use crate::lab::Lab;
use crate::process::cpu_of_children;

/// A lab with directories for files.
pub(crate) struct Files {
    pub(crate) lab: Lab,
    pub(crate) memory: PathBuf,
    pub(crate) disk: PathBuf,
}

/// What something took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken {
    pub(crate) time: Duration,
    /// Processor time of all processes that have ended in it, the server's and ours.
    pub(crate) cpu: Duration,
}

impl Files {
    /// In a new cluster.
    pub(crate) fn new() -> Outcome<Self> {
        let lab = Lab::new()?;
        let memory = Path::new("/dev/shm").join(format!("dbmazz_bench_{}", std::process::id()));
        let disk = lab.pair.source.cluster().make_directory("exports")?;
        fs::create_dir(&memory)?;
        fs::set_permissions(&memory, std::os::unix::fs::PermissionsExt::from_mode(0o777))?;
        Ok(Self { lab, memory, disk })
    }

    /// Times something that the server or a program does.
    pub(crate) fn timed(&mut self, work: impl FnOnce(&mut Self) -> Outcome) -> Outcome<Taken> {
        let postmaster = self.lab.pair.source.cluster().postmaster()?;
        let spent = || -> Outcome<Duration> {
            Ok(cpu_of_children(postmaster)? + cpu_of_children(std::process::id())?)
        };
        let (began, before) = (Instant::now(), spent()?);
        work(self)?;
        let time = began.elapsed();
        // A server's process ends a moment after its last answer.
        std::thread::sleep(Duration::from_millis(300));
        Ok(Taken { time, cpu: spent()?.saturating_sub(before) })
    }

    /// Exports tables with two workers to `place`, where it stays. Returns what it took, and how many bytes there are.
    pub(crate) fn export(&mut self, tables: &str, place: &Path, compression: &str) -> Outcome<(Taken, u64)> {
        let call = format!(
            "SELECT dbmazz_export('{}', '{{{tables}}}'::regclass[],
                 options => '{{\"workers\": 2, \"compression\": \"{compression}\"}}')",
            place.display()
        );
        let taken = self.timed(|files| {
            let id = files.lab.number(&call)?;
            files.lab.pair.source.execute(&format!("SELECT dbmazz_wait_export({id})"))
        })?;
        let json = fs::read(place.join("manifest.json"))?;
        let manifest = Manifest::parse(&json).map_err(|problem| Failure::new(problem.to_string()))?;
        Ok((taken, manifest.files().map(|file| file.compressed_bytes).sum()))
    }

    /// Runs a line of the shell, which finds the database in the environment and the programs of the server on its path.
    pub(crate) fn shell(&mut self, line: &str, variables: &[(&str, &str)]) -> Outcome<Taken> {
        self.timed(|files| {
            let cluster = files.lab.pair.source.cluster();
            let status = Command::new("bash")
                .args(["-euo", "pipefail", "-c", line])
                .env("PGHOST", "127.0.0.1")
                .env("PGUSER", "postgres")
                .env("PGPORT", cluster.port().to_string())
                .env("PGDATABASE", files.lab.pair.source.name())
                .env("pg_dump", cluster.client_program("pg_dump").get_program())
                .env("pg_restore", cluster.client_program("pg_restore").get_program())
                .envs(variables.iter().copied())
                .stdin(Stdio::null())
                .status()?;
            if status.success() { Ok(()) } else { Err(Failure::new(format!("{line}: {status}"))) }
        })
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.memory);
    }
}

/// Removes what is in a directory.
pub(crate) fn clear(directory: &Path) -> Outcome {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() { fs::remove_dir_all(path)? } else { fs::remove_file(path)? }
    }
    Ok(())
}
