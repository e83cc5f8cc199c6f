//! `cargo xtask sanitize`: the tests of codec, router and session under the address and the leak sanitizer, and under
//! Miri where the toolchain has it.
//!
//! The stable compiler has the sanitizers behind `RUSTC_BOOTSTRAP`. Before the tests, small programs with a mistake
//! each show that mistakes are found.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};

use crate::{
    step::{self, Steps, Verdict, execute},
    workspace,
};

const CRATES: [&str; 3] = ["ternmq-codec", "ternmq-router", "ternmq-session"];
/// With a target named, what runs while building is built without the sanitizer.
const TARGET: &str = "x86_64-unknown-linux-gnu";
const FLAGS: &str = "-Zsanitizer=address -Cforce-frame-pointers=yes";
/// What is not optimized takes ten times as long under the sanitizer. Assertions and checks of overflow stay.
const OPTIMIZED: &str = "1";
/// A program with a mistake, and what is said of it.
const MISTAKES: [(&str, &str, &str); 2] = [
    (
        "leak",
        "fn main() { std::hint::black_box(Box::leak(Box::new([1_u8; 100])).as_ptr()); }",
        "LeakSanitizer: detected memory leaks",
    ),
    (
        "freed",
        "fn main() { let one = vec![1_u8]; let at = std::hint::black_box(one.as_ptr()); drop(one);\n\
         println!(\"{}\", unsafe { at.read() }); }",
        "AddressSanitizer: heap-use-after-free",
    ),
];

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Only this package (repeatable)
    #[arg(long, value_parser = CRATES)]
    package: Vec<String>,
}

impl Args {
    /// Every crate.
    pub(crate) fn all() -> Self {
        Self {
            package: Vec::new(),
        }
    }
}

/// Runs the tests of the crates that `args` selects.
pub(crate) fn run(args: &Args) -> Result<Verdict> {
    let chosen = |name: &&str| args.package.is_empty() || args.package.iter().any(|it| it == name);
    let packages: Vec<&str> = CRATES.into_iter().filter(chosen).collect();
    let mut steps = Steps::default();
    for (name, program, said) in MISTAKES {
        steps.run(&format!("planted: {name}"), || {
            is_found(name, program, said)
        });
    }
    for package in &packages {
        steps.run(&format!("address, leak: {package}"), || {
            let mut command = workspace::cargo();
            command
                .env("RUSTC_BOOTSTRAP", "1")
                .env("RUSTFLAGS", FLAGS)
                .env("CARGO_PROFILE_TEST_OPT_LEVEL", OPTIMIZED)
                .env("CARGO_PROFILE_DEV_OPT_LEVEL", OPTIMIZED)
                .args(["test", "--locked", "--target", TARGET, "--target-dir"])
                .arg(workspace::root().join("target/sanitize"))
                .args(["--package", package, "--lib", "--tests"]);
            execute(&mut command)
        });
    }
    let has_miri = has_miri();
    for package in &packages {
        let name = format!("miri: {package}");
        match has_miri {
            true => steps.run(&name, || {
                execute(miri("test").args(["--package", package, "--lib"]))
            }),
            false => steps.skip(&name, "the toolchain has no Miri"),
        }
    }
    Ok(steps.summary())
}

/// The mistake of a program is found, in these words.
fn is_found(name: &str, program: &str, said: &str) -> Result<()> {
    let folder = workspace::root().join("target/sanitize/planted");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let source = folder.join(format!("{name}.rs"));
    fs::write(&source, program).with_context(|| format!("cannot write {}", source.display()))?;
    let built = folder.join(name);
    step::quiet(rustc(&source, &built).args(FLAGS.split(' ')))?;
    let output = Command::new(&built)
        .output()
        .context("cannot run the program")?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(
        !output.status.success() && told.contains(said),
        "nothing was found but: {}, {told}",
        output.status
    );
    Ok(())
}

fn rustc(source: &Path, built: &Path) -> Command {
    let mut command = Command::new("rustc");
    command
        .current_dir(workspace::root())
        .env("RUSTC_BOOTSTRAP", "1")
        .arg(source)
        .arg("-o")
        .arg(built);
    command
}

/// Miri is a component of nightly toolchains, and needs the sources of the standard library.
fn miri(subcommand: &str) -> Command {
    let mut command = Command::new("cargo");
    command
        .current_dir(workspace::root())
        .env_remove("CARGO")
        .env_remove("RUSTC")
        .env_remove("RUSTUP_TOOLCHAIN")
        .args(["+nightly", "miri", subcommand]);
    command
}

fn has_miri() -> bool {
    let set_up = miri("setup").output();
    set_up.is_ok_and(|output| output.status.success())
}
