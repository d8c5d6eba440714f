//! Shows beeline at work on nodes that are network namespaces.

use std::process::ExitCode;

use beeline_tests::demo;
use clap::Parser;

fn main() -> ExitCode {
    match demo::run(&demo::Options::parse()) {
        Ok(verdict) => verdict.report(),
        Err(error) => {
            eprintln!("\nbeeline-demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}
