//! Network namespaces that exist as long as their owner, and running code and programs inside them.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::{io, thread};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use crate::exec;

/// Where namespaces are bound to names, as `ip netns` and `nsenter --net=` expect.
pub const DIRECTORY: &str = "/run/netns";

/// Whether interfaces made in a namespace speak IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ipv6 {
    /// As the kernel does by default.
    Enabled,
    /// Off, so that no router solicitation or multicast report moves a packet counter.
    Disabled,
}

/// A network namespace bound to a name under [`DIRECTORY`], removed on drop; or one that others own.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    handle: Mutex<File>,
    is_ours: bool,
}

/// Makes the directory a shared mount, as `ip netns add` would: if that came later, it would hide the names that are
/// there, and they could not be removed any more.
fn share_directory() -> Result<()> {
    fs::create_dir_all(DIRECTORY)?;
    let directory = File::open(DIRECTORY)?;
    // Others may be at the same thing.
    let _lock = Flock::lock(directory, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?;
    let mount =
        |from: Option<&str>, flags| mount(from, DIRECTORY, None::<&str>, flags, None::<&str>);
    match mount(None, MsFlags::MS_SHARED | MsFlags::MS_REC) {
        Err(Errno::EINVAL) => {
            mount(Some(DIRECTORY), MsFlags::MS_BIND | MsFlags::MS_REC)?;
            mount(None, MsFlags::MS_SHARED | MsFlags::MS_REC)?;
        }
        shared => shared?,
    }
    Ok(())
}

impl Namespace {
    /// Creates a namespace with its loopback up.
    pub fn create(name: &str, ipv6: Ipv6) -> Result<Self> {
        share_directory().with_context(|| format!("{DIRECTORY}: prepare"))?;
        let namespace = Self {
            name: name.to_owned(),
            handle: Mutex::new(make(name)?),
            is_ours: true,
        };
        namespace.prepare(ipv6)?;
        Ok(namespace)
    }

    /// Puts a new one in its place, by the same name, as where a machine boots: what is in the old one stays there.
    pub fn renew(&self, ipv6: Ipv6) -> Result<()> {
        remove(&self.name)?;
        *self.handle() = make(&self.name)?;
        self.prepare(ipv6)
    }

    fn handle(&self) -> MutexGuard<'_, File> {
        self.handle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the namespace of a process, which has no name of its own; it stays as long as this does.
    pub fn of_process(pid: u32) -> Result<Self> {
        let name = format!("/proc/{pid}/ns/net");
        let handle = File::open(&name).with_context(|| format!("namespace {name}"))?;
        Ok(Self {
            name,
            handle: Mutex::new(handle),
            is_ours: false,
        })
    }

    fn prepare(&self, ipv6: Ipv6) -> Result<()> {
        if ipv6 == Ipv6::Disabled {
            for scope in ["all", "default"] {
                self.write_sysctl(&format!("net/ipv6/conf/{scope}/disable_ipv6"), "1")?;
            }
        }
        exec::ip_batch(self, &["link set lo up".to_owned()])
    }

    /// Its name under [`DIRECTORY`], or what it was opened as.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its path, as `CNI_NETNS` carries it.
    pub fn path(&self) -> PathBuf {
        Path::new(DIRECTORY).join(&self.name)
    }

    /// Runs `f` inside, on a thread that ends there and so cannot leak the namespace.
    ///
    /// Sockets made inside stay inside, so it is enough to make them here and use them anywhere.
    pub fn within<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            // The lock goes with the statement: others come in while this one works.
            setns(&*self.handle(), CloneFlags::CLONE_NEWNET)
                .unwrap_or_else(|e| panic!("namespace {}: {e}", self.name));
            f()
        };
        let joined = thread::scope(|scope| scope.spawn(inside).join());
        joined.unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Returns a command that will run inside. Only the network changes: the file systems, bpffs too, stay the caller's.
    #[expect(unsafe_code, reason = "runs between fork and exec")]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let handle = self.handle().try_clone();
        let enter = move || match &handle {
            Ok(handle) => Ok(setns(handle, CloneFlags::CLONE_NEWNET)?),
            Err(error) => Err(io::Error::from_raw_os_error(
                error.raw_os_error().unwrap_or_default(),
            )),
        };
        let mut command = Command::new(program);
        // SAFETY: between fork and exec the closure only calls setns on a descriptor it owns; it allocates nothing.
        unsafe { command.pre_exec(enter) };
        command
    }

    /// Writes one sysctl, its path relative to `/proc/sys`.
    pub fn write_sysctl(&self, key: &str, value: &str) -> Result<()> {
        self.within(|| fs::write(Path::new("/proc/sys").join(key), value))
            .with_context(|| format!("namespace {}: sysctl {key}", self.name))
    }

    /// Lets go without removing it, for somebody to look around or a later sweep to remove.
    pub fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if self.is_ours {
            // Already gone is fine: tests remove namespaces under the plugin's feet.
            let _ = remove(&self.name);
        }
    }
}

/// Removes a namespace's name; the namespace goes with its last process and socket.
pub fn remove(name: &str) -> Result<()> {
    let path = Path::new(DIRECTORY).join(name);
    let _ = umount2(&path, MntFlags::MNT_DETACH);
    fs::remove_file(&path).with_context(|| format!("namespace {name}: remove"))
}

/// Names of all namespaces there are.
pub fn list() -> Vec<String> {
    let entries = fs::read_dir(DIRECTORY).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

/// Makes a namespace and binds it to a name that nothing has.
fn make(name: &str) -> Result<File> {
    let path = Path::new(DIRECTORY).join(name);
    // Refuses a name that exists, which would be another owner's.
    File::create_new(&path).with_context(|| format!("namespace {name}: create"))?;
    let bound = thread::scope(|scope| scope.spawn(|| bind_new(&path)).join());
    let handle = bound.unwrap_or_else(|panic| resume_unwind(panic));
    let handle = handle.inspect_err(|_| drop(fs::remove_file(&path)));
    handle.with_context(|| format!("namespace {name}"))
}

/// Moves the calling thread, which must end afterwards, to a new namespace bound to `path`.
fn bind_new(path: &Path) -> Result<File> {
    unshare(CloneFlags::CLONE_NEWNET).context("unshare, which needs root")?;
    // Not /proc/self, which is the main thread's.
    mount(
        Some("/proc/thread-self/ns/net"),
        path,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )
    .context("bind")?;
    File::open(path).context("open")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_within_sees_only_its_own_links_and_the_name_goes_on_drop() {
        let namespace = Namespace::create(
            &format!("bl-{}-netns-unit", std::process::id()),
            Ipv6::Disabled,
        )
        .unwrap();
        let path = namespace.path();
        let output = exec::stdout(namespace.command("ip").args(["-o", "link"])).unwrap();
        assert_eq!(output.lines().count(), 1, "only lo: {output}");
        let seen = namespace.within(|| fs::read_to_string("/proc/thread-self/net/dev").unwrap());
        assert_eq!(seen.lines().count(), 3, "two heading lines and lo: {seen}");
        drop(namespace);
        assert!(!path.exists());
    }

    #[test]
    fn a_namespace_of_a_process_is_left_to_it() {
        let own = Path::new("/proc/self/ns/net");
        let namespace = Namespace::of_process(std::process::id()).unwrap();
        let seen = namespace.within(|| fs::read_link("/proc/thread-self/ns/net").unwrap());
        drop(namespace);
        assert_eq!(seen, fs::read_link(own).unwrap());
    }
}
