//! The harness of beeline: nodes and pods as network namespaces, for end-to-end tests, benches and the demo.
//!
//! A [`topology::Topology`] is a handful of nodes on one switch; a [`pod::Pod`] is made by executing the real plugin
//! as a container runtime does. Everything is named after its owner and removed on drop, also when a test panics;
//! [`sweep`] removes what a killed process left.

pub mod bench;
pub mod cgroup;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod conntrack;
pub mod datapath;
pub mod demo;
pub mod dhcp;
pub mod etcd;
pub mod exec;
pub mod foreign;
pub mod icmp;
pub mod inject;
mod interrupt;
pub mod iperf;
pub mod kernel;
pub mod mounts;
pub mod netns;
pub mod node;
pub mod outcome;
pub mod picture;
pub mod plan;
pub mod pod;
pub mod process;
pub mod rr;
pub mod runtime;
pub mod services;
pub mod skip;
pub mod slowpath;
pub mod snapshot;
pub mod soak;
pub mod sockopt;
pub mod steady;
pub mod sweep;
pub mod test_run;
pub mod topology;
pub mod traffic;
mod underlay;
pub mod wait;
pub mod wire;
