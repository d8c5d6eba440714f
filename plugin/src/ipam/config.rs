//! The `ipam` object of a configuration, for the allocator that is built in.

use std::net::IpAddr;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, ensure};
use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use super::Route;
use super::address::{Family, parse_cidr, parse_ip};
use super::range::{Range, RangeSet};

/// Where host-local keeps its files unless `dataDir` says otherwise.
pub const DEFAULT_DATA_DIR: &str = "/var/lib/cni/networks";

/// The `ipam` object as it stands; its keys must have been folded to lower case.
///
/// Addresses stay text, so that a release works with ranges that have become invalid since they were used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct RawIpam {
    /// The type of the IPAM plugin.
    #[serde(rename = "type")]
    pub kind: String,
    /// Subnet of the one range of old configurations.
    pub subnet: String,
    /// First address of the one range of old configurations.
    #[serde(rename = "rangestart")]
    pub range_start: String,
    /// Last address of the one range of old configurations.
    #[serde(rename = "rangeend")]
    pub range_end: String,
    /// Gateway of the one range of old configurations.
    pub gateway: String,
    /// Range sets.
    pub ranges: Vec<Vec<RawRange>>,
    /// Routes to hand out.
    pub routes: Vec<RawRoute>,
    /// Directory of the files; absent or empty means [`DEFAULT_DATA_DIR`].
    #[serde(rename = "datadir")]
    pub data_dir: String,
    /// A file in the form of `resolv.conf` to hand out as `dns`.
    #[serde(rename = "resolvconf")]
    pub resolv_conf: String,
}

/// A range as written; an empty text is unset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct RawRange {
    /// The subnet, in CIDR form.
    pub subnet: String,
    /// The first address.
    #[serde(rename = "rangestart")]
    pub range_start: String,
    /// The last address.
    #[serde(rename = "rangeend")]
    pub range_end: String,
    /// The gateway.
    pub gateway: String,
}

/// A route as written, in configurations and in results.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RawRoute {
    /// The destination, in CIDR form.
    pub dst: String,
    /// The next hop; an empty text is unset.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub gw: String,
    /// Path MTU; zero is unset.
    #[serde(skip_serializing_if = "is_zero")]
    pub mtu: u32,
    /// Advertised maximal segment size; zero is unset.
    #[serde(skip_serializing_if = "is_zero")]
    pub advmss: u32,
    /// Metric; zero is unset.
    #[serde(skip_serializing_if = "is_zero")]
    pub priority: u32,
    /// Routing table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<u32>,
    /// Scope.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<u8>,
}

/// A checked configuration of the built-in allocator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpamConf {
    /// The name of the network, which is the name of its directory.
    pub network: String,
    /// The range sets; an attachment gets an address of each.
    pub ranges: Vec<RangeSet>,
    /// Routes to hand out.
    pub routes: Vec<Route>,
    /// The directory that holds the directory of the network.
    pub data_dir: PathBuf,
    /// A file in the form of `resolv.conf` to hand out as `dns`.
    pub resolv_conf: Option<PathBuf>,
}

impl IpamConf {
    /// Checks the `ipam` object of `network`, with the range sets of the runtime (`ipRanges`) put in front.
    pub fn new(network: &str, raw: &RawIpam, runtime_ranges: &[Vec<RawRange>]) -> Result<Self> {
        let legacy = (!raw.subnet.is_empty()).then(|| vec![raw.legacy_range()]);
        let sets: Vec<_> = runtime_ranges
            .iter()
            .chain(&legacy)
            .chain(&raw.ranges)
            .collect();
        ensure!(!sets.is_empty(), "ipam: no IP ranges specified");

        let parse = |(i, set): (usize, &&Vec<RawRange>)| {
            let ranges: Result<_> = set.iter().map(RawRange::parse).collect();
            ranges
                .and_then(RangeSet::new)
                .with_context(|| format!("invalid range set {i}"))
        };
        let ranges = sets
            .iter()
            .enumerate()
            .map(parse)
            .collect::<Result<Vec<_>>>()?;
        for (i, one) in ranges.iter().enumerate() {
            if let Some(distance) = ranges[i + 1..].iter().position(|other| one.overlaps(other)) {
                anyhow::bail!("range set {i} overlaps with {}", i + distance + 1);
            }
        }

        let route = |(i, route): (usize, &RawRoute)| {
            route.parse().with_context(|| format!("ipam.routes[{i}]"))
        };
        Ok(Self {
            network: network.into(),
            ranges,
            routes: raw
                .routes
                .iter()
                .enumerate()
                .map(route)
                .collect::<Result<_>>()?,
            data_dir: data_dir(&raw.data_dir)?,
            resolv_conf: (!raw.resolv_conf.is_empty())
                .then(|| absolute("ipam.resolvConf", &raw.resolv_conf))
                .transpose()?,
        })
    }

    /// The subnets that addresses come from, each once, in order.
    pub fn subnets(&self) -> Vec<IpNetwork> {
        let mut subnets: Vec<IpNetwork> = Vec::new();
        for range in self.ranges.iter().flat_map(RangeSet::ranges) {
            if !subnets.contains(&range.subnet()) {
                subnets.push(range.subnet());
            }
        }
        subnets
    }

    /// The number of sets of the family that has most: CNI before 0.3.0 allows one.
    pub fn most_sets_of_a_family(&self) -> usize {
        let v4 = self
            .ranges
            .iter()
            .filter(|set| set.family() == Family::V4)
            .count();
        v4.max(self.ranges.len() - v4)
    }
}

/// The directory that `dataDir` names.
pub fn data_dir(text: &str) -> Result<PathBuf> {
    match text {
        "" => Ok(DEFAULT_DATA_DIR.into()),
        text => absolute("ipam.dataDir", text),
    }
}

/// A path that says by itself what it names: a plugin's working directory means nothing.
fn absolute(key: &str, text: &str) -> Result<PathBuf> {
    let path = Path::new(text);
    ensure!(path.is_absolute(), "{key} {text:?}: not an absolute path");
    let upwards = path.components().any(|part| part == Component::ParentDir);
    ensure!(!upwards, "{key} {text:?}: has \"..\" in it");
    Ok(path.into())
}

impl RawIpam {
    fn legacy_range(&self) -> RawRange {
        RawRange {
            subnet: self.subnet.clone(),
            range_start: self.range_start.clone(),
            range_end: self.range_end.clone(),
            gateway: self.gateway.clone(),
        }
    }
}

impl RawRange {
    fn parse(&self) -> Result<Range> {
        ensure!(!self.subnet.is_empty(), "range without subnet");
        let subnet = parse_cidr(&self.subnet).context("subnet")?;
        let start = optional_ip(&self.range_start, "rangeStart")?;
        let end = optional_ip(&self.range_end, "rangeEnd")?;
        Range::new(subnet, start, end, optional_ip(&self.gateway, "gateway")?)
    }
}

impl RawRoute {
    /// Parses the destination and the next hop.
    pub fn parse(&self) -> Result<Route> {
        let set = |n: u32| (n != 0).then_some(n);
        Ok(Route {
            dst: parse_cidr(&self.dst).context("dst")?,
            gw: optional_ip(&self.gw, "gw")?,
            mtu: set(self.mtu),
            advmss: set(self.advmss),
            priority: set(self.priority),
            table: self.table,
            scope: self.scope,
        })
    }
}

impl From<&Route> for RawRoute {
    fn from(route: &Route) -> Self {
        Self {
            dst: route.dst.to_string(),
            gw: route.gw.map(|gw| gw.to_string()).unwrap_or_default(),
            mtu: route.mtu.unwrap_or_default(),
            advmss: route.advmss.unwrap_or_default(),
            priority: route.priority.unwrap_or_default(),
            table: route.table,
            scope: route.scope,
        }
    }
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

fn optional_ip(text: &str, key: &'static str) -> Result<Option<IpAddr>> {
    if text.is_empty() {
        Ok(None)
    } else {
        parse_ip(text).map(Some).context(key)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn conf_with(ipam: Value, runtime: Value) -> Result<IpamConf> {
        let raw = serde_json::from_value(ipam).unwrap();
        let runtime: Vec<Vec<RawRange>> = serde_json::from_value(runtime).unwrap();
        IpamConf::new("net", &raw, &runtime)
    }

    fn conf(ipam: Value) -> Result<IpamConf> {
        conf_with(ipam, json!([]))
    }

    fn sets(conf: &IpamConf) -> Vec<String> {
        conf.ranges.iter().map(RangeSet::to_string).collect()
    }

    #[track_caller]
    fn fails(ipam: Value, text: &str) {
        let error = format!("{:#}", conf(ipam).unwrap_err());
        assert!(error.contains(text), "{error}");
    }

    #[test]
    fn an_old_style_range_comes_before_the_range_sets() {
        let conf = conf(
            json!({"subnet": "10.0.0.0/24", "rangestart": "10.0.0.10", "rangeend": "10.0.0.20",
            "gateway": "10.0.0.9", "ranges": [[{"subnet": "fd00::/64"}]]}),
        )
        .unwrap();
        assert_eq!(
            sets(&conf),
            ["10.0.0.10-10.0.0.20", "fd00::1-fd00::ffff:ffff:ffff:ffff"]
        );
    }

    #[test]
    fn ranges_of_the_runtime_come_first_and_empty_texts_are_unset() {
        let runtime =
            json!([[{"subnet": "10.1.0.0/24", "rangestart": "", "rangeend": "", "gateway": ""}]]);
        let conf = conf_with(json!({"subnet": "10.0.0.0/24"}), runtime).unwrap();
        assert_eq!(sets(&conf), ["10.1.0.1-10.1.0.254", "10.0.0.1-10.0.0.254"]);
    }

    #[test]
    fn the_number_of_the_bad_set_is_named() {
        fails(json!({}), "no IP ranges specified");
        fails(
            json!({"ranges": [[]]}),
            "invalid range set 0: empty range set",
        );
        fails(
            json!({"ranges": [[{}]]}),
            "invalid range set 0: range without subnet",
        );
        let mixed = json!([{"subnet": "10.0.0.0/24"}, {"subnet": "fd00::/64"}]);
        fails(
            json!({"subnet": "10.1.0.0/24", "ranges": [mixed]}),
            "invalid range set 1: mixed address families",
        );
        let twice = json!([{"subnet": "10.0.0.0/24"}, {"subnet": "10.0.0.0/16"}]);
        fails(json!({"ranges": [twice]}), "invalid range set 0: subnets");
        fails(
            json!({"subnet": "10.0.0.0/31"}),
            "invalid range set 0: network 10.0.0.0/31 too small",
        );
        fails(
            json!({"subnet": "usePodCidr"}),
            "invalid range set 0: subnet: invalid CIDR address \"usePodCidr\"",
        );
        fails(
            json!({"subnet": "10.0.0.0/24", "gateway": "x"}),
            "gateway: invalid IP address \"x\"",
        );
    }

    #[test]
    fn sets_may_not_overlap_each_other() {
        let sets = json!([[{"subnet": "10.0.0.0/24"}], [{"subnet": "fd00::/64"}], [{"subnet": "10.0.0.0/16"}]]);
        fails(json!({"ranges": sets}), "range set 0 overlaps with 2");
    }

    #[test]
    fn sets_are_counted_by_family() {
        let ranges = json!([[{"subnet": "10.0.0.0/24"}], [{"subnet": "fd00::/64"}], [{"subnet": "10.1.0.0/24"}]]);
        assert_eq!(
            conf(json!({"ranges": ranges}))
                .unwrap()
                .most_sets_of_a_family(),
            2
        );
        assert_eq!(
            conf(json!({"subnet": "10.0.0.0/24"}))
                .unwrap()
                .most_sets_of_a_family(),
            1
        );
    }

    #[test]
    fn routes_keep_zero_table_and_scope_but_drop_other_zeros() {
        let routes = json!([{"dst": "0.0.0.0/0", "gw": "", "mtu": 0, "table": 0, "scope": 0},
            {"dst": "10.9.0.0/16", "gw": "10.0.0.9", "mtu": 1400, "advmss": 1360, "priority": 7}]);
        let conf = conf(json!({"subnet": "10.0.0.0/24", "routes": routes})).unwrap();
        let [default, other] = &conf.routes[..] else {
            panic!("{:?}", conf.routes)
        };
        assert_eq!(
            (default.gw, default.mtu, default.table, default.scope),
            (None, None, Some(0), Some(0))
        );
        assert_eq!(
            (other.mtu, other.advmss, other.priority),
            (Some(1400), Some(1360), Some(7))
        );
        assert_eq!(
            (other.gw, other.table),
            (Some("10.0.0.9".parse().unwrap()), None)
        );
        fails(
            json!({"subnet": "10.0.0.0/24", "routes": [{"dst": "10.9.0.0"}]}),
            "ipam.routes[0]: dst: invalid CIDR",
        );
    }

    #[test]
    fn paths_must_be_absolute_and_lead_downwards() {
        assert_eq!(
            conf(json!({"subnet": "10.0.0.0/24"})).unwrap().data_dir,
            Path::new(DEFAULT_DATA_DIR)
        );
        for (key, name) in [("datadir", "dataDir"), ("resolvconf", "resolvConf")] {
            for (path, why) in [
                ("networks", "not an absolute path"),
                ("/a/../b", "has \"..\" in it"),
            ] {
                let mut ipam = json!({"subnet": "10.0.0.0/24"});
                ipam[key] = path.into();
                fails(ipam, &format!("ipam.{name} {path:?}: {why}"));
            }
        }
    }
}
