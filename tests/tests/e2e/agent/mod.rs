//! The agent with a real etcd, whose members are in namespaces of their own: nodes from nothing to gone again.
//!
//! They need etcd and etcdctl; `BEELINE_AGENT_BIN` names the agent, by default it is the workspace's release build.

mod crowd;
mod drift;
mod dual_stack;
mod failures;
mod join;
mod lab;
mod leave;
mod overlay;
pub(crate) mod process;
mod takeover;
mod template;
