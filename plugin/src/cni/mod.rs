//! The CNI protocol: what a runtime asks in the environment and on standard input, and what it is answered.

pub(crate) mod add;
mod call;
mod check;
pub mod config;
pub(crate) mod container;
mod del;
pub mod env;
pub mod error;
mod gc;
pub mod json;
mod keys;
pub mod names;
mod plan;
pub mod result;
mod status;
pub mod tell;
mod unplug;
pub mod version;
mod vlan;

pub use call::{Remains, main, part_of, plan_and_ipam_of, plan_of, remains_of};
pub use config::NetConf;
pub use env::{Args, Command, Env};
pub use error::{Code, Error, Result, WithCode};
pub use gc::collect;
pub use result::{CniResult, Interface};
pub use version::Version;
