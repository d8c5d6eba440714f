//! Sets of addresses, and how much of one another covers.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde_json::Value;

use super::holds::Holds;

/// Addresses of one family: ranges with both ends in, sorted and apart.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::nft) struct Addresses(Vec<(u128, u128)>);

impl Addresses {
    pub(in crate::nft) fn of_cidrs(v4: bool, cidrs: &[IpNetwork]) -> Self {
        let cidrs = cidrs.iter().filter(|cidr| cidr.is_ipv4() == v4);
        Self::new(cidrs.map(|cidr| range(cidr.ip(), cidr.prefix())).collect())
    }

    pub(super) fn everything(v4: bool) -> Self {
        Self(vec![(0, if v4 { u32::MAX.into() } else { u128::MAX })])
    }

    pub(super) fn and(&self, other: &Self) -> Self {
        Self::new([&*self.0, &*other.0].concat())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all of a CIDR is among these.
    pub(in crate::nft) fn cover(&self, cidr: &IpNetwork) -> bool {
        let (low, high) = range(cidr.ip(), cidr.prefix());
        let after = self.0.partition_point(|(first, _)| *first <= low);
        let before = after.checked_sub(1).and_then(|at| self.0.get(at));
        before.is_some_and(|(_, last)| high <= *last)
    }

    /// Whether an address of these is in `others`.
    pub(super) fn are_in(&self, others: &Self) -> Holds {
        let overlaps = |&(low, high): &(u128, u128)| {
            let mut others = others.0.iter();
            others.any(|&(first, last)| first <= high && low <= last)
        };
        let covered = |&(low, high): &(u128, u128)| {
            let mut others = others.0.iter();
            others.any(|&(first, last)| first <= low && high <= last)
        };
        if self.0.iter().all(covered) {
            Holds::Always
        } else if self.0.iter().any(overlaps) {
            Holds::Perhaps
        } else {
            Holds::Never
        }
    }

    /// What nft's JSON says as elements of a set; `None` if one is no address.
    pub(in crate::nft) fn parse(elements: &[Value]) -> Option<Self> {
        let ranges: Option<Vec<_>> = elements.iter().map(parse).collect();
        ranges.map(Self::new)
    }

    fn new(mut ranges: Vec<(u128, u128)>) -> Self {
        ranges.sort_unstable();
        ranges.dedup_by(|next, last| {
            let joined = next.0 <= last.1.saturating_add(1);
            if joined {
                last.1 = last.1.max(next.1);
            }
            joined
        });
        Self(ranges)
    }
}

fn parse(element: &Value) -> Option<(u128, u128)> {
    let address = |value: &Value| value.as_str()?.parse::<IpAddr>().ok();
    if let Some(prefix) = element.get("prefix") {
        let length = u8::try_from(prefix.get("len")?.as_u64()?).ok()?;
        let cidr = IpNetwork::new(address(prefix.get("addr")?)?, length).ok()?;
        return Some(range(cidr.ip(), cidr.prefix()));
    }
    if let Some(ends) = element.get("range").and_then(Value::as_array) {
        let [first, last] = &ends[..] else {
            return None;
        };
        return Some((number(address(first)?), number(address(last)?)));
    }
    address(element).map(|address| (number(address), number(address)))
}

fn range(ip: IpAddr, prefix: u8) -> (u128, u128) {
    let bits: u32 = if ip.is_ipv4() { 32 } else { 128 };
    let free = bits.saturating_sub(prefix.into());
    let hosts = 1u128.checked_shl(free).map_or(u128::MAX, |size| size - 1);
    let low = number(ip) & !hosts;
    (low, low | hosts)
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => ip.to_bits().into(),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn cidrs(text: &[&str]) -> Addresses {
        let cidrs: Vec<_> = text.iter().map(|cidr| cidr.parse().unwrap()).collect();
        Addresses::of_cidrs(!text[0].contains(':'), &cidrs)
    }

    #[test]
    fn neighbouring_ranges_cover_together() {
        let halves = cidrs(&["10.244.0.0/25", "10.244.0.128/25"]);
        assert_eq!(halves, cidrs(&["10.244.0.7/24"]));
        assert_eq!(cidrs(&["10.244.0.0/24"]).are_in(&halves), Holds::Always);
        assert_eq!(halves.are_in(&cidrs(&["10.244.0.5/32"])), Holds::Perhaps);
        assert_eq!(halves.are_in(&cidrs(&["10.244.1.0/24"])), Holds::Never);
    }

    #[test]
    fn a_cidr_is_covered_by_what_holds_all_of_it() {
        let held = cidrs(&["10.244.0.0/25", "10.244.0.128/25", "10.246.0.0/16"]);
        for (cidr, covered) in [
            ("10.244.0.0/24", true),
            ("10.246.7.0/24", true),
            ("10.244.0.0/23", false),
            ("10.243.0.0/24", false),
            ("10.247.0.0/24", false),
        ] {
            assert_eq!(held.cover(&cidr.parse().unwrap()), covered, "{cidr}");
        }
        assert!(!Addresses::default().cover(&"0.0.0.0/0".parse().unwrap()));
    }

    #[test]
    fn everything_is_as_large_as_the_family() {
        for (v4, all) in [(true, "0.0.0.0/0"), (false, "::/0")] {
            assert_eq!(Addresses::everything(v4), cidrs(&[all]));
        }
        assert_eq!(
            cidrs(&["fd00::/8"]).are_in(&cidrs(&["::/0"])),
            Holds::Always
        );
    }

    #[test]
    fn elements_are_addresses_prefixes_and_ranges() {
        let elements = json!([
            "10.244.1.5",
            {"prefix": {"addr": "10.9.0.0", "len": 16}},
            {"range": ["10.10.0.0", "10.10.0.255"]},
        ]);
        let parsed = Addresses::parse(elements.as_array().unwrap()).unwrap();
        assert_eq!(
            parsed,
            cidrs(&["10.244.1.5/32", "10.9.0.0/16", "10.10.0.0/24"])
        );
        for wrong in [
            json!(["a"]),
            json!([5]),
            json!([{"range": ["10.0.0.1"]}]),
            json!([{"prefix": {"addr": "10.0.0.0", "len": 33}}]),
        ] {
            assert_eq!(Addresses::parse(wrong.as_array().unwrap()), None, "{wrong}");
        }
    }
}
