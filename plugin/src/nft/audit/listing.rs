//! What `nft` lists: chains, and the rules of those that matter.
//!
//! A node with many Services has a rule set that takes long to list, but few chains that matter: each is listed alone.
//! nft's JSON hides what extensions of iptables say; its text tells it, for some.

use std::{collections::HashMap, rc::Rc};

use anyhow::Result;
use serde_json::{Value, json};

use super::{
    extensions,
    walk::{ChainId, Rule, Ruleset},
};
use crate::nft::command::{list, nft, objects};

/// A base chain.
#[derive(Clone, Debug)]
pub(crate) struct Base {
    pub(crate) id: ChainId,
    pub(super) kind: String,
    pub(super) hook: String,
    pub(super) policy: String,
    /// The devices that a chain is bound to, if it is and nft tells them.
    pub(super) devices: Option<Vec<String>>,
}

/// The rule set of nf_tables in the calling thread's network namespace.
#[derive(Default)]
pub(super) struct Nft {
    rules: HashMap<ChainId, Rc<Vec<Rule>>>,
    texts: HashMap<ChainId, Rc<Text>>,
    sets: HashMap<(String, String, String), Option<Vec<Value>>>,
}

impl Nft {
    /// All base chains.
    pub(super) fn bases(&mut self) -> Result<Vec<Base>> {
        let mut bases = parse_bases(&objects(&nft(&["-j", "list", "chains"], b"")?)?);
        for base in &mut bases {
            if base.devices.is_none() && matches!(&*base.hook, "ingress" | "egress") {
                base.devices = self.text(&base.id).devices();
            }
        }
        Ok(bases)
    }

    /// A rule as nft writes it, or else its JSON.
    pub(super) fn describe(&mut self, chain: &ChainId, handle: u64) -> String {
        if let Some(text) = self.text(chain).rule(handle) {
            return text.to_owned();
        }
        let rules = self.rules.get(chain);
        let rule = rules.and_then(|rules| rules.iter().find(|rule| rule.handle == handle));
        rule.map_or_else(String::new, |rule| {
            rule.expr.iter().map(Value::to_string).collect()
        })
    }

    /// A chain in nft's own language, without what its counters are at. Empty if it has a name that is a word of it.
    fn text(&mut self, chain: &ChainId) -> Rc<Text> {
        if let Some(text) = self.texts.get(chain) {
            return text.clone();
        }
        let listed = nft(
            &[
                "-as",
                "list",
                "chain",
                &chain.family,
                &chain.table,
                &chain.name,
            ],
            b"",
        );
        let listed = listed.unwrap_or_else(|error| {
            tracing::debug!("{error:#}");
            Vec::new()
        });
        let text = Rc::new(Text::parse(&String::from_utf8_lossy(&listed)));
        self.texts.insert(chain.clone(), text.clone());
        text
    }
}

impl Ruleset for Nft {
    fn rules(&mut self, chain: &ChainId) -> Result<Rc<Vec<Rule>>> {
        if let Some(rules) = self.rules.get(chain) {
            return Ok(rules.clone());
        }
        let object =
            json!({"chain": {"family": chain.family, "table": chain.table, "name": chain.name}});
        let mut rules = parse_rules(&list(&object)?);
        if rules.iter().any(extensions::are_hidden) {
            let text = self.text(chain);
            for rule in &mut rules {
                if let Some(text) = text.rule(rule.handle) {
                    extensions::reveal(rule, text);
                }
            }
        }
        let rules = Rc::new(rules);
        self.rules.insert(chain.clone(), rules.clone());
        Ok(rules)
    }

    fn elements(&mut self, family: &str, table: &str, set: &str) -> Option<Vec<Value>> {
        let key = [family, table, set].map(str::to_owned).into();
        if let Some(elements) = self.sets.get(&key) {
            return elements.clone();
        }
        // A reference does not tell which of both it is.
        let elements = ["set", "map"].into_iter().find_map(|kind| {
            let object = json!({kind: {"family": family, "table": table, "name": set}});
            let elements = parse_elements(&list(&object).ok()?)?;
            // Not every nft tells in JSON that packets may add elements; each tells it in text.
            let head = nft(&["-t", "list", kind, family, table, set], b"").ok()?;
            is_constant(&String::from_utf8_lossy(&head)).then_some(elements)
        });
        self.sets.insert(key, elements.clone());
        elements
    }
}

pub(crate) fn parse_bases(listed: &[Value]) -> Vec<Base> {
    let base = |object: &Value| {
        let chain = object.get("chain")?;
        let text = |key: &str| chain[key].as_str().map(str::to_owned);
        let devices = match &chain["dev"] {
            Value::String(device) => Some(vec![device.clone()]),
            Value::Array(devices) => {
                let names = devices.iter().map(|name| name.as_str().map(str::to_owned));
                names.collect()
            }
            _ => None,
        };
        Some(Base {
            id: ChainId {
                family: text("family")?,
                table: text("table")?,
                name: text("name")?,
            },
            kind: text("type")?,
            hook: text("hook")?,
            policy: text("policy").unwrap_or_default(),
            devices,
        })
    };
    listed.iter().filter_map(base).collect()
}

pub(crate) fn parse_rules(listed: &[Value]) -> Vec<Rule> {
    let rule = |object: &Value| {
        let rule = object.get("rule")?;
        Some(Rule {
            handle: rule["handle"].as_u64()?,
            expr: rule["expr"].as_array().cloned().unwrap_or_default(),
        })
    };
    listed.iter().filter_map(rule).collect()
}

pub(crate) fn parse_elements(listed: &[Value]) -> Option<Vec<Value>> {
    let object = listed
        .iter()
        .find_map(|object| object.get("set").or(object.get("map")))?;
    Some(object["elem"].as_array().cloned().unwrap_or_default())
}

/// Whether the elements of a set, in nft's own language, only change with the rule set.
fn is_constant(head: &str) -> bool {
    let mut flags = head
        .lines()
        .filter_map(|line| line.trim().strip_prefix("flags "));
    !flags.any(|flags| flags.contains("dynamic") || flags.contains("timeout"))
}

/// A chain in nft's own language.
#[derive(Default)]
pub(crate) struct Text {
    head: String,
    rules: HashMap<u64, String>,
}

impl Text {
    pub(crate) fn parse(listed: &str) -> Self {
        let mut text = Self::default();
        let mut rule = String::new();
        for line in listed.lines().map(str::trim) {
            if line.starts_with("type ") && text.head.is_empty() {
                text.head = line.to_owned();
                continue;
            }
            // Long sets are broken into lines; the handle is on the last.
            let (part, handle) = match line.rsplit_once("# handle ") {
                Some((part, handle)) => (part, handle.parse().ok()),
                None => (line, None),
            };
            rule.extend([part.trim_end(), " "]);
            if let Some(handle) = handle {
                text.rules.insert(handle, rule.trim().to_owned());
                rule.clear();
            }
        }
        text
    }

    pub(crate) fn rule(&self, handle: u64) -> Option<&str> {
        self.rules.get(&handle).map(String::as_str)
    }

    pub(crate) fn devices(&self) -> Option<Vec<String>> {
        let (_, rest) = self.head.split_once(" device")?;
        let (names, _) = rest.split_once(" priority")?;
        let names = names.trim_start_matches(['s', ' ', '=']);
        let names = names.split([',', ' ', '{', '}']);
        let names = names.map(|name| name.trim_matches('"'));
        Some(
            names
                .filter(|name| !name.is_empty())
                .map(str::to_owned)
                .collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_a_chain_tells_its_devices_and_rules() {
        let text = Text::parse(
            "table netdev n { # handle 3\n\tchain m { # handle 3\n\
             \t\ttype filter hook ingress devices = { lo, v0 } priority filter; policy accept;\n\
             \t\tip saddr { 10.0.0.1, 10.0.0.2,\n\t\t\t   10.0.0.3 } drop # handle 8\n\
             \t\tip saddr 10.244.1.5 drop # handle 9\n\t}\n}\n",
        );
        assert_eq!(text.devices(), Some(vec!["lo".into(), "v0".into()]));
        let long = "ip saddr { 10.0.0.1, 10.0.0.2, 10.0.0.3 } drop";
        assert_eq!(text.rule(8), Some(long));
        assert_eq!(text.rule(9), Some("ip saddr 10.244.1.5 drop"));
        let one = "type filter hook egress device \"eth0\" priority 0; policy accept;";
        assert_eq!(Text::parse(one).devices(), Some(vec!["eth0".into()]));
        assert_eq!(Text::parse("").devices(), None);
    }

    #[test]
    fn sets_with_elements_that_come_and_go_are_told_by_their_flags() {
        for (flags, constant) in [
            ("interval", true),
            ("dynamic,timeout", false),
            ("interval,timeout", false),
        ] {
            let head = format!(
                "table ip t {{\n\tset s {{\n\t\ttype ipv4_addr\n\t\tflags {flags}\n\t}}\n}}\n"
            );
            assert_eq!(is_constant(&head), constant, "{flags}");
        }
        assert_eq!(
            parse_elements(&[json!({"set": {"name": "s"}})]),
            Some(vec![])
        );
    }
}
