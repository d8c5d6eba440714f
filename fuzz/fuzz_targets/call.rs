//! A call by a runtime, as far as it is read: environment, `CNI_ARGS`, configuration, `prevResult`.
//!
//! An input is lines `NAME=value`, an empty line, and what comes on standard input.

#![no_main]

use std::{collections::HashMap, ffi::OsString, os::unix::ffi::OsStringExt as _};

use beeline::{
    cni::{
        CniResult, Code, Command, Env, Error, NetConf, Version, names, plan_and_ipam_of,
        remains_of, version::Schema,
    },
    ipam::IpamConf,
    node::Plan,
};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

const COMMANDS: [Command; 5] = [
    Command::Add,
    Command::Del,
    Command::Check,
    Command::Gc,
    Command::Status,
];

fuzz_target!(|data: &[u8]| {
    let (head, stdin) = match data.windows(2).position(|pair| pair == b"\n\n") {
        Some(at) => (&data[..at], &data[at + 2..]),
        None => (&b""[..], data),
    };
    let env = environment(head);
    let confs = COMMANDS.map(|command| configuration(stdin, command));
    assert_lenient(&confs);
    for conf in confs.into_iter().flatten() {
        let args = env
            .as_ref()
            .and_then(|env| accepted(env.args(), conf.version));
        attachment(&conf, args.unwrap_or_default());
        plan(&conf, stdin);
        results(&conf);
    }
});

/// The value, or none of an error that is one for runtimes.
fn accepted<T>(result: Result<T, Error>, version: Version) -> Option<T> {
    let error = match result {
        Ok(value) => return Some(value),
        Err(error) => error,
    };
    let document = error.to_json(version);
    assert_ne!(document["code"], 0, "{document}");
    assert!(document["code"].is_u64(), "{document}");
    assert_ne!(document["msg"], "", "{document}");
    assert_eq!(document["cniVersion"], version.as_str());
    let text = document.to_string();
    assert!(!text.contains('\n'), "{text}");
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), document);
    None
}

fn environment(head: &[u8]) -> Option<Env> {
    let mut variables: HashMap<&[u8], &[u8]> = HashMap::new();
    for line in head.split(|byte| *byte == b'\n') {
        let Some(at) = line.iter().position(|byte| *byte == b'=') else {
            continue;
        };
        variables.insert(&line[..at], &line[at + 1..]);
    }
    let lookup = |name: &str| {
        let value = variables.get(name.as_bytes())?;
        Some(OsString::from_vec(value.to_vec()))
    };
    let parsed = Env::parse(lookup);
    assert!(
        parsed
            .as_ref()
            .err()
            .is_none_or(|error| error.code() == Code::InvalidEnvironment),
        "{parsed:?}"
    );
    let env = accepted(parsed, Version::LATEST)?;
    assert!(env.path.iter().all(|directory| directory.is_absolute()));
    let one = matches!(env.command, Command::Add | Command::Check | Command::Del);
    if one {
        names::check_identifier("id", &env.container_id).unwrap();
        names::check_ifname("ifname", &env.ifname).unwrap();
        assert!(!env.path.is_empty() || lookup("CNI_PATH").is_some());
    }
    assert_eq!(env.attachment().ifname, env.ifname);
    Some(env)
}

fn configuration(stdin: &[u8], command: Command) -> Option<NetConf> {
    let conf = accepted(
        NetConf::parse(stdin.to_vec().into(), command),
        Version::LATEST,
    )?;
    // What becomes of a name, or of a path.
    names::check_identifier("name", &conf.name).unwrap();
    conf.datapath.check_paths().unwrap();
    assert_eq!(conf.raw, stdin);
    if !matches!(command, Command::Del | Command::Gc) {
        names::check_ifname("bridge", &conf.bridge).unwrap();
        conf.datapath.validate().unwrap();
        for uplink in &conf.datapath.uplinks {
            names::check_ifname("uplink", uplink).unwrap();
        }
        assert!(!(conf.hairpin_mode && conf.promisc_mode));
        assert!(conf.mtu.is_none_or(|mtu| mtu >= 68));
    }
    Some(conf)
}

/// What one command takes, is not held against another that needs less of it.
fn assert_lenient([add, del, check, gc, status]: &[Option<NetConf>; 5]) {
    assert!(del.is_some() || add.is_none());
    assert!(add.is_some() || check.is_none());
    assert!(check.is_some() || status.is_none());
    assert!(gc.is_some() || status.is_none());
    let since = |version| add.as_ref().is_some_and(|add| add.version >= version);
    assert_eq!(check.is_some(), since(Version::V0_4_0));
    assert_eq!(status.is_some(), since(Version::V1_1_0));
}

fn attachment(conf: &NetConf, args: beeline::cni::Args) {
    let mac = accepted(conf.mac(&args), conf.version);
    let wished = [&conf.runtime.mac, &conf.args.mac]
        .iter()
        .any(|mac| !mac.is_empty());
    assert!(mac.is_none_or(|mac| mac.is_some() || !wished));
    if let Some(ips) = accepted(conf.requested_ips(&args), conf.version) {
        assert!(ips.iter().all(|ip| ip.to_canonical() == *ip), "{ips:?}");
    }
    if let Some(pod) = &args.pod {
        let (namespace, name) = pod.split_once('/').unwrap();
        names::check_identifier("namespace", namespace).unwrap();
        names::check_identifier("name", name).unwrap();
    }
}

fn plan(conf: &NetConf, stdin: &[u8]) {
    let built_in = conf.ipam.as_ref().is_some_and(|ipam| ipam.is_host_local());
    let host_local = accepted(conf.host_local(), conf.version);
    assert!(built_in || host_local.is_none());
    if let Some(ipam) = &host_local {
        allocator(ipam);
    }
    // As the agent has it: of keys that are one but for their case another may have won.
    let Ok(document) = serde_json::from_slice::<Value>(stdin) else {
        return;
    };
    if let Some((plan, ipam)) = accepted(plan_and_ipam_of(&document), conf.version) {
        let conf = NetConf::parse(document.to_string().into(), Command::Add).unwrap();
        assert_eq!(plan.network, conf.name);
        assert_eq!(
            plan.pod_cidrs,
            ipam.map(|ipam| ipam.subnets()).unwrap_or_default()
        );
        assert!(plan.pod_cidrs.iter().all(|cidr| plan.holds(cidr.ip())));
        assert!(plan.state_dir().starts_with("/run"));
        // It is written down, and two that are equal ask for the same node.
        let written = serde_json::to_vec(&plan).unwrap();
        assert_eq!(serde_json::from_slice::<Plan>(&written).unwrap(), plan);
        names::check_ifname("gateway", &plan.bridge.gateway_interface()).unwrap();
        assert!(accepted(remains_of(&document), conf.version).is_some());
    }
}

fn allocator(ipam: &IpamConf) {
    assert!(ipam.data_dir.is_absolute() && !ipam.ranges.is_empty());
    for set in &ipam.ranges {
        let all = set.candidates(None).take(300).collect::<Vec<_>>();
        assert_eq!(all.len() as u128, set.capacity().min(300), "{set}");
        for (ip, range) in all {
            assert!(range.contains(ip) && ip != range.gateway() && set.allocates(ip));
            range.with_prefix(ip).unwrap();
        }
    }
}

fn results(conf: &NetConf) {
    let Some(result) = accepted(conf.previous_result(), conf.version) else {
        return;
    };
    for ip in result.ips() {
        assert!(
            result
                .interface_of(ip)
                .is_none_or(|found| result.interfaces().contains(found))
        );
    }
    for version in Version::SUPPORTED {
        let Some(document) = accepted(result.to_json(version), conf.version) else {
            // Only old versions have no place for something.
            assert_eq!(version.schema(), Schema::IpPerFamily);
            assert!(result.ips().is_empty());
            continue;
        };
        let text = document.to_string();
        // Whatever the caller's version is, the document says its own.
        let read = CniResult::parse(text.as_bytes(), Version::LATEST).unwrap();
        if version.schema() != Schema::IpPerFamily {
            assert_eq!(read, result, "{text}");
            assert_eq!(read.to_json(version).unwrap(), document);
            continue;
        }
        // One address a family, whose gateway the routes have.
        assert_eq!(read.dns(), result.dns());
        assert!(
            read.ips().len() <= 2
                && read.ips().iter().all(|ip| {
                    result
                        .ips()
                        .iter()
                        .any(|other| (other.address, other.gateway) == (ip.address, ip.gateway))
                })
        );
        let again = read.to_json(version).unwrap().to_string();
        assert_eq!(
            CniResult::parse(again.as_bytes(), version).unwrap(),
            read,
            "{text}"
        );
    }
}
