//! Hostile input: what those who may write configurations or name things could put there to reach more than a pod's
//! network. With meta-plugins such as multus, tenants write configurations.

mod children;
mod limits;
mod names;
mod paths;

use std::sync::Arc;

use beeline_tests::node::Node;

/// Whether any process has said that it panicked.
#[track_caller]
fn assert_no_panic(outcome: &beeline_tests::outcome::Outcome) {
    assert!(!outcome.stderr.contains("panicked"), "{outcome}");
}

/// What is in nftables on a node, in the form that `nft -f` reads.
fn ruleset(node: &Arc<Node>) -> String {
    let mut list = node.netns().command("nft");
    beeline_tests::exec::stdout(list.args(["--stateless", "list", "ruleset"])).expect("nft")
}
