//! Processes that outlive a call by the runtime.

use std::{
    ffi::OsStr,
    process::{Child, Stdio},
    sync::Mutex,
};

use anyhow::{Context as _, Result};

use crate::host;

/// Those that were left to themselves and may be at work still.
static LEFT: Mutex<Vec<Child>> = Mutex::new(Vec::new());

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

/// Leaves a child to itself. After a call by the runtime nobody waits for it but init; a process that stays calls
/// [`reap`] from time to time.
pub fn leave(child: Child) {
    change(|left| left.push(child));
}

/// Has the kernel forget the children that were left and have ended since; waits for none.
pub fn reap() {
    change(|left| left.retain_mut(|child| matches!(child.try_wait(), Ok(None))));
}

fn change(f: impl FnOnce(&mut Vec<Child>)) {
    // Whoever panicked has left nothing half done.
    f(&mut LEFT.lock().unwrap_or_else(|error| error.into_inner()));
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        process::Command,
        thread,
        time::{Duration, Instant},
    };

    use super::*;

    #[test]
    fn a_child_that_was_left_is_reaped_once_it_has_ended() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let input = child.stdin.take();
        let process = format!("/proc/{}", child.id());
        leave(child);
        reap();
        assert!(fs::exists(&process).unwrap(), "it is at work still");
        drop(input);
        let deadline = Instant::now() + Duration::from_secs(30);
        while fs::exists(&process).unwrap() {
            assert!(Instant::now() < deadline, "not reaped");
            thread::sleep(Duration::from_millis(5));
            reap();
        }
    }
}
