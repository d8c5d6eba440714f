//! The command line, for people: what beeline is, and what it does on this node.

mod about;
mod adopt;
mod doctor;
mod load;
mod monitor;
mod networks;
mod output;
mod status;

use std::{io, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

use crate::{
    net::with_netlink,
    node::{Store, watch},
};

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
    /// Looks for what is wrong on this node, and says what puts it right; changes nothing
    Doctor(doctor::Options),
    /// Shows each packet that the fast path's programs judge, and what becomes of it; no packet is lost
    Monitor(monitor::Options),
    /// Loads this build's programs, and swaps them for those that run; no packet is lost
    Load(load::Options),
    /// Takes the fast path off this node; pods go on by the plain bridge
    Unload(networks::Options),
    /// Watches new pods for what others put on their host veths; each ADD sees to it that this runs
    #[command(hide = true)]
    Watch {
        /// The directory of the network's state
        #[arg(long)]
        store: PathBuf,
    },
    /// Deletes an interface of the network namespace it is called in, and waits for all that the kernel does then
    #[command(hide = true)]
    DeleteLink {
        /// The interface's index
        #[arg(long)]
        index: u32,
    },
}

/// Runs the command line; without arguments it says what beeline is and how to configure it.
pub fn main() -> ExitCode {
    let done = match Cli::parse().verb {
        None => {
            about::print(&mut io::stderr());
            Ok(())
        }
        Some(Verb::Status(options)) => status::print(&options, &mut io::stdout().lock()),
        Some(Verb::Doctor(options)) => match doctor::run(&options, &mut io::stdout().lock()) {
            Ok(false) => return ExitCode::FAILURE,
            examined => examined.map(drop),
        },
        Some(Verb::Monitor(options)) => monitor::run(&options),
        Some(Verb::Load(options)) => load::load(&options, &mut io::stdout().lock()),
        Some(Verb::Unload(options)) => load::unload(&options, &mut io::stdout().lock()),
        Some(Verb::Watch { store }) => {
            let store = Store::at(store);
            with_netlink(async |netlink| watch::watch(netlink, &store).await)
        }
        Some(Verb::DeleteLink { index }) => {
            with_netlink(async |netlink| netlink.delete(index).await)
        }
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
