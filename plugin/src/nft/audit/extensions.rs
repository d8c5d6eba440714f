//! What iptables' extensions in a rule say, as far as it matters.

use serde_json::{Value, json};

use super::walk::Rule;

/// Whether nft's JSON hides something of a rule that its text may tell.
pub(crate) fn are_hidden(rule: &Rule) -> bool {
    let telling = ["conntrack", "state", "addrtype", "iprange", "TCPMSS"];
    rule.expr.iter().any(|statement| {
        let name = statement["xt"]["name"].as_str();
        name.is_some_and(|name| telling.contains(&name))
    })
}

/// Replaces extensions in a rule by the statements that nft's text, which translates them, has for them.
pub(crate) fn reveal(rule: &mut Rule, text: &str) {
    let text = unquoted(text);
    let words: Vec<_> = text.split_whitespace().collect();
    for statement in &mut rule.expr {
        let said = match statement["xt"]["name"].as_str() {
            Some("conntrack" | "state") => has(&words, "ct state invalid").then(invalid),
            Some("addrtype") => ["saddr", "daddr"]
                .iter()
                .find_map(|side| after(&words, &["fib", side, "type"]))
                .map(|(op, kind)| address_type(op, kind)),
            Some("iprange") => address_range(&words),
            Some("TCPMSS") if has(&words, "tcp option maxseg size set rt mtu") => Some(clamp()),
            _ => None,
        };
        if let Some(said) = said {
            *statement = said;
        }
    }
}

pub(super) fn invalid() -> Value {
    matching(json!({"ct": {"key": "state"}}), "in", json!("invalid"))
}

pub(super) fn address_type(op: &str, kind: &str) -> Value {
    let left = json!({"fib": {"result": "type", "flags": ["daddr"]}});
    matching(left, op, json!(kind))
}

/// Sets the largest segment to what the route's MTU allows.
pub(super) fn clamp() -> Value {
    json!({"mangle": {
        "key": {"tcp option": {"name": "maxseg", "field": "size"}},
        "value": {"rt": {"key": "mtu"}},
    }})
}

/// A match on an address of the packet, written as one, a prefix, or a range with both ends; `None` if it is neither.
pub(super) fn address(field: &str, op: &str, text: &str) -> Option<Value> {
    let (right, first) = if let Some((first, last)) = text.split_once('-') {
        (json!({"range": [first, last]}), first)
    } else if let Some((first, length)) = text.split_once('/') {
        let length: u8 = length.parse().ok()?;
        (json!({"prefix": {"addr": first, "len": length}}), first)
    } else {
        (json!(text), text)
    };
    let protocol = if first.contains(':') { "ip6" } else { "ip" };
    let left = json!({"payload": {"protocol": protocol, "field": field}});
    Some(matching(left, op, right))
}

pub(super) fn matching(left: Value, op: &str, right: Value) -> Value {
    json!({"match": {"op": op, "left": left, "right": right}})
}

fn address_range(words: &[&str]) -> Option<Value> {
    for protocol in ["ip", "ip6"] {
        for side in ["saddr", "daddr"] {
            // One side, as the other is no less of a condition.
            match after(words, &[protocol, side]) {
                Some((op, range)) if range.contains('-') => return address(side, op, range),
                _ => {}
            }
        }
    }
    None
}

/// The operator and the value that follow an expression.
fn after<'a>(words: &[&'a str], expression: &[&str]) -> Option<(&'static str, &'a str)> {
    let start = words
        .windows(expression.len())
        .position(|window| window == expression)?;
    match words.get(start + expression.len()..)? {
        ["!=", value, ..] => Some(("!=", *value)),
        [value, ..] => Some(("==", *value)),
        [] => None,
    }
}

fn has(words: &[&str], phrase: &str) -> bool {
    let phrase: Vec<_> = phrase.split(' ').collect();
    words.windows(phrase.len()).any(|window| window == phrase)
}

/// Without strings, in which a user may have written anything.
fn unquoted(text: &str) -> String {
    let outside = text.split('"').step_by(2);
    outside.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revealed(name: &str, text: &str) -> Value {
        let mut rule = Rule {
            handle: 1,
            expr: vec![json!({"xt": {"type": "match", "name": name}})],
        };
        assert!(are_hidden(&rule));
        reveal(&mut rule, text);
        rule.expr.remove(0)["match"].take()
    }

    #[test]
    fn the_text_tells_what_extensions_say() {
        let invalid = revealed(
            "conntrack",
            "ct state invalid counter packets 0 bytes 0 drop",
        );
        assert_eq!(invalid["right"], "invalid");
        let local = revealed("addrtype", "fib daddr type != local counter jump DOCKER");
        assert_eq!(
            (&local["op"], &local["right"]),
            (&json!("!="), &json!("local"))
        );
        let range = revealed("iprange", "ip saddr 10.244.1.5-10.244.1.9 counter drop");
        assert_eq!(range["right"]["range"][1], "10.244.1.9");
    }

    #[test]
    fn what_a_user_wrote_as_a_comment_is_not_taken_for_a_condition() {
        for text in [
            "ct state new counter drop comment \"not ct state invalid drop\"",
            "ct state invalid,new counter drop",
            "ct state != invalid counter drop",
            "",
        ] {
            assert_eq!(revealed("conntrack", text), Value::Null, "{text}");
        }
    }
}
