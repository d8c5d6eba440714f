//! Ctrl-C, which the terminal sends to our children too: they end by it, we live on to clean up.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

static SEEN: AtomicBool = AtomicBool::new(false);

/// Survives Ctrl-C from here on; children still start with its default meaning, since exec resets handlers.
#[expect(unsafe_code, reason = "a handler of a signal is set")]
pub(crate) fn survive() -> Result<()> {
    let handler = SigHandler::Handler(remember);
    let action = SigAction::new(handler, SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: the handler only stores to an atomic, which is async-signal-safe.
    unsafe { sigaction(Signal::SIGINT, &action) }.context("SIGINT: set handler")?;
    Ok(())
}

/// Tells whether Ctrl-C was pressed.
pub(crate) fn seen() -> bool {
    SEEN.load(Ordering::Relaxed)
}

extern "C" fn remember(_: nix::libc::c_int) {
    SEEN.store(true, Ordering::Relaxed);
}
