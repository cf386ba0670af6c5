//! Follows a directory by the kernel's own events.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use inotify::{EventMask, Inotify, WatchMask};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};

use super::files::{Files, holds_resources, list};
use super::{Directory, Listing};
use crate::datastore::{Selection, Update, Watch};
use crate::resources::{Problem, load};

/// How long a burst of changes must have paused before it is looked at …
const QUIET: Duration = Duration::from_millis(50);
/// … and how long a burst without a pause is waited for.
const BURST: Duration = Duration::from_millis(500);
/// How often the path is looked at, for inotify does not tell that it now leads elsewhere.
const LOOK: Duration = Duration::from_secs(1);
/// How often a path that leads nowhere is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Updates that wait for their reader, before the directory is no longer read on.
const WAITING: usize = 1024;

const CHANGED: Token = Token(0);
const STOPPED: Token = Token(1);

/// Goes on telling what is other in a directory than in `told`, from a thread of its own.
pub(super) fn start(
    directory: &Directory,
    selection: &Selection,
    told: Listing,
) -> io::Result<Watch> {
    list(&directory.path)?;
    let poll = Poll::new()?;
    let waker = Waker::new(poll.registry(), STOPPED)?;
    let (sender, receiver) = bounded(WAITING);
    let (stop, stopped) = bounded(0);
    let mut watcher = Watcher {
        directory: directory.clone(),
        selection: selection.clone(),
        poll,
        watched: None,
        files: Files::default(),
        unreadable: BTreeSet::new(),
        gone: None,
        told,
        in_sync: false,
        updates: sender,
        stopped,
    };
    let thread = thread::Builder::new()
        .name("datastore".into())
        .spawn(move || watcher.run())?;
    let mut stop = Some(stop);
    Ok(Watch::new(receiver, thread, move || {
        drop(stop.take());
        waker.wake().is_ok()
    }))
}

struct Watcher {
    directory: Directory,
    selection: Selection,
    poll: Poll,
    watched: Option<Watched>,
    files: Files,
    /// Files that are there but could not be read, to be tried again.
    unreadable: BTreeSet<OsString>,
    /// Why the directory cannot be read, while it cannot.
    gone: Option<Problem>,
    told: Listing,
    in_sync: bool,
    updates: Sender<Update>,
    stopped: Receiver<()>,
}

/// The directory that the path led to when it was last looked at.
struct Watched {
    inotify: Inotify,
    device_and_inode: (u64, u64),
}

/// What has to be read again.
#[derive(Debug, Default)]
struct Changes {
    /// Everything, because the directory is another or because events were lost.
    all: bool,
    /// The watched directory is no longer at its path.
    moved: bool,
    names: BTreeSet<OsString>,
}

/// The watch was dropped.
struct Stopped;

impl Watcher {
    fn run(&mut self) {
        while self.step().is_ok() {}
    }

    fn step(&mut self) -> Result<(), Stopped> {
        let changes = match self.watched {
            Some(_) => self.wait()?,
            None => self.attach()?,
        };
        if changes.moved {
            self.watched = None;
            return Ok(());
        }
        self.read(&changes);
        self.tell()
    }

    /// Watches the directory that is at the path now, before it is read, so that no change is
    /// missed between the two.
    fn attach(&mut self) -> Result<Changes, Stopped> {
        match self.try_attach() {
            Ok(watched) => {
                self.watched = Some(watched);
                self.gone = None;
                Ok(Changes {
                    all: true,
                    ..Changes::default()
                })
            }
            Err(error) => {
                let first = self.gone.is_none();
                self.gone = Some(self.directory.unreadable(&error));
                if first {
                    self.tell()?;
                }
                self.sleep(LOOK_AGAIN)?;
                Ok(Changes::default())
            }
        }
    }

    fn try_attach(&self) -> io::Result<Watched> {
        let path = &self.directory.path;
        let inotify = Inotify::init()?;
        // Files are read once their writer is done (CLOSE_WRITE) or when they appear as a whole. A
        // new file is read at once, too: links are never written to under their own name.
        let mask = WatchMask::CLOSE_WRITE
            | WatchMask::MOVE
            | WatchMask::CREATE
            | WatchMask::DELETE
            | WatchMask::ATTRIB
            | WatchMask::DELETE_SELF
            | WatchMask::MOVE_SELF
            | WatchMask::ONLYDIR;
        inotify.watches().add(path, mask)?;
        list(path)?;
        let device_and_inode = device_and_inode(path)?;
        self.poll.registry().register(
            &mut SourceFd(&inotify.as_raw_fd()),
            CHANGED,
            Interest::READABLE,
        )?;
        Ok(Watched {
            inotify,
            device_and_inode,
        })
    }

    /// Waits for a burst of changes and for its end.
    fn wait(&mut self) -> Result<Changes, Stopped> {
        let mut changes = Changes::default();
        self.sleep(LOOK)?;
        let began = Instant::now();
        loop {
            let more = match &mut self.watched {
                Some(watched) => watched.drain(&mut changes),
                None => false,
            };
            if !more || began.elapsed() >= BURST {
                break;
            }
            self.sleep(QUIET)?;
        }
        changes.moved |= self.leads_elsewhere();
        Ok(changes)
    }

    fn leads_elsewhere(&self) -> bool {
        let now = device_and_inode(&self.directory.path).ok();
        now != self
            .watched
            .as_ref()
            .map(|watched| watched.device_and_inode)
    }

    fn sleep(&mut self, timeout: Duration) -> Result<(), Stopped> {
        let mut events = Events::with_capacity(8);
        match self.poll.poll(&mut events, Some(timeout)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                log::error!("datastore: waiting for changes failed: {error}");
                Err(Stopped)
            }
            _ if events.iter().any(|event| event.token() == STOPPED) => Err(Stopped),
            _ => Ok(()),
        }
    }

    fn read(&mut self, changes: &Changes) {
        if changes.all {
            match list(&self.directory.path) {
                Ok(present) => {
                    self.files.retain(&present);
                    self.unreadable.clear();
                    for file in &present {
                        self.read_file(file);
                    }
                }
                // What was read before stays, and the next step says that the directory is gone.
                Err(_) => self.watched = None,
            }
            return;
        }
        let again = std::mem::take(&mut self.unreadable);
        for name in changes.names.union(&again) {
            let file = self.directory.path.join(name);
            if file.symlink_metadata().is_err() || file.is_dir() {
                self.files.remove(&file);
            } else {
                self.read_file(&file);
            }
        }
    }

    fn read_file(&mut self, file: &Path) {
        let parsed = load::read(file);
        if parsed.unreadable {
            self.unreadable
                .extend(file.file_name().map(OsStr::to_owned));
        }
        self.files.set(file, parsed);
    }

    /// Tells what is other than told before. New resources come before the deletion of old ones, so
    /// that what takes an old one's place is there first.
    fn tell(&mut self) -> Result<(), Stopped> {
        let mut now = self.files.merge(&self.told);
        now.problems.extend(self.gone.clone());
        let mut updates: Vec<Update> = now
            .resources
            .iter()
            .filter(|(key, _)| self.selection.has(key))
            .filter(|(key, (resource, _))| {
                self.told.resources.get(key).map(|(told, _)| told) != Some(resource)
            })
            .map(|(_, (resource, origin))| Update::Put {
                resource: Box::new(resource.clone()),
                origin: origin.clone(),
            })
            .collect();
        let gone = self.told.resources.keys();
        updates.extend(
            gone.filter(|key| self.selection.has(key) && !now.resources.contains_key(key))
                .map(|key| Update::Delete(key.clone())),
        );
        if now.problems != self.told.problems {
            updates.push(Update::Problems(now.problems.clone()));
        }
        // Before the directory has been read, nothing is known to be in sync.
        let known = self.in_sync || self.gone.is_none();
        if known && !(updates.is_empty() && self.in_sync) {
            updates.push(Update::InSync);
            self.in_sync = true;
        }
        self.told = now;
        updates.into_iter().try_for_each(|update| self.send(update))
    }

    fn send(&self, update: Update) -> Result<(), Stopped> {
        crossbeam_channel::select! {
            send(self.updates, update) -> sent => sent.map_err(|_| Stopped),
            recv(self.stopped) -> _ => Err(Stopped),
        }
    }
}

impl Watched {
    /// Takes all waiting events in, and says whether there were any.
    fn drain(&mut self, changes: &mut Changes) -> bool {
        let mut buffer = [0; 4096];
        let mut any = false;
        loop {
            match self.inotify.read_events(&mut buffer) {
                Ok(events) => {
                    any = true;
                    for event in events {
                        changes.take(event.mask, event.name);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return any,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    changes.moved = true;
                    return any;
                }
            }
        }
    }
}

impl Changes {
    fn take(&mut self, mask: EventMask, name: Option<&OsStr>) {
        let lost =
            EventMask::IGNORED | EventMask::DELETE_SELF | EventMask::MOVE_SELF | EventMask::UNMOUNT;
        if mask.intersects(lost) {
            self.moved = true;
        } else if mask.contains(EventMask::Q_OVERFLOW) {
            self.all = true;
        } else if let Some(name) = name {
            // Kubernetes swaps the contents of a mounted ConfigMap by renaming this link.
            if name == "..data" {
                self.all = true;
            } else if holds_resources(name) {
                self.names.insert(name.to_owned());
            }
        }
    }
}

fn device_and_inode(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}
