//! The keys of the bridge plugin, each with what it does in the kernel.

mod check;
mod gateway;
mod interface;
mod lifecycle;
mod mac;
mod masquerade;
mod port;
mod routes;
mod vlan;

use beeline_tests::exec;
use beeline_tests::netns::Namespace;
use beeline_tests::node::Node;
use beeline_tests::outcome::Outcome;
use beeline_tests::runtime::Attachment;
use serde_json::{Value, json};

/// What `ip -details link` says of an interface; panics if there is none.
#[track_caller]
pub(crate) fn link(namespace: &Namespace, name: &str) -> Value {
    let found = ip(namespace, &["-details", "link", "show", "dev", name]);
    found[0].clone()
}

/// Names of all interfaces of a namespace.
#[track_caller]
pub(crate) fn links(namespace: &Namespace) -> Vec<String> {
    let all = ip(namespace, &["link"]);
    let names = all.iter().map(|link| link["ifname"].as_str());
    names.flatten().map(str::to_owned).collect()
}

/// The global addresses of an interface with their prefix lengths, IPv4 first.
#[track_caller]
pub(crate) fn addresses(namespace: &Namespace, name: &str) -> Vec<String> {
    let found = ip(
        namespace,
        &["address", "show", "dev", name, "scope", "global"],
    );
    let all = found.iter().filter_map(|link| link["addr_info"].as_array());
    let text = |address: &Value| {
        let local = address["local"].as_str()?;
        Some(format!("{local}/{}", address["prefixlen"]))
    };
    all.flatten().filter_map(text).collect()
}

/// What `ip -json` says.
#[track_caller]
pub(crate) fn ip(namespace: &Namespace, arguments: &[&str]) -> Vec<Value> {
    let mut command = namespace.command("ip");
    exec::json(command.arg("-json").args(arguments)).expect("ip")
}

/// Runs commands of `ip`, which must succeed.
#[track_caller]
pub(crate) fn run_ip(namespace: &Namespace, commands: &[&str]) {
    let commands: Vec<_> = commands.iter().map(|&command| command.to_owned()).collect();
    exec::ip_batch(namespace, &commands).expect("ip");
}

/// A sysctl as a namespace has it.
#[track_caller]
pub(crate) fn sysctl(namespace: &Namespace, key: &str) -> String {
    let read = namespace.within(|| std::fs::read_to_string(format!("/proc/sys/{key}")));
    read.unwrap_or_else(|error| panic!("{key}: {error}"))
        .trim()
        .to_owned()
}

/// Executes the node's plugin for one verb, whatever comes of it.
#[track_caller]
pub(crate) fn call(node: &Node, verb: &str, attachment: &Attachment, stdin: &Value) -> Outcome {
    let stdin = stdin.to_string();
    let outcome = node.runtime().call(verb, attachment, stdin.as_bytes());
    outcome.expect("executed, with one JSON document")
}

/// A configuration without IPAM, and without what only makes sense with it.
pub(crate) fn layer_2(node: &Node) -> Value {
    let config = node.config().with(|plugin| {
        plugin["ipam"] = json!({});
        plugin["isGateway"] = json!(false);
        plugin["ipMasq"] = json!(false);
    });
    config.stdin()
}

/// The name of a result's interface: 0 is the bridge, 1 the host veth, 2 the container's.
#[track_caller]
pub(crate) fn interface(result: &Value, index: usize) -> &str {
    let name = result["interfaces"][index]["name"].as_str();
    name.unwrap_or_else(|| panic!("no interface {index}: {result}"))
}
