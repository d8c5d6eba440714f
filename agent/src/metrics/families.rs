//! A network's metric families. All are told of even where there is nothing to tell, so that who asks what there is
//! hears of them.

use std::fmt;

use beeline::datapath::Counter;
use beeline_common::{Outcome, abi::names};
use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeGaugeValue, EncodeMetric as _, MetricEncoder},
    metrics::{MetricType, counter::ConstCounter},
};

use super::network::Reading;

/// Encodes what was read; nothing if the agent knows no network yet.
pub(super) fn encode(reading: Option<&Reading>, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
    let nothing = Reading::default();
    let reading = reading.unwrap_or(&nothing);
    let network = ("network", reading.network.as_str());
    datapath(reading, network, &mut encoder)?;
    maps(reading, network, &mut encoder)?;
    addresses(reading, network, &mut encoder)
}

type Label<'a> = (&'static str, &'a str);

fn datapath(
    reading: &Reading,
    network: Label<'_>,
    encoder: &mut DescriptorEncoder<'_>,
) -> fmt::Result {
    let up = reading.up.map(|up| ([network], i64::from(up)));
    gauges(
        encoder,
        "datapath_up",
        "Whether pods can take the fast path; the log says why not. Not there where datapath.mode is bridge.",
        up,
    )?;
    let pods = reading.pods.map(|(fast, slow)| {
        let sample = |path, count: usize| ([network, ("path", path)], count as u64);
        [sample("fast", fast), sample("slow", slow)]
    });
    gauges(
        encoder,
        "pods",
        "Pods' interfaces, by the path that their packets take.",
        pods.into_iter().flatten(),
    )?;
    let told = || reading.counters.iter().filter(|counter| is_told(counter));
    let labels = |counter: &Counter| {
        let program = ("program", counter.hook.name());
        [network, program, ("outcome", counter.outcome.name())]
    };
    let mut packets = encoder.encode_descriptor(
        "packets",
        "Packets that programs saw, by what these did: to_*, redirected; pass_*, left to the stack; drop_*, dropped.",
        None,
        MetricType::Counter,
    )?;
    for counter in told() {
        count(&mut packets, &labels(counter), counter.count.packets)?;
    }
    let mut bytes = encoder.encode_descriptor(
        "bytes",
        "Bytes of these packets, with their Ethernet headers.",
        None,
        MetricType::Counter,
    )?;
    for counter in told() {
        count(&mut bytes, &labels(counter), counter.count.bytes)?;
    }
    Ok(())
}

/// What has happened, and what a program redirects and drops even if it has not yet: its first is an increase then.
/// Programs at egress only look on.
fn is_told(counter: &Counter) -> bool {
    let acts = !counter.hook.is_egress() && !matches!(counter.outcome, Outcome::Passed(_));
    acts || counter.count.packets != 0
}

fn maps(reading: &Reading, network: Label<'_>, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let mut peers = reading
        .maps
        .iter()
        .filter(|usage| usage.map == names::PEERS);
    gauges(
        encoder,
        "peers",
        "Pod CIDRs of other nodes that the fast path leads to.",
        peers.next().map(|usage| ([network], usage.held as u64)),
    )?;
    let maps = || reading.maps.iter();
    gauges(
        encoder,
        "map_entries",
        "Entries of a BPF map. Many are not counted at every scrape.",
        maps().map(|usage| ([network, ("map", usage.map)], usage.held as u64)),
    )?;
    gauges(
        encoder,
        "map_capacity",
        "Entries that a BPF map can hold.",
        maps().map(|usage| ([network, ("map", usage.map)], u64::from(usage.size))),
    )
}

fn addresses(
    reading: &Reading,
    network: Label<'_>,
    encoder: &mut DescriptorEncoder<'_>,
) -> fmt::Result {
    let ranges = || reading.ranges.iter();
    gauges(
        encoder,
        "ipam_addresses",
        "Addresses that are reserved, by range set.",
        ranges().map(|range| ([network, ("range", &*range.name)], range.reserved as u64)),
    )?;
    // An IPv6 range has more than fit in 64 bits.
    gauges(
        encoder,
        "ipam_capacity",
        "Addresses that can be reserved, by range set.",
        ranges().map(|range| ([network, ("range", &*range.name)], range.capacity as f64)),
    )
}

fn gauges<'a, const N: usize>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    samples: impl IntoIterator<Item = ([Label<'a>; N], impl EncodeGaugeValue)>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in samples {
        family.encode_family(&labels)?.encode_gauge(&value)?;
    }
    Ok(())
}

fn count(family: &mut MetricEncoder<'_>, labels: &[Label<'_>; 3], count: u64) -> fmt::Result {
    ConstCounter::new(count).encode(family.encode_family(labels)?)
}
