//! Whether the agent is still wanted: the DaemonSet that runs it.

use std::pin::pin;

use anyhow::{Context as _, Result, bail};
use futures_util::StreamExt as _;
use k8s_openapi::api::apps::v1::DaemonSet;
use kube::{
    Api, Client,
    runtime::{WatchStreamExt as _, watcher},
};

use crate::backend::{Event, Events};

/// Follows the DaemonSet `namespace/name`; without one it never ends.
pub(super) async fn follow(client: Client, which: Option<&str>, events: &Events) -> Result<()> {
    let Some(which) = which else {
        return std::future::pending().await;
    };
    let (namespace, name) = which
        .split_once('/')
        .with_context(|| format!("--daemon-set {which:?}: not namespace/name"))?;
    let api: Api<DaemonSet> = Api::namespaced(client, namespace);
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut watch = pin!(watcher(api, config).default_backoff());
    let mut listed = false;
    while let Some(event) = watch.next().await {
        let gone = match event {
            Ok(watcher::Event::Init) => {
                listed = false;
                continue;
            }
            Ok(watcher::Event::InitApply(set)) => {
                listed = set.metadata.deletion_timestamp.is_none();
                continue;
            }
            Ok(watcher::Event::InitDone) => !listed,
            Ok(watcher::Event::Apply(set)) => set.metadata.deletion_timestamp.is_some(),
            Ok(watcher::Event::Delete(_)) => true,
            // The nodes' watch tells when the server is lost.
            Err(error) => {
                tracing::debug!("DaemonSet {which}: watch: {error}");
                continue;
            }
        };
        if events.send(Event::Uninstalled(gone)).await.is_err() {
            return Ok(());
        }
    }
    bail!("DaemonSet {which}: the watch has ended")
}
