//! Kernel parameters that packets depend on.

use super::finding::{Commands, Finding, Severity, or_ok};
use crate::{
    net::{link::Link, sysctl},
    node::watch,
};
use beeline_common::abi::{MAX_FLOWS, MIN_FLOWS};

const CHECK: &str = "sysctls";
const BRIDGE_NF: &str = "net/bridge/bridge-nf-call-iptables";
const INSTANCES: &str = "fs/inotify/max_user_instances";
const TRACKED: &str = "net/netfilter/nf_conntrack_max";

/// The values of parameters of the node; none where there is no such parameter.
#[derive(Debug, Default)]
pub(super) struct Facts {
    bridge_nf: Option<String>,
    instances: Option<u32>,
    /// Why no process could watch files now.
    refused: Option<String>,
}

/// Reads them.
pub(super) fn read() -> Facts {
    Facts {
        bridge_nf: sysctl::get(BRIDGE_NF).ok(),
        instances: number(INSTANCES),
        refused: watch::refused().map(|error| error.to_string()),
    }
}

fn number(key: &str) -> Option<u32> {
    sysctl::get(key).ok()?.parse().ok()
}

/// Judges them.
pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    let instances = facts.instances.unwrap_or_default();
    match &facts.refused {
        Some(error) => found.push(Finding::new(
            CHECK,
            Severity::Warning,
            dotted(INSTANCES),
            format!(
                "{instances}, all in use ({error}): `beeline watch` cannot take new pods onto the fast path"
            ),
            format!("sysctl -w {}={}", dotted(INSTANCES), instances.max(128) * 4),
        )),
        None => found.push(Finding::ok(
            CHECK,
            dotted(INSTANCES),
            format!("{instances}, not all in use"),
        )),
    }
    let bridge_nf = dotted(BRIDGE_NF);
    found.push(match facts.bridge_nf.as_deref() {
        Some("1") => Finding::ok(
            CHECK,
            bridge_nf,
            "1: iptables sees what the bridge carries, so kube-proxy translates between pods of one node too",
        ),
        _ => Finding::new(
            CHECK,
            Severity::Note,
            &*bridge_nf,
            "is off: where kube-proxy runs, a pod does not reach another of its node by a Service",
            format!("modprobe br_netfilter && sysctl -w {bridge_nf}=1"),
        ),
    });
    found
}

/// What a network needs of parameters.
#[derive(Debug, Default)]
pub(super) struct Needs {
    /// The settings by which the node forwards, and their values.
    pub(super) forwarding: Vec<(String, Option<String>)>,
    /// How many flows the maps hold; none if the fast path is off.
    pub(super) flows: Option<[u32; 2]>,
    /// How many connections conntrack tracks at most.
    pub(super) tracked: Option<u32>,
    /// How many flows the configuration says.
    pub(super) max_flows: Option<u32>,
}

impl Needs {
    /// Reads the settings: those of all links in `keys`, and those of these links.
    pub(super) fn read(keys: &[&'static str], links: &[&Link]) -> Self {
        let mut forwarding = Vec::new();
        for key in keys {
            forwarding.push(((*key).to_owned(), sysctl::get(key).ok()));
            let family = if key.starts_with("net/ipv6") {
                "ipv6"
            } else {
                "ipv4"
            };
            for link in links {
                let key = format!("net/{family}/conf/{}/forwarding", link.name);
                let value = match link.ipv4 {
                    Some(ipv4) if family == "ipv4" => Some(u8::from(ipv4.forwarding).to_string()),
                    _ => sysctl::get(&key).ok(),
                };
                forwarding.push((key, value));
            }
        }
        Self {
            forwarding,
            tracked: number(TRACKED),
            ..Self::default()
        }
    }
}

/// Judges what a network needs.
pub(super) fn judge_needs(needs: &Needs, commands: &Commands) -> Vec<Finding> {
    let mut found = Vec::new();
    for (key, value) in &needs.forwarding {
        let value = value.as_deref().unwrap_or("not there");
        if value != "1" {
            found.push(Finding::new(
                CHECK,
                Severity::Failure,
                dotted(key),
                format!("is {value}: the node does not forward for its pods"),
                format!("sysctl -w {}=1", dotted(key)),
            ));
        }
    }
    if let (Some(flows), Some(tracked)) = (needs.flows, needs.tracked) {
        let held = flows.into_iter().min().unwrap_or_default();
        let wanted = tracked.clamp(MIN_FLOWS, MAX_FLOWS);
        if held < wanted {
            let (severity, fix) = match needs.max_flows {
                Some(_) => (Severity::Note, format!("datapath.maxFlows: {wanted}")),
                None => (Severity::Warning, commands.reload.clone()),
            };
            found.push(Finding::new(
                CHECK,
                severity,
                dotted(TRACKED),
                format!(
                    "{tracked} connections, but the maps of flows hold {held}: what the stack translates may be pushed out"
                ),
                fix,
            ));
        }
    }
    or_ok(
        found,
        Finding::ok(
            CHECK,
            "forwarding",
            "on; the maps of flows are large enough",
        ),
    )
}

/// The key as `sysctl` takes it: with dots, unless a name in it has one.
pub(super) fn dotted(key: &str) -> String {
    if key.contains('.') {
        key.to_owned()
    } else {
        key.replace('/', ".")
    }
}

#[cfg(test)]
mod tests {
    use super::{super::finding::test_commands, *};

    #[test]
    fn used_up_inotify_instances_are_a_warning_and_a_missing_br_netfilter_a_note() {
        let facts = Facts {
            bridge_nf: None,
            instances: Some(128),
            refused: Some("EMFILE".to_owned()),
        };
        let found = judge(&facts);
        assert_eq!(found[0].severity, Severity::Warning);
        let fix = found[0].fix.as_deref();
        assert_eq!(fix, Some("sysctl -w fs.inotify.max_user_instances=512"));
        assert_eq!(found[1].severity, Severity::Note);
        let well = Facts {
            bridge_nf: Some("1".to_owned()),
            instances: Some(128),
            refused: None,
        };
        let mut found = judge(&well).into_iter();
        assert!(found.all(|finding| finding.severity == Severity::Ok));
    }

    #[test]
    fn each_setting_that_keeps_the_node_from_forwarding_is_named() {
        let value = |value: &str| Some(value.to_owned());
        let needs = Needs {
            forwarding: vec![
                ("net/ipv4/ip_forward".to_owned(), value("0")),
                ("net/ipv4/conf/eth0.7/forwarding".to_owned(), value("0")),
                ("net/ipv6/conf/all/forwarding".to_owned(), value("1")),
            ],
            ..Needs::default()
        };
        let found = judge_needs(&needs, &test_commands());
        let fixes: Vec<_> = found.iter().filter_map(|f| f.fix.as_deref()).collect();
        assert_eq!(
            fixes,
            [
                "sysctl -w net.ipv4.ip_forward=1",
                "sysctl -w net/ipv4/conf/eth0.7/forwarding=1"
            ]
        );
    }

    #[test]
    fn maps_that_hold_less_than_conntrack_tracks_are_told_unless_they_cannot_be_larger() {
        let severity = |held, tracked, max_flows| {
            let needs = Needs {
                flows: Some([held; 2]),
                tracked: Some(tracked),
                max_flows,
                ..Needs::default()
            };
            judge_needs(&needs, &test_commands())[0].severity
        };
        assert_eq!(severity(1 << 16, 1 << 16, None), Severity::Ok);
        assert_eq!(severity(1 << 16, 1 << 18, None), Severity::Warning);
        assert_eq!(severity(1 << 16, 1 << 18, Some(1 << 16)), Severity::Note);
        assert_eq!(severity(MAX_FLOWS, u32::MAX, None), Severity::Ok);
    }
}
