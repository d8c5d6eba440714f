//! The manifest of a cluster, `deploy/beeline.yaml`, against what this build is.

use std::{fs, path::Path};

use k8s_openapi::api::{
    apps::v1::DaemonSet,
    core::v1::{ConfigMap, Container, PodSpec},
    rbac::v1::{ClusterRole, PolicyRule, Role},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

fn deploy(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .with_file_name("deploy")
        .join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn objects() -> Vec<Value> {
    serde_saphyr::from_multiple(&deploy("beeline.yaml")).expect("YAML")
}

fn object<T: DeserializeOwned>(kind: &str) -> T {
    let mut all = objects().into_iter();
    let found = all.find(|object| object["kind"] == kind).expect(kind);
    serde_json::from_value(found).expect(kind)
}

fn pods() -> PodSpec {
    let daemon_set: DaemonSet = object("DaemonSet");
    let spec = daemon_set.spec.expect("spec").template.spec;
    spec.expect("pods")
}

fn containers() -> Vec<Container> {
    let pods = pods();
    let init = pods.init_containers.into_iter().flatten();
    init.chain(pods.containers).collect()
}

#[test]
fn the_daemon_set_comes_first_as_agents_must_hear_of_its_end_while_they_have_their_rights() {
    let kinds: Vec<_> = objects().iter().map(|o| o["kind"].clone()).collect();
    assert_eq!(
        kinds,
        [
            "DaemonSet",
            "ServiceAccount",
            "ClusterRole",
            "ClusterRoleBinding",
            "Role",
            "RoleBinding",
            "ConfigMap"
        ]
    );
}

#[test]
fn the_images_are_of_this_version() {
    let image = format!("localhost/beeline:{}", env!("CARGO_PKG_VERSION"));
    for container in containers() {
        assert_eq!(container.image.as_ref(), Some(&image), "{}", container.name);
        assert_eq!(container.image_pull_policy.as_deref(), Some("IfNotPresent"));
    }
    let daemon_set: DaemonSet = object("DaemonSet");
    let labels = daemon_set.metadata.labels.expect("labels");
    let version = labels.get("app.kubernetes.io/version");
    assert_eq!(version.map(String::as_str), Some(env!("CARGO_PKG_VERSION")));
}

#[test]
fn the_daemon_set_selects_its_own_pods_and_no_label_that_changes_with_the_version() {
    let spec = object::<DaemonSet>("DaemonSet").spec.expect("spec");
    let selector = spec.selector.match_labels.expect("selector");
    let labels = spec.template.metadata.and_then(|meta| meta.labels);
    let labels = labels.expect("labels");
    for (key, value) in &selector {
        assert_eq!(labels.get(key), Some(value));
        assert_ne!(key, "app.kubernetes.io/version");
    }
}

#[test]
fn the_agent_may_do_what_it_does_and_nothing_else() {
    let rights = |rules: Option<Vec<PolicyRule>>| -> Vec<String> {
        let rules = rules.into_iter().flatten();
        rules
            .map(|rule| {
                let list = |list: Option<Vec<String>>| list.unwrap_or_default().join(",");
                format!(
                    "{}/{} {}: {}",
                    list(rule.api_groups),
                    list(rule.resources),
                    list(rule.resource_names),
                    rule.verbs.join(",")
                )
            })
            .collect()
    };
    let of_cluster = rights(object::<ClusterRole>("ClusterRole").rules);
    assert_eq!(
        of_cluster,
        ["/nodes : get,list,watch", "/nodes/status : patch"]
    );
    let of_namespace = rights(object::<Role>("Role").rules);
    assert_eq!(of_namespace, ["apps/daemonsets beeline: get,list,watch"]);
    let all = [of_cluster, of_namespace].concat().join(" ");
    assert!(!all.contains('*'), "{all}");
}

#[test]
fn the_roles_are_bound_to_the_account_that_the_pods_have() {
    let account = pods().service_account_name.expect("account");
    for kind in ["ClusterRoleBinding", "RoleBinding"] {
        let binding: Value = object(kind);
        let subject =
            json!([{ "kind": "ServiceAccount", "name": account, "namespace": "kube-system" }]);
        assert_eq!(binding["subjects"], subject, "{kind}");
        assert_eq!(binding["roleRef"]["name"], "beeline", "{kind}");
    }
}

#[test]
fn each_mount_is_of_a_volume_and_where_the_node_has_it() {
    let volumes = pods().volumes.expect("volumes");
    for container in containers() {
        for mount in container.volume_mounts.into_iter().flatten() {
            let volume = volumes.iter().find(|volume| volume.name == mount.name);
            let volume = volume.unwrap_or_else(|| panic!("{}: no such volume", mount.name));
            let Some(host) = &volume.host_path else {
                assert_eq!(mount.name, "config");
                continue;
            };
            // What the plugin records on the node, the agent must find by the same path.
            let inside = match mount.mount_path.as_str() {
                "/host" => "/",
                "/var/run/netns" => "/run/netns",
                same => same,
            };
            assert_eq!(host.path, inside);
        }
    }
}

#[test]
fn the_probes_ask_where_the_agent_listens() {
    let agent = containers().into_iter().find(|one| one.name == "agent");
    let agent = agent.expect("agent");
    let args = agent.args.expect("args");
    let [port] = &agent.ports.expect("ports")[..] else {
        panic!("not one port");
    };
    assert!(args.contains(&format!("--listen=0.0.0.0:{}", port.container_port)));
    for (probe, path) in [
        (agent.startup_probe, "/healthz"),
        (agent.liveness_probe, "/healthz"),
        (agent.readiness_probe, "/readyz"),
    ] {
        let asked = probe.and_then(|probe| probe.http_get).expect("probe");
        assert_eq!(asked.path.as_deref(), Some(path));
        assert_eq!(json!(asked.port), json!(port.name));
    }
}

#[test]
fn the_config_maps_network_is_one_that_the_plugin_takes_once_it_has_subnets() {
    let map: ConfigMap = object("ConfigMap");
    let data = map.data.expect("data");
    let list = &data["beeline.conflist"];
    let list: Value = serde_json::from_str(list).expect("JSON");
    let mut single = list["plugins"][0].clone();
    assert_eq!(single["type"], "beeline");
    single["name"] = list["name"].clone();
    single["cniVersion"] = list["cniVersion"].clone();
    beeline::cni::plan_of(&single).expect_err("no subnet yet");
    single["ipam"]["ranges"] =
        json!([[{ "subnet": "10.244.1.0/24" }], [{ "subnet": "fd00:1::/64" }]]);
    let plan = beeline::cni::plan_of(&single).expect("a configuration");
    assert_eq!(plan.pod_cidrs.len(), 2);
    assert!(plan.bridge.gateway && plan.masquerade && plan.datapath.overlay.is_some());
    let ends = list["plugins"].as_array().expect("plugins").last();
    assert_eq!(ends.expect("one")["capabilities"]["portMappings"], true);
}
