//! A list of steps, run one after another and summed up in a table with the time of each.

use std::{
    fmt,
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::install::NotInstalled;

/// What a chore comes to, and its exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verdict {
    Passed,
    /// Nothing failed; what is only checked where it can be installed could not be, which is no
    /// reason to stop anything.
    PassedInPart,
    /// Nothing failed, but something could not be installed and so was not checked.
    NotInstalled,
    Failed,
}

/// Work that ends without an error has passed.
impl From<()> for Verdict {
    fn from((): ()) -> Self {
        Self::Passed
    }
}

impl From<Verdict> for ExitCode {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Passed | Verdict::PassedInPart => Self::SUCCESS,
            Verdict::NotInstalled => Self::from(3),
            Verdict::Failed => Self::FAILURE,
        }
    }
}

#[derive(Debug)]
enum Outcome {
    Passed,
    PassedInPart,
    Skipped(String),
    NotInstalled(String),
    Failed(String),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => f.write_str("passed"),
            Self::PassedInPart => f.write_str("passed, but COULD NOT INSTALL all of it: see above"),
            Self::Skipped(reason) => write!(f, "skipped: {reason}"),
            Self::NotInstalled(reason) => write!(f, "could not install: {reason}"),
            Self::Failed(reason) => write!(f, "FAILED: {reason}"),
        }
    }
}

/// Runs steps and remembers how each ended. A failed step does not stop the ones after it.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    done: Vec<(String, Outcome, Duration)>,
}

impl Steps {
    /// Runs one step; an error that is [`NotInstalled`] counts as such, any other as a failure.
    pub(crate) fn run<V: Into<Verdict>>(&mut self, name: &str, work: impl FnOnce() -> Result<V>) {
        println!("==> {name}");
        let started = Instant::now();
        let outcome = match work() {
            Ok(verdict) => match verdict.into() {
                Verdict::Passed => Outcome::Passed,
                Verdict::PassedInPart => Outcome::PassedInPart,
                Verdict::NotInstalled => Outcome::NotInstalled("see above".to_owned()),
                Verdict::Failed => Outcome::Failed("see above".to_owned()),
            },
            Err(error) if error.is::<NotInstalled>() => Outcome::NotInstalled(format!("{error:#}")),
            Err(error) => Outcome::Failed(format!("{error:#}")),
        };
        let took = started.elapsed();
        println!("<== {name}: {outcome} ({})\n", seconds(took));
        self.done.push((name.to_owned(), outcome, took));
    }

    /// Records a step that is left out, with the reason.
    pub(crate) fn skip(&mut self, name: &str, reason: &str) {
        println!("==> {name}: skipped: {reason}\n");
        let outcome = Outcome::Skipped(reason.to_owned());
        self.done.push((name.to_owned(), outcome, Duration::ZERO));
    }

    /// Prints the table of all steps and says what they come to.
    pub(crate) fn summary(&self) -> Verdict {
        let width = self
            .done
            .iter()
            .map(|(name, ..)| name.len())
            .max()
            .unwrap_or(0)
            .max("total".len());
        let mut verdict = Verdict::Passed;
        let mut total = Duration::ZERO;
        for (name, outcome, took) in &self.done {
            println!("{name:<width$}  {:>9}  {outcome}", seconds(*took));
            total += *took;
            verdict = verdict.max(match outcome {
                Outcome::Passed | Outcome::Skipped(_) => Verdict::Passed,
                Outcome::PassedInPart => Verdict::PassedInPart,
                Outcome::NotInstalled(_) => Verdict::NotInstalled,
                Outcome::Failed(_) => Verdict::Failed,
            });
        }
        let closing = match verdict {
            Verdict::Passed => "passed",
            Verdict::PassedInPart => "passed, without what could not be installed",
            Verdict::NotInstalled => "nothing failed, but not everything could be installed",
            Verdict::Failed => "FAILED",
        };
        println!("{:<width$}  {:>9}  {closing}", "total", seconds(total));
        verdict
    }
}

/// Runs a command with its output on the terminal; an exit code other than 0 is an error.
pub(crate) fn execute(command: &mut Command) -> Result<()> {
    let shown = shown(command);
    println!("  $ {shown}");
    let status = command
        .status()
        .with_context(|| format!("cannot run {shown}"))?;
    if !status.success() {
        bail!("{shown}: {status}");
    }
    Ok(())
}

/// Runs a command without showing it; its output appears only in the error.
pub(crate) fn quiet(command: &mut Command) -> Result<()> {
    let shown = shown(command);
    let output = command
        .output()
        .with_context(|| format!("cannot run {shown}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{shown}: {}: {}", output.status, said.trim_end());
    }
    Ok(())
}

/// The command as a person would type it (for messages, not for a shell to run).
pub(crate) fn shown(command: &Command) -> String {
    let program = command.get_program().to_string_lossy();
    let mut text = program.rsplit('/').next().unwrap_or(&program).to_owned();
    for argument in command.get_args() {
        text.push(' ');
        text.push_str(&argument.to_string_lossy());
    }
    text
}

pub(crate) fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn the_worst_step_decides() {
        let mut steps = Steps::default();
        steps.run("good", || Ok(()));
        steps.skip("left out", "not asked for");
        assert_eq!(steps.summary(), Verdict::Passed);
        steps.run("in part", || Ok(Verdict::PassedInPart));
        assert_eq!(steps.summary(), Verdict::PassedInPart);
        steps.run("no network", || {
            Err::<(), _>(NotInstalled::new("tool", "offline").into())
        });
        assert_eq!(steps.summary(), Verdict::NotInstalled);
        steps.run("bad", || Err::<(), _>(anyhow!("broken")));
        steps.run("good again", || Ok(()));
        assert_eq!(steps.summary(), Verdict::Failed);
    }

    #[test]
    fn an_installation_error_is_recognised_below_its_context() {
        let mut steps = Steps::default();
        steps.run("no network", || {
            Err::<(), _>(NotInstalled::new("tool", "offline")).context("preparing")
        });
        assert_eq!(steps.summary(), Verdict::NotInstalled);
    }
}
