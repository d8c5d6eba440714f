//! The object, loaded over maps that hold the test cluster, and held against the host.

use std::{env, fs, path::PathBuf};

use std::os::fd::AsFd as _;

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, Map, MapData, PerCpuArray},
    programs::{ProgramFd, SchedClassifier},
};
use beeline_common::{
    Address, Cidr, Count, Hook, Outcome, Peer, Pod, PrefixTable, Verdict,
    abi::names,
    from_pod, from_uplink,
    ip::ETHERNET,
    stats,
    testing::{CLIENT, Frame, HostMaps, UPLINK, UPLINK_MAC, cluster},
};

use beeline_tests::test_run::{Context, Output, test_run};

use crate::sandbox::{BPFFS, sandboxed};

const TC_ACT_UNSPEC: i32 = -1;
const TC_ACT_REDIRECT: i32 = 7;

/// A mark that a packet brings along.
const MARK: u32 = 0xbee;

/// The loaded programs.
pub(crate) struct Lab {
    pub(crate) ebpf: Ebpf,
    programs: [ProgramFd; 2],
    stats: PerCpuArray<MapData, Count>,
    pub(crate) maps: HostMaps,
}

/// Runs `test` with the object loaded in a sandbox.
pub(crate) fn lab<T: Send>(test: impl FnOnce(&mut Lab) -> T + Send) -> T {
    sandboxed(|| test(&mut Lab::new()))
}

/// Loads the object, and its maps pinned in the sandbox.
pub(crate) fn load() -> Ebpf {
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
    EbpfLoader::new()
        .default_map_pin_directory(BPFFS)
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

impl Lab {
    fn new() -> Self {
        let mut ebpf = load();
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
        let mut lab = Self {
            ebpf,
            programs,
            stats,
            maps: HostMaps::default(),
        };
        lab.fill(cluster());
        lab
    }

    /// Puts into the kernel's maps what `maps` holds.
    fn fill(&mut self, maps: HostMaps) {
        let mut pods: HashMap<_, Address, Pod> = map_of(&mut self.ebpf, names::PODS)
            .try_into()
            .expect("pods");
        for (address, pod) in &maps.pods {
            pods.insert(address, pod, 0).expect("insert a pod");
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
        self.maps = maps;
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

    /// Lets the program of `hook` judge a packet of `CLIENT`, or at the uplink.
    pub(crate) fn run(
        &self,
        hook: Hook,
        frame: &Frame,
        device_checksum: bool,
    ) -> std::io::Result<Output> {
        let mut context = Context::default();
        context.mark = MARK;
        context.gso_size = frame.segment_size;
        context.ifindex = match hook {
            Hook::FromPod => CLIENT.ifindex,
            Hook::FromUplink => UPLINK,
        };
        let program = self.programs[hook as usize].as_fd();
        test_run(program, &frame.bytes, context, 1, device_checksum)
    }

    /// The host's judgement, of the packet as the kernel would receive it.
    pub(crate) fn judge(&self, hook: Hook, frame: &Frame) -> (Verdict, Frame) {
        let mut frame = frame.clone();
        frame.for_host = frame.destination() == Some(UPLINK_MAC);
        let verdict = match hook {
            Hook::FromPod => from_pod(&mut frame, &self.maps, CLIENT.ifindex),
            Hook::FromUplink => from_uplink(&mut frame, &self.maps),
        };
        (verdict, frame)
    }

    /// Asserts that the kernel's judgement is the host's, to the byte, and is counted once; returns it, or `None` if
    /// the kernel runs no such packet.
    pub(crate) fn assert_agrees(&self, hook: Hook, frame: &Frame) -> Option<Outcome> {
        let before = self.counts();
        let output = match self.run(hook, frame, false) {
            Ok(output) => output,
            Err(_) if refused(frame) => return None,
            Err(error) => panic!("{hook:?}: {error}: {frame:02x?}"),
        };
        let (verdict, expected) = self.judge(hook, frame);
        let (code, mark) = match verdict {
            Verdict::ToPod { .. } => (TC_ACT_REDIRECT, 0),
            Verdict::ToPeer { .. } => (TC_ACT_REDIRECT, MARK),
            Verdict::Pass(_) => (TC_ACT_UNSPEC, MARK),
        };
        assert_eq!(output.code, code, "{hook:?}, {verdict:?}: {frame:02x?}");
        assert_eq!(
            output.bytes, expected.bytes,
            "{hook:?}, {verdict:?}: {frame:02x?}"
        );
        assert_eq!(
            output.context.mark, mark,
            "{hook:?}, {verdict:?}: {frame:02x?}"
        );

        let mut expected = before;
        let count = &mut expected[stats::index(hook, verdict.outcome()) as usize];
        count.packets += 1;
        count.bytes += frame.bytes.len() as u64;
        assert_eq!(
            self.counts(),
            expected,
            "{hook:?}, {verdict:?}: {frame:02x?}"
        );
        Some(verdict.outcome())
    }

    /// Asserts the outcome, and that the host agrees.
    pub(crate) fn assert_outcome(&self, hook: Hook, frame: &Frame, outcome: Outcome) {
        assert_eq!(
            self.assert_agrees(hook, frame),
            Some(outcome),
            "{hook:?}: {frame:02x?}"
        );
    }
}
