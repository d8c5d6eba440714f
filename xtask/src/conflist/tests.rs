//! What the options take, and the configuration they make.

use clap::Parser;
use serde_json::{Value, json};

use super::*;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    network: Network,
}

fn parse(args: &[&str]) -> Result<Network, clap::Error> {
    let args = std::iter::once(&"install").chain(args);
    Cli::try_parse_from(args).map(|cli| cli.network)
}

/// Returns the error's first line, which must say it all.
fn refusal(args: &[&str]) -> String {
    let refused = parse(args)
        .map_err(anyhow::Error::from)
        .and_then(|network| network.check());
    refused
        .unwrap_err()
        .to_string()
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned()
}

#[test]
fn the_example_of_the_design_is_made() {
    let args = ["--uplink", "eth0", "--peer", "10.244.2.0/24=192.168.1.12"];
    let network = parse(&args).unwrap();
    network.check().unwrap();
    let text = network.conflist().unwrap();
    let expected = json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [{
            "type": "beeline",
            "bridge": "cni0",
            "isGateway": true,
            "hairpinMode": true,
            "ipMasq": true,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": "10.244.1.0/24"}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
            "datapath": {
                "mode": "auto",
                "uplinks": ["eth0"],
                "peers": [{"cidr": "10.244.2.0/24", "node": "192.168.1.12"}],
            },
        }],
    });
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), expected);
    assert!(text.starts_with("{\n  \"cniVersion\""), "{text}");
}

#[test]
fn an_ipv6_subnet_gets_an_ipv6_default_route() {
    let network = parse(&["--subnet", "fd00:1::/64", "--peer", "fd00:2::/64=fe80::2"]).unwrap();
    network.check().unwrap();
    let conflist: Value = serde_json::from_str(&network.conflist().unwrap()).unwrap();
    assert_eq!(
        conflist["plugins"][0]["ipam"]["routes"],
        json!([{"dst": "::/0"}])
    );
}

#[test]
fn a_refusal_names_option_and_value() {
    for (args, option, value) in [
        (["--subnet", "10.244.1.0"], "--subnet", "10.244.1.0"),
        (["--subnet", "10.244.1.0/33"], "--subnet", "10.244.1.0/33"),
        (
            ["--subnet", "10.244.1.7/24"],
            "--subnet",
            "its network is 10.244.1.0/24",
        ),
        (["--peer", "10.244.2.0/24"], "--peer", "CIDR=NODE"),
        (["--peer", "10.244.2.0/24=node-b"], "--peer", "node-b"),
        (
            ["--peer", "10.244.2.0=192.168.1.12"],
            "--peer",
            "10.244.2.0",
        ),
        (["--peer", "fd00::/64=192.168.1.12"], "--peer", "fd00::/64"),
        (
            ["--peer", "10.244.0.0/16=192.168.1.12"],
            "--peer",
            "overlaps --subnet",
        ),
        (
            ["--bridge", "a-name-too-long-0"],
            "--bridge",
            "a-name-too-long-0",
        ),
        (["--uplink", "eth/0"], "--uplink", "eth/0"),
        (["--name", "-x y"], "--name", "-x y"),
        (["--name", "../etc"], "--name", "../etc"),
        (["--cni-version", "2.0.0"], "--cni-version", "2.0.0"),
    ] {
        let [flag, given] = args;
        let refusal = refusal(&[&format!("{flag}={given}")]);
        assert!(
            refusal.contains(option) && refusal.contains(value),
            "{refusal}"
        );
    }
}

#[test]
fn one_cidr_cannot_be_on_two_nodes() {
    let refusal = refusal(&["--peer=10.2.0.0/24=10.0.0.2", "--peer=10.2.0.0/24=10.0.0.3"]);
    assert_eq!(
        refusal,
        "--peer 10.2.0.0/24=10.0.0.3: 10.2.0.0/24 was given before"
    );
}
