//! Making one system call of a program fail, or killing the program there: the program is the one that users run.
//!
//! The program runs under ptrace. Its threads are followed, its children are not. What it asks of the kernel is numbered
//! in order over all threads; at one number something goes wrong:
//!
//! ```text
//! steps    1         2                 3              4
//!          openat    netlink NEWLINK   bpf OBJ_GET    rename
//! fail     the call is not made, and returns an error
//! refuse             the kernel gets a request that it refuses
//! kill     the call is not made, and the program ends
//! ```

mod call;
mod memory;
mod netlink;
mod trace;

use std::process::{Command, Output};
use std::time::Duration;

use anyhow::Result;

/// How long a program may take that something went wrong for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Which system calls are steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steps {
    /// Those that change something, or ask netlink or bpf for something.
    Changing,
    /// All but those of memory, threads, signals, time and waiting, from where the program's own code begins: where
    /// Rust's runtime looks whether standard input is open.
    All,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The call is not made, and returns an error that it may return.
    Fail,
    /// The kernel is asked by netlink for something that it does not know, and says so. Other calls are no steps then.
    Refuse,
    /// All threads are killed, and the call is not made.
    Kill,
}

/// Something that goes wrong at one step.
#[derive(Clone, Debug)]
pub struct Injection {
    /// Which calls are numbered.
    pub steps: Steps,
    /// What goes wrong.
    pub fault: Fault,
    /// At which of them, from 1.
    pub at: usize,
    /// Only those whose description has this are numbered.
    pub only: Option<&'static str>,
}

impl Injection {
    /// One at a step that changes something.
    pub fn at(fault: Fault, at: usize) -> Self {
        Self {
            steps: Steps::Changing,
            fault,
            at,
            only: None,
        }
    }

    /// The same, of other steps.
    pub fn of(self, steps: Steps) -> Self {
        Self { steps, ..self }
    }

    /// The same, where only steps are numbered whose description has `text`.
    pub fn only(self, text: &'static str) -> Self {
        Self {
            only: Some(text),
            ..self
        }
    }
}

/// What came of a run in which something was to go wrong.
#[derive(Debug)]
pub struct Injected<T> {
    /// What the program did.
    pub outcome: T,
    /// The step where it went wrong, to be read by people; `None` if the program ended before.
    pub step: Option<String>,
    /// How many steps there were, up to that one.
    pub steps: usize,
}

impl<T> Injected<T> {
    /// The same with another outcome.
    pub fn map<U>(self, f: impl FnOnce(T) -> Result<U>) -> Result<Injected<U>> {
        Ok(Injected {
            outcome: f(self.outcome)?,
            step: self.step,
            steps: self.steps,
        })
    }
}

/// Runs a command with `input` on its standard input, and has something go wrong.
///
/// # Errors
///
/// The program cannot be started or traced, or does not end.
pub fn output(
    command: &mut Command,
    input: &[u8],
    injection: &Injection,
) -> Result<Injected<Output>> {
    trace::output(command, input, injection, PATIENCE)
}

#[cfg(test)]
mod tests;
