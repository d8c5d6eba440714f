//! Packets, maps and a small cluster in memory: for this crate's tests, and for those that compare the loaded
//! programs with this crate.

mod build;
mod checksum;
mod cluster;
mod frame;
mod maps;
mod mutate;
mod rules;
mod scenario;
mod seeds;

pub use build::{Builder, Transport, packet};
pub use checksum::{checksum, checksums_hold};
pub use cluster::{
    Attached, CLIENT, FAR, FAR_MAC, FEATURES, GATEWAY, Node, OVERLAY, OVERLAY_MAC, PEER, SERVER,
    STRANGER, SUBPEER, THIRD, UPLINK, UPLINK_MAC, VNI, cluster,
};
pub use frame::Frame;
pub use maps::HostMaps;
pub use mutate::{Random, mutate};
pub use rules::check;
pub use scenario::{SCENARIO, Scenario, Tally, fuzz_packets, judge};
pub use seeds::seeds;
