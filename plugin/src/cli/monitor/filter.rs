//! Which packets are asked for.

use std::net::IpAddr;

use anyhow::{Result, bail};
use beeline_common::Outcome;
use clap::Args;
use ipnetwork::IpNetwork;

use super::packet::Summary;
use crate::{datapath::Sighting, node::Attachment};

/// Options that choose packets.
#[derive(Clone, Debug, Default, Args)]
#[group(skip)]
pub(super) struct Options {
    /// Only packets from or to this pod: its name (with its namespace: namespace/name), an address of it, the start of its
    /// container ID, the name of its host veth or of its network namespace
    #[arg(long)]
    pod: Option<String>,
    /// Only packets from or to this address or CIDR
    #[arg(long, value_name = "CIDR")]
    address: Option<IpNetwork>,
    /// Only what is dropped; with --fast or --slow that too
    #[arg(long)]
    drops: bool,
    /// Only what takes the fast path
    #[arg(long)]
    fast: bool,
    /// Only what is left to the stack
    #[arg(long)]
    slow: bool,
}

/// What decides over a packet.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
    options: Options,
    pod: Option<Pod>,
}

#[derive(Clone, Debug)]
struct Pod {
    ifindexes: Vec<u32>,
    addresses: Vec<IpAddr>,
}

impl Filter {
    /// The filter that the options ask for, over the pods that there are.
    pub(super) fn new(options: &Options, attachments: &[Attachment]) -> Result<Self> {
        let pod = options.pod.as_deref();
        Ok(Self {
            options: options.clone(),
            pod: pod.map(|name| find(name, attachments)).transpose()?,
        })
    }

    /// Whether a packet is asked for.
    pub(super) fn takes(&self, sighting: &Sighting, summary: &Summary) -> bool {
        self.takes_outcome(sighting.outcome)
            && self
                .options
                .address
                .is_none_or(|cidr| summary.is_between(|address| cidr.contains(address)))
            && self.pod.as_ref().is_none_or(|pod| {
                pod.ifindexes.contains(&sighting.ifindex)
                    || sighting
                        .target
                        .is_some_and(|to| pod.ifindexes.contains(&to))
                    || summary.is_between(|address| pod.addresses.contains(&address))
            })
    }

    fn takes_outcome(&self, outcome: Outcome) -> bool {
        let Options {
            drops, fast, slow, ..
        } = self.options;
        let any = !drops && !fast && !slow;
        any || match outcome {
            Outcome::ToPod | Outcome::ToPeer | Outcome::ToOverlay => fast,
            Outcome::Passed(_) => slow,
            Outcome::Dropped(_) => drops,
        }
    }
}

/// The one pod of that name; it may have several interfaces.
fn find(name: &str, attachments: &[Attachment]) -> Result<Pod> {
    let address: Option<IpAddr> = name.parse().ok();
    let is_named = |attachment: &&Attachment| {
        let pod = attachment.pod_name.as_deref();
        let bare = pod
            .and_then(|pod| pod.split_once('/'))
            .map(|(_, name)| name);
        pod == Some(name)
            || bare == Some(name)
            || address.is_some_and(|address| attachment.ips().contains(&address))
            || attachment.container_id.starts_with(name)
            || attachment.host_veth == name
            || attachment.netns.rsplit('/').next() == Some(name)
    };
    let found: Vec<&Attachment> = attachments.iter().filter(is_named).collect();
    let Some(first) = found.first() else {
        bail!("pod {name:?}: none of beeline's pods on this node");
    };
    if let Some(other) = found
        .iter()
        .find(|other| other.container_id != first.container_id)
    {
        bail!(
            "pod {name:?}: is {} or {}",
            first.container_id,
            other.container_id
        );
    }
    Ok(Pod {
        ifindexes: found.iter().map(|attachment| attachment.ifindex).collect(),
        addresses: found
            .iter()
            .flat_map(|attachment| attachment.ips())
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use beeline_common::{Drop, Hook, Pass};

    use super::*;

    fn attachment(container_id: &str, ifindex: u32, address: &str) -> Attachment {
        Attachment {
            container_id: container_id.to_owned(),
            ifname: "eth0".to_owned(),
            host_veth: format!("veth{ifindex}"),
            ifindex,
            addresses: vec![address.parse().unwrap()],
            netns: format!("/run/netns/net{ifindex}"),
            complete: true,
            fast_path: true,
            mac: None,
            isolated: false,
            pod_name: Some(format!("default/web-{ifindex}")),
            slow: None,
        }
    }

    fn pods() -> [Attachment; 2] {
        [
            attachment("4ac1b0", 3, "10.1.0.2/24"),
            attachment("4acfff", 4, "10.1.0.3/24"),
        ]
    }

    fn sighting(outcome: Outcome, ifindex: u32, target: Option<u32>) -> Sighting {
        Sighting {
            time: Duration::ZERO,
            hook: Hook::FromPod,
            outcome,
            ifindex,
            target,
            length: 0,
            bytes: Vec::new(),
        }
    }

    fn between(source: &str, destination: &str) -> Summary {
        Summary {
            addresses: Some((source.parse().unwrap(), destination.parse().unwrap())),
            ..Summary::default()
        }
    }

    #[test]
    fn a_pod_is_found_by_each_of_its_names_and_must_be_the_only_one() {
        for name in [
            "default/web-3",
            "web-3",
            "4ac1",
            "10.1.0.2",
            "veth3",
            "net3",
        ] {
            assert_eq!(find(name, &pods()).unwrap().ifindexes, [3], "{name}");
        }
        let both = find("4ac", &pods()).unwrap_err().to_string();
        assert!(both.contains("4ac1b0") && both.contains("4acfff"), "{both}");
        assert!(find("other", &pods()).is_err());
    }

    #[test]
    fn what_a_pod_sends_or_receives_is_taken_whichever_way_it_shows() {
        let options = Options {
            pod: Some("4ac1".to_owned()),
            ..Options::default()
        };
        let filter = Filter::new(&options, &pods()).unwrap();
        let nobody = Summary::default();
        let to_it = between("10.9.9.9", "10.1.0.2");
        assert!(filter.takes(&sighting(Outcome::ToPeer, 3, Some(9)), &nobody));
        assert!(filter.takes(&sighting(Outcome::ToPod, 4, Some(3)), &nobody));
        assert!(filter.takes(&sighting(Outcome::ToPod, 9, None), &to_it));
        assert!(!filter.takes(&sighting(Outcome::ToPod, 4, Some(9)), &nobody));
    }

    #[test]
    fn outcomes_are_taken_by_what_becomes_of_the_packet() {
        let taken = |drops, fast, slow| {
            let options = Options {
                drops,
                fast,
                slow,
                ..Options::default()
            };
            let filter = Filter::new(&options, &[]).unwrap();
            [
                Outcome::ToOverlay,
                Outcome::Passed(Pass::NotToPod),
                Outcome::Dropped(Drop::Spoofed),
            ]
            .map(|outcome| filter.takes(&sighting(outcome, 1, None), &Summary::default()))
        };
        assert_eq!(taken(false, false, false), [true, true, true]);
        assert_eq!(taken(true, false, false), [false, false, true]);
        assert_eq!(taken(true, true, false), [true, false, true]);
        assert_eq!(taken(false, false, true), [false, true, false]);
    }

    #[test]
    fn a_packet_without_addresses_is_in_no_cidr() {
        let options = Options {
            address: Some("10.1.0.0/16".parse().unwrap()),
            ..Options::default()
        };
        let filter = Filter::new(&options, &[]).unwrap();
        let sighting = sighting(Outcome::ToPod, 1, None);
        assert!(filter.takes(&sighting, &between("10.2.0.1", "10.1.0.1")));
        assert!(!filter.takes(&sighting, &between("10.2.0.1", "10.3.0.1")));
        assert!(!filter.takes(&sighting, &Summary::default()));
    }
}
