//! Files of the configuration that change by themselves, where somebody wants that to count.

use core::hash::{Hash, Hasher};
use core::time::Duration;
use std::collections::BTreeSet;
use std::fs;
use std::hash::DefaultHasher;
use std::path::{Path, PathBuf};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::sleep;

/// How long it must be quiet before a change counts: files are written in several steps.
const QUIET: Duration = Duration::from_millis(500);

/// Looks at files, or at nothing.
pub(crate) struct Watch {
    files: Vec<PathBuf>,
    /// What was in them when they were read last.
    content: u64,
    events: Option<Events>,
}

struct Events {
    receiver: mpsc::Receiver<()>,
    /// Sends as long as it lives.
    _watcher: RecommendedWatcher,
}

impl Watch {
    pub(crate) fn new(wanted: bool, files: &[PathBuf]) -> Self {
        let mut watch = Self {
            files: Vec::new(),
            content: 0,
            events: None,
        };
        watch.renew(wanted, files);
        watch
    }

    /// Looks at these files from now on.
    pub(crate) fn renew(&mut self, wanted: bool, files: &[PathBuf]) {
        self.files = files.to_vec();
        self.content = content(files);
        self.events = None;
        if wanted && !files.is_empty() {
            match watch(files) {
                Ok(events) => self.events = Some(events),
                Err(error) => {
                    tracing::warn!(%error, "changes of the configuration cannot be watched for");
                }
            }
        }
    }

    /// Resolves when a file has another content than before. Never, where nothing is watched.
    pub(crate) async fn changed(&mut self) {
        loop {
            let Some(events) = &mut self.events else {
                return core::future::pending().await;
            };
            if events.receiver.recv().await.is_none() {
                self.events = None;
                continue;
            }
            sleep(QUIET).await;
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

fn content(files: &[PathBuf]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for file in files {
        fs::read(file).ok().hash(&mut hasher);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_that_is_replaced_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("broker.toml");
        fs::write(&file, "old").unwrap();
        let mut watch = Watch::new(true, std::slice::from_ref(&file));
        let next = directory.path().join("next");
        fs::write(&next, "new").unwrap();
        fs::rename(&next, &file).unwrap();
        tokio::time::timeout(Duration::from_secs(60), watch.changed())
            .await
            .unwrap();
    }
}
