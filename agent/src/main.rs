//! `beeline-agent`: the node daemon of cluster mode.
//!
//! The state of the cluster lives in an engine that already exists, Kubernetes or etcd. A [`backend`] watches it and says
//! which nodes there are; [`view`] tells what that means for this node; [`agent`] makes it so, by the plugin's own
//! library: maps, routes, masquerade and the conflist. Packets and ADDs need none of this to run.
//!
//! ```text
//! kubernetes ┐
//!            ├─ Event ─> view ─> agent ─> beeline::node (maps, routes), conflist
//! etcd ──────┘                     └────> health, metrics ─> http
//! ```

mod backend;
#[cfg_attr(not(test), expect(dead_code, reason = "the agent's loop starts it"))]
mod calls;
mod health;
#[cfg_attr(not(test), expect(dead_code, reason = "the agent's loop starts it"))]
mod http;
#[cfg_attr(not(test), expect(dead_code, reason = "the agent's loop starts it"))]
mod metrics;
mod options;
mod view;

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::SUCCESS
}
