//! The built-in allocator on a directory that anybody may have written to, against a model of who has what.
//!
//! An input is the files that are there, then operations, other allocators' among them.

#![no_main]

use std::{
    collections::BTreeMap,
    fs,
    net::IpAddr,
    os::unix::fs::{FileTypeExt as _, symlink},
    path::{Path, PathBuf},
};

use beeline::ipam::{self, AttachmentId, IpamConf, RawIpam, RawRange, host_local, store::Store};
use libfuzzer_sys::{
    arbitrary::{Result, Unstructured},
    fuzz_target,
};
use tempfile::TempDir;

use files::{
    File, Files, Owner, addresses, assert_same, held, is_free, is_sound, last, name, owner,
    reserved,
};

#[path = "ipam_files/files.rs"]
mod files;

/// What is the name of an address, of a file of the allocator's, or nearly.
const NAMES: [&str; 16] = [
    "10.1.0.1",
    "10.1.0.2",
    "10.1.0.3",
    "10.1.0.4",
    "10.1.0.6",
    "10.1.0.7",
    "10.9.9.9",
    "fd00::2",
    "fd00::3",
    "fd00:0::4",
    "::ffff:10.1.0.3",
    "010.1.0.3",
    "last_reserved_ip.0",
    "last_reserved_ip.1",
    "lock",
    ".beeline.tmp",
];

/// What files may say.
const CONTENTS: [&str; 12] = [
    "a\r\neth0",
    "b\r\neth0",
    "a\r\neth1",
    "a",
    "",
    "\r\n",
    " b \n eth1 \n",
    "../../victim\r\neth0",
    "/\r\n..",
    "10.1.0.3",
    "fd00::3\n",
    "nothing",
];

const CONTAINERS: [&str; 3] = ["a", "b", "c"];
const INTERFACES: [&str; 2] = ["eth0", "eth1"];

/// Operations on one directory.
const MOST: usize = 4;

/// What nobody but its owner may touch.
const VICTIM: &str = "mine";

fuzz_target!(|data: &[u8]| {
    let folder = TempDir::with_prefix("ipam").expect("a folder");
    let input = &mut Unstructured::new(data);
    // What ends early has no more operations.
    let _ = node(folder.path(), input);
});

struct Net {
    conf: IpamConf,
    index: PathBuf,
    path: PathBuf,
}

fn node(root: &Path, input: &mut Unstructured<'_>) -> Result<()> {
    let [sets, files] = input.arbitrary::<[u8; 2]>()?;
    let net = Net::new(root, sets);
    for _ in 0..files % 6 {
        net.put(input)?;
    }
    let mut files = net.files();
    for _ in 0..MOST {
        // Too short for another one.
        let Ok(after) = net.operate(input, files.clone()) else {
            break;
        };
        files = after;
    }
    net.look(&files);
    let there: Vec<_> = fs::read_dir(root).unwrap().flatten().collect();
    assert_eq!(there.len(), 3, "outside of the directory: {there:?}");
    assert_eq!(fs::read(root.join("victim")).unwrap(), VICTIM.as_bytes());
    Ok(())
}

impl Net {
    fn new(root: &Path, sets: u8) -> Self {
        let range = |subnet: &str, end: &str| {
            vec![RawRange {
                subnet: subnet.to_owned(),
                range_end: end.to_owned(),
                ..RawRange::default()
            }]
        };
        let (v4, v6) = (range("10.1.0.0/29", ""), range("fd00::/64", "fd00::4"));
        let ranges = match sets % 3 {
            0 => vec![v4],
            1 => vec![v4, v6],
            _ => vec![v6],
        };
        let raw = RawIpam {
            ranges,
            data_dir: root.join("data").display().to_string(),
            ..RawIpam::default()
        };
        let net = Self {
            conf: IpamConf::new("net", &raw, &[]).expect("a configuration"),
            index: root.join("run/ipam"),
            path: root.join("data/net"),
        };
        fs::write(root.join("victim"), VICTIM).unwrap();
        fs::create_dir(root.join("run")).unwrap();
        fs::create_dir_all(&net.path).unwrap();
        net
    }

    /// Puts a file there, or something else, unless its name is taken.
    fn put(&self, input: &mut Unstructured<'_>) -> Result<()> {
        let [name, content, kind] = input.arbitrary::<[u8; 3]>()?;
        let name = match NAMES.get(usize::from(name % 20)) {
            Some(name) => (*name).to_owned(),
            None => odd(input)?,
        };
        let path = self.path.join(name);
        if path.symlink_metadata().is_ok() {
            return Ok(());
        }
        let content = match CONTENTS.get(usize::from(content % 16)) {
            Some(content) => content.as_bytes().to_vec(),
            None => {
                let length = usize::from(input.arbitrary::<u8>()?).min(input.len());
                input.bytes(length)?.to_vec()
            }
        };
        // A name that the file system does not take is not there.
        let _ = match kind % 16 {
            0 => fs::create_dir(path),
            1 => symlink("../../victim", path),
            _ => fs::write(path, content),
        };
        Ok(())
    }

    /// Has the allocator or another one do something; returns what is there then.
    fn operate(&self, input: &mut Unstructured<'_>, files: Files) -> Result<Files> {
        let [kind, who] = input.arbitrary::<[u8; 2]>()?;
        let id = AttachmentId::new(
            CONTAINERS[usize::from(who) % CONTAINERS.len()],
            INTERFACES[usize::from(who >> 4) % INTERFACES.len()],
        );
        let address = NAMES[usize::from(who >> 1) % 9];
        Ok(match kind % 16 {
            0..=4 => self.allocate(&id, &[], files),
            5 | 6 => self.allocate(&id, &[address.parse().expect("an address")], files),
            7..=9 => self.release(&id, files),
            10 => self.gc(who, files),
            11 => self.check(&id, files),
            12 => self.remove(files),
            13 | 14 => {
                self.put(input)?;
                self.files()
            }
            _ => {
                // Another allocator releases.
                let _ = fs::remove_file(self.path.join(address));
                self.files()
            }
        })
    }

    fn files(&self) -> Files {
        let entries = fs::read_dir(&self.path).into_iter().flatten().flatten();
        let file = |entry: fs::DirEntry| {
            let kind = entry.file_type().unwrap();
            assert!(!kind.is_socket(), "nobody makes any");
            let file = match kind.is_file() {
                true => File::Regular(fs::read(entry.path()).unwrap()),
                false => File::Other,
            };
            (entry.file_name().into_encoded_bytes(), file)
        };
        entries.map(file).collect()
    }

    fn allocate(&self, id: &AttachmentId, requested: &[IpAddr], mut files: Files) -> Files {
        let (before, held) = (reserved(&files), held(&files, id));
        let leased = host_local::allocate(&self.conf, &self.index, id, requested);
        let after = self.files();
        let Ok(lease) = leased else {
            assert_eq!(reserved(&after), before, "{leased:?}");
            if requested.is_empty() && is_sound(&files) {
                self.assert_full(&files, &held);
            }
            return after;
        };
        assert_eq!(lease.ips.len(), self.conf.ranges.len());
        for (i, (leased, set)) in lease.ips.iter().zip(&self.conf.ranges).enumerate() {
            let ip = leased.address.ip();
            let range = set.range_of(ip).expect("an address of the set");
            assert!(ip != range.gateway() && leased.address == range.with_prefix(ip).unwrap());
            assert_eq!(leased.gateway, Some(range.gateway()));
            assert!(is_free(&files, ip), "{ip} is taken: {files:?}");
            if requested.is_empty() {
                let mut candidates = set.candidates(last(&files, i)).map(|(ip, _)| ip);
                assert_eq!(candidates.find(|ip| is_free(&files, *ip)), Some(ip));
                assert!(!held.iter().any(|ip| set.range_of(*ip).is_some()));
            }
        }
        for (i, ip) in lease
            .ips
            .iter()
            .map(|leased| leased.address.ip())
            .enumerate()
        {
            let content = format!("{}\r\n{}", id.container_id, id.ifname);
            files.insert(name(ip), File::Regular(content.into()));
            let last = format!("last_reserved_ip.{i}").into_bytes();
            files.insert(last, File::Regular(ip.to_string().into()));
        }
        assert_same(files, &after);
        after
    }

    /// Nothing but that an address is held, or that none is left, keeps an allocation from succeeding.
    fn assert_full(&self, files: &Files, held: &[IpAddr]) {
        let hopeless = self.conf.ranges.iter().any(|set| {
            let mut candidates = set.candidates(None);
            let none = candidates.all(|(ip, _)| !is_free(files, ip));
            none || held.iter().any(|ip| set.range_of(*ip).is_some())
        });
        assert!(hopeless, "no reason: {files:?}");
    }

    fn release(&self, id: &AttachmentId, mut files: Files) -> Files {
        let data = &self.conf.data_dir;
        let released = host_local::release(data, "net", &self.index, id);
        if released.is_err() {
            assert!(!is_sound(&files), "{released:?}: {files:?}");
            return self.files();
        }
        for ip in held(&files, id) {
            files.remove(&name(ip));
        }
        let after = self.files();
        assert_same(files, &after);
        after
    }

    fn gc(&self, keep: u8, mut files: Files) -> Files {
        let ids = CONTAINERS.iter().enumerate().flat_map(|(i, container)| {
            let ids = INTERFACES.iter().enumerate();
            ids.filter(move |(j, _)| keep >> (2 * i + j) & 1 != 0)
                .map(|(_, ifname)| AttachmentId::new(*container, *ifname))
        });
        let keep: Vec<AttachmentId> = ids.collect();
        let data = &self.conf.data_dir;
        let released = host_local::gc(data, "net", &self.index, &keep);
        let kept = |owner: &Owner| {
            keep.iter().any(|id| {
                owner.0 == id.container_id
                    && owner.1.as_ref().is_none_or(|ifname| *ifname == id.ifname)
            })
        };
        let mut gone: Vec<IpAddr> = addresses(&files);
        gone.retain(|ip| !owner(&files, *ip).is_some_and(|owner| kept(&owner)));
        gone.sort();
        let Ok(mut released) = released else {
            let other = |ip: &IpAddr| files[&name(*ip)] == File::Other;
            assert!(gone.iter().any(other) || !is_sound(&files), "{released:?}");
            return self.files();
        };
        released.sort();
        assert_eq!(released, gone);
        for ip in gone {
            files.remove(&name(ip));
        }
        let after = self.files();
        assert_same(files, &after);
        after
    }

    fn check(&self, id: &AttachmentId, files: Files) -> Files {
        let checked = host_local::check(&self.conf.data_dir, "net", &self.index, id);
        let found = reserved(&files).into_values().any(|(container, ifname)| {
            container == id.container_id && ifname.is_none_or(|ifname| ifname == id.ifname)
        });
        assert_eq!(checked.is_ok(), found, "{id}: {checked:?}");
        files
    }

    fn remove(&self, mut files: Files) -> Files {
        let removed = ipam::remove(&self.conf.data_dir, "net");
        let reserved = reserved(&files).len();
        let Ok(left) = removed else {
            let other = files.values().any(|file| *file == File::Other);
            assert!(other, "{removed:?}: {files:?}");
            return self.files();
        };
        assert_eq!(left, reserved);
        if left == 0 {
            for ip in addresses(&files) {
                files.remove(&name(ip));
            }
            files.retain(|name, _| name != b"lock" && !name.starts_with(b"last_reserved_ip."));
        }
        let after = self.files();
        assert_same(files, &after);
        fs::create_dir_all(&self.path).unwrap();
        after
    }

    /// What only looks.
    fn look(&self, files: &Files) {
        let reserved = reserved(files);
        let store = Store::open(&self.conf.data_dir, "net")
            .unwrap()
            .expect("a directory");
        let found: BTreeMap<IpAddr, Owner> = store
            .reserved()
            .unwrap()
            .into_iter()
            .map(|(ip, owner)| (ip, (owner.container_id, owner.ifname)))
            .collect();
        assert_eq!(found, reserved);
        let full = self.conf.ranges.iter().any(|set| {
            let used = reserved.keys().filter(|ip| set.allocates(**ip)).count();
            used as u128 >= set.capacity()
        });
        assert_eq!(host_local::is_exhausted(&self.conf).unwrap(), full);
        assert_eq!(self.files(), *files);
    }
}

/// A name without meaning, that can be a file's.
fn odd(input: &mut Unstructured<'_>) -> Result<String> {
    let length = usize::from(input.arbitrary::<u8>()? % 32).min(input.len());
    let name = String::from_utf8_lossy(input.bytes(length)?).replace(['/', '\0'], "-");
    Ok(format!("_{name}"))
}
