//! The watch over new pods, which the agent does in the place of the processes that ADDs start else.

use std::{thread, time::Duration};

use beeline::{
    net::with_netlink,
    node::{Store, watch},
};

/// How long to wait after a failure.
const PAUSE: Duration = Duration::from_secs(1);

/// Watches for good, on a thread of its own: the kernel lets it wait at each program that it attaches.
pub(super) fn start(store: &Store) {
    let store = store.clone();
    let watch = move || loop {
        let ended = with_netlink(async |netlink| watch::keep(netlink, &store).await);
        if let Err(error) = ended {
            tracing::warn!("watch of new pods: {error:#}; beginning again");
        }
        thread::sleep(PAUSE);
    };
    let started = thread::Builder::new().name("watch".to_owned()).spawn(watch);
    if let Err(error) = started {
        // ADDs start their own.
        tracing::warn!("watch of new pods: start thread: {error}");
    }
}
