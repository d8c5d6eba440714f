//! What ADD and DEL cost: the plugins in turn, pod by pod, each on a node of its own.

use std::sync::Arc;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::json;

use super::arena::prefix;
use super::contender::reference;
use super::options::Measure;
use super::progress::Progress;
use super::types::{Control, Mode, Results};
use crate::datapath;
use crate::interrupt;
use crate::netns::{Ipv6, Namespace};
use crate::node::Node;
use crate::runtime::Attachment;
use crate::topology::{Plugin, Topology, TopologySpec};

/// Pods of each parallel measurement in the full setting.
const PARALLEL_PODS: u32 = 100;

/// How long a node is left alone between two measurements: what the kernel still does for the one, such as removing a
/// pod's namespace, is not to slow the other.
const PAUSE: Duration = Duration::from_millis(100);

/// What is measured, by name: from the start of the plugin's process to its end, and for how long after ADD the pod is
/// not on the fast path yet.
const VERBS: [&str; 4] = ["ADD", FAST, "DEL", "VERSION"];

/// How long after the end of its ADD a pod is not on the fast path yet.
const FAST: &str = "ADD to fast path";

/// Pods of the serial measurement in the full setting.
const SERIAL_PODS: u32 = 100;

type FindPlugin = fn() -> Result<Plugin>;

const CONTENDERS: [(&str, FindPlugin); 2] = [("bridge", reference), ("beeline", Plugin::from_env)];

/// A node of a contender, and what was measured on it.
struct Subject {
    contender: &'static str,
    masquerade: bool,
    node: Arc<Node>,
    /// A pod that is there all the time, so that no ADD sets the node up.
    _first: crate::pod::Pod,
    _topology: Topology,
}

/// A pod to be.
struct Sandbox {
    attachment: Attachment,
    _namespace: Namespace,
}

/// Samples of one verb under way.
#[derive(Default)]
struct Samples {
    milliseconds: Vec<f64>,
    total: Duration,
}

/// Samples of [`VERBS`].
type Verbs = [Samples; 4];

/// Measures all modes.
pub(super) fn measure(options: &Measure, results: &mut Results) -> Result<()> {
    let pods = results.settings.pods;
    let (serial, parallel, levels): (_, _, &[u32]) = if options.quick {
        (pods.min(20), pods.min(20), &[1, 8])
    } else {
        (pods.min(SERIAL_PODS), pods.min(PARALLEL_PODS), &[1, 8, 32])
    };
    let chosen: Vec<_> = CONTENDERS
        .iter()
        .filter(|(name, _)| {
            options.contenders.is_empty() || options.contenders.iter().any(|chosen| chosen == name)
        })
        .flat_map(|(name, plugin)| [true, false].map(|masquerade| (*name, plugin, masquerade)))
        .collect();
    let steps = chosen.len() * (serial as usize + 2 * pods as usize + levels.len());
    let mut progress = Progress::new(steps)?;
    let mut subjects = Vec::new();
    for (name, plugin, masquerade) in chosen {
        let subject = plugin().and_then(|plugin| Subject::new(name, plugin, masquerade));
        match subject {
            Ok(subject) => subjects.push(subject),
            Err(error) => {
                let what = format!("ADD of {name}, ipMasq {masquerade}");
                progress.skip(&mut results.skipped, &what, &format!("{error:#}"));
            }
        }
    }
    results
        .control
        .extend(one_by_one(&subjects, serial, &mut progress)?);
    for &level in levels {
        for subject in &subjects {
            progress.step(
                &format!("{parallel} pods, {level} at once"),
                &subject.name(),
            )?;
            results.control.extend(subject.at_once(parallel, level)?);
        }
    }
    // Last: what thousands of interfaces leave to clean up would disturb the others.
    results
        .control
        .extend(growth(&subjects, pods, &mut progress)?);
    Ok(())
}

/// ADD and DEL of one pod after the other.
fn one_by_one(subjects: &[Subject], count: u32, progress: &mut Progress) -> Result<Vec<Control>> {
    let mut samples: Vec<Verbs> = subjects.iter().map(|_| Verbs::default()).collect();
    for number in 0..count {
        for (subject, [add, fast, del, version]) in subjects.iter().zip(&mut samples) {
            progress.step("ADD and DEL in turn", &subject.name())?;
            let sandbox = subject.sandbox("serial", number)?;
            add.push(subject.add(&sandbox)?);
            fast.extend(subject.settle(&sandbox)?);
            thread::sleep(PAUSE);
            del.push(subject.del(&sandbox)?);
            drop(sandbox);
            thread::sleep(PAUSE);
            let said = subject.node.runtime().version()?.success()?;
            version.push(said.elapsed);
        }
    }
    Ok(controls(subjects, samples, Mode::Serial))
}

/// ADD of pods that all stay, then DEL of all in reverse.
fn growth(subjects: &[Subject], count: u32, progress: &mut Progress) -> Result<Vec<Control>> {
    let mut samples: Vec<Verbs> = subjects.iter().map(|_| Verbs::default()).collect();
    let mut pods: Vec<Vec<Sandbox>> = subjects.iter().map(|_| Vec::new()).collect();
    for number in 0..count {
        let each = subjects.iter().zip(&mut samples).zip(&mut pods);
        for ((subject, [add, fast, ..]), pods) in each {
            progress.step(&format!("1st to {count}th pod: ADD"), &subject.name())?;
            let sandbox = subject.sandbox("growth", number)?;
            add.push(subject.add(&sandbox)?);
            fast.extend(subject.settle(&sandbox)?);
            pods.push(sandbox);
        }
    }
    for _ in 0..count {
        let each = subjects.iter().zip(&mut samples).zip(&mut pods);
        for ((subject, [_, _, del, _]), pods) in each {
            progress.step(&format!("1st to {count}th pod: DEL"), &subject.name())?;
            let sandbox = pods.pop().context("a pod for each DEL")?;
            del.push(subject.del(&sandbox)?);
        }
    }
    samples
        .iter_mut()
        .for_each(|[_, _, del, _]| del.milliseconds.reverse());
    Ok(controls(subjects, samples, Mode::Growth))
}

fn controls(subjects: &[Subject], samples: Vec<Verbs>, mode: Mode) -> Vec<Control> {
    let each = subjects.iter().zip(samples);
    each.flat_map(|(subject, samples)| subject.controls(samples, mode))
        .collect()
}

impl Samples {
    fn push(&mut self, elapsed: Duration) {
        self.milliseconds.push(elapsed.as_secs_f64() * 1e3);
        self.total += elapsed;
    }

    fn extend(&mut self, elapsed: Option<Duration>) {
        elapsed.into_iter().for_each(|elapsed| self.push(elapsed));
    }
}

impl Subject {
    fn new(contender: &'static str, plugin: Plugin, masquerade: bool) -> Result<Self> {
        let masq = if masquerade { "masq" } else { "plain" };
        let prefix = prefix(&format!("add-{contender}-{masq}"));
        let topology = Topology::new(&TopologySpec::new(prefix, 1, plugin))?;
        let [node] = topology.take();
        let change = |plugin: &mut serde_json::Value| {
            plugin["ipMasq"] = json!(masquerade);
            // Room for a thousand pods.
            plugin["ipam"]["subnet"] = json!("10.244.0.0/20");
        };
        node.config().with(change).install()?;
        let first = node.try_add_pod("first")?;
        Ok(Self {
            contender,
            masquerade,
            node,
            _first: first,
            _topology: topology,
        })
    }

    fn name(&self) -> String {
        let masquerade = if self.masquerade { " with ipMasq" } else { "" };
        format!("{}{masquerade}", self.contender)
    }

    fn sandbox(&self, mode: &str, number: u32) -> Result<Sandbox> {
        let name = format!("{}-{mode}{number}", self.node.name());
        let namespace = Namespace::create(&name, Ipv6::Disabled)?;
        let attachment = Attachment::new(name, namespace.path());
        Ok(Sandbox {
            attachment,
            _namespace: namespace,
        })
    }

    fn add(&self, sandbox: &Sandbox) -> Result<Duration> {
        Ok(self
            .node
            .runtime()
            .at_once()
            .add(&sandbox.attachment)?
            .success()?
            .elapsed)
    }

    fn del(&self, sandbox: &Sandbox) -> Result<Duration> {
        let outcome = self.node.runtime().del(&sandbox.attachment, None)?;
        Ok(outcome.success()?.elapsed)
    }

    /// Waits until a pod is on the fast path; none where there is no such thing.
    fn settle(&self, sandbox: &Sandbox) -> Result<Option<Duration>> {
        if self.node.plugin().is_reference() {
            return Ok(None);
        }
        let Attachment {
            container_id,
            ifname,
            ..
        } = &sandbox.attachment;
        datapath::settle(&self.node, container_id, ifname).map(Some)
    }

    /// ADD of all pods, then DEL of all, so many at a time.
    fn at_once(&self, count: u32, level: u32) -> Result<Vec<Control>> {
        let sandboxes: Vec<_> = (0..count)
            .map(|number| self.sandbox(&format!("parallel{level}x"), number))
            .collect::<Result<_>>()?;
        let add = spread(&sandboxes, level, |sandbox| self.add(sandbox))?;
        let start = Instant::now();
        let mut fast = Samples::default();
        for sandbox in &sandboxes {
            let settled = self.settle(sandbox)?;
            fast.extend(settled.map(|_| start.elapsed()));
        }
        fast.total = start.elapsed();
        thread::sleep(PAUSE);
        let del = spread(&sandboxes, level, |sandbox| self.del(sandbox))?;
        drop(sandboxes);
        thread::sleep(10 * PAUSE);
        Ok(self.controls([add, fast, del, Samples::default()], Mode::Parallel(level)))
    }

    fn controls(&self, samples: Verbs, mode: Mode) -> Vec<Control> {
        let each = VERBS.into_iter().zip(samples);
        let measured = each.filter(|(_, samples)| !samples.milliseconds.is_empty());
        measured
            .map(|(verb, samples)| Control {
                contender: self.contender.to_owned(),
                verb: verb.to_owned(),
                masquerade: self.masquerade,
                mode,
                samples_ms: samples.milliseconds,
                total_ms: samples.total.as_secs_f64() * 1e3,
            })
            .collect()
    }
}

/// Does `work` for each pod on so many threads.
fn spread(
    sandboxes: &[Sandbox],
    level: u32,
    work: impl Fn(&Sandbox) -> Result<Duration> + Sync,
) -> Result<Samples> {
    let queue = Mutex::new(sandboxes.iter());
    let samples = Mutex::new(Samples::default());
    let next = || queue.lock().ok().and_then(|mut queue| queue.next());
    let worker = || -> Result<()> {
        while let Some(sandbox) = next() {
            interrupt::check()?;
            let elapsed = work(sandbox)?;
            if let Ok(mut samples) = samples.lock() {
                samples.push(elapsed);
            }
        }
        Ok(())
    };
    let start = Instant::now();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..level).map(|_| scope.spawn(worker)).collect();
        let joined = workers
            .into_iter()
            .map(|worker| worker.join().expect("no worker panics"));
        joined.collect::<Result<()>>()
    })?;
    let total = start.elapsed();
    let samples = samples.into_inner().unwrap_or_default();
    Ok(Samples { total, ..samples })
}
