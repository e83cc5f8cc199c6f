//! Failing calls and a full disk: who needs no disk is served, nothing is acknowledged that is not safe,
//! and when the disk is well again the broker goes on by itself.

use std::{
    fs,
    io::{ErrorKind, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use super::{
    super::{
        broker::{self, Broker, Program},
        journal::Journal,
        judge, look,
        random::Random,
        traffic::Traffic,
    },
    conclude,
    probe::Probe,
};
use crate::{
    install::NotInstalled,
    process::{processor_time, thread_times},
    step::{Steps, quiet, seconds},
};

/// Traffic before anything fails, and after it is well again.
const HEALTHY: Duration = Duration::from_millis(700);
/// How long a failure, or the end of one, may take to show.
const PATIENCE: Duration = Duration::from_secs(40);
/// What was on its way when the disk failed has arrived after this.
const SETTLED: Duration = Duration::from_millis(300);
/// How long the disk fails: the store is opened again every 2 seconds.
const FAILING: Duration = Duration::from_secs(5);
/// The processor is watched for so long, and may be busy for so much of it.
const WATCHED: (Duration, f64) = (Duration::from_secs(1), 0.4);
/// Bytes of the tmpfs, and what of it others leave: the broker has a reserve of 32 MiB beside that.
const SPACE: usize = 128 << 20;
const LEFT: usize = 3 << 20;
/// Others take the space in such pieces.
const PIECE: usize = 16 << 10;
/// A single failure is one of the first so many calls.
const FIRST_CALLS: usize = 20;

/// What the store says when it fails, and when it works again.
const FAILED: &str = "the store failed";
const OPEN: &str = "the store is open again";
/// What it says of a full disk.
const FULL: &str = "no new messages are stored";
const RESERVE: &str = "the store goes on with its reserve";
const ROOM: &str = "new messages are stored again";

const SYNCS: &str = "fsync,fdatasync";
const WRITES: &str = "write,pwrite64,writev";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// These calls fail with this error, all or (from 1) one of each thread.
    Calls(&'static str, &'static str, Option<usize>),
    /// So much space is left.
    Space(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The broker is killed while its disk fails.
    Kill,
    /// The disk works again while the broker runs.
    Heal,
}

/// Failing syncs and writes.
pub(super) fn run(program: &Path, folder: &Path, seed: u64, full: bool, steps: &mut Steps) {
    let mut random = Random::new(seed);
    let kinds = [(SYNCS, "EIO"), (WRITES, "ENOSPC"), (WRITES, "EIO")];
    for (calls, error) in kinds {
        let all = Fault::Calls(calls, error, None);
        let mut faults = vec![(all, End::Kill), (all, End::Heal)];
        // Each once: a scenario has a folder of its own, by its name.
        let mut numbers: Vec<usize> = (1..=FIRST_CALLS).collect();
        for _ in 0..if full { 8 } else { 2 } {
            let number = numbers.swap_remove(random.below(numbers.len()));
            faults.push((Fault::Calls(calls, error, Some(number)), End::Heal));
        }
        for (fault, end) in faults {
            let seed = random.fork();
            let name = match (fault, end) {
                (Fault::Calls(.., Some(number)), _) => format!("{error} once, {calls} {number}"),
                (_, End::Kill) => format!("{error} {calls}, then kill -9"),
                (_, End::Heal) => format!("{error} {calls}, then well"),
            };
            let folder = folder.join(name.replace([' ', ','], "-"));
            steps.run(&name, || scenario(program, &folder, seed, fault, end));
        }
    }
}

/// A full disk.
pub(super) fn run_space(program: &Path, folder: &Path, seed: u64, steps: &mut Steps) {
    for (name, left, end) in [
        ("full disk, then kill -9", LEFT, End::Kill),
        ("full disk, then space", LEFT, End::Heal),
        ("no byte left, then kill -9", 0, End::Kill),
        ("no byte left, then space", 0, End::Heal),
    ] {
        let folder = folder.join(name.replace([' ', ','], "-"));
        let random = Random::new(seed);
        match Mounted::new(&folder.join("data")) {
            Ok(_mounted) => steps.run(name, || space_scenario(program, &folder, random, left, end)),
            Err(error) => steps.skip(name, &format!("NOT RUN, it needs root: {error:#}")),
        }
    }
}

/// While the disk is full what was acknowledged is delivered, and what is new is refused.
fn space_scenario(
    program: &Path,
    folder: &Path,
    mut random: Random,
    left: usize,
    end: End,
) -> Result<()> {
    let program = ours(program);
    let mut traffic = Traffic::told_of_refusals(&mut random);
    let broker = Broker::start(&program, folder)?;
    let address = broker.address;
    begins(&mut traffic, address)?;

    let log = Log(folder.join("log"));
    let breakage = Breakage::begin(Fault::Space(left), broker.id(), folder)?;
    let patience = Instant::now() + PATIENCE;
    let signs: &[&str] = if left > 0 { &[FULL] } else { &[FULL, RESERVE] };
    let full = traffic.run_until(address, patience, |_| signs.iter().all(|it| log.has(it)));
    ensure!(full, "the log does not say {signs:?}");
    let probe = Probe::start(address);
    traffic.run(address, Instant::now() + SETTLED);
    let refused = traffic.journal.refused;
    let told = traffic.run_until(address, patience, |journal| journal.refused > refused);
    ensure!(told, "nothing is refused on a full disk");
    traffic.drain(address);
    let missing = judge::missing(&traffic.journal);
    ensure!(
        missing == 0,
        "{missing} messages do not come from a full disk"
    );
    let (count, slowest) = probe.end()?;
    println!(
        "on the full disk: all was delivered, {} refused, {count} exchanges at QoS 0, the slowest {} ms",
        traffic.journal.refused,
        slowest.as_millis()
    );
    let mut breakage = Some(breakage);
    if end == End::Heal {
        if let Some(breakage) = breakage.take() {
            breakage.end()?;
        }
        heals(&mut traffic, address, &log, ROOM)?;
    }
    ends(&program, folder, traffic, broker, breakage)
}

/// Traffic on a disk that is well.
fn begins(traffic: &mut Traffic, address: SocketAddr) -> Result<()> {
    let patience = Instant::now() + PATIENCE;
    let begun = traffic.run_until(address, patience, |journal| journal.acknowledged > 0);
    ensure!(begun, "nothing was acknowledged");
    traffic.run(address, Instant::now() + HEALTHY);
    Ok(())
}

fn ours(program: &Path) -> Program {
    Program::Ours {
        window: None,
        durability: None,
        path: program.to_owned(),
        stored: true,
        tracer: Vec::new(),
    }
}

fn scenario(
    program: &Path,
    folder: &Path,
    mut random: Random,
    fault: Fault,
    end: End,
) -> Result<()> {
    fs::create_dir_all(folder)?;
    let program = ours(program);
    let mut traffic = Traffic::new(&mut random, true);
    let broker = Broker::start(&program, folder)?;
    let address = broker.address;
    begins(&mut traffic, address)?;

    let log = Log(folder.join("log"));
    let breakage = Breakage::begin(fault, broker.id(), folder)?;
    let patience = Instant::now() + PATIENCE;
    let failed = traffic.run_until(address, patience, |_| log.has(FAILED));
    ensure!(
        failed,
        "the disk did not fail: the log does not say that {FAILED:?}"
    );
    let lasting = !matches!(fault, Fault::Calls(.., Some(_)));
    if lasting {
        fails(&mut traffic, &broker)?;
    }
    let mut breakage = Some(breakage);
    if end == End::Heal {
        if lasting && let Some(breakage) = breakage.take() {
            breakage.end()?;
        }
        heals(&mut traffic, address, &log, OPEN)?;
    }
    drop(breakage);
    ends(&program, folder, traffic, broker, None)
}

/// The broker is killed; `full` is a disk that is still full then.
fn ends(
    program: &Program,
    folder: &Path,
    mut traffic: Traffic,
    broker: Broker,
    full: Option<Breakage>,
) -> Result<()> {
    broker.kill()?;
    traffic.crash();
    let broker = Broker::start(program, folder).context("after the kill")?;
    if let Some(breakage) = full {
        // It was started on a full disk.
        let probe = Probe::start(broker.address);
        traffic.run(broker.address, Instant::now() + HEALTHY);
        probe.end()?;
        breakage.end()?;
    }
    look(&mut traffic, &broker, "after the restart")?;
    traffic.drain(broker.address);
    traffic.crash();
    look(&mut traffic, &broker, "in the end")?;
    broker.terminate()?;
    println!(
        "{} acknowledged, {} delivered",
        traffic.journal.acknowledged, traffic.journal.delivered
    );
    conclude(judge::judge(&traffic.journal), folder)
}

/// What must hold while nothing can be stored.
fn fails(traffic: &mut Traffic, broker: &Broker) -> Result<()> {
    let address = broker.address;
    traffic.run(address, Instant::now() + SETTLED);
    let mark = traffic.journal.tick();
    let probe = Probe::start(address);
    traffic.run(address, Instant::now() + FAILING);
    let (count, slowest) = probe.end()?;
    let acknowledged = stored_since(&traffic.journal, mark);
    ensure!(
        acknowledged == 0,
        "{acknowledged} messages for stored sessions were acknowledged while the disk failed"
    );
    let before = processor_time(broker.id())?;
    let threads = thread_times(broker.id())?;
    thread::sleep(WATCHED.0);
    let busy = (processor_time(broker.id())? - before).as_secs_f64() / WATCHED.0.as_secs_f64();
    ensure!(
        busy < WATCHED.1,
        "the broker spins: {:.0}% of a processor; its threads in milliseconds: {:?}",
        busy * 100.0,
        since(&threads, thread_times(broker.id())?)
    );
    println!(
        "while it failed: {count} exchanges at QoS 0, the slowest {} ms; then {:.0}% of a processor",
        slowest.as_millis(),
        busy * 100.0
    );
    Ok(())
}

/// The threads that took processor time since then, by name, and how much.
fn since(
    before: &[(u32, String, Duration)],
    now: Vec<(u32, String, Duration)>,
) -> Vec<(String, u128)> {
    let took = now.into_iter().map(|(id, name, time)| {
        let known = before.iter().find(|(other, ..)| *other == id);
        let took = time.saturating_sub(known.map_or(Duration::ZERO, |(.., time)| *time));
        (name, took.as_millis())
    });
    took.filter(|(_, took)| *took > 0).collect()
}

/// What must come when the disk works again.
fn heals(traffic: &mut Traffic, address: SocketAddr, log: &Log, sign: &str) -> Result<()> {
    let begun = Instant::now();
    let open = traffic.run_until(address, begun + PATIENCE, |_| log.has(sign));
    ensure!(open, "the log does not say that {sign:?}");
    let mark = traffic.journal.tick();
    let goes_on = traffic.run_until(address, begun + PATIENCE, |journal| {
        stored_since(journal, mark) > 0
    });
    ensure!(
        goes_on,
        "nothing is acknowledged though the disk works again"
    );
    println!("acknowledged again after {}", seconds(begun.elapsed()));
    traffic.run(address, Instant::now() + HEALTHY);
    Ok(())
}

/// How many messages were acknowledged since then that a stored session wants.
fn stored_since(journal: &Journal, mark: u64) -> usize {
    let messages = journal.sent.iter().flatten();
    let acknowledged = messages.filter(|sent| sent.acknowledged.is_some_and(|at| at > mark));
    acknowledged
        .filter(|sent| {
            let mut interests = journal.sessions.iter().flat_map(|it| &it.interests);
            interests.any(|interest| judge::owes(interest, sent))
        })
        .count()
}

/// What the broker has printed.
struct Log(PathBuf);

impl Log {
    fn has(&self, text: &str) -> bool {
        broker::printed(&self.0, 0).is_ok_and(|printed| printed.contains(text))
    }
}

/// What lets the disk fail until it ends.
enum Breakage {
    Tracer(Child),
    Ballast(PathBuf),
}

impl Breakage {
    fn begin(fault: Fault, process: u32, folder: &Path) -> Result<Self> {
        let data = folder.join("data");
        let (calls, error, number) = match fault {
            Fault::Calls(calls, error, number) => (calls, error, number),
            Fault::Space(left) => return take_space(&data, left),
        };
        let once = number.map_or(String::new(), |number| format!(":when={number}"));
        let mut command = Command::new("strace");
        command.args(["-f", "-p", &process.to_string(), "-o"]);
        command.arg(folder.join("trace"));
        command.args(["-e", &format!("trace={calls}")]);
        command.args(["-e", &format!("inject={calls}:error={error}{once}")]);
        for path in files(&data)? {
            command.arg("-P").arg(path);
        }
        let said = folder.join("tracer");
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(fs::File::create(&said)?);
        let mut child = command.spawn().context("cannot start strace")?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = fs::read_to_string(&said)?;
            if text.contains("attached") {
                return Ok(Self::Tracer(child));
            }
            if child.try_wait()?.is_some() || Instant::now() > deadline {
                bail!(NotInstalled::new("strace", format!("cannot trace: {text}")));
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn end(mut self) -> Result<()> {
        match &mut self {
            Self::Tracer(child) => {
                quiet(Command::new("kill").args(["-TERM", &child.id().to_string()]))?;
                child.wait()?;
            }
            Self::Ballast(path) => fs::remove_file(path)?,
        }
        Ok(())
    }
}

impl Drop for Breakage {
    fn drop(&mut self) {
        if let Self::Tracer(child) = self {
            // Both fail only where it has been reaped already.
            _ = child.kill();
            _ = child.wait();
        }
    }
}

/// A file of somebody else, which leaves so much space.
fn take_space(data: &Path, left: usize) -> Result<Breakage> {
    let path = data.join("ballast");
    let mut file = fs::File::create(&path)?;
    let mut size = usize::try_from(available(data)?)?.saturating_sub(left);
    while size > 0 {
        let piece = size.min(PIECE);
        match file.write_all(&vec![1; piece]) {
            Ok(()) => size -= piece,
            Err(error) if error.kind() == ErrorKind::StorageFull => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Breakage::Ballast(path))
}

/// The files of the store, and the journals that it may begin meanwhile.
fn files(data: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![data.join("store")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else {
                found.push(entry.path());
            }
        }
    }
    let next = (0..8).map(|number| data.join("store").join(format!("{number}.jnl")));
    found.extend(next);
    found.sort();
    found.dedup();
    Ok(found)
}

/// Bytes that are free, as `df` says.
fn available(path: &Path) -> Result<u64> {
    let output = Command::new("df")
        .args(["--output=avail", "-B1"])
        .arg(path)
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let last = text.lines().last().context("df printed nothing")?;
    Ok(last.trim().parse()?)
}

/// A small file system in memory.
struct Mounted(PathBuf);

impl Mounted {
    fn new(path: &Path) -> Result<Self> {
        fs::create_dir_all(path)?;
        let size = format!("size={SPACE}");
        let mount = quiet(
            Command::new("mount")
                .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
                .arg(path),
        );
        match mount {
            Ok(()) => Ok(Self(path.to_owned())),
            Err(error) => bail!(NotInstalled::new(
                "mount",
                format!("not permitted: {error:#}")
            )),
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(error) = quiet(Command::new("umount").arg(&self.0)) {
            println!("still mounted: {error:#}");
        }
    }
}
