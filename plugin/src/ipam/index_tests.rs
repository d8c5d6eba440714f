//! What an index says of a store that others change too.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::ipam::{AttachmentId, IpamConf, RawIpam, allocate, check, is_exhausted, release};

struct Net {
    dir: TempDir,
    conf: IpamConf,
}

impl Net {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let raw = json!({"subnet": "10.1.0.0/16", "datadir": dir.path()});
        let raw: RawIpam = serde_json::from_value(raw).unwrap();
        let conf = IpamConf::new("net", &raw, &[]).unwrap();
        Self { dir, conf }
    }

    /// With as many addresses as another allocator has reserved, in the third octet and the fourth.
    fn with(reserved: usize) -> Self {
        let net = Self::new();
        fs::create_dir(net.store()).unwrap();
        for i in 0..reserved {
            net.put(&Self::address(i), &format!("theirs{i}\r\neth0"));
        }
        net
    }

    fn address(i: usize) -> String {
        format!("10.1.{}.{}", 100 + i / 250, i % 250)
    }

    fn store(&self) -> PathBuf {
        self.dir.path().join("net")
    }

    fn index(&self) -> PathBuf {
        self.dir.path().join("ipam")
    }

    /// What another allocator does.
    fn put(&self, ip: &str, content: &str) {
        fs::write(self.store().join(ip), content).unwrap();
    }

    /// What another allocator does.
    fn remove(&self, ip: &str) {
        fs::remove_file(self.store().join(ip)).unwrap();
    }

    fn add(&self, id: &str) -> anyhow::Result<String> {
        let lease = allocate(&self.conf, &self.index(), &attachment(id), &[])?;
        Ok(lease.ips[0].address.ip().to_string())
    }

    fn del(&self, id: &str) {
        release(&self.conf.data_dir, "net", &self.index(), &attachment(id)).unwrap();
    }

    fn is_there(&self, id: &str) -> bool {
        check(&self.conf.data_dir, "net", &self.index(), &attachment(id)).is_ok()
    }

    fn is_sealed(&self) -> bool {
        let store = File::open(self.store()).unwrap();
        Index::open(&self.index())
            .and_then(|index| index.is_sealed(&store))
            .unwrap()
    }

    /// The addresses whose files are opened meanwhile.
    fn opened(&self, during: impl FnOnce()) -> usize {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).unwrap();
        let watched = inotify.add_watch(&self.store(), AddWatchFlags::IN_OPEN);
        watched.unwrap();
        during();
        let mut opened = 0;
        while let Ok(events) = inotify.read_events() {
            let names = events.into_iter().filter_map(|event| event.name);
            opened += names
                .filter(|name| parse_ip(&name.to_string_lossy()).is_ok())
                .count();
        }
        opened
    }
}

fn attachment(id: &str) -> AttachmentId {
    let (container_id, ifname) = id.rsplit_once('/').unwrap_or((id, "eth0"));
    AttachmentId::new(container_id, ifname)
}

#[test]
fn with_a_thousand_addresses_an_attachment_is_found_by_reading_its_own() {
    let net = Net::with(1000);
    assert!(net.opened(|| drop(net.add("first").unwrap())) >= 1000);
    assert_eq!(net.opened(|| drop(net.add("a").unwrap())), 0);
    assert_eq!(net.opened(|| assert!(net.is_there("a"))), 1);
    assert_eq!(net.opened(|| assert!(net.add("a").is_err())), 1);
    assert_eq!(net.opened(|| net.del("theirs500")), 1);
    assert!(!net.store().join(Net::address(500)).exists());
    assert_eq!(net.opened(|| net.del("a")), 1);
    assert_eq!(net.opened(|| net.del("a")), 0);
    assert_eq!(net.opened(|| net.del("never")), 0);
    let room = || assert!(!is_exhausted(&net.conf).unwrap());
    assert_eq!(net.opened(room), 0);
}

#[test]
fn nothing_but_the_files_of_the_format_is_in_the_stores_directory() {
    let net = Net::new();
    net.add("a").unwrap();
    net.del("a");
    net.add("b").unwrap();
    let mut names: Vec<_> = fs::read_dir(net.store())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["10.1.0.3", "last_reserved_ip.0", "lock"]);
    let entry = net.index().join("b:eth0");
    assert_eq!(fs::read_to_string(&entry).unwrap(), "10.1.0.3");
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(net.index()), mode(entry)), (0o700, 0o600));
}

#[test]
fn what_another_allocator_reserves_is_noticed() {
    let net = Net::with(1);
    net.add("a").unwrap();
    assert!(net.is_sealed());
    net.put("10.1.200.1", "b\r\neth0");
    assert!(!net.is_sealed());
    assert!(net.is_there("b"));
    let error = net.add("b").unwrap_err().to_string();
    assert!(error.contains("10.1.200.1 has been allocated"), "{error}");
    net.del("b");
    assert!(!net.store().join("10.1.200.1").exists());
    assert!(net.is_sealed());
}

#[test]
fn what_another_allocator_releases_is_noticed() {
    let net = Net::with(1);
    let ip = net.add("a").unwrap();
    net.remove(&ip);
    assert!(!net.is_there("a"));
    assert_ne!(net.add("a").unwrap(), ip);
    // Released, and given to someone else.
    let ip = net.add("b").unwrap();
    net.remove(&ip);
    net.put(&ip, "c\r\neth0");
    net.del("b");
    assert!(net.is_there("c") && net.store().join(&ip).exists());
}

#[test]
fn every_change_that_no_seal_followed_is_noticed_however_fast_it_comes() {
    let net = Net::with(1);
    for round in 0..500 {
        net.add("a").unwrap();
        // In the same tick of the kernel's clock, as often as not.
        let ip = format!("10.1.200.{}", round % 200);
        net.put(&ip, "b\r\neth0");
        assert!(!net.is_sealed(), "round {round}");
        net.del("b");
        net.del("a");
        assert!(!net.store().join(&ip).exists(), "round {round}");
    }
}

#[test]
fn a_plugin_that_is_killed_between_the_steps_leaves_no_seal() {
    let net = Net::with(3);
    net.add("a").unwrap();
    let store = File::open(net.store()).unwrap();
    let index = Index::lock(&net.index()).unwrap();
    let owner = Owner::from(&attachment("b"));
    let ip = "10.1.50.1".parse().unwrap();
    // After each step of an ADD in turn: the address is there, the index has it, one of the two is stamped.
    let steps: [&dyn Fn(); 3] = [
        &|| net.put("10.1.50.1", "b\r\neth0"),
        &|| index.set(&owner, &[ip]).unwrap(),
        &|| {
            let now = FileTimes::new().set_modified(SystemTime::now());
            store.set_times(now).unwrap();
        },
    ];
    for step in steps {
        step();
        assert!(!index.is_sealed(&store).unwrap());
    }
    index.seal(&store).unwrap();
    assert!(index.is_sealed(&store).unwrap());
    // And of making it anew.
    index.clear().unwrap();
    assert!(!index.is_sealed(&store).unwrap());
    drop(index);
    assert!(net.is_there("b"));
    net.del("b");
    assert!(!net.is_there("b") && net.is_there("a") && net.is_there("theirs2"));
}

#[test]
fn an_entry_that_its_file_does_not_confirm_does_not_count() {
    let net = Net::with(3);
    let ip = net.add("a").unwrap();
    // Not by an allocator: the directory does not change.
    net.put(&ip, "b\r\neth0");
    assert!(net.is_sealed());
    assert!(!net.is_there("a"));
    net.del("a");
    assert!(net.is_there("b"));
}

#[test]
fn an_index_of_the_same_name_and_other_files_does_not_count() {
    let (one, other) = (Net::with(1), Net::with(1));
    one.add("a").unwrap();
    fs::remove_dir_all(other.index()).ok();
    fs::rename(one.index(), other.index()).unwrap();
    assert!(!other.is_sealed());
    assert_eq!(other.add("a").unwrap(), "10.1.0.2");
}

#[test]
fn without_a_place_for_it_every_file_is_read() {
    let net = Net::with(3);
    fs::write(net.dir.path().join("file"), "").unwrap();
    for index in ["/proc/beeline/ipam", "file/ipam", "none/ipam", "file"] {
        let index = net.dir.path().join(index);
        let id = attachment("a");
        allocate(&net.conf, &index, &id, &[]).unwrap();
        check(&net.conf.data_dir, "net", &index, &id).unwrap();
        let error = allocate(&net.conf, &index, &id, &[]).unwrap_err();
        assert!(error.to_string().contains("duplicate"), "{error}");
        release(&net.conf.data_dir, "net", &index, &attachment("theirs1")).unwrap();
        release(&net.conf.data_dir, "net", &index, &id).unwrap();
        assert!(check(&net.conf.data_dir, "net", &index, &id).is_err());
    }
    assert!(!net.dir.path().join("none").exists());
    assert!(!net.store().join(Net::address(1)).exists());
}

#[test]
fn files_of_the_old_form_are_found_by_their_container() {
    let net = Net::with(1000);
    net.put("10.1.200.1", "old");
    net.add("a").unwrap();
    assert_eq!(net.opened(|| assert!(net.add("old").is_err())), 1);
    assert_eq!(net.opened(|| net.del("old")), 1);
    assert!(!net.store().join("10.1.200.1").exists());
    assert_eq!(net.opened(|| net.del("old")), 0);
}

#[test]
fn an_entry_is_not_written_through_a_link() {
    let net = Net::with(1);
    net.add("a").unwrap();
    let secret = net.dir.path().join("secret");
    fs::write(&secret, "x").unwrap();
    std::os::unix::fs::symlink(&secret, net.index().join("b:eth0")).unwrap();
    let store = File::open(net.store()).unwrap();
    Index::open(&net.index()).unwrap().seal(&store).unwrap();
    net.add("b").unwrap();
    assert_eq!(fs::read_to_string(&secret).unwrap(), "x");
    assert!(net.is_there("b"));
}

#[test]
fn an_owner_whose_name_leads_elsewhere_has_no_entry_and_keeps_others_theirs() {
    let net = Net::with(1);
    let outside = net.dir.path().join("outside:eth0");
    let long = "x".repeat(300);
    for (i, odd) in ["../outside", "/tmp/beeline-outside", "a:b", &*long]
        .into_iter()
        .enumerate()
    {
        net.put(&format!("10.1.200.{i}"), &format!("{odd}\r\neth0"));
    }
    net.add("a").unwrap();
    assert!(!outside.exists());
    assert!(net.is_sealed());
    assert_eq!(net.opened(|| net.del("theirs0")), 1);
    // Whoever asks for it all the same finds it, in the files themselves.
    assert!(net.is_there("../outside/eth0"));
}

#[test]
fn whoever_holds_the_index_of_another_store_is_waited_for() {
    let net = Net::with(1);
    let held = Index::lock(&net.index()).unwrap();
    let (done, waited) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| done.send(net.add("a")).unwrap());
        assert!(waited.recv_timeout(Duration::from_millis(200)).is_err());
        drop(held);
        let added = waited.recv_timeout(Duration::from_secs(10)).unwrap();
        added.unwrap();
    });
}
