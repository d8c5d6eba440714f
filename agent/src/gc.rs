//! Collecting what pods left that the runtime does not know any more, as after a runtime that was killed, or a reboot.
//!
//! An attachment is only collected if the runtime does not list its pod, its network namespace is gone, and it is no new
//! one: another runtime's pods are none of ours to judge, and a pod is listed only when its ADD has ended.

use std::{
    collections::HashSet,
    path::Path,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result};
use beeline::{
    cni,
    ipam::{AttachmentId, host_local},
    net::netns::Netns,
    node::{Attachment, Store},
};
use serde_json::Value;

use crate::runtime;

/// What is to be looked after.
pub(crate) struct Scope<'a> {
    /// The network's files.
    pub(crate) store: &'a Store,
    /// beeline's part of the network's configuration.
    pub(crate) conf: &'a Value,
    /// Where other plugins are.
    pub(crate) bin_dir: &'a Path,
    /// The runtime's socket.
    pub(crate) socket: Option<&'a Path>,
    /// What is younger than this is left alone.
    pub(crate) age: Duration,
}

/// How much was collected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Collected {
    /// Attachments.
    pub(crate) attachments: usize,
    /// Owners of addresses that had no attachment.
    pub(crate) owners: usize,
}

/// Collects all that nobody knows any more.
pub(crate) async fn run(scope: &Scope<'_>) -> Result<Collected> {
    // First what we know, then what the runtime does: what came in between is in neither, or in both.
    let attachments = scope.store.attachments()?;
    let owners = owners(scope.conf)?;
    let Some(pods) = runtime::pods(scope.socket).await? else {
        return Ok(Collected::default());
    };
    let (stale, orphaned) = stale(&attachments, &owners, |id| {
        pods.contains(&id.container_id) || scope.is_young(id, &owners)
    });
    if stale.is_empty() && orphaned.is_empty() {
        return Ok(Collected::default());
    }
    for id in stale.iter().chain(&orphaned) {
        tracing::info!("attachment {id}: unknown to the runtime, collecting what is left of it");
    }
    let gone: Vec<AttachmentId> = stale.iter().chain(&orphaned).cloned().collect();
    let (conf, bin_dir) = (scope.conf.clone(), scope.bin_dir.to_owned());
    // Calls of the plugin have a runtime of their own, which one in a runtime's thread may not.
    let call = move || cni::collect(&conf, &gone, &bin_dir);
    let collected = tokio::task::spawn_blocking(call).await.context("collect")?;
    collected.map_err(anyhow::Error::from).context("collect")?;
    Ok(Collected {
        attachments: stale.len(),
        owners: orphaned.len(),
    })
}

impl Scope<'_> {
    fn is_young(&self, id: &AttachmentId, owners: &[(AttachmentId, SystemTime)]) -> bool {
        let written = owners
            .iter()
            .filter(|(owner, _)| owner == id)
            .map(|(_, since)| *since);
        let mut times = self.store.recorded(id).into_iter().chain(written);
        // A time in the future tells nothing.
        times.any(|time| time.elapsed().map_or(true, |age| age < self.age))
    }
}

fn id_of(attachment: &Attachment) -> AttachmentId {
    AttachmentId::new(&*attachment.container_id, &*attachment.ifname)
}

fn owners(conf: &Value) -> Result<Vec<(AttachmentId, SystemTime)>> {
    let conf = cni::NetConf::parse(conf.to_string().into(), cni::Command::Add)?;
    let ipam = conf.host_local()?;
    host_local::owners(&ipam.data_dir, &ipam.network)
}

/// Attachments, and owners of addresses without one, that nobody knows.
fn stale(
    attachments: &[Attachment],
    owners: &[(AttachmentId, SystemTime)],
    is_known: impl Fn(&AttachmentId) -> bool,
) -> (HashSet<AttachmentId>, HashSet<AttachmentId>) {
    let attached: HashSet<AttachmentId> = attachments.iter().map(id_of).collect();
    let gone = attachments.iter().filter(|attachment| {
        !is_known(&id_of(attachment)) && Netns::open(Path::new(&attachment.netns)).is_err()
    });
    let gone = gone.map(id_of).collect();
    let owners = owners.iter().map(|(id, _)| id);
    let orphaned = owners.filter(|id| !attached.contains(id) && !is_known(id));
    (gone, orphaned.cloned().collect())
}
