//! `cargo xtask dist`: what is given to people who do not build it themselves: the optimised programs
//! with completions, manual pages and a systemd unit, as an archive and as Debian packages.

mod trial;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::{
    install,
    step::{Verdict, execute},
    workspace::{self, Metadata, cargo},
};

/// The programs and the packages that they are built from.
pub(crate) const PROGRAMS: [(&str, &str); 2] = [
    ("mqtt-broker", "ternmq-broker"),
    ("mqtt-client", "ternmq-client"),
];
/// Shells, and the names of the files that they look for.
const SHELLS: [(&str, &str, &str); 3] = [("bash", "", ""), ("zsh", "_", ""), ("fish", "", ".fish")];
/// The version of cargo-deb that is installed where there is none.
const CARGO_DEB: &str = "^3";
/// The unit of the broker, below the root of the workspace.
const UNIT: &str = "mqtt-broker/debian/mqtt-broker.service";

#[derive(Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// The cargo profile that the programs are built with [default: release]
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// Install the packages on this machine, start the broker by hand, upgrade and purge: needs root, and
    /// refuses where a package of the project is installed
    #[arg(long)]
    try_install: bool,
}

impl Args {
    /// As `ci` wants it: built quickly, and tried where that is possible.
    pub(crate) fn for_ci() -> Self {
        Self {
            profile: Some("dev".to_owned()),
            try_install: trial::is_possible(),
        }
    }
}

/// Builds everything below `target/dist`.
pub(crate) fn run(args: &Args) -> Result<Verdict> {
    let root = workspace::root();
    let metadata = Metadata::read(&root.join("Cargo.toml"), false)?;
    let profile = args.profile.as_deref().unwrap_or("release");
    let mut build = cargo();
    build.args(["build", "--locked", "--bins", "--profile", profile]);
    for (_, package) in PROGRAMS {
        build.args(["--package", package]);
    }
    execute(&mut build)?;
    let built = metadata.target_directory.join(match profile {
        "dev" => "debug",
        profile => profile,
    });
    let dist = metadata.target_directory.join("dist");
    // What an earlier run left must not get into a package.
    if dist.exists() {
        fs::remove_dir_all(&dist).with_context(|| format!("removing {}", dist.display()))?;
    }
    let version = workspace_version(root)?;
    let stage = dist.join(format!("ternmq-{version}-{}", host()?));
    assemble(root, &built, &stage)?;
    // The packages take their files from a place that does not change its name.
    let link = dist.join("stage");
    copy_folder(&stage, &link)?;
    verify_unit(&stage)?;
    archive(&dist, &stage)?;
    install::cargo_tool("cargo-deb", CARGO_DEB)?;
    let first = debian_packages(&dist, "1")?;
    let mut printed = first.clone();
    if args.try_install {
        let second = debian_packages(&dist, "2")?;
        trial::run(&first, &second, &root.join(UNIT))?;
        // Only made to be upgraded to.
        for package in second {
            fs::remove_file(&package)?;
        }
    }
    printed.push(dist.join(format!("{}.tar.gz", name_of(&stage))));
    for path in printed {
        let size = path.metadata()?.len() / 1024;
        println!("{} ({size} KiB)", path.display());
    }
    Ok(Verdict::Passed)
}

fn name_of(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

fn workspace_version(root: &Path) -> Result<String> {
    let manifest = fs::read_to_string(root.join("Cargo.toml"))?;
    let (_, rest) = manifest
        .split_once("[workspace.package]")
        .context("no [workspace.package] in Cargo.toml")?;
    let line = rest
        .lines()
        .find_map(|line| line.strip_prefix("version = "))
        .context("no version in [workspace.package]")?;
    Ok(line.trim().trim_matches('"').to_owned())
}

/// The target that rustc builds for, such as `x86_64-unknown-linux-gnu`.
fn host() -> Result<String> {
    let output = Command::new("rustc").arg("-vV").output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc names no host")?.to_owned())
}

/// Puts the programs, and what they print about themselves, below `stage`.
fn assemble(root: &Path, built: &Path, stage: &Path) -> Result<()> {
    for folder in [
        "bin",
        "man",
        "completions/bash",
        "completions/zsh",
        "completions/fish",
    ] {
        fs::create_dir_all(stage.join(folder))?;
    }
    for (program, _) in PROGRAMS {
        let path = stage.join("bin").join(program);
        fs::copy(built.join(program), &path).with_context(|| format!("copying {program}"))?;
        for (shell, prefix, suffix) in SHELLS {
            let output = Command::new(&path).args(["completions", shell]).output()?;
            ensure!(
                output.status.success() && !output.stdout.is_empty(),
                "{program} completions {shell} failed"
            );
            let name = format!("{prefix}{program}{suffix}");
            fs::write(
                stage.join("completions").join(shell).join(name),
                output.stdout,
            )?;
        }
        execute(Command::new(&path).arg("man").arg(stage.join("man")))?;
    }
    let pages = stage.join("man").read_dir()?.count();
    ensure!(pages > PROGRAMS.len(), "only {pages} manual pages");
    compress_pages(&stage.join("man"))?;
    for file in [
        "LICENSE-APACHE",
        "LICENSE-MIT",
        "README.md",
        "CHANGELOG.md",
        UNIT,
        "mqtt-broker/debian/broker.toml",
        "mqtt-broker/broker.example.toml",
    ] {
        let from = root.join(file);
        fs::copy(&from, stage.join(name_of(&from))).with_context(|| format!("copying {file}"))?;
    }
    // The configuration that is installed has to be one.
    execute(
        Command::new(stage.join("bin/mqtt-broker"))
            .args(["check", "--config"])
            .arg(stage.join("broker.toml")),
    )
}

/// Debian wants manual pages compressed, the same each time.
fn compress_pages(folder: &Path) -> Result<()> {
    for page in folder.read_dir()? {
        execute(
            Command::new("gzip")
                .args(["-9", "-n", "-f"])
                .arg(page?.path()),
        )?;
    }
    Ok(())
}

/// What systemd thinks of the unit, with the program where it was built.
fn verify_unit(stage: &Path) -> Result<()> {
    if install::find("systemd-analyze").is_none() {
        install::apt("systemd-analyze", "systemd")?;
    }
    let text = fs::read_to_string(stage.join("mqtt-broker.service"))?;
    let program = stage.join("bin/mqtt-broker");
    let folder = stage.with_file_name("verify");
    fs::create_dir_all(&folder)?;
    let unit = folder.join("mqtt-broker.service");
    fs::write(
        &unit,
        text.replace("/usr/bin/mqtt-broker", &program.display().to_string()),
    )?;
    let output = Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .arg(&unit)
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    fs::remove_dir_all(&folder)?;
    // A warning, such as of a key that it does not know, does not show in the exit code.
    let about: Vec<_> = said
        .lines()
        .filter(|line| line.contains("mqtt-broker"))
        .collect();
    ensure!(
        output.status.success() && about.is_empty(),
        "systemd-analyze verify: {said}"
    );
    println!("the unit passes systemd-analyze verify");
    Ok(())
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    execute(Command::new("cp").arg("-a").arg(from).arg(to))
}

fn archive(dist: &Path, stage: &Path) -> Result<()> {
    let name = name_of(stage);
    execute(
        Command::new("tar")
            .current_dir(dist)
            .args([
                "--sort=name",
                "--owner=0",
                "--group=0",
                "--numeric-owner",
                "-czf",
            ])
            .arg(format!("{name}.tar.gz"))
            .arg(name),
    )
}

/// Both packages at this revision.
fn debian_packages(dist: &Path, revision: &str) -> Result<Vec<PathBuf>> {
    let folder = dist.join(format!("deb-{revision}"));
    fs::create_dir_all(&folder)?;
    for (_, package) in PROGRAMS {
        let mut command = cargo();
        // The programs are those of the stage: nothing is built here.
        command
            .args(["deb", "--no-build", "--no-strip", "--package", package])
            .args(["--deb-revision", revision, "--output"])
            .arg(&folder);
        execute(&mut command)?;
    }
    let mut packages = Vec::new();
    for entry in folder.read_dir()? {
        packages.push(entry?.path());
    }
    packages.sort();
    ensure!(
        packages.len() == PROGRAMS.len(),
        "{} packages instead of {}",
        packages.len(),
        PROGRAMS.len()
    );
    Ok(packages)
}
