//! Configurations as runtimes write them, and as they must not be.

use serde_json::json;

use super::*;
use crate::datapath::config::Mode;

fn parse_as(command: Command, text: impl AsRef<[u8]>) -> Result<NetConf> {
    NetConf::parse(Bytes::copy_from_slice(text.as_ref()), command)
}

/// A complete configuration with these keys put over it.
fn document(keys: Value) -> String {
    let mut document = json!({"cniVersion": "1.1.0", "name": "net", "type": "beeline"});
    for (key, value) in keys.as_object().unwrap() {
        document[key] = value.clone();
    }
    document.to_string()
}

fn conf(keys: Value) -> Result<NetConf> {
    parse_as(Command::Add, document(keys))
}

#[track_caller]
fn fails(result: Result<impl Sized>, code: u32, text: &str) {
    let error = result.err().expect("an error").to_json(Version::LATEST);
    assert_eq!(error["code"], code, "{error}");
    assert!(error.to_string().contains(text), "{error}");
}

#[test]
fn a_bare_configuration_has_the_references_defaults() {
    let conf = parse_as(Command::Add, r#"{"name":"net"}"#).unwrap();
    assert_eq!(
        (conf.version, &*conf.name, &*conf.bridge),
        (Version::V0_1_0, "net", "cni0")
    );
    assert!(!conf.is_gateway && !conf.ip_masq && !conf.force_address && !conf.enable_dad);
    assert!(conf.mtu.is_none() && conf.ipam.is_none() && conf.prev_result.is_none());
    assert_eq!(
        (conf.ip_masq_backend, conf.datapath.mode),
        (None, Mode::Auto)
    );
}

#[test]
fn what_is_not_one_document_is_a_decoding_error() {
    for bad in ["", "{\"name\":", "{}x", "[]", "7"] {
        fails(parse_as(Command::Add, bad), 6, "configuration");
    }
}

#[test]
fn the_name_is_checked_before_the_version() {
    fails(parse_as(Command::Add, "{}"), 7, "missing network name");
    for name in ["te%%st", "../x"] {
        fails(
            conf(json!({"name": name, "cniVersion": "9.9.9"})),
            7,
            "name",
        );
    }
    fails(conf(json!({"name": 5})), 6, "name: invalid type");
}

#[test]
fn versions_must_be_supported_and_have_the_command() {
    fails(
        conf(json!({"cniVersion": "9.9.9"})),
        1,
        "incompatible CNI versions",
    );
    fails(
        conf(json!({"cniVersion": "x"})),
        1,
        "incompatible CNI versions",
    );
    assert_eq!(
        conf(json!({"cniVersion": ""})).unwrap().version,
        Version::V0_1_0
    );
    let as_command =
        |command, version: &str| parse_as(command, document(json!({"cniVersion": version})));
    fails(
        as_command(Command::Check, "0.3.1"),
        1,
        "config version does not allow CHECK",
    );
    fails(
        as_command(Command::Gc, "1.0.0"),
        1,
        "config version does not allow GC",
    );
    fails(
        as_command(Command::Status, "1.0.0"),
        1,
        "config version does not allow STATUS",
    );
    for command in [Command::Check, Command::Gc, Command::Status] {
        fails(as_command(command, "x"), 6, "cniVersion");
        fails(as_command(command, "9.9.9"), 1, "incompatible CNI versions");
        assert!(as_command(command, "1.1.0").is_ok());
    }
}

#[test]
fn keys_count_whatever_their_case() {
    let text = r#"{"Name":"net","CNIVersion":"1.0.0","IsGateway":true,"IPMasq":true,"MTU":1400,
        "IPAM":{"Type":"host-local","Subnet":"10.1.2.0/24","DATADIR":"/d"},
        "RuntimeConfig":{"IPRanges":[[{"Subnet":"10.1.3.0/24","RangeStart":"","RangeEnd":"","Gateway":""}]]}}"#;
    let conf = parse_as(Command::Add, text).unwrap();
    assert!(conf.is_gateway && conf.ip_masq);
    assert_eq!((conf.version, conf.mtu), (Version::V1_0_0, Some(1400)));
    let ranges: Vec<_> = conf
        .host_local()
        .unwrap()
        .ranges
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(ranges, ["10.1.3.1-10.1.3.254", "10.1.2.1-10.1.2.254"]);
    assert_eq!(conf.ipam.unwrap().data_dir().unwrap(), PathBuf::from("/d"));
}

#[test]
fn the_last_duplicate_wins_and_null_is_nothing() {
    let text =
        r#"{"name":"x","name":"net","mtu":1400,"MTU":1300,"bridge":null,"ipam":null,"dns":null}"#;
    let conf = parse_as(Command::Add, text).unwrap();
    assert_eq!(
        (&*conf.name, conf.mtu, &*conf.bridge),
        ("net", Some(1300), "cni0")
    );
    assert!(conf.ipam.is_none() && conf.dns.is_empty());
}

#[test]
fn unknown_keys_of_any_size_are_passed_over() {
    let conf = conf(
        json!({"x": "y".repeat(1 << 20), "capabilities": {"mac": true}, "runtimeConfig": {
        "portMappings": [{"HostPort": 1}], "dns": {"Servers": []}, "aliases": {"net": []}, "cgroupPath": "/x",
        "io.kubernetes.cri.pod-annotations": {"a": "b"}}}),
    );
    assert!(conf.is_ok());
}

#[test]
fn the_bytes_are_kept_as_they_came() {
    let text = "{ \"name\" : \"net\",\r\n\"Name\":\"net\" }\n";
    assert_eq!(
        &parse_as(Command::Add, text).unwrap().raw[..],
        text.as_bytes()
    );
}

#[test]
fn a_default_gateway_is_a_gateway() {
    let conf = conf(json!({"isDefaultGateway": true})).unwrap();
    assert!(conf.is_gateway && conf.is_default_gateway);
}

#[test]
fn values_of_the_wrong_type_name_their_key() {
    fails(conf(json!({"mtu": "1500"})), 6, "mtu: invalid type");
    fails(conf(json!({"mtu": 1500.0})), 6, "mtu: invalid type");
    fails(
        conf(json!({"isGateway": "yes"})),
        6,
        "isgateway: invalid type",
    );
    fails(conf(json!({"ipam": []})), 6, "ipam");
    fails(conf(json!({"ipam": {"type": 1}})), 6, "ipam.type");
    fails(
        conf(json!({"ipam": {"type": "host-local", "subnet": 1}}))
            .unwrap()
            .host_local(),
        6,
        "ipam.subnet",
    );
}

#[test]
fn numbers_out_of_range_are_refused() {
    for mtu in [-1, 1, 67, 65536] {
        fails(conf(json!({"mtu": mtu})), 7, &format!("mtu {mtu}"));
    }
    assert_eq!(conf(json!({"mtu": 68})).unwrap().mtu, Some(68));
}

#[test]
fn the_bridge_must_be_a_name_of_an_interface() {
    for bridge in ["", "../x", "a b", "sixteen_bytes_xx"] {
        fails(conf(json!({"bridge": bridge})), 7, "bridge");
    }
}

#[test]
fn contradictions_are_refused() {
    fails(
        conf(json!({"hairpinMode": true, "promiscMode": true})),
        7,
        "hairpinMode and promiscMode",
    );
    fails(
        conf(json!({"ipMasqBackend": "pf"})),
        7,
        "ipMasqBackend \\\"pf\\\"",
    );
    let conf =
        conf(json!({"ipMasqBackend": "nftables", "hairpinMode": true, "enabledad": true})).unwrap();
    assert_eq!(
        (conf.ip_masq_backend, conf.hairpin_mode),
        (Some(MasqBackend::Nftables), true)
    );
}

#[test]
fn an_interface_that_stays_down_has_no_addresses() {
    let ipam = json!({"type": "static"});
    fails(
        conf(json!({"disableContainerInterface": true, "ipam": ipam})),
        7,
        "cannot use IPAM when DisableContainerInterface flag is set",
    );
    let down = conf(json!({"disableContainerInterface": true, "ipam": {}})).unwrap();
    assert!(down.disable_container_interface);
}

#[test]
fn del_and_gc_do_not_mind_what_they_do_not_need() {
    let broken = json!({"vlan": 9999, "vlanTrunk": [{"id": 0}], "mtu": -1, "prevResult": 5, "bridge": "",
        "ipam": {"type": "host-local", "subnet": "x", "ranges": 7, "dataDir": "/d"}});
    for command in [Command::Del, Command::Gc] {
        let conf = parse_as(command, document(broken.clone())).unwrap();
        assert_eq!(conf.ipam.unwrap().data_dir().unwrap(), PathBuf::from("/d"));
    }
    assert!(parse_as(Command::Add, document(broken)).is_err());
}

#[test]
fn a_network_without_ipam_type_is_layer_2_only() {
    for ipam in [
        json!({}),
        json!({"type": ""}),
        json!({"subnet": "10.0.0.0/24"}),
    ] {
        assert!(conf(json!({"ipam": ipam})).unwrap().ipam.is_none());
    }
    let other = conf(json!({"ipam": {"type": "other", "ranges": "any"}})).unwrap();
    assert!(!other.ipam.as_ref().unwrap().is_host_local());
    fails(other.host_local(), 7, "not host-local");
}

#[test]
fn two_sets_of_a_family_need_version_0_3_0() {
    let ranges = json!([[{"subnet": "10.0.0.0/24"}], [{"subnet": "10.1.0.0/24"}]]);
    let at = |version: &str| {
        conf(json!({"cniVersion": version, "ipam": {"type": "host-local", "ranges": ranges}}))
            .unwrap()
            .host_local()
    };
    fails(
        at("0.2.0"),
        7,
        "CNI version 0.2.0 does not support more than 1 address per family",
    );
    assert_eq!(at("0.3.1").unwrap().ranges.len(), 2);
    let invalid = conf(json!({"ipam": {"type": "host-local"}}))
        .unwrap()
        .host_local();
    fails(invalid, 7, "no IP ranges specified");
}

#[test]
fn the_hardware_address_comes_from_the_nearest_channel() {
    let mac = |runtime: &str, user: &str, args: &str| {
        let conf = conf(json!({"runtimeConfig": {"mac": runtime}, "args": {"cni": {"mac": user}}}))
            .unwrap();
        let args = Args {
            mac: (!args.is_empty()).then(|| args.into()),
            ..Args::default()
        };
        Ok(conf.mac(&args)?.map(|mac| mac[5]))
    };
    let [a, b, c] = [
        "02:00:00:00:00:0a",
        "02-00-00-00-00-0B",
        "02:00:00:00:00:0c",
    ];
    assert_eq!(mac(a, b, c).unwrap(), Some(10));
    assert_eq!(mac("", b, c).unwrap(), Some(11));
    assert_eq!(mac("", "", c).unwrap(), Some(12));
    assert_eq!(mac("", "", "").unwrap(), None);
    fails(mac("02:00:00:00:00", b, c), 7, "runtimeConfig.mac");
    fails(mac("", "02:00:00:00:00:0g", c), 7, "args.cni.mac");
    fails(mac("", "", "+2:00:00:00:00:01"), 4, "ARGS: MAC");
}

#[test]
fn addresses_are_requested_through_three_channels() {
    let keys = json!({"runtimeConfig": {"ips": ["10.0.0.3/24", ""]}, "args": {"cni": {"ips": ["10.0.0.2"]}}});
    let args = Args {
        ip: Some("10.0.0.1/24".into()),
        ..Args::default()
    };
    let ips = conf(keys).unwrap().requested_ips(&args).unwrap();
    assert_eq!(
        ips.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
    );
    let bad = conf(json!({"runtimeConfig": {"ips": ["x"]}})).unwrap();
    fails(bad.requested_ips(&Args::default()), 7, "runtimeConfig.ips");
}

#[test]
fn gc_without_the_key_differs_from_gc_of_everything() {
    let valid = |keys| parse_as(Command::Gc, document(keys)).map(|conf| conf.valid_attachments);
    assert_eq!(valid(json!({})).unwrap(), None);
    assert_eq!(
        valid(json!({"cni.dev/valid-attachments": null})).unwrap(),
        Some(vec![])
    );
    assert_eq!(
        valid(json!({"cni.dev/valid-attachments": []})).unwrap(),
        Some(vec![])
    );
    let list = json!({"cni.dev/valid-attachments": [{"containerID": "Pod", "ifname": "eth0"}]});
    assert_eq!(
        valid(list).unwrap(),
        Some(vec![AttachmentId::new("Pod", "eth0")])
    );
    fails(
        valid(json!({"cni.dev/valid-attachments": [{"ifname": "eth0"}]})),
        6,
        "containerid",
    );
}

#[test]
fn the_datapath_object_refuses_what_it_does_not_know() {
    let datapath = |value: Value| conf(json!({"datapath": value}));
    fails(datapath(json!({"uplink": "eth0"})), 7, "datapath");
    fails(datapath(json!({"uplink": "eth0"})), 7, "uplink");
    fails(datapath(json!({"uplinks": ["a/b"]})), 7, "datapath.uplinks");
    fails(
        datapath(json!({"peers": [{"cidr": "10.0.0.1/24", "node": "1.1.1.1"}]})),
        7,
        "host bits set",
    );
    fails(
        datapath(json!({"antiSpoof": true, "mode": "bridge"})),
        7,
        "datapath.antiSpoof true",
    );
    let keys = json!({"mode": "ebpf", "bpffsDir": "/b", "stateDir": "/run/s", "Peers": [{"CIDR": "10.0.0.0/24", "Node": "1.1.1.1"}]});
    let conf = datapath(keys).unwrap();
    assert_eq!(
        (conf.datapath.mode, conf.datapath.peers.len()),
        (Mode::Ebpf, 1)
    );
}

#[test]
fn check_needs_a_previous_result() {
    fails(
        conf(json!({})).unwrap().previous_result(),
        7,
        "required prevResult missing",
    );
    let old = conf(json!({"prevResult": {"cniVersion": "0.4.0"}})).unwrap();
    fails(old.previous_result(), 1, "prevResult");
    let prev = json!({"prevResult": {"ips": [{"Address": "10.0.0.2/24"}]}});
    assert_eq!(
        conf(prev).unwrap().previous_result().unwrap().ips().len(),
        1
    );
}
