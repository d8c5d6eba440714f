//! The loop that keeps the node as the cluster wants it.
//!
//! Everything that must outlive the agent is in the kernel or in a file when a round ends: whatever kills the agent, packets
//! and ADDs go on, and the next one finds what there is.

mod probe;
mod watcher;

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use beeline::{
    child,
    cni::{self, NetConf},
    net::Netlink,
    node::{
        Lock, Plan, Record, Store,
        cluster::{self, Cluster, Followed},
        drift,
    },
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::MissedTickBehavior,
};

use crate::{
    backend::Event,
    calls,
    conflist::{self, Conflist},
    gc,
    health::Health,
    metrics::{Metrics, Network},
    options::Daemon,
    signals::Signals,
    view::{Judgement, View},
};

/// Changes that come so soon after another are made together.
const TOGETHER: Duration = Duration::from_millis(100);

/// Where changes do not end, rounds begin so far apart.
const APART: Duration = Duration::from_secs(1);

/// When to try again what failed.
const RETRY: Duration = Duration::from_secs(5);

/// How often the loop goes round at least.
const BEAT: Duration = Duration::from_secs(10);

/// How often to look for what pods left behind.
const GC: Duration = Duration::from_secs(300);

/// So many things of a kind are named in the log.
const NAMED: usize = 10;

/// What the loop works with.
pub(crate) struct Agent<'a> {
    pub(crate) options: &'a Daemon,
    /// `kubernetes` or `etcd`.
    pub(crate) backend: &'static str,
    pub(crate) netlink: &'a Netlink,
    pub(crate) health: Arc<Health>,
    pub(crate) metrics: Arc<Metrics>,
    /// Told whether pods get networking here.
    pub(crate) ready: watch::Sender<bool>,
}

/// What the loop knows.
struct State {
    view: View,
    /// What the node was last made.
    made: Option<Made>,
    /// When there is something to do.
    due: Option<Instant>,
    /// When the last round began.
    began: Option<Instant>,
    /// Why the last round failed.
    failure: Option<String>,
    /// Why the backend cannot be reached.
    lost: Option<String>,
    uninstalled: bool,
    /// Keeps other agents away.
    lock: Option<Lock>,
    /// Hears what the plugin's calls took.
    calls: Option<JoinHandle<()>>,
}

/// What a node was made.
struct Made {
    conflist: Conflist,
    plan: Plan,
    store: Store,
    judgement: Judgement,
    cluster: Cluster,
    record: Record,
    /// Whether the node may differ from it.
    doubtful: bool,
}

/// Why the loop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Another agent will take over.
    Replaced,
    /// The agent was uninstalled, and the node is to be left as it was before.
    Uninstalled,
}

impl Agent<'_> {
    /// Runs until it is told to end.
    pub(crate) async fn run(
        &self,
        mut events: mpsc::Receiver<Event>,
        mut signals: Signals,
    ) -> Result<End> {
        let mut state = State {
            view: View::new(&self.options.node_name),
            made: None,
            due: None,
            began: None,
            failure: None,
            lost: Some("not reached yet".to_owned()),
            uninstalled: false,
            lock: None,
            calls: None,
        };
        tokio::select! {
            biased;
            // Whatever is half done: the next agent does it all again, as after a kill.
            () = signals.next() => {}
            ended = self.keep(&mut state, &mut events) => return ended.map(|never| match never {}),
        }
        // Whether the node is to be left may be among what is not read yet.
        while let Ok(event) = events.try_recv() {
            self.take(&mut state, event);
        }
        if let Some(calls) = state.calls.take() {
            // Its socket goes with it.
            calls.abort();
            let _ = calls.await;
        }
        Ok(match state.uninstalled {
            true => End::Uninstalled,
            false => End::Replaced,
        })
    }

    /// Keeps the node as the cluster wants it, for good.
    async fn keep(
        &self,
        state: &mut State,
        events: &mut mpsc::Receiver<Event>,
    ) -> Result<Infallible> {
        self.resume(state).await;
        let mut beat = interval(BEAT);
        let mut resync = interval(self.options.resync);
        let mut gc = interval(GC.min(self.options.gc_age));
        loop {
            self.health.beat();
            tokio::select! {
                event = events.recv() => self.take(state, event.context("the backend has ended")?),
                () = wait(state.due) => self.round(state).await,
                _ = resync.tick() => self.resync(state).await,
                _ = gc.tick() => self.collect(state).await,
                _ = beat.tick() => child::reap(),
            }
        }
    }

    /// Brings the node up as it was before, if it was: the backend may not be reached for long.
    async fn resume(&self, state: &mut State) {
        let pod_cidrs = conflist::former_pod_cidrs(&self.options.node);
        if pod_cidrs.is_empty() {
            return;
        }
        let stored = || {
            let conflist = conflist::render(&self.options.node, &pod_cidrs).ok()?;
            let plan = cni::plan_of(&conflist.plugin).ok()?;
            Store::new(&plan).cluster()
        };
        let cluster = stored().unwrap_or_default();
        let judgement = Judgement {
            pod_cidrs: pod_cidrs.clone(),
            peers: cluster.peers,
            problems: cluster.problems,
        };
        self.make(state, judgement).await;
    }

    fn take(&self, state: &mut State, event: Event) {
        match &event {
            Event::Lost(reason) => {
                if state.lost.as_ref() != Some(reason) {
                    tracing::warn!("{}: lost, going on as before: {reason}", self.backend);
                }
                state.lost = Some(reason.clone());
            }
            Event::Uninstalled(uninstalled) => state.uninstalled = *uninstalled,
            Event::Back | Event::All(_) | Event::Changed(_) | Event::Gone(_) => {
                if state.lost.take().is_some() {
                    tracing::info!("{}: connected", self.backend);
                }
            }
        }
        self.metrics.set_backend_up(state.lost.is_none());
        // The first list counts also if nothing is in it.
        let listed = matches!(event, Event::All(_));
        if state.view.take(event) || listed && state.made.is_none() {
            let now = Instant::now();
            let next = state.began.map_or(now, |began| began + APART);
            state.due.get_or_insert(next.max(now + TOGETHER));
        }
    }

    async fn round(&self, state: &mut State) {
        state.due = None;
        state.began = Some(Instant::now());
        let judgement = state.view.judge();
        self.metrics
            .set_cluster(state.view.len(), judgement.problems.len());
        self.make(state, judgement).await;
    }

    /// Makes the node as it was judged, and notes what came of it.
    async fn make(&self, state: &mut State, judgement: Judgement) {
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
                report(state.made.as_ref(), &made);
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
            Some(made) if made.cluster == cluster => Followed::Entirely,
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
            cluster,
            record,
            doubtful: false,
        })
    }

    async fn follow(&self, made: &Made, cluster: &Cluster) -> Followed {
        let (plan, store) = (&made.plan, &made.store);
        let followed = cluster::follow(self.netlink, plan, store, &made.cluster, cluster).await;
        followed.unwrap_or_else(|error| {
            tracing::warn!("a change of the cluster: {error:#}; setting all of the node up again");
            Followed::NeedsReconcile
        })
    }

    /// Looks whether the node still is as it was made, and makes it so again if it is not.
    async fn resync(&self, state: &mut State) {
        let Some(made) = &mut state.made else { return };
        match drift::find(self.netlink, &made.plan, &made.store).await {
            Ok(drifts) => {
                for drift in drifts.iter().take(NAMED) {
                    tracing::warn!("drift: {drift}");
                }
                if drifts.len() > NAMED {
                    tracing::warn!("drift: {} more", drifts.len() - NAMED);
                }
                drifts
                    .iter()
                    .for_each(|drift| self.metrics.repaired(drift.kind, 1));
                made.doubtful |= !drifts.is_empty();
            }
            Err(error) => tracing::warn!("look for drift: {error:#}"),
        }
        // What was on the plain bridge for want of something may have it by now.
        made.doubtful |= made.record.degraded.is_some() && !made.record.off;
        let judgement = made.judgement.clone();
        self.make(state, judgement).await;
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

    async fn collect(&self, state: &State) {
        let Some(made) = &state.made else { return };
        let scope = gc::Scope {
            store: &made.store,
            conf: &made.conflist.plugin,
            bin_dir: &self.options.node.bin_dir,
            socket: self.options.runtime_endpoint.as_deref(),
            age: self.options.gc_age,
        };
        match gc::run(&scope).await {
            Ok(gc::Collected {
                attachments,
                owners,
            }) => {
                self.metrics.collected(attachments as u64, owners as u64);
            }
            Err(error) => tracing::warn!("collect what pods left: {error:#}"),
        }
    }
}

/// Logs what is new.
fn report(before: Option<&Made>, made: &Made) {
    let peers = |made: &Made| made.judgement.peers.len();
    if before.is_none_or(|before| before.judgement != made.judgement) {
        let cidrs = made.judgement.pod_cidrs.iter().map(ToString::to_string);
        let cidrs = cidrs.collect::<Vec<_>>().join(" ");
        tracing::info!(pod_cidrs = cidrs, peers = peers(made), "node set up");
    }
    news(
        before.map(|before| &before.judgement.problems),
        &made.judgement.problems,
    );
    news(
        before.map(|before| &before.record.problems),
        &made.record.problems,
    );
    let missing = |made: &Made| -> Vec<String> {
        let say = |kind| format!("plugin {kind}: not in --bin-dir, left out of the configuration");
        made.conflist.missing.iter().map(say).collect()
    };
    news(before.map(missing).as_ref(), &missing(made));
    if before.map(|before| &before.record.degraded) != Some(&made.record.degraded)
        && let Some(reason) = &made.record.degraded
    {
        tracing::warn!("pods take the plain bridge, no eBPF: {reason}");
    }
}

fn news(before: Option<&Vec<String>>, now: &[String]) {
    let known = |problem: &&String| before.is_some_and(|before| before.contains(problem));
    now.iter()
        .filter(|problem| !known(problem))
        .for_each(|problem| tracing::warn!("{problem}"));
}

fn interval(period: Duration) -> tokio::time::Interval {
    let mut interval = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

async fn wait(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}
