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
    match change {
        Change::Unknown => follow(netlink, store, None).await,
        Change::Mac(ifindex, mac) => {
            let Some(record) = store.record() else {
                return Ok(());
            };
            let datapath = Datapath::open(&record.plan.datapath.bpffs, &record.plan.network);
            let known = datapath
                .map(|datapath| datapath.mac_of(ifindex))
                .transpose()?;
            match known.flatten() {
                Some(known) if known.0 != mac.0 => follow(netlink, store, Some(ifindex)).await,
                _ => Ok(()),
            }
        }
    }
}

/// Has records and maps know the MACs that pods' interfaces have by now: of all pods, or of that behind a host veth.
pub(super) async fn follow(netlink: &Netlink, store: &Store, only: Option<u32>) -> Result<()> {
    let Some(record) = store.record() else {
        return Ok(());
    };
    let plan = &record.plan;
    let Some(bridge) = bridge::find(netlink, &plan.bridge).await? else {
        return Ok(());
    };
    let Some(datapath) = Datapath::open(&plan.datapath.bpffs, &plan.network) else {
        return Ok(());
    };
    let attachments = store.attachments()?;
    for attachment in &attachments {
        let asked = only.is_none_or(|ifindex| ifindex == attachment.ifindex);
        if !asked || !attachment.fast_path {
            continue;
        }
        let inside = netlink.other_end(attachment.ifindex).await?;
        let Some(mac) = inside.and_then(|link| link.mac) else {
            continue;
        };
        if attachment.mac == Some(mac) {
            continue;
        }
        // Who takes the MAC of another is not helped to what is meant for that one.
        if mac == bridge.mac || is_taken(mac, attachment, &attachments) {
            let container = &attachment.container_id;
            tracing::warn!(container, "its interface has MAC {mac}, which is another's");
            continue;
        }
        let attachment = Attachment {
            mac: Some(mac),
            ..attachment.clone()
        };
        store.save_mac(&attachment)?;
        if let Some(pod) = attachment.pod(&bridge) {
            datapath.change_pod(&attachment.ips(), pod)?;
        }
    }
    Ok(())
}

fn is_taken(mac: Mac, by: &Attachment, attachments: &[Attachment]) -> bool {
    let another = |other: &&Attachment| other.ifindex != by.ifindex;
    let mut others = attachments.iter().filter(another);
    others.any(|other| other.mac == Some(mac))
}
