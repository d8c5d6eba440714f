//! Plugins of the reference's that come after beeline in the chain; `services::host_ports` and `shaping` have more.

mod firewall;
mod tuning;
mod whole;

use std::sync::Arc;
use std::time::{Duration, Instant};

use beeline_tests::node::Node;
use beeline_tests::pod::Pod;
use beeline_tests::wait;
use serde_json::{Value, json};

/// How `tuning` is chained; `settings` are its own.
fn tuning(node: &Node, mut settings: Value) -> Value {
    settings["type"] = json!("tuning");
    // It writes down there what is to be restored.
    settings["dataDir"] = json!(node.directory().join("tuning"));
    settings
}

/// Waits until something holds, as what sees to it runs beside the chain.
#[track_caller]
fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = wait::deadline(Duration::from_secs(8));
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Adds a pod with plugins chained behind the node's own as `change` leaves it; the next pods have none again.
#[track_caller]
fn add_chained(
    node: &Arc<Node>,
    name: &str,
    change: impl FnOnce(&mut Value),
    chained: &[Value],
) -> Pod {
    let config = node.config().with(change);
    let chain = chained.iter().cloned();
    let config = chain.fold(config, |config, plugin| config.chain(plugin));
    config.install().expect("install");
    node.add_pod(name)
}
