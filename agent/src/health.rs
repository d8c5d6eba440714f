//! Whether the agent is alive and the node is ready for pods, for those who ask by HTTP.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

/// How long the agent's loop may take for one round before it counts as stuck.
const PATIENCE: Duration = Duration::from_secs(120);

/// What is known of the agent's health.
#[derive(Debug)]
pub(crate) struct Health {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    beat: Instant,
    ready: Result<(), String>,
}

impl Health {
    /// Alive, and not ready yet.
    pub(crate) fn new() -> Self {
        Self {
            inner: Mutex::new(Inner {
                beat: Instant::now(),
                ready: Err("starting".to_owned()),
            }),
        }
    }

    /// The agent's loop goes round.
    pub(crate) fn beat(&self) {
        self.change(|inner| inner.beat = Instant::now());
    }

    /// Whether pods get networking here; if not, why.
    pub(crate) fn set_ready(&self, ready: Result<(), String>) {
        self.change(|inner| inner.ready = ready);
    }

    /// Whether pods get networking here; if not, why.
    pub(crate) fn ready(&self) -> Result<(), String> {
        self.change(|inner| inner.ready.clone())
    }

    /// Whether the agent's loop goes round; if not, why not.
    pub(crate) fn alive(&self) -> Result<(), String> {
        let since = self.change(|inner| inner.beat.elapsed());
        match since < PATIENCE {
            true => Ok(()),
            false => Err(format!("no round for {} s", since.as_secs())),
        }
    }

    fn change<T>(&self, f: impl FnOnce(&mut Inner) -> T) -> T {
        // Whoever panicked has left nothing half done.
        f(&mut self.inner.lock().unwrap_or_else(|error| error.into_inner()))
    }
}
