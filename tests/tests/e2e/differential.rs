//! The same configurations through the distribution's `bridge` and `host-local` and through beeline: what they say and
//! what they make is the same, but for what is listed here by name.
//!
//! The distribution's plugins are of version 1.1.1. Where they are older than the specification, that counts.

mod cases;
mod exemptions;

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use beeline_tests::exec;
use beeline_tests::netns::{Ipv6, Namespace};
use beeline_tests::node::{BRIDGE, Node};
use beeline_tests::outcome::Outcome;
use beeline_tests::picture::{Picture, Roles};
use beeline_tests::plan::Families;
use beeline_tests::runtime::Attachment;
use beeline_tests::topology::{Plugin, Topology, TopologySpec, unique_prefix};
use serde_json::{Value, json};

use self::cases::Case;
use crate::bridge::{ip, links};
use crate::fixture;

/// The distribution's plugin.
const REFERENCE: &str = "/usr/lib/cni/bridge";

/// A node with one of the two plugins, and a pod's namespace.
struct Side {
    _topology: Topology,
    node: Arc<Node>,
    sandbox: Namespace,
    attachment: Attachment,
    stdin: Value,
    args: String,
}

impl Side {
    fn new(case: &Case, plugin: Plugin) -> Self {
        let spec = TopologySpec {
            families: Families::Dual,
            mode: "auto".to_owned(),
            ..TopologySpec::new(unique_prefix(), 1, plugin)
        };
        let topology = fixture::build(&spec);
        let [node] = topology.take();
        let sandbox = format!("{}-sandbox", node.name());
        let sandbox = Namespace::create(&sandbox, Ipv6::Enabled).expect("namespace");
        // Both plugins write it into their files.
        let attachment = Attachment::new("container", sandbox.path());
        let config = node.config().version(case.version);
        let config = config.with(|plugin| {
            plugin["isGateway"] = json!(false);
            plugin["ipMasq"] = json!(false);
            plugin["ipam"] = cases::ipam(&node);
            (case.change)(plugin);
        });
        let stdin = config.stdin();
        cases::prepare(case, &node);
        Self {
            _topology: topology,
            node,
            sandbox,
            attachment,
            stdin,
            args: case.args.to_owned(),
        }
    }

    fn call(&self, verb: &str) -> Outcome {
        let (netns, path) = (self.sandbox.path(), self.node.plugin().search_path());
        let netns = netns.display().to_string();
        let mut environment = vec![
            ("CNI_COMMAND", verb),
            ("CNI_CONTAINERID", &*self.attachment.container_id),
            ("CNI_NETNS", &*netns),
            ("CNI_IFNAME", &*self.attachment.ifname),
            ("CNI_PATH", &*path),
        ];
        if !self.args.is_empty() {
            environment.push(("CNI_ARGS", &*self.args));
        }
        let (plugin, stdin) = (self.node.plugin().path(), self.stdin.to_string());
        let outcome = self
            .node
            .runtime()
            .exec(plugin, &environment, stdin.as_bytes());
        outcome.expect("executed")
    }

    /// All that there is, under the name of what was done last.
    fn look(&self, picture: &mut Picture, after: &str, roles: &Roles) {
        self.settle();
        let nodes = format!("{after}: node");
        let pods = format!("{after}: pod");
        picture
            .namespace(&nodes, self.node.netns(), &["lo", "eth0"], roles)
            .expect("node");
        picture
            .namespace(&pods, &self.sandbox, &[], roles)
            .expect("pod");
        let files = format!("{after}: file ");
        picture
            .files(&files, &self.node.data_dir(), roles)
            .expect("files");
        let mut list = self.node.netns().command("nft");
        let rules = exec::stdout(list.args(["--stateless", "list", "ruleset"])).expect("nft");
        picture.set(format!("{after}: rules"), rules);
    }

    /// Waits until no address is looked for duplicates of any more, which brings routes.
    fn settle(&self) {
        let start = Instant::now();
        let tentative = |namespace: &Namespace| {
            let mut command = namespace.command("ip");
            let found = exec::stdout(command.args(["-6", "address", "show", "tentative", "up"]));
            !found.expect("ip").is_empty()
        };
        let namespaces = [self.node.netns(), &self.sandbox];
        while namespaces.into_iter().any(tentative) && start.elapsed() < Duration::from_secs(5) {
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The whole life of a pod, as pictures of what each verb left.
    fn picture(mut self) -> Picture {
        let (mut picture, mut roles) = (Picture::default(), Roles::default());
        let added = self.call("ADD");
        picture.set("ADD succeeds", added.is_success().to_string());
        let result = added.stdout.clone();
        for port in ports(&self.node) {
            roles.name(port, "<port>");
        }
        roles.name(self.sandbox.path().display().to_string(), "<sandbox>");
        if added.is_success() {
            picture.json("ADD result", &result, &roles);
            self.stdin["prevResult"] = result;
        }
        self.look(&mut picture, "ADD", &roles);
        if added.is_success()
            && matches!(
                &*self.stdin["cniVersion"].to_string(),
                "\"0.4.0\"" | "\"1.0.0\""
            )
        {
            picture.set(
                "CHECK succeeds",
                self.call("CHECK").is_success().to_string(),
            );
        }
        for name in ["DEL", "DEL again"] {
            picture.set(
                format!("{name} succeeds"),
                self.call("DEL").is_success().to_string(),
            );
        }
        self.look(&mut picture, "DEL", &roles);
        picture
    }
}

/// The bridge's ports, of which a node with one pod has one: not every version's result names it.
fn ports(node: &Node) -> Vec<String> {
    if !links(node.netns()).contains(&BRIDGE.to_owned()) {
        return Vec::new();
    }
    let ports = ip(node.netns(), &["link", "show", "master", BRIDGE]);
    let names = ports.iter().map(|port| port["ifname"].as_str());
    names.flatten().map(str::to_owned).collect()
}

/// Compares the plugins by one case, and asserts that they differ only where that is meant; returns the names of the exemptions that it needs.
fn compare(case: &Case) -> Vec<&'static str> {
    let plugin = |path: &str| Plugin::new(path).expect("the distribution's plugins are installed");
    let (reference, ours) = thread::scope(|scope| {
        let reference = scope.spawn(|| Side::new(case, plugin(REFERENCE)).picture());
        let ours = Side::new(case, Plugin::from_env().expect("plugin")).picture();
        (reference.join().expect("reference"), ours)
    });
    let succeeds = Some(if case.fails { "false" } else { "true" });
    assert_eq!(ours.get("ADD succeeds"), succeeds, "{}", case.name);
    let differences = reference.differences(&ours);
    let mut needed = Vec::new();
    let mut unexplained = Vec::new();
    for difference in differences {
        match exemptions::of_case(case, &difference) {
            Some(exemption) => needed.push(exemption.name),
            None => unexplained.push(difference.to_string()),
        }
    }
    assert!(
        unexplained.is_empty(),
        "{}: the reference | beeline\n{}",
        case.name,
        unexplained.join("\n")
    );
    needed
}

macro_rules! compare {
    ($($name:ident)*) => {$(
        #[test]
        fn $name() {
            let case = cases::find(stringify!($name));
            let needed = compare(case);
            for exemption in exemptions::EXEMPTIONS {
                let shown = case.name != exemption.seen_in || needed.contains(&exemption.name);
                assert!(shown, "{}: there is no such difference any more", exemption.name);
            }
        }
    )*};
}

compare! {
    a_network_of_layer_2
    addresses_without_a_gateway
    a_gateway
    a_default_gateway
    masquerade
    an_mtu
    hairpin_mode
    promisc_mode
    hairpin_mode_and_promisc_mode
    two_families
    two_families_and_a_default_gateway_of_each
    two_families_and_duplicates_are_looked_for
    three_range_sets
    an_address_that_is_replaced_by_force
    an_address_that_conflicts
    routes
    a_route_through_nowhere
    name_resolution_of_ipam
    name_resolution_of_the_network
    a_mac_by_arguments
    a_mac_by_the_runtime
    an_address_by_arguments
    version_0_1_0
    version_0_2_0
    version_0_3_0
    a_bridge_that_was_there
}
