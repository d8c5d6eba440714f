//! One agent after the other on a node.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use beeline_tests::datapath::{FROM_UPLINK, TO_PEER};

use super::lab::{Lab, assert_fast, bin_dir, wait_until_known};
use super::process::PORT;

#[test]
fn a_second_agent_waits_for_the_firsts_end_and_takes_over() {
    let (lab, [a, b]) = Lab::new(1);
    let first = lab.agent(&a);
    first.wait_until_ready();
    let near = a.add_pod("near");
    let second = lab.agent_with(&a, PORT + 1, &[]);
    second.wait_until_refused(&["another agent keeps it; waiting for its end"]);
    first.wait_until_ready();
    first.stop();
    second.wait_until_ready();
    // From now on it is the one who follows the cluster.
    let other = lab.agent(&b);
    other.wait_until_ready();
    wait_until_known(&[&a, &b]);
    let far = b.add_pod("far");
    assert_fast(&near, &far, [TO_PEER, FROM_UPLINK]);
    second.assert_without_drift();
}

#[test]
fn a_second_agent_takes_over_also_where_nobody_tells_it_of_the_cluster() {
    let (mut lab, [node]) = Lab::new(1);
    let first = lab.agent(&node);
    first.wait_until_ready();
    lab.etcd.kill(0);
    first.wait_until_logged("etcd: lost, going on as before");
    let second = lab.agent_with(&node, PORT + 1, &[]);
    second.wait_until_refused(&["another agent keeps it; waiting for its end"]);
    first.stop();
    second.wait_until_ready();
    node.add_pod("pod").delete().expect("DEL");
}

#[test]
fn an_agent_ends_when_it_is_told_to_also_in_the_middle_of_a_round() {
    let (lab, [node]) = Lab::new(1);
    let agent = lab.agent(&node);
    agent.wait_until_ready();
    // It waits ten seconds for the plugin's answer.
    let begun = node.directory().join("begun");
    let plugin = bin_dir(&node).join("beeline");
    let script = format!("#!/bin/sh\n: >{}\nexec sleep 60\n", begun.display());
    let temporary = plugin.with_extension("new");
    fs::write(&temporary, script).expect("write");
    fs::set_permissions(&temporary, fs::Permissions::from_mode(0o755)).expect("mode");
    fs::rename(&temporary, &plugin).expect("rename");
    agent.wait("a round", || Ok(fs::metadata(&begun).map(drop)?));
    let log = agent.stop();
    assert!(!log.contains("no answer"), "{log}");
    assert!(log.contains("ending; pods go on"), "{log}");
}
