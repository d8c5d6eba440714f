//! A runtime that ends while its pods go on: upgraded, or killed.

use beeline_tests::icmp::{self, Echo};
use beeline_tests::plan::Families;
use beeline_tests::snapshot::Snapshot;

use crate::containerd::Containerd;
use crate::fixture::{fetch, nodes};
use crate::pod::Pod;

/// Ends containerd by a signal while pods are up, and starts it again.
#[track_caller]
fn assert_pods_outlive(signal: &str) {
    let (_topology, [a, b]) = nodes(Families::V4);
    let (mut on_a, on_b) = (Containerd::start(&a), Containerd::start(&b));
    let (first, far) = (Pod::run(&on_a, "first"), Pod::run(&on_b, "far"));
    let before = Snapshot::of(&a);
    let pod = Pod::run(&on_a, "pod");
    let with_pod = Snapshot::of(&a);

    on_a.end(signal);
    with_pod.assert_unchanged(&a);
    far.ping(pod.ip(), 3);
    far.fetch(pod.ip(), 80);
    icmp::ping(a.netns(), &Echo::to(pod.ip())).assert_received();
    fetch(a.netns(), (pod.ip(), 80).into()).expect("from the node");

    on_a.resume().expect("resume");
    pod.ping(far.ip(), 3);
    pod.fetch(first.ip(), 80);
    let new = Pod::run(&on_a, "new");
    assert!(![first.ip(), pod.ip()].contains(&new.ip()), "{}", new.ip());
    new.ping(pod.ip(), 3);

    new.delete();
    with_pod.assert_unchanged(&a);
    pod.delete();
    before.assert_unchanged(&a);
    first.ping(far.ip(), 3);
}

#[test]
fn pods_talk_while_the_runtime_is_stopped_and_are_cleaned_up_after_its_restart() {
    assert_pods_outlive("TERM");
}

#[test]
fn pods_talk_while_the_runtime_is_dead_and_are_cleaned_up_after_its_restart() {
    assert_pods_outlive("KILL");
}
