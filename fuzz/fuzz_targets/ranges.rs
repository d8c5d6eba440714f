//! Range sets against a naive model, which writes every address down.
//!
//! An input is one or two range sets of up to three ranges each, near a few networks where something ends, and addresses to
//! look for. What a range says is made text and read back, as configurations are.

#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use beeline::ipam::{IpamConf, RawIpam, RawRange, range::RangeSet};
use ipnetwork::IpNetwork;
use libfuzzer_sys::{
    arbitrary::{Result, Unstructured},
    fuzz_target,
};

/// Where ranges are: in the midst, and where the numbers of each family begin and end.
const NETWORKS: [IpAddr; 6] = [
    IpAddr::V4(Ipv4Addr::new(10, 1, 2, 0)),
    IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    IpAddr::V4(Ipv4Addr::new(255, 255, 255, 0)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x100)),
    IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    IpAddr::V6(Ipv6Addr::new(
        0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xff00,
    )),
];

fuzz_target!(|data: &[u8]| {
    // What ends early has no more ranges.
    let _ = sets(&mut Unstructured::new(data));
});

/// A range as configured.
#[derive(Clone, Copy, Debug)]
struct Written {
    ip: IpAddr,
    prefix: u8,
    start: Option<IpAddr>,
    end: Option<IpAddr>,
    gateway: Option<IpAddr>,
}

/// A range as the model has it.
#[derive(Debug)]
struct Model {
    addresses: Vec<IpAddr>,
    gateway: IpAddr,
    prefix: u8,
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => ip.to_bits().into(),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

/// The address of that number, of the family of another.
fn like(family: IpAddr, number: u128) -> Option<IpAddr> {
    Some(match family {
        IpAddr::V4(_) => Ipv4Addr::from_bits(number.try_into().ok()?).into(),
        IpAddr::V6(_) => Ipv6Addr::from_bits(number).into(),
    })
}

impl Written {
    fn read(input: &mut Unstructured<'_>) -> Result<Self> {
        let [place, prefix, host, said] = input.arbitrary::<[u8; 4]>()?;
        let base = NETWORKS[usize::from(place & 0x3f) % NETWORKS.len()];
        let bits = if base.is_ipv4() { 32 } else { 128 };
        let mut near = |bit: u8| -> Result<Option<IpAddr>> {
            if said & bit == 0 {
                return Ok(None);
            }
            let offset = u128::from(input.arbitrary::<u8>()? & 0x7f);
            // Seldom of another family, or in the next network.
            let family = if said & 0xf0 == 0xf0 {
                NETWORKS[3]
            } else {
                base
            };
            Ok(like(family, (number(base) + offset) & number_mask(family)))
        };
        let (start, end, gateway) = (near(1)?, near(2)?, near(4)?);
        let prefix = bits - prefix % 7;
        let mask = (1u128 << (bits - prefix)) - 1;
        // Host bits mostly clear.
        let host = u128::from(host) & if said & 8 == 0 { !mask } else { u128::MAX };
        Ok(Self {
            ip: like(base, number(base) | host).unwrap_or(base),
            prefix,
            start,
            end,
            gateway,
        })
    }

    fn raw(&self) -> RawRange {
        let text = |ip: Option<IpAddr>| ip.map(|ip| ip.to_string()).unwrap_or_default();
        RawRange {
            subnet: format!("{}/{}", self.ip, self.prefix),
            range_start: text(self.start),
            range_end: text(self.end),
            gateway: text(self.gateway),
        }
    }

    /// The addresses, or none if the range is not valid.
    fn model(&self) -> Option<Model> {
        let bits = if self.ip.is_ipv4() { 32 } else { 128 };
        let size = 1u128 << (bits - self.prefix);
        let first = number(self.ip);
        if size < 4 || !first.is_multiple_of(size) {
            return None;
        }
        let subnet: Vec<IpAddr> = (0..size)
            .map(|host| like(self.ip, first + host))
            .collect::<Option<_>>()?;
        // IPv4's last is for all; unless named, neither it nor the network's own address is given.
        let last = subnet.len() - if bits == 32 { 2 } else { 1 };
        let place = |ip: Option<IpAddr>, otherwise: usize| match ip {
            Some(ip) => subnet.iter().position(|other| *other == ip),
            None => Some(otherwise),
        };
        let (start, end) = (place(self.start, 1)?, place(self.end, last)?);
        (start <= end).then(|| Model {
            addresses: subnet[start..=end].to_vec(),
            gateway: self.gateway.unwrap_or(subnet[1]),
            prefix: self.prefix,
        })
    }
}

fn number_mask(family: IpAddr) -> u128 {
    if family.is_ipv4() {
        u32::MAX.into()
    } else {
        u128::MAX
    }
}

fn sets(input: &mut Unstructured<'_>) -> Result<()> {
    let [count, first, second] = input.arbitrary::<[u8; 3]>()?;
    let sizes = [first % 4, second % 4];
    let mut written: Vec<Vec<Written>> = Vec::new();
    for size in &sizes[..1 + usize::from(count % 2)] {
        let set: Result<_> = (0..*size).map(|_| Written::read(input)).collect();
        written.push(set?);
    }
    let raw = RawIpam {
        ranges: written
            .iter()
            .map(|set| set.iter().map(Written::raw).collect())
            .collect(),
        ..RawIpam::default()
    };
    let conf = IpamConf::new("net", &raw, &[]);
    let models: Option<Vec<Vec<Model>>> = written
        .iter()
        .map(|set| set.iter().map(Written::model).collect())
        .collect();
    let models = models.filter(|sets| is_valid(sets));
    assert_eq!(conf.is_ok(), models.is_some(), "{raw:?}: {conf:?}");
    let (Ok(conf), Some(models)) = (conf, models) else {
        return Ok(());
    };
    for (set, model) in conf.ranges.iter().zip(&models) {
        assert_holds(set, model);
        for _ in 0..3 {
            let [range, offset] = input.arbitrary::<[u8; 2]>()?;
            assert_laps(set, model, range.into(), offset.into());
        }
        assert_laps(set, model, 0, usize::MAX);
    }
    assert_subnets(&conf, &written);
    Ok(())
}

/// None of the sets is empty or of two families, and no address is in two ranges.
fn is_valid(sets: &[Vec<Model>]) -> bool {
    let whole = sets.iter().all(|set| {
        let mut families = set.iter().map(|range| range.addresses[0].is_ipv4());
        let first = families.next();
        first.is_some_and(|first| families.all(|family| family == first))
    });
    let ranges: Vec<&Model> = sets.iter().flatten().collect();
    let apart = ranges.iter().enumerate().all(|(i, one)| {
        ranges[i + 1..]
            .iter()
            .all(|other| !one.addresses.iter().any(|ip| other.addresses.contains(ip)))
    });
    whole && apart
}

fn assert_holds(set: &RangeSet, model: &[Model]) {
    let free = |range: &Model| {
        range
            .addresses
            .iter()
            .filter(|ip| **ip != range.gateway)
            .count()
    };
    let capacity: usize = model.iter().map(free).sum();
    assert_eq!(set.capacity(), capacity as u128);
    assert_eq!(set.ranges().len(), model.len());
    for (range, model) in set.ranges().iter().zip(model) {
        let (first, last) = (
            model.addresses[0],
            model.addresses[model.addresses.len() - 1],
        );
        assert_eq!(range.to_string(), format!("{first}-{last}"));
        assert_eq!(range.gateway(), model.gateway);
        for ip in &model.addresses {
            assert!(range.contains(*ip) && set.range_of(*ip) == Some(range));
            assert_eq!(set.allocates(*ip), *ip != model.gateway);
            assert_eq!(
                range.with_prefix(*ip).unwrap(),
                IpNetwork::new(*ip, model.prefix).unwrap()
            );
        }
        // The neighbours on both sides.
        let outside = [number(first).checked_sub(1), number(last).checked_add(1)];
        for ip in outside.into_iter().flatten().filter_map(|n| like(first, n)) {
            assert!(!range.contains(ip), "{range} {ip}");
        }
    }
}

/// All addresses come once, from the one after the last on.
fn assert_laps(set: &RangeSet, model: &[Model], range: usize, offset: usize) {
    let all: Vec<(IpAddr, &Model)> = model
        .iter()
        .flat_map(|range| range.addresses.iter().map(move |ip| (*ip, range)))
        .collect();
    let range = &model[range % model.len()];
    // Beyond the range there may be another one, or none.
    let first = number(range.addresses[0]);
    let last = first
        .checked_add(offset as u128)
        .and_then(|number| like(range.addresses[0], number));
    let place = last.and_then(|last| all.iter().position(|(ip, _)| *ip == last));
    let (before, after) = all.split_at(place.map_or(0, |place| place + 1));
    let expected = after.iter().chain(before);
    let expected = expected.filter(|(ip, range)| *ip != range.gateway);
    let expected: Vec<_> = expected.map(|(ip, range)| (*ip, range.prefix)).collect();
    let found: Vec<_> = set
        .candidates(last)
        .map(|(ip, range)| (ip, range.subnet().prefix()))
        .collect();
    assert_eq!(found, expected, "{set} after {last:?}");
}

fn assert_subnets(conf: &IpamConf, written: &[Vec<Written>]) {
    let mut subnets: Vec<IpNetwork> = Vec::new();
    for range in written.iter().flatten() {
        let subnet = IpNetwork::new(range.ip, range.prefix).unwrap();
        if !subnets.contains(&subnet) {
            subnets.push(subnet);
        }
    }
    assert_eq!(conf.subnets(), subnets);
    let v4 = written.iter().filter(|set| set[0].ip.is_ipv4()).count();
    assert_eq!(conf.most_sets_of_a_family(), v4.max(written.len() - v4));
}
