//! The configurations that both plugins get.

use beeline_tests::node::{BRIDGE, Node};
use serde_json::{Value, json};

use crate::bridge::run_ip;

/// One configuration.
pub(super) struct Case {
    /// The name of its test.
    pub(super) name: &'static str,
    /// The `cniVersion`.
    pub(super) version: &'static str,
    /// Changes the configuration, which has a bridge, no gateway, and addresses of IPv4.
    pub(super) change: fn(&mut Value),
    /// `CNI_ARGS`, unless empty.
    pub(super) args: &'static str,
    /// Commands of `ip` on the node before.
    pub(super) before: &'static [&'static str],
    /// Whether ADD is refused, by both plugins.
    pub(super) fails: bool,
}

const fn case(name: &'static str, version: &'static str, change: fn(&mut Value)) -> Case {
    Case {
        name,
        version,
        change,
        args: "",
        before: &[],
        fails: false,
    }
}

/// The same, of which ADD fails.
const fn refused(case: Case) -> Case {
    Case {
        fails: true,
        ..case
    }
}

/// Addresses from the node's own IPv4 network.
pub(super) fn ipam(node: &Node) -> Value {
    json!({"type": "host-local", "subnet": node.pod_cidr(), "dataDir": node.data_dir()})
}

/// Makes the node what the case begins with.
pub(super) fn prepare(case: &Case, node: &Node) {
    run_ip(node.netns(), case.before);
    // The reference plugin reads the resolver's settings from a file of the node's.
    let resolv_conf =
        "nameserver 192.0.2.53\nsearch a.example b.example\noptions ndots:5\ndomain c.example\n";
    std::fs::write(resolv_conf_of(&node.data_dir()), resolv_conf).expect("write");
}

fn resolv_conf_of(data_dir: &std::path::Path) -> std::path::PathBuf {
    data_dir.with_file_name("resolv.conf")
}

fn set(plugin: &mut Value, keys: Value) {
    for (key, value) in keys.as_object().into_iter().flatten() {
        plugin[key] = value.clone();
    }
}

/// Two families, each with a network.
fn dual_stack(plugin: &mut Value) {
    plugin["ipam"]
        .as_object_mut()
        .expect("ipam")
        .remove("subnet");
    plugin["ipam"]["ranges"] =
        json!([[{"subnet": "10.244.1.0/24"}], [{"subnet": "fd00:244:1::/64"}]]);
}

pub(super) const CASES: &[Case] = &[
    case("a_network_of_layer_2", "1.0.0", |plugin| {
        plugin["ipam"] = json!({})
    }),
    case("addresses_without_a_gateway", "1.0.0", |_| {}),
    case("a_gateway", "0.3.1", |plugin| {
        plugin["isGateway"] = json!(true)
    }),
    case("a_default_gateway", "0.4.0", |plugin| {
        plugin["isDefaultGateway"] = json!(true)
    }),
    case("masquerade", "1.0.0", |plugin| {
        set(plugin, json!({"isGateway": true, "ipMasq": true}));
    }),
    case("an_mtu", "1.0.0", |plugin| {
        set(plugin, json!({"isGateway": true, "mtu": 1400}))
    }),
    case("hairpin_mode", "1.0.0", |plugin| {
        set(plugin, json!({"isGateway": true, "hairpinMode": true}))
    }),
    case("promisc_mode", "1.0.0", |plugin| {
        set(plugin, json!({"isGateway": true, "promiscMode": true}))
    }),
    refused(case("hairpin_mode_and_promisc_mode", "1.0.0", |plugin| {
        set(plugin, json!({"hairpinMode": true, "promiscMode": true}));
    })),
    case("two_families", "1.0.0", |plugin| {
        set(plugin, json!({"isGateway": true}));
        dual_stack(plugin);
    }),
    case(
        "two_families_and_a_default_gateway_of_each",
        "0.4.0",
        |plugin| {
            set(plugin, json!({"isDefaultGateway": true}));
            dual_stack(plugin);
        },
    ),
    case(
        "two_families_and_duplicates_are_looked_for",
        "1.0.0",
        |plugin| {
            set(plugin, json!({"isGateway": true, "enabledad": true}));
            dual_stack(plugin);
        },
    ),
    case("three_range_sets", "1.0.0", |plugin| {
        plugin["ipam"] = json!({
            "type": "host-local",
            "dataDir": plugin["ipam"]["dataDir"],
            "ranges": [
                [{"subnet": "10.244.1.0/24", "rangeStart": "10.244.1.10", "rangeEnd": "10.244.1.20"}],
                [{"subnet": "10.99.0.0/16", "gateway": "10.99.255.1"}],
                [{"subnet": "fd00:244:1::/64"}],
            ],
        });
    }),
    Case {
        before: &[
            "link add v-net-0 up type bridge",
            "address add 10.9.0.1/16 dev v-net-0",
        ],
        ..case("an_address_that_is_replaced_by_force", "1.0.0", |plugin| {
            set(plugin, json!({"isGateway": true, "forceAddress": true}));
        })
    },
    Case {
        before: &[
            "link add v-net-0 up type bridge",
            "address add 10.9.0.1/16 dev v-net-0",
        ],
        ..refused(case("an_address_that_conflicts", "1.0.0", |plugin| {
            plugin["isGateway"] = json!(true)
        }))
    },
    case("routes", "1.0.0", |plugin| {
        plugin["isGateway"] = json!(true);
        plugin["ipam"]["routes"] = json!([
            {"dst": "0.0.0.0/0"}, {"dst": "10.50.0.0/16"}, {"dst": "10.51.0.0/16", "gw": "10.244.1.77"},
        ]);
    }),
    refused(case("a_route_through_nowhere", "1.0.0", |plugin| {
        plugin["ipam"]["routes"] = json!([{"dst": "10.50.0.0/16", "gw": "192.0.2.1"}]);
    })),
    case("name_resolution_of_ipam", "1.0.0", |plugin| {
        let data_dir = plugin["ipam"]["dataDir"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        plugin["ipam"]["resolvConf"] = json!(resolv_conf_of(data_dir.as_ref()));
    }),
    case("name_resolution_of_the_network", "1.0.0", |plugin| {
        plugin["dns"] =
            json!({"nameservers": ["192.0.2.54"], "domain": "d.example", "search": ["e.example"]});
    }),
    Case {
        args: "IgnoreUnknown=1;MAC=02:00:00:00:00:07;K8S_POD_NAME=x",
        ..case("a_mac_by_arguments", "1.0.0", |_| {})
    },
    case("a_mac_by_the_runtime", "1.0.0", |plugin| {
        plugin["runtimeConfig"] = json!({"mac": "02:00:00:00:00:08"});
    }),
    Case {
        args: "IgnoreUnknown=1;IP=10.244.1.99",
        ..case("an_address_by_arguments", "1.0.0", |_| {})
    },
    case("version_0_1_0", "0.1.0", |plugin| {
        plugin["isDefaultGateway"] = json!(true)
    }),
    case("version_0_2_0", "0.2.0", |plugin| {
        plugin["isDefaultGateway"] = json!(true)
    }),
    case("version_0_3_0", "0.3.0", |plugin| {
        plugin["isDefaultGateway"] = json!(true)
    }),
    Case {
        before: &[
            "link add v-net-0 type bridge",
            "link set v-net-0 address 02:00:00:00:00:09",
        ],
        ..case("a_bridge_that_was_there", "1.0.0", |plugin| {
            plugin["isGateway"] = json!(true)
        })
    },
];

/// The case of this name.
pub(super) fn find(name: &str) -> &'static Case {
    let found = CASES.iter().find(|case| case.name == name);
    found.unwrap_or_else(|| panic!("no case {name}"))
}

/// The bridge is the one that the commands name.
const _: () = assert!(matches!(BRIDGE.as_bytes(), b"v-net-0"));
