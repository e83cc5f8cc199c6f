//! The room that a store has: a bound for its directory, and a reserve for a disk that is full.
//!
//! The file `reserve` in the data directory takes space that nobody else can take meanwhile. When there is none left
//! it is removed, so that acknowledgements and deletions still fit; it comes back when there is space for it again.
//! In between no new message is taken.

use core::time::Duration;
use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use tracing::{info, warn};

use crate::config::Config;
use crate::counters::DropReason;
use crate::store::journal::sync_directory;

const RESERVE: &str = "reserve";
/// How often it is looked how much room there is, at least: in time, and in bytes of changes.
pub(super) const LOOK: Duration = if cfg!(test) {
    Duration::ZERO
} else {
    Duration::from_secs(1)
};
const STEP: usize = 4 << 20;

/// Bounds of the space that a store takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    /// Bytes of the directory beyond which no message is taken.
    pub(crate) directory: u64,
    /// Bytes of the reserve; 0: there is none.
    pub(crate) reserve: u64,
}

impl Room {
    /// As a store that is in no directory has it.
    pub(crate) const UNLIMITED: Self = Self {
        directory: u64::MAX,
        reserve: 0,
    };

    pub(crate) fn of(config: &Config) -> Self {
        Self {
            directory: config.data_directory_bytes,
            reserve: config.disk_reserve_bytes,
        }
    }
}

/// Why no new message is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// The directory has its bound.
    Directory,
    /// There is no space on the disk but the reserve.
    Disk,
}

impl Full {
    pub(crate) fn drop_reason(self) -> DropReason {
        match self {
            Self::Directory => DropReason::DirectoryFull,
            Self::Disk => DropReason::DiskFull,
        }
    }
}

/// Free bytes of the file system of a path.
type Free = Box<dyn FnMut(&Path) -> io::Result<u64> + Send>;

/// Knows how much room there is. Used by one thread, which has the directory locked.
pub(crate) struct Space {
    directory: PathBuf,
    /// Whether there is a directory that bounds may be set for.
    is_bounded: bool,
    room: Room,
    free: Free,
    /// Whether the reserve is there.
    held: bool,
    full: Option<Full>,
    /// When it was looked last, and bytes of changes since then.
    looked: Option<Instant>,
    written: usize,
}

impl Space {
    pub(crate) fn new(directory: &Path, room: Room) -> Self {
        Self::with_free(directory, room, Box::new(free))
    }

    /// One that always has room, of a store that is in no directory.
    pub(crate) fn unlimited() -> Self {
        Self {
            is_bounded: false,
            ..Self::new(Path::new("nowhere"), Room::UNLIMITED)
        }
    }

    pub(super) fn with_free(directory: &Path, room: Room, free: Free) -> Self {
        Self {
            directory: directory.to_owned(),
            is_bounded: true,
            room,
            free,
            held: false,
            full: None,
            looked: None,
            written: 0,
        }
    }

    /// Other bounds hold; it is looked at once whether there is room by them. A reserve of another size is let go before
    /// the new one is taken.
    pub(super) fn set(&mut self, room: Room) {
        if !self.is_bounded || room == self.room {
            return;
        }
        if room.reserve != self.room.reserve {
            if let Err(error) = self.let_go() {
                warn!(%error, "cannot remove the reserve of the store");
            }
            self.held = false;
        }
        self.room = room;
        self.looked = None;
    }

    fn let_go(&self) -> io::Result<bool> {
        match fs::remove_file(self.directory.join(RESERVE)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether new messages are to be refused, after so many bytes of changes.
    pub(super) fn look(&mut self, written: usize) -> Option<Full> {
        self.written += written;
        let fresh = self.looked.is_some_and(|at| at.elapsed() < LOOK);
        if !fresh || self.written >= STEP {
            self.written = 0;
            self.looked = Some(Instant::now());
            match self.measure() {
                Ok(full) => self.note(full),
                Err(error) => warn!(%error, "cannot tell how much space the disk has"),
            }
        }
        self.full
    }

    /// The store has failed: if that is for lack of space, the reserve is let go. What may have been a part of a
    /// failed write counts as free then.
    pub(super) fn failed(&mut self) -> Option<Full> {
        let (reserve, directory) = (self.room.reserve, &self.directory);
        if reserve > 0 && (self.free)(directory).is_ok_and(|free| free < reserve / 2) {
            match self.let_go() {
                Ok(true) => warn!("the disk is full: the store goes on with its reserve"),
                Ok(false) => {}
                Err(error) => warn!(%error, "cannot remove the reserve of the store"),
            }
            self.held = false;
            self.note(Some(Full::Disk));
        }
        self.full
    }

    fn note(&mut self, full: Option<Full>) {
        if full == self.full {
            return;
        }
        self.full = full;
        let directory = self.directory.display();
        match full {
            Some(Full::Disk) => {
                warn!(%directory, "the disk is full: no new messages are stored");
            }
            Some(Full::Directory) => {
                let bound = self.room.directory;
                warn!(%directory, bound, "the directory has reached its bound: no new messages are stored");
            }
            None => info!(%directory, "there is room: new messages are stored again"),
        }
    }

    fn measure(&mut self) -> io::Result<Option<Full>> {
        let Room { directory, reserve } = self.room;
        if reserve > 0 {
            let free = (self.free)(&self.directory)?;
            self.held = self.held || self.is_there()?;
            if !self.held && free >= reserve.saturating_mul(2) {
                self.held = self.take()?;
            }
            if !self.held || free < reserve / 2 {
                return Ok(Some(Full::Disk));
            }
        }
        if directory < u64::MAX && size(&self.directory)? > directory {
            return Ok(Some(Full::Directory));
        }
        Ok(None)
    }

    /// Whether the reserve is there as a broker before left it.
    fn is_there(&self) -> io::Result<bool> {
        let path = self.directory.join(RESERVE);
        match fs::metadata(&path) {
            Ok(found) if found.len() == self.room.reserve => Ok(true),
            Ok(_) => {
                fs::remove_file(&path)?;
                Ok(false)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Takes the reserve; false if there is no space for it.
    fn take(&self) -> io::Result<bool> {
        let path = self.directory.join(RESERVE);
        let mut options = OpenOptions::new();
        let file = options
            .create(true)
            .truncate(true)
            .write(true)
            .open(&path)?;
        match fallocate(&file, FallocateFlags::empty(), 0, self.room.reserve) {
            Ok(()) => {
                file.sync_all()?;
                sync_directory(&self.directory)?;
                Ok(true)
            }
            Err(error) => {
                fs::remove_file(&path)?;
                // Where space cannot be taken, that new messages leave some must do.
                Ok(error == rustix::io::Errno::OPNOTSUPP)
            }
        }
    }
}

fn free(path: &Path) -> io::Result<u64> {
    let found = statvfs(path)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Bytes that the files of a data directory take, without the reserve. One that goes meanwhile takes none.
pub(crate) fn size(directory: &Path) -> io::Result<u64> {
    let mut size = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name() != RESERVE {
            size += size_of_entry(&entry)?;
        }
    }
    Ok(size)
}

fn size_of_entry(entry: &fs::DirEntry) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let gone = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Ok(0),
        _ => Err(error),
    };
    let metadata = match entry.metadata() {
        Ok(metadata) => metadata,
        Err(error) => return gone(error),
    };
    if !metadata.is_dir() {
        // Of 512 bytes, whatever the file system's are.
        return Ok(metadata.blocks() * 512);
    }
    let entries = match fs::read_dir(entry.path()) {
        Ok(entries) => entries,
        Err(error) => return gone(error),
    };
    entries.map(|entry| size_of_entry(&entry?)).sum()
}

#[cfg(test)]
mod tests {
    use core::sync::atomic::{AtomicU64, Ordering};
    use std::sync::Arc;

    use tempfile::TempDir;

    use super::*;

    const ROOM: Room = Room {
        directory: u64::MAX,
        reserve: 8_192,
    };

    /// A space whose disk has as many free bytes as is said.
    fn space(room: Room) -> (TempDir, Space, Arc<AtomicU64>) {
        let directory = TempDir::new().unwrap();
        let bytes = Arc::new(AtomicU64::new(1 << 20));
        let free = Arc::clone(&bytes);
        let free = Box::new(move |_: &Path| Ok(free.load(Ordering::Relaxed)));
        let space = Space::with_free(directory.path(), room, free);
        (directory, space, bytes)
    }

    fn reserve(directory: &TempDir) -> Option<u64> {
        let found = fs::metadata(directory.path().join(RESERVE));
        found.ok().map(|found| found.len())
    }

    #[test]
    fn the_reserve_is_let_go_and_comes_back() {
        let (directory, mut space, free) = space(ROOM);
        assert_eq!(space.look(0), None);
        assert_eq!(reserve(&directory), Some(8_192));
        // A failure for another reason.
        assert_eq!(space.failed(), None);
        assert_eq!(reserve(&directory), Some(8_192));

        free.store(4_095, Ordering::Relaxed);
        assert_eq!(space.look(0), Some(Full::Disk));
        assert_eq!(reserve(&directory), Some(8_192));
        assert_eq!(space.failed(), Some(Full::Disk));
        assert_eq!(reserve(&directory), None);
        // What the reserve took is free, but not to be filled with messages.
        free.store(8_192 + 4_095, Ordering::Relaxed);
        assert_eq!(space.look(0), Some(Full::Disk));
        free.store(16_384, Ordering::Relaxed);
        assert_eq!(space.look(0), None);
        assert_eq!(reserve(&directory), Some(8_192));
    }

    #[test]
    fn a_reserve_is_found_again() {
        let (directory, mut space, free) = space(ROOM);
        assert_eq!(space.look(0), None);
        free.store(5_000, Ordering::Relaxed);
        let mut next = Space::with_free(directory.path(), ROOM, Box::new(|_: &Path| Ok(5_000)));
        assert_eq!(next.look(0), None);
        // One of another size is not.
        let larger = Room {
            reserve: 10_000,
            ..ROOM
        };
        let mut next = Space::with_free(directory.path(), larger, Box::new(|_: &Path| Ok(5_000)));
        assert_eq!(next.look(0), Some(Full::Disk));
        assert_eq!(reserve(&directory), None);
    }

    #[test]
    fn other_bounds_take_the_place_of_those_before() {
        let (directory, mut space, free) = space(ROOM);
        assert_eq!(space.look(0), None);
        let with = |reserve| Room { reserve, ..ROOM };
        space.set(with(20_000));
        assert_eq!(reserve(&directory), None);
        assert_eq!(space.look(0), None);
        assert_eq!(reserve(&directory), Some(20_000));
        // There is no room for so much.
        space.set(with(1 << 20));
        assert_eq!(space.look(0), Some(Full::Disk));
        space.set(with(0));
        free.store(0, Ordering::Relaxed);
        assert_eq!(space.look(0), None);
        assert_eq!(reserve(&directory), None);
        space.set(Room {
            directory: 0,
            reserve: 0,
        });
        fs::write(directory.path().join("file"), [1; 60_000]).unwrap();
        assert_eq!(space.look(0), Some(Full::Directory));

        let mut unlimited = Space::unlimited();
        unlimited.set(with(1 << 40));
        assert_eq!(unlimited.look(0), None);
    }

    #[test]
    fn a_directory_has_its_bound() {
        let (directory, mut space, _) = space(Room {
            directory: 50_000,
            reserve: 0,
        });
        assert_eq!(space.look(0), None);
        let below = directory.path().join("store/tables");
        fs::create_dir_all(&below).unwrap();
        fs::write(below.join("1"), [1; 60_000]).unwrap();
        // What the reserve takes does not count.
        fs::write(directory.path().join(RESERVE), [1; 60_000]).unwrap();
        assert_eq!(space.look(0), Some(Full::Directory));
        fs::remove_file(below.join("1")).unwrap();
        assert_eq!(space.look(0), None);
        assert_eq!(reserve(&directory), Some(60_000));
    }
}
