//! beeline: a CNI plugin whose pods' packets make a beeline.
//!
//! `cni` and `cli` are the two faces of the binary. They use `node`, which keeps what the pods of a network share, and
//! `ipam`, `net`, `nft` and `datapath`, which do not know of each other or of CNI. Only `net` speaks rtnetlink, only
//! `datapath` uses aya, and only `cni` writes to standard output in CNI mode.

/// A step that tests can make fail by name, through the `FAILPOINTS` environment variable, in builds with the feature
/// `failpoints`; in others it is nothing.
macro_rules! fault {
    ($step:literal) => {
        fail::fail_point!($step, |_| Err(anyhow::anyhow!(
            "fault injected at {:?}",
            $step
        )));
    };
}

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
