//! Child processes whose output is read line by line with a deadline, killed when dropped.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::step;

/// How often a child is asked whether it has ended.
const POLL: Duration = Duration::from_millis(2);
/// How long the output of a child that failed is read after its end.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// How much of a line is kept for messages.
const SHOWN_LINE: usize = 200;
/// How many of the last lines are kept for messages.
const SHOWN_LINES: usize = 8;
/// Ticks a second in /proc/PID/stat.
const TICKS: f64 = 100.0;

/// A running child; dropping it kills and reaps it.
pub(crate) struct Running {
    name: String,
    child: Child,
    /// Standard input, where it is written line by line.
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    recent: Vec<String>,
}

impl Running {
    /// Starts the command with its output captured; `input` is written to its standard input.
    pub(crate) fn start(command: &mut Command, input: Option<Vec<u8>>) -> Result<Self> {
        let stdin = if input.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        };
        let mut running = Self::spawn(command, stdin)?;
        if let (Some(input), Some(stdin)) = (input, running.stdin.take()) {
            feed(stdin, input);
        }
        Ok(running)
    }

    /// Starts the command to [`tell`](Self::tell) it lines; its standard input ends when this is
    /// dropped.
    pub(crate) fn start_to_tell(command: &mut Command) -> Result<Self> {
        Self::spawn(command, Stdio::piped())
    }

    /// Writes a line to the standard input of a child that was started to be told some.
    pub(crate) fn tell(&mut self, line: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().context("it takes no lines")?;
        stdin
            .write_all(format!("{line}\n").as_bytes())
            .with_context(|| format!("{} takes no more lines", self.name))
    }

    fn spawn(command: &mut Command, stdin: Stdio) -> Result<Self> {
        let name = step::shown(command);
        command
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let (sender, lines) = mpsc::channel();
        if let Some(output) = child.stdout.take() {
            forward(output, sender.clone());
        }
        if let Some(output) = child.stderr.take() {
            forward(output, sender);
        }
        Ok(Self {
            name,
            stdin: child.stdin.take(),
            child,
            lines,
            recent: Vec::new(),
        })
    }

    /// The next line of its output, standard error included, that `pick` makes something of.
    pub(crate) fn wait_for<T>(
        &mut self,
        deadline: Instant,
        what: &str,
        mut pick: impl FnMut(&str) -> Option<T>,
    ) -> Result<T> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    let found = pick(&line);
                    self.remember(line);
                    if let Some(found) = found {
                        return Ok(found);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    let said = self.said();
                    bail!("no {what} in time from {}{said}", self.name);
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let said = self.said();
                    bail!("{} ended without {what}{said}", self.name);
                }
            }
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The lines printed since the last look that contain `text`.
    pub(crate) fn lines_with(&mut self, text: &str) -> Vec<String> {
        self.lines
            .try_iter()
            .filter(|line| line.contains(text))
            .collect()
    }

    /// All that it prints from now on until it closes its output, as it does when it ends.
    pub(crate) fn last_lines(&mut self, deadline: Instant) -> Vec<String> {
        let mut lines = Vec::new();
        let left = || deadline.saturating_duration_since(Instant::now());
        while let Ok(line) = self.lines.recv_timeout(left()) {
            lines.push(line);
        }
        lines
    }

    /// Waits for its end, which must be with exit code 0.
    pub(crate) fn succeed(&mut self, deadline: Instant) -> Result<()> {
        let status = self.end(deadline)?;
        if !status.success() {
            while let Ok(line) = self.lines.recv_timeout(LAST_WORDS) {
                self.remember(line);
            }
            let said = self.said();
            bail!("{}: {status}{said}", self.name);
        }
        Ok(())
    }

    /// Waits for its end, and tells how it ended.
    pub(crate) fn end(&mut self, deadline: Instant) -> Result<ExitStatus> {
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                let said = self.said();
                bail!("{} did not end in time{said}", self.name);
            }
            thread::sleep(POLL);
        }
    }

    /// Ends it at once, as a crash would: its connections break without a DISCONNECT.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to end (SIGTERM) and waits for that.
    pub(crate) fn terminate(&mut self, deadline: Instant) -> Result<()> {
        let id = self.child.id().to_string();
        step::quiet(Command::new("kill").args(["-TERM", &id]))?;
        self.succeed(deadline)
    }

    fn remember(&mut self, mut line: String) {
        if let Some((end, _)) = line.char_indices().nth(SHOWN_LINE) {
            line.truncate(end);
            line.push_str("...");
        }
        if self.recent.len() == SHOWN_LINES {
            self.recent.remove(0);
        }
        self.recent.push(line);
    }

    fn said(&mut self) -> String {
        while let Ok(line) = self.lines.try_recv() {
            self.remember(line);
        }
        if self.recent.is_empty() {
            return ", which printed nothing".to_owned();
        }
        format!("; it printed last:\n      {}", self.recent.join("\n      "))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only where the child has been reaped already.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// User and system time of a process.
pub(crate) fn processor_time(process: u32) -> Result<Duration> {
    time_in(&format!("/proc/{process}/stat"))
}

/// The threads of a process: number, name, user and system time.
pub(crate) fn thread_times(process: u32) -> Result<Vec<(u32, String, Duration)>> {
    let mut threads = Vec::new();
    for entry in fs::read_dir(format!("/proc/{process}/task"))? {
        let folder = entry?.path();
        // One that ends meanwhile is left out.
        let (Ok(name), Ok(time)) = (
            fs::read_to_string(folder.join("comm")),
            time_in(&folder.join("stat").to_string_lossy()),
        ) else {
            continue;
        };
        let number = folder.file_name().unwrap_or_default().to_string_lossy();
        threads.push((number.parse()?, name.trim_end().to_owned(), time));
    }
    Ok(threads)
}

fn time_in(path: &str) -> Result<Duration> {
    let text = fs::read_to_string(path)?;
    let (_, after) = text.rsplit_once(')').context("/proc/PID/stat")?;
    let fields: Vec<&str> = after.split_whitespace().collect();
    let ticks =
        |index: usize| -> Result<f64> { Ok(fields.get(index).context("/proc/PID/stat")?.parse()?) };
    Ok(Duration::from_secs_f64((ticks(11)? + ticks(12)?) / TICKS))
}

fn forward(output: impl Read + Send + 'static, sender: mpsc::Sender<String>) {
    thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        while output.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            let text = String::from_utf8_lossy(&line);
            if sender.send(text.trim_end_matches('\n').to_owned()).is_err() {
                // Nobody listens any more; the pipe is still drained so that the child never
                // blocks on it.
                _ = std::io::copy(&mut output, &mut std::io::sink());
                return;
            }
            line.clear();
        }
    });
}

fn feed(mut stdin: ChildStdin, input: Vec<u8>) {
    // A child that ends early closes the pipe; its exit code tells of that.
    thread::spawn(move || _ = stdin.write_all(&input));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    #[test]
    fn input_comes_back_as_lines() {
        let mut cat =
            Running::start(&mut Command::new("cat"), Some(b"one\ntwo\n".to_vec())).unwrap();
        let length = cat
            .wait_for(soon(), "line", |line| (line == "two").then_some(line.len()))
            .unwrap();
        assert_eq!(length, 3);
        cat.succeed(soon()).unwrap();
    }

    #[test]
    fn a_child_is_told_lines() {
        let mut cat = Running::start_to_tell(&mut Command::new("cat")).unwrap();
        for said in ["one", "two"] {
            cat.tell(said).unwrap();
            cat.wait_for(soon(), "line", |line| (line == said).then_some(()))
                .unwrap();
        }
        let mut tail =
            Running::start(Command::new("tail").args(["-f", "/dev/null"]), None).unwrap();
        assert!(tail.tell("unheard").is_err());
    }

    #[test]
    fn an_early_end_names_the_command_and_what_it_said() {
        let mut echo = Running::start(Command::new("echo").arg("hello"), None).unwrap();
        let error = echo
            .wait_for(soon(), "greeting", |_| None::<()>)
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "echo hello ended without greeting; it printed last:\n      hello"
        );
    }

    #[test]
    fn a_child_that_hangs_is_reported() {
        let mut cat = Running::start(Command::new("tail").args(["-f", "/dev/null"]), None).unwrap();
        let error = cat.succeed(Instant::now()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "tail -f /dev/null did not end in time, which printed nothing"
        );
    }

    #[test]
    fn a_failure_is_an_error() {
        let mut child = Running::start(&mut Command::new("false"), None).unwrap();
        assert!(child.succeed(soon()).is_err());
    }
}
