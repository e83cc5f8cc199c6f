//! A disk and the cache above it: what the recorded calls wrote, and what of it was synced.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    rc::Rc,
};

use anyhow::{Context, Result, bail};

use super::trace::{Argument, Call};

/// What the power cut leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// Nothing that was not synced: no data, and no name in a directory.
    Dropped,
    /// All names, but no data that was not synced.
    Named,
    /// All that was written, but for the second half of the last write.
    Torn,
    /// All that was written: what is there while the system runs.
    Whole,
}

impl Cut {
    /// The power cuts.
    pub(super) const ALL: [Self; 3] = [Self::Dropped, Self::Named, Self::Torn];
}

#[derive(Debug, Clone)]
enum Edit {
    Write(u64, Rc<[u8]>),
    Length(u64),
}

/// Zeros behind the data up to the length are not held.
#[derive(Debug, Clone, Default)]
struct Bytes {
    data: Vec<u8>,
    length: u64,
}

impl Bytes {
    fn apply(&mut self, edit: &Edit) {
        match edit {
            Edit::Write(at, bytes) => {
                let start = *at as usize;
                let end = start + bytes.len();
                if self.data.len() < end {
                    self.data.resize(end, 0);
                }
                self.data[start..end].copy_from_slice(bytes);
                self.length = self.length.max(end as u64);
            }
            Edit::Length(length) => {
                self.data.truncate(*length as usize);
                self.length = *length;
            }
        }
    }
}

#[derive(Debug)]
enum Node {
    File {
        synced: Bytes,
        pending: Vec<Edit>,
        length: u64,
    },
    Folder {
        synced: BTreeMap<String, usize>,
        now: BTreeMap<String, usize>,
    },
}

impl Node {
    fn file() -> Self {
        Self::File {
            synced: Bytes::default(),
            pending: Vec::new(),
            length: 0,
        }
    }

    fn folder() -> Self {
        Self::Folder {
            synced: BTreeMap::new(),
            now: BTreeMap::new(),
        }
    }
}

/// An open descriptor.
#[derive(Debug, Clone, Copy)]
struct Open {
    node: usize,
    offset: u64,
    append: bool,
}

/// A folder of the recorded program, as it was and as the disk has it.
#[derive(Debug)]
pub(super) struct Disk {
    root: PathBuf,
    nodes: Vec<Node>,
    open: HashMap<i64, Open>,
    /// By thread: how much was pending when its sync began.
    syncing: HashMap<u32, usize>,
    /// The file that was written last.
    last: usize,
    /// Whether fdatasync does nothing.
    lies: bool,
}

impl Disk {
    /// An empty folder at this path, which is a full one. A disk that `lies` lets fdatasync do nothing.
    pub(super) fn new(root: PathBuf, lies: bool) -> Self {
        Self {
            root,
            nodes: vec![Node::folder()],
            open: HashMap::new(),
            syncing: HashMap::new(),
            last: 0,
            lies,
        }
    }

    /// The program has ended.
    pub(super) fn close_all(&mut self) {
        self.open.clear();
        self.syncing.clear();
    }

    /// A sync has begun: what is written from now on it need not take.
    pub(super) fn begin_sync(&mut self, thread: u32, on: i64) {
        if let Some(open) = self.open.get(&on)
            && let Node::File { pending, .. } = &self.nodes[open.node]
        {
            self.syncing.insert(thread, pending.len());
        }
    }

    /// Whether it changes what the disk holds.
    pub(super) fn is_sync(&self, call: &Call) -> bool {
        matches!(call.name.as_str(), "fsync" | "fdatasync")
            && call.result == 0
            && self.descriptor(call).is_some()
    }

    /// Does what the call did.
    pub(super) fn apply(&mut self, call: &Call) -> Result<()> {
        let name = call.name.as_str();
        let inside = call.arguments.iter().enumerate().any(|(index, argument)| {
            let path = argument.path.as_deref().map(Path::new);
            path.is_some_and(|path| path.starts_with(&self.root))
                || path_of(call, index).is_some_and(|path| path.starts_with(&self.root))
        });
        let is_sync = matches!(name, "fsync" | "fdatasync");
        if !inside || call.result < 0 && !is_sync {
            return Ok(());
        }
        match name {
            "openat" => self.open_file(call),
            "lseek" => {
                if let Some(open) = self.descriptor(call).and_then(|on| self.open.get_mut(&on)) {
                    open.offset = call.result as u64;
                }
                Ok(())
            }
            "write" | "writev" | "pwrite64" => self.write(call),
            "ftruncate" => {
                let length = call.arguments.get(1).and_then(|it| it.number);
                self.edit(call, Edit::Length(length.context("no length")? as u64))
            }
            "fallocate" => {
                let number = |index: usize| call.arguments.get(index).and_then(|it| it.number);
                anyhow::ensure!(
                    number(1) == Some(0),
                    "a mode of fallocate that is not known"
                );
                let end = number(2).zip(number(3)).context("no length")?;
                let end = (end.0 + end.1) as u64;
                let (_, open) = self.opened(call)?;
                match &self.nodes[open.node] {
                    Node::File { length, .. } if *length < end => {
                        self.edit(call, Edit::Length(end))
                    }
                    _ => Ok(()),
                }
            }
            "fsync" | "fdatasync" => self.sync(call),
            "mkdir" => {
                let folder = self.nodes.len();
                self.nodes.push(Node::folder());
                let path = path_of(call, 0).context("mkdir without a path")?;
                if path != self.root {
                    self.link(&path, Some(folder))?;
                }
                Ok(())
            }
            "rename" | "renameat" | "renameat2" => {
                let (from, to) = if name == "rename" { (0, 1) } else { (1, 3) };
                let from = path_of(call, from).context("rename without a path")?;
                let to = path_of(call, to).context("rename without a path")?;
                let node = self.find(&from)?;
                self.link(&from, None)?;
                self.link(&to, Some(node))
            }
            "unlink" | "rmdir" => self.link(&path_of(call, 0).context("no path")?, None),
            "unlinkat" => self.link(&path_of(call, 1).context("no path")?, None),
            _ => bail!("{name} cannot be replayed yet"),
        }
    }

    /// Writes what is there after a power cut to a new folder.
    pub(super) fn dump(&self, cut: Cut, to: &Path) -> Result<()> {
        self.dump_node(0, cut, to)
    }

    fn dump_node(&self, node: usize, cut: Cut, to: &Path) -> Result<()> {
        match &self.nodes[node] {
            Node::Folder { synced, now } => {
                fs::create_dir_all(to)?;
                let entries = if cut == Cut::Dropped { synced } else { now };
                for (name, node) in entries {
                    self.dump_node(*node, cut, &to.join(name))?;
                }
            }
            Node::File {
                synced, pending, ..
            } => {
                let mut bytes = synced.clone();
                if matches!(cut, Cut::Torn | Cut::Whole) {
                    for (index, edit) in pending.iter().enumerate() {
                        match edit {
                            Edit::Write(at, data)
                                if cut == Cut::Torn
                                    && node == self.last
                                    && index + 1 == pending.len() =>
                            {
                                let half = Rc::from(&data[..data.len() / 2]);
                                bytes.apply(&Edit::Write(*at, half));
                            }
                            edit => bytes.apply(edit),
                        }
                    }
                }
                let mut file = File::create(to)?;
                file.write_all(&bytes.data)?;
                file.set_len(bytes.length)?;
            }
        }
        Ok(())
    }

    fn descriptor(&self, call: &Call) -> Option<i64> {
        let first = call.arguments.first()?;
        let path = first.path.as_deref().map(Path::new)?;
        path.starts_with(&self.root).then_some(first.number?)
    }

    fn opened(&self, call: &Call) -> Result<(i64, Open)> {
        let on = self.descriptor(call).context("a call on no file")?;
        let open = self
            .open
            .get(&on)
            .with_context(|| format!("{call:?}: not open"))?;
        Ok((on, *open))
    }

    fn open_file(&mut self, call: &Call) -> Result<()> {
        let path = path_of(call, 1).context("openat without a path")?;
        let flags = call.arguments.get(2).map_or("", |it| it.text.as_str());
        let has = |flag| flags.split('|').any(|it| it == flag);
        let node = match self.find(&path) {
            Ok(node) => node,
            Err(_) if has("O_CREAT") => {
                self.nodes.push(Node::file());
                self.link(&path, Some(self.nodes.len() - 1))?;
                self.nodes.len() - 1
            }
            Err(error) => return Err(error),
        };
        let open = Open {
            node,
            offset: 0,
            append: has("O_APPEND"),
        };
        self.open.insert(call.result, open);
        if has("O_TRUNC") {
            self.change(node, Edit::Length(0));
        }
        Ok(())
    }

    fn moved(&mut self, call: &Call, by: u64) -> Result<()> {
        let (on, open) = self.opened(call)?;
        let offset = open.offset + by;
        self.open.insert(on, Open { offset, ..open });
        Ok(())
    }

    fn write(&mut self, call: &Call) -> Result<()> {
        let (_, open) = self.opened(call)?;
        let written = call.result as usize;
        let data = call.arguments.get(1).map_or(&[][..], |it| &it.bytes);
        let data = data
            .get(..written)
            .context("strace has cut a write short")?;
        let positioned = call.name == "pwrite64";
        let at = if positioned {
            let last: Option<&Argument> = call.arguments.last();
            last.and_then(|it| it.number).context("no offset")? as u64
        } else if let (true, Node::File { length, .. }) = (open.append, &self.nodes[open.node]) {
            *length
        } else {
            open.offset
        };
        self.change(open.node, Edit::Write(at, Rc::from(data)));
        if !positioned {
            self.moved(call, written as u64)?;
        }
        Ok(())
    }

    fn edit(&mut self, call: &Call, edit: Edit) -> Result<()> {
        let (_, open) = self.opened(call)?;
        self.change(open.node, edit);
        Ok(())
    }

    fn change(&mut self, node: usize, edit: Edit) {
        if let Node::File {
            pending, length, ..
        } = &mut self.nodes[node]
        {
            match &edit {
                Edit::Write(at, data) => *length = (*length).max(at + data.len() as u64),
                Edit::Length(new) => *length = *new,
            }
            pending.push(edit);
            self.last = node;
        }
    }

    /// What a failed sync should have taken is dropped from the cache as written: it never gets there.
    fn sync(&mut self, call: &Call) -> Result<()> {
        let (_, open) = self.opened(call)?;
        let begun = self.syncing.remove(&call.thread);
        if self.lies && call.name == "fdatasync" {
            return Ok(());
        }
        match &mut self.nodes[open.node] {
            Node::File {
                synced, pending, ..
            } => {
                let count = begun.unwrap_or(pending.len()).min(pending.len());
                for edit in pending.drain(..count) {
                    if call.result == 0 {
                        synced.apply(&edit);
                    }
                }
            }
            Node::Folder { synced, now } if call.result == 0 => synced.clone_from(now),
            Node::Folder { .. } => {}
        }
        Ok(())
    }

    fn find(&self, path: &Path) -> Result<usize> {
        let mut node = 0;
        for part in path.strip_prefix(&self.root)?.iter() {
            let Node::Folder { now, .. } = &self.nodes[node] else {
                bail!("{} is below a file", path.display());
            };
            let found = now.get(&*part.to_string_lossy());
            node = *found.with_context(|| format!("{} is not there", path.display()))?;
        }
        Ok(node)
    }

    /// Lets the name mean this node, or nothing.
    fn link(&mut self, path: &Path, node: Option<usize>) -> Result<()> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            bail!("{} has no name", path.display());
        };
        let parent = self.find(parent)?;
        let Node::Folder { now, .. } = &mut self.nodes[parent] else {
            bail!("{} is below a file", path.display());
        };
        let name = name.to_string_lossy().into_owned();
        match node {
            Some(node) => now.insert(name, node),
            None => now.remove(&name),
        };
        Ok(())
    }
}

/// The path in an argument, below that of the descriptor before it.
fn path_of(call: &Call, index: usize) -> Option<PathBuf> {
    let bytes = &call.arguments.get(index)?.bytes;
    if bytes.is_empty() {
        return None;
    }
    let path = PathBuf::from(String::from_utf8_lossy(bytes).into_owned());
    let before = index
        .checked_sub(1)
        .and_then(|index| call.arguments.get(index));
    let base = before.and_then(|it| it.path.as_deref()).unwrap_or("");
    Some(Path::new(base).join(path))
}
