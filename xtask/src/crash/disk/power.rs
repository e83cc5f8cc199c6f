//! Power cuts: a run is recorded, and what the disk held at each of its syncs is built anew in a folder
//! of its own. A broker that is started on it must have all that was acknowledged by then.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::{
    super::{
        WINDOW,
        broker::{Broker, Program},
        journal::{Failure, Journal, Promise},
        look,
        random::Random,
        retained,
        traffic::{RETAINED_FILTER, Traffic},
    },
    conclude,
    past::past,
    replay::{Cut, Disk},
    restored::{self, Name},
    trace::{self, Line},
};
use crate::step::{Steps, quiet, seconds};

/// Starts of the broker in a recorded run.
const STARTS: usize = 2;
/// Traffic of each.
const TRAFFIC: Duration = Duration::from_millis(600);
/// With a failed sync: long enough for the store to be opened again and to go on.
const WITH_FAILURE: Duration = Duration::from_secs(6);
/// The sync of each thread that fails, in the second start, is one of these.
const FAILED_SYNC: (usize, usize) = (30, 60);
/// The clock of strace may differ by so much, in microseconds.
const CLOCK: u64 = 50;
/// So many brokers are looked at together: each mostly waits.
const WORKERS: usize = 4;
/// How long strace may take to write its last line.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The disk does what it is told.
    Honest,
    /// One sync fails.
    FailedSync,
    /// The power is cut while the store is compacted.
    Compaction,
    /// The disk keeps nothing of a file that it was told to sync: the losses must be found.
    Lying,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Honest => "power cut",
            Self::FailedSync => "power cut after a failed sync",
            Self::Compaction => "power cut in a compaction",
            Self::Lying => "power cut of a disk that lies",
        }
    }
}

struct Recorded {
    traces: Vec<PathBuf>,
    clients: Vec<Name>,
    journal: Journal,
}

/// Records a run and cuts the power at so many points of it, or all.
pub(super) fn run(
    program: &Path,
    folder: &Path,
    seed: u64,
    points: Option<usize>,
    kind: Kind,
    steps: &mut Steps,
) {
    let name = kind.name();
    let folder = folder.join(name.replace(' ', "-"));
    steps.run(name, || {
        let mut random = Random::new(seed);
        let recorded = record(program, &folder, &mut random, kind)?;
        cut(program, &folder, &recorded, points, kind, &mut random)
    });
}

fn record(program: &Path, folder: &Path, random: &mut Random, kind: Kind) -> Result<Recorded> {
    fs::create_dir_all(folder)?;
    let mut traffic = Traffic::new(random, true);
    let mut traces = Vec::new();
    for start in 0..STARTS {
        let path = folder.join(format!("trace-{start}"));
        let mut tracer = recording(&path);
        let fails = kind == Kind::FailedSync && start + 1 == STARTS;
        if fails {
            let number = FAILED_SYNC.0 + random.below(FAILED_SYNC.1 - FAILED_SYNC.0);
            println!("sync {number} fails");
            tracer.push("-e".into());
            tracer.push(format!("inject=fdatasync:error=EIO:when={number}").into());
        }
        let program = Program::Ours {
            // Of one start most that waits is on the disk alone.
            window: (start > 0).then_some(WINDOW),
            durability: None,
            path: program.to_owned(),
            stored: true,
            tracer,
        };
        let broker = Broker::start(&program, folder)?;
        look(&mut traffic, &broker, "while it is recorded")?;
        let time = if fails { WITH_FAILURE } else { TRAFFIC };
        traffic.run(broker.address, Instant::now() + time);
        // Not killed: what a call did that was cut off is not in the trace.
        broker.terminate()?;
        traffic.crash();
        wait_for_end(&path)?;
        traces.push(path);
    }
    if kind == Kind::Compaction {
        let path = folder.join("trace-compaction");
        let mut line = recording(&path).into_iter();
        let mut command = Command::new(line.next().unwrap_or_default());
        command.args(line).arg(program).args(["store", "compact"]);
        quiet(command.arg("--data-dir").arg(folder.join("data")))?;
        wait_for_end(&path)?;
        traces.push(path);
    }
    Ok(Recorded {
        traces,
        clients: traffic.clients(),
        journal: traffic.journal,
    })
}

/// How a program is started whose calls are recorded.
fn recording(path: &Path) -> Vec<OsString> {
    // With -D the program is our child, and strace ends with it.
    let words = "strace -D -f -y -ttt -T -xx -s 100000000 -o";
    let mut line: Vec<OsString> = words.split(' ').map(OsString::from).collect();
    line.push(path.into());
    line.extend(["-e", trace::CALLS].map(OsString::from));
    line
}

/// Waits until strace has written how the broker ended.
fn wait_for_end(path: &Path) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let text = fs::read(path)?;
        let tail = &text[text.len().saturating_sub(200)..];
        let tail = String::from_utf8_lossy(tail);
        let process = text.split(|byte| *byte == b' ').next().unwrap_or_default();
        let end = format!("{} ", String::from_utf8_lossy(process));
        let ended = tail
            .lines()
            .any(|line| line.starts_with(&end) && line.ends_with("+++"));
        if ended && tail.ends_with('\n') {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "strace does not end");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Replays the run and looks at the chosen points, just before each sync took effect, and at the end.
fn cut(
    program: &Path,
    folder: &Path,
    recorded: &Recorded,
    points: Option<usize>,
    kind: Kind,
    random: &mut Random,
) -> Result<()> {
    let mut runs = Vec::new();
    for path in &recorded.traces {
        runs.push(trace::read(&String::from_utf8_lossy(&fs::read(path)?))?);
    }
    let root = folder.join("data");
    let probe = Disk::new(root.clone(), false);
    let syncs = |run: &Vec<Line>| {
        run.iter()
            .filter(|it| matches!(it, Line::Done(call) if probe.is_sync(call)))
            .count()
    };
    let total: usize = runs.iter().map(syncs).sum();
    let first = match kind {
        // Before it there is nothing that other parts do not look at.
        Kind::Compaction => total - runs.last().map_or(0, syncs),
        Kind::Honest | Kind::FailedSync | Kind::Lying => 0,
    };
    let mut wanted = vec![false; first * Cut::ALL.len()];
    wanted.extend(chosen((total - first) * Cut::ALL.len(), points, random));
    println!("{} of {total} syncs are cut at", total - first);
    let begun = Instant::now();
    let mut disk = Disk::new(root, kind == Kind::Lying);
    let mut looks = 0;
    let failures = Mutex::new(Vec::new());
    let (sender, receiver) = mpsc::sync_channel::<Look>(0);
    let receiver = Mutex::new(receiver);
    thread::scope(|scope| -> Result<()> {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                loop {
                    let next = receiver
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .recv();
                    let Ok(look) = next else { return };
                    let found = look.judged(program, recorded, total);
                    let mut failures = failures.lock().unwrap_or_else(PoisonError::into_inner);
                    failures.extend(found);
                }
            });
        }
        let mut look_at = |disk: &Disk, number: usize, until: u64| -> Result<()> {
            for (index, how) in Cut::ALL.into_iter().enumerate() {
                if !wanted
                    .get(number * Cut::ALL.len() + index)
                    .is_none_or(|it| *it)
                {
                    continue;
                }
                let look = Look {
                    number,
                    how,
                    instant: recorded.journal.instant_before(until),
                    folder: folder.join(format!("cut-{number}-{how:?}")),
                };
                disk.dump(how, &look.folder.join("data"))?;
                sender.send(look)?;
                looks += 1;
            }
            Ok(())
        };
        replay(&runs, &mut disk, &mut look_at)?;
        // The workers end when they have done what was sent.
        drop(sender);
        Ok(())
    })?;
    let failures = failures
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    println!(
        "{total} syncs, {looks} brokers started after a power cut in {}; {} messages acknowledged",
        seconds(begun.elapsed()),
        recorded.journal.acknowledged
    );
    if kind == Kind::Lying {
        let lost = failures.iter().filter(|it| it.promise == Promise::Lost);
        let count = lost.count();
        println!("{count} losses found");
        ensure!(count > 0, "the losses of a disk that lies were not found");
        return Ok(());
    }
    conclude(failures, folder)?;
    if kind == Kind::FailedSync {
        // What the sync should have written is in the recorded folder, which is read from the cache.
        return Ok(());
    }
    let whole = folder.join("whole");
    disk.dump(Cut::Whole, &whole)?;
    quiet(
        Command::new("diff")
            .arg("-r")
            .args([&folder.join("data"), &whole]),
    )
    .context("the replay is not what was recorded")?;
    Ok(())
}

/// Does what the runs did. Before each sync takes effect, and at the end, `look` gets the disk, the number of the
/// sync and the time until which it had no effect.
fn replay(
    runs: &[Vec<Line>],
    disk: &mut Disk,
    mut look: impl FnMut(&Disk, usize, u64) -> Result<()>,
) -> Result<()> {
    let mut number = 0;
    for run in runs {
        for line in run {
            match line {
                Line::Begun { thread, name, on } if name.ends_with("sync") => {
                    disk.begin_sync(*thread, *on);
                }
                Line::Begun { .. } => {}
                Line::Done(call) => {
                    if disk.is_sync(call) {
                        look(disk, number, call.ended.saturating_sub(CLOCK))?;
                        number += 1;
                    }
                    disk.apply(call)?;
                }
            }
        }
        disk.close_all();
    }
    look(disk, number, u64::MAX)
}

/// Which of so many points are looked at.
fn chosen(total: usize, points: Option<usize>, random: &mut Random) -> Vec<bool> {
    let Some(points) = points.filter(|points| *points < total) else {
        return vec![true; total];
    };
    let mut wanted = vec![false; total];
    let mut left = points;
    while left > 0 {
        let at = random.below(total);
        if !wanted[at] {
            wanted[at] = true;
            left -= 1;
        }
    }
    wanted
}

/// What is left after a power cut, in a folder of its own.
struct Look {
    number: usize,
    how: Cut,
    /// The last that the clients had seen.
    instant: u64,
    folder: PathBuf,
}

impl Look {
    /// What is found missing, with the place where the power was cut; the folder goes where nothing is.
    fn judged(&self, program: &Path, recorded: &Recorded, total: usize) -> Vec<Failure> {
        let tidied = self.found(program, recorded).and_then(|found| {
            if found.is_empty() {
                fs::remove_dir_all(&self.folder)?;
            }
            Ok(found)
        });
        let found = tidied.unwrap_or_else(|error| {
            vec![Failure {
                promise: Promise::Session,
                text: format!("{error:#}"),
            }]
        });
        let named = found.into_iter().map(|failure| Failure {
            text: format!(
                "{:?} at sync {} of {total}: {}",
                self.how, self.number, failure.text
            ),
            ..failure
        });
        named.collect()
    }

    /// Starts a broker on it, and judges it by what was known then.
    fn found(&self, program: &Path, recorded: &Recorded) -> Result<Vec<Failure>> {
        let program = Program::Ours {
            window: (self.number % 2 == 1).then_some(WINDOW),
            durability: None,
            path: program.to_owned(),
            stored: true,
            tracer: Vec::new(),
        };
        let broker = Broker::start(&program, &self.folder)?;
        let mut journal = past(&recorded.journal, self.instant);
        let owed = journal.owed_retained();
        let found = retained::look(broker.address, RETAINED_FILTER, owed)?;
        journal.check_retained(&found, "then");
        let failures = restored::judge(broker.address, &recorded.clients, journal)?;
        broker.kill()?;
        Ok(failures)
    }
}
