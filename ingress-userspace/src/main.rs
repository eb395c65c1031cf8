//! The binary `forebay`: reads the flags and hands over to the command.

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _, error::ErrorKind};

mod admin;
mod ask;
mod config;
mod confine;
mod link;
mod log;
mod run;
mod socket_file;
mod sockets;

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
    let ended = match config.command {
        Command::Run(config) => run::run(&config).map(|()| ExitCode::SUCCESS),
        Command::Agent(config) => run::agent(&config).map(|()| ExitCode::SUCCESS),
        Command::Proxy(config) => run::proxy(&config).map(|()| ExitCode::SUCCESS),
        Command::Operator(config) => run::operator(&config).map(|()| ExitCode::SUCCESS),
        Command::Detach(args) => ask::detach(&args),
        Command::Explain(args) => ask::explain(&args),
        Command::Status(args) => ask::status(&args),
        Command::Routes(args) => ask::routes(&args),
        Command::Metrics(args) => ask::metrics(&args),
        Command::Annotations => ask::annotations(),
    };
    match ended {
        Ok(code) => code,
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
    let command = std::env::args().nth(1).unwrap_or_default();
    let command = Config::command()
        .find_subcommand(&command)
        .map_or_else(String::new, |known| format!("{} ", known.get_name()));
    eprintln!("forebay: {reason} (see forebay {command}--help)");
    ExitCode::from(USAGE)
}
