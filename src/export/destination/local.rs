//! A directory of the server.
//!
//! An object is written under a name that [`Destination::list`] passes over, in the directory where it will be; finishing
//! is fsync, rename, fsync of the directory. Every step goes through descriptors of directories, part by part, and follows
//! no symbolic link below the root: whoever may write there cannot lead a reader or a writer elsewhere.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::num::NonZero;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{Advice, AtFlags, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::{
    Claim, Destination, Existing, Identity, Object, ObjectWriter, StoreError, UNFINISHED, check_name,
};

/// Objects are files below a directory.
#[derive(Clone, Debug)]
pub struct Local {
    root: PathBuf,
}

impl Local {
    /// The directory `root`, which need not be there: it is created with the first object.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The directory that an object is in, and its name there.
    fn directory_of<'a>(&self, name: &'a str, way: Way) -> Result<(OwnedFd, &'a str), StoreError> {
        check_name(name)?;
        let fail = |error: io::Error| self.failed("open", name, error);
        let mut directory = self.open_root(way).map_err(fail)?;
        let (path, leaf) = name.rsplit_once('/').unwrap_or(("", name));
        for part in path.split('/').filter(|part| !part.is_empty()) {
            directory = enter(&directory, part, way).map_err(|error| fail(error.into()))?;
        }
        Ok((directory, leaf))
    }

    fn open_root(&self, way: Way) -> io::Result<OwnedFd> {
        if way == Way::Create && !self.root.is_dir() {
            create_durably(&self.root)?;
        }
        Ok(rustix::fs::open(&self.root, DIRECTORY - OFlags::NOFOLLOW, Mode::empty())?)
    }

    /// A failure of the directory itself, which is named: nothing in it can be.
    fn unusable(&self, action: &'static str, source: io::Error) -> StoreError {
        StoreError::File { action, path: self.root.display().to_string(), source }
    }

    fn failed(&self, action: &'static str, name: &str, error: io::Error) -> StoreError {
        match error.kind() {
            io::ErrorKind::NotFound => StoreError::Missing { name: name.to_owned() },
            _ => StoreError::File { action, path: self.root.join(name).display().to_string(), source: error },
        }
    }

    /// Every file below the root that `wanted` takes by its own name, with its name and size.
    fn files(&self, wanted: fn(&str) -> bool) -> Result<Vec<Object>, StoreError> {
        let mut found = Vec::new();
        let mut left = vec![String::new()];
        while let Some(directory) = left.pop() {
            let fail = |error| self.failed("read directory", &directory, error);
            let entries = match fs::read_dir(self.root.join(&directory)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                entries => entries.map_err(fail)?,
            };
            for entry in entries {
                let entry = entry.map_err(fail)?;
                let own_name = entry.file_name().to_string_lossy().into_owned();
                let separator = if directory.is_empty() { "" } else { "/" };
                let name = format!("{directory}{separator}{own_name}");
                if entry.file_type().map_err(fail)?.is_dir() {
                    left.push(name);
                } else if wanted(&own_name) {
                    match entry.metadata() {
                        // Its writer has renamed or removed it meanwhile.
                        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                        metadata => found.push(Object { size: metadata.map_err(fail)?.len(), name }),
                    }
                }
            }
        }
        found.sort_unstable();
        Ok(found)
    }
}

impl Destination for Local {
    fn create(&self, name: &str, existing: Existing) -> Result<Box<dyn ObjectWriter>, StoreError> {
        let (directory, leaf) = self.directory_of(name, Way::Create)?;
        let temporary =
            format!("{UNFINISHED}{}-{}", process::id(), NEXT_TEMPORARY.fetch_add(1, Ordering::Relaxed));
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&directory, &temporary, flags, FILE_MODE)
            .map_err(|error| self.failed("create", name, error.into()))?;
        Ok(Box::new(LocalWriter {
            file: File::from(file),
            directory,
            temporary: Some(temporary),
            leaf: leaf.to_owned(),
            written: 0,
            on_its_way: 0,
            path: self.root.join(name).display().to_string(),
            existing,
        }))
    }

    fn open(&self, name: &str) -> Result<Box<dyn Read + Send>, StoreError> {
        let (directory, leaf) = self.directory_of(name, Way::Follow)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = rustix::fs::openat(&directory, leaf, flags, Mode::empty());
        let file = File::from(file.map_err(|error| self.failed("open", name, error.into()))?);
        let is_file = file.metadata().is_ok_and(|metadata| metadata.is_file());
        if !is_file {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "not a regular file");
            return Err(self.failed("open", name, source));
        }
        Ok(Box::new(file))
    }

    fn size(&self, name: &str) -> Result<Option<u64>, StoreError> {
        let (directory, leaf) = match self.directory_of(name, Way::Follow) {
            Err(StoreError::Missing { .. }) => return Ok(None),
            found => found?,
        };
        match rustix::fs::statat(&directory, leaf, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(u64::try_from(stat.st_size).ok()),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(self.failed("stat", name, error.into())),
        }
    }

    fn list(&self, prefix: &str) -> Result<Vec<Object>, StoreError> {
        let mut found = self.files(|name| !name.starts_with(UNFINISHED))?;
        found.retain(|object| object.name.starts_with(prefix));
        Ok(found)
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        let (directory, leaf) = match self.directory_of(name, Way::Follow) {
            Err(StoreError::Missing { .. }) => return Ok(()),
            found => found?,
        };
        match rustix::fs::unlinkat(&directory, leaf, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(self.failed("remove", name, error.into())),
        }
    }

    fn remove_unfinished(&self) -> Result<(), StoreError> {
        for unfinished in self.files(|name| name.starts_with(UNFINISHED))? {
            let path = self.root.join(&unfinished.name);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(self.failed("remove", &unfinished.name, error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn free_bytes(&self) -> Result<Option<u64>, StoreError> {
        // The directory may not be there yet: its nearest ancestor is on the same disk.
        let there = self.root.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
        let free = rustix::fs::statvfs(there).map_err(|error| self.failed("stat", "", error.into()))?;
        Ok(Some(free.f_bavail.saturating_mul(free.f_frsize)))
    }

    fn lock(&self) -> Result<Claim, StoreError> {
        let directory =
            self.open_root(Way::Create).map_err(|error| self.unusable("make or open directory", error))?;
        match rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Claim { directory: Some(directory), is_unguarded: false }),
            Err(Errno::WOULDBLOCK) => Err(StoreError::InUse { place: self.root.display().to_string() }),
            // Network file systems lock no directories.
            Err(Errno::BADF | Errno::NOLCK | Errno::NOTSUP | Errno::NOSYS | Errno::INVAL) => {
                Ok(Claim { directory: None, is_unguarded: true })
            }
            Err(error) => Err(self.unusable("lock", error.into())),
        }
    }

    fn identity(&self) -> Option<Identity> {
        let directory = rustix::fs::stat(&self.root).ok()?;
        Some(Identity { device: directory.st_dev, inode: directory.st_ino })
    }
}

/// The disk is told to begin when there are so many new bytes.
const WRITE_BEHIND: u64 = 4 << 20;

/// A file under its temporary name.
struct LocalWriter {
    file: File,
    directory: OwnedFd,
    /// None when the file is there no more under that name.
    temporary: Option<String>,
    leaf: String,
    written: u64,
    /// Bytes of these that the system was told to write to the disk.
    on_its_way: u64,
    /// For messages.
    path: String,
    existing: Existing,
}

impl LocalWriter {
    fn failed(&self, action: &'static str, source: io::Error) -> StoreError {
        StoreError::File { action, path: self.path.clone(), source }
    }

    /// Has the disk begin with what is there, so that it works while the next bytes are made, and the fsync in the end has little
    /// left to wait for. Linux begins to write when it is told that the bytes are not needed; they stay until that is done.
    fn begin_to_write(&mut self) {
        let bytes = self.written - self.on_its_way;
        if bytes >= WRITE_BEHIND {
            // An advice: whether it is taken matters to nothing but the time.
            let _ = rustix::fs::fadvise(&self.file, self.on_its_way, NonZero::new(bytes), Advice::DontNeed);
            self.on_its_way = self.written;
        }
    }

    fn rename(&self, temporary: &str) -> rustix::io::Result<()> {
        let directory = &self.directory;
        if self.existing == Existing::Replace {
            return rustix::fs::renameat(directory, temporary, directory, &self.leaf);
        }
        let renamed =
            rustix::fs::renameat_with(directory, temporary, directory, &self.leaf, RenameFlags::NOREPLACE);
        match renamed {
            // File systems that cannot: a second link does not replace either.
            Err(Errno::INVAL | Errno::NOSYS) => {
                rustix::fs::linkat(directory, temporary, directory, &self.leaf, AtFlags::empty())?;
                rustix::fs::unlinkat(directory, temporary, AtFlags::empty())
            }
            renamed => renamed,
        }
    }
}

impl Write for LocalWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes).map_err(|error| {
            // Interrupted writes are repeated by the caller, who must see them as they are.
            if error.kind() == io::ErrorKind::Interrupted {
                error
            } else {
                io::Error::from(self.failed("write", error))
            }
        })?;
        self.written += written as u64;
        self.begin_to_write();
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl ObjectWriter for LocalWriter {
    fn finish(mut self: Box<Self>) -> Result<(), StoreError> {
        self.file.sync_all().map_err(|error| self.failed("fsync", error))?;
        let Some(temporary) = self.temporary.as_deref() else { return Ok(()) };
        match self.rename(temporary) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Err(StoreError::Exists { name: self.path.clone() }),
            Err(error) => return Err(self.failed("rename", error.into())),
        }
        self.temporary = None;
        rustix::fs::fsync(&self.directory).map_err(|error| self.failed("fsync directory of", error.into()))
    }

    fn abort(self: Box<Self>) {}
}

impl Drop for LocalWriter {
    fn drop(&mut self) {
        if let Some(temporary) = self.temporary.take() {
            // Nobody can be told; what stays is no object, and is removed before the next attempt.
            let _ = rustix::fs::unlinkat(&self.directory, temporary, AtFlags::empty());
        }
    }
}

/// Whether directories that are missing are made.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Way {
    Follow,
    Create,
}

/// The directory `part` of another one.
fn enter(directory: &OwnedFd, part: &str, way: Way) -> rustix::io::Result<OwnedFd> {
    match rustix::fs::openat(directory, part, DIRECTORY, Mode::empty()) {
        Err(Errno::NOENT) if way == Way::Create => {
            match rustix::fs::mkdirat(directory, part, DIRECTORY_MODE) {
                // Another worker was first.
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error),
            }
            rustix::fs::fsync(directory)?;
            rustix::fs::openat(directory, part, DIRECTORY, Mode::empty())
        }
        opened => opened,
    }
}

/// Makes a directory and what is missing above it.
fn create_durably(path: &Path) -> io::Result<()> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    if !parent.is_dir() {
        create_durably(parent)?;
    }
    match rustix::fs::mkdir(path, DIRECTORY_MODE) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    File::open(parent)?.sync_all()
}

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// An export holds what tables hold: only the server's user reads it.
const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);
const DIRECTORY_MODE: Mode = Mode::RWXU;

/// Distinguishes the temporary names of one process.
static NEXT_TEMPORARY: AtomicU64 = AtomicU64::new(0);

#[cfg(test)]
mod tests;
