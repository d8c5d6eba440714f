//! The CNI protocol: what a runtime asks in the environment and on standard input, and what it is answered.

pub mod config;
pub mod env;
pub mod error;
pub mod json;
mod keys;
pub mod names;
pub mod result;
pub mod version;

pub use config::NetConf;
pub use env::{Args, Command, Env};
pub use error::{Code, Error, Result, WithCode};
pub use result::{CniResult, Interface};
pub use version::Version;
