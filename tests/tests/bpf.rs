//! The built object in the kernel, one packet at a time (`BPF_PROG_TEST_RUN`).
//!
//! Every run is held against the packet logic on the host: same verdict, bytes and mark, the one counter, and the same
//! flows remembered. What the kernel does with a redirect is not run here. Packets that it takes for no test run go over
//! a veth, in `wire`.

#[path = "bpf/lab.rs"]
mod lab;
#[path = "bpf/object.rs"]
mod object;
#[path = "bpf/sandbox.rs"]
mod sandbox;

#[path = "bpf/checksums.rs"]
mod checksums;
#[path = "bpf/eviction.rs"]
mod eviction;
#[path = "bpf/from_pod.rs"]
mod from_pod;
#[path = "bpf/from_uplink.rs"]
mod from_uplink;
#[path = "bpf/mutated.rs"]
mod mutated;
#[path = "bpf/stack_flows.rs"]
mod stack_flows;
#[path = "bpf/verifier.rs"]
mod verifier;
#[path = "bpf/wire.rs"]
mod wire;
