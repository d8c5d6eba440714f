//! Processes that others started.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::thread;
use std::time::{Duration, Instant};

use crate::wait;
use anyhow::{Result, ensure};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::netns::Namespace;

/// Far longer than a killed process needs to be gone.
const GONE: Duration = Duration::from_secs(10);

/// The processes that were started with exactly these arguments, after their program's name.
pub fn with_arguments(arguments: &[&str]) -> Result<Vec<Pid>> {
    let given = |pid: &Pid| {
        let line = command_line(*pid).unwrap_or_default();
        line.iter().skip(1).eq(arguments)
    };
    Ok(all()?.into_iter().filter(given).collect())
}

/// The processes whose network namespace this is, each with its command line.
pub fn inside(namespace: &Namespace) -> Result<Vec<(Pid, Vec<String>)>> {
    let inode = |path: &str| Some(fs::metadata(path).ok()?.ino());
    let wanted = namespace.within(|| inode("/proc/thread-self/ns/net"));
    let is_inside = |pid: &Pid| inode(&format!("/proc/{pid}/ns/net")) == wanted;
    let inside = all()?.into_iter().filter(is_inside);
    Ok(inside
        .filter_map(|pid| Some((pid, command_line(pid)?)))
        .collect())
}

fn all() -> Result<Vec<Pid>> {
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let number = entry?.file_name().to_string_lossy().parse();
        pids.extend(number.map(Pid::from_raw));
    }
    Ok(pids)
}

/// The program's name and its arguments; none of a process that is gone or only waits for its parent.
fn command_line(pid: Pid) -> Option<Vec<String>> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let line = String::from_utf8_lossy(&line).into_owned();
    let line = line.strip_suffix('\0')?;
    Some(line.split('\0').map(str::to_owned).collect())
}

/// Ends a process with SIGKILL, and waits until it is gone or only waits for its parent.
pub fn end(pid: Pid) -> Result<()> {
    match kill(pid, Signal::SIGKILL) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(errno) => return Err(errno.into()),
    }
    let deadline = wait::deadline(GONE);
    while is_alive(pid) {
        ensure!(
            Instant::now() < deadline,
            "process {pid}: killed and still there"
        );
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

fn is_alive(pid: Pid) -> bool {
    // The state stands behind the name in parentheses (proc_pid_stat(5)).
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit(") ")
        .next()
        .and_then(|rest| rest.chars().next());
    state.is_some_and(|state| !"ZX".contains(state))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_process_is_found_by_its_arguments_and_ended() {
        let number = format!("1000.{}", std::process::id());
        let mut child = Command::new("sleep").arg(&number).spawn().unwrap();
        let pid = Pid::from_raw(child.id().try_into().unwrap());
        let mut found = Vec::new();
        // Between fork and exec it has this program's arguments.
        while found.is_empty() && is_alive(pid) {
            found = with_arguments(&[&number]).unwrap();
        }
        assert_eq!(found, [pid]);
        end(pid).unwrap();
        assert!(!child.wait().unwrap().success());
        assert_eq!(with_arguments(&[&number]).unwrap(), []);
        end(pid).unwrap();
    }
}
