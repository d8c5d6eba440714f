//! The pods: as they are recorded, as the kernel has their host veths, and as the maps know them.

use std::{collections::HashMap, fmt::Debug, hash::Hash, path::Path};

use super::finding::{Commands, Finding, Severity, commands as several, count, names, or_ok};
use crate::{
    net::link::Link,
    node::{
        Attachment, Record,
        survey::{Kernel, Pinned},
    },
};

const CHECK: &str = "pods";

/// What is compared.
pub(super) struct Facts<'a> {
    pub(super) record: &'a Record,
    /// The directory of the network's state.
    pub(super) store: &'a Path,
    pub(super) attachments: &'a [Attachment],
    pub(super) pinned: Option<&'a Pinned>,
    /// Whether a process watches new pods.
    pub(super) watched: bool,
}

/// How two lists of entries differ, by key.
pub(super) struct Difference<K> {
    pub(super) missing: Vec<K>,
    pub(super) wrong: Vec<K>,
    pub(super) extra: Vec<K>,
}

/// Compares what there is with what there should be.
pub(super) fn difference<K: Copy + Eq + Hash + Ord, V: PartialEq>(
    there: &[(K, V)],
    wanted: &[(K, V)],
) -> Difference<K> {
    let held: HashMap<K, &V> = there.iter().map(|(key, value)| (*key, value)).collect();
    let asked: HashMap<K, &V> = wanted.iter().map(|(key, value)| (*key, value)).collect();
    let keys = |mut keys: Vec<K>| {
        keys.sort_unstable();
        keys
    };
    let with = |test: fn(Option<&&V>, &V) -> bool| {
        let keys = asked
            .iter()
            .filter(|(key, value)| test(held.get(*key), value));
        keys.map(|(key, _)| *key).collect()
    };
    Difference {
        missing: keys(with(|held, _| held.is_none())),
        wrong: keys(with(|held, value| {
            held.is_some_and(|held| **held != *value)
        })),
        extra: keys(
            held.keys()
                .filter(|key| !asked.contains_key(*key))
                .copied()
                .collect(),
        ),
    }
}

/// Judges them.
pub(super) fn judge(kernel: &Kernel, facts: &Facts<'_>, commands: &Commands) -> Vec<Finding> {
    let mut found = on_bridge(kernel, facts, commands);
    let waiting: Vec<String> = facts
        .attachments
        .iter()
        .filter(|attachment| attachment.waits())
        .map(|attachment| attachment.host_veth.clone())
        .collect();
    if facts.record.is_fast() && !facts.watched && !waiting.is_empty() {
        found.push(Finding::new(
            CHECK,
            Severity::Warning,
            format!("pods behind {}", names(&waiting)),
            "wait for the fast path, but `beeline watch` does not run",
            &*commands.load,
        ));
    }
    if let Some(pinned) = facts.pinned
        && let Some(wanted) = &pinned.wanted_pods
    {
        found.extend(in_maps(facts, pinned, wanted, commands));
    }
    let is_on = facts.record.is_fast();
    let fast = facts.attachments.iter().filter(|a| is_on && a.fast_path);
    let ok = format!(
        "{} recorded, {} of them on the fast path; host veths and maps agree",
        count(facts.attachments.len(), "pod"),
        fast.count()
    );
    or_ok(found, Finding::ok(CHECK, "pods", ok))
}

fn in_maps(
    facts: &Facts<'_>,
    pinned: &Pinned,
    wanted: &[(std::net::IpAddr, beeline_common::Pod)],
    commands: &Commands,
) -> Vec<Finding> {
    let Difference {
        missing,
        wrong,
        mut extra,
    } = difference(&pinned.pods, wanted);
    // One that is about to join is known to the maps first, on the slow path.
    extra.retain(|ip| !facts.attachments.iter().any(|a| a.ips().contains(ip)));
    let cases = [
        (
            missing,
            Severity::Warning,
            "are not in the map PODS: they take the slow path",
            commands.drifted(&*commands.load),
        ),
        (
            wrong,
            Severity::Failure,
            "are not in the map PODS as recorded: packets may go to another interface",
            commands.load.clone(),
        ),
        (
            extra,
            Severity::Failure,
            "are in the map PODS, but no pod has them: packets to them are lost",
            commands.reload.clone(),
        ),
    ];
    let cases = cases.into_iter().filter(|(ips, ..)| !ips.is_empty());
    cases
        .map(|(ips, severity, message, fix)| {
            let ips: Vec<String> = ips.iter().map(ToString::to_string).collect();
            let object = format!("addresses {}", names(&ips));
            Finding::new(CHECK, severity, object, message, fix)
        })
        .collect()
}

/// Looks for the bridge, and for host veths that are gone, on no bridge, or nobody's.
fn on_bridge(kernel: &Kernel, facts: &Facts<'_>, commands: &Commands) -> Vec<Finding> {
    let plan = &facts.record.plan.bridge;
    let name = &plan.name;
    let say = |severity, object: String, message: &str, fix: String| {
        Finding::new(CHECK, severity, object, message, fix)
    };
    let Some(bridge) = kernel
        .link(name)
        .filter(|link| link.kind.as_deref() == Some("bridge"))
    else {
        let message = "is missing: the next ADD makes it, but pods that were on it have no network";
        let fix = format!("{}, then make these pods anew", commands.load);
        return vec![say(
            Severity::Failure,
            format!("bridge {name}"),
            message,
            fix,
        )];
    };
    let mut found = Vec::new();
    if !bridge.up {
        let fix = format!("ip link set dev {name} up");
        found.push(say(
            Severity::Failure,
            format!("bridge {name}"),
            "is down",
            fix,
        ));
    }
    let by_name: HashMap<&str, &Link> = kernel
        .links
        .iter()
        .map(|link| (&*link.name, link))
        .collect();
    let done = facts.attachments.iter().filter(|a| a.complete);
    let (mut gone, mut astray) = (Vec::new(), Vec::new());
    for attachment in done {
        match by_name.get(&*attachment.host_veth) {
            Some(link) if link.index != attachment.ifindex => gone.push(attachment),
            Some(link) if link.controller != Some(bridge.index) => astray.push(attachment),
            Some(_) => {}
            None => gone.push(attachment),
        }
    }
    if !gone.is_empty() {
        let list: Vec<String> = gone
            .iter()
            .map(|a| format!("{} {} ({})", a.container_id, a.ifname, a.host_veth))
            .collect();
        let records = gone.iter().map(|a| {
            let file = format!("{}:{}", a.container_id, a.ifname);
            format!(
                "rm '{}'",
                facts.store.join("attachments").join(file).display()
            )
        });
        found.push(say(
            Severity::Warning,
            format!("attachments {}", names(&list)),
            "are recorded, but their host veths are gone: the runtime's DEL removes them; if it knows the containers no more, do so",
            several(records),
        ));
    }
    if !astray.is_empty() {
        let list: Vec<String> = astray.iter().map(|a| a.host_veth.clone()).collect();
        let join = list
            .iter()
            .map(|veth| format!("ip link set dev {veth} master {name}"));
        found.push(say(
            Severity::Failure,
            format!("host veths {}", names(&list)),
            "are no ports of the bridge: these pods reach what the fast path carries at most",
            several(join),
        ));
    }
    let unknown = unknown_ports(kernel, facts, bridge);
    if !unknown.is_empty() {
        found.push(say(
            Severity::Note,
            format!("host veths {}", names(&unknown)),
            "are ports of the bridge, but no pod that beeline knows: it did not add them",
            format!("{} --adopt", commands.load),
        ));
    }
    found
}

/// Ports of the bridge that are no recorded pod's.
fn unknown_ports(kernel: &Kernel, facts: &Facts<'_>, bridge: &Link) -> Vec<String> {
    // One of the ports is the gateway's.
    if facts.record.plan.bridge.vlans.is_some() {
        return Vec::new();
    }
    let recorded = |link: &&Link| facts.attachments.iter().any(|a| a.host_veth == link.name);
    let ports = kernel.links.iter().filter(|link| {
        link.controller == Some(bridge.index) && link.kind.as_deref() == Some("veth")
    });
    let unknown = ports.filter(|link| !recorded(link));
    unknown.map(|link| link.name.clone()).collect()
}

impl<K: Debug> Debug for Difference<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            missing,
            wrong,
            extra,
        } = self;
        write!(f, "missing {missing:?}, wrong {wrong:?}, extra {extra:?}")
    }
}

#[cfg(test)]
#[path = "pods_tests.rs"]
pub(super) mod tests;
