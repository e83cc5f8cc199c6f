//! The broker under test: a process that is started again and again on the same directory.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{Read, Seek, SeekFrom},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    step::{execute, quiet},
    workspace::{Metadata, cargo, root},
};

/// How long the broker may take to serve, and to end when it is told to.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(1);

/// What is started.
pub(super) enum Program {
    /// This broker; without `stored` its state is in memory. Started by `tracer` where that names one.
    Ours {
        path: PathBuf,
        stored: bool,
        /// Bytes of waiting messages that a session may hold in memory, where it is not what is usual.
        window: Option<usize>,
        /// What acknowledgements wait for, where it is not what is usual.
        durability: Option<&'static str>,
        tracer: Vec<OsString>,
    },
    /// Mosquitto, which writes its state when it ends and every second.
    Mosquitto(PathBuf),
}

/// Builds the broker and returns its path.
pub(crate) fn build(profile: &str) -> Result<PathBuf> {
    let line = ["build", "--locked", "--bin", "mqtt-broker", "--profile"];
    execute(cargo().args(line).arg(profile))?;
    let folder = match profile {
        "dev" | "test" => "debug",
        "bench" => "release",
        other => other,
    };
    Ok(target()?.join(folder).join("mqtt-broker"))
}

/// The folder that cargo builds in.
pub(crate) fn target() -> Result<PathBuf> {
    Ok(Metadata::read(&root().join("Cargo.toml"), false)?.target_directory)
}

/// A running broker; dropping it kills and reaps it.
pub(super) struct Broker {
    child: Child,
    pub(super) address: SocketAddr,
    /// From the start of the process until it served.
    pub(super) start: Duration,
}

impl Broker {
    /// Starts the program with its state in `folder`/data; what it prints is added to `folder`/log.
    pub(super) fn start(program: &Program, folder: &Path) -> Result<Self> {
        let path = folder.join("log");
        let printed_before = fs::metadata(&path).map_or(0, |data| data.len());
        let started = Instant::now();
        let (mut child, known) = spawn(program, folder)?;
        let deadline = started + PATIENCE;
        match serving(&mut child, deadline, &path, printed_before, known) {
            Ok(address) => Ok(Self {
                child,
                address,
                start: started.elapsed(),
            }),
            Err(error) => {
                // Both fail only where it has ended already.
                _ = child.kill();
                _ = child.wait();
                Err(error)
            }
        }
    }

    /// Starts the program and kills it so soon that it may not have read its state yet.
    pub(super) fn start_and_kill(program: &Program, folder: &Path, after: Duration) -> Result<()> {
        let (mut child, _) = spawn(program, folder)?;
        thread::sleep(after);
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Its process identifier.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL; returns when the process is gone and its connections with it.
    pub(super) fn kill(mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("the broker has ended by itself: {status}");
        }
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM; the broker must end with exit code 0.
    pub(super) fn terminate(mut self) -> Result<()> {
        let id = self.child.id().to_string();
        quiet(Command::new("kill").args(["-TERM", &id]))?;
        let status = self.end(Instant::now() + PATIENCE)?;
        ensure!(status.success(), "the broker ended with {status}");
        Ok(())
    }

    fn end(&mut self, deadline: Instant) -> Result<ExitStatus> {
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            ensure!(Instant::now() < deadline, "the broker does not end");
            thread::sleep(POLL);
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Both fail only where the process has been reaped already.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// The process, and where it will listen if that is known before it says so.
fn spawn(program: &Program, folder: &Path) -> Result<(Child, Option<SocketAddr>)> {
    let data = folder.join("data");
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(folder.join("log"))?;
    let (mut command, known) = match program {
        Program::Ours {
            path,
            stored,
            window,
            durability,
            tracer,
        } => {
            let mut line = tracer.iter().map(OsString::as_os_str);
            let mut line = line.by_ref().chain([path.as_os_str()]);
            let mut command = Command::new(line.next().unwrap_or(path.as_os_str()));
            command.args(line);
            command.args(["--listen", "127.0.0.1:0"]);
            if *stored {
                command.arg("--data-dir").arg(&data);
                if let Some(window) = window {
                    command.arg("--stored-window").arg(window.to_string());
                }
                if let Some(level) = durability {
                    command.args(["--durability", level]);
                }
            } else {
                command.arg("--in-memory");
            }
            (command, None)
        }
        Program::Mosquitto(path) => {
            let address = free_address()?;
            let mut command = Command::new(path);
            command.arg("-c").arg(configure(folder, &data, address)?);
            (command, Some(address))
        }
    };
    command.stdin(Stdio::null());
    command.stdout(log.try_clone()?).stderr(log);
    let child = command
        .spawn()
        .with_context(|| format!("cannot start {}", command.get_program().display()))?;
    Ok((child, known))
}

/// Waits until the broker serves: where it listens is `known`, or is printed to the log.
fn serving(
    child: &mut Child,
    deadline: Instant,
    log: &Path,
    printed_before: u64,
    known: Option<SocketAddr>,
) -> Result<SocketAddr> {
    loop {
        let found = match known {
            Some(address) => TcpStream::connect(address).is_ok().then_some(address),
            None => listening(&printed(log, printed_before)?),
        };
        if let Some(address) = found {
            return Ok(address);
        }
        let ended = child.try_wait()?;
        if ended.is_some() || Instant::now() > deadline {
            let state = ended.map_or("serves nobody".to_owned(), |end| format!("ended: {end}"));
            let printed = printed(log, printed_before)?;
            let last: Vec<&str> = printed.lines().rev().take(5).collect();
            let last: Vec<&str> = last.into_iter().rev().collect();
            bail!(
                "the broker {state}; it printed last:\n  {}",
                last.join("\n  ")
            );
        }
        thread::sleep(POLL);
    }
}

pub(super) fn printed(log: &Path, from: u64) -> Result<String> {
    let mut file = File::open(log)?;
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The address in a whole line `listening on tcp://ADDRESS`.
fn listening(printed: &str) -> Option<SocketAddr> {
    let whole = &printed[..printed.rfind('\n')?];
    whole.lines().find_map(|line| {
        line.strip_prefix("listening on tcp://")?
            .trim()
            .parse()
            .ok()
    })
}

/// A port that is free now; nobody promises that it still is when mosquitto takes it.
fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn configure(folder: &Path, data: &Path, address: SocketAddr) -> Result<PathBuf> {
    fs::create_dir_all(data)?;
    let path = folder.join("mosquitto.conf");
    let text = format!(
        "listener {} {}\nallow_anonymous true\nuser root\npersistence true\n\
         persistence_location {}/\nautosave_on_changes true\nautosave_interval 1\n\
         max_queued_messages 0\nmax_inflight_messages 0\n",
        address.port(),
        address.ip(),
        data.display()
    );
    fs::write(&path, text)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_line_tells_the_address() {
        let address = "127.0.0.1:1883".parse().unwrap();
        assert_eq!(
            listening("a\nlistening on tcp://127.0.0.1:1883\nb"),
            Some(address)
        );
        assert_eq!(listening("listening on tcp://127.0.0.1:18"), None);
        assert_eq!(listening(""), None);
    }
}
