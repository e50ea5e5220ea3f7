//! An S3 server: `s3s-fs`, whose objects are plain files. It ends with the process that started it, however that ends.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::{Failure, Outcome, wait_until};

/// The bucket that is there.
pub(crate) const BUCKET: &str = "exports";
pub(crate) const KEY: &str = "test-key";
pub(crate) const SECRET: &str = "test-secret-0123456789";

/// A running S3 server with one bucket.
pub(crate) struct S3Server {
    directory: PathBuf,
    port: u16,
    shell: Child,
}

/// Waits for the end of its input, which comes with the end of the test.
const SCRIPT: &str = r#"
directory=$1; shift
"$@" >"$directory.log" 2>&1 &
pid=$!
read -r _
kill -9 $pid
rm -rf "$directory" "$directory.log"
"#;

impl S3Server {
    /// Starts it.
    pub(crate) fn start() -> Outcome<Self> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("dbmazz-s3-{}-{number}", std::process::id()));
        fs::create_dir_all(directory.join(BUCKET))?;
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let shell = Command::new("/bin/sh")
            .args(["-c", SCRIPT, "guard"])
            .arg(&directory)
            .args(["s3s-fs", "--host", "127.0.0.1", "--port", &port.to_string()])
            .args(["--access-key", KEY, "--secret-key", SECRET])
            .arg(&directory)
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()?;
        let server = Self { directory, port, shell };
        wait_until("s3s-fs listens", Duration::from_secs(20), || {
            Ok(TcpStream::connect(("127.0.0.1", port)).is_ok())
        })
        .map_err(|failure| Failure::new(format!("{failure}: is s3s-fs installed (tests/setup.sh)?")))?;
        Ok(server)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The file of an object.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(BUCKET).join(name)
    }

    /// What the server keeps of uploads that are not done: parts, and what they belong to.
    pub(crate) fn unfinished(&self) -> Outcome<Vec<String>> {
        let mut found = Vec::new();
        files(&self.directory, &mut found)?;
        found.retain(|name| name.contains(".upload"));
        Ok(found)
    }

    /// Parts of uploads that were not completed. One that has been begun need not have any.
    pub(crate) fn parts(&self) -> Outcome<Vec<String>> {
        let mut found = self.unfinished()?;
        found.retain(|name| name.contains(".upload_id-"));
        Ok(found)
    }

    /// The log of the server.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.with_extension("log")).unwrap_or_default()
    }
}

fn files(directory: &Path, found: &mut Vec<String>) -> Outcome {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            files(&path, found)?;
        } else {
            found.push(path.display().to_string());
        }
    }
    Ok(())
}

impl Drop for S3Server {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        if let Err(error) = self.shell.wait() {
            eprintln!("could not wait for the guard of an S3 server: {error}");
        }
    }
}
