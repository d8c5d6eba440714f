//! Pods whose interfaces went without a DEL: the node booted and kept its files, or is a container that was restarted.
//!
//! The records then name interfaces by indices that others have by now.

use std::collections::HashSet;

use anyhow::Result;

use super::{Attachment, Store};
use crate::net::Netlink;

/// Has the records of such pods name no interface, so that no program is attached for them, nor taken off what is
/// another's. What else is left of them goes with their DEL, or GC. The caller is alone in the node.
pub(super) async fn disown(netlink: &Netlink, store: &Store) -> Result<()> {
    let recorded = store.attachments()?.into_iter();
    let recorded: Vec<Attachment> = recorded.filter(|pod| pod.ifindex != 0).collect();
    if recorded.is_empty() {
        return Ok(());
    }
    let links = netlink.links().await?;
    let there: HashSet<_> = links.iter().map(|link| (link.index, &*link.name)).collect();
    for pod in recorded {
        if !there.contains(&(pod.ifindex, &*pod.host_veth)) {
            store.save_attachment(&Attachment {
                ifindex: 0,
                fast_path: false,
                ..pod
            })?;
        }
    }
    Ok(())
}
