//! beeline: a CNI plugin whose pods' packets make a beeline.
//!
//! `cni` and `cli` are the two faces of the binary. They use `node`, which keeps what the pods of a network share, and
//! `ipam`, `net`, `nft` and `datapath`, which do not know of each other or of CNI. Only `net` speaks rtnetlink, only
//! `datapath` uses aya, and only `cni` writes to standard output in CNI mode.

pub mod child;
pub mod cli;
pub mod cni;
pub mod datapath;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod hash;
pub mod host;
pub mod ipam;
pub mod net;
pub mod nft;
pub mod node;
mod room;
