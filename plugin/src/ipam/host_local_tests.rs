//! The allocator over real files.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::ipam::RawIpam;

struct Net {
    dir: TempDir,
    conf: IpamConf,
}

impl Net {
    fn new(ranges: Value) -> Self {
        let dir = TempDir::new().unwrap();
        let raw = json!({"ranges": ranges, "datadir": dir.path().join("networks")});
        let raw: RawIpam = serde_json::from_value(raw).unwrap();
        let conf = IpamConf::new("net", &raw, &[]).unwrap();
        Self { dir, conf }
    }

    fn subnet(subnet: &str) -> Self {
        Self::new(json!([[{"subnet": subnet}]]))
    }

    /// In a directory that exists, as on a node that is set up.
    fn index(&self) -> PathBuf {
        self.dir.path().join("ipam")
    }

    fn allocate(&self, id: &str, ips: &[IpAddr]) -> Result<Lease> {
        allocate(&self.conf, &self.index(), &attachment(id), ips)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("networks/net").join(name)
    }

    fn put(&self, name: &str, content: &str) {
        fs::create_dir_all(self.path("")).unwrap();
        fs::write(self.path(name), content).unwrap();
    }

    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("")).unwrap();
        let mut names: Vec<_> = entries
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn add(&self, id: &str) -> Result<String> {
        self.request(id, &[])
    }

    fn request(&self, id: &str, ips: &[&str]) -> Result<String> {
        let ips: Vec<IpAddr> = ips.iter().map(|ip| ip.parse().unwrap()).collect();
        let lease = self.allocate(id, &ips)?;
        let text: Vec<_> = lease.ips.iter().map(|ip| ip.address.to_string()).collect();
        Ok(text.join(" "))
    }

    fn del(&self, id: &str) {
        release(&self.conf.data_dir, "net", &self.index(), &attachment(id)).unwrap();
    }

    fn check(&self, id: &str) -> Result<()> {
        check(&self.conf.data_dir, "net", &self.index(), &attachment(id))
    }
}

fn attachment(id: &str) -> AttachmentId {
    let (container_id, ifname) = id.split_once('/').unwrap_or((id, "eth0"));
    AttachmentId::new(container_id, ifname)
}

#[track_caller]
fn fails(result: Result<String>, text: &str) -> anyhow::Error {
    let error = result.unwrap_err();
    assert!(format!("{error:#}").contains(text), "{error:#}");
    error
}

#[test]
fn the_first_address_is_the_second_of_the_subnet_and_the_files_are_the_references_own() {
    let net = Net::subnet("10.1.2.0/24");
    let lease = net.allocate("pod", &[]).unwrap();
    let expected = LeasedIp {
        address: "10.1.2.2/24".parse().unwrap(),
        gateway: Some("10.1.2.1".parse().unwrap()),
    };
    assert_eq!(lease.ips, [expected]);
    assert_eq!(net.files(), ["10.1.2.2", "last_reserved_ip.0", "lock"]);
    assert_eq!(fs::read(net.path("10.1.2.2")).unwrap(), b"pod\r\neth0");
    assert_eq!(
        fs::read(net.path("last_reserved_ip.0")).unwrap(),
        b"10.1.2.2"
    );
    let mode = |name: &str| fs::metadata(net.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(
        (mode("10.1.2.2"), mode("lock"), mode("")),
        (0o600, 0o750, 0o755)
    );
}

#[test]
fn a_released_address_is_not_handed_out_again_at_once() {
    let net = Net::subnet("10.1.2.0/24");
    assert_eq!(net.add("a").unwrap(), "10.1.2.2/24");
    net.del("a");
    assert_eq!(net.add("a").unwrap(), "10.1.2.3/24");
}

#[test]
fn allocation_wraps_after_the_last_address() {
    let net = Net::subnet("10.1.2.0/24");
    net.put("last_reserved_ip.0", "10.1.2.254");
    assert_eq!(net.add("a").unwrap(), "10.1.2.2/24");
}

#[test]
fn a_corrupt_last_reserved_ip_means_the_start_of_the_range() {
    for content in ["", "x", "10.9.9.9", "10.1.2"] {
        let net = Net::subnet("10.1.2.0/24");
        net.put("last_reserved_ip.0", content);
        assert_eq!(net.add("a").unwrap(), "10.1.2.2/24", "{content:?}");
    }
}

#[test]
fn a_full_range_set_is_a_typed_error() {
    let net = Net::subnet("10.1.2.0/30");
    assert!(!is_exhausted(&net.conf).unwrap());
    net.add("a").unwrap();
    assert!(is_exhausted(&net.conf).unwrap());
    let error = fails(
        net.add("b"),
        "no IP addresses available in range set: 10.1.2.1-10.1.2.2",
    );
    assert!(error.downcast_ref::<Exhausted>().is_some());
    assert_eq!(net.files(), ["10.1.2.2", "last_reserved_ip.0", "lock"]);
}

#[test]
fn an_explicit_broadcast_address_is_allocated() {
    let net = Net::new(
        json!([[{"subnet": "10.1.2.0/24", "rangestart": "10.1.2.255", "rangeend": "10.1.2.255"}]]),
    );
    assert_eq!(net.add("a").unwrap(), "10.1.2.255/24");
}

#[test]
fn every_range_set_gives_one_address_in_order() {
    let net = Net::new(
        json!([[{"subnet": "10.1.2.0/24"}], [{"subnet": "fd00::/64"}], [{"subnet": "10.1.3.0/24"}]]),
    );
    assert_eq!(net.add("a").unwrap(), "10.1.2.2/24 fd00::2/64 10.1.3.2/24");
    assert_eq!(
        fs::read_to_string(net.path("last_reserved_ip.0")).unwrap(),
        "10.1.2.2"
    );
    assert_eq!(
        fs::read_to_string(net.path("last_reserved_ip.1")).unwrap(),
        "fd00::2"
    );
    assert_eq!(
        fs::read_to_string(net.path("fd00::2")).unwrap(),
        "a\r\neth0"
    );
}

#[test]
fn an_exhausted_second_set_gives_the_first_address_back() {
    let net = Net::new(json!([[{"subnet": "10.1.2.0/24"}], [{"subnet": "10.1.3.0/30"}]]));
    net.add("a").unwrap();
    assert!(is_exhausted(&net.conf).unwrap());
    fails(net.add("b"), "range set: 10.1.3.1-10.1.3.2");
    assert!(!net.files().contains(&"10.1.2.3".into()));
}

#[test]
fn requested_addresses_are_granted_whatever_their_order() {
    let net = Net::new(json!([[{"subnet": "10.1.2.0/24"}], [{"subnet": "fd00::/64"}]]));
    assert_eq!(
        net.request("a", &["fd00::9", "10.1.2.9", "10.1.2.9"])
            .unwrap(),
        "10.1.2.9/24 fd00::9/64"
    );
    assert_eq!(
        net.request("b", &["fd00::8"]).unwrap(),
        "10.1.2.10/24 fd00::8/64"
    );
}

#[test]
fn one_request_that_cannot_be_met_releases_everything() {
    let net = Net::subnet("10.1.2.0/24");
    fails(
        net.request("a", &["10.1.2.9", "10.9.9.9"]),
        "failed to allocate all requested IPs: 10.9.9.9",
    );
    fails(
        net.request("a", &["10.1.2.9", "10.1.2.10"]),
        "failed to allocate all requested IPs: 10.1.2.10",
    );
    assert_eq!(net.files(), ["last_reserved_ip.0", "lock"]);
}

#[test]
fn requests_for_the_gateway_or_a_used_address_are_refused() {
    let net = Net::subnet("10.1.2.0/24");
    fails(net.request("a", &["10.1.2.1"]), "is subnet's gateway");
    net.request("a", &["10.1.2.9"]).unwrap();
    fails(
        net.request("b", &["10.1.2.9"]),
        "10.1.2.9 is not available in range set 10.1.2.1-10.1.2.254",
    );
    assert_eq!(
        fs::read_to_string(net.path("10.1.2.9")).unwrap(),
        "a\r\neth0"
    );
}

#[test]
fn a_duplicate_add_fails_and_leaves_the_live_address() {
    let net = Net::new(json!([[{"subnet": "10.1.2.0/24"}], [{"subnet": "fd00::/64"}]]));
    net.add("a").unwrap();
    let before = net.files();
    fails(
        net.add("a"),
        "10.1.2.2 has been allocated to a/eth0, duplicate allocation is not allowed",
    );
    fails(
        net.request("a", &["10.1.2.7"]),
        "duplicate allocation is not allowed",
    );
    assert_eq!(net.files(), before);
}

#[test]
fn an_explicit_request_may_add_to_what_an_attachment_has() {
    let net = Net::subnet("10.1.2.0/24");
    net.add("a").unwrap();
    assert_eq!(net.request("a", &["10.1.2.7"]).unwrap(), "10.1.2.7/24");
    net.del("a");
    assert_eq!(net.files(), ["last_reserved_ip.0", "lock"]);
}

#[test]
fn interfaces_of_one_container_are_apart() {
    let net = Net::subnet("10.1.2.0/24");
    net.add("a/eth0").unwrap();
    net.add("a/net1").unwrap();
    net.del("a/eth0");
    assert!(net.check("a/eth0").is_err());
    net.check("a/net1").unwrap();
}

#[test]
fn a_release_may_come_twice_or_without_an_add() {
    let net = Net::subnet("10.1.2.0/24");
    net.del("a");
    assert!(!net.path("").exists());
    net.add("a").unwrap();
    net.del("b");
    net.check("a").unwrap();
    net.del("a");
    net.del("a");
    assert_eq!(net.files(), ["last_reserved_ip.0", "lock"]);
}

#[test]
fn files_of_the_old_form_are_found_and_released() {
    let net = Net::subnet("10.1.2.0/24");
    net.put("10.1.2.2", "a");
    net.put("10.1.2.3", " b \n");
    net.check("a").unwrap();
    net.check("b").unwrap();
    fails(net.add("a"), "duplicate");
    net.del("a");
    net.del("b");
    assert!(!net.path("10.1.2.2").exists() && !net.path("10.1.2.3").exists());
}

#[test]
fn white_space_around_the_content_does_not_matter() {
    let net = Net::subnet("10.1.2.0/24");
    net.put("10.1.2.2", "  a\r\neth0\n\n");
    net.put("10.1.2.3", "b\neth0");
    net.check("a").unwrap();
    net.check("b").unwrap();
    net.del("a");
    assert!(!net.path("10.1.2.2").exists());
}

#[test]
fn an_empty_file_is_a_free_address() {
    let net = Net::subnet("10.1.2.0/30");
    net.put("10.1.2.2", "");
    assert!(!is_exhausted(&net.conf).unwrap());
    assert_eq!(net.add("a").unwrap(), "10.1.2.2/30");
    net.del("a");
    net.put("10.1.2.2", "");
    assert_eq!(net.request("a", &["10.1.2.2"]).unwrap(), "10.1.2.2/30");
}

#[test]
fn a_stale_temporary_file_is_neither_an_address_nor_in_the_way() {
    let net = Net::subnet("10.1.2.0/24");
    net.put(".beeline.tmp", "dead\r\neth0");
    assert!(net.check("dead").is_err());
    net.add("a").unwrap();
    assert_eq!(net.files(), ["10.1.2.2", "last_reserved_ip.0", "lock"]);
}

#[test]
fn links_and_other_strange_files_are_not_followed() {
    let net = Net::subnet("10.1.2.0/29");
    let secret = net.dir.path().join("secret");
    fs::write(&secret, "a\r\neth0").unwrap();
    net.put("lock", "");
    symlink(&secret, net.path("10.1.2.2")).unwrap();
    fs::create_dir(net.path("10.1.2.3")).unwrap();
    nix::unistd::mkfifo(&net.path("10.1.2.4"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(net.check("a").is_err());
    assert_eq!(net.add("a").unwrap(), "10.1.2.5/29");
    fs::remove_file(net.path("lock")).unwrap();
    symlink(&secret, net.path("lock")).unwrap();
    fails(net.add("b"), "lock");
}

#[test]
fn a_network_directory_that_is_a_link_is_refused() {
    let net = Net::subnet("10.1.2.0/24");
    fs::create_dir_all(&net.conf.data_dir).unwrap();
    symlink(net.dir.path(), net.conf.data_dir.join("net")).unwrap();
    fails(net.add("a"), "networks/net: open");
    let escaping = IpamConf {
        network: "../x".into(),
        ..net.conf.clone()
    };
    assert!(allocate(&escaping, &net.index(), &attachment("a"), &[]).is_err());
}

#[test]
fn gc_keeps_only_the_listed_attachments() {
    let net = Net::subnet("10.1.2.0/24");
    for id in ["a/eth0", "a/net1", "b/eth0"] {
        net.add(id).unwrap();
    }
    net.put("10.1.2.100", "old");
    net.put("10.1.2.101", "gone");
    net.put("10.1.2.102", "");
    let keep = [attachment("a/eth0"), attachment("old/eth0")];
    let released = gc(&net.conf.data_dir, "net", &net.index(), &keep).unwrap();
    assert_eq!(released.len(), 4);
    assert_eq!(
        net.files(),
        ["10.1.2.100", "10.1.2.2", "last_reserved_ip.0", "lock"]
    );
    gc(&net.conf.data_dir, "net", &net.index(), &[]).unwrap();
    assert_eq!(net.files(), ["last_reserved_ip.0", "lock"]);
    assert_eq!(
        gc(&net.conf.data_dir, "never", &net.index(), &[]).unwrap(),
        Vec::<IpAddr>::new()
    );
}

#[test]
fn looking_for_room_does_not_wait_for_the_lock() {
    let net = Net::subnet("10.1.2.0/30");
    assert!(!is_exhausted(&net.conf).unwrap());
    net.add("a").unwrap();
    let store = Store::create(&net.conf.data_dir, "net").unwrap();
    let _held = store.lock(None).unwrap();
    let (done, waited) = std::sync::mpsc::channel();
    let conf = net.conf.clone();
    std::thread::spawn(move || done.send(is_exhausted(&conf)).unwrap());
    let exhausted = waited.recv_timeout(Duration::from_secs(10)).unwrap();
    assert!(exhausted.unwrap());
}

#[test]
fn the_lock_is_the_one_that_flock_takes() {
    let net = Net::subnet("10.1.2.0/24");
    net.add("a").unwrap();
    let file = fs::File::open(net.path("lock")).unwrap();
    let theirs = nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusive).unwrap();
    let (done, waited) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| done.send(net.add("b")).unwrap());
        assert!(waited.recv_timeout(Duration::from_millis(200)).is_err());
        drop(theirs);
        let added = waited.recv_timeout(Duration::from_secs(10)).unwrap();
        assert_eq!(added.unwrap(), "10.1.2.3/24");
    });
}

#[test]
fn parallel_adds_never_share_an_address() {
    let net = Net::subnet("10.1.2.0/24");
    let add = |i: usize| net.add(&format!("pod{i}")).unwrap();
    let mut all: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..50).map(|i| scope.spawn(move || add(i))).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 50);
}

#[test]
fn dns_comes_from_the_named_file() {
    let mut net = Net::subnet("10.1.2.0/24");
    let file = net.dir.path().join("resolv.conf");
    net.conf.resolv_conf = Some(file.clone());
    fails(net.add("a"), "resolv.conf: read");
    assert!(!net.path("").exists());
    fs::write(&file, "nameserver 192.0.2.1\n").unwrap();
    let lease = net.allocate("a", &[]).unwrap();
    assert_eq!(lease.dns.nameservers, ["192.0.2.1"]);
}
