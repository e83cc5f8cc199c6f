//! What can be done with a data directory while no broker uses it: see what is in it, copy it as JSON lines,
//! make it smaller, measure how fast it is.
//!
//! Each function holds the lock of the directory while it works, and needs memory for all that is in it: more than a
//! broker, which leaves long queues on the disk.

mod export;
mod import;
mod line;
mod measure;
mod summary;
#[cfg(test)]
mod tests;

use std::fs;
use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};

pub use crate::tools::measure::{Load, Taken};

use crate::message::Message;
use crate::store::{
    Clock, Contents, Engine, EngineError, FjallEngine, OpenError, WallTime,
    compact as compact_store, has_store, lock_directory, size_on_disk, sync_directory,
};

/// What was stored is shown as it is: nothing has expired, and times convert to and fro.
const CLOCK: Clock = Clock {
    origin: WallTime(0),
};

/// Within a data directory: the store that is not finished. A broker that finds it removes it.
const UNFINISHED: &str = "store.new";

/// Why something could not be done with a data directory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ToolError {
    /// The directory does not exist, or no broker has used it.
    #[error("there is no store in {}", .0.display())]
    NoStore(PathBuf),
    /// An import needs a new or empty directory.
    #[error("{} is not empty", .0.display())]
    NotEmpty(PathBuf),
    /// A broker uses it, its format is not known to this version, or it is damaged beyond use.
    #[error("{0}")]
    Open(#[source] EngineError),
    /// The store, or the system.
    #[error("the store failed: {0}")]
    Store(#[source] EngineError),
    /// A line of an import is not as it must be.
    #[error("line {line}: {}{problem}", if .key.is_empty() { String::new() } else { format!("{key}: ") })]
    Line {
        /// Counted from 1.
        line: u64,
        /// The key in question, with those around it: `will.delay`. Empty if it is the whole line.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The lines to import cannot be read.
    #[error("cannot read: {0}")]
    Read(#[source] io::Error),
    /// The result cannot be written.
    #[error("cannot write: {0}")]
    Write(#[source] io::Error),
}

impl From<OpenError> for ToolError {
    fn from(error: OpenError) -> Self {
        Self::Open(error.into())
    }
}

/// How [`inspect`] shows what it found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// For people.
    Table,
    /// One JSON object a line.
    Json,
}

/// Bytes on disk before and after [`compact`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compacted {
    /// When it began.
    pub before: u64,
    /// When it was done.
    pub after: u64,
}

/// Shows the sessions of a data directory, a line each, and totals.
///
/// # Errors
/// There is no store, it cannot be used or read, or `out` cannot be written.
pub fn inspect(directory: &Path, form: Form, out: &mut dyn Write) -> Result<(), ToolError> {
    let (engine, contents) = load(directory)?;
    let size = size_on_disk(directory).map_err(failed)?;
    drop(engine);
    let summary = summary::Summary::new(&contents, size);
    let written = match form {
        Form::Table => summary.write_table(out),
        Form::Json => summary.write_json(out),
    };
    written.and_then(|()| out.flush()).map_err(ToolError::Write)
}

/// Writes everything in a data directory as JSON lines, which [`import`] reads.
///
/// # Errors
/// There is no store, it cannot be used or read, or `out` cannot be written.
pub fn export(directory: &Path, out: &mut dyn Write) -> Result<(), ToolError> {
    let (engine, contents) = load(directory)?;
    export::write(&contents, engine.last_commit_at(), out).map_err(ToolError::Write)
}

/// Makes a store of the lines of an [`export`] in a directory that is empty or does not exist. After an error
/// there is no store in it.
///
/// # Errors
/// The directory is not empty or cannot be used, or a line is wrong or missing.
pub fn import(directory: &Path, input: &mut dyn BufRead) -> Result<(), ToolError> {
    // Before the lock makes a file.
    check_empty(directory)?;
    let _lock = lock_directory(directory)?;
    check_empty(directory)?;
    // A data directory within the directory: what is moved out at the end is whole.
    let unfinished = directory.join(UNFINISHED);
    remove(&unfinished)?;
    let done = fill(&unfinished, input).and_then(|()| {
        fs::rename(unfinished.join("store"), directory.join("store")).map_err(failed)?;
        sync_directory(directory).map_err(failed)
    });
    let removed = remove(&unfinished);
    done.and(removed)
}

/// Copies what is live in a store to a new one, which takes its place: without what was replaced or removed, has
/// ended or expired. Until then the directory takes the space of both. Where it is interrupted, one of the two is
/// there and whole, and the next who opens the directory removes the other.
///
/// # Errors
/// There is no store, or it cannot be used, read or written. The store is then as it was.
pub fn compact(directory: &Path) -> Result<Compacted, ToolError> {
    check_store(directory)?;
    let before = size_on_disk(directory).map_err(failed)?;
    compact_store(directory, WallTime::now()).map_err(|error| {
        if error.is::<OpenError>() {
            ToolError::Open(error)
        } else {
            ToolError::Store(error)
        }
    })?;
    let after = size_on_disk(directory).map_err(failed)?;
    Ok(Compacted { before, after })
}

/// Commits queued messages to a store of its own in a directory, which exists or is created, and says how many it
/// took. The store is removed again; one that is there is not touched.
///
/// # Errors
/// A broker uses the directory, or the system fails.
pub fn measure(directory: &Path, load: &Load) -> Result<Taken, ToolError> {
    let _lock = lock_directory(directory)?;
    let unfinished = directory.join(UNFINISHED);
    remove(&unfinished)?;
    let taken = measure::run(&unfinished, load);
    remove(&unfinished)?;
    taken
}

fn load(directory: &Path) -> Result<(FjallEngine, Contents), ToolError> {
    check_store(directory)?;
    let mut engine = FjallEngine::open(directory)?;
    let contents = engine.load(CLOCK, usize::MAX).map_err(ToolError::Store)?;
    Ok((engine, contents))
}

fn fill(directory: &Path, input: &mut dyn BufRead) -> Result<(), ToolError> {
    let mut engine = FjallEngine::open(directory)?;
    engine.load(CLOCK, usize::MAX).map_err(ToolError::Store)?;
    import::read(input, &mut engine)
}

/// A broker makes a store where there is none; who only looks does not.
fn check_store(directory: &Path) -> Result<(), ToolError> {
    if has_store(directory) {
        Ok(())
    } else {
        Err(ToolError::NoStore(directory.to_owned()))
    }
}

/// What an import that failed leaves does not count.
fn check_empty(directory: &Path) -> Result<(), ToolError> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(failed)?,
    };
    for entry in entries {
        let name = entry.map_err(failed)?.file_name();
        if name != "lock" && name != UNFINISHED {
            return Err(ToolError::NotEmpty(directory.to_owned()));
        }
    }
    Ok(())
}

fn remove(directory: &Path) -> Result<(), ToolError> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
        _ => Ok(()),
    }
}

fn failed(error: io::Error) -> ToolError {
    ToolError::Store(error.into())
}

/// When a message that was read with [`CLOCK`] expires.
fn wall(message: &Message) -> Option<u64> {
    message.expires_at.map(|at| CLOCK.wall(at).0)
}
