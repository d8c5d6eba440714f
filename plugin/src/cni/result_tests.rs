//! Results against the schemas of every version.

use serde_json::json;

use super::*;

fn sample() -> CniResult {
    let mut result = CniResult::new();
    result.interface(Interface::on_host("cni0", "02:00:00:00:00:01"));
    result.interface(Interface::on_host("veth0a1b2c3d", "02:00:00:00:00:02"));
    let eth = result.interface(Interface::in_netns("eth0", "", "/run/netns/x"));
    result.set_mac(eth, "02:00:00:00:00:03");
    result.ip(
        eth,
        "10.1.2.2/24".parse().unwrap(),
        Some("10.1.2.1".parse().unwrap()),
    );
    result.ip(eth, "fd00::2/64".parse().unwrap(), None);
    result.ip(eth, "10.1.3.2/24".parse().unwrap(), None);
    let zero = Route {
        mtu: Some(1400),
        table: Some(0),
        scope: Some(0),
        ..Route::to("0.0.0.0/0".parse().unwrap())
    };
    result.route(zero);
    result.route(Route {
        gw: Some("fd00::9".parse().unwrap()),
        ..Route::to("fd01::/64".parse().unwrap())
    });
    result
}

fn interfaces() -> Value {
    json!([
        {"name": "cni0", "mac": "02:00:00:00:00:01"},
        {"name": "veth0a1b2c3d", "mac": "02:00:00:00:00:02"},
        {"name": "eth0", "mac": "02:00:00:00:00:03", "sandbox": "/run/netns/x"},
    ])
}

fn routes() -> Value {
    json!([{"dst": "0.0.0.0/0", "mtu": 1400, "table": 0, "scope": 0}, {"dst": "fd01::/64", "gw": "fd00::9"}])
}

/// The document as a later call sees it.
fn folded(document: &Value) -> Value {
    json::parse(document.to_string().as_bytes()).unwrap()
}

#[test]
fn from_1_0_0_addresses_have_no_version_and_empty_dns_is_left_out() {
    for version in [Version::V1_0_0, Version::V1_1_0] {
        let expected = json!({
            "cniVersion": version.as_str(),
            "interfaces": interfaces(),
            "ips": [
                {"interface": 2, "address": "10.1.2.2/24", "gateway": "10.1.2.1"},
                {"interface": 2, "address": "fd00::2/64"},
                {"interface": 2, "address": "10.1.3.2/24"},
            ],
            "routes": routes(),
        });
        assert_eq!(sample().to_json(version).unwrap(), expected);
    }
}

#[test]
fn from_0_3_0_addresses_name_their_family_and_dns_is_always_there() {
    for version in [Version::V0_3_0, Version::V0_3_1, Version::V0_4_0] {
        let expected = json!({
            "cniVersion": version.as_str(),
            "interfaces": interfaces(),
            "ips": [
                {"version": "4", "interface": 2, "address": "10.1.2.2/24", "gateway": "10.1.2.1"},
                {"version": "6", "interface": 2, "address": "fd00::2/64"},
                {"version": "4", "interface": 2, "address": "10.1.3.2/24"},
            ],
            "routes": routes(),
            "dns": {},
        });
        assert_eq!(sample().to_json(version).unwrap(), expected);
    }
}

#[test]
fn before_0_3_0_there_is_one_address_a_family() {
    for version in [Version::V0_1_0, Version::V0_2_0] {
        let expected = json!({
            "cniVersion": version.as_str(),
            "ip4": {"ip": "10.1.2.2/24", "gateway": "10.1.2.1", "routes": [{"dst": "0.0.0.0/0"}]},
            "ip6": {"ip": "fd00::2/64", "routes": [{"dst": "fd01::/64", "gw": "fd00::9"}]},
            "dns": {},
        });
        assert_eq!(sample().to_json(version).unwrap(), expected);
    }
}

#[test]
fn a_result_without_addresses_cannot_be_written_before_0_3_0() {
    let mut result = CniResult::new();
    result.interface(Interface::on_host("cni0", ""));
    let error = result.to_json(Version::V0_2_0).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("cannot convert: no valid IP addresses")
    );
    let expected = json!({"cniVersion": "0.3.1", "interfaces": [{"name": "cni0"}], "dns": {}});
    assert_eq!(result.to_json(Version::V0_3_1).unwrap(), expected);
    assert_eq!(
        CniResult::new().to_json(Version::V1_1_0).unwrap(),
        json!({"cniVersion": "1.1.0"})
    );
}

#[test]
fn an_index_of_zero_is_written() {
    let mut result = CniResult::new();
    let eth = result.interface(Interface::in_netns("eth0", "", "x"));
    result.ip(eth, "10.0.0.2/24".parse().unwrap(), None);
    assert_eq!(
        result.to_json(Version::V1_0_0).unwrap()["ips"][0]["interface"],
        0
    );
}

#[test]
fn dns_that_says_something_is_in_every_version() {
    let mut result = sample();
    result.set_dns(Dns {
        nameservers: vec!["192.0.2.1".into()],
        ..Dns::default()
    });
    for version in Version::SUPPORTED {
        assert_eq!(
            result.to_json(version).unwrap()["dns"],
            json!({"nameservers": ["192.0.2.1"]})
        );
    }
}

#[test]
fn what_was_written_is_read_back_as_previous_result() {
    for version in Version::SUPPORTED
        .into_iter()
        .filter(|version| *version >= Version::V0_3_0)
    {
        let document = folded(&sample().to_json(version).unwrap());
        let read = CniResult::parse_previous(&document, version).unwrap();
        assert_eq!(read, sample());
        assert_eq!(read.interface_of(&read.ips()[0]).unwrap().name, "eth0");
    }
}

#[test]
fn old_results_lose_their_interfaces_and_their_routes_gain_a_gateway() {
    let document = folded(&sample().to_json(Version::V0_2_0).unwrap());
    let read = CniResult::parse_previous(&document, Version::V0_1_0).unwrap();
    assert!(read.interfaces().is_empty() && read.interface_of(&read.ips()[0]).is_none());
    assert_eq!(read.routes()[0].gw, Some("10.1.2.1".parse().unwrap()));
    assert_eq!(read.routes()[1].gw, Some("fd00::9".parse().unwrap()));
}

#[test]
fn a_previous_result_must_be_of_the_same_shape() {
    let document =
        |version: &str| json!({"cniversion": version, "ips": [{"address": "10.0.0.2/24"}]});
    let read = |inner, outer| CniResult::parse_previous(&document(inner), outer);
    assert!(read("1.0.0", Version::V1_1_0).is_ok());
    assert!(read("0.3.1", Version::V0_4_0).is_ok());
    assert!(read("", Version::V0_4_0).is_ok());
    for (inner, outer) in [
        ("0.4.0", Version::V1_0_0),
        ("1.0.0", Version::V0_4_0),
        ("9.9.9", Version::V1_0_0),
    ] {
        let error = read(inner, outer).unwrap_err();
        assert_eq!(error.code(), Code::IncompatibleVersion);
        assert!(error.to_string().starts_with("prevResult"), "{error}");
    }
}

#[test]
fn a_result_of_ipam_without_version_has_that_of_the_configuration() {
    let parse = |text: &str, version| CniResult::parse(text.as_bytes(), version);
    let old = r#"{"ip4":{"ip":"10.0.0.2/24","gateway":"10.0.0.1"}}"#;
    assert_eq!(parse(old, Version::V0_2_0).unwrap().ips().len(), 1);
    assert!(parse(old, Version::V1_0_0).unwrap().ips().is_empty());
    let other = r#"{"cniVersion":"0.2.0","ip4":{"ip":"10.0.0.2/24"}}"#;
    assert_eq!(parse(other, Version::V1_0_0).unwrap().ips().len(), 1);
    assert_eq!(parse("", Version::V1_0_0).unwrap_err().code(), Code::Decode);
}

#[test]
fn an_index_that_leads_nowhere_is_none() {
    for index in ["0", "7", "-1"] {
        let text = format!(r#"{{"ips":[{{"interface":{index},"address":"10.0.0.2/24"}}]}}"#);
        let read = CniResult::parse(text.as_bytes(), Version::V1_0_0).unwrap();
        assert!(read.interface_of(&read.ips()[0]).is_none());
    }
}

#[test]
fn a_malformed_result_names_its_part() {
    for (text, part) in [
        (
            r#"{"ips":[{"address":"10.0.0.2"}]}"#,
            "ips[0]: invalid CIDR",
        ),
        (
            r#"{"ips":[{"address":"10.0.0.2/24","gateway":"x"}]}"#,
            "ips[0]: gateway",
        ),
        (r#"{"routes":[{"dst":"x"}]}"#, "routes[0]: dst"),
        (r#"{"ips":{}}"#, "ips: invalid type"),
    ] {
        let error = CniResult::parse(text.as_bytes(), Version::V1_0_0).unwrap_err();
        let details = error.to_json(Version::V1_0_0)["details"].clone();
        assert!(details.as_str().unwrap().starts_with(part), "{details}");
    }
}
