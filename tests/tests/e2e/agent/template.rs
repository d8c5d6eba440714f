//! What an agent is configured with, and what else is where the runtime looks.

use std::fs;

use serde_json::json;

use super::lab::{Lab, bin_dir, conflist, template, write_template};
use super::process::holds;

#[test]
fn a_template_that_cannot_be_used_is_named_with_the_reason_until_it_can() {
    let (lab, [node]) = Lab::new(1);
    write_template(&node, |list| {
        let peers = json!([{"cidr": "10.244.9.0/24", "node": "192.168.1.19"}]);
        list["plugins"][0]["datapath"]["peers"] = peers;
    });
    let agent = lab.agent(&node);
    let file = template(&node).display().to_string();
    let peers = "datapath.peers: must not be there, the agent keeps the peers";
    agent.wait_until_refused(&[&file, peers]);
    agent.wait_until_logged(peers);
    assert!(!conflist(&node).exists());
    fs::write(template(&node), "{\"cniVersion\": ").expect("write");
    agent.wait_until_refused(&[&file, "decode", "EOF while parsing", "line 1"]);
    write_template(&node, |_| {});
    agent.wait_until_ready();
    let pod = node.add_pod("pod");
    // What is wrong with it later does no harm to the node.
    fs::write(template(&node), "[").expect("write");
    agent.wait_until_logged("decode: ");
    agent.wait_until_ready();
    assert!(conflist(&node).exists());
    pod.ping(pod.gateway(), 1).assert_received();
}

#[test]
fn a_configuration_that_runtimes_take_instead_is_named() {
    let (lab, [node]) = Lab::new(1);
    let agent = lab.agent(&node);
    agent.wait_until_ready();
    let rival = node.conf_dir().join("05-other.conflist");
    fs::write(&rival, "{}").expect("write");
    let name = rival.display().to_string();
    agent.wait_until_refused(&[&name, "comes before 10-beeline.conflist"]);
    fs::remove_file(&rival).expect("remove");
    agent.wait_until_ready();
}

#[test]
fn a_chained_plugin_is_left_out_and_named_as_long_as_it_is_not_there() {
    let (lab, [node]) = Lab::new(1);
    write_template(&node, |list| {
        let chained = json!({"type": "portmap", "capabilities": {"portMappings": true}});
        list["plugins"]
            .as_array_mut()
            .expect("plugins")
            .push(chained);
    });
    let agent = lab.agent(&node);
    agent.wait_until_ready();
    agent.wait_until_logged("plugin portmap: not in --bin-dir, left out of the configuration");
    holds(&conflist(&node), "portmap").expect_err("left out");
    fs::write(bin_dir(&node).join("portmap"), "").expect("write");
    agent.wait("portmap in the configuration", || {
        holds(&conflist(&node), "portmap")
    });
    agent.wait_until_ready();
}
