//! `cargo xtask deny`: licences, sources and versions of what is built in, by cargo-deny and `deny.toml`.

use anyhow::Result;

use crate::{
    install,
    step::{Verdict, execute},
    workspace::cargo,
};

/// The version of cargo-deny that is installed where there is none; building it takes minutes.
const CARGO_DENY: &str = "^0.20";

#[derive(Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// Also fetch the database of known weaknesses, and look for them
    #[arg(long)]
    advisories: bool,
}

/// Fails where `deny.toml` does not allow something.
pub(crate) fn run(args: &Args) -> Result<Verdict> {
    install::cargo_tool("cargo-deny", CARGO_DENY)?;
    let mut command = cargo();
    // With what the workspace turns on besides the defaults; of the targets too that are not this machine's.
    command.args(["deny", "--workspace", "--all-features", "--locked"]);
    if !args.advisories {
        command.arg("--offline");
    }
    command.args(["check", "bans", "licenses", "sources"]);
    if args.advisories {
        command.arg("advisories");
    }
    execute(&mut command)?;
    Ok(Verdict::Passed)
}
