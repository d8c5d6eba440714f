//! Kubernetes: nodes are members, with the pod CIDRs that the controller manager gives them.
//!
//! The API server is watched, and listed again where the watch was interrupted. That the agent's own DaemonSet is deleted is
//! learnt from a watch too: when the agent is told to end, it may not have the rights to ask any more.

mod daemon_set;
mod node;

use std::{path::Path, pin::pin, time::Duration};

use anyhow::{Context as _, Result, bail};
use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use kube::{
    Api, Client, Config,
    api::{Patch, PatchParams},
    config::{KubeConfigOptions, Kubeconfig},
    runtime::{WatchStreamExt as _, watcher},
};
use serde_json::json;
use tokio::sync::{Notify, watch};

use self::node::Node;
use super::{Event, Events};
use crate::options::Kubernetes;

/// So many nodes are listed at a time: each may have tens of kilobytes.
const PAGE: u32 = 50;

/// How often to try whether the API server is back.
const RETRY: Duration = Duration::from_secs(2);

/// Tells of the cluster's nodes until nobody listens any more. While the node is ready for pods, as `ready` says, the
/// cluster is told so.
///
/// # Errors
///
/// The configuration of the client is wrong.
pub(crate) async fn run(
    options: &Kubernetes,
    events: Events,
    ready: watch::Receiver<bool>,
) -> Result<()> {
    let client = client(options.kubeconfig.as_deref()).await?;
    let nodes: Api<Node> = Api::all(client.clone());
    let own = &*options.daemon.node_name;
    let unavailable = Notify::new();
    let look = |node: &Node| {
        if node.name() == own && node.network_unavailable() == Some("True") {
            unavailable.notify_one();
        }
    };
    tokio::select! {
        ended = follow(&nodes, look, &events) => ended,
        ended = announce(&nodes, own, ready, &unavailable) => ended,
        ended = daemon_set::follow(client, options.daemon_set.as_deref(), &events) => ended,
    }
}

async fn client(kubeconfig: Option<&Path>) -> Result<Client> {
    let config = match kubeconfig {
        Some(path) => {
            let context = || format!("--kubeconfig {}", path.display());
            let kubeconfig = Kubeconfig::read_from(path).with_context(context)?;
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
                .await
                .with_context(context)?
        }
        None => Config::incluster().context("kubernetes: not in a pod, and no --kubeconfig")?,
    };
    Client::try_from(config).context("kubernetes: client")
}

/// Follows all nodes, over interruptions, and shows each to `look`.
async fn follow(api: &Api<Node>, look: impl Fn(&Node), events: &Events) -> Result<()> {
    let config = watcher::Config::default().page_size(PAGE);
    let watch = watcher(api.clone(), config).default_backoff();
    let watch = watch.inspect_ok(|event| {
        if let watcher::Event::InitApply(node) | watcher::Event::Apply(node) = event {
            look(node);
        }
    });
    let mut told = pin!(tell(watch));
    while let Some(event) = told.next().await {
        let lost = matches!(event, Event::Lost(_));
        if events.send(event).await.is_err() {
            return Ok(());
        }
        if lost {
            wait_until_back(api).await;
            if events.send(Event::Back).await.is_err() {
                return Ok(());
            }
        }
    }
    bail!("kubernetes: the watch has ended")
}

/// The watcher speaks up only when something changes, which may be long after the server is back.
async fn wait_until_back(api: &Api<Node>) {
    let any = kube::api::ListParams::default().limit(1);
    while api.list_metadata(&any).await.is_err() {
        tokio::time::sleep(RETRY).await;
    }
}

/// What the events of a watch say of the cluster.
fn tell(
    watch: impl Stream<Item = watcher::Result<watcher::Event<Node>>>,
) -> impl Stream<Item = Event> {
    let mut listed = Vec::new();
    watch
        .map_ok(move |event| match event {
            watcher::Event::Init => {
                listed = Vec::new();
                None
            }
            watcher::Event::InitApply(node) => {
                listed.push(node.member());
                None
            }
            watcher::Event::InitDone => Some(Event::All(std::mem::take(&mut listed))),
            watcher::Event::Apply(node) => Some(Event::Changed(node.member())),
            watcher::Event::Delete(node) => Some(Event::Gone(node.name().to_owned())),
        })
        .filter_map(async |event| match event {
            Ok(event) => event,
            Err(error) => Some(Event::Lost(format!("{:#}", anyhow::Error::new(error)))),
        })
}

/// Clears the node's condition `NetworkUnavailable` when the node becomes ready, and whenever somebody sets it while the node
/// is. Some clouds' nodes start with it, or get it late, and have no pods until it is cleared.
async fn announce(
    api: &Api<Node>,
    own: &str,
    mut ready: watch::Receiver<bool>,
    unavailable: &Notify,
) -> Result<()> {
    loop {
        // The sender lives as long as the agent.
        if ready.wait_for(|ready| *ready).await.is_err() {
            return Ok(());
        }
        if let Err(error) = clear(api, own).await {
            tracing::warn!("node {own}: condition NetworkUnavailable: {error:#}");
            unavailable.notify_one();
        }
        // Whoever sets it again and again must not keep the API server busy.
        tokio::time::sleep(RETRY).await;
        tokio::select! {
            () = unavailable.notified() => {}
            unready = ready.wait_for(|ready| !*ready) => if unready.is_err() {
                return Ok(());
            }
        }
    }
}

async fn clear(api: &Api<Node>, own: &str) -> Result<()> {
    if api.get(own).await?.network_unavailable() == Some("False") {
        return Ok(());
    }
    let now = k8s_openapi::jiff::Timestamp::now().to_string();
    let condition = json!({
        "type": "NetworkUnavailable",
        "status": "False",
        "reason": "BeelineIsUp",
        "message": "beeline-agent has set the node up for pods",
        "lastHeartbeatTime": now,
        "lastTransitionTime": now,
    });
    let patch = Patch::Strategic(json!({"status": {"conditions": [condition]}}));
    api.patch_status(own, &PatchParams::default(), &patch)
        .await?;
    Ok(())
}
