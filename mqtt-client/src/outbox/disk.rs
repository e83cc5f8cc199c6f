//! The directory of an outbox: a lock, and one file of records, which is replaced by a shorter one at times.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::outbox::OutboxError;
use crate::outbox::record::header;

/// What an outbox needs of a disk. Another one stands in where a test has it fail.
pub(crate) trait Disk: Send + std::fmt::Debug {
    /// Appends to the file.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Makes what was appended survive a loss of power.
    fn sync(&mut self) -> io::Result<()>;
    /// Cuts the file.
    fn truncate(&mut self, length: u64) -> io::Result<()>;
    /// Fills the bytes from this place of the file.
    fn read(&mut self, place: u64, into: &mut [u8]) -> io::Result<()>;
    /// Begins another file, with a header, in place of one that was begun and not finished.
    fn begin(&mut self) -> io::Result<()>;
    /// Appends to the other file.
    fn append_other(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Makes what was appended to the other file survive a loss of power.
    fn sync_other(&mut self) -> io::Result<()>;
    /// Puts the other file in the place of the first.
    fn replace(&mut self) -> io::Result<()>;
    /// Removes the other file, as far as that is possible.
    fn abandon(&mut self);
}

/// A directory of the file system. It is locked as long as this lives.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    /// Holds the lock.
    _lock: File,
    file: File,
    generation: u64,
    other: Option<File>,
}

/// The ending of the file in use, and of one that is not whole.
const ENDING: &str = "outbox";
const UNFINISHED: &str = "unfinished";

impl Directory {
    /// Creates the directory where it is missing, and locks it. Also the length of its file.
    pub(crate) fn open(path: &Path) -> Result<(Self, u64), OutboxError> {
        fs::create_dir_all(path)?;
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path.join("lock"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OutboxError::Locked),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        let mut generations = Vec::new();
        for entry in fs::read_dir(path)? {
            let name = PathBuf::from(entry?.file_name());
            let number = name
                .file_stem()
                .and_then(|stem| stem.to_str()?.parse().ok());
            match (name.extension().and_then(|ending| ending.to_str()), number) {
                (Some(ENDING), Some(number)) => generations.push(number),
                // A replacement that was not finished.
                (Some(UNFINISHED), Some(_)) => fs::remove_file(path.join(&name))?,
                _ => {}
            }
        }
        let Some(generation) = generations.iter().copied().max() else {
            let file = create(path, 1)?;
            let mut directory = Self {
                path: path.to_owned(),
                _lock: lock,
                // Replaced in the next step, which names it.
                file: file.try_clone()?,
                generation: 0,
                other: Some(file),
            };
            directory.sync_other()?;
            directory.replace()?;
            let length = directory.file.metadata()?.len();
            return Ok((directory, length));
        };
        for old in generations.iter().filter(|number| **number != generation) {
            // It was replaced, and the removal is all that was left to do.
            fs::remove_file(name(path, *old, ENDING))?;
        }
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .open(name(path, generation, ENDING))?;
        let length = file.metadata()?.len();
        let directory = Self {
            path: path.to_owned(),
            _lock: lock,
            file,
            generation,
            other: None,
        };
        Ok((directory, length))
    }

    /// The file, from its beginning.
    pub(crate) fn reader(&mut self) -> io::Result<impl Read> {
        self.file.seek(SeekFrom::Start(0))?;
        Ok(io::BufReader::with_capacity(1 << 16, &self.file))
    }

    /// Keeps what is to be cut off where somebody can look at it.
    pub(crate) fn keep_rest(&mut self, from: u64) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(from))?;
        let mut copy = File::create(self.path.join("damaged"))?;
        io::copy(&mut self.file, &mut copy)?;
        Ok(())
    }
}

fn name(directory: &Path, generation: u64, ending: &str) -> PathBuf {
    directory.join(format!("{generation}.{ending}"))
}

/// A file with a header, which is not yet the one in use.
fn create(directory: &Path, generation: u64) -> io::Result<File> {
    let path = name(directory, generation, UNFINISHED);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .open(path)?;
    file.write_all(&header())?;
    Ok(file)
}

/// Makes the names in a directory survive a loss of power.
fn sync_names(directory: &Path) -> io::Result<()> {
    if cfg!(unix) {
        File::open(directory)?.sync_all()?;
    }
    Ok(())
}

impl Disk for Directory {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }

    fn read(&mut self, place: u64, into: &mut [u8]) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(place))?;
        self.file.read_exact(into)
    }

    fn begin(&mut self) -> io::Result<()> {
        self.other = Some(create(&self.path, self.generation + 1)?);
        Ok(())
    }

    fn append_other(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.other {
            Some(file) => file.write_all(bytes),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn sync_other(&mut self) -> io::Result<()> {
        match &self.other {
            Some(file) => file.sync_all(),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn replace(&mut self) -> io::Result<()> {
        let file = self.other.take().ok_or(io::ErrorKind::NotFound)?;
        let next = self.generation + 1;
        let path = name(&self.path, next, ENDING);
        fs::rename(name(&self.path, next, UNFINISHED), path)?;
        // From here on it is the one that is found, whatever fails.
        let old = std::mem::replace(&mut self.generation, next);
        self.file = file;
        sync_names(&self.path)?;
        if old > 0 {
            // What stays is removed when the outbox is opened.
            let _ = fs::remove_file(name(&self.path, old, ENDING));
        }
        Ok(())
    }

    fn abandon(&mut self) {
        if self.other.take().is_some() {
            let _ = fs::remove_file(name(&self.path, self.generation + 1, UNFINISHED));
        }
    }
}
