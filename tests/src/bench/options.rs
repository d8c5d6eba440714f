//! The bench's command line, and what it comes to.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use super::{report, types::Settings};

/// Measures what pods' packets and their ADDs cost, beside everything a user would pick instead.
#[derive(Clone, Debug, Parser)]
#[command(name = "beeline-bench", version)]
pub struct Options {
    /// What to do
    #[command(subcommand)]
    pub verb: Verb,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Verb {
    /// Measure traffic of all contenders
    Run(Measure),
    /// Measure what a packet costs in each program
    Program(Measure),
    /// Measure what ADD and DEL cost
    Add(Measure),
    /// Measure all of it
    All(Measure),
    /// Read what was measured
    #[command(flatten)]
    Read(report::options::Verb),
    /// Only remove what an earlier bench left
    Cleanup,
}

/// How to measure; what is not given depends on `--quick`.
#[derive(Args, Clone, Debug)]
pub struct Measure {
    /// Where to write the results
    #[arg(long, short, value_name = "FILE", default_value = "bench.json")]
    pub output: PathBuf,
    /// End within three minutes, with fewer cases and rounds
    #[arg(long)]
    pub quick: bool,
    /// Only with both ends on one CPU, where the rate is 1 / CPU cost
    #[arg(long)]
    pub pinned: bool,
    /// Rounds of each measurement; of those on one CPU twice as many
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: Option<u32>,
    /// Numbers of Services with kube-proxy's rules for them
    #[arg(long, num_args = 1.., default_values_t = [0, 1000])]
    pub services: Vec<u32>,
    /// Only these cases
    #[arg(long, num_args = 1.., value_parser = clap::builder::PossibleValuesParser::new(super::case::names()))]
    pub only: Vec<String>,
    /// Only these contenders
    #[arg(long, num_args = 1.., value_parser = clap::builder::PossibleValuesParser::new(super::contender::names()))]
    pub contenders: Vec<String>,
    /// Seconds of a round of streams or small packets
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub seconds: u32,
    /// Milliseconds of a round of transactions
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..))]
    pub milliseconds: u64,
    /// Runs of each program in a round
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub repeat: Option<u32>,
    /// The most pods on a node; a bridge takes 1023
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub pods: Option<u32>,
}

impl Measure {
    /// The settings with all defaults filled in.
    pub fn settings(&self) -> Settings {
        let pick = |given: Option<u32>, quick, full| {
            given.unwrap_or(if self.quick { quick } else { full })
        };
        Settings {
            quick: self.quick,
            rounds: pick(self.rounds, 2, 3),
            stream_seconds: self.seconds.into(),
            transaction_seconds: self.transactions().as_secs_f64(),
            repeat: pick(self.repeat, 20_000, 200_000),
            pods: pick(self.pods, 50, 1000),
            ..Settings::default()
        }
    }

    /// How long a round of transactions is.
    pub(super) fn transactions(&self) -> Duration {
        Duration::from_millis(self.milliseconds)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Options::command().debug_assert();
    }
}
