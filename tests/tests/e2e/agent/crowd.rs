//! Crowds of pods that come and go while agents end and start, and look at their node.

use std::sync::Mutex;

use beeline_tests::cli;
use beeline_tests::snapshot::Snapshot;
use serde_json::json;

use super::lab::{Lab, write_template};
use crate::churn::assert_no_process_left;
use crate::crowd::{assert_on_one_path, come_and_go, delete_all};

#[test]
fn soak_crowds_come_and_go_while_an_agent_and_an_administrator_change_their_node() {
    let (lab, [node, other]) = Lab::new::<2>(1);
    write_template(&node, |list| list["cniVersion"] = json!("1.1.0"));
    let [agent, _other] = lab.agents([&node, &other]);
    let far = other.add_pod("far");
    let (one, two) = (node.add_pod("one"), node.add_pod("two"));
    let before = Snapshot::of(&node);
    let agent = Mutex::new(Some(agent));
    let came = come_and_go([&one, &two], &far, |valid| {
        let mut agent = agent.lock().expect("nobody else");
        // One is killed, and the next one makes all of the node anew.
        agent.take().expect("an agent").kill();
        cli::unload(&node).expect("unload");
        let next = lab.agent(&node);
        node.runtime().gc(valid).expect("executed").expect_success();
        cli::load(&node, &[]).expect("load");
        next.wait_until_ready();
        *agent = Some(next);
    });
    // The last one ended with the thread that had started it.
    drop(agent);
    let agent = lab.agent(&node);
    agent.wait_until_ready();
    let mut pods = vec![&one, &two];
    pods.extend(&came);
    assert_on_one_path(&node, &pods);
    drop(pods);
    delete_all(came);
    agent.assert_without_drift();
    drop(agent);
    assert_no_process_left(&node);
    before.assert_unchanged(&node);
}
