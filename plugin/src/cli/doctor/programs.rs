//! The pinned programs and maps of peers, and where programs are attached.

use std::collections::HashSet;

use beeline_common::{ABI_VERSION, Hook};

use super::{
    finding::{Commands, Finding, Severity, names, or_ok},
    pods::{Difference, difference},
};
use crate::{
    datapath::config::Mode,
    node::{
        Record,
        survey::{Kernel, Monitored, Pinned, Ways, place_name},
    },
};

const CHECK: &str = "programs";
const PEERS: &str = "peers";

/// Judges what is pinned against what the node was set up for.
pub(super) fn judge(
    kernel: &Kernel,
    record: &Record,
    pinned: Option<&Pinned>,
    other_versions: &[String],
    commands: &Commands,
) -> Vec<Finding> {
    let Some(pinned) = pinned else {
        return unpinned(record, other_versions, commands);
    };
    let directory = pinned.directory.display().to_string();
    let say = |severity, message: String, fix: &str| {
        Finding::new(CHECK, severity, &*directory, message, fix)
    };
    if !record.is_fast() {
        let by_choice = record.off || record.plan.datapath.mode == Mode::Bridge;
        let fix = if by_choice {
            &commands.unload
        } else {
            &commands.load
        };
        let message = "are pinned, but the pods should be on the plain bridge".to_owned();
        return vec![say(Severity::Warning, message, fix)];
    }
    let mut found = misplaced(kernel, pinned, commands);
    if !other_versions.is_empty() {
        let message = format!(
            "has pins of ABI {} too, which no program of this build's uses",
            other_versions.join(", ")
        );
        found.push(say(Severity::Note, message, &commands.load));
    }
    if !pinned.of_other_builds.is_empty() {
        let hooks: Vec<String> = hooks(&pinned.of_other_builds);
        let message = format!(
            "{} were loaded by another build than this one",
            names(&hooks)
        );
        found.push(say(Severity::Warning, message, &commands.load));
    }
    if let Some(reason) = &pinned.refused {
        let message = format!("this build's programs cannot be loaded: {reason}");
        let fix = "see check kernel; those that run, run on";
        found.push(say(Severity::Warning, message, fix));
    }
    match pinned.monitored {
        Monitored::No => {}
        Monitored::Yes => {
            let message = "`beeline monitor` runs: each packet costs more".to_owned();
            found.push(say(Severity::Note, message, "end `beeline monitor`"));
        }
        Monitored::Abandoned => {
            let message = "a monitor was killed, its programs stand in for the pinned ones, slower";
            found.push(say(Severity::Warning, message.to_owned(), &commands.load));
        }
    }
    let ok = format!(
        "ABI {ABI_VERSION}, of this build, attached in {} places",
        pinned.attached.len()
    );
    or_ok(found, Finding::ok(CHECK, directory.clone(), ok))
}

fn unpinned(record: &Record, other_versions: &[String], commands: &Commands) -> Vec<Finding> {
    let object = format!("network {}", record.plan.network);
    if !record.is_fast() {
        return vec![Finding::ok(
            CHECK,
            object,
            "none, as the pods are on the plain bridge",
        )];
    }
    let message = match other_versions {
        [] => "its pins are gone: all pods take the plain bridge".to_owned(),
        others => format!(
            "pins are of ABI {}, this build's is {ABI_VERSION}: another build set it up",
            others.join(", ")
        ),
    };
    vec![Finding::new(
        CHECK,
        Severity::Failure,
        object,
        message,
        commands.drifted(&*commands.load),
    )]
}

/// Programs that are not where they should be, or are elsewhere.
fn misplaced(kernel: &Kernel, pinned: &Pinned, commands: &Commands) -> Vec<Finding> {
    // Without a bridge it cannot be told where pods' belong.
    if pinned.wanted_pods.is_none() {
        return Vec::new();
    }
    let loose: HashSet<_> = pinned.loose.iter().collect();
    let runs: HashSet<_> = pinned
        .attached
        .iter()
        .filter(|at| !loose.contains(at))
        .collect();
    let wanted: HashSet<_> = pinned.wanted_places.iter().collect();
    let missing = |egress| {
        let missing = pinned.wanted_places.iter().filter(|at| !runs.contains(at));
        let missing = missing.filter(|(hook, _)| hook.is_egress() == egress);
        missing.collect::<Vec<_>>()
    };
    let extra = pinned.attached.iter().filter(|at| !wanted.contains(at));
    // A pod's that is about to join.
    let extra = extra.filter(|(hook, _)| !matches!(hook, Hook::FromPod | Hook::ToPod));
    let cases = [
        (
            missing(false),
            Severity::Warning,
            "is not attached: these packets take the slow path",
            commands.drifted(&*commands.load),
        ),
        (
            missing(true),
            Severity::Failure,
            "is not attached: what the stack translates is not remembered, and such connections break",
            commands.drifted(&*commands.load),
        ),
        (
            extra.collect(),
            Severity::Warning,
            "is attached where no peer is behind",
            commands.load.clone(),
        ),
    ];
    let cases = cases.into_iter().filter(|(places, ..)| !places.is_empty());
    cases
        .map(|(places, severity, message, fix)| {
            let places: Vec<String> = places.iter().map(|at| place_name(kernel, **at)).collect();
            Finding::new(CHECK, severity, names(&places), message, fix)
        })
        .collect()
}

fn hooks(hooks: &[Hook]) -> Vec<String> {
    hooks.iter().map(|hook| hook.name().to_owned()).collect()
}

/// Judges the peers that the maps have.
pub(super) fn judge_peers(ways: &Ways, pinned: &Pinned, commands: &Commands) -> Vec<Finding> {
    let Difference {
        missing,
        wrong,
        extra,
    } = difference(&pinned.peers, &ways.peers);
    let cases = [
        (
            missing,
            Severity::Warning,
            "are not in the map PEERS: packets to their pods take the slow path",
        ),
        (
            wrong,
            Severity::Failure,
            "are in the map PEERS with another node, interface or MTU than they are reached by",
        ),
        (
            extra,
            Severity::Failure,
            "are in the map PEERS, but are no peers that can be reached",
        ),
    ];
    let cases = cases.into_iter().filter(|(cidrs, ..)| !cidrs.is_empty());
    let found = cases
        .map(|(cidrs, severity, message)| {
            let cidrs: Vec<String> = cidrs.iter().map(ToString::to_string).collect();
            let object = format!("peers {}", names(&cidrs));
            Finding::new(
                PEERS,
                severity,
                object,
                message,
                commands.drifted(&*commands.load),
            )
        })
        .collect();
    let ok = format!("{} in the map PEERS, as they are reached", ways.peers.len());
    or_ok(found, Finding::ok(PEERS, "peers", ok))
}

#[cfg(test)]
mod tests {
    use beeline_common::{Address, Mac, Peer};

    use super::{
        super::{finding::test_commands, pods::tests::record},
        *,
    };
    use crate::net::link::Link;

    fn node() -> (Kernel, Pinned) {
        let link = |index, name: &str| Link {
            index,
            name: name.to_owned(),
            ..Link::default()
        };
        let kernel = Kernel {
            links: vec![link(2, "eth0"), link(11, "veth1")],
            ..Kernel::default()
        };
        let places = vec![
            (Hook::FromPod, 11),
            (Hook::ToPod, 11),
            (Hook::FromUplink, 2),
            (Hook::ToUplink, 2),
        ];
        let pinned = Pinned {
            directory: "/sys/fs/bpf/beeline/pods".into(),
            wanted_pods: Some(Vec::new()),
            attached: places.clone(),
            wanted_places: places,
            ..Pinned::default()
        };
        (kernel, pinned)
    }

    fn judged(record: &Record, pinned: Option<&Pinned>) -> Vec<(Severity, String)> {
        let (kernel, _) = node();
        let found = judge(&kernel, record, pinned, &[], &test_commands());
        found.into_iter().map(|f| (f.severity, f.object)).collect()
    }

    #[test]
    fn programs_in_their_places_are_one_line() {
        let (_, pinned) = node();
        assert_eq!(judged(&record(), Some(&pinned))[0].0, Severity::Ok);
    }

    #[test]
    fn programs_that_are_missing_loose_or_elsewhere_are_named_by_interface() {
        let (_, mut pinned) = node();
        pinned.attached.remove(0);
        pinned.loose = vec![(Hook::ToUplink, 2)];
        pinned.attached.push((Hook::FromUplink, 11));
        let named = |severity, object: &str| (severity, object.to_owned());
        assert_eq!(
            judged(&record(), Some(&pinned)),
            [
                named(Severity::Warning, "from_pod on veth1"),
                named(Severity::Failure, "to_uplink on eth0"),
                named(Severity::Warning, "from_uplink on veth1"),
            ]
        );
    }

    #[test]
    fn pins_and_record_go_together() {
        let (kernel, pinned) = node();
        assert_eq!(judged(&record(), None)[0].0, Severity::Failure);
        let off = Record {
            off: true,
            degraded: Some("off".to_owned()),
            ..record()
        };
        assert_eq!(judged(&off, None)[0].0, Severity::Ok);
        let found = judge(&kernel, &off, Some(&pinned), &[], &test_commands());
        assert_eq!(found[0].fix.as_deref(), Some("beeline unload"));
        let others = ["1".to_owned()];
        let found = judge(&kernel, &record(), None, &others, &test_commands());
        assert!(found[0].message.contains("ABI 1"), "{found:?}");
    }

    #[test]
    fn other_builds_and_abandoned_monitors_are_warnings_that_a_load_ends() {
        let (_, pinned) = node();
        let built = Pinned {
            of_other_builds: vec![Hook::FromPod],
            monitored: Monitored::Abandoned,
            ..pinned.clone()
        };
        let found = judged(&record(), Some(&built));
        assert_eq!(found.len(), 2);
        assert!(
            found
                .iter()
                .all(|(severity, _)| *severity == Severity::Warning)
        );
        let monitored = Pinned {
            monitored: Monitored::Yes,
            ..pinned
        };
        assert_eq!(judged(&record(), Some(&monitored))[0].0, Severity::Note);
    }

    #[test]
    fn peers_of_the_map_are_those_that_can_be_reached_as_they_can() {
        let peer = |mtu| Peer {
            node: Address::from_v4([192, 168, 1, 12]),
            ifindex: 2,
            mtu,
            vni: 0,
            mac: Mac::default(),
            source: Mac::default(),
        };
        let entry = |cidr: &str, mtu| (cidr.parse().unwrap(), peer(mtu));
        let ways = Ways {
            peers: vec![
                entry("10.244.2.0/24", 1500),
                entry("10.244.3.0/24", 1500),
                entry("10.244.4.0/24", 1500),
            ],
            ..Ways::default()
        };
        let judged = |peers| {
            let pinned = Pinned {
                peers,
                ..Pinned::default()
            };
            let found = judge_peers(&ways, &pinned, &test_commands());
            let found = found.into_iter().map(|f| (f.severity, f.object));
            found.collect::<Vec<_>>()
        };
        assert_eq!(judged(ways.peers.clone())[0].0, Severity::Ok);
        let found = judged(vec![
            entry("10.244.2.0/24", 1400),
            entry("10.244.3.0/24", 1500),
            entry("10.244.9.0/24", 1500),
        ]);
        let named = |severity, object: &str| (severity, object.to_owned());
        assert_eq!(
            found,
            [
                named(Severity::Warning, "peers 10.244.4.0/24"),
                named(Severity::Failure, "peers 10.244.2.0/24"),
                named(Severity::Failure, "peers 10.244.9.0/24"),
            ]
        );
    }
}
