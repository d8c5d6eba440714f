//! DEL: removing all that an attachment has, or what is left of it.

use std::path::Path;

use anyhow::{Context as _, Result};

use super::{
    call::{Call, refuse_own},
    plan, unplug,
};
use crate::{
    datapath::Datapath,
    ipam::AttachmentId,
    net::{
        Netlink,
        netns::{Netns, OpenError},
        with_netlink,
    },
    nft::{MacCheck, Masquerade, Owner, ReferenceMasquerade},
    node::{Attachment, Plan, Store},
};

/// Detaches the pod. What is gone already is success: runtimes repeat DEL, and call it for ADDs that failed.
pub(super) fn del(call: &Call) -> super::Result<()> {
    let netns = container_netns(call)?;
    let plan = call.plan();
    let id = call.id();
    with_netlink(async |host| detach(host, call, &plan, &id, netns.as_ref()).await)?;
    Ok(())
}

/// The namespace, unless it is gone, or something else has its path by now.
fn container_netns(call: &Call) -> super::Result<Option<Netns>> {
    if call.env.netns.is_empty() {
        return Ok(None);
    }
    match Netns::open(Path::new(&call.env.netns)) {
        Ok(netns) => {
            refuse_own(&call.env, &netns)?;
            Ok(Some(netns))
        }
        Err(OpenError::Missing(_) | OpenError::NotNetns(_)) => Ok(None),
        Err(error) => Err(anyhow::Error::new(error).into()),
    }
}

/// Removes everything of an attachment. Every step runs even if an earlier one failed; what is remembered of the
/// attachment is removed only if nothing is left.
pub(super) async fn detach(
    host: &Netlink,
    call: &Call,
    plan: &Plan,
    id: &AttachmentId,
    netns: Option<&Netns>,
) -> Result<()> {
    let store = Store::new(plan);
    // A node without a store was never set up, or not since it booted.
    let _lock = store
        .root()
        .exists()
        .then(|| store.lock_shared())
        .transpose()?;
    // The watch may be taking the pod onto the fast path.
    let _alone = store.lock_attachment(&id.container_id, &id.ifname)?;
    // What cannot be read must not keep the pod's interface and address alive.
    let attachment = store
        .attachment(&id.container_id, &id.ifname)
        .unwrap_or_else(|error| {
            tracing::warn!(container = id.container_id, "{error:#}");
            None
        });
    let steps = [
        leave_fast_path(plan, attachment.as_ref()),
        release(call, id, Interface::Exists),
        // Before the kernel is busy with the interface: it would make this wait.
        forget_neighbours(host, plan, attachment.as_ref()).await,
        delete_veth(host, plan, id, attachment.as_ref(), netns).await,
        detach_programs(plan, attachment.as_ref()),
        delete_mac_check(id),
        leave_masquerade(plan, attachment.as_ref()),
        leave_reference_masquerade(plan, id, attachment.as_ref()),
        release(call, id, Interface::Deleted),
    ];
    let failures: Vec<_> = steps.into_iter().filter_map(Result::err).collect();
    let mut failures = failures.into_iter();
    let Some(first) = failures.next() else {
        return store.remove_attachment(&id.container_id, &id.ifname);
    };
    for other in failures {
        tracing::warn!(container = id.container_id, "{other:#}");
    }
    Err(first)
}

/// The datapath and the attachment, if both are there.
fn on_fast_path<'a>(
    plan: &Plan,
    attachment: Option<&'a Attachment>,
) -> Option<(Datapath, &'a Attachment)> {
    let datapath = Datapath::open(&plan.datapath.bpffs, &plan.network)?;
    Some((datapath, attachment?))
}

fn leave_fast_path(plan: &Plan, attachment: Option<&Attachment>) -> Result<()> {
    let Some((datapath, attachment)) = on_fast_path(plan, attachment) else {
        return Ok(());
    };
    datapath.remove_pod(attachment.ifindex, &attachment.ips())
}

fn detach_programs(plan: &Plan, attachment: Option<&Attachment>) -> Result<()> {
    match on_fast_path(plan, attachment) {
        Some((datapath, attachment)) => attachment.detach(&datapath),
        None => Ok(()),
    }
}

async fn delete_veth(
    host: &Netlink,
    plan: &Plan,
    id: &AttachmentId,
    attachment: Option<&Attachment>,
    netns: Option<&Netns>,
) -> Result<()> {
    let ours = plan::host_veth_name(&plan.network, id);
    // One that was adopted has the name that another plugin gave it.
    let adopted = attachment.map(|attachment| &attachment.host_veth);
    for name in [Some(&ours), adopted].into_iter().flatten() {
        if let Some(link) = host.link(name).await? {
            return unplug::delete(host, &link).await;
        }
    }
    // The reference plugin names host veths at random: what it attached is found from the inside.
    let Some(netns) = netns else { return Ok(()) };
    netns.within(|| {
        with_netlink(async |container| match container.link(&id.ifname).await? {
            Some(link) => container.delete(link.index).await,
            None => Ok(()),
        })
        .with_context(|| format!("container interface {:?}", id.ifname))
    })
}

/// The next pod with the address must not be sent what was meant for this one's MAC.
async fn forget_neighbours(
    host: &Netlink,
    plan: &Plan,
    attachment: Option<&Attachment>,
) -> Result<()> {
    let Some(attachment) = attachment else {
        return Ok(());
    };
    let Some(gateway) = host.link(&plan.bridge.gateway_interface()).await? else {
        return Ok(());
    };
    for address in &attachment.addresses {
        host.flush_neighbour(gateway.index, address.ip()).await?;
    }
    Ok(())
}

/// Whatever the configuration says by now: it may not have said so at ADD.
fn delete_mac_check(id: &AttachmentId) -> Result<()> {
    let check = MacCheck {
        container_id: &id.container_id,
        ifname: &id.ifname,
    };
    check.delete()
}

/// How far a DEL has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Interface {
    Exists,
    Deleted,
}

/// Releases the addresses when it is their turn: after the interface that used them, unless it takes that to do so.
fn release(call: &Call, id: &AttachmentId, interface: Interface) -> Result<()> {
    let turn = match call.ipam_uses_interface() {
        true => Interface::Exists,
        false => Interface::Deleted,
    };
    if interface == turn {
        return call.release(id);
    }
    Ok(())
}

fn leave_masquerade(plan: &Plan, attachment: Option<&Attachment>) -> Result<()> {
    let Some(attachment) = attachment else {
        return Ok(());
    };
    let masquerade = Masquerade {
        network: &plan.network,
    };
    plan::outside(plan, &attachment.addresses)
        .iter()
        .filter(|_| plan.masquerade)
        .try_for_each(|address| masquerade.remove_pod(*address))
}

/// What the reference plugin made, if it attached the pod; whatever the configuration says by now.
fn leave_reference_masquerade(
    plan: &Plan,
    id: &AttachmentId,
    attachment: Option<&Attachment>,
) -> Result<()> {
    let own = plan::host_veth_name(&plan.network, id);
    if attachment.is_some_and(|attachment| attachment.host_veth == own) {
        return Ok(());
    }
    let masquerade = ReferenceMasquerade {
        network: &plan.network,
    };
    masquerade.delete(&Owner {
        container_id: &id.container_id,
        ifname: &id.ifname,
    })
}
