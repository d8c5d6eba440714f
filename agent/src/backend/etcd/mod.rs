//! The etcd backend, for clusters without Kubernetes: nodes lease their pod CIDRs out of a cluster CIDR.
//!
//! A node's key and those of its subnets hang on one lease, which the agent renews. While agent or etcd are away the lease
//! runs on, a day by default, and nothing changes; once it ends, the subnets are free and the others hear of it. A node that
//! comes back takes the subnets that its pods have addresses of, if nobody else has them by then.
//!
//! ```text
//! settings ─> run: member after member, with backoff ─> session: claim, tell all, watch and renew
//!                                                                  │
//!                                              plan (which subnets) ┴ range, keys (pure)
//! ```

mod backoff;
mod claim;
mod config;
mod connect;
mod keys;
mod members;
#[cfg(test)]
mod netns_tests;
mod plan;
mod range;
mod session;
mod settings;
mod store;

use anyhow::{Context, Result, anyhow};
use ipnetwork::IpNetwork;
use tokio::time::sleep;

use self::{connect::Endpoint, members::Members, session::Sessions, settings::Settings};
use super::{Event, Events};
use crate::options::Etcd;

/// Why a session ended.
#[derive(Debug)]
enum Stop {
    /// Nobody listens any more.
    Closed,
    /// The options are wrong, as others in the etcd contradict them.
    Refused(anyhow::Error),
    /// The member does not answer, or not as it should; another one may.
    Failed(anyhow::Error),
}

impl From<anyhow::Error> for Stop {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

/// Leases pod CIDRs for this node and tells of all nodes, until nobody listens any more; fails only if the options are
/// wrong. `known` are the pod CIDRs that the node had before.
pub(crate) async fn run(options: &Etcd, known: Vec<IpNetwork>, events: Events) -> Result<()> {
    let settings = Settings::new(options)?;
    let mut members = Members::new(&settings);
    let mut sessions = Sessions {
        settings: &settings,
        events: &events,
        memory: claim::Memory::new(known),
        told: None,
    };
    loop {
        let endpoint = members.endpoint();
        let stopped = tokio::select! {
            () = events.closed() => Stop::Closed,
            Err(stop) = sessions.run(endpoint) => stop,
        };
        let error = match stopped {
            Stop::Closed => return Ok(()),
            Stop::Refused(error) => return Err(error),
            Stop::Failed(error) => error,
        };
        tracing::warn!("etcd {endpoint}: {error:#}");
        let lasted = sessions.told.map(|told| told.elapsed());
        let Some((reason, round)) = members.note(&error, lasted) else {
            continue;
        };
        if let Some(reason) = reason
            && events.send(Event::Lost(reason)).await.is_err()
        {
            return Ok(());
        }
        tokio::select! {
            () = events.closed() => return Ok(()),
            () = sleep(backoff::pause(round)) => {}
        }
    }
}

/// Frees what this node has leased, for a node that leaves the cluster; its agent must have ended. Members are tried one
/// after the other.
pub(crate) async fn release(options: &Etcd) -> Result<()> {
    let settings = Settings::new(options)?;
    let mut reasons = Vec::new();
    for endpoint in &settings.endpoints {
        match release_by(endpoint, &settings).await {
            Ok(()) => return Ok(()),
            Err(error) => reasons.push(format!("{endpoint}: {error:#}")),
        }
    }
    let reasons = reasons.join("; ");
    Err(anyhow!("{reasons}")).with_context(|| format!("etcd: node {:?}: release", settings.node))
}

async fn release_by(endpoint: &Endpoint, settings: &Settings) -> Result<()> {
    let mut client = endpoint.connect().await?;
    let key = settings.keys.node(&settings.node);
    let Some(pair) = store::get(&mut client, &key).await? else {
        return Ok(());
    };
    let mine = claim::own_value(&pair).is_some_and(|value| value.machine == settings.machine);
    if !mine {
        tracing::warn!("key {key}: another machine's, left alone");
        return Ok(());
    }
    store::revoke(&mut client, pair.lease()).await
}
