//! What is read of the node: records on disk, `resolv.conf`, rules that others wrote, what programs tell.
//!
//! An input is what it is in a line, such as `resolv.conf`, and then the content.

#![no_main]

use beeline::{
    fuzzing,
    nft::audit::Scope,
    node::{Attachment, Record, cluster::Cluster},
};
use beeline_common::{Event, Hook, Outcome};
use ipnetwork::IpNetwork;
use libfuzzer_sys::fuzz_target;
use serde::{Serialize, de::DeserializeOwned};

fuzz_target!(|data: &[u8]| {
    let Some(at) = data.iter().position(|byte| *byte == b'\n') else {
        return;
    };
    let (what, content) = (&data[..at], &data[at + 1..]);
    let text = String::from_utf8_lossy(content);
    match what {
        b"resolv.conf" => resolv_conf(&text),
        b"node.json" => record::<Record>(content),
        b"attachment" => record::<Attachment>(content),
        b"cluster.json" => record::<Cluster>(content),
        b"filter" => iptables("filter", &text),
        b"nat" => iptables("nat", &text),
        b"nft" => nft(&text),
        b"event" => event(content),
        _ => {}
    }
});

/// What is read is written and read again, and is the same.
fn record<T: Serialize + DeserializeOwned>(content: &[u8]) {
    let Ok(read) = serde_json::from_slice::<T>(content) else {
        return;
    };
    let written = serde_json::to_vec(&read).expect("it can be written");
    let again: T = serde_json::from_slice(&written).expect("it can be read");
    assert_eq!(written, serde_json::to_vec(&again).unwrap());
}

fn resolv_conf(text: &str) {
    let dns = fuzzing::dns(text);
    let domain = (!dns.domain.is_empty()).then_some(&dns.domain);
    let lists = [&dns.nameservers, &dns.search, &dns.options];
    for word in lists.into_iter().flatten().chain(domain) {
        let plain = !word.is_empty() && !word.contains(char::is_whitespace);
        assert!(plain && text.contains(word.as_str()), "{word:?}");
    }
    // As resolv.conf(5) has it.
    let mut written = String::new();
    for server in &dns.nameservers {
        written += &format!("nameserver {server}\n");
    }
    for (key, words) in [("search", &dns.search), ("options", &dns.options)] {
        written += &format!("{key} {}\n", words.join(" "));
    }
    written += &format!("domain {}\n", dns.domain);
    assert_eq!(fuzzing::dns(&written), dns);
}

/// Rules in iptables-save's form: one that drops everything before them is found, whatever else there is.
fn iptables(table: &str, saved: &str) {
    let cidrs: [IpNetwork; 2] =
        ["10.244.1.0/24", "10.244.2.0/24"].map(|cidr| cidr.parse().unwrap());
    let uplinks = ["eth0".to_owned()];
    let scope = Scope {
        bridge: "cni0",
        uplinks: &uplinks,
        pod_cidrs: &cidrs[..1],
        peers: &cidrs[1..],
    };
    fuzzing::iptables(table, saved, &scope).expect("nothing is asked of the kernel");
    let dropping = format!(":FORWARD ACCEPT [0:0]\n-A FORWARD -j DROP\n{saved}");
    let found = fuzzing::iptables("filter", &dropping, &scope).unwrap();
    assert!(!found.is_empty(), "{dropping}");
    let Some(told) = fuzzing::deletion(saved) else {
        return;
    };
    let inner = told
        .strip_prefix("*nat\n")
        .and_then(|told| told.strip_suffix("COMMIT\n"));
    let ours = ["-D POSTROUTING ", "-F CNI-", "-X CNI-"];
    for line in inner.expect("a table").lines() {
        assert!(ours.iter().any(|begin| line.starts_with(begin)), "{told}");
    }
}

/// Chains and rules as nft lists them in JSON, an empty line, and in its own language.
fn nft(text: &str) {
    let (listed, text) = text.split_once("\n\n").unwrap_or((text, ""));
    let scope = Scope {
        bridge: "cni0",
        uplinks: &[],
        pod_cidrs: &[],
        peers: &[],
    };
    // An error is that it is not JSON.
    let _ = fuzzing::nftables(listed.as_bytes(), text, &scope);
}

fn event(record: &[u8]) {
    let sighting = fuzzing::sighting(record);
    let Some((event, packet)) = record.split_at_checked(size_of::<Event>()) else {
        assert!(sighting.is_none());
        return;
    };
    let Some(sighting) = sighting else {
        return;
    };
    assert!(Hook::ALL.contains(&sighting.hook) && Outcome::ALL.contains(&sighting.outcome));
    assert!(sighting.bytes.len() <= packet.len());
    // Behind what the programs change it is the packet's own.
    let head = beeline_common::abi::HEAD.min(sighting.bytes.len());
    assert_eq!(sighting.bytes[head..], packet[head..sighting.bytes.len()]);
    let begin = &sighting.bytes[..head];
    assert!(packet.starts_with(begin) || event.windows(head).any(|part| part == begin));
}
