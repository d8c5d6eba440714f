//! The programs as the plugin loads them, their maps, and a namespace with the interfaces that packets claim to come from.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use aya::maps::MapData;
use aya::programs::SchedClassifier;
use beeline::datapath::{Counter, Datapath, Pins, Settings, config::AttachBy};
use beeline_common::abi::names;
use beeline_common::testing::{CLIENT, GATEWAY, PEER, SERVER, UPLINK, UPLINK_MAC};
use beeline_common::{Address, Features, Hook, Mac, Outcome, Peer, Pod};
use ipnetwork::{IpNetwork, Ipv4Network};

use super::samples::{self, Effect, Sample, Subject};
use super::{Sizes, yardsticks};
use crate::bench::arena;
use crate::bench::types::ProgramSize;
use crate::config::NETWORK;
use crate::netns::{Ipv6, Namespace};
use crate::node::BPFFS;
use crate::test_run::{Context as Skb, test_run};
use crate::{exec, sweep};

/// As many flows as a node of this size tracks.
const FLOWS: u32 = 262_144;

/// Bytes of an instruction.
const INSTRUCTION: u32 = 8;

const TC_ACT_UNSPEC: i32 = -1;
const TC_ACT_SHOT: i32 = 2;
const TC_ACT_REDIRECT: i32 = 7;

pub(super) struct Lab {
    pub(super) namespace: Namespace,
    datapath: Datapath,
    plain: Vec<SchedClassifier>,
    every_rule: Vec<SchedClassifier>,
    naive: OwnedFd,
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
    /// Sets one up whose maps hold so many entries, those of the samples among them.
    pub(super) fn new(name: &str, sizes: Sizes) -> Result<Self> {
        let prefix = arena::prefix(name);
        let namespace = Namespace::create(&prefix, Ipv6::Disabled)?;
        add_links(&namespace)?;
        let directory = Directory(Path::new(BPFFS).join(&prefix));
        std::fs::create_dir_all(&directory.0)
            .with_context(|| format!("{}: create", directory.0.display()))?;
        let pins = Pins::new(&directory.0, NETWORK);
        // One after the other over the same maps; a program whose pin is replaced lives on while it is open.
        let load = |features| -> Result<_> {
            let settings = Settings {
                features,
                flows: FLOWS,
                attach: AttachBy::Auto,
            };
            let datapath = Datapath::load(&directory.0, NETWORK, &settings)?;
            let programs = Hook::ALL.map(|hook| SchedClassifier::from_pin(pins.program(hook)));
            let programs = programs.into_iter().collect::<Result<Vec<_>, _>>()?;
            Ok((datapath, programs))
        };
        let (_, plain) = load(Features::default())?;
        let (datapath, every_rule) = load(Features {
            anti_spoof: true,
            vni: 1,
        })?;
        datapath.remember(samples::known())?;
        let pods = MapData::from_pin(pins.map(names::PODS))?;
        let lab = Self {
            namespace,
            datapath,
            plain,
            every_rule,
            naive: yardsticks::naive(pods.fd().as_fd())?,
            empty: yardsticks::empty()?,
            _directory: directory,
        };
        lab.fill(sizes)?;
        Ok(lab)
    }

    /// How long each program is.
    pub(super) fn lengths(&self) -> Result<Vec<ProgramSize>> {
        let length = |program: &SchedClassifier| -> Result<_> {
            let bytes = program.info()?.size_translated();
            Ok(bytes.context("program: the kernel does not tell its size")? / INSTRUCTION)
        };
        let programs = Hook::ALL.iter().zip(&self.plain).zip(&self.every_rule);
        programs
            .map(|((hook, plain), every_rule)| {
                Ok(ProgramSize {
                    program: hook.name().to_owned(),
                    instructions: length(plain)?,
                    every_rule: length(every_rule)?,
                })
            })
            .collect()
    }

    fn fill(&self, sizes: Sizes) -> Result<()> {
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
        let peers = (0..sizes.peers).map(cidr).collect::<Result<Vec<_>, _>>()?;
        self.datapath.set_peers(&peers)?;
        (0..sizes.pods).try_for_each(|number| self.add_pod(number))?;
        self.datapath.remember(samples::others(sizes.flows))
    }

    fn add_pod(&self, number: u32) -> Result<()> {
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
        self.datapath.set_pod(&[address.into()], pod)
    }

    /// How many packets have had the sample's outcome; the naive program does not count.
    fn count(&self, sample: &Sample) -> Result<Option<u64>> {
        let (Subject::Plain(hook) | Subject::EveryRule(hook)) = sample.subject else {
            return Ok(None);
        };
        let counters = self.datapath.counters()?;
        let own = |counter: &&Counter| counter.hook == hook && counter.outcome == sample.outcome;
        Ok(counters.iter().find(own).map(|own| own.count.packets))
    }

    /// Mean nanoseconds of a program, and of the empty one in turn with it.
    pub(super) fn run(&self, sample: &Sample, repeat: u32) -> Result<(f64, f64)> {
        let mut skb = Skb::default();
        (skb.ifindex, skb.mark) = (sample.ifindex(), sample.mark());
        let program = match sample.subject {
            Subject::Naive => self.naive.as_fd(),
            Subject::Plain(hook) => self.plain[hook as usize].fd()?.as_fd(),
            Subject::EveryRule(hook) => self.every_rule[hook as usize].fd()?.as_fd(),
        };
        let (batches, batch) = sample.batches(repeat);
        let one = |program: BorrowedFd<'_>, frame: &[u8], expected| -> Result<u64> {
            let output = test_run(program, frame, skb, batch, false).context("test run")?;
            ensure!(
                output.code == expected,
                "a test run returned {}, not {expected}",
                output.code
            );
            Ok(output.nanoseconds.into())
        };
        let (mut own, mut empty) = (0_u64, 0_u64);
        let before = self.count(sample)?;
        for number in 0..batches {
            let frame = sample.frame(number);
            // Whoever goes first finds colder caches, which a batch of one run tells.
            if number % 2 == 0 {
                empty += one(self.empty.as_fd(), &frame, TC_ACT_UNSPEC)?;
            }
            own += one(program, &frame, code(sample.outcome))?;
            if number % 2 == 1 {
                empty += one(self.empty.as_fd(), &frame, TC_ACT_UNSPEC)?;
            }
        }
        if let (Some(before), Some(after)) = (before, self.count(sample)?) {
            ensure!(
                after - before == u64::from(batches * batch),
                "of {} packets {} had the outcome {}",
                batches * batch,
                after - before,
                sample.outcome.name()
            );
        }
        if sample.effect == Effect::Remembers {
            self.datapath.retain_flows(|flow| !samples::is_new(flow))?;
        }
        let mean = |sum: u64| sum as f64 / f64::from(batches);
        Ok((mean(own), mean(empty)))
    }
}

/// What a program returns, which does not tell one pass from another.
fn code(outcome: Outcome) -> i32 {
    match outcome {
        Outcome::ToPod | Outcome::ToPeer | Outcome::ToOverlay => TC_ACT_REDIRECT,
        Outcome::Passed(_) => TC_ACT_UNSPEC,
        Outcome::Dropped(_) => TC_ACT_SHOT,
    }
}

fn add_links(namespace: &Namespace) -> Result<()> {
    let Mac([a, b, c, d, e, f]) = UPLINK_MAC;
    exec::ip_batch(
        namespace,
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
    )
}
