//! Ranges of addresses: validity, and the order in which addresses are tried.

use std::fmt;
use std::net::IpAddr;

use anyhow::{Context, Result, bail, ensure};
use ipnetwork::IpNetwork;

use super::address::{Family, number};

/// A run of addresses within one subnet; start, end and gateway are always known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    subnet: IpNetwork,
    start: u128,
    end: u128,
    gateway: IpAddr,
}

impl Range {
    /// Checks a range and fills in what is not said: the gateway is the first address of the subnet, the range
    /// starts there too, and ends at the last address (IPv4: the one before the broadcast address).
    pub fn new(
        subnet: IpNetwork,
        start: Option<IpAddr>,
        end: Option<IpAddr>,
        gateway: Option<IpAddr>,
    ) -> Result<Self> {
        let family = Family::of(subnet.ip());
        let prefix = subnet.prefix();
        ensure!(
            prefix <= family.bits() - 2,
            "network {subnet} too small to allocate from"
        );

        let mask = family.host_mask(prefix);
        let network = number(subnet.ip()) & !mask;
        ensure!(
            network == number(subnet.ip()),
            "network {subnet} has host bits set, for a prefix length of {prefix} the network address is {}",
            subnet.network()
        );

        let broadcast = network | mask;
        let inside = |key: &str, ip: IpAddr, first: u128| {
            let within = Family::of(ip) == family && (first..=broadcast).contains(&number(ip));
            ensure!(within, "{key} {ip} not in network {subnet}");
            Ok(number(ip))
        };
        let start = start.map_or(Ok(network + 1), |ip| inside("rangeStart", ip, network))?;
        let end = match end {
            Some(ip) => {
                let end = inside("rangeEnd", ip, network)?;
                ensure!(
                    start <= end,
                    "rangeEnd {ip} is before rangeStart in network {subnet}"
                );
                end
            }
            None if family == Family::V4 => broadcast - 1,
            None => broadcast,
        };
        // Without an explicit end, a start at the broadcast address is past the default end.
        ensure!(
            start <= end,
            "rangeStart is after the last address of network {subnet}"
        );

        let first = family
            .address(network + 1)
            .context("network without addresses")?;
        Ok(Self {
            subnet,
            start,
            end,
            gateway: gateway.unwrap_or(first),
        })
    }

    /// The subnet.
    pub fn subnet(&self) -> IpNetwork {
        self.subnet
    }

    /// The gateway, which is never allocated.
    pub fn gateway(&self) -> IpAddr {
        self.gateway
    }

    /// The address with the prefix length of this range's subnet.
    pub fn with_prefix(&self, ip: IpAddr) -> Result<IpNetwork> {
        IpNetwork::new(ip, self.subnet.prefix())
            .with_context(|| format!("address {ip} in network {}", self.subnet))
    }

    /// Whether `ip` is between start and end.
    pub fn contains(&self, ip: IpAddr) -> bool {
        Family::of(ip) == self.family() && (self.start..=self.end).contains(&number(ip))
    }

    fn family(&self) -> Family {
        Family::of(self.subnet.ip())
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.family() == other.family() && self.start <= other.end && other.start <= self.end
    }

    fn capacity(&self) -> u128 {
        let gateway = u128::from(self.contains(self.gateway));
        (self.end - self.start).saturating_add(1) - gateway
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (
            self.family().address(self.start),
            self.family().address(self.end),
        ) {
            (Some(start), Some(end)) => write!(f, "{start}-{end}"),
            _ => write!(f, "{}", self.subnet),
        }
    }
}

/// Ranges of one family from which an attachment gets one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeSet(Vec<Range>);

impl RangeSet {
    /// Checks that there is a range, that all are of one family, and that none overlap.
    pub fn new(ranges: Vec<Range>) -> Result<Self> {
        let Some(first) = ranges.first() else {
            bail!("empty range set")
        };
        let same_family = ranges.iter().all(|range| range.family() == first.family());
        ensure!(same_family, "mixed address families");
        for (i, one) in ranges.iter().enumerate() {
            if let Some(other) = ranges[i + 1..].iter().find(|other| one.overlaps(other)) {
                bail!("subnets {one} and {other} overlap");
            }
        }
        Ok(Self(ranges))
    }

    /// The ranges, in order.
    pub fn ranges(&self) -> &[Range] {
        &self.0
    }

    /// The family of every address in the set.
    pub fn family(&self) -> Family {
        self.0.first().map_or(Family::V4, Range::family)
    }

    /// The range that holds `ip`.
    pub fn range_of(&self, ip: IpAddr) -> Option<&Range> {
        self.0.iter().find(|range| range.contains(ip))
    }

    /// Whether `ip` counts towards [`RangeSet::capacity`].
    pub fn allocates(&self, ip: IpAddr) -> bool {
        self.range_of(ip).is_some_and(|range| ip != range.gateway)
    }

    /// Whether any range of one set overlaps a range of the other.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.0
            .iter()
            .any(|one| other.0.iter().any(|two| one.overlaps(two)))
    }

    /// How many addresses can be allocated in all; gateways do not count.
    pub fn capacity(&self) -> u128 {
        self.0
            .iter()
            .fold(0, |sum, range| sum.saturating_add(range.capacity()))
    }

    /// Every address once, without gateways, starting after `last` if that is in the set and at the first otherwise.
    pub fn candidates(&self, last: Option<IpAddr>) -> impl Iterator<Item = (IpAddr, &Range)> {
        let position = last.and_then(|ip| {
            let index = self.0.iter().position(|range| range.contains(ip))?;
            Some((index, number(ip)))
        });
        let (index, last) = position.map_or((0, None), |(index, last)| (index, Some(last)));
        // One lap: the rest of the range after `last`, the other ranges, then the range up to and including `last`.
        let rest = self.0.get(index).into_iter().flat_map(move |range| {
            let first = last.map_or(Some(range.start), |last| last.checked_add(1));
            run(range, first, range.end)
        });
        let others = self.0.iter().cycle().skip(index + 1).take(self.0.len() - 1);
        let others = others.flat_map(|range| run(range, Some(range.start), range.end));
        let wrapped = self.0.get(index).zip(last).into_iter();
        let wrapped = wrapped.flat_map(|(range, last)| run(range, Some(range.start), last));
        rest.chain(others).chain(wrapped)
    }
}

/// The addresses of `range` from `first` to `last` inclusive, without the gateway.
fn run(range: &Range, first: Option<u128>, last: u128) -> impl Iterator<Item = (IpAddr, &Range)> {
    let numbers = first.into_iter().flat_map(move |first| first..=last);
    numbers
        .filter_map(|n| range.family().address(n))
        .filter(|ip| *ip != range.gateway)
        .map(move |ip| (ip, range))
}

impl fmt::Display for RangeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, range) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma}{range}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn range(subnet: &str, start: &str, end: &str, gateway: &str) -> Result<Range> {
        let ip = |text: &str| (!text.is_empty()).then(|| ip(text));
        Range::new(subnet.parse().unwrap(), ip(start), ip(end), ip(gateway))
    }

    fn set(ranges: &[(&str, &str, &str)]) -> RangeSet {
        let ranges = ranges
            .iter()
            .map(|(subnet, start, end)| range(subnet, start, end, "").unwrap());
        RangeSet::new(ranges.collect()).unwrap()
    }

    fn lap(set: &RangeSet, last: &str) -> Vec<String> {
        let last = (!last.is_empty()).then(|| ip(last));
        set.candidates(last).map(|(ip, _)| ip.to_string()).collect()
    }

    #[track_caller]
    fn fails(result: Result<Range>, text: &str) {
        let error = format!("{:#}", result.unwrap_err());
        assert!(error.contains(text), "{error}");
    }

    #[test]
    fn defaults_are_the_first_address_and_the_last() {
        let v4 = range("10.1.2.0/24", "", "", "").unwrap();
        assert_eq!(
            (v4.to_string(), v4.gateway()),
            ("10.1.2.1-10.1.2.254".into(), ip("10.1.2.1"))
        );
        let v6 = range("fd00::/64", "", "", "").unwrap();
        assert_eq!(
            (v6.to_string(), v6.gateway()),
            ("fd00::1-fd00::ffff:ffff:ffff:ffff".into(), ip("fd00::1"))
        );
    }

    #[test]
    fn networks_without_room_are_too_small() {
        for subnet in ["10.0.0.0/31", "10.0.0.0/32", "fd00::/127", "fd00::/128"] {
            fails(range(subnet, "", "", ""), "too small to allocate from");
        }
        assert!(range("10.0.0.0/30", "", "", "").is_ok());
        assert!(range("fd00::/126", "", "", "").is_ok());
    }

    #[test]
    fn host_bits_are_refused_in_both_families() {
        fails(range("10.0.0.1/24", "", "", ""), "host bits set");
        fails(
            range("fd00::1/64", "", "", ""),
            "the network address is fd00::",
        );
    }

    #[test]
    fn start_and_end_must_be_inside_and_in_order() {
        fails(
            range("10.0.0.0/24", "10.0.1.1", "", ""),
            "rangeStart 10.0.1.1 not in network 10.0.0.0/24",
        );
        fails(
            range("10.0.0.0/24", "", "10.0.1.1", ""),
            "rangeEnd 10.0.1.1 not in network 10.0.0.0/24",
        );
        fails(
            range("10.0.0.0/24", "fd00::1", "", ""),
            "rangeStart fd00::1 not in network",
        );
        fails(
            range("10.0.0.0/24", "10.0.0.9", "10.0.0.8", ""),
            "rangeEnd 10.0.0.8 is before rangeStart",
        );
        fails(
            range("10.0.0.0/24", "10.0.0.255", "", ""),
            "after the last address",
        );
    }

    #[test]
    fn the_gateway_may_lie_outside() {
        assert_eq!(
            range("10.0.0.0/24", "", "", "192.168.0.1")
                .unwrap()
                .gateway(),
            ip("192.168.0.1")
        );
    }

    #[test]
    fn explicit_network_and_broadcast_addresses_are_allocated() {
        let set = set(&[("10.0.0.0/30", "10.0.0.0", "10.0.0.3")]);
        assert_eq!(lap(&set, ""), ["10.0.0.0", "10.0.0.2", "10.0.0.3"]);
    }

    #[test]
    fn a_lap_starts_after_the_last_address_and_ends_with_it() {
        let set = set(&[("10.0.0.0/29", "", "")]);
        assert_eq!(
            lap(&set, ""),
            ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"]
        );
        assert_eq!(
            lap(&set, "10.0.0.3"),
            ["10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.2", "10.0.0.3"]
        );
        assert_eq!(lap(&set, "10.0.0.6"), lap(&set, ""));
        assert_eq!(lap(&set, "172.16.0.1"), lap(&set, ""));
    }

    #[test]
    fn a_lap_wraps_across_the_ranges_of_a_set() {
        let set = set(&[
            ("10.0.0.0/30", "", ""),
            ("10.0.1.0/30", "", ""),
            ("10.0.2.0/30", "", ""),
        ]);
        assert_eq!(lap(&set, ""), ["10.0.0.2", "10.0.1.2", "10.0.2.2"]);
        assert_eq!(lap(&set, "10.0.1.2"), ["10.0.2.2", "10.0.0.2", "10.0.1.2"]);
        assert_eq!(lap(&set, "10.0.2.2"), ["10.0.0.2", "10.0.1.2", "10.0.2.2"]);
    }

    #[test]
    fn a_lap_is_every_address_once_wherever_it_starts() {
        let set = set(&[
            ("10.0.0.0/28", "10.0.0.3", "10.0.0.12"),
            ("10.0.1.0/29", "", ""),
        ]);
        let mut all = lap(&set, "");
        all.sort();
        assert_eq!(all.len() as u128, set.capacity());
        for last in (0..16)
            .map(|n| format!("10.0.0.{n}"))
            .chain((0..8).map(|n| format!("10.0.1.{n}")))
        {
            let mut lap = lap(&set, &last);
            lap.sort();
            assert_eq!(lap, all, "after {last}");
        }
    }

    #[test]
    fn the_whole_of_ipv6_can_be_walked() {
        let range = range("::/0", "", "", "").unwrap();
        let set = RangeSet::new(vec![range]).unwrap();
        let last = ip("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
        assert_eq!(
            set.candidates(Some(last)).next().map(|(ip, _)| ip),
            Some(ip("::2"))
        );
        assert_eq!(set.capacity(), u128::MAX - 1);
    }

    #[test]
    fn sets_must_be_of_one_family_and_free_of_overlap() {
        let new = |ranges: Vec<Range>| RangeSet::new(ranges).unwrap_err().to_string();
        assert_eq!(new(vec![]), "empty range set");
        let v4 = range("10.0.0.0/24", "", "", "").unwrap();
        let v6 = range("fd00::/64", "", "", "").unwrap();
        assert_eq!(new(vec![v4.clone(), v6]), "mixed address families");
        let inner = range("10.0.0.0/25", "10.0.0.20", "10.0.0.30", "").unwrap();
        assert_eq!(
            new(vec![v4, inner]),
            "subnets 10.0.0.1-10.0.0.254 and 10.0.0.20-10.0.0.30 overlap"
        );
    }

    #[test]
    fn ranges_of_one_subnet_that_do_not_meet_are_no_overlap() {
        let set = set(&[
            ("10.0.0.0/24", "10.0.0.10", "10.0.0.11"),
            ("10.0.0.0/24", "10.0.0.12", "10.0.0.13"),
        ]);
        assert_eq!(set.to_string(), "10.0.0.10-10.0.0.11,10.0.0.12-10.0.0.13");
        assert_eq!(set.capacity(), 4);
    }
}
