//! The workers that have pods come and go, and the books they keep.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};
use std::thread;

use beeline_common::testing::Random;
use beeline_tests::netns::{Ipv6, Namespace};
use beeline_tests::node::Node;
use beeline_tests::outcome::Outcome;
use beeline_tests::pod::Pod;
use beeline_tests::runtime::Attachment;
use beeline_tests::soak;
use ipnetwork::IpNetwork;
use serde_json::Value;

use super::fate::{Fate, Figures, random};
use super::patient;

/// A pod that is there.
struct Living {
    attachment: Attachment,
    ip: IpAddr,
    namespace: Namespace,
    result: Value,
}

/// What all workers share.
pub(super) struct Crew<'a> {
    pub(super) node: &'a Arc<Node>,
    /// The pods that stay.
    pub(super) standing: [&'a Pod; 2],
    pub(super) seed: u64,
    pub(super) pods: usize,
    /// After so many pods a late DEL comes.
    pub(super) late_by: usize,
    /// After so many pods each there is a GC.
    pub(super) collect_every: usize,
    next: AtomicUsize,
    /// Namespaces without a pod: to make one takes as long as an ADD.
    empty: Mutex<Vec<Namespace>>,
    /// Who has which address.
    given: Mutex<HashMap<IpAddr, String>>,
    late: Mutex<Vec<(usize, Living)>>,
    lost: Mutex<Vec<Living>>,
    figures: Mutex<Figures>,
    /// Held alone by GC, whose list names all pods that there are.
    collecting: RwLock<()>,
}

fn of<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no worker panicked")
}

impl<'a> Crew<'a> {
    pub(super) fn new(node: &'a Arc<Node>, standing: [&'a Pod; 2], seed: u64, pods: usize) -> Self {
        let given = standing.map(|pod| (pod.ip(), pod.name().to_owned()));
        Self {
            node,
            standing,
            seed,
            pods,
            late_by: pods / 30,
            collect_every: pods / 10,
            next: AtomicUsize::new(0),
            empty: Mutex::default(),
            given: Mutex::new(given.into()),
            late: Mutex::default(),
            lost: Mutex::default(),
            figures: Mutex::default(),
            collecting: RwLock::default(),
        }
    }

    /// Has all pods come and go, so many at a time, and collects what they left.
    pub(super) fn run(self, workers: usize) -> Figures {
        thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| self.work());
            }
        });
        self.delete_late(usize::MAX);
        self.collect();
        let given = of(&self.given).len();
        assert_eq!(given, self.standing.len(), "pods are left in the books");
        self.figures.into_inner().expect("no worker panicked")
    }

    fn work(&self) {
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= self.pods {
                return;
            }
            self.live(number);
            self.delete_late(number);
            if number % self.collect_every == self.collect_every - 1 {
                self.collect();
            }
        }
    }

    /// The life of one pod, but for its end if that is not to come now.
    fn live(&self, number: usize) {
        let _not_collected = self.collecting.read().expect("no worker panicked");
        let mut random = random(self.seed, number);
        let fate = Fate::draw(&mut random);
        let pod = self.add(number, fate);
        if random.below(10) == 0 {
            self.ping(&pod, &mut random);
        }
        match fate {
            Fate::Deleted => self.delete(pod, &[1]),
            Fate::Twice => self.delete(pod, random.pick::<&[usize]>(&[&[1, 1], &[2]])),
            Fate::Late => of(&self.late).push((number + self.late_by, pod)),
            Fate::Lost => of(&self.lost).push(pod),
            Fate::Gone => self.delete_without_namespace(pod, &mut random),
            Fate::AddedAgain => {
                let again = self.node.runtime().add(&pod.attachment);
                let message = again.expect("executed").expect_error(&[999]);
                assert!(message.contains("exists already"), "{message}");
                let runtime = self.node.runtime();
                let checked = runtime.check(&pod.attachment, &pod.result);
                checked.expect("executed").expect_success();
                self.ping(&pod, &mut random);
                self.delete(pod, &[1]);
            }
        }
    }

    fn add(&self, number: usize, fate: Fate) -> Living {
        let node = self.node;
        let id = format!("{}-churn{number}", node.name());
        let namespace = of(&self.empty).pop();
        let namespace =
            namespace.unwrap_or_else(|| Namespace::create(&id, Ipv6::Disabled).expect("namespace"));
        let attachment = Attachment::new(&*id, namespace.path());
        let added = node.runtime().at_once().add(&attachment).expect("executed");
        let elapsed = added.elapsed;
        let result = added.expect_success();
        let address = result["ips"][0]["address"].as_str().expect("an address");
        let ip = address.parse::<IpNetwork>().expect("an address").ip();
        let former = of(&self.given).insert(ip, id.clone());
        assert_eq!(former, None, "{id} was given {ip}, which that pod has");
        of(&self.figures).came(fate, elapsed);
        Living {
            attachment,
            ip,
            namespace,
            result,
        }
    }

    /// Has the pod and one that stays reach each other, by whichever path: the watch has to wait for the kernel's lock of
    /// interfaces as ADDs and DELs do, and so many of these put pods off for long.
    fn ping(&self, pod: &Living, random: &mut Random) {
        let other = random.pick(&self.standing);
        patient(&pod.namespace, other.ip()).assert_received();
        patient(other.namespace(), pod.ip).assert_received();
        of(&self.figures).pings += 2;
    }

    /// DELs of one pod: so many at once, one crowd after the other. Its namespace goes to another pod.
    fn delete(&self, pod: Living, crowds: &[usize]) {
        // Before DEL, in whose course somebody else may be given the address.
        of(&self.given).remove(&pod.ip);
        for crowd in crowds {
            self.del_at_once(&pod.attachment, *crowd);
        }
        of(&self.empty).push(pod.namespace);
    }

    fn delete_without_namespace(&self, pod: Living, random: &mut Random) {
        of(&self.given).remove(&pod.ip);
        drop(pod.namespace);
        // A runtime that knows says nothing; one that does not names what was there.
        let mut attachment = pod.attachment;
        if random.below(2) == 0 {
            attachment.netns = PathBuf::new();
        }
        self.del_at_once(&attachment, 1);
    }

    fn del_at_once(&self, attachment: &Attachment, crowd: usize) {
        let del = || self.node.runtime().del(attachment, None).expect("executed");
        let outcomes: Vec<Outcome> = thread::scope(|scope| {
            let threads: Vec<_> = (0..crowd).map(|_| scope.spawn(del)).collect();
            let joined = threads.into_iter().map(|thread| thread.join());
            joined.map(|outcome| outcome.expect("DEL")).collect()
        });
        for outcome in outcomes {
            outcome.expect_success();
        }
    }

    /// The DELs that have been late for long enough.
    fn delete_late(&self, now: usize) {
        let _not_collected = self.collecting.read().expect("no worker panicked");
        let due: Vec<_> = of(&self.late)
            .extract_if(.., |(when, _)| *when <= now)
            .collect();
        for (_, pod) in due {
            self.delete(pod, &[2]);
        }
    }

    /// GC, which ends the pods whose DELs were lost, and no others.
    fn collect(&self) {
        let _alone = self.collecting.write().expect("no worker panicked");
        let lost = std::mem::take(&mut *of(&self.lost));
        let late = of(&self.late);
        let mut valid = self.standing.map(Pod::attachment).to_vec();
        valid.extend(late.iter().map(|(_, pod)| &pod.attachment));
        if soak::is_on() {
            println!("{}", of(&self.figures).latest(self.collect_every));
        }
        let collected = self.node.runtime().gc(&valid).expect("executed");
        collected.expect_success();
        for pod in lost {
            of(&self.given).remove(&pod.ip);
            of(&self.empty).push(pod.namespace);
        }
        let mut given: Vec<_> = of(&self.given).keys().copied().collect();
        let mut reserved = self.node.reserved();
        given.sort_unstable();
        reserved.sort_unstable();
        assert_eq!(reserved, given, "reserved after GC, and in the books");
    }
}
