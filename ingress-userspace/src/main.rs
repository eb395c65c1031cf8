//! The binary `forebay`: reads the flags and hands over to `run`.

use std::process::ExitCode;

use clap::{Parser, error::ErrorKind};

mod admin;
mod config;
mod log;
mod run;

use config::{Command, Config};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exit code for flags, addresses and ports that cannot be used.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let config = match Config::try_parse() {
        Ok(config) => config,
        Err(error) => return refuse(&error),
    };
    let Command::Run(config) = config.command;
    match run::run(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let usage = error.downcast_ref::<run::UsageError>().is_some();
            eprintln!("forebay: {error:#}");
            if usage {
                ExitCode::from(USAGE)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

/// Help and version as clap prints them; an error as one line.
fn refuse(error: &clap::Error) -> ExitCode {
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    ) {
        error.exit();
    }
    let text = error.to_string();
    let reason: Vec<&str> = text
        .lines()
        .take_while(|line| !line.starts_with("Usage:"))
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let reason = reason.join(" ");
    let reason = reason.strip_prefix("error: ").unwrap_or(&reason);
    let reason = reason
        .trim_end_matches("For more information, try '--help'.")
        .trim_end();
    eprintln!("forebay: {reason} (see forebay run --help)");
    ExitCode::from(USAGE)
}
