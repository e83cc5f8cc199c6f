//! Installs the tools that a chore needs, retrying what the network makes fail.

use std::{
    fmt,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use crate::{step, workspace};

const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_secs(5);

/// A tool is missing and could not be installed: what needs it was not checked, which is not a
/// failure of what would have been checked.
#[derive(Debug)]
pub(crate) struct NotInstalled {
    tool: String,
    reason: String,
}

impl NotInstalled {
    pub(crate) fn new(tool: &str, reason: impl Into<String>) -> Self {
        Self {
            tool: tool.to_owned(),
            reason: reason.into(),
        }
    }
}

impl fmt::Display for NotInstalled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.tool, self.reason)
    }
}

impl std::error::Error for NotInstalled {}

/// The full path of a program of `PATH`.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|folder| folder.join(program))
        .find(|path| is_executable(path))
}

#[cfg(unix)]
fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata()
        .is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_executable(path: &Path) -> bool {
    path.is_file()
}

/// Sees to it that `program` is there, from the Debian package `package` if need be.
pub(crate) fn apt(program: &str, package: &str) -> Result<(), NotInstalled> {
    if find(program).is_some() {
        return Ok(());
    }
    debian_package(program, package)?;
    find(program)
        .map(|_| ())
        .ok_or_else(|| NotInstalled::new(program, format!("not in the package {package}")))
}

/// Installs the Debian package `package`, for the sake of `tool`.
pub(crate) fn debian_package(tool: &str, package: &str) -> Result<(), NotInstalled> {
    if find("apt-get").is_none() {
        return Err(NotInstalled::new(tool, "missing, and there is no apt-get"));
    }
    println!("installing {package} with apt-get");
    retry(package, || {
        attempt(apt_get().args(["update", "-qq"]))?;
        attempt(apt_get().args(["install", "-y", "-qq", "--no-install-recommends", package]))
    })
}

/// Runs a command that installs `tool`, up to three times.
pub(crate) fn with(tool: &str, command: &mut Command) -> Result<(), NotInstalled> {
    println!("installing {tool}");
    retry(tool, || attempt(command))
}

/// Sees to it that the cargo subcommand `name` is there, at `version` if it must be built.
pub(crate) fn cargo_tool(name: &str, version: &str) -> Result<(), NotInstalled> {
    cargo_install(name, version, &["--locked"])
}

/// The same for a program whose own lock file names a library that does not build any more.
pub(crate) fn cargo_tool_unlocked(name: &str, version: &str) -> Result<(), NotInstalled> {
    cargo_install(name, version, &[])
}

fn cargo_install(name: &str, version: &str, how: &[&str]) -> Result<(), NotInstalled> {
    if find(name).is_some() || cargo_home_bin(name).is_some_and(|path| is_executable(&path)) {
        return Ok(());
    }
    println!("installing {name} {version} with cargo");
    retry(name, || {
        let mut command = workspace::cargo();
        command.args(["install", name, "--version", version]);
        attempt(command.args(how))
    })
}

fn cargo_home_bin(name: &str) -> Option<PathBuf> {
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")))?;
    Some(home.join("bin").join(name))
}

/// `apt-get` that asks nothing, through sudo where the user is not root and sudo needs no password.
fn apt_get() -> Command {
    let root = Path::new("/root").read_dir().is_ok();
    let mut command = if !root && find("sudo").is_some() {
        let mut command = Command::new("sudo");
        command.args(["-n", "DEBIAN_FRONTEND=noninteractive", "apt-get"]);
        command
    } else {
        Command::new("apt-get")
    };
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(["-o", "DPkg::Lock::Timeout=120"]);
    command
}

fn attempt(command: &mut Command) -> Result<(), String> {
    step::execute(command).map_err(|error| format!("{error:#}"))
}

fn retry(tool: &str, mut work: impl FnMut() -> Result<(), String>) -> Result<(), NotInstalled> {
    let mut reason = String::new();
    for number in 1..=ATTEMPTS {
        match work() {
            Ok(()) => return Ok(()),
            Err(error) => reason = error,
        }
        println!("attempt {number} of {ATTEMPTS} to install {tool} failed: {reason}");
        if number < ATTEMPTS {
            thread::sleep(PAUSE * number);
        }
    }
    Err(NotInstalled::new(
        tool,
        format!("{reason} (after {ATTEMPTS} attempts)"),
    ))
}
