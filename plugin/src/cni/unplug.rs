//! Deleting a pod's veth pair without waiting for all that the kernel does then.
//!
//! The kernel first takes both ends out of sight and stops them; nothing finds them any more, by name or index, nor sends
//! by them. Then it waits for RCU grace periods, two of them for our programs (`tcx_uninstall`, Linux 6.6), and for the
//! last users of the devices (`netdev_run_todo`): some 40 ms, which cannot fail and need nobody. A child makes the
//! request, as it is the one who makes it who waits.

use std::{ffi::OsStr, process::Child, time::Duration};

use anyhow::Result;
use nix::{errno::Errno, net::if_::if_nametoindex};

use crate::{
    child,
    net::{Netlink, link::Link},
};

/// So often it is looked whether the ends are gone.
const LOOK: Duration = Duration::from_micros(200);

/// Deletes a veth pair; returns when neither end can be found any more.
pub(super) async fn delete(host: &Netlink, link: &Link) -> Result<()> {
    let index = link.index.to_string();
    let arguments = ["delete-link", "--index", &index].map(OsStr::new);
    match child::start(&arguments) {
        Ok(child) => wait(&link.name, child).await,
        Err(error) => tracing::warn!("interface {:?}: {error:#}", link.name),
    }
    if is_visible(&link.name) {
        // The child could not; this says why.
        return host.delete(link.index).await;
    }
    Ok(())
}

async fn wait(name: &str, mut child: Child) {
    while is_visible(name) && matches!(child.try_wait(), Ok(None)) {
        tokio::time::sleep(LOOK).await;
    }
    // The kernel is not done with it.
    child::leave(child);
}

/// Whether there may be such an interface; what cannot be told may be there. Asks by an ioctl, which waits for nobody
/// (SIOCGIFINDEX takes no RTNL).
fn is_visible(name: &str) -> bool {
    if_nametoindex(name) != Err(Errno::ENODEV)
}
