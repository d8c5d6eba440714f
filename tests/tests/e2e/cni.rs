//! What the plugin says on standard output.

use beeline_tests::exec;
use beeline_tests::runtime::Attachment;
use serde_json::{Value, json};

use crate::fixture::one_node;

/// Makes a pod with one `cniVersion` and returns its ADD's result.
fn result_of(version: &str) -> Value {
    let (_topology, node) = one_node();
    node.config().version(version).install().expect("install");
    let pod = node.add_pod("pod");
    let result = pod.result().clone();
    assert_eq!(result["cniVersion"], version);
    assert_eq!(result["ips"][0]["address"], format!("{}/24", pod.ip()));
    assert_eq!(result["ips"][0]["gateway"], node.gateway().to_string());
    assert_eq!(result["routes"], json!([{ "dst": "0.0.0.0/0" }]));
    let names: Vec<_> = interfaces(&result)
        .iter()
        .map(|interface| interface["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        (names[0], names[2]),
        ("v-net-0", "eth0"),
        "bridge, host veth, container veth: {result}"
    );
    assert_eq!(
        result["ips"][0]["interface"], 2,
        "the index of eth0: {result}"
    );
    assert!(
        interfaces(&result)
            .iter()
            .all(|interface| interface["mac"].as_str().is_some_and(|mac| mac.len() == 17))
    );
    let sandboxes: Vec<_> = interfaces(&result)
        .iter()
        .map(|interface| interface["sandbox"].as_str())
        .collect();
    assert_eq!(
        sandboxes,
        [None, None, pod.attachment().netns.to_str()],
        "only eth0 is in the sandbox: {result}"
    );
    result
}

fn interfaces(result: &Value) -> &Vec<Value> {
    result["interfaces"].as_array().expect("interfaces")
}

#[test]
fn a_result_of_version_0_3_1_names_the_address_family() {
    let result = result_of("0.3.1");
    assert_eq!(result["ips"][0]["version"], "4");
    assert!(result["dns"].is_object(), "dns is always there: {result}");
}

#[test]
fn a_result_of_version_0_4_0_names_the_address_family() {
    let result = result_of("0.4.0");
    assert_eq!(result["ips"][0]["version"], "4");
    assert!(result["dns"].is_object(), "dns is always there: {result}");
}

#[test]
fn a_result_of_version_1_0_0_names_no_address_family() {
    let result = result_of("1.0.0");
    assert!(result["ips"][0].get("version").is_none(), "{result}");
}

#[test]
fn a_result_of_version_1_1_0_names_no_address_family() {
    let result = result_of("1.1.0");
    assert!(result["ips"][0].get("version").is_none(), "{result}");
}

#[test]
fn the_mac_in_the_result_is_that_of_the_interface() {
    let (_topology, node) = one_node();
    let pod = node.add_pod("pod");
    let link = exec::stdout(
        pod.namespace()
            .command("ip")
            .args(["-br", "link", "show", "eth0"]),
    )
    .expect("ip");
    assert!(link.contains(pod.mac()), "{link} has not {}", pod.mac());
}

#[test]
fn version_lists_what_is_supported_without_reading_anything_else() {
    let (_topology, node) = one_node();
    let result = node.runtime().version().expect("executed").expect_success();
    let supported = result["supportedVersions"]
        .as_array()
        .expect("supportedVersions");
    for version in ["0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        assert!(
            supported.contains(&json!(version)),
            "{version} is missing: {result}"
        );
    }
}

#[test]
fn without_a_command_it_says_what_it_is_on_stderr_and_succeeds() {
    let (_topology, node) = one_node();
    let outcome = node
        .runtime()
        .exec(node.plugin().path(), &[], b"")
        .expect("executed");
    assert!(outcome.is_success(), "{outcome}");
    assert_eq!(
        outcome.stdout,
        Value::Null,
        "nothing belongs on standard output"
    );
    assert!(outcome.stderr.contains("CNI"), "{outcome}");
}

#[test]
fn missing_variables_are_named_with_code_4() {
    let (_topology, node) = one_node();
    let stdin = node.config().stdin().to_string();
    let environment = [("CNI_COMMAND", "ADD"), ("CNI_CONTAINERID", "pod")];
    let outcome = node
        .runtime()
        .exec(node.plugin().path(), &environment, stdin.as_bytes())
        .expect("executed");
    let message = outcome.expect_error(&[4]);
    for variable in ["CNI_NETNS", "CNI_IFNAME", "CNI_PATH"] {
        assert!(
            message.contains(variable),
            "{variable} is not named: {message}"
        );
    }
    assert!(
        !message.contains("CNI_CONTAINERID"),
        "it is not missing: {message}"
    );
}

#[test]
fn an_unknown_command_has_code_4() {
    let (_topology, node) = one_node();
    let netns = node.netns().path();
    let who = Attachment::new("pod", netns);
    let stdin = node.config().stdin().to_string();
    node.runtime()
        .call("PAINT", &who, stdin.as_bytes())
        .expect("executed")
        .expect_error(&[4]);
}

#[test]
fn an_unknown_version_has_code_1() {
    let (_topology, node) = one_node();
    let who = Attachment::new("pod", "/run/x");
    let stdin = node.config().version("9.9.9").stdin().to_string();
    node.runtime()
        .call("ADD", &who, stdin.as_bytes())
        .expect("executed")
        .expect_error(&[1]);
}
