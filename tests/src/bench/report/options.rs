//! The command lines of what reads results, to be part of the bench's own.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::bench::types::Results;

/// What can be done with results.
#[derive(Clone, Debug, Subcommand)]
pub enum Verb {
    /// Write tables, charts and a page from results
    Report(ReportArgs),
    /// Print what changed between two runs beyond the noise
    Compare(CompareArgs),
}

/// Options of `report`.
#[derive(Args, Clone, Debug)]
pub struct ReportArgs {
    /// Results in JSON
    pub file: PathBuf,
    /// Directory to write into [default: that of FILE]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// Options of `compare`.
#[derive(Args, Clone, Debug)]
pub struct CompareArgs {
    /// Results of the former run
    pub a: PathBuf,
    /// Results of the latter run
    pub b: PathBuf,
}

impl Verb {
    /// Does it.
    pub fn run(&self) -> Result<()> {
        match self {
            Self::Report(args) => args.run(),
            Self::Compare(args) => args.run(),
        }
    }
}

impl ReportArgs {
    /// Writes the report and prints the paths of its files.
    pub fn run(&self) -> Result<()> {
        let results = Results::read(&self.file)?;
        let beside = || self.file.parent().map(PathBuf::from).unwrap_or_default();
        let out = self.out.clone().unwrap_or_else(beside);
        for path in super::write(&results, &out)? {
            println!("{}", path.display());
        }
        Ok(())
    }
}

impl CompareArgs {
    /// Prints the comparison.
    pub fn run(&self) -> Result<()> {
        print!(
            "{}",
            super::compare(&Results::read(&self.a)?, &Results::read(&self.b)?)
        );
        Ok(())
    }
}
