//! Taking beeline off a node that an agent has set up.

use std::fs;
use std::time::Duration;

use beeline_tests::snapshot::Snapshot;
use beeline_tests::sweep;
use beeline_tests::wait::wait_for;

use super::lab::{Lab, bin_dir, conflist};
use super::process::uninstall;
use crate::uninstall::forward;

#[test]
fn after_an_uninstallation_a_node_whose_pods_are_gone_is_as_it_was_before_the_agent() {
    let (lab, [a, b]) = Lab::new(1);
    // Forwarding stays, as others may need it by now.
    forward(&a);
    let before = Snapshot::of(&a);
    let [agent, _other] = lab.agents([&a, &b]);
    let (near, far) = (a.add_pod("near"), b.add_pod("far"));
    near.ping(far.ip(), 1).assert_received();
    near.delete().expect("DEL");
    agent.stop();
    let said = uninstall(&a).unwrap_or_else(|error| panic!("{error:#}"));
    assert!(!said.contains("stays"), "{said}");
    let clean = wait_for("a clean node", Duration::from_secs(30), || {
        let left = before.diff(&Snapshot::of(&a));
        anyhow::ensure!(left.is_empty(), "{left}");
        Ok(())
    });
    clean.unwrap_or_else(|error| panic!("{error:#}"));
    assert!(!conflist(&a).exists());
    let files = [a.state_dir(), a.data_dir(), bin_dir(&a), a.conf_dir()];
    let files = files.iter().flat_map(|directory| sweep::walk(directory));
    assert_eq!(files.collect::<Vec<_>>(), Vec::<std::path::PathBuf>::new());
    // It can come again.
    fs::copy(a.plugin().path(), bin_dir(&a).join("beeline")).expect("copy");
    lab.agent(&a).wait_until_ready();
    a.add_pod("again").ping(far.ip(), 2).assert_received();
}
