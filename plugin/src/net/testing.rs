//! Namespaces for tests, which touch nothing of the host and so run in parallel.

use std::thread;

use anyhow::Result;
use nix::sched::{CloneFlags, unshare};

use super::{Netlink, netns::Netns, with_netlink};

/// Makes an empty network namespace.
pub(crate) fn new_netns() -> Netns {
    let thread = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET)
            .expect("this test needs root (CAP_SYS_ADMIN); run with `--skip netns_tests` without");
        Netns::current().expect("open the new network namespace")
    });
    thread.join().expect("make a network namespace")
}

/// Runs `f` in an empty network namespace of its own.
pub(crate) fn isolated<T: Send>(f: impl FnOnce() -> Result<T> + Send) -> T {
    new_netns()
        .within(f)
        .unwrap_or_else(|error| panic!("{error:#}"))
}

/// Runs `f` with a netlink connection to an empty network namespace of its own.
pub(crate) fn netlink<T: Send>(f: impl AsyncFnOnce(&Netlink) -> Result<T> + Send) -> T {
    isolated(|| with_netlink(f))
}
