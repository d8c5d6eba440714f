//! MACs that pods get after beeline's ADD: `tuning`, later in the chain, gives their interfaces others.
//!
//! The fast path knows each pod by its MAC: it writes it into frames, and with `antiSpoof` drops what names another. So
//! while pods are new, what their interfaces say is followed.

use anyhow::Result;

use super::{Attachment, Store, bridge};
use crate::{
    datapath::Datapath,
    net::{Netlink, link::inside::Change, mac::Mac},
};

/// Looks after what a notice tells, if that is news of a pod.
pub(super) async fn heard(netlink: &Netlink, store: &Store, change: Change) -> Result<()> {
    let only = match change {
        Change::Unknown => None,
        Change::Mac(ifindex, mac) if is_news(store, ifindex, mac)? => Some(ifindex),
        Change::Mac(..) => return Ok(()),
    };
    for attachment in store.attachments()? {
        if only.is_none_or(|ifindex| ifindex == attachment.ifindex) {
            follow(netlink, store, &attachment).await?;
        }
    }
    Ok(())
}

/// Whether the fast path knows the pod behind a host veth by another MAC. Reads no pod's record.
fn is_news(store: &Store, ifindex: u32, mac: Mac) -> Result<bool> {
    let Some(record) = store.record() else {
        return Ok(false);
    };
    let datapath = Datapath::open(&record.plan.datapath.bpffs, &record.plan.network);
    let known = datapath.map(|datapath| datapath.mac_of(ifindex));
    let known = known.transpose()?.flatten();
    Ok(known.is_some_and(|known| known.0 != mac.0))
}

/// Has the record and the maps know the MAC that a pod's interface has by now.
pub(super) async fn follow(netlink: &Netlink, store: &Store, pod: &Attachment) -> Result<()> {
    let inside = netlink.other_end(pod.ifindex).await?;
    let Some(mac) = inside.and_then(|link| link.mac) else {
        return Ok(());
    };
    let Some(record) = store.record().filter(|_| pod.mac != Some(mac)) else {
        return Ok(());
    };
    let Some(bridge) = bridge::find(netlink, &record.plan.bridge).await? else {
        return Ok(());
    };
    // Who takes the MAC of another is not helped to what is meant for that one.
    if mac == bridge.mac || is_taken(store, mac, pod)? {
        let container = &pod.container_id;
        tracing::warn!(container, "its interface has MAC {mac}, which is another's");
        return Ok(());
    }
    let pod = Attachment {
        mac: Some(mac),
        ..pod.clone()
    };
    store.save_mac(&pod)?;
    let datapath = Datapath::open(&record.plan.datapath.bpffs, &record.plan.network);
    if let (Some(datapath), Some(entry)) = (datapath, pod.pod(&bridge)) {
        datapath.change_pod(&pod.ips(), entry)?;
    }
    Ok(())
}

fn is_taken(store: &Store, mac: Mac, by: &Attachment) -> Result<bool> {
    let mut attachments = store.attachments()?.into_iter();
    Ok(attachments.any(|other| other.ifindex != by.ifindex && other.mac == Some(mac)))
}
