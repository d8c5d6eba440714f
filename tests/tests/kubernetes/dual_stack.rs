//! Pods with addresses of both families, on nodes that Kubernetes knows by IPv4 only.

use anyhow::{Context, Result, ensure};
use beeline_tests::datapath::{TO_OVERLAY, TO_PEER};
use beeline_tests::icmp::Ping;
use beeline_tests::plan::Family;

use crate::fixture::{Pods, on_dual_stack};
use crate::network::Network;
use crate::reach::counting;

const PINGS: usize = 20;

#[test]
fn pods_reach_each_other_by_ipv4_directly_and_by_ipv6_over_tunnels() {
    on_dual_stack(Network::Agent, |lab| {
        let (cluster, pods) = lab.parts()?;
        for (family, counter) in [(Family::V4, TO_PEER), (Family::V6, TO_OVERLAY)] {
            let (grown, ()) = counting(cluster.node(1), || across(pods, family))?;
            let count = PINGS as u64;
            ensure!(
                grown.get(counter) == Some(&count),
                "{family:?}: {counter} not by {count}: {grown:?}"
            );
        }
        for family in cluster.families().list() {
            let to = pods.b.ip_of(*family)?;
            answered(&pods.a.ping(to, PINGS))?;
        }
        Ok(())
    });
}

fn across(pods: &Pods, family: Family) -> Result<()> {
    answered(&pods.a.ping(pods.c.ip_of(family)?, PINGS)).with_context(|| format!("{family:?}"))
}

fn answered(ping: &Ping) -> Result<()> {
    ensure!(ping.is_complete(), "{ping}");
    Ok(())
}
