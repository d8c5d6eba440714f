//! Ctrl-C: noticed between two steps, so that everything is still taken down.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Notices Ctrl-C and termination from now on; who insists ends the program at once.
pub(crate) fn watch() -> Result<()> {
    let noticed = || {
        if INTERRUPTED.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    };
    ctrlc::set_handler(noticed).context("signal handler")
}

/// Fails if there was an interrupt.
pub(crate) fn check() -> Result<()> {
    ensure!(!INTERRUPTED.load(Ordering::Relaxed), "interrupted");
    Ok(())
}
