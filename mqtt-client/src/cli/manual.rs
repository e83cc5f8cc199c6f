//! What the program knows of its own options, for a shell and for man(1).

use std::io::{self, Write};

use super::Failure;
use super::args::{self, CompletionArgs, ManArgs};
use super::output::unwritable;

/// Prints the completions.
pub(crate) fn completions(args: &CompletionArgs) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_complete::generate(
        args.shell,
        &mut args::definition(),
        "mqtt-client",
        &mut text,
    );
    match io::stdout().write_all(&text) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(unwritable(error)),
        _ => Ok(()),
    }
}

/// Writes a page for the program and one for each command.
pub(crate) fn pages(args: &ManArgs) -> Result<(), Failure> {
    let folder = &args.directory;
    std::fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(args::definition(), folder))
        .map_err(|error| {
            Failure::Message(format!(
                "Error: Unable to write to '{}': {error}.",
                folder.display()
            ))
        })
}
