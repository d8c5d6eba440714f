//! GC: removing what attachments left that the runtime does not know any more.

use anyhow::Result;

use super::{call::Call, del::detach};
use crate::{
    ipam::{AttachmentId, host_local},
    net::{netns::Netns, with_netlink},
    nft::{Owner, ReferenceMasquerade},
    node::Store,
};

/// Detaches every attachment of this network that is not in the runtime's list, and frees every address that none of
/// the list has. Goes on after a failure, and reports the first.
pub(super) fn gc(call: &Call) -> super::Result<()> {
    let Some(valid) = &call.conf.valid_attachments else {
        tracing::warn!("GC without cni.dev/valid-attachments: nothing is deleted");
        return Ok(());
    };
    let plan = call.plan();
    let mut results: Vec<Result<()>> = Vec::new();
    for attachment in Store::new(&plan).attachments()? {
        let id = AttachmentId::new(&*attachment.container_id, &*attachment.ifname);
        if valid.contains(&id) {
            continue;
        }
        let netns = Netns::open(&attachment.netns).ok();
        results.push(with_netlink(async |host| {
            detach(host, call, &plan, &id, netns.as_ref()).await
        }));
    }
    results.push(match &call.conf.ipam {
        None => Ok(()),
        Some(ipam) if ipam.is_host_local() => {
            host_local::gc(&ipam.data_dir()?, &plan.network, valid).map(drop)
        }
        Some(ipam) => call.delegate(&ipam.kind, "GC").map(drop),
    });
    let owners: Vec<Owner<'_>> = valid
        .iter()
        .map(|id| Owner {
            container_id: &id.container_id,
            ifname: &id.ifname,
        })
        .collect();
    let masquerade = ReferenceMasquerade {
        network: &plan.network,
    };
    results.push(masquerade.retain(&owners));
    results.into_iter().find(Result::is_err).unwrap_or(Ok(()))?;
    Ok(())
}
