//! What an IPAM plugin says: its error to the runtime, its result to a lease, and that to results of any version.
//!
//! An input is the status of wait(2) and what the configuration has, a word each (`0`, `1.0.0`, `isGateway`, …), a line
//! break, and what the plugin prints.

#![no_main]

use beeline::{
    cni::{CniResult, Command, Error, Interface, NetConf, Version},
    fuzzing,
    ipam::{DelegateError, Lease},
};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

fuzz_target!(|data: &[u8]| {
    let at = data.iter().position(|byte| *byte == b'\n').unwrap_or(0);
    let (head, output) = (String::from_utf8_lossy(&data[..at]), &data[at..]);
    let words: Vec<&str> = head.split(' ').collect();
    let status: i32 = words[0].parse().unwrap_or_default();
    let version = words.iter().find_map(|word| Version::parse(word));
    let version = version.unwrap_or(Version::LATEST);
    let conf = json!({
        "cniVersion": version, "name": "net", "type": "beeline",
        "isGateway": words.contains(&"isGateway"),
        "isDefaultGateway": words.contains(&"isDefaultGateway"),
        "ipam": {"type": "stub"},
    });
    match fuzzing::answer(status, output) {
        Ok(output) => {
            assert_eq!(status, 0);
            result(&conf, version, &output);
        }
        Err(error) => failure(status, output, error, version),
    }
});

fn failure(status: i32, output: &[u8], error: anyhow::Error, version: Version) {
    assert_ne!(status, 0);
    // As the plugin's verbs add to it what they were about.
    let error = Error::from(error.context("ipam stub: ADD"));
    let document = error_object(&error, version);
    let Ok(said) = serde_json::from_slice::<DelegateError>(output) else {
        assert_eq!(document["code"], 999);
        assert_eq!(document["msg"], "ipam stub: ADD");
        return;
    };
    let code = if said.code == 0 { 999 } else { said.code };
    assert_eq!(document["code"], code);
    assert!(
        document["msg"] == *said.msg || said.msg.is_empty(),
        "{document}"
    );
    assert_eq!(
        document["details"].as_str().unwrap_or_default(),
        said.details
    );
}

/// The document of an error, which is one for runtimes.
fn error_object(error: &Error, version: Version) -> Value {
    let document = error.to_json(version);
    assert!(
        document["code"].as_u64().is_some_and(|code| code != 0),
        "{document}"
    );
    assert_ne!(document["msg"], "", "{document}");
    assert!(!document.to_string().contains('\n'));
    document
}

fn result(conf: &Value, version: Version, output: &[u8]) {
    let parsed = NetConf::parse(conf.to_string().into(), Command::Add).expect("a configuration");
    let lease = match fuzzing::leased(&parsed, "stub", output) {
        Ok(lease) => lease,
        Err(error) => {
            error_object(&error.into(), version);
            return;
        }
    };
    let said = CniResult::parse(output, version).expect("it has been read before");
    assert_leased(&parsed, &said, &lease);
    chain(conf, version, lease);
}

/// The lease is what the plugin says, but for what the configuration adds.
fn assert_leased(conf: &NetConf, said: &CniResult, lease: &Lease) {
    assert_eq!(said.ips().len(), lease.ips.len());
    assert!(!lease.ips.is_empty());
    for (said, leased) in said.ips().iter().zip(&lease.ips) {
        assert_eq!(said.address, leased.address);
        let added = conf.is_gateway && said.gateway.is_none();
        assert!(said.gateway == leased.gateway || added);
        assert!(
            !added
                || leased
                    .gateway
                    .is_none_or(|gateway| leased.address.contains(gateway))
        );
    }
    let (same, added) = lease.routes.split_at(said.routes().len());
    assert_eq!(same, said.routes());
    assert!(added.is_empty() || conf.is_default_gateway);
    for route in added {
        assert_eq!(route.dst.prefix(), 0);
        assert!(
            lease
                .ips
                .iter()
                .any(|ip| ip.gateway == route.gw && route.gw.is_some())
        );
    }
    assert_eq!(said.dns(), &lease.dns);
}

/// The result of ADD becomes the `prevResult` of CHECK, and says the same.
fn chain(conf: &Value, version: Version, lease: Lease) {
    let mut result = CniResult::new();
    result.interface(Interface::on_host("cni0", "02:00:00:00:00:01"));
    let eth = result.interface(Interface::in_netns("eth0", "", "/run/netns/x"));
    for ip in &lease.ips {
        result.ip(eth, ip.address, ip.gateway);
    }
    lease
        .routes
        .into_iter()
        .for_each(|route| result.route(route));
    result.set_dns(lease.dns);
    let document = result.to_json(version).expect("there are addresses");
    if version < Version::V0_4_0 {
        CniResult::parse(document.to_string().as_bytes(), version).expect("a result");
        return;
    }
    let mut conf = conf.clone();
    conf["prevResult"] = document;
    let conf = NetConf::parse(conf.to_string().into(), Command::Check).expect("a configuration");
    assert_eq!(conf.previous_result().expect("a result"), result);
}
