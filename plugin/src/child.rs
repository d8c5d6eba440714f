//! Processes that outlive a call by the runtime.

use std::{
    ffi::OsStr,
    process::{Child, Stdio},
};

use anyhow::{Context as _, Result};

use crate::host;

/// Starts the plugin's executable anew, with nothing of the runtime's: neither its pipes, whose end it waits for, nor its
/// environment, nor its directory.
pub fn start(arguments: &[&OsStr]) -> Result<Child> {
    let mut command = host::plugin()?;
    command
        .args(arguments)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("{:?}: run", command.get_program()))
}
