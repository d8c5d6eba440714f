//! What a packet costs in each program, by `BPF_PROG_TEST_RUN`, at several sizes of the maps.
//!
//! One flow is run over and over, so that its entries are in the CPU's caches: this is the cost of the instructions and
//! of lookups, not of memory. What the kernel does with a redirect is not part of a test run.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use aya::maps::{HashMap, Map, MapData};
use aya::programs::SchedClassifier;
use beeline::datapath::{Datapath, Pins, Settings, config::AttachBy};
use beeline_common::abi::names;
use beeline_common::testing::{
    CLIENT, Frame, GATEWAY, PEER, SERVER, STRANGER, UPLINK, UPLINK_MAC, packet,
};
use beeline_common::{Address, Features, Hook, Mac, Outcome, Pass, Peer, Pod};
use ipnetwork::{IpNetwork, Ipv4Network};

use super::progress::Progress;
use super::types::{ProgramCost, Results};
use super::{arena, empty};
use crate::config::NETWORK;
use crate::netns::{Ipv6, Namespace};
use crate::node::BPFFS;
use crate::test_run::{Context as Skb, test_run};
use crate::{exec, sweep};

/// Runs of one system call: a routed packet loses one hop each.
const BATCH: u32 = 200;

/// As many flows as a node of this size tracks.
const FLOWS: u32 = 262_144;

const TC_ACT_UNSPEC: i32 = -1;
const TC_ACT_SHOT: i32 = 2;
const TC_ACT_REDIRECT: i32 = 7;

/// Sizes `(peers, pods)`, smallest first: each grows alone, and neither shrinks on the way.
const SIZES: [(u32, u32); 6] = [
    (1, 2),
    (1, 250),
    (1, 10_000),
    (10, 10_000),
    (1_000, 10_000),
    (10_000, 10_000),
];

/// A packet whose verdict is the same however often it is run.
struct Sample {
    hook: Hook,
    outcome: Outcome,
    frame: Frame,
}

/// Measures every program at every size.
pub(super) fn measure(results: &mut Results) -> Result<()> {
    let samples = samples();
    let rounds = results.settings.rounds;
    let steps = SIZES.len() * samples.len() * rounds as usize;
    let mut progress = Progress::new(steps)?;
    let lab = Lab::new()?;
    for (peers, pods) in SIZES {
        lab.fill(peers, pods)?;
        let mut costs: Vec<_> = samples
            .iter()
            .map(|sample| sample.cost(peers, pods))
            .collect();
        for _ in 0..rounds {
            for (sample, cost) in samples.iter().zip(&mut costs) {
                progress.step(
                    &format!("programs, {peers} peers, {pods} pods"),
                    &cost.program,
                )?;
                let repeat = results.settings.repeat;
                let (nanoseconds, empty) = lab.namespace.within(|| lab.run(sample, repeat))?;
                cost.nanoseconds.push(nanoseconds);
                cost.empty_nanoseconds.push(empty);
            }
        }
        results.programs.extend(costs);
    }
    let why = "the programs remember no flows yet";
    progress.skip(
        &mut results.skipped,
        "programs with 100000 remembered flows",
        why,
    );
    Ok(())
}

fn samples() -> [Sample; 5] {
    let frame = |source: Ipv4Addr, destination: Ipv4Addr, macs: [Mac; 2]| {
        let [from, to] = macs;
        packet(source, destination)
            .macs(from, to)
            .hop_limit(255)
            .frame()
    };
    let sample = |hook, outcome, frame| Sample {
        hook,
        outcome,
        frame,
    };
    let stranger = Outcome::Passed(Pass::NotToPod);
    let (pod, uplink) = (Hook::FromPod, Hook::FromUplink);
    let routed = [CLIENT.mac, GATEWAY];
    let arriving = [Mac([2, 0, 192, 168, 1, 12]), UPLINK_MAC];
    [
        sample(
            pod,
            Outcome::ToPod,
            frame(CLIENT.v4, SERVER.v4, [CLIENT.mac, SERVER.mac]),
        ),
        sample(pod, Outcome::ToPeer, frame(CLIENT.v4, PEER.pod_v4, routed)),
        sample(pod, stranger, frame(CLIENT.v4, STRANGER.pod_v4, routed)),
        sample(
            uplink,
            Outcome::ToPod,
            frame(PEER.pod_v4, CLIENT.v4, arriving),
        ),
        sample(
            uplink,
            stranger,
            frame(PEER.pod_v4, STRANGER.pod_v4, arriving),
        ),
    ]
}

impl Sample {
    fn cost(&self, peers: u32, pods: u32) -> ProgramCost {
        ProgramCost {
            program: self.hook.name().to_owned(),
            outcome: self.outcome.name().to_owned(),
            peers,
            pods,
            ..ProgramCost::default()
        }
    }
}

/// The programs as the plugin loads them, and a namespace with the interfaces that packets claim to come from.
struct Lab {
    namespace: Namespace,
    datapath: Datapath,
    pins: Pins,
    programs: Vec<SchedClassifier>,
    empty: OwnedFd,
    _directory: Directory,
}

/// Pins, which go on drop.
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        sweep::remove_tree(&self.0);
    }
}

impl Lab {
    fn new() -> Result<Self> {
        let prefix = arena::prefix("program");
        let namespace = Namespace::create(&prefix, Ipv6::Disabled)?;
        let Mac([a, b, c, d, e, f]) = UPLINK_MAC;
        exec::ip_batch(
            &namespace,
            &[
                format!(
                    "link add pod index {} type veth peer name eth0",
                    CLIENT.ifindex
                ),
                format!(
                    "link add uplink index {UPLINK} address {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x} \
                     type veth peer name switch"
                ),
            ],
        )?;
        let directory = Directory(Path::new(BPFFS).join(&prefix));
        std::fs::create_dir_all(&directory.0)
            .with_context(|| format!("{}: create", directory.0.display()))?;
        let settings = Settings {
            features: Features::default(),
            flows: FLOWS,
            attach: AttachBy::Auto,
        };
        let datapath = Datapath::load(&directory.0, NETWORK, &settings)?;
        let pins = Pins::new(&directory.0, NETWORK);
        let programs = Hook::ALL.map(|hook| SchedClassifier::from_pin(pins.program(hook)));
        Ok(Self {
            namespace,
            datapath,
            programs: programs.into_iter().collect::<Result<_, _>>()?,
            pins,
            empty: empty::load()?,
            _directory: directory,
        })
    }

    /// Has the maps hold so many entries, those of the samples among them.
    fn fill(&self, peers: u32, pods: u32) -> Result<()> {
        let peer = Peer {
            node: Address::from(IpAddr::from(PEER.v4)),
            ifindex: UPLINK,
            mtu: 1500,
            vni: 0,
            mac: Mac::default(),
            source: Mac::default(),
        };
        let cidr = |number: u32| {
            // The first is the sample's; the others are elsewhere.
            let network = match number {
                0 => PEER.pod_v4,
                _ => Ipv4Addr::from(u32::from(Ipv4Addr::new(11, 0, 0, 0)) + number * 256),
            };
            Ipv4Network::new(network, 24).map(|cidr| (IpNetwork::V4(cidr), peer))
        };
        self.datapath
            .set_peers(&(0..peers).map(cidr).collect::<Result<Vec<_>, _>>()?)?;
        let map = Map::HashMap(MapData::from_pin(self.pins.map(names::PODS))?);
        let mut map: HashMap<_, Address, Pod> = map.try_into()?;
        for number in 0..pods {
            let (address, ifindex, mac) = match number {
                0 => (CLIENT.v4, CLIENT.ifindex, CLIENT.mac),
                1 => (SERVER.v4, SERVER.ifindex, SERVER.mac),
                _ => (
                    Ipv4Addr::from(0x0c00_0000 + number),
                    1000 + number,
                    Mac::default(),
                ),
            };
            let pod = Pod {
                ifindex,
                flags: 0,
                mac,
                gateway: GATEWAY,
            };
            map.insert(Address::from(IpAddr::from(address)), pod, 0)?;
        }
        Ok(())
    }

    /// Mean nanoseconds of a program, and of the empty one in turn with it.
    fn run(&self, sample: &Sample, repeat: u32) -> Result<(f64, f64)> {
        let mut skb = Skb::default();
        let program = &self.programs[sample.hook as usize];
        skb.ifindex = match sample.hook {
            Hook::FromPod => CLIENT.ifindex,
            _ => UPLINK,
        };
        let expected = match sample.outcome {
            Outcome::ToPod | Outcome::ToPeer | Outcome::ToOverlay => TC_ACT_REDIRECT,
            Outcome::Passed(_) => TC_ACT_UNSPEC,
            Outcome::Dropped(_) => TC_ACT_SHOT,
        };
        let fd = program.fd()?.as_fd();
        let batches = repeat.div_ceil(BATCH);
        let batch = repeat.min(BATCH);
        let (mut own, mut empty) = (0_u64, 0_u64);
        let one = |fd: BorrowedFd<'_>, expected| -> Result<u64> {
            let output =
                test_run(fd, &sample.frame.bytes, skb, batch, false).context("test run")?;
            ensure!(
                output.code == expected,
                "a test run returned {}, not {expected}",
                output.code
            );
            Ok(output.nanoseconds.into())
        };
        for _ in 0..batches {
            empty += one(self.empty.as_fd(), TC_ACT_UNSPEC)?;
            own += one(fd, expected)?;
        }
        let mean = |sum: u64| sum as f64 / f64::from(batches);
        Ok((mean(own), mean(empty)))
    }
}
