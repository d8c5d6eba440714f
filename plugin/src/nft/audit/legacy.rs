//! The rules of iptables before nf_tables, which only its own programs list.

use std::{collections::HashMap, fs, io, rc::Rc};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{
    extensions,
    listing::Base,
    walk::{ChainId, Rule, Ruleset},
};
use crate::nft::command::output;

/// One family of iptables.
pub(in crate::nft) struct Family {
    /// As nf_tables calls it.
    pub(super) name: &'static str,
    pub(super) program: &'static str,
    tables: &'static str,
}

pub(in crate::nft) const FAMILIES: [Family; 2] = [
    Family {
        name: "ip",
        program: "iptables-legacy-save",
        tables: "/proc/thread-self/net/ip_tables_names",
    },
    Family {
        name: "ip6",
        program: "ip6tables-legacy-save",
        tables: "/proc/thread-self/net/ip6_tables_names",
    },
];

impl Family {
    /// The tables that there are in the calling thread's network namespace.
    pub(in crate::nft) fn tables(&self) -> Result<Vec<String>> {
        match fs::read_to_string(self.tables) {
            Ok(names) => Ok(names.lines().map(str::to_owned).collect()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error).with_context(|| format!("{}: read", self.tables)),
        }
    }

    pub(super) fn read(&self, table: &str) -> Result<Table> {
        let saved = output(self.program, "iptables", &["-t", table], b"")?;
        Ok(Table::parse(
            self.name,
            table,
            &String::from_utf8_lossy(&saved),
        ))
    }
}

/// A table as `iptables-save` writes it.
pub(crate) struct Table {
    pub(super) bases: Vec<Base>,
    chains: HashMap<String, Rc<Vec<Rule>>>,
    texts: HashMap<u64, String>,
}

impl Table {
    pub(crate) fn parse(family: &str, table: &str, saved: &str) -> Self {
        let mut bases = Vec::new();
        let mut chains: HashMap<String, Vec<Rule>> = HashMap::new();
        let mut texts = HashMap::new();
        for line in saved.lines() {
            if let Some((name, rest)) = line.strip_prefix(':').and_then(|line| line.split_once(' '))
            {
                chains.insert(name.to_owned(), Vec::new());
                let policy = rest.split(' ').next().unwrap_or_default();
                if policy != "-" {
                    bases.push(base(family, table, name, policy));
                }
            }
        }
        let names: Vec<_> = chains.keys().cloned().collect();
        for (number, line) in saved.lines().enumerate() {
            let Some((chain, text)) = line
                .strip_prefix("-A ")
                .and_then(|line| line.split_once(' '))
            else {
                continue;
            };
            let handle = number as u64;
            let expr = statements(text, &names);
            chains
                .entry(chain.to_owned())
                .or_default()
                .push(Rule { handle, expr });
            texts.insert(handle, text.to_owned());
        }
        let chains = chains
            .into_iter()
            .map(|(name, rules)| (name, Rc::new(rules)));
        Self {
            bases,
            chains: chains.collect(),
            texts,
        }
    }

    pub(super) fn describe(&self, handle: u64) -> String {
        self.texts.get(&handle).cloned().unwrap_or_default()
    }
}

impl Ruleset for Table {
    fn rules(&mut self, chain: &ChainId) -> Result<Rc<Vec<Rule>>> {
        Ok(self.chains.get(&chain.name).cloned().unwrap_or_default())
    }

    fn elements(&mut self, _: &str, _: &str, _: &str) -> Option<Vec<Value>> {
        None
    }
}

fn base(family: &str, table: &str, name: &str, policy: &str) -> Base {
    Base {
        id: ChainId {
            family: family.to_owned(),
            table: table.to_owned(),
            name: name.to_owned(),
        },
        kind: if table == "nat" { "nat" } else { "filter" }.to_owned(),
        hook: name.to_lowercase(),
        policy: policy.to_lowercase(),
        devices: None,
    }
}

/// The statements of nft's JSON for a rule. What has none becomes a condition or target that is not known.
fn statements(rule: &str, chains: &[String]) -> Vec<Value> {
    // What cannot be split is a comment's fault; the rule counts all the same, as unknown.
    let words = shlex::split(rule).unwrap_or_default();
    let mut words = words.iter().map(String::as_str).peekable();
    let mut expr = Vec::new();
    let mut op = "==";
    let mut extension = "";
    if words.peek().is_none() {
        expr.push(json!({"unknown": rule}));
    }
    while let Some(word) = words.next() {
        let value = words.peek().copied().unwrap_or_default();
        match word {
            "!" => {
                op = "!=";
                continue;
            }
            "-s" | "-d" => {
                let field = if word == "-s" { "saddr" } else { "daddr" };
                expr.push(extensions::address(field, op, value).unwrap_or_else(|| unknown("mask")));
            }
            "-i" | "-o" => {
                let key = if word == "-i" { "iifname" } else { "oifname" };
                let name = match value.strip_suffix('+') {
                    Some(prefix) => format!("{prefix}*"),
                    None => value.to_owned(),
                };
                expr.push(extensions::matching(
                    json!({"meta": {"key": key}}),
                    op,
                    json!(name),
                ));
            }
            "-p" => expr.push(unknown("tcp")),
            "-m" => {
                extension = value;
                // Its options say more, but no more packets.
                expr.push(unknown(value));
            }
            "-j" => {
                expr.push(target(value, chains, &mut words));
                break;
            }
            "-g" => expr.push(json!({"goto": {"target": value}})),
            option if option.starts_with('-') => {
                expr.extend(option_of(extension, option, op, value));
            }
            _ => continue,
        }
        op = "==";
    }
    expr
}

fn unknown(name: &str) -> Value {
    json!({"xt": {"type": "match", "name": name}})
}

/// What an option of a `-m` match adds that matters.
fn option_of(extension: &str, option: &str, op: &str, value: &str) -> Option<Value> {
    match (extension, option) {
        ("conntrack", "--ctstate") | ("state", "--state") if value == "INVALID" && op == "==" => {
            Some(extensions::invalid())
        }
        ("addrtype", "--dst-type" | "--src-type") => {
            Some(extensions::address_type(op, &value.to_lowercase()))
        }
        ("iprange", "--src-range") => extensions::address("saddr", op, value),
        ("iprange", "--dst-range") => extensions::address("daddr", op, value),
        ("", _) => Some(unknown(option)),
        _ => None,
    }
}

fn target<'a>(name: &str, chains: &[String], options: &mut impl Iterator<Item = &'a str>) -> Value {
    match name {
        "ACCEPT" => json!({"accept": null}),
        "DROP" => json!({"drop": null}),
        "RETURN" => json!({"return": null}),
        "TCPMSS" if options.any(|option| option == "--clamp-mss-to-pmtu") => extensions::clamp(),
        _ if chains.iter().any(|chain| chain == name) => json!({"jump": {"target": name}}),
        _ => json!({"xt": {"type": "target", "name": name}}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAVED: &str = r#"*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:MINE - [0:0]
-A FORWARD ! -s 10.244.1.5/32 -i eth+ -m comment --comment "it\'s \"x\" -j ACCEPT" -j DROP
-A FORWARD -m conntrack --ctstate INVALID -j REJECT --reject-with icmp-port-unreachable
-A FORWARD -j MINE
-A MINE -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu
COMMIT
"#;

    #[test]
    fn what_iptables_saves_is_read_as_nft_would_write_it() {
        let mut table = Table::parse("ip", "filter", SAVED);
        let hooks: Vec<_> = table
            .bases
            .iter()
            .map(|base| (&*base.hook, &*base.policy))
            .collect();
        assert_eq!(hooks, [("input", "accept"), ("forward", "drop")]);
        let forward = table.bases[1].id.clone();
        let rules = table.rules(&forward).unwrap();
        let [first, second, third] = &rules[..] else {
            panic!("{rules:?}");
        };
        assert_eq!(first.expr[0]["match"]["op"], "!=");
        assert_eq!(first.expr[1]["match"]["right"], "eth*");
        assert_eq!(first.expr[2]["xt"]["name"], "comment");
        assert_eq!(first.expr[3..], [json!({"drop": null})]);
        assert_eq!(second.expr[1], extensions::invalid());
        assert_eq!(second.expr[2]["xt"]["name"], "REJECT");
        assert_eq!(third.expr, [json!({"jump": {"target": "MINE"}})]);
        assert!(
            table
                .describe(first.handle)
                .starts_with("! -s 10.244.1.5/32")
        );
        let mine = ChainId {
            name: "MINE".into(),
            ..forward
        };
        let last = table.rules(&mine).unwrap()[0].expr.last().cloned();
        assert_eq!(last, Some(extensions::clamp()));
    }

    #[test]
    fn a_rule_that_cannot_be_split_is_unknown_but_there() {
        let expr = statements("-m comment --comment \"open -j ACCEPT", &[]);
        assert!(expr[0].get("unknown").is_some(), "{expr:?}");
    }
}
