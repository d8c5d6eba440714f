//! Making the node as the cluster wants it, and telling whether pods get networking on it.

use std::{sync::Arc, time::Instant};

use anyhow::{Result, ensure};
use beeline::{
    cni::{self, NetConf},
    node::{
        Lock, Store,
        cluster::{self, Cluster, Followed},
    },
};
use tokio::task::JoinHandle;

use super::{Agent, Made, RETRY, State, probe, report, watcher};
use crate::{calls, conflist, metrics::Network, view::Judgement};

impl Agent<'_> {
    /// Makes the node as it was judged, and notes what came of it.
    pub(super) async fn make(&self, state: &mut State, judgement: Judgement) {
        let began = Instant::now();
        let made = self
            .attempt(&mut state.lock, state.made.as_ref(), judgement)
            .await;
        self.metrics.reconciled(began.elapsed(), &made);
        match made {
            Ok(made) => {
                if state.made.is_none() {
                    state.calls = Some(self.begin(&made));
                }
                report::news(state.made.as_ref(), &made);
                state.failure = None;
                state.made = Some(made);
            }
            Err(error) => {
                let failure = format!("{error:#}");
                if state.failure.as_ref() != Some(&failure) {
                    tracing::error!("{failure}");
                }
                state.failure = Some(failure);
                state.due = Some(Instant::now() + RETRY);
            }
        }
        self.tell(match (&mut state.made, &state.failure) {
            (Some(made), failure) => {
                made.doubtful |= failure.is_some();
                // ADDs go on with what there is.
                self.assess(made).await
            }
            (None, failure) => Err(failure.clone().unwrap_or_default()),
        });
    }

    /// Starts what needs a network.
    fn begin(&self, made: &Made) -> JoinHandle<()> {
        watcher::start(&made.store);
        let conf = NetConf::parse(made.conflist.plugin.to_string().into(), cni::Command::Add);
        if let Ok(conf) = conf {
            self.metrics.set_network(Network::of(&conf));
        }
        let state_dir = made.plan.datapath.state_dir.clone();
        let metrics = Arc::clone(&self.metrics);
        tokio::spawn(async move {
            if let Err(error) = calls::receive(&state_dir, metrics).await {
                tracing::warn!("what the plugin's calls took will not be known: {error:#}");
            }
        })
    }

    /// Makes the node as it was judged.
    async fn attempt(
        &self,
        lock: &mut Option<Lock>,
        before: Option<&Made>,
        judgement: Judgement,
    ) -> Result<Made> {
        let (node, own) = (&self.options.node, &self.options.node_name);
        ensure!(
            !judgement.pod_cidrs.is_empty(),
            "node {own}: has no pod CIDR; {} gives it none",
            self.backend
        );
        let conflist = conflist::render(node, &judgement.pod_cidrs)?;
        let plan = cni::plan_of(&conflist.plugin)?;
        let store = Store::new(&plan);
        if lock.is_none() {
            *lock = store.lock_agent()?;
            let ours = lock.is_some();
            ensure!(
                ours,
                "network {}: another agent keeps it; waiting for its end",
                plan.network
            );
        }
        let cluster = judgement.cluster(self.backend, own);
        let certain = before.filter(|made| !made.doubtful && made.plan == plan);
        let followed = match certain {
            Some(made) if made.judgement == judgement => Followed::Entirely,
            Some(made) => self.follow(made, &cluster).await,
            None => Followed::NeedsReconcile,
        };
        let record = match (followed, certain) {
            (Followed::Entirely, Some(made)) => store.record().unwrap_or(made.record.clone()),
            _ => cluster::reconcile(self.netlink, &plan, &store, &cluster).await?,
        };
        if conflist::install(node, &conflist)? {
            tracing::info!("{}: written", conflist::path(node).display());
        }
        Ok(Made {
            conflist,
            plan,
            store,
            judgement,
            record,
            doubtful: false,
        })
    }

    async fn follow(&self, made: &Made, cluster: &Cluster) -> Followed {
        let (plan, store) = (&made.plan, &made.store);
        let before = made
            .judgement
            .cluster(self.backend, &self.options.node_name);
        let followed = cluster::follow(self.netlink, plan, store, &before, cluster).await;
        followed.unwrap_or_else(|error| {
            tracing::warn!("a change of the cluster: {error:#}; setting all of the node up again");
            Followed::NeedsReconcile
        })
    }

    /// Whether pods get networking here.
    async fn assess(&self, made: &Made) -> Result<(), String> {
        let node = &self.options.node;
        match conflist::rival(node) {
            Ok(None) => {}
            Ok(Some(rival)) => {
                return Err(format!(
                    "{}: comes before {}, runtimes take it instead",
                    rival.display(),
                    node.conf_name
                ));
            }
            Err(error) => return Err(format!("{error:#}")),
        }
        probe::status(&node.bin_dir, &made.conflist.plugin).await
    }

    fn tell(&self, ready: Result<(), String>) {
        let before = self.health.ready();
        if before != ready {
            match &ready {
                Ok(()) => tracing::info!("ready for pods"),
                Err(why) => tracing::warn!("not ready for pods: {why}"),
            }
        }
        self.ready.send_replace(ready.is_ok());
        self.health.set_ready(ready);
    }
}
