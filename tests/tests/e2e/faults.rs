//! Every step of ADD and DEL is made to fail in turn: after an ADD the node is as before, after a DEL another DEL
//! finishes the work.
//!
//! The steps are those that the plugin's source names with `fault!`; `BEELINE_FAILPOINTS_BIN` names a build in which
//! they can fail.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use beeline_tests::exec;
use beeline_tests::netns::Namespace;
use beeline_tests::node::Node;
use beeline_tests::snapshot::Snapshot;
use beeline_tests::sweep;
use serde_json::{Value, json};

use crate::fixture::two_nodes;
use crate::refusals::sandbox;

/// The steps that can be made to fail, in no order.
fn steps(prefix: &str) -> Vec<String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("plugin");
    let files = sweep::walk(&source.join("src"));
    let texts = files
        .iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| fs::read_to_string(path).expect("source"));
    let steps: Vec<String> = texts
        .flat_map(|text| {
            let named = text.split("fault!(\"").skip(1);
            named
                .filter_map(|rest| rest.split('"').next().map(str::to_owned))
                .collect::<Vec<_>>()
        })
        .filter(|step| step.starts_with(prefix))
        .collect();
    assert!(!steps.is_empty(), "no step is named {prefix}…");
    steps
}

pub(crate) fn faulty_build() -> PathBuf {
    let build = std::env::var_os("BEELINE_FAILPOINTS_BIN").map_or_else(
        || {
            let target = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("target");
            target.join("failpoints/debug/beeline")
        },
        PathBuf::from,
    );
    assert!(
        build.is_file(),
        "{}: missing; `cargo xtask test` builds it",
        build.display()
    );
    build
}

/// Insists on eBPF: in mode `auto` a failure of the datapath is none of ADD.
fn config(node: &Node) -> Value {
    node.config().mode("ebpf").stdin()
}

/// Has each step fail, and asserts that neither the node nor the sandbox shows a trace.
fn assert_no_trace_of_add(node: &Arc<Node>, config: &Value, steps: &[String]) {
    let build = faulty_build();
    let (namespace, attachment) = sandbox(node);
    let before = Snapshot::of(node);
    for step in steps {
        let outcome = node
            .runtime()
            .faulty(&build, step, "ADD", &attachment, config)
            .expect("executed, with one JSON document");
        let message = outcome.expect_error(&[999]);
        assert!(message.contains(step.as_str()), "{step}: {message}");
        let diff = before.diff(&Snapshot::of(node));
        assert!(diff.is_empty(), "{step}: the node changed:\n{diff}");
        assert_only_loopback(&namespace, step);
    }
}

fn assert_only_loopback(namespace: &Namespace, step: &str) {
    let links = exec::stdout(namespace.command("ip").args(["-o", "link"])).expect("ip");
    assert_eq!(
        links.lines().count(),
        1,
        "{step}: left in the sandbox: {links}"
    );
}

#[test]
fn an_add_that_fails_at_any_step_leaves_a_new_node_as_it_was() {
    let (_topology, [node, _other]) = two_nodes();
    let steps = [steps("setup-"), steps("add-")].concat();
    assert_no_trace_of_add(&node, &config(&node), &steps);
}

#[test]
fn an_add_that_fails_at_any_step_leaves_a_node_with_pods_as_it_was() {
    let (_topology, [node, other]) = two_nodes();
    let install = |node: &Arc<Node>| node.config().mode("ebpf").install().expect("install");
    install(&node);
    let (first, far) = (node.add_pod("first"), other.add_pod("far"));
    assert_no_trace_of_add(&node, &config(&node), &steps("add-"));
    first.ping(far.ip(), 1).assert_received();
}

#[test]
fn an_add_that_fails_leaves_no_check_of_macs() {
    let (_topology, [node, _other]) = two_nodes();
    let checking = |mode| {
        let config = node.config().mode(mode);
        config.with(|plugin| plugin["macspoofchk"] = true.into())
    };
    // The table of all checks stays, as with the reference plugin.
    checking("ebpf").install().expect("install");
    let _first = node.add_pod("first");
    assert_no_trace_of_add(&node, &checking("ebpf").stdin(), &steps("add-"));
}

#[test]
fn an_add_succeeds_after_one_that_failed() {
    let (_topology, [node, _other]) = two_nodes();
    let steps = [steps("setup-"), steps("add-")].concat();
    assert_no_trace_of_add(&node, &config(&node), &steps);
    let (one, two) = (node.add_pod("one"), node.add_pod("two"));
    one.ping(two.ip(), 1).assert_received();
}

#[test]
fn a_del_that_fails_at_any_step_is_finished_by_another() {
    let (_topology, [node, _other]) = two_nodes();
    node.config().mode("ebpf").install().expect("install");
    let _first = node.add_pod("first");
    let (build, config) = (faulty_build(), config(&node));
    let before = Snapshot::of(&node);
    for step in steps("del-") {
        let (_namespace, attachment) = sandbox(&node);
        let runtime = node.runtime();
        runtime.add(&attachment).expect("executed").expect_success();
        let failed = runtime
            .faulty(&build, &step, "DEL", &attachment, &config)
            .expect("executed, with one JSON document");
        failed.expect_error(&[999]);
        runtime
            .del(&attachment, Some(&json!({})))
            .expect("executed")
            .expect_success();
        let diff = before.diff(&Snapshot::of(&node));
        assert!(
            diff.is_empty(),
            "{step}: left after the second DEL:\n{diff}"
        );
    }
}
