//! Measures beeline beside its alternatives, on nodes that are network namespaces.

use std::process::ExitCode;

use beeline_tests::bench;
use clap::Parser;

fn main() -> ExitCode {
    bench::run(&bench::Options::parse()).unwrap_or_else(|error| {
        eprintln!("\nbeeline-bench: {error:#}");
        ExitCode::FAILURE
    })
}
