//! Which packets a rule's conditions hold for.

use std::slice;

use serde_json::Value;

use super::{
    addresses::Addresses,
    holds::Holds,
    packets::{Interface, Packets},
};

/// Finds the elements of a named set; `None` if they are not known.
pub(super) type Lookup<'a> = dyn FnMut(&str) -> Option<Vec<Value>> + 'a;

/// Whether packets meet a `match` statement of nft's JSON.
pub(super) fn holds(condition: &Value, packets: &Packets, sets: &mut Lookup<'_>) -> Holds {
    let (left, right) = (&condition["left"], &condition["right"]);
    if !may_have(left, packets) {
        return Holds::Never;
    }
    let positive = match elements(right, sets) {
        Some(elements) => key_in(left, &elements, packets),
        None => Holds::Unknown,
    };
    match condition["op"].as_str() {
        Some("==" | "in") => positive,
        // Conntrack calls invalid what it does not understand; that all else is valid is not for sure.
        Some("!=") if left["ct"]["key"] == "state" => Holds::Perhaps,
        Some("!=") => positive.not(),
        _ => Holds::Perhaps.and(opaque(left)),
    }
}

/// Whether packets have what an expression reads; a rule that reads what is not there does not match, in any way.
fn may_have(left: &Value, packets: &Packets) -> bool {
    if let Some(parts) = left["concat"].as_array() {
        return parts.iter().all(|part| may_have(part, packets));
    }
    match left["payload"]["protocol"].as_str() {
        Some("ip" | "icmp" | "igmp") => packets.v4,
        Some("ip6" | "icmpv6") => !packets.v4,
        Some("arp") => false,
        _ => true,
    }
}

/// Whether packets have one of these values of an expression.
pub(super) fn among(left: &Value, elements: &[Value], packets: &Packets) -> Holds {
    if may_have(left, packets) {
        key_in(left, elements, packets)
    } else {
        Holds::Never
    }
}

fn key_in(left: &Value, elements: &[Value], packets: &Packets) -> Holds {
    let elements: Vec<_> = elements.iter().map(bare).cloned().collect();
    if let Some(parts) = left["concat"].as_array() {
        return Holds::any(elements.iter().map(|element| {
            let values = element["concat"].as_array().map_or(&[][..], Vec::as_slice);
            if values.len() != parts.len() {
                return Holds::Perhaps;
            }
            let fields = parts.iter().zip(values);
            Holds::all(fields.map(|(part, value)| key_in(part, slice::from_ref(value), packets)))
        }));
    }
    if let Some(field) = left["payload"]["field"].as_str() {
        return payload(&left["payload"]["protocol"], field, &elements, packets);
    }
    if let Some(key) = left["meta"]["key"].as_str() {
        return meta(key, &elements, packets);
    }
    let each = |holds: fn(&str) -> Holds| {
        Holds::any(elements.iter().map(|element| match element.as_str() {
            Some(text) => holds(text),
            None => Holds::Perhaps,
        }))
    };
    match (left["ct"]["key"].as_str(), left["fib"]["result"].as_str()) {
        // Connections of pods are tracked from their first packet, if at all.
        (Some("state"), _) => each(|state| match state {
            "invalid" => Holds::Never,
            _ => Holds::Perhaps,
        }),
        (Some("direction" | "l3proto" | "protocol"), _) => Holds::Perhaps,
        (_, Some("type")) => each(address_type),
        // There are routes to pods, back to where their packets come from.
        (_, Some("oif" | "oifname")) if elements == [Value::Bool(false)] => Holds::Never,
        _ => opaque(left),
    }
}

fn payload(protocol: &Value, field: &str, elements: &[Value], packets: &Packets) -> Holds {
    let ours = match (protocol.as_str(), field) {
        (Some("ip" | "ip6"), "saddr") => &packets.from,
        (Some("ip" | "ip6"), "daddr") => &packets.to,
        (Some("ether"), "type") => return ethertype(elements, packets),
        _ => return Holds::Perhaps,
    };
    match Addresses::parse(elements) {
        Some(theirs) => ours.are_in(&theirs),
        None => Holds::Perhaps,
    }
}

fn meta(key: &str, elements: &[Value], packets: &Packets) -> Holds {
    match key {
        "iif" | "iifname" => interface(packets.iif.as_ref(), elements),
        "oif" | "oifname" => interface(packets.oif.as_ref(), elements),
        "protocol" => ethertype(elements, packets),
        "nfproto" => one_of(elements, if packets.v4 { "ipv4" } else { "ipv6" }),
        "pkttype" => Holds::any(elements.iter().map(|kind| match kind.as_str() {
            Some("broadcast" | "multicast") => Holds::Never,
            _ => Holds::Perhaps,
        })),
        "mark" => Holds::Unknown,
        _ => Holds::Perhaps,
    }
}

fn interface(ours: Option<&Interface>, patterns: &[Value]) -> Holds {
    Holds::any(
        patterns
            .iter()
            .map(|pattern| match (ours, pattern.as_str()) {
                (Some(ours), Some(pattern)) => ours.is(pattern),
                _ => Holds::Perhaps,
            }),
    )
}

fn ethertype(elements: &[Value], packets: &Packets) -> Holds {
    one_of(elements, if packets.v4 { "ip" } else { "ip6" })
}

fn one_of(elements: &[Value], ours: &str) -> Holds {
    Holds::any(elements.iter().map(|element| match element.as_str() {
        // A number, where nft knows no name.
        None => Holds::Perhaps,
        Some(name) => Holds::from(name == ours),
    }))
}

/// What a route says of a pod's address, wherever the pod is.
fn address_type(name: &str) -> Holds {
    match name {
        "unicast" => Holds::Always,
        "local" | "broadcast" | "multicast" | "anycast" | "blackhole" | "unreachable"
        | "prohibit" => Holds::Never,
        _ => Holds::Perhaps,
    }
}

/// Of an expression that is not judged here.
fn opaque(left: &Value) -> Holds {
    // What others write for themselves: not to be told from the packet.
    let text = left.to_string();
    let written = ["\"mark\"", "\"status\"", "\"label\"", "\"socket\""];
    if written.iter().any(|key| text.contains(key)) {
        Holds::Unknown
    } else {
        Holds::Perhaps
    }
}

/// The elements that an expression on the right-hand side stands for.
pub(super) fn elements(right: &Value, sets: &mut Lookup<'_>) -> Option<Vec<Value>> {
    if let Some(name) = right.as_str().and_then(|text| text.strip_prefix('@')) {
        return sets(name);
    }
    let listed = right.get("set").unwrap_or(right);
    Some(match listed {
        Value::Array(elements) => elements.clone(),
        single => vec![single.clone()],
    })
}

/// An element without its timeout, counter or comment.
fn bare(element: &Value) -> &Value {
    element.pointer("/elem/val").unwrap_or(element)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn packets() -> Packets {
        let cidrs = |text: &str| Addresses::of_cidrs(true, &[text.parse().unwrap()]);
        Packets {
            v4: true,
            iif: Some(Interface::Named("cni0".into())),
            oif: Some(Interface::Named("eth0".into())),
            from: cidrs("10.244.1.0/24"),
            to: cidrs("10.244.2.0/24"),
        }
    }

    fn check(condition: Value, expected: Holds) {
        let mut sets = |name: &str| (name == "known").then(|| vec![json!("docker0")]);
        assert_eq!(
            holds(&condition, &packets(), &mut sets),
            expected,
            "{condition}"
        );
    }

    fn matching(left: Value, op: &str, right: Value) -> Value {
        json!({"op": op, "left": left, "right": right})
    }

    #[test]
    fn addresses_are_compared_with_those_of_the_pods() {
        let address = |protocol: &str, field: &str| json!({"payload": {"protocol": protocol, "field": field}});
        let prefix = |addr: &str, len: u8| json!({"prefix": {"addr": addr, "len": len}});
        for (left, op, right, expected) in [
            ("saddr", "==", json!("10.244.1.5"), Holds::Perhaps),
            ("saddr", "==", json!("10.244.2.5"), Holds::Never),
            ("daddr", "==", prefix("10.244.0.0", 16), Holds::Always),
            ("daddr", "!=", prefix("10.244.0.0", 16), Holds::Never),
            ("daddr", "!=", json!("10.244.2.5"), Holds::Perhaps),
            (
                "saddr",
                "==",
                json!({"set": ["10.9.0.1", prefix("10.8.0.0", 16)]}),
                Holds::Never,
            ),
            ("saddr", "==", json!("@unknown"), Holds::Unknown),
            ("saddr", "<", json!("10.9.0.1"), Holds::Perhaps),
        ] {
            check(matching(address("ip", left), op, right), expected);
        }
        for op in ["==", "!="] {
            let condition = matching(address("ip6", "saddr"), op, json!("fd00::1"));
            check(condition, Holds::Never);
        }
    }

    #[test]
    fn interfaces_are_compared_with_those_of_the_network() {
        let name = |key: &str| json!({"meta": {"key": key}});
        for (key, op, right, expected) in [
            ("iifname", "==", json!("docker0"), Holds::Never),
            ("iifname", "!=", json!("docker0"), Holds::Always),
            ("iifname", "==", json!("cni*"), Holds::Always),
            ("oif", "==", json!("cni0"), Holds::Never),
            ("iif", "==", json!(7), Holds::Perhaps),
            (
                "oifname",
                "==",
                json!({"set": ["a", "eth0"]}),
                Holds::Always,
            ),
            ("iifname", "==", json!("@known"), Holds::Never),
        ] {
            check(matching(name(key), op, right), expected);
        }
        let both = json!({"concat": [name("iifname"), name("oifname")]});
        let pairs = json!({"set": [{"concat": ["a", "eth0"]}, {"concat": ["cni0", "b"]}]});
        check(matching(both.clone(), "==", pairs), Holds::Never);
        let pair = json!({"set": [{"elem": {"val": {"concat": ["cni0", "eth0"]}, "timeout": 5}}]});
        check(matching(both, "==", pair), Holds::Always);
    }

    #[test]
    fn what_pods_packets_never_are_is_known() {
        let state = json!({"ct": {"key": "state"}});
        check(
            matching(state.clone(), "in", json!("invalid")),
            Holds::Never,
        );
        check(
            matching(state.clone(), "in", json!(["invalid", "new"])),
            Holds::Perhaps,
        );
        check(matching(state, "!=", json!("invalid")), Holds::Perhaps);
        let fib = json!({"fib": {"result": "type", "flags": ["daddr"]}});
        check(matching(fib.clone(), "==", json!("local")), Holds::Never);
        check(matching(fib, "!=", json!("local")), Holds::Always);
        let back = json!({"fib": {"result": "oif", "flags": ["saddr", "iif"]}});
        check(matching(back, "==", json!(false)), Holds::Never);
        let kind = json!({"meta": {"key": "pkttype"}});
        check(matching(kind, "==", json!("broadcast")), Holds::Never);
        let family = json!({"meta": {"key": "nfproto"}});
        check(matching(family, "==", json!("ipv6")), Holds::Never);
    }

    #[test]
    fn what_others_write_is_unknown_and_the_rest_of_a_packet_perhaps() {
        let masked = json!({"&": [{"meta": {"key": "mark"}}, 16384]});
        check(matching(masked, "==", json!(16384)), Holds::Unknown);
        let port = json!({"payload": {"protocol": "tcp", "field": "dport"}});
        check(matching(port, "==", json!(80)), Holds::Perhaps);
        check(json!({}), Holds::Perhaps);
    }
}
