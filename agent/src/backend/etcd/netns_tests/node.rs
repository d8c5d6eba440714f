//! A node: the backend in a namespace, and what it has told so far.

use std::{
    collections::BTreeMap,
    fs, io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::Result;
use beeline_tests::etcd::{Cluster, Host, PATIENCE};
use clap::Parser as _;
use ipnetwork::IpNetwork;
use tokio::{sync::oneshot, time::sleep};

use super::super::{release, run};
use crate::{
    backend::{Event, Member},
    options::{Etcd, Options, Verb},
};

/// What a node is started with.
#[derive(Clone)]
pub(super) struct Spec {
    pub(super) name: String,
    pub(super) machine: String,
    pub(super) known: Vec<IpNetwork>,
    /// Beside the endpoints and, unless it is among these, the cluster CIDR.
    pub(super) arguments: Vec<String>,
}

impl Spec {
    /// A node on a machine of its own.
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            machine: name.to_owned(),
            known: Vec::new(),
            arguments: Vec::new(),
        }
    }

    pub(super) fn with(mut self, option: &str, value: &str) -> Self {
        self.arguments.extend([option.to_owned(), value.to_owned()]);
        self
    }

    pub(super) fn known(mut self, known: &[IpNetwork]) -> Self {
        self.known = known.to_vec();
        self
    }

    fn options(&self, cluster: &Cluster) -> Etcd {
        let root = cluster.folder().join(format!("machine-{}", self.machine));
        fs::create_dir_all(root.join("etc")).unwrap();
        let hex: String = self
            .machine
            .bytes()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        fs::write(root.join("etc/machine-id"), format!("{hex:0>32}\n")).unwrap();
        let mut arguments = vec!["beeline-agent".to_owned(), "etcd".to_owned()];
        let mut option = |name: &str, value: &str| {
            if !self.arguments.iter().any(|argument| argument == name) {
                arguments.extend([name.to_owned(), value.to_owned()]);
            }
        };
        option("--node-name", &self.name);
        option("--host-root", root.to_str().unwrap());
        option("--endpoints", &cluster.endpoints());
        option("--cluster-cidr", "10.244.0.0/16,fd00:10:244::/48");
        arguments.extend(self.arguments.iter().cloned());
        match Options::try_parse_from(arguments).unwrap().verb {
            Verb::Etcd(options) => options,
            verb => panic!("{verb:?}"),
        }
    }
}

/// A backend that runs; dropped, it ends without a word to the etcd, as if killed.
pub(super) struct Node {
    events: mpsc::Receiver<Event>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<()>>>,
    log: Log,
    /// Whether nobody takes what it tells.
    pub(super) deaf: Arc<AtomicBool>,
    /// Who there is, by what was told.
    pub(super) members: BTreeMap<String, Member>,
    /// Why the etcd is not reached.
    pub(super) lost: Option<String>,
    /// All that was told.
    pub(super) told: Vec<Event>,
    name: String,
}

impl Node {
    /// Starts one on a host.
    pub(super) fn start(cluster: &Cluster, host: &Arc<Host>, spec: &Spec) -> Self {
        let options = spec.options(cluster);
        let (stop, stopped) = oneshot::channel();
        let (told, events) = mpsc::channel();
        let log = Log::default();
        let deaf = Arc::new(AtomicBool::new(false));
        let deaf_there = deaf.clone();
        let (host, known, writer) = (host.clone(), spec.known.clone(), log.clone());
        let thread = thread::spawn(move || {
            let subscriber = tracing_subscriber::fmt()
                .with_ansi(false)
                .with_writer(move || writer.clone());
            host.netns.within(|| {
                tracing::subscriber::with_default(subscriber.finish(), || {
                    within(async {
                        let (sender, mut receiver) = tokio::sync::mpsc::channel(16);
                        let forward = async {
                            while let Some(event) = receiver.recv().await {
                                let _ = told.send(event);
                                while deaf_there.load(Ordering::Relaxed) {
                                    sleep(Duration::from_millis(5)).await;
                                }
                            }
                            std::future::pending::<()>().await;
                        };
                        tokio::select! {
                            ended = run(&options, known, sender) => ended,
                            () = forward => Ok(()),
                            _ = stopped => Ok(()),
                        }
                    })
                })
            })
        });
        Self {
            events,
            stop: Some(stop),
            thread: Some(thread),
            log,
            deaf,
            members: BTreeMap::new(),
            lost: None,
            told: Vec::new(),
            name: spec.name.clone(),
        }
    }

    /// Starts one and waits until it has its subnets.
    pub(super) fn ready(cluster: &Cluster, host: &Arc<Host>, spec: &Spec) -> Self {
        let mut node = Self::start(cluster, host, spec);
        node.wait("subnets", |node| !node.subnets().is_empty());
        node
    }

    /// Waits until what was told is as wanted.
    #[track_caller]
    pub(super) fn wait(&mut self, what: &str, wanted: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !wanted(self) {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.events.recv_timeout(left) {
                Ok(event) => self.take(event),
                Err(error) => panic!(
                    "{}: no {what}: {error}\n{:#?}\n{}",
                    self.name,
                    self.told,
                    self.log()
                ),
            }
        }
    }

    /// Takes what has been told meanwhile, and what is in this time.
    pub(super) fn listen(&mut self, for_this_long: Duration) {
        let deadline = Instant::now() + for_this_long;
        while let Ok(event) = self
            .events
            .recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            self.take(event);
        }
    }

    fn take(&mut self, event: Event) {
        match event.clone() {
            Event::All(members) => {
                self.members = members
                    .into_iter()
                    .map(|member| (member.name.clone(), member))
                    .collect();
                self.lost = None;
            }
            Event::Changed(member) => drop(self.members.insert(member.name.clone(), member)),
            Event::Gone(name) => drop(self.members.remove(&name)),
            Event::Lost(reason) => self.lost = Some(reason),
            event => panic!("{event:?}"),
        }
        self.told.push(event);
    }

    /// Its own subnets, by what was told.
    pub(super) fn subnets(&self) -> Vec<IpNetwork> {
        let own = self.members.get(&self.name);
        own.map(|member| member.pod_cidrs.clone())
            .unwrap_or_default()
    }

    /// Whether it knows exactly these members.
    pub(super) fn knows(&self, names: &[&str]) -> bool {
        self.members.keys().eq(names)
    }

    /// How often it was told everything.
    pub(super) fn synchronised(&self) -> usize {
        self.told
            .iter()
            .filter(|event| matches!(event, Event::All(_)))
            .count()
    }

    /// Whether it was ever told that the etcd is lost.
    pub(super) fn was_lost(&self) -> bool {
        self.told
            .iter()
            .any(|event| matches!(event, Event::Lost(_)))
    }

    /// What it has logged.
    pub(super) fn log(&self) -> String {
        String::from_utf8_lossy(&self.log.0.lock().unwrap()).into_owned()
    }

    /// Waits until it ends of itself; returns why.
    #[track_caller]
    pub(super) fn refused(mut self) -> String {
        let deadline = Instant::now() + PATIENCE;
        let thread = self.thread.take().unwrap();
        while !thread.is_finished() {
            assert!(
                Instant::now() < deadline,
                "{}: goes on\n{}",
                self.name,
                self.log()
            );
            thread::sleep(Duration::from_millis(5));
        }
        format!("{:#}", thread.join().unwrap().unwrap_err())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Releases what a node has.
pub(super) fn release_node(cluster: &Cluster, host: &Host, spec: &Spec) -> Result<()> {
    let options = spec.options(cluster);
    host.netns.within(|| within(release(&options)))
}

pub(super) fn within<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(future)
}

/// What is logged, in memory.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
