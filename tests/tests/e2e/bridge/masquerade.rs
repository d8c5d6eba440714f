//! `ipMasq` and `ipMasqBackend`.

use beeline_tests::topology::OUTSIDE;
use beeline_tests::traffic::tcp_echo;
use serde_json::json;

use super::{call, layer_2};
use crate::fixture::{configure, one_node};
use crate::refusals::{refused, sandbox};

#[test]
fn either_backend_masquerades() {
    for backend in ["iptables", "nftables"] {
        let (topology, node) = one_node();
        configure(&node, |plugin| plugin["ipMasqBackend"] = json!(backend));
        let pod = node.add_pod("pod");
        let seen = tcp_echo(pod.namespace(), topology.outside(), OUTSIDE, b"hello");
        assert_eq!(seen.expect("TCP").ip(), node.address(), "{backend}");
        pod.delete().expect("DEL");
    }
}

#[test]
fn an_unknown_backend_is_refused_and_nothing_is_left() {
    let (_topology, node) = one_node();
    let (_namespace, attachment) = sandbox(&node);
    let config = node
        .config()
        .with(|plugin| plugin["ipMasqBackend"] = json!("pf"));
    let message = refused(&node, &attachment, &config.stdin().to_string(), &[7]);
    assert!(message.contains("ipMasqBackend \"pf\""), "{message}");
}

#[test]
fn without_addresses_nothing_is_masqueraded() {
    let (_topology, node) = one_node();
    let (_namespace, attachment) = sandbox(&node);
    let mut stdin = layer_2(&node);
    stdin["ipMasq"] = json!(true);
    call(&node, "ADD", &attachment, &stdin).expect_success();
    let mut list = node.netns().command("nft");
    let rules = beeline_tests::exec::stdout(list.args(["list", "ruleset"])).expect("nft");
    assert!(!rules.contains("masquerade"), "{rules}");
    call(&node, "DEL", &attachment, &stdin).expect_success();
}
