//! What beeline's eBPF programs and its user space have in common: the layout of the maps, and all packet logic.
//!
//! The logic is ordinary Rust over two traits, [`Packet`] and [`Maps`]. In the kernel they stand for an skb and the
//! BPF maps, in tests for a byte slice and hash maps.

#![no_std]

pub mod abi;
pub mod address;
pub mod ethernet;
pub mod flow;
pub mod forward;
pub mod ip;
pub mod mac;
pub mod packet;
mod spoof;
pub mod stats;
pub mod sticky;

pub use abi::{ABI_VERSION, Cidr, Event, Peer, Pod, Port, Prefix, PrefixTable};
pub use address::{Address, Family};
pub use ethernet::Ethernet;
pub use flow::{Flow, Segment};
pub use forward::{Features, Maps, Verdict};
pub use mac::Mac;
pub use packet::{Packet, TooShort};
pub use stats::{Count, Drop, Hook, Outcome, Pass};
pub use sticky::Table;

#[cfg(any(test, feature = "testing"))]
extern crate std;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
