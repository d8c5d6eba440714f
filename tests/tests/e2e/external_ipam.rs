//! Other IPAM plugins: addresses from the distribution's `static`, and what a plugin sees and says that is a script.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use beeline_tests::exec;
use beeline_tests::netns::Namespace;
use beeline_tests::node::Node;
use beeline_tests::snapshot::Snapshot;
use beeline_tests::topology::OUTSIDE;
use serde_json::{Value, json};

use crate::call::Call;
use crate::fixture::one_node;
use crate::ipam::ips;
use crate::refusals::sandbox;

#[test]
fn a_pod_with_an_address_from_elsewhere_reaches_the_outside_and_leaves_nothing() {
    let (_topology, node) = one_node();
    let with_address = |address: &str| {
        let addresses = json!([{ "address": address, "gateway": "10.99.0.1" }]);
        let routes = json!([{ "dst": "0.0.0.0/0" }]);
        node.config()
            .with(|plugin| {
                plugin["ipam"] =
                    json!({ "type": "static", "addresses": addresses, "routes": routes });
            })
            .install()
            .expect("install");
    };
    with_address("10.99.0.5/24");
    let first = node.add_pod("first");
    first.check().expect("executed").expect_success();
    first.ping(OUTSIDE, 1).assert_received();

    let before = Snapshot::of(&node);
    with_address("10.99.0.6/24");
    let second = node.add_pod("second");
    second.ping(first.ip(), 2).assert_received();
    second.ping(OUTSIDE, 1).assert_received();
    second.delete().expect("DEL");
    before.assert_unchanged(&node);
}

#[test]
fn an_ipam_plugin_that_is_missing_is_named_and_leaves_nothing() {
    let (_topology, node) = one_node();
    let before = Snapshot::of(&node);
    let (_namespace, attachment) = sandbox(&node);
    let mut stdin = node.config().stdin();
    stdin["ipam"] = json!({ "type": "no-such-ipam" });
    let outcome = node
        .runtime()
        .call("ADD", &attachment, stdin.to_string().as_bytes())
        .expect("executed");
    let message = outcome.expect_error(&[999]);
    assert!(message.contains("no-such-ipam"), "{message}");
    before.assert_unchanged(&node);
}

/// The node's default configuration without a gateway on the bridge, with another `ipam`.
fn with_ipam(node: &Node, ipam: Value) -> Value {
    let mut stdin = node.config().stdin();
    stdin["isGateway"] = json!(false);
    stdin["ipam"] = ipam;
    stdin
}

fn routes(namespace: &Namespace, family: &str) -> Vec<Value> {
    let mut command = namespace.command("ip");
    exec::json(command.args([family, "-json", "route", "show"])).expect("ip")
}

/// The next hops of all routes to a destination.
fn gateways(routes: &[Value], destination: &str) -> Vec<String> {
    let to_it = routes.iter().filter(|route| route["dst"] == destination);
    let single = to_it.clone().filter_map(|route| route["gateway"].as_str());
    let hops = to_it
        .filter_map(|route| route["nexthops"].as_array())
        .flatten();
    let hops = hops.filter_map(|hop| hop["gateway"].as_str());
    let mut gateways: Vec<_> = single.chain(hops).map(str::to_owned).collect();
    gateways.sort();
    gateways
}

#[test]
fn static_addresses_gateways_and_equal_routes_are_kept() {
    let (_topology, node) = one_node();
    let (namespace, attachment) = sandbox(&node);
    let address = |address, gateway| json!({ "address": address, "gateway": gateway });
    let stdin = with_ipam(
        &node,
        json!({
            "type": "static",
            "addresses": [address("10.99.0.5/24", "10.99.0.1"), address("10.98.0.5/16", "10.98.0.1"), address("fd99::5/64", "fd99::1")],
            "routes": [
                { "dst": "10.40.0.0/16" },
                { "dst": "10.50.0.0/16", "gw": "10.99.0.7" },
                { "dst": "10.50.0.0/16", "gw": "10.99.0.8" },
                { "dst": "fd50::/16", "gw": "fd99::7" },
                { "dst": "fd50::/16", "gw": "fd99::8" },
            ],
            "dns": { "nameservers": ["192.0.2.53"] },
        }),
    );
    let result = Call::new(&node, &attachment)
        .run("ADD", &stdin)
        .expect_success();
    let ip = |address, gateway| json!({ "address": address, "gateway": gateway, "interface": 2 });
    let expected = json!([
        ip("10.99.0.5/24", "10.99.0.1"),
        ip("10.98.0.5/16", "10.98.0.1"),
        ip("fd99::5/64", "fd99::1")
    ]);
    assert_eq!(result["ips"], expected);
    assert_eq!(result["routes"], stdin["ipam"]["routes"]);
    assert_eq!(result["dns"], json!({ "nameservers": ["192.0.2.53"] }));
    let routes = routes(&namespace, "-4");
    assert_eq!(
        gateways(&routes, "10.40.0.0/16"),
        ["10.99.0.1"],
        "{routes:?}"
    );
    assert_eq!(
        gateways(&routes, "10.50.0.0/16"),
        ["10.99.0.7", "10.99.0.8"],
        "{routes:?}"
    );
    let routes = self::routes(&namespace, "-6");
    let expected = ["fd99::7", "fd99::8"];
    assert_eq!(gateways(&routes, "fd50::/16"), expected, "{routes:?}");
}

#[test]
fn static_addresses_come_through_any_of_three_channels() {
    let (_topology, node) = one_node();
    let (_namespace, attachment) = sandbox(&node);
    let configured = json!([{ "address": "10.99.0.5/24" }]);
    let stdin = with_ipam(&node, json!({ "type": "static", "addresses": configured }));
    let (mut args, mut runtime) = (stdin.clone(), stdin.clone());
    args["args"]["cni"]["ips"] = json!(["10.99.0.6/24"]);
    runtime["runtimeConfig"]["ips"] = json!(["10.99.0.7/24"]);
    let call = Call::new(&node, &attachment);
    let variable = call.clone().with(
        "CNI_ARGS",
        "IgnoreUnknown=1;IP=10.99.0.8/24;GATEWAY=10.99.0.1",
    );
    // The wishes take the place of what is configured; the variable adds to it.
    for (call, stdin, expected) in [
        (&call, &args, vec!["10.99.0.6/24"]),
        (&call, &runtime, vec!["10.99.0.7/24"]),
        (&variable, &stdin, vec!["10.99.0.5/24", "10.99.0.8/24"]),
    ] {
        let result = call.run("ADD", stdin).expect_success();
        assert_eq!(ips(&result), expected);
        call.run("DEL", stdin).expect_success();
    }
}

/// An IPAM plugin that is a script, and the notes it takes: one file a call, by number and verb.
struct Stub<'a> {
    node: &'a Node,
    directory: PathBuf,
}

impl<'a> Stub<'a> {
    /// `script` is what comes after it took notes of its input and environment.
    fn new(node: &'a Node, script: &str) -> Self {
        let directory = node.directory().join("stub");
        fs::create_dir(&directory).expect("directory");
        let stub = Self { node, directory };
        let notes = stub.directory.display();
        let text = format!(
            "#!/bin/sh\nn=$(ls {notes} | grep -c stdin)\ncat > {notes}/$n-$CNI_COMMAND.stdin\n\
             env | sort > {notes}/$n-$CNI_COMMAND.env\n{script}\n"
        );
        let program = stub.directory.join("stub-ipam");
        fs::write(&program, text).expect("script");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("mode");
        stub
    }

    fn path(&self) -> String {
        self.directory.display().to_string()
    }

    fn config(&self) -> Value {
        with_ipam(self.node, json!({ "type": "stub-ipam" }))
    }

    /// The verbs it was called with.
    fn verbs(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.directory).expect("directory");
        let names = entries.map(|entry| entry.expect("entry").file_name());
        let mut calls: Vec<_> = names
            .filter_map(|name| Some(name.to_str()?.strip_suffix(".stdin")?.to_owned()))
            .collect();
        calls.sort();
        let verb = |call: &String| call.split_once('-').expect("a number").1.to_owned();
        calls.iter().map(verb).collect()
    }

    fn note(&self, name: &str) -> String {
        fs::read_to_string(self.directory.join(name)).expect("a note")
    }
}

const ONE_ADDRESS: &str = r#"echo '{"ips":[{"address":"10.99.0.5/24","gateway":"10.99.0.1"}]}'"#;

#[test]
fn an_ipam_plugin_gets_the_same_input_and_environment() {
    let (_topology, node) = one_node();
    let stub = Stub::new(&node, ONE_ADDRESS);
    let (_namespace, attachment) = sandbox(&node);
    let call = Call::new(&node, &attachment)
        .path(format!("relative:{}", stub.path()))
        .with("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAME=x")
        .with("SOMETHING_ELSE", "of the runtime's");
    // White space, order, case and duplicates arrive as they were.
    let mut stdin = stub.config();
    stdin["X"] = json!({ "b": null, "a": [1.50, "ß"] });
    for (number, verb) in ["ADD", "DEL"].into_iter().enumerate() {
        call.run(verb, &stdin).expect_success();
        assert_eq!(
            stub.note(&format!("{number}-{verb}.stdin")),
            stdin.to_string()
        );
        let env = stub.note(&format!("{number}-{verb}.env"));
        let netns = attachment.netns.display().to_string();
        for expected in [
            format!("CNI_COMMAND={verb}"),
            format!("CNI_CONTAINERID={}", attachment.container_id),
            format!("CNI_NETNS={netns}"),
            "CNI_IFNAME=eth0".into(),
            format!("CNI_PATH=relative:{}", stub.path()),
            "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAME=x".into(),
            "SOMETHING_ELSE=of the runtime's".into(),
        ] {
            assert!(
                env.lines().any(|line| line == expected),
                "{expected}: {env}"
            );
        }
    }
    assert_eq!(stub.verbs(), ["ADD", "DEL"]);
}

#[test]
fn the_error_of_an_ipam_plugin_surfaces_and_it_is_called_to_clean_up() {
    let (_topology, node) = one_node();
    let stub = Stub::new(
        &node,
        r#"[ $CNI_COMMAND = DEL ] && exit 0
        echo '{"cniVersion":"1.0.0","code":117,"msg":"no more of these","details":"since noon"}'; exit 1"#,
    );
    let (_namespace, attachment) = sandbox(&node);
    let before = Snapshot::of(&node);
    let call = Call::new(&node, &attachment).path(stub.path());
    let message = call.run("ADD", &stub.config()).expect_error(&[117]);
    assert_eq!(message, "no more of these: since noon");
    assert_eq!(stub.verbs(), ["ADD", "DEL"]);
    assert!(stub.note("1-DEL.env").contains(&attachment.container_id));
    let snapshot = Snapshot::of(&node);
    let diff = before.diff(&snapshot);
    let ours = |line: &&str| !line.contains("/stub/");
    assert_eq!(diff.lines().filter(ours).count(), 0, "{diff}");
}

#[test]
fn a_result_without_a_version_has_that_of_the_configuration() {
    let (_topology, node) = one_node();
    let stub = Stub::new(
        &node,
        r#"echo '{"ip4":{"ip":"10.99.0.5/24","gateway":"10.99.0.1","routes":[{"dst":"0.0.0.0/0"}]}}'"#,
    );
    let (_namespace, attachment) = sandbox(&node);
    let call = Call::new(&node, &attachment).path(stub.path());
    let mut stdin = stub.config();
    stdin["cniVersion"] = json!("0.2.0");
    let result = call.run("ADD", &stdin).expect_success();
    assert_eq!(result["ip4"]["ip"], "10.99.0.5/24");
    call.run("DEL", &stdin).expect_success();
    // The same means nothing in a later version.
    stdin["cniVersion"] = json!("1.0.0");
    let message = call.run("ADD", &stdin).expect_error(&[999]);
    assert!(
        message.contains("IPAM plugin returned missing IP config"),
        "{message}"
    );
}

#[test]
fn without_addresses_in_its_result_an_ipam_plugin_is_called_to_clean_up() {
    let (_topology, node) = one_node();
    let stub = Stub::new(&node, r#"echo '{"cniVersion":"1.0.0","ips":[]}'"#);
    let (namespace, attachment) = sandbox(&node);
    let call = Call::new(&node, &attachment).path(stub.path());
    let message = call.run("ADD", &stub.config()).expect_error(&[999]);
    assert!(
        message.contains("IPAM plugin returned missing IP config"),
        "{message}"
    );
    assert_eq!(stub.verbs(), ["ADD", "DEL"]);
    let links = exec::stdout(namespace.command("ip").args(["-o", "link"])).expect("ip");
    assert_eq!(links.lines().count(), 1, "{links}");
}

#[test]
fn an_ipam_plugin_sees_the_interface_on_the_bridge_already() {
    let (_topology, node) = one_node();
    let notes = node.directory().join("seen");
    let stub = Stub::new(
        &node,
        &format!(
            "if [ $CNI_COMMAND = ADD ]; then\n\
             ip -j link show master v-net-0 > {0}.host; ip -j -n $(basename $CNI_NETNS) link show $CNI_IFNAME > {0}.pod\n\
             fi\n{ONE_ADDRESS}",
            notes.display()
        ),
    );
    let (_namespace, attachment) = sandbox(&node);
    let call = Call::new(&node, &attachment).path(stub.path());
    let result = call.run("ADD", &stub.config()).expect_success();
    let seen = |end| -> Value {
        let text = fs::read_to_string(notes.with_extension(end)).expect("note");
        serde_json::from_str(&text).expect("JSON of ip")
    };
    let (host, pod) = (seen("host"), seen("pod"));
    assert_eq!(host[0]["ifname"], result["interfaces"][1]["name"]);
    assert_eq!(pod[0]["ifname"], "eth0");
    assert_eq!(pod[0]["address"], result["interfaces"][2]["mac"]);
}

#[test]
fn an_add_that_repeats_another_does_not_call_the_ipam_plugin() {
    let (_topology, node) = one_node();
    let stub = Stub::new(&node, ONE_ADDRESS);
    let (namespace, attachment) = sandbox(&node);
    let call = Call::new(&node, &attachment).path(stub.path());
    call.run("ADD", &stub.config()).expect_success();
    let before = Snapshot::of(&node);
    call.run("ADD", &stub.config()).expect_error(&[999]);
    assert_eq!(
        stub.verbs(),
        ["ADD"],
        "its DEL would free the address in use"
    );
    before.assert_unchanged(&node);
    let address = exec::stdout(
        namespace
            .command("ip")
            .args(["-br", "address", "show", "eth0"]),
    );
    assert!(address.expect("ip").contains("10.99.0.5/24"));
    call.run("DEL", &stub.config()).expect_success();
    assert_eq!(stub.verbs(), ["ADD", "DEL"]);
}

#[test]
fn what_an_ipam_plugin_is_called_for_check_status_and_gc_is_passed_on() {
    let (_topology, node) = one_node();
    let stub = Stub::new(
        &node,
        &format!(
            "case $CNI_COMMAND in ADD) {ONE_ADDRESS};; DEL|GC) ;; *) \
             echo '{{\"code\":51,\"msg\":\"no '$CNI_COMMAND'\"}}'; exit 1;; esac"
        ),
    );
    let (_namespace, attachment) = sandbox(&node);
    let call = Call::new(&node, &attachment).path(stub.path());
    let mut stdin = stub.config();
    stdin["cniVersion"] = json!("1.1.0");
    let result = call.run("ADD", &stdin).expect_success();
    let mut checked = stdin.clone();
    checked["prevResult"] = result;
    assert!(
        call.run("CHECK", &checked)
            .expect_error(&[51])
            .contains("no CHECK")
    );
    assert!(
        call.run("STATUS", &stdin)
            .expect_error(&[51])
            .contains("no STATUS")
    );
    stdin["cni.dev/valid-attachments"] = json!([]);
    call.run("GC", &stdin).expect_success();
    assert_eq!(stub.verbs(), ["ADD", "CHECK", "STATUS", "GC"]);
}
