//! The program `mqtt-client`: `pub`, `sub`, `rr`, `doctor` and `bench` on the command line.

#![forbid(unsafe_code)]

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run(std::env::args_os().skip(1).collect())
}
