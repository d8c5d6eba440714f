//! The command line, for people: what beeline is, and what it does on this node.

mod about;
mod adopt;
mod load;
mod networks;
mod status;

use std::{io, process::ExitCode};

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(
    name = "beeline",
    version,
    about = "A CNI plugin whose pods' packets make a beeline"
)]
struct Cli {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Shows the networks of this node: pods, peers, and what the fast path did
    Status(status::Options),
    /// Loads this build's programs, and swaps them for those that run; no packet is lost
    Load(load::Options),
    /// Takes the fast path off this node; pods go on by the plain bridge
    Unload(networks::Options),
}

/// Runs the command line; without arguments it says what beeline is and how to configure it.
pub fn main() -> ExitCode {
    let done = match Cli::parse().verb {
        None => {
            about::print(&mut io::stderr());
            Ok(())
        }
        Some(Verb::Status(options)) => status::print(&options, &mut io::stdout().lock()),
        Some(Verb::Load(options)) => load::load(&options, &mut io::stdout().lock()),
        Some(Verb::Unload(options)) => load::unload(&options, &mut io::stdout().lock()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("beeline: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_commands_and_their_options_go_together() {
        Cli::command().debug_assert();
    }
}
