//! The `beeline` binary: a CNI plugin when a runtime calls it, a command line otherwise.

use std::{env, io, process::ExitCode};

use nix::sys::stat::{Mode, umask};
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

fn main() -> ExitCode {
    // Files and directories get the modes that they are made with, whatever the runtime's own are to get.
    umask(Mode::S_IWGRP | Mode::S_IWOTH);
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::WARN.into())
        .with_env_var("BEELINE_LOG")
        .from_env_lossy();
    // Standard output belongs to the runtime; runtimes log what comes on standard error.
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_target(false)
        .without_time()
        .with_ansi(false)
        .init();
    if env::var_os("CNI_COMMAND").is_some_and(|command| !command.is_empty()) {
        beeline::cni::main()
    } else {
        beeline::cli::main()
    }
}
