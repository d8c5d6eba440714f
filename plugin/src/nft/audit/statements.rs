//! What the statements of rules do to packets.

use serde_json::Value;

use super::{Effect, holds::Holds};

/// What a statement does.
#[derive(Debug, PartialEq)]
pub(super) enum Step<'a> {
    /// Goes on with the packets that meet a condition, to be judged.
    Match(&'a Value),
    /// Goes on with some packets, or those of a condition that is judged already.
    Narrow(Holds),
    /// Goes on with all.
    Continue,
    /// Ends, or goes elsewhere.
    Verdict(Verdict<'a>),
    /// Goes elsewhere by the packet's value of an expression.
    Map(&'a Value),
    /// Goes on with packets that are not what they were, or not for sure.
    Harm(Effect),
    /// Ends the chain's hook for the packets, harming them.
    Final(Effect),
}

/// Where a packet goes.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict<'a> {
    Accept,
    Drop,
    Continue,
    Return,
    Jump(&'a str),
    Goto(&'a str),
}

impl<'a> Verdict<'a> {
    /// Reads a verdict of nft's JSON.
    pub(super) fn parse(statement: &'a Value) -> Option<Self> {
        let (name, value) = only(statement)?;
        let target = || value["target"].as_str();
        Some(match name {
            "accept" => Self::Accept,
            "drop" => Self::Drop,
            "continue" => Self::Continue,
            "return" => Self::Return,
            "jump" => Self::Jump(target()?),
            "goto" => Self::Goto(target()?),
            _ => return None,
        })
    }
}

/// Reads a statement of nft's JSON.
pub(super) fn step(statement: &Value) -> Step<'_> {
    if let Some(verdict) = Verdict::parse(statement) {
        return Step::Verdict(verdict);
    }
    // A statement without parameters may be only its name.
    let (name, value) = match (only(statement), statement.as_str()) {
        (Some(named), _) => named,
        (None, Some(name)) => (name, &Value::Null),
        (None, None) => return Step::Harm(Effect::Unknown),
    };
    match name {
        "match" => Step::Match(value),
        "vmap" => Step::Map(value),
        "counter" | "log" | "last" | "comment" | "flow" | "notrack" | "secmark" | "ct helper"
        | "ct timeout" | "ct expectation" => Step::Continue,
        // With a set that is full, these do not match.
        "limit" | "quota" | "ct count" | "meter" | "set" | "map" => Step::Narrow(Holds::Perhaps),
        "mangle" => mangle(value),
        "reject" => Step::Final(Effect::Drop),
        "queue" => Step::Harm(Effect::Drop),
        "snat" | "dnat" | "masquerade" | "redirect" => Step::Final(Effect::Change),
        "dup" | "fwd" | "tproxy" | "synproxy" | "reset" => Step::Harm(Effect::Change),
        "xt" => xt(value),
        _ => Step::Harm(Effect::Unknown),
    }
}

fn mangle(value: &Value) -> Step<'_> {
    let key = &value["key"];
    let own = key.get("meta").or(key.get("ct"));
    // What does not fit the path's MTU is left to the stack by the fast path too.
    let clamped = key["tcp option"]["name"] == "maxseg" && value["value"]["rt"]["key"] == "mtu";
    if own.is_some() || clamped {
        Step::Continue
    } else {
        Step::Harm(Effect::Change)
    }
}

/// An extension of iptables, of which only the name is known.
fn xt(value: &Value) -> Step<'_> {
    let name = value["name"].as_str().unwrap_or_default();
    if value["type"] == "match" {
        return Step::Narrow(match name {
            "comment" => Holds::Always,
            "tcp" | "udp" | "udplite" | "sctp" | "dccp" | "icmp" | "icmp6" | "multiport"
            | "length" | "limit" | "statistic" | "hashlimit" => Holds::Perhaps,
            _ => Holds::Unknown,
        });
    }
    match name {
        "LOG" | "NFLOG" | "ULOG" | "TRACE" | "AUDIT" | "LED" | "ACCOUNT" | "IDLETIMER"
        | "RATEEST" | "MARK" | "CONNMARK" | "HMARK" | "CLASSIFY" | "SECMARK" | "CONNSECMARK"
        | "CT" | "NOTRACK" | "SET" | "CHECKSUM" | "FLOWOFFLOAD" => Step::Continue,
        "ACCEPT" => Step::Verdict(Verdict::Accept),
        "DROP" | "REJECT" | "TARPIT" => Step::Final(Effect::Drop),
        "NFQUEUE" | "QUEUE" => Step::Harm(Effect::Drop),
        "SNAT" | "DNAT" | "MASQUERADE" | "REDIRECT" | "NETMAP" => Step::Final(Effect::Change),
        "TPROXY" | "SYNPROXY" | "TEE" | "TCPMSS" | "TCPOPTSTRIP" | "TOS" | "DSCP" | "TTL"
        | "HL" | "ECN" => Step::Harm(Effect::Change),
        _ => Step::Harm(Effect::Unknown),
    }
}

/// The one key of an object, and its value.
fn only(object: &Value) -> Option<(&str, &Value)> {
    let object = object.as_object()?;
    let (key, value) = object.iter().next()?;
    (object.len() == 1).then_some((key, value))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_only_looks_at_packets_or_marks_them_is_no_harm() {
        for statement in [
            json!({"counter": {"packets": 0, "bytes": 0}}),
            json!({"counter": "name"}),
            json!({"log": null}),
            json!("notrack"),
            json!({"mangle": {"key": {"meta": {"key": "mark"}}, "value": 1}}),
            json!({"mangle": {"key": {"tcp option": {"name": "maxseg", "field": "size"}}, "value": {"rt": {"key": "mtu"}}}}),
            json!({"xt": {"type": "target", "name": "CONNMARK"}}),
        ] {
            assert_eq!(step(&statement), Step::Continue, "{statement}");
        }
    }

    #[test]
    fn what_drops_or_changes_packets_is_harm_and_so_is_what_nobody_knows() {
        for (statement, expected) in [
            (json!({"reject": null}), Step::Final(Effect::Drop)),
            (json!({"queue": {"num": 1}}), Step::Harm(Effect::Drop)),
            (json!({"masquerade": null}), Step::Final(Effect::Change)),
            (
                json!({"dup": {"addr": "10.0.0.1"}}),
                Step::Harm(Effect::Change),
            ),
            (
                json!({"mangle": {"key": {"payload": {"protocol": "ip", "field": "ttl"}}, "value": 3}}),
                Step::Harm(Effect::Change),
            ),
            (
                json!({"mangle": {"key": {"tcp option": {"name": "maxseg", "field": "size"}}, "value": 1300}}),
                Step::Harm(Effect::Change),
            ),
            (
                json!({"xt": {"type": "target", "name": "REJECT"}}),
                Step::Final(Effect::Drop),
            ),
            (
                json!({"xt": {"type": "target", "name": "NEW"}}),
                Step::Harm(Effect::Unknown),
            ),
            (json!({"new": null}), Step::Harm(Effect::Unknown)),
            (json!(7), Step::Harm(Effect::Unknown)),
        ] {
            assert_eq!(step(&statement), expected, "{statement}");
        }
    }
}
