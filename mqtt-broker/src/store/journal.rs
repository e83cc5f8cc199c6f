//! Cuts a damaged tail off the newest journal of fjall, which by itself cuts only what is visibly incomplete
//! and refuses to open when a block in the middle of the last batch did not reach the disk.
//!
//! A journal is a sequence of batches: a start (`01`, items:4, sequence number:8), so many items (`02`,
//! type:1, compression:1, keyspace:8, key length:2, value length:4, stored length:4, key, value) or clears
//! (`04`, keyspace:8), and an end (`03`, hash of the items:8, a trailer:4). Zeros follow. Little-endian.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
const TRAILER: [u8; 4] = *b"FJL\x03";
/// More than sequence numbers go up from one batch to the next, or until the first of a journal, in any time.
const STRIDE: u64 = 1 << 48;
/// Type, compression, keyspace, the three lengths.
const ITEM_HEAD: usize = 1 + 1 + 8 + 2 + 4 + 4;

/// What was cut off.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) journal: PathBuf,
    /// Bytes of whole batches.
    pub(super) kept: u64,
    /// Bytes behind them up to the last that is not zero.
    pub(super) lost: u64,
}

/// Cuts the newest journal in the directory of a database, if there is more than zeros behind its last
/// whole batch.
pub(super) fn cut_damaged_tail(directory: &Path) -> io::Result<Option<Cut>> {
    let Some((_, journal)) = newest(directory)? else {
        return Ok(None);
    };
    let file = File::open(&journal)?;
    let kept = whole_batches(&file)?;
    let lost = last_of_content(&file, kept)?;
    if lost == 0 {
        return Ok(None);
    }
    let cut = Cut {
        journal,
        kept,
        lost,
    };
    let file = OpenOptions::new().write(true).open(&cut.journal)?;
    file.set_len(cut.kept)?;
    file.sync_all()?;
    sync_directory(directory)?;
    Ok(Some(cut))
}

/// Puts the journals in order after a commit failed. What the system shows of the batches from `synced` on is what it
/// remembers, not what the disk has, and it does not try to write that again. Those before `written` were content
/// with the system and stay: they are written once more. The others are removed.
pub(super) fn cut_unsynced(directory: &Path, synced: u64, written: u64) -> io::Result<()> {
    for (_, path) in all(directory)? {
        let mut file = OpenOptions::new().read(true).write(true).open(&path)?;
        let length = file.metadata()?.len();
        let durable = batches(&file, |number| number < synced)?;
        if durable == length {
            continue;
        }
        file.rewind()?;
        let kept = batches(&file, |number| number < written)?;
        write_again(&mut file, durable, kept)?;
        file.set_len(kept)?;
        file.sync_all()?;
    }
    sync_directory(directory)
}

/// Writes a part of a file as it is there.
fn write_again(file: &mut (impl Read + Write + Seek), from: u64, to: u64) -> io::Result<()> {
    const STEP: u64 = 1 << 20;
    let mut bytes = Vec::new();
    let mut at = from;
    while at < to {
        bytes.clear();
        file.seek(SeekFrom::Start(at))?;
        let read = (&mut *file)
            .take(STEP.min(to - at))
            .read_to_end(&mut bytes)? as u64;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        file.seek(SeekFrom::Start(at))?;
        file.write_all(&bytes)?;
        at += read;
    }
    Ok(())
}

/// Makes the newest journal durable: what the broker before wrote last may be with the system only.
pub(super) fn sync(directory: &Path) -> io::Result<()> {
    match newest(directory)? {
        Some((_, path)) => File::open(path)?.sync_all(),
        None => Ok(()),
    }
}

/// Makes the names in a directory durable, where the system has a way to ask for it.
pub(crate) fn sync_directory(directory: &Path) -> io::Result<()> {
    if cfg!(windows) {
        return Ok(());
    }
    File::open(directory)?.sync_all()
}

/// With its number.
fn newest(directory: &Path) -> io::Result<Option<(u64, PathBuf)>> {
    Ok(all(directory)?.into_iter().max())
}

/// With their numbers.
fn all(directory: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let number = path
            .file_name()
            .and_then(|name| name.to_str()?.strip_suffix(".jnl")?.parse::<u64>().ok());
        if let Some(number) = number {
            all.push((number, path));
        }
    }
    Ok(all)
}

/// Length of the whole batches that the file begins with.
///
/// The hash of a batch does not cover its sequence number. One that does not follow the number before it is
/// damaged: the database would go on counting from there, or refuse to open as it has run out of numbers.
fn whole_batches(file: &File) -> io::Result<u64> {
    let mut last = 0;
    batches(file, |number| {
        let follows = number >= last && number - last < STRIDE;
        last = number;
        follows
    })
}

/// Length of the whole batches that the file begins with, as far as their sequence numbers are wanted.
fn batches(file: &File, mut wanted: impl FnMut(u64) -> bool) -> io::Result<u64> {
    let mut scan = Scan {
        left: file.metadata()?.len(),
        reader: BufReader::new(file),
        buffer: Vec::new(),
    };
    let length = scan.left;
    let mut whole = 0;
    while scan.batch()?.is_some_and(&mut wanted) {
        whole = length - scan.left;
    }
    Ok(whole)
}

/// How far it is from `from` to behind the last byte that is not zero.
fn last_of_content(mut file: &File, from: u64) -> io::Result<u64> {
    const ZEROS: [u8; 4096] = [0; 4096];
    let mut block = vec![0; 16 * ZEROS.len()];
    let (mut at, mut end) = (from, from);
    while let Some(next) = next_data(file, at)? {
        at = file.seek(SeekFrom::Start(next))?;
        let count = file.read(&mut block)?;
        let read = block.get(..count).unwrap_or_default();
        if read.is_empty() {
            break;
        }
        let is_zero = read.chunks(ZEROS.len()).all(|it| ZEROS.starts_with(it));
        if !is_zero && let Some(last) = read.iter().rposition(|byte| *byte != 0) {
            end = at + last as u64 + 1;
        }
        at += count as u64;
    }
    Ok(end - from)
}

/// Where the file goes on at or behind `from` with what may be more than zeros; `None`: nowhere. A journal is made as
/// long as it may become, and nearly all of a young one is a hole.
fn next_data(file: &File, from: u64) -> io::Result<Option<u64>> {
    #[cfg(target_os = "linux")]
    match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(from)) {
        Ok(next) => return Ok(Some(next)),
        Err(rustix::io::Errno::NXIO) => return Ok(None),
        // A file system that does not tell: all of it may be data.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::OPNOTSUPP) => {}
        Err(error) => return Err(error.into()),
    }
    let length = file.metadata()?.len();
    Ok((from < length).then_some(from))
}

/// Reads batches. Where a function returns `false` or `None`, what is there is no part of a whole batch.
struct Scan<'f> {
    reader: BufReader<&'f File>,
    left: u64,
    buffer: Vec<u8>,
}

impl Scan<'_> {
    /// The sequence number of the next one.
    fn batch(&mut self) -> io::Result<Option<u64>> {
        let Some([START, items @ ..]) = self.array::<5>()? else {
            return Ok(None);
        };
        let Some(number) = self.array::<8>()? else {
            return Ok(None);
        };
        let mut hash = Xxh3::new();
        for _ in 0..u32::from_le_bytes(items) {
            if !self.item(&mut hash)? {
                return Ok(None);
            }
        }
        let Some([END, expected @ ..]) = self.array::<9>()? else {
            return Ok(None);
        };
        let whole = hash.digest() == u64::from_le_bytes(expected);
        let whole = whole && self.array()? == Some(TRAILER);
        Ok(whole.then_some(u64::from_le_bytes(number)))
    }

    fn item(&mut self, hash: &mut Xxh3) -> io::Result<bool> {
        let Some(tag) = self.array::<1>()? else {
            return Ok(false);
        };
        hash.update(&tag);
        let rest = match tag {
            [ITEM] => {
                let Some(head) = self.array::<ITEM_HEAD>()? else {
                    return Ok(false);
                };
                hash.update(&head);
                let [.., k0, k1, _, _, _, _, v0, v1, v2, v3] = head;
                let key = u64::from(u16::from_le_bytes([k0, k1]));
                key + u64::from(u32::from_le_bytes([v0, v1, v2, v3]))
            }
            [CLEAR] => 8,
            _ => return Ok(false),
        };
        if rest > self.left {
            return Ok(false);
        }
        self.left -= rest;
        self.buffer.clear();
        let read = self
            .reader
            .by_ref()
            .take(rest)
            .read_to_end(&mut self.buffer)?;
        hash.update(&self.buffer);
        Ok(read as u64 == rest)
    }

    fn array<const N: usize>(&mut self) -> io::Result<Option<[u8; N]>> {
        if self.left < N as u64 {
            return Ok(None);
        }
        self.left -= N as u64;
        let mut bytes = [0; N];
        self.reader.read_exact(&mut bytes)?;
        Ok(Some(bytes))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    /// Remembers where it was written.
    #[derive(Default)]
    struct Recorder {
        file: Cursor<Vec<u8>>,
        written: Vec<(u64, Vec<u8>)>,
    }

    impl Read for Recorder {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.file.read(buffer)
        }
    }

    impl Seek for Recorder {
        fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
            self.file.seek(to)
        }
    }

    impl Write for Recorder {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.written.push((self.file.position(), bytes.to_vec()));
            self.file.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Most of a journal is a hole, and zeros that were written are no content either.
    #[test]
    fn content_is_found_behind_holes_and_zeros() {
        const LENGTH: u64 = 64 << 20;
        let mut file = tempfile::tempfile().unwrap();
        file.set_len(LENGTH).unwrap();
        assert_eq!(last_of_content(&file, 0).unwrap(), 0);
        for at in [0, 4_095, 65_536, 40 << 20, LENGTH - 5] {
            file.seek(SeekFrom::Start(at)).unwrap();
            file.write_all(&[0, 7, 0, 0]).unwrap();
            for from in [0, at / 2, at, at + 1] {
                assert_eq!(last_of_content(&file, from).unwrap(), at + 2 - from);
            }
            assert_eq!(last_of_content(&file, at + 2).unwrap(), 0);
        }
        assert_eq!(last_of_content(&file, LENGTH).unwrap(), 0);
    }

    /// The part is written in its place with what is there, each byte of it and no other; the rest is left alone.
    #[test]
    fn a_part_is_written_as_it_is() {
        const MIB: u64 = 1 << 20;
        let content: Vec<u8> = (0..5 * MIB).map(|at| (at % 251) as u8).collect();
        for (from, to) in [
            (0, 10),
            (7, 7),
            (3, MIB + 3),
            (1, 3 * MIB + 9),
            (0, 5 * MIB),
        ] {
            let mut file = Recorder {
                file: Cursor::new(content.clone()),
                written: Vec::new(),
            };
            write_again(&mut file, from, to).unwrap();
            let mut at = from;
            for (place, bytes) in &file.written {
                assert_eq!(*place, at);
                at += bytes.len() as u64;
                assert_eq!(*bytes, content[*place as usize..at as usize]);
            }
            assert_eq!(at, to);
            assert!(file.file.into_inner() == content);
        }
        let mut short = Recorder::default();
        assert!(write_again(&mut short, 0, 1).is_err());
    }
}
