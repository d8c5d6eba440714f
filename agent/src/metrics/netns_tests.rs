//! A scrape of a node with many pods and peers. These need root and a bpffs, as the maps are real; no program is attached.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    time::Instant,
};

use beeline::{
    cni::{Command, NetConf},
    datapath::{Datapath, Settings, bpffs, config::AttachBy},
};
use beeline_common::{Address, Features, Mac, Peer, Pod};
use ipnetwork::{IpNetwork, Ipv4Network};
use serde_json::json;

use super::{exposition::Exposition, *};

const PEERS: u32 = 5_000;
const PODS: u32 = 1_000;
/// Every so many of which is on the slow path.
const SLOW: u32 = 10;

/// A node's directories, which go with it.
struct Node {
    state: tempfile::TempDir,
    bpffs: PathBuf,
}

impl Node {
    fn new(name: &str) -> Self {
        bpffs::ensure(Path::new(bpffs::STANDARD)).expect("this test needs root and a bpffs");
        let own = format!("beeline-metrics-{name}-{}", std::process::id());
        let bpffs = Path::new(bpffs::STANDARD).join(own);
        fs::create_dir(&bpffs).unwrap();
        Self {
            state: tempfile::tempdir_in("/run").unwrap(),
            bpffs,
        }
    }

    fn load(&self) -> Datapath {
        let settings = Settings {
            features: Features {
                anti_spoof: false,
                vni: 0,
            },
            flows: 1_024,
            attach: AttachBy::Auto,
        };
        Datapath::load(&self.bpffs, "pods", &settings).unwrap()
    }

    fn network(&self) -> Network {
        let conf = json!({
            "cniVersion": "1.0.0", "name": "pods", "type": "beeline",
            "ipam": {
                "type": "host-local", "subnet": "10.244.0.0/20", "dataDir": self.addresses(),
            },
            "datapath": { "stateDir": self.state.path(), "bpffsDir": self.bpffs },
        });
        let conf = NetConf::parse(conf.to_string().into(), Command::Add).unwrap();
        Network::of(&conf)
    }

    fn addresses(&self) -> PathBuf {
        self.state.path().join("addresses")
    }

    /// Writes down as many pods, and all of their addresses.
    fn crowd(&self) {
        let attachments = self.state.path().join("pods/attachments");
        let addresses = self.addresses().join("pods");
        fs::create_dir_all(&attachments).unwrap();
        fs::create_dir_all(&addresses).unwrap();
        for number in 0..PODS {
            fs::write(attachments.join(format!("pod{number}:eth0")), "").unwrap();
            fs::write(addresses.join(address(number).to_string()), "").unwrap();
        }
        fs::write(attachments.join(".new-pod:eth0"), "").unwrap();
        fs::write(addresses.join("last_reserved_ip.0"), "10.244.0.9").unwrap();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(datapath) = Datapath::open(&self.bpffs, "pods") {
            let _ = datapath.unload();
        }
        let _ = fs::remove_dir(self.bpffs.join("beeline"));
        let _ = fs::remove_dir(&self.bpffs);
    }
}

fn address(number: u32) -> Ipv4Addr {
    // Behind the gateway.
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 244, 0, 2)) + number)
}

fn peers() -> Vec<(IpNetwork, Peer)> {
    let peer = |number: u32| {
        let network = u32::from(Ipv4Addr::new(100, 64, 0, 0)) + (number << 8);
        let network = Ipv4Network::new(network.into(), 24).unwrap();
        let peer = Peer {
            node: Address::from_v4([192, 168, 1, 12]),
            ifindex: 1,
            mtu: 1_500,
            vni: 0,
            mac: Mac::default(),
            source: Mac::default(),
        };
        (network.into(), peer)
    };
    (0..PEERS).map(peer).collect()
}

/// Has the fast path know a pod, which has an address of each family.
fn enter(datapath: &Datapath, number: u32) {
    let v4 = address(number);
    let addresses = [IpAddr::from(v4), v4.to_ipv6_compatible().into()];
    let pod = Pod {
        ifindex: 100_000 + number,
        flags: if number.is_multiple_of(SLOW) {
            Pod::SLOW
        } else {
            0
        },
        mac: Mac::default(),
        gateway: Mac::default(),
    };
    datapath.set_pod(&addresses, pod).unwrap();
}

fn scrape(metrics: &Metrics) -> Exposition {
    Exposition::parse(&metrics.encode().unwrap())
}

#[test]
fn a_scrape_with_thousands_of_peers_and_pods_is_right_and_takes_milliseconds() {
    let node = Node::new("crowd");
    let datapath = node.load();
    datapath.set_peers(&peers()).unwrap();
    (0..PODS).for_each(|number| enter(&datapath, number));
    node.crowd();
    let metrics = Metrics::new();
    metrics.set_network(node.network());

    let times = (0..20).map(|_| {
        let start = Instant::now();
        metrics.encode().unwrap();
        start.elapsed()
    });
    let times: Vec<Duration> = times.collect();
    let quickest = times.iter().min().unwrap();
    println!("the first scrape {:?}, the quickest {quickest:?}", times[0]);
    assert!(*quickest < Duration::from_millis(100), "{times:?}");

    let exposition = scrape(&metrics);
    let slow = PODS / SLOW;
    for (series, value) in [
        (r#"datapath_up{network="pods"}"#, 1),
        (r#"pods{network="pods",path="fast"}"#, PODS - slow),
        (r#"pods{network="pods",path="slow"}"#, slow),
        (r#"peers{network="pods"}"#, PEERS),
        (r#"map_entries{network="pods",map="PEERS"}"#, PEERS),
        (r#"map_entries{network="pods",map="PODS"}"#, 2 * PODS),
        (r#"map_entries{network="pods",map="STACK_FLOWS"}"#, 0),
        (r#"map_capacity{network="pods",map="PODS"}"#, 16_384),
        (r#"map_capacity{network="pods",map="STACK_CONNS"}"#, 1_024),
        (
            r#"ipam_addresses{network="pods",range="10.244.0.1-10.244.15.254"}"#,
            PODS,
        ),
        (
            r#"ipam_capacity{network="pods",range="10.244.0.1-10.244.15.254"}"#,
            4_093,
        ),
        (
            r#"packets_total{network="pods",program="from_pod",outcome="to_peer"}"#,
            0,
        ),
        (
            r#"bytes_total{network="pods",program="from_pod",outcome="drop_spoofed"}"#,
            0,
        ),
    ] {
        let series = format!("beeline_{series}");
        assert_eq!(exposition.value(&series), f64::from(value), "{series}");
    }
    // Nothing happened yet that only looks on.
    let passed = r#"beeline_packets_total{network="pods",program="to_pod",outcome="pass_options"}"#;
    assert!(!exposition.has(passed));
}

#[test]
fn a_fast_path_that_is_turned_off_is_told_at_the_next_scrape() {
    let node = Node::new("off");
    let datapath = node.load();
    datapath.set_peers(&peers()[..1]).unwrap();
    let metrics = Metrics::new();
    metrics.set_network(node.network());
    let up = r#"beeline_datapath_up{network="pods"}"#;
    let peers = r#"beeline_peers{network="pods"}"#;
    let before = scrape(&metrics);
    assert_eq!((before.value(up), before.value(peers)), (1.0, 1.0));
    datapath.unload().unwrap();
    let off = scrape(&metrics);
    assert_eq!(off.value(up), 0.0);
    assert!(!off.has(peers));
    let _ = node.load();
    let on = scrape(&metrics);
    assert_eq!((on.value(up), on.value(peers)), (1.0, 0.0));
}
