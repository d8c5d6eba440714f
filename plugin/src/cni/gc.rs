//! GC: removing what attachments left that the runtime does not know any more.

use std::path::Path;

use anyhow::Result;
use serde_json::Value;

use super::{
    Command, Env, NetConf,
    call::Call,
    del::{del, detach},
};
use crate::{
    ipam::{AttachmentId, host_local},
    net::with_netlink,
    nft::{Owner, ReferenceMasquerade},
    node::Store,
};

/// Detaches every attachment of this network that is not in the runtime's list, and frees every address that none of
/// the list has. Goes on after a failure, and reports the first; the others it logs.
pub(super) fn gc(call: &Call) -> super::Result<()> {
    let Some(valid) = &call.conf.valid_attachments else {
        tracing::warn!("GC without cni.dev/valid-attachments: nothing is deleted");
        return Ok(());
    };
    let plan = call.plan();
    let store = Store::new(&plan);
    let (attachments, unread) = match store.attachments() {
        Ok(attachments) => (attachments, Ok(())),
        Err(error) => (Vec::new(), Err(error)),
    };
    let mut results: Vec<Result<()>> = vec![unread];
    let recorded = attachments
        .into_iter()
        .map(|attachment| AttachmentId::new(attachment.container_id, attachment.ifname));
    // A runtime runs no ADD meanwhile (SPEC, section 5): who wrote those is no more.
    for id in recorded.chain(store.unfinished()) {
        if valid.contains(&id) {
            continue;
        }
        // Not by its namespace, whose path may be another's by now: what is of ours is found from the host.
        results.push(with_netlink(async |host| {
            detach(host, call, &plan, &id, None).await
        }));
    }
    results.push(collect_addresses(call, valid));
    results.push(collect_masquerade(call, valid));
    let mut failures = results.into_iter().filter_map(Result::err);
    let Some(first) = failures.next() else {
        return Ok(());
    };
    for other in failures {
        tracing::warn!("GC: {other:#}");
    }
    Err(first.into())
}

/// What DEL would do for each of these attachments, of the network that `conf` is beeline's part of. `path` is where other
/// plugins are.
///
/// Unlike GC this names what goes, not what stays: pods that come meanwhile are safe. Goes on after a failure, and reports
/// the first; the others it logs.
pub fn collect(conf: &Value, gone: &[AttachmentId], path: &Path) -> super::Result<()> {
    let conf = NetConf::parse(conf.to_string().into(), Command::Del)?;
    let mut failures = gone.iter().filter_map(|id| {
        let env = Env::parse(|name| match name {
            "CNI_COMMAND" => Some(Command::Del.as_str().into()),
            "CNI_CONTAINERID" => Some((&*id.container_id).into()),
            "CNI_IFNAME" => Some((&*id.ifname).into()),
            "CNI_PATH" => Some(path.into()),
            _ => None,
        });
        let conf = conf.clone();
        env.and_then(|env| del(&Call { env, conf })).err()
    });
    let Some(first) = failures.next() else {
        return Ok(());
    };
    for other in failures {
        tracing::warn!("collect: {:#}", anyhow::Error::from(other));
    }
    Err(first)
}

fn collect_addresses(call: &Call, valid: &[AttachmentId]) -> Result<()> {
    match &call.conf.ipam {
        None => Ok(()),
        Some(ipam) if ipam.is_host_local() => {
            let index = call.ipam_index();
            host_local::gc(&ipam.data_dir()?, &call.conf.name, &index, valid).map(drop)
        }
        Some(ipam) => call.delegate(&ipam.kind, "GC").map(drop),
    }
}

/// What the reference plugin masquerades, where it attached the network's pods before.
fn collect_masquerade(call: &Call, valid: &[AttachmentId]) -> Result<()> {
    let owners: Vec<Owner<'_>> = valid
        .iter()
        .map(|id| Owner {
            container_id: &id.container_id,
            ifname: &id.ifname,
        })
        .collect();
    let masquerade = ReferenceMasquerade {
        network: &call.conf.name,
    };
    masquerade.retain(&owners)
}
