//! The rules that kube-proxy keeps on each node, with two endpoints a Service.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::Result;

use crate::exec;
use crate::netns::Namespace;
use crate::plan::Family;
use crate::services::{Protocol, Service, cluster_ip, rules};

/// Installs the rules for so many Services, at least one.
pub fn install(node: &Namespace, services: u32) -> Result<()> {
    let services: Vec<_> = (0..services).map(service).collect();
    exec::iptables(node, Family::V4, &rules(Family::V4, &services, |_| false))
}

fn service(number: u32) -> Service {
    let (high, low) = (number / 250, number % 250 + 1);
    // The endpoints are no pods of the bench: its own traffic is pod to pod, and must match none.
    let endpoint = |index| {
        let ip = Ipv4Addr::new(10, 250, (2 * high + index) as u8, low as u8);
        (IpAddr::from(ip), 8080).into()
    };
    Service {
        name: format!("bench/s{number}:http"),
        protocol: Protocol::Tcp,
        portal: (cluster_ip(Family::V4, number), 80).into(),
        backends: vec![endpoint(0), endpoint(1)],
        node_port: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_service_has_its_portal_and_two_endpoints_and_chain_names_fit() {
        let services: Vec<_> = (0..1000).map(service).collect();
        let rules = rules(Family::V4, &services, |_| false);
        let count = |part: &str| rules.matches(part).count();
        assert_eq!(count("cluster IP\" -m tcp --dport 80 -j KUBE-SVC-"), 1000);
        assert_eq!(count("-j DNAT"), 2000);
        let chains = rules.lines().filter_map(|line| line.strip_prefix(':'));
        let longest = chains
            .filter_map(|line| line.split(' ').next())
            .map(str::len)
            .max();
        assert!(longest.is_some_and(|length| length <= 28), "{longest:?}");
    }
}
