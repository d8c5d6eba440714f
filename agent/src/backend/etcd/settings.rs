//! The options, checked and parsed; an option that is wrong is an error that names it.

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use ipnetwork::IpNetwork;
use sha2::{Digest as _, Sha256};

use super::{
    connect::{Endpoint, Tls},
    keys::{self, Keys},
    range::{self, Range},
};
use crate::options::Etcd;

/// A subnet has room for the gateway and pods beside its own address and IPv4's broadcast.
const SPARE_BITS: u8 = 2;

/// etcd's own limit (`lease.MaxLeaseTTL`).
const LONGEST_LEASE: Duration = Duration::from_secs(9_000_000_000);

/// What the backend goes by.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// This node's name.
    pub(super) node: String,
    /// Tells this machine from another with the same name.
    pub(super) machine: String,
    pub(super) keys: Keys,
    /// IPv4 first.
    pub(super) ranges: Vec<Range>,
    pub(super) endpoints: Vec<Endpoint>,
    /// Given by the operator; else they are looked up.
    pub(super) addresses: Vec<IpAddr>,
    /// In seconds, as etcd has it.
    pub(super) ttl: i64,
}

impl Settings {
    pub(super) fn new(options: &Etcd) -> Result<Self> {
        let node = &options.daemon.node_name;
        ensure!(
            keys::valid_name(node),
            "--node-name {node:?}: must be up to 253 characters without \"/\" and control characters"
        );
        let lease = options.lease;
        ensure!(
            lease <= LONGEST_LEASE,
            "--lease {}: longer than etcd has it",
            lease.as_secs()
        );
        for address in &options.node_address {
            ensure!(
                keys::usable(address),
                "--node-address {address}: other nodes cannot reach this one there"
            );
        }
        let host = options.daemon.node.host_root.as_deref();
        Ok(Self {
            node: node.clone(),
            machine: machine(host.unwrap_or(Path::new("/")))?,
            keys: Keys::new(&prefix(&options.prefix)?),
            ranges: ranges(options)?,
            endpoints: endpoints(options)?,
            addresses: options.node_address.clone(),
            ttl: lease.as_secs().try_into().context("--lease")?,
        })
    }
}

fn prefix(prefix: &str) -> Result<String> {
    let trimmed = prefix.trim_end_matches('/');
    ensure!(
        !trimmed.is_empty() && !trimmed.contains(char::is_control),
        "--prefix {prefix:?}: must name something"
    );
    Ok(trimmed.to_owned())
}

/// Identifies the machine without telling its secret, as machine-id(5) wants it: what systemd or D-Bus gave it when it
/// was installed, hashed.
fn machine(root: &Path) -> Result<String> {
    let places = ["etc/machine-id", "var/lib/dbus/machine-id"].map(|place| root.join(place));
    let Some(id) = places.iter().find_map(read_id) else {
        let [first, _] = places;
        bail!(
            "{}: no machine ID, which tells nodes with the same name from each other; \
             run `systemd-machine-id-setup`, or name the host's root directory by --host-root",
            first.display()
        );
    };
    let mut hash = Sha256::new();
    hash.update(b"beeline\0");
    hash.update(id.as_bytes());
    let hash = hash.finalize();
    Ok(hash[..16]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

fn read_id(path: &PathBuf) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let id = text.trim();
    // Until the first boot is over it says "uninitialized".
    let whole = id.len() == 32 && id.chars().all(|c| c.is_ascii_hexdigit());
    whole.then(|| id.to_owned())
}

fn ranges(options: &Etcd) -> Result<Vec<Range>> {
    let mut ranges: Vec<Range> = Vec::new();
    for cluster_cidr in &options.cluster_cidr {
        let range = range(*cluster_cidr, options)?;
        ensure!(
            ranges
                .iter()
                .all(|other| other.cluster_cidr.is_ipv4() != cluster_cidr.is_ipv4()),
            "--cluster-cidr {cluster_cidr}: more than one of its family"
        );
        ranges.push(range);
    }
    ensure!(!ranges.is_empty(), "--cluster-cidr: none given");
    ranges.sort_by_key(|range| range.cluster_cidr.is_ipv6());
    Ok(ranges)
}

fn range(cluster_cidr: IpNetwork, options: &Etcd) -> Result<Range> {
    let (option, subnet_length) = match cluster_cidr {
        IpNetwork::V4(_) => ("--subnet-length-v4", options.subnet_length_v4),
        IpNetwork::V6(_) => ("--subnet-length-v6", options.subnet_length_v6),
    };
    let network = IpNetwork::new(cluster_cidr.network(), cluster_cidr.prefix())?;
    ensure!(
        cluster_cidr == network,
        "--cluster-cidr {cluster_cidr}: has bits beyond its length; {network} has not"
    );
    let longest = range::family_bits(cluster_cidr) - SPARE_BITS;
    ensure!(
        subnet_length <= longest,
        "{option} {subnet_length}: leaves no room for pods; {longest} is the longest"
    );
    ensure!(
        subnet_length >= cluster_cidr.prefix(),
        "{option} {subnet_length}: larger than --cluster-cidr {cluster_cidr}, which subnets are cut from"
    );
    Ok(Range {
        cluster_cidr,
        subnet_length,
    })
}

fn endpoints(options: &Etcd) -> Result<Vec<Endpoint>> {
    let tls = Tls {
        cacert: options.cacert.clone(),
        identity: options.cert.clone().zip(options.key.clone()),
    };
    let endpoints: Result<Vec<_>> = options
        .endpoints
        .iter()
        .map(|text| Endpoint::new(text, &tls).with_context(|| format!("--endpoints {text:?}")))
        .collect();
    let endpoints = endpoints?;
    ensure!(!endpoints.is_empty(), "--endpoints: none given");
    if !endpoints.iter().any(Endpoint::is_tls) {
        ensure!(
            tls.cacert.is_none(),
            "--cacert: given, and no endpoint is https://"
        );
        ensure!(
            tls.identity.is_none(),
            "--cert: given, and no endpoint is https://"
        );
        return Ok(endpoints);
    }
    // Read again for each connection, as they are renewed now and then; here to find what was never right.
    tls.read()?;
    for endpoint in &endpoints {
        endpoint.prepare()?;
    }
    Ok(endpoints)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::options::{Options, Verb};

    /// A machine whose ID is 32 times this digit.
    fn host(digit: char) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        let id = format!("{}\n", digit.to_string().repeat(32));
        fs::write(root.path().join("etc/machine-id"), id).unwrap();
        root
    }

    fn settings(arguments: &[&str]) -> Result<Settings> {
        let root = host('a');
        let root = root.path().to_str().unwrap();
        let before = ["beeline-agent", "etcd", "--host-root", root];
        let mut all: Vec<_> = before.iter().chain(arguments).copied().collect();
        for (option, value) in [
            ("--node-name", "a"),
            ("--endpoints", "http://10.0.0.1:2379"),
            ("--cluster-cidr", "10.244.0.0/16"),
        ] {
            if !arguments.contains(&option) {
                all.extend([option, value]);
            }
        }
        match Options::try_parse_from(all)?.verb {
            Verb::Etcd(options) => Settings::new(&options),
            verb => panic!("{verb:?}"),
        }
    }

    #[track_caller]
    fn refused(arguments: &[&str], words: &[&str]) {
        let error = format!("{:#}", settings(arguments).unwrap_err());
        for word in words {
            assert!(error.contains(word), "{arguments:?}: {error}");
        }
    }

    #[test]
    fn both_families_come_in_one_order() {
        let one = settings(&["--cluster-cidr", "fd00:10:244::/48,10.244.0.0/16"]).unwrap();
        let other = settings(&["--cluster-cidr", "10.244.0.0/16,fd00:10:244::/48"]).unwrap();
        assert_eq!(one.ranges, other.ranges);
        assert_eq!(one.ranges[1].subnet_length, 64);
    }

    #[test]
    fn cidrs_and_lengths_that_do_not_fit_are_named() {
        refused(
            &["--cluster-cidr", "10.244.0.0/16,10.245.0.0/16"],
            &["--cluster-cidr", "10.245.0.0/16"],
        );
        refused(
            &["--cluster-cidr", "10.244.1.0/16"],
            &["--cluster-cidr", "10.244.0.0/16"],
        );
        refused(
            &["--subnet-length-v4", "15"],
            &["--subnet-length-v4 15", "10.244.0.0/16"],
        );
        refused(&["--subnet-length-v4", "31"], &["--subnet-length-v4 31"]);
        refused(
            &["--cluster-cidr", "fd00::/64", "--subnet-length-v6", "63"],
            &["--subnet-length-v6 63", "fd00::/64"],
        );
    }

    #[test]
    fn names_prefixes_addresses_and_endpoints_are_checked() {
        refused(&["--node-name", "a/b"], &["--node-name"]);
        refused(&["--node-name", ""], &["--node-name"]);
        refused(&["--prefix", "/"], &["--prefix"]);
        refused(
            &["--node-address", "127.0.0.1"],
            &["--node-address 127.0.0.1"],
        );
        refused(
            &["--endpoints", "ftp://10.0.0.1"],
            &["--endpoints", "ftp://10.0.0.1"],
        );
        refused(
            &["--endpoints", "http://10.0.0.1:x"],
            &["--endpoints", "http://10.0.0.1:x"],
        );
        refused(&["--lease", "18446744073709551615"], &["--lease"]);
    }

    #[test]
    fn files_of_certificates_that_are_missing_or_wrong_are_named() {
        let tls = &["--endpoints", "https://10.0.0.1:2379"];
        let with = |more: &[&'static str]| [&tls[..], more].concat();
        refused(
            &with(&["--cacert", "/nowhere/ca.crt"]),
            &["--cacert", "/nowhere/ca.crt"],
        );
        refused(
            &with(&["--cacert", "/proc/version"]),
            &["--cacert", "/proc/version"],
        );
        refused(
            &with(&["--cert", "/proc/version", "--key", "/proc/version"]),
            &["--cert", "/proc/version"],
        );
        refused(&["--cacert", "/proc/version"], &["--cacert", "https"]);
    }

    #[test]
    fn machines_are_told_apart_without_telling_their_ids() {
        let (a, b) = (host('a'), host('b'));
        let id = machine(a.path()).unwrap();
        assert_eq!(id, machine(a.path()).unwrap());
        assert_ne!(id, machine(b.path()).unwrap());
        assert!(!id.contains("aaaa"));
        fs::write(a.path().join("etc/machine-id"), "uninitialized\n").unwrap();
        let error = machine(a.path()).unwrap_err().to_string();
        assert!(
            error.contains("etc/machine-id") && error.contains("--host-root"),
            "{error}"
        );
    }
}
