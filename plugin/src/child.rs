//! Processes that outlive a call by the runtime.

use std::{
    env,
    ffi::OsStr,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result};

/// Starts this executable anew, with nothing of the runtime's: neither its pipes, whose end it waits for, nor its
/// environment, nor its directory.
pub fn start(arguments: &[&OsStr]) -> Result<Child> {
    let program = env::current_exe().context("own executable: find")?;
    Command::new(&program)
        .args(arguments)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("{}: run", program.display()))
}
