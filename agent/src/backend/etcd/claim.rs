//! Taking subnets: one transaction writes the node and its subnets, or nothing if anything has changed meanwhile.

use std::{collections::HashSet, net::IpAddr};

use anyhow::{Context, Result, anyhow};
use etcd_client::{Client, Compare, DeleteOptions, KeyValue, PutOptions, Txn, TxnOp};
use ipnetwork::IpNetwork;

use super::{
    Stop, config,
    connect::explain,
    keys::{NodeValue, SubnetValue},
    plan::{Holder, Plan, Taken, plan},
    settings::Settings,
    store,
};

/// How often a transaction is tried; of nodes that want the same subnet one gets it each time.
const ATTEMPTS: usize = 200;

/// What a node remembers between sessions.
#[derive(Debug)]
pub(super) struct Memory {
    /// The pod CIDRs that it had last, the addresses of its pods being of them.
    known: Vec<IpNetwork>,
    /// The lease that it began.
    lease: Option<i64>,
    /// What it has complained about.
    reported: HashSet<String>,
}

/// What a node has.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) lease: i64,
    pub(super) subnets: Vec<IpNetwork>,
    /// Whether it has one of each range.
    pub(super) complete: bool,
}

/// This node's own key as it was found.
struct Own {
    revision: i64,
    lease: i64,
    value: Option<NodeValue>,
}

impl Memory {
    pub(super) fn new(known: Vec<IpNetwork>) -> Self {
        Self {
            known,
            lease: None,
            reported: HashSet::new(),
        }
    }

    /// Makes sure that the node has its subnets; writes nothing if it has.
    pub(super) async fn claim(
        &mut self,
        client: &mut Client,
        settings: &Settings,
        addresses: &[IpAddr],
    ) -> Result<Claim, Stop> {
        for _ in 0..ATTEMPTS {
            let config = config::agree(client, settings).await?;
            let own = own(client, settings).await?;
            let lease = self.lease(client, settings, own.as_ref()).await?;
            let taken = subnets(client, settings, own.as_ref()).await?;
            let plan = plan(&settings.ranges, &taken, &self.known, &settings.node);
            self.report(&plan);
            let value = NodeValue {
                machine: settings.machine.clone(),
                addresses: addresses.to_vec(),
                pod_cidrs: plan.chosen.iter().map(|(subnet, _)| *subnet).collect(),
            };
            let wanted = Wanted {
                config,
                lease,
                plan,
                value,
            };
            if !wanted.is_there(own.as_ref(), &taken) {
                if !wanted.write(client, settings, own.as_ref()).await? {
                    continue;
                }
                retire(client, own.as_ref(), lease).await;
            }
            self.known.clone_from(&wanted.value.pod_cidrs);
            return Ok(Claim {
                lease,
                subnets: wanted.value.pod_cidrs,
                complete: wanted.plan.exhausted.is_empty(),
            });
        }
        Err(anyhow!("subnets: others were faster {ATTEMPTS} times").into())
    }

    /// The lease to hang keys on: the one that they hang on already, so that an agent that starts again changes nothing
    /// that other nodes would hear of.
    async fn lease(
        &mut self,
        client: &mut Client,
        settings: &Settings,
        own: Option<&Own>,
    ) -> Result<i64> {
        let candidates = own.map(|own| own.lease).into_iter().chain(self.lease);
        for lease in candidates.filter(|lease| *lease != 0) {
            if store::lives(client, lease, settings.ttl).await? {
                self.lease = Some(lease);
                return Ok(lease);
            }
        }
        let lease = store::grant(client, settings.ttl).await?;
        self.lease = Some(lease);
        Ok(lease)
    }

    /// Says what the plan means for the node, once.
    fn report(&mut self, plan: &Plan) {
        for (subnet, holder) in &plan.lost {
            self.once(format!(
                "subnet {subnet}: belongs to node {holder:?} by now, as this node's lease had ended; pods here with addresses \
                 of {subnet} are cut off until they are made anew"
            ));
        }
        for range in &plan.exhausted {
            self.once(format!(
                "--cluster-cidr {range}: none left for this node; waiting for one"
            ));
        }
        if plan.exhausted.is_empty() {
            self.reported
                .retain(|said| !said.starts_with("--cluster-cidr"));
        }
    }

    fn once(&mut self, message: String) {
        if !self.reported.contains(&message) {
            tracing::error!("{message}");
            self.reported.insert(message);
        }
    }
}

/// What shall stand in the etcd.
struct Wanted {
    /// The revision of the configuration that this goes by.
    config: i64,
    lease: i64,
    plan: Plan,
    value: NodeValue,
}

impl Wanted {
    fn is_there(&self, own: Option<&Own>, taken: &[Taken]) -> bool {
        let node = own
            .is_some_and(|own| own.lease == self.lease && own.value.as_ref() == Some(&self.value));
        let mine = |subnet: IpNetwork| {
            let mut taken = taken.iter().filter(|taken| taken.holder == Holder::Me);
            taken.any(|taken| taken.subnet == subnet && taken.lease == self.lease)
        };
        let subnets = self.plan.chosen.iter().all(|(subnet, _)| mine(*subnet));
        node && subnets && self.plan.surplus.is_empty()
    }

    /// Returns whether nothing had changed, so that it was written.
    async fn write(
        &self,
        client: &mut Client,
        settings: &Settings,
        own: Option<&Own>,
    ) -> Result<bool> {
        let keys = &settings.keys;
        let node = keys.node(&settings.node);
        let put = |key: String, value: String| {
            TxnOp::put(key, value, Some(PutOptions::new().with_lease(self.lease)))
        };
        let subnet = serde_json::to_string(&SubnetValue {
            node: settings.node.clone(),
            machine: settings.machine.clone(),
        })?;
        let mut compares: Vec<Compare> = vec![
            store::unchanged(keys.config(), Some(self.config)),
            store::unchanged(node.clone(), own.map(|own| own.revision)),
        ];
        let mut puts = vec![put(node, serde_json::to_string(&self.value)?)];
        for (chosen, seen) in &self.plan.chosen {
            let key = keys.subnet(*chosen);
            compares.push(store::unchanged(key.clone(), *seen));
            puts.push(put(key, subnet.clone()));
        }
        for (surplus, seen) in &self.plan.surplus {
            let key = keys.subnet(*surplus);
            compares.push(store::unchanged(key.clone(), Some(*seen)));
            puts.push(TxnOp::delete(key, Some(DeleteOptions::new())));
        }
        let answer = client.txn(Txn::new().when(compares).and_then(puts)).await;
        let written = answer
            .map_err(explain)
            .context("subnets: transaction")?
            .succeeded();
        if written {
            let list: Vec<_> = self
                .value
                .pod_cidrs
                .iter()
                .map(ToString::to_string)
                .collect();
            tracing::info!("subnets: this node has {:?}", list);
        }
        Ok(written)
    }
}

/// Ends the lease that the keys hung on before; nothing is left on it.
async fn retire(client: &mut Client, own: Option<&Own>, lease: i64) {
    // A value that is not understood was not written with a lease of this node's.
    let ours = own.filter(|own| own.value.is_some() && own.lease != 0 && own.lease != lease);
    let Some(own) = ours else { return };
    if let Err(error) = store::revoke(client, own.lease).await {
        tracing::debug!("{error:#}");
    }
}

/// Gets this node's key; refuses to go on if another machine has written it.
async fn own(client: &mut Client, settings: &Settings) -> Result<Option<Own>, Stop> {
    let Some(pair) = store::get(client, &settings.keys.node(&settings.node)).await? else {
        return Ok(None);
    };
    let value = own_value(&pair);
    if let Some(value) = value
        .as_ref()
        .filter(|value| value.machine != settings.machine)
    {
        let addresses: Vec<_> = value.addresses.iter().map(ToString::to_string).collect();
        return Err(Stop::Refused(anyhow!(
            "--node-name {:?}: another machine has this name ({}, machine {}); give this node a name of its own, or, if that \
             machine is no more, run `etcdctl lease revoke {:x}`",
            settings.node,
            addresses.join(", "),
            value.machine,
            pair.lease()
        )));
    }
    Ok(Some(Own {
        revision: pair.mod_revision(),
        lease: pair.lease(),
        value,
    }))
}

pub(super) fn own_value(pair: &KeyValue) -> Option<NodeValue> {
    match serde_json::from_slice(pair.value()) {
        Ok(value) => Some(value),
        Err(error) => {
            store::skip(pair, &error.into());
            None
        }
    }
}

/// Which subnets are taken: only this node's own if it has all that it shall have, as others do not matter then.
async fn subnets(
    client: &mut Client,
    settings: &Settings,
    own: Option<&Own>,
) -> Result<Vec<Taken>> {
    let value = own.and_then(|own| own.value.as_ref());
    let mut mine = Vec::new();
    for subnet in value.into_iter().flat_map(|value| &value.pod_cidrs) {
        let pair = store::get(client, &settings.keys.subnet(*subnet)).await?;
        mine.extend(pair.and_then(|pair| store::taken(settings, &pair)));
    }
    let has = |range: &super::range::Range| {
        let mut own = mine.iter().filter(|taken| taken.holder == Holder::Me);
        own.any(|taken| range.has(taken.subnet))
    };
    if settings.ranges.iter().all(has) {
        return Ok(mine);
    }
    let (pairs, _) = store::list(client, &settings.keys.subnets()).await?;
    Ok(pairs
        .iter()
        .filter_map(|pair| store::taken(settings, pair))
        .collect())
}
