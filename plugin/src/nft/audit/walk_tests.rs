//! Walks through chains that need no kernel.

use std::{collections::HashMap, rc::Rc};

use anyhow::Result;
use serde_json::{Value, json};

use super::{
    addresses::Addresses,
    packets::{Interface, Packets},
    walk::{ChainId, Rule, Ruleset, Walk},
};

/// Chains of a table `t` by name; a rule's handle is its place.
struct Fake(HashMap<&'static str, Vec<Value>>);

impl Ruleset for Fake {
    fn rules(&mut self, chain: &ChainId) -> Result<Rc<Vec<Rule>>> {
        let rules = self.0.get(&*chain.name).cloned().unwrap_or_default();
        let rules = rules.into_iter().enumerate().map(|(place, rule)| Rule {
            handle: place as u64,
            expr: rule.as_array().cloned().unwrap_or_default(),
        });
        Ok(Rc::new(rules.collect()))
    }

    fn elements(&mut self, _: &str, _: &str, _: &str) -> Option<Vec<Value>> {
        None
    }
}

/// The rules that harm packets, and whether some reach the policy.
fn walk<const N: usize>(chains: [(&'static str, Vec<Value>); N], nat: bool) -> (Vec<String>, bool) {
    let cidr = |text: &str| Addresses::of_cidrs(true, &[text.parse().unwrap()]);
    let packets = Packets {
        v4: true,
        iif: Some(Interface::Named("cni0".into())),
        oif: None,
        from: cidr("10.244.1.0/24"),
        to: cidr("10.244.2.0/24"),
    };
    let base = ChainId {
        family: "ip".into(),
        table: "t".into(),
        name: "base".into(),
    };
    let (mut fake, mut harms) = (Fake(chains.into()), Vec::new());
    let reached = Walk::new(&mut fake, &packets, nat, &mut harms)
        .base(&base)
        .unwrap();
    let harms = harms
        .iter()
        .map(|harm| format!("{} {}", harm.chain.name, harm.handle));
    (harms.collect(), reached)
}

fn tcp() -> Value {
    json!({"match": {"op": "==", "left": {"meta": {"key": "l4proto"}}, "right": "tcp"}})
}

fn marked() -> Value {
    json!({"match": {"op": "==", "left": {"meta": {"key": "mark"}}, "right": 1}})
}

fn to(verdict: &str, chain: &str) -> Value {
    json!({verdict: {"target": chain}})
}

#[test]
fn what_is_accepted_or_returned_before_is_not_harmed() {
    let drop = json!([{"drop": null}]);
    let accepting = vec![json!([{"accept": null}]), drop.clone()];
    assert_eq!(walk([("base", accepting)], false), (vec![], false));
    let some = vec![json!([tcp(), {"accept": null}]), drop.clone()];
    assert_eq!(
        walk([("base", some)], false),
        (vec!["base 1".into()], false)
    );
    let jump = vec![json!([to("jump", "a")])];
    let returning = vec![json!([{"return": null}]), drop];
    assert_eq!(
        walk([("base", jump), ("a", returning)], false),
        (vec![], true)
    );
}

#[test]
fn behind_a_goto_comes_the_policy() {
    let base = vec![json!([to("goto", "a")]), json!([{"drop": null}])];
    let (harms, reached) = walk([("base", base.clone()), ("a", vec![])], false);
    assert_eq!((harms, reached), (vec![], true));
    let accepting = vec![json!([{"accept": null}])];
    assert_eq!(
        walk([("base", base), ("a", accepting)], false),
        (vec![], false)
    );
}

#[test]
fn a_chain_that_jumps_to_itself_ends() {
    let base = vec![json!([tcp(), to("jump", "base")]), json!([{"drop": null}])];
    assert_eq!(
        walk([("base", base)], false),
        (vec!["base 1".into()], false)
    );
}

#[test]
fn translation_by_a_mark_is_nobodys_business() {
    let base = || vec![json!([marked(), to("jump", "a")])];
    let masquerade = || vec![json!([tcp(), {"masquerade": null}])];
    assert_eq!(
        walk([("base", base()), ("a", masquerade())], true).0,
        [""; 0]
    );
    assert_eq!(
        walk([("base", base()), ("a", masquerade())], false).0,
        ["a 0"]
    );
}

#[test]
fn a_verdict_map_that_cannot_be_read_is_harm() {
    let key = json!({"payload": {"protocol": "ip", "field": "saddr"}});
    let unknown = vec![json!([{"vmap": {"key": key, "data": "@m"}}])];
    assert_eq!(walk([("base", unknown)], false).0, ["base 0"]);
    let known = vec![
        json!([{"vmap": {"key": key, "data": {"set": [["10.9.0.1", {"drop": null}], ["10.244.1.5", to("goto", "a")]]}}}]),
    ];
    let dropping = vec![json!([{"drop": null}])];
    assert_eq!(
        walk([("base", known), ("a", dropping)], false),
        (vec!["a 0".into()], true)
    );
}
