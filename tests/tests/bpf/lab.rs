//! The object, loaded over maps that hold the test cluster, and held against the host.

use std::{collections::HashMap as Table, env, fs, io, os::fd::AsFd as _, path::PathBuf};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, Map, MapData, PerCpuArray},
    programs::{ProgramFd, SchedClassifier},
};
use beeline_common::{
    Address, Cidr, Count, Features, Flow, Hook, Outcome, Pass, Peer, Pod, Port, PrefixTable,
    Verdict,
    abi::{REDIRECTED, globals, names},
    ip::ETHERNET,
    stats, sticky,
    testing::{
        CLIENT, FEATURES, Frame, HostMaps, OVERLAY, OVERLAY_MAC, UPLINK, UPLINK_MAC, cluster, judge,
    },
};
use beeline_tests::test_run::{Context, Output, test_run};

use crate::sandbox::{BPFFS, sandboxed};

const TC_ACT_UNSPEC: i32 = -1;
const TC_ACT_SHOT: i32 = 2;
const TC_ACT_REDIRECT: i32 = 7;

/// A mark that a packet brings along.
const MARK: u32 = 0xbee;

/// How many flows each map holds, unless it is about that: more than a test has, so that none is pushed out.
const FLOWS: u32 = 1 << 14;

/// The loaded programs.
pub(crate) struct Lab {
    pub(crate) ebpf: Ebpf,
    pub(crate) maps: HostMaps,
    features: Features,
    programs: [ProgramFd; stats::HOOKS as usize],
    stats: PerCpuArray<MapData, Count>,
    flows: [HashMap<MapData, Flow, u32>; 2],
}

/// Runs `test` with the object loaded in a sandbox, for a node that uses everything.
pub(crate) fn lab<T: Send>(test: impl FnOnce(&mut Lab) -> T + Send) -> T {
    lab_with(FEATURES, FLOWS, test)
}

/// Runs `test` with the object loaded in a sandbox, for these features and so many flows.
pub(crate) fn lab_with<T: Send>(
    features: Features,
    flows: u32,
    test: impl FnOnce(&mut Lab) -> T + Send,
) -> T {
    sandboxed(|| test(&mut Lab::new(features, flows)))
}

/// Loads the object, and its maps pinned in the sandbox.
pub(crate) fn load(features: Features, flows: u32) -> Ebpf {
    load_telling(features, flows, 0)
}

/// Loads the object, to tell of so many bytes of each packet.
pub(crate) fn load_telling(features: Features, flows: u32, monitor: u32) -> Ebpf {
    let path = env::var_os("BEELINE_EBPF_OBJECT").map(PathBuf::from);
    let path = path.unwrap_or_else(|| {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/bpf/beeline-ebpf.o")
    });
    let object = fs::read(&path).unwrap_or_else(|error| {
        let path = path.display();
        panic!(
            "{path}: {error}; build it with `cargo xtask build-ebpf`, or set BEELINE_EBPF_OBJECT"
        )
    });
    let anti_spoof = u8::from(features.anti_spoof);
    EbpfLoader::new()
        .default_map_pin_directory(BPFFS)
        .override_global(globals::ANTI_SPOOF, &anti_spoof, true)
        .override_global(globals::VNI, &features.vni, true)
        .override_global(globals::MONITOR, &monitor, true)
        .map_max_entries(names::STACK_FLOWS, flows)
        .map_max_entries(names::STACK_CONNS, flows)
        .load(&object)
        .expect("load the object")
}

/// Whether a recent kernel refuses to run the packet: it has no whole IP header. Those are sent for real, in `wire`.
pub(crate) fn refused(frame: &Frame) -> bool {
    let needed = match frame.bytes.get(12..14) {
        Some([0x08, 0x00]) => ETHERNET + 20,
        Some([0x86, 0xdd]) => ETHERNET + 40,
        _ => ETHERNET,
    };
    frame.bytes.len() < needed
}

/// The program of `hook`.
pub(crate) fn program(ebpf: &mut Ebpf, hook: Hook) -> &mut SchedClassifier {
    let program = ebpf
        .program_mut(hook.name())
        .expect("a program of the hook's name");
    program.try_into().expect("a tc program")
}

fn map_of<'a>(ebpf: &'a mut Ebpf, name: &str) -> &'a mut Map {
    ebpf.map_mut(name)
        .unwrap_or_else(|| panic!("no map {name}"))
}

/// Where the packets of a hook come by. `ToPod` is a bridge's, but does not ask which.
pub(crate) const fn interface(hook: Hook) -> u32 {
    match hook {
        Hook::FromPod | Hook::ToPod => CLIENT.ifindex,
        Hook::FromUplink | Hook::ToUplink => UPLINK,
        Hook::FromOverlay => OVERLAY,
    }
}

impl Lab {
    fn new(features: Features, flows: u32) -> Self {
        let mut ebpf = load(features, flows);
        let programs = Hook::ALL.map(|hook| {
            let program = program(&mut ebpf, hook);
            program
                .load()
                .unwrap_or_else(|error| panic!("load {}: {error}", hook.name()));
            let fd = program.fd().expect("a loaded program");
            fd.try_clone().expect("duplicate a descriptor")
        });
        let stats = ebpf.take_map(names::STATS).expect("STATS");
        let stats = PerCpuArray::try_from(stats).expect("counts per CPU");
        let flows = [names::STACK_FLOWS, names::STACK_CONNS].map(|name| {
            let map = ebpf.take_map(name).expect("a map of flows");
            HashMap::try_from(map).expect("flows")
        });
        let mut lab = Self {
            ebpf,
            maps: HostMaps::default(),
            features,
            programs,
            stats,
            flows,
        };
        lab.fill(cluster());
        lab
    }

    /// Puts into the kernel's maps what `maps` holds.
    pub(crate) fn fill(&mut self, maps: HostMaps) {
        let mut pods: HashMap<_, Address, Pod> = map_of(&mut self.ebpf, names::PODS)
            .try_into()
            .expect("pods");
        for (address, pod) in &maps.pods {
            pods.insert(address, pod, 0).expect("insert a pod");
        }
        let mut ports: HashMap<_, u32, Port> = map_of(&mut self.ebpf, names::PORTS)
            .try_into()
            .expect("ports");
        for (ifindex, port) in &maps.ports {
            ports.insert(ifindex, port, 0).expect("insert a port");
        }
        let mut peers: HashMap<_, Cidr, Peer> = map_of(&mut self.ebpf, names::PEERS)
            .try_into()
            .expect("peers");
        for (cidr, peer) in &maps.peers {
            peers.insert(cidr, peer, 0).expect("insert a peer");
        }
        let mut tables: Array<_, PrefixTable> = map_of(&mut self.ebpf, names::PREFIXES)
            .try_into()
            .expect("prefixes");
        for (family, table) in (0..).zip(maps.prefixes) {
            let table = table.unwrap_or(PrefixTable::EMPTY);
            tables.set(family, table, 0).expect("set a prefix table");
        }
        self.forget_flows();
        self.maps = maps;
        self.maps.flows.borrow_mut().clear();
    }

    /// Empties the maps of flows.
    pub(crate) fn forget_flows(&mut self) {
        for map in &mut self.flows {
            let flows: Vec<Flow> = map.keys().map(|flow| flow.expect("read a flow")).collect();
            for flow in flows {
                map.remove(&flow).expect("remove a flow");
            }
        }
        self.maps.flows.borrow_mut().clear();
    }

    /// What is remembered of the flows.
    pub(crate) fn flows(&self) -> Table<(sticky::Table, Flow), u32> {
        let tables = [sticky::Table::Flows, sticky::Table::Conns];
        let all = tables
            .into_iter()
            .zip(&self.flows)
            .flat_map(|(table, map)| {
                map.iter().map(move |entry| {
                    let (flow, value) = entry.expect("read a flow");
                    ((table, flow), value)
                })
            });
        all.collect()
    }

    /// How many flows are remembered in the map.
    pub(crate) fn flows_in(&self, table: sticky::Table) -> usize {
        self.flows[table as usize].keys().count()
    }

    /// Whether the flow is remembered in the map; asking does not count as using it.
    pub(crate) fn holds(&self, table: sticky::Table, flow: &Flow) -> bool {
        // A look-up from user space does not mark an entry as used (`htab_lru_map_lookup_elem_sys`).
        self.flows[table as usize].get(flow, 0).is_ok()
    }

    /// All counters, summed over the CPUs.
    pub(crate) fn counts(&self) -> Vec<Count> {
        let sum = |index| {
            let counts = self.stats.get(&index, 0).expect("read a counter");
            counts.iter().fold(Count::default(), |sum, count| Count {
                packets: sum.packets + count.packets,
                bytes: sum.bytes + count.bytes,
            })
        };
        (0..self.stats.len()).map(sum).collect()
    }

    /// Lets the program of `hook` judge a packet.
    pub(crate) fn run(
        &self,
        hook: Hook,
        frame: &Frame,
        device_checksum: bool,
    ) -> io::Result<Output> {
        let mut context = Context::default();
        context.mark = mark(frame);
        context.gso_size = frame.segment_size;
        context.ifindex = interface(hook);
        let program = self.programs[hook as usize].as_fd();
        test_run(program, &frame.bytes, context, 1, device_checksum)
    }

    /// The host's judgement, of the packet as the kernel would receive it.
    pub(crate) fn judge(&self, hook: Hook, frame: &Frame) -> (Verdict, Frame) {
        let mut frame = frame.clone();
        frame.for_host = match hook {
            Hook::FromOverlay => frame.destination() == Some(OVERLAY_MAC),
            _ => frame.destination() == Some(UPLINK_MAC),
        };
        let verdict = judge(hook, &mut frame, &self.maps, self.features);
        (verdict, frame)
    }

    /// Judges a packet in the kernel and on the host, and returns the verdict or how the two differ in code, bytes or
    /// mark; `None` if the kernel runs no such packet.
    pub(crate) fn judge_both(&self, hook: Hook, frame: &Frame) -> Option<Result<Verdict, String>> {
        let output = match self.run(hook, frame, false) {
            Ok(output) => output,
            Err(_) if refused(frame) => return None,
            Err(error) => return Some(Err(format!("{error}"))),
        };
        let (verdict, expected) = self.judge(hook, frame);
        let (code, mark) = match verdict {
            Verdict::ToPod { .. } => (TC_ACT_REDIRECT, 0),
            Verdict::ToPeer { .. } | Verdict::ToOverlay { .. } => (TC_ACT_REDIRECT, REDIRECTED),
            Verdict::Pass(Pass::Redirected) => (TC_ACT_UNSPEC, 0),
            Verdict::Pass(_) => (TC_ACT_UNSPEC, mark(frame)),
            Verdict::Drop(_) => (TC_ACT_SHOT, mark(frame)),
        };
        let differs = (output.code, output.context.mark) != (code, mark);
        if differs || output.bytes != expected.bytes {
            let Output { code, context, .. } = &output;
            let (mark, bytes) = (context.mark, &output.bytes);
            return Some(Err(format!(
                "{verdict:?}, but code {code}, mark {mark:#x}, {bytes:02x?}"
            )));
        }
        Some(Ok(verdict))
    }

    /// Asserts that the kernel's judgement is the host's, to the byte, is counted once, and that both remember the
    /// same; returns it, or `None` if the kernel runs no such packet.
    #[track_caller]
    pub(crate) fn assert_agrees(&self, hook: Hook, frame: &Frame) -> Option<Outcome> {
        let mut expected = self.counts();
        let verdict = self.judge_both(hook, frame)?;
        let verdict = verdict.unwrap_or_else(|how| panic!("{hook:?}: {how}: {frame:02x?}"));
        let count = &mut expected[stats::index(hook, verdict.outcome()) as usize];
        count.packets += 1;
        count.bytes += frame.bytes.len() as u64;
        let counts = self.counts();
        assert_eq!(counts, expected, "{hook:?}, {verdict:?}: {frame:02x?}");
        let flows = self.maps.flows.borrow();
        assert_eq!(self.flows(), *flows, "{hook:?}, {verdict:?}: {frame:02x?}");
        Some(verdict.outcome())
    }

    /// Asserts the outcome, and that the host agrees.
    #[track_caller]
    pub(crate) fn assert_outcome(&self, hook: Hook, frame: &Frame, outcome: Outcome) {
        let judged = self.assert_agrees(hook, frame);
        assert_eq!(judged, Some(outcome), "{hook:?}: {frame:02x?}");
    }
}

/// The mark that the frame comes with.
const fn mark(frame: &Frame) -> u32 {
    if frame.redirected { REDIRECTED } else { MARK }
}
