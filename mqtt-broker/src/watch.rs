//! Files of the configuration that change by themselves, where somebody wants that to count.

use core::hash::{Hash, Hasher};
use core::time::Duration;
use std::collections::BTreeSet;
use std::fs;
use std::hash::DefaultHasher;
use std::path::{Path, PathBuf};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// How long it must be quiet before a change counts: files are written in several steps.
const QUIET: Duration = Duration::from_millis(500);

/// Looks at files, or at nothing.
pub(crate) struct Watch {
    files: Vec<PathBuf>,
    /// What was in them when they were read last.
    content: u64,
    events: Option<Events>,
    /// When it is looked at what is in them: something was heard. It outlives whoever waits for it.
    due: Option<Instant>,
}

struct Events {
    receiver: mpsc::Receiver<()>,
    /// Sends as long as it lives.
    _watcher: RecommendedWatcher,
}

impl Watch {
    /// Looks at nothing yet.
    pub(crate) fn new() -> Self {
        Self {
            files: Vec::new(),
            content: 0,
            events: None,
            due: None,
        }
    }

    /// Looks at these files from now on; `content` is what was read of them.
    pub(crate) fn renew(&mut self, wanted: bool, files: &[PathBuf], content: u64) {
        self.files = files.to_vec();
        self.content = content;
        self.events = None;
        // They may have changed between reading and watching.
        self.due = Some(Instant::now() + QUIET);
        if wanted && !files.is_empty() {
            match watch(files) {
                Ok(events) => self.events = Some(events),
                Err(error) => {
                    tracing::warn!(%error, "changes of the configuration cannot be watched for");
                }
            }
        }
    }

    /// Resolves when a file has another content than before. Never, where nothing is watched. May be dropped and called
    /// again at any time.
    pub(crate) async fn changed(&mut self) {
        loop {
            let Some(events) = &mut self.events else {
                return core::future::pending().await;
            };
            if let Some(due) = self.due {
                sleep_until(due).await;
            } else if events.receiver.recv().await.is_none() {
                self.events = None;
                continue;
            } else {
                self.due = Some(Instant::now() + QUIET);
                continue;
            }
            self.due = None;
            while events.receiver.try_recv().is_ok() {}
            let now = content(&self.files);
            if now != self.content {
                self.content = now;
                return;
            }
        }
    }
}

/// Directories are watched, not files: a file is often replaced by another of its name.
fn watch(files: &[PathBuf]) -> notify::Result<Events> {
    let (sender, receiver) = mpsc::channel(1);
    let mut watcher = notify::recommended_watcher(move |_| {
        // One that waits already says the same.
        let _ = sender.try_send(());
    })?;
    let directories: BTreeSet<&Path> = files
        .iter()
        .map(|file| match file.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        })
        .collect();
    for directory in directories {
        watcher.watch(directory, RecursiveMode::NonRecursive)?;
    }
    Ok(Events {
        receiver,
        _watcher: watcher,
    })
}

/// A digest of what is in files now.
pub(crate) fn content(files: &[PathBuf]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for file in files {
        fs::read(file).ok().hash(&mut hasher);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn watching(file: &Path) -> Watch {
        let files = [file.to_owned()];
        let mut watch = Watch::new();
        watch.renew(true, &files, content(&files));
        watch
    }

    #[tokio::test]
    async fn a_file_that_is_replaced_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("broker.toml");
        fs::write(&file, "old").unwrap();
        let mut watch = watching(&file);
        let next = directory.path().join("next");
        fs::write(&next, "new").unwrap();
        fs::rename(&next, &file).unwrap();
        tokio::time::timeout(PATIENCE, watch.changed())
            .await
            .unwrap();
    }

    /// Whoever waits may have something else to do again and again, as when signals come.
    #[tokio::test]
    async fn a_change_is_noticed_by_who_is_interrupted() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("broker.toml");
        fs::write(&file, "old").unwrap();
        let mut watch = watching(&file);
        fs::write(&file, "new").unwrap();
        let interrupted = async {
            let little = QUIET / 20;
            while tokio::time::timeout(little, watch.changed()).await.is_err() {}
        };
        tokio::time::timeout(PATIENCE, interrupted).await.unwrap();
    }

    /// What changed after it was read and before it was watched is no secret.
    #[tokio::test]
    async fn a_change_before_the_watch_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("broker.toml");
        fs::write(&file, "old").unwrap();
        let read = content(std::slice::from_ref(&file));
        fs::write(&file, "new").unwrap();
        let mut watch = Watch::new();
        watch.renew(true, std::slice::from_ref(&file), read);
        tokio::time::timeout(PATIENCE, watch.changed())
            .await
            .unwrap();
    }
}
