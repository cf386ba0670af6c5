//! Files that are there as a whole or not at all, whatever happens while they are written.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::store::{REMEDY, UNREADABLE};
use crate::datastore::DatastoreError;
use crate::datastore::interface::Result;

/// The right to change a directory's files; other processes' writers wait until it is dropped. The
/// kernel takes it back from a process that dies.
pub(super) struct Lock(#[allow(dead_code, reason = "held for its drop")] Flock<File>);

const LOCK: &str = ".lock";
/// How long another writer is waited for, and how often it is looked whether it is done.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(1);

/// How the names of files begin and end that are being written.
const TEMPORARY: (&str, &str) = (".", ".underpass-tmp");

impl Lock {
    pub fn take(directory: &Path) -> Result<Self> {
        let path = directory.join(LOCK);
        let failed = |error: &io::Error| match error.kind() {
            io::ErrorKind::NotFound => DatastoreError::Unavailable {
                place: directory.display().to_string(),
                reason: format!("{UNREADABLE}: {error}; {REMEDY}"),
            },
            _ => DatastoreError::io(&path, "cannot be locked", error),
        };
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|error| failed(&error))?;
        let began = Instant::now();
        loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => {
                    remove_leftovers(directory);
                    return Ok(Self(lock));
                }
                Err((back, Errno::EWOULDBLOCK | Errno::EINTR)) if began.elapsed() < PATIENCE => {
                    file = back;
                    thread::sleep(LOOK);
                }
                Err((_, errno)) => return Err(failed(&errno.into())),
            }
        }
    }
}

/// Replaces a file, or removes it if there is no text; the lock is held.
pub(super) fn replace(directory: &Path, file: &Path, text: Option<&str>) -> Result<()> {
    let done = match text {
        Some(text) => write(file, text),
        None => fs::remove_file(file),
    };
    done.and_then(|()| File::open(directory)?.sync_all())
        .map_err(|error| DatastoreError::io(file, "cannot be written", &error))
}

fn write(file: &Path, text: &str) -> io::Result<()> {
    let temporary = temporary(file);
    let written = write_as(&temporary, file, text);
    if written.is_err() {
        // The next writer would remove it as well.
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn write_as(temporary: &Path, file: &Path, text: &str) -> io::Result<()> {
    let mut new = OpenOptions::new()
        .create_new(true)
        .write(true)
        .open(temporary)?;
    if let Ok(before) = fs::metadata(file) {
        new.set_permissions(fs::Permissions::from_mode(before.mode() & 0o7777))?;
        // Only root can give a file to its owner of before; others own what they write.
        let _ = std::os::unix::fs::fchown(&new, Some(before.uid()), Some(before.gid()));
    }
    new.write_all(text.as_bytes())?;
    new.sync_all()?;
    fs::rename(temporary, file)
}

fn temporary(file: &Path) -> PathBuf {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    file.with_file_name(format!("{}{name}{}", TEMPORARY.0, TEMPORARY.1))
}

/// Removes what writers left that died: whoever has the lock is the only writer.
fn remove_leftovers(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(TEMPORARY.0) && name.ends_with(TEMPORARY.1) {
            // What cannot be removed is in nobody's way.
            let _ = fs::remove_file(entry.path());
        }
    }
}
