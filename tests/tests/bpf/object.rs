//! The object itself: what it loads and pins.

use std::{fs, path::Path};

use aya::maps::{Array, HashMap, Map, MapData, MapInfo, PerCpuArray};
use beeline_common::{
    Address, Cidr, Count, Features, Flow, Hook, Peer, Pod, Port, PrefixTable,
    abi::{MAX_PEERS, MAX_PODS, MIN_FLOWS, names},
    stats,
    testing::{CLIENT, FEATURES, cluster},
};
use beeline_tests::kernel::is_since;

use crate::{
    lab::{Lab, lab, lab_with, load, load_telling, program},
    sandbox::{BPFFS, sandboxed},
};

const NAMES: [&str; 7] = [
    names::PODS,
    names::PORTS,
    names::PEERS,
    names::PREFIXES,
    names::STACK_FLOWS,
    names::STACK_CONNS,
    names::STATS,
];

/// As few flows as a node has at least.
const FLOWS: u32 = MIN_FLOWS;

fn pin(name: &str) -> MapData {
    let path = Path::new(BPFFS).join(name);
    MapData::from_pin(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn the_maps_are_pinned_by_their_names_and_no_others() {
    lab(|_| {
        let mut pinned: Vec<_> = fs::read_dir(BPFFS)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            // A kernel with CONFIG_BPF_PRELOAD puts its own files here.
            .filter(|name| !name.ends_with(".debug"))
            .collect();
        pinned.sort();
        let mut expected = NAMES.to_vec();
        expected.sort();
        assert_eq!(pinned, expected);
        for name in NAMES {
            let info = MapInfo::from_pin(Path::new(BPFFS).join(name)).unwrap();
            assert_eq!(info.name_as_str(), Some(name));
        }
    });
}

#[test]
fn pinned_maps_reopen_with_the_layout_of_the_abi() {
    lab(|_| {
        let cluster = cluster();
        let pods: HashMap<_, Address, Pod> = Map::HashMap(pin(names::PODS)).try_into().unwrap();
        for (address, pod) in &cluster.pods {
            assert_eq!(pods.get(address, 0).unwrap(), *pod);
        }
        let peers: HashMap<_, Cidr, Peer> = Map::HashMap(pin(names::PEERS)).try_into().unwrap();
        for (cidr, peer) in &cluster.peers {
            assert_eq!(peers.get(cidr, 0).unwrap(), *peer);
        }
        let tables: Array<_, PrefixTable> = Map::Array(pin(names::PREFIXES)).try_into().unwrap();
        assert_eq!(tables.len(), 2);
        for (family, table) in (0..).zip(cluster.prefixes) {
            assert_eq!(Some(tables.get(&family, 0).unwrap()), table);
        }
        let counts: PerCpuArray<_, Count> = Map::PerCpuArray(pin(names::STATS)).try_into().unwrap();
        assert_eq!(counts.len(), stats::HOOKS * stats::OUTCOMES);
        for (name, entries) in [(names::PODS, MAX_PODS), (names::PEERS, MAX_PEERS)] {
            assert_eq!(pin(name).info().unwrap().max_entries(), entries);
        }
    });
}

#[test]
fn a_second_load_takes_over_the_pinned_maps() {
    lab(|_| {
        let mut second = load(FEATURES, FLOWS);
        for hook in Hook::ALL {
            program(&mut second, hook).load().unwrap();
        }
        let pods = second.map(names::PODS).unwrap();
        let pods: HashMap<_, Address, Pod> = pods.try_into().unwrap();
        let address = Address::from_v4(CLIENT.v4.octets());
        assert_eq!(pods.get(&address, 0).unwrap().ifindex, CLIENT.ifindex);
    });
}

#[test]
fn pins_outlive_the_loader() {
    sandboxed(|| {
        drop(load(FEATURES, FLOWS));
        for name in NAMES {
            pin(name);
        }
    });
}

/// Says how large the programs are (`--nocapture` shows it).
#[test]
fn the_programs_are_small_enough_to_read() {
    for features in [FEATURES, Features::default()] {
        eprintln!("{features:?}:");
        lab_with(features, FLOWS, |lab| {
            for hook in Hook::ALL {
                let info = program(&mut lab.ebpf, hook).info().unwrap();
                assert_eq!(info.name_as_str(), Some(hook.name()));
                assert_eq!(info.gpl_compatible(), Some(true));
                let instructions = info.size_translated().expect("a size") / 8;
                let verified = info.verified_instruction_count();
                assert!(verified.is_some() || !is_since(5, 16), "told since 5.16");
                let verified = verified.unwrap_or(0);
                eprintln!(
                    "  {}: {instructions} instructions, {} bytes of machine code, {verified} verified",
                    hook.name(),
                    info.size_jitted(),
                );
                // The verifier gives up at a million; far below that, something went wrong.
                assert!(verified < 50_000, "{verified}");
            }
        });
    }
}

#[test]
fn what_a_node_does_not_use_is_not_in_its_programs() {
    let size = |lab: &mut Lab| {
        let info = program(&mut lab.ebpf, Hook::FromPod).info().unwrap();
        info.size_translated().expect("a size")
    };
    let with = |anti_spoof, vni| lab_with(Features { anti_spoof, vni }, FLOWS, size);
    let nothing = with(false, 0);
    assert!(nothing < with(true, 0), "the rule against spoofing");
    assert!(nothing < with(false, 7), "the overlay");
    assert!(with(true, 0) < with(true, 7));
}

#[test]
fn what_tells_of_packets_is_not_in_the_programs_while_nobody_listens() {
    sandboxed(|| {
        let sizes = |monitor| {
            let mut object = load_telling(FEATURES, FLOWS, monitor);
            Hook::ALL.map(|hook| {
                let program = program(&mut object, hook);
                program.load().unwrap();
                program.info().unwrap().size_translated().expect("a size")
            })
        };
        let (silent, telling) = (sizes(0), sizes(128));
        for (silent, telling) in silent.into_iter().zip(telling) {
            // What looks and what tells are functions of some 20 and 60 instructions, of 8 bytes each.
            assert!(silent + 80 * 8 < telling, "{silent} bytes, {telling}");
        }
    });
}

#[test]
fn the_maps_of_flows_are_as_large_as_they_shall_be() {
    lab_with(FEATURES, 12_345, |_| {
        for name in [names::STACK_FLOWS, names::STACK_CONNS] {
            let info = pin(name).info().unwrap();
            assert_eq!(info.max_entries(), 12_345);
            assert_eq!(info.key_size() as usize, size_of::<Flow>());
            assert_eq!(info.value_size(), 4);
        }
        let info = pin(names::PORTS).info().unwrap();
        assert_eq!(info.value_size() as usize, size_of::<Port>());
    });
}
