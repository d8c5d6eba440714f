//! Network namespaces, entered only by threads that end there.

use std::{
    fmt,
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd},
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    panic::resume_unwind,
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    libc,
    sched::{CloneFlags, setns},
    sys::statfs::{NSFS_MAGIC, PROC_SUPER_MAGIC, fstatfs},
};

mod ioctl {
    //! `NS_GET_NSTYPE` of `linux/nsfs.h`.
    nix::ioctl_none!(ns_get_nstype, 0xb7, 0x3);
}

/// The calling thread's own namespace; `/proc/self` would be the main thread's.
const CURRENT: &str = "/proc/thread-self/ns/net";

/// An open network namespace; it lives at least as long as this handle.
#[derive(Debug)]
pub struct Netns {
    file: File,
    path: PathBuf,
}

/// Why a path could not be opened as a network namespace.
#[derive(Debug)]
pub enum OpenError {
    /// Nothing is there: the namespace is gone, or never was.
    Missing(PathBuf),
    /// Something else is there, such as the empty file a deleted namespace was mounted on.
    NotNetns(PathBuf),
    /// The path could not be opened or examined.
    Io(PathBuf, io::Error),
}

impl Netns {
    /// Opens a namespace by a path such as `/var/run/netns/NAME` or `/proc/PID/ns/net`.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        let path = path.as_ref().to_owned();
        // Non-blocking, so that a path to a FIFO cannot hang the plugin; std adds O_CLOEXEC.
        let opened = File::options()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(&path);
        let file = match opened {
            Ok(file) => file,
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => {
                return Err(OpenError::Missing(path));
            }
            Err(error) => return Err(OpenError::Io(path, error)),
        };
        match is_netns(&file) {
            Ok(true) => Ok(Self { file, path }),
            Ok(false) => Err(OpenError::NotNetns(path)),
            Err(errno) => Err(OpenError::Io(path, errno.into())),
        }
    }

    /// Opens the calling thread's namespace.
    pub fn current() -> Result<Self, OpenError> {
        Self::open(CURRENT)
    }

    /// Whether the calling thread is in this namespace.
    pub fn is_current(&self) -> Result<bool> {
        let identity = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
        let this = self
            .file
            .metadata()
            .with_context(|| format!("netns {:?}: stat", self.path))?;
        let current =
            std::fs::metadata(CURRENT).with_context(|| format!("netns {CURRENT:?}: stat"))?;
        Ok(identity(this) == identity(current))
    }

    /// Runs `f` inside, on a thread that ends there and so cannot leak the namespace.
    pub fn within<T: Send>(&self, f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let inside = || {
            setns(&self.file, CloneFlags::CLONE_NEWNET)
                .with_context(|| format!("netns {:?}: enter", self.path))?;
            f()
        };
        thread::scope(|scope| {
            let thread = thread::Builder::new()
                .name("netns".to_owned())
                .spawn_scoped(scope, inside)
                .with_context(|| format!("netns {:?}: start thread", self.path))?;
            thread.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[expect(unsafe_code, reason = "no safe library has NS_GET_NSTYPE")]
fn is_netns(file: &File) -> Result<bool, Errno> {
    let filesystem = fstatfs(file)?.filesystem_type();
    if filesystem != NSFS_MAGIC && filesystem != PROC_SUPER_MAGIC {
        return Ok(false);
    }
    // SAFETY: the descriptor is open for the whole call, and NS_GET_NSTYPE takes no argument.
    match unsafe { ioctl::ns_get_nstype(file.as_raw_fd()) } {
        Ok(kind) => Ok(kind == libc::CLONE_NEWNET),
        Err(Errno::ENOTTY) => Ok(false),
        Err(errno) => Err(errno),
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(path) => write!(f, "netns {path:?}: no such file"),
            Self::NotNetns(path) => write!(f, "netns {path:?}: not a network namespace"),
            Self::Io(path, error) => write!(f, "netns {path:?}: open: {error}"),
        }
    }
}

impl std::error::Error for OpenError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_network_namespace_is_told_apart_from_what_is_missing() {
        assert!(matches!(
            Netns::open("/run/netns/no/such/namespace"),
            Err(OpenError::Missing(_))
        ));
        for path in [
            "/proc/self/ns/uts",
            "/proc/self/status",
            "/dev/null",
            "/tmp",
        ] {
            assert!(
                matches!(Netns::open(path), Err(OpenError::NotNetns(_))),
                "{path}"
            );
        }
        assert!(Netns::current().unwrap().is_current().unwrap());
    }
}

#[cfg(test)]
mod netns_tests {
    use super::*;
    use crate::net::testing::new_netns;

    #[test]
    fn work_within_a_namespace_leaves_the_caller_where_it_was() {
        let other = new_netns();
        assert!(!other.is_current().unwrap());
        assert!(other.within(|| other.is_current()).unwrap());
        assert!(!other.is_current().unwrap());
    }

    #[test]
    fn an_error_within_a_namespace_comes_back() {
        let failure = new_netns()
            .within(|| -> Result<()> { anyhow::bail!("inside") })
            .unwrap_err();
        assert_eq!(failure.to_string(), "inside");
    }
}
