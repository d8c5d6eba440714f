//! Turning the fast path of a running node on and off.

use anyhow::{Context as _, Result, anyhow, ensure};

use super::{Attachment, Plan, Record, Store, setup};
use crate::{
    datapath::{Datapath, config::Mode},
    net::{Netlink, link::Link, mac::Mac, netns::Netns, with_netlink},
};

/// Loads this build's programs, and swaps them for those that are attached or attaches them; takes all of the network's
/// pods onto the fast path, and those of `foreign`, which another plugin attached. Flows go on.
///
/// # Errors
///
/// The fast path does not come up. What the records say of a node that was set up before is then what they said, unless
/// they said that it was on, and it went as something bars it now.
pub async fn load(
    netlink: &Netlink,
    plan: &Plan,
    store: &Store,
    foreign: Vec<Attachment>,
) -> Result<Record> {
    let network = &plan.network;
    ensure!(
        plan.datapath.mode != Mode::Bridge,
        "network {network}: datapath.mode is \"bridge\""
    );
    let _lock = store.lock_exclusive()?;
    let mut former = Former {
        record: store.try_record()?,
        changed: Vec::new(),
        added: Vec::new(),
    };
    let (failure, now) = match turn_on(netlink, plan, store, foreign, &mut former).await {
        Ok(record) => match record.degraded.clone() {
            Some(reason) => (anyhow!("no fast path: {reason}"), Some(record)),
            None => return Ok(record),
        },
        Err(error) => (error, None),
    };
    former.restore(store)?;
    let was_fast = former.record.as_ref().is_some_and(Record::is_fast);
    let is_gone = || Datapath::open(&plan.datapath.bpffs, network).is_none();
    if let Some(now) = now.filter(|_| was_fast && is_gone()) {
        store.save_record(&now)?;
    }
    Err(failure.context(format!("network {network}")))
}

async fn turn_on(
    netlink: &Netlink,
    plan: &Plan,
    store: &Store,
    foreign: Vec<Attachment>,
    former: &mut Former,
) -> Result<Record> {
    if let Some(record) = former.record.as_ref().filter(|record| record.off) {
        store.save_record(&Record {
            off: false,
            ..record.clone()
        })?;
    }
    take_in(netlink, plan, store, foreign, former).await?;
    let (_, record, _) = setup::set_up(netlink, plan, store).await?;
    Ok(record)
}

/// Detaches and unpins everything of a network: its pods take the plain bridge, and new ones too until [`load`]. Flows go
/// on.
pub fn unload(store: &Store) -> Result<Record> {
    let _lock = store.lock_exclusive()?;
    let mut record = store
        .record()
        .with_context(|| format!("{}: no network was set up here", store.root().display()))?;
    record.off = true;
    record.degraded = Some(setup::OFF.to_owned());
    // First, as an ADD must not find pins that are about to go.
    store.save_record(&record)?;
    setup::unload(&record.plan)?;
    Ok(record)
}

/// The records as they were.
struct Former {
    record: Option<Record>,
    changed: Vec<Attachment>,
    added: Vec<Attachment>,
}

impl Former {
    fn restore(&self, store: &Store) -> Result<()> {
        if let Some(record) = &self.record {
            store.save_record(record)?;
        }
        for attachment in &self.changed {
            store.save_attachment(attachment)?;
        }
        for attachment in &self.added {
            store.remove_attachment(&attachment.container_id, &attachment.ifname)?;
        }
        Ok(())
    }
}

/// Marks every pod that can be on the fast path as one that is.
async fn take_in(
    netlink: &Netlink,
    plan: &Plan,
    store: &Store,
    foreign: Vec<Attachment>,
    former: &mut Former,
) -> Result<()> {
    let bridge = netlink.link(&plan.bridge.name).await?;
    for attachment in store.attachments()? {
        if attachment.fast_path || attachment.addresses.is_empty() {
            continue;
        }
        if let Some(taken) = taken(netlink, bridge.as_ref(), &attachment).await? {
            store.save_attachment(&taken)?;
            former.changed.push(attachment);
        }
    }
    for attachment in foreign {
        let known = store.attachment(&attachment.container_id, &attachment.ifname)?;
        if known.is_none()
            && let Some(taken) = taken(netlink, bridge.as_ref(), &attachment).await?
        {
            store.save_attachment(&taken)?;
            former.added.push(taken);
        }
    }
    Ok(())
}

/// The attachment on the fast path, if its host veth is a port of the bridge and its MAC can be told.
async fn taken(
    netlink: &Netlink,
    bridge: Option<&Link>,
    attachment: &Attachment,
) -> Result<Option<Attachment>> {
    let Some(bridge) = bridge else {
        return Ok(None);
    };
    let link = netlink.link(&attachment.host_veth).await?;
    let Some(link) = link.filter(|link| link.controller == Some(bridge.index)) else {
        return Ok(None);
    };
    let Some(mac) = attachment.mac.or_else(|| mac_inside(attachment)) else {
        return Ok(None);
    };
    Ok(Some(Attachment {
        ifindex: link.index,
        mac: Some(mac),
        isolated: link.port.is_some_and(|port| port.isolated),
        fast_path: true,
        ..attachment.clone()
    }))
}

fn mac_inside(attachment: &Attachment) -> Option<Mac> {
    let netns = Netns::open(&attachment.netns).ok()?;
    let link = netns
        .within(|| with_netlink(async |container| container.link(&attachment.ifname).await))
        .ok()?;
    link?.mac
}
