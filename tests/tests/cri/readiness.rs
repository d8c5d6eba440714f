//! What the runtime tells kubelet of the network.

use std::fs;

use beeline_tests::config::CONFLIST;

use crate::containerd::Containerd;
use crate::fixture::{one_node, rename_in};
use crate::pod::{self, Pod};

#[test]
fn the_network_is_ready_as_long_as_there_is_a_configuration() {
    let (_topology, node) = one_node();
    let list = node.conf_dir().join(CONFLIST);
    fs::remove_file(&list).expect("remove");
    let mut containerd = Containerd::start(&node);
    let problem = |containerd: &mut Containerd| containerd.client().network_problem();
    let why = problem(&mut containerd).expect("status");
    assert!(why.is_some(), "ready without a configuration");
    let early = containerd.client().run(&pod::config(&containerd, "early"));
    assert!(early.is_err(), "a pod without a network");

    rename_in(&node.config(), &node);
    let ready = |containerd: &mut Containerd| Ok(problem(containerd)?.is_none());
    containerd.wait_for("the network", ready).expect("ready");
    let (one, two) = (Pod::run(&containerd, "one"), Pod::run(&containerd, "two"));
    one.ping(two.ip(), 2);

    fs::remove_file(&list).expect("remove");
    let gone = |containerd: &mut Containerd| Ok(problem(containerd)?.is_some());
    containerd.wait_for("no network", gone).expect("not ready");
    // Pods that are up do not mind.
    one.ping(two.ip(), 2);
}
