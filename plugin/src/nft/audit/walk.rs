//! Following packets through the chains of a hook.

use std::{collections::HashMap, rc::Rc};

use anyhow::Result;
use serde_json::Value;

use super::{
    Effect,
    holds::Holds,
    known, matches,
    packets::Packets,
    statements::{Step, Verdict, step},
};

/// As many rules as are reported of a base chain: enough to see what it is about.
pub(super) const ENOUGH: usize = 3;

/// A chain's name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ChainId {
    pub(super) family: String,
    pub(super) table: String,
    pub(crate) name: String,
}

impl ChainId {
    fn neighbour(&self, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ..self.clone()
        }
    }
}

/// A rule: statements as nft's JSON has them, and what names it in its chain.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) handle: u64,
    pub(crate) expr: Vec<Value>,
}

/// Rules and sets, to be read one by one.
pub(crate) trait Ruleset {
    /// The rules of a chain, in their order.
    fn rules(&mut self, chain: &ChainId) -> Result<Rc<Vec<Rule>>>;

    /// The elements of a set or verdict map; `None` if they cannot be told, or change with the packets.
    fn elements(&mut self, family: &str, table: &str, set: &str) -> Option<Vec<Value>>;
}

/// A rule that harms packets.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Harm {
    pub(super) chain: ChainId,
    pub(super) handle: u64,
    pub(super) effect: Effect,
}

/// Where packets are after a rule or a chain.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    /// Some go on.
    On,
    /// All go on behind the rule that led here.
    Back,
    /// None goes on.
    Over,
}

/// Follows one kind of packets through one base chain.
pub(super) struct Walk<'a> {
    ruleset: &'a mut dyn Ruleset,
    packets: &'a Packets,
    /// Whether the chain only translates addresses: no firewall, so only what is certain counts.
    nat: bool,
    harms: &'a mut Vec<Harm>,
    /// Chains that were followed already, and how far their condition held.
    seen: HashMap<(ChainId, Holds), End>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        ruleset: &'a mut dyn Ruleset,
        packets: &'a Packets,
        nat: bool,
        harms: &'a mut Vec<Harm>,
    ) -> Self {
        Self {
            ruleset,
            packets,
            nat,
            harms,
            seen: HashMap::new(),
        }
    }

    /// Whether packets may reach the end of a base chain, where its policy is.
    pub(super) fn base(&mut self, chain: &ChainId) -> Result<bool> {
        Ok(self.chain(chain, Holds::Always)? != End::Over)
    }

    /// Follows a chain that packets reach as far as `reached` holds.
    fn chain(&mut self, id: &ChainId, reached: Holds) -> Result<End> {
        let key = (id.clone(), reached);
        if let Some(&end) = self.seen.get(&key) {
            return Ok(end);
        }
        // The kernel refuses loops; this ends one all the same.
        self.seen.insert(key.clone(), End::On);
        let mut end = End::On;
        for rule in self.ruleset.rules(id)?.iter() {
            match self.rule(id, rule, reached)? {
                End::On => {}
                End::Back => break,
                End::Over => {
                    end = End::Over;
                    break;
                }
            }
            if self.harms.len() >= ENOUGH {
                break;
            }
        }
        self.seen.insert(key, end);
        Ok(end)
    }

    fn rule(&mut self, chain: &ChainId, rule: &Rule, reached: Holds) -> Result<End> {
        let mut holds = Holds::Always;
        for statement in &rule.expr {
            let end = match step(statement) {
                Step::Continue => End::On,
                Step::Match(condition) => {
                    let condition =
                        matches::holds(condition, self.packets, &mut sets(self.ruleset, chain));
                    holds = holds.and(condition);
                    End::On
                }
                Step::Narrow(condition) => {
                    holds = holds.and(condition);
                    End::On
                }
                Step::Verdict(verdict) => self.verdict(chain, rule, &verdict, holds, reached)?,
                Step::Map(map) => self.map(chain, rule, map, holds, reached)?,
                Step::Harm(effect) => {
                    self.report(chain, rule, effect, holds.and(reached));
                    End::On
                }
                Step::Final(effect) => {
                    self.report(chain, rule, effect, holds.and(reached));
                    only_if(holds, End::Over)
                }
            };
            if holds == Holds::Never || end != End::On {
                return Ok(end);
            }
        }
        Ok(End::On)
    }

    fn verdict(
        &mut self,
        chain: &ChainId,
        rule: &Rule,
        verdict: &Verdict<'_>,
        holds: Holds,
        reached: Holds,
    ) -> Result<End> {
        let end = match verdict {
            Verdict::Continue => End::On,
            Verdict::Return => End::Back,
            Verdict::Accept => End::Over,
            Verdict::Drop => {
                self.report(chain, rule, Effect::Drop, holds.and(reached));
                End::Over
            }
            Verdict::Jump(target) => self.follow(chain, target, holds.and(reached))?,
            Verdict::Goto(target) => match self.follow(chain, target, holds.and(reached))? {
                End::On => End::Back,
                end => end,
            },
        };
        Ok(only_if(holds, end))
    }

    fn follow(&mut self, from: &ChainId, target: &str, reached: Holds) -> Result<End> {
        if known::is_harmless_chain(&from.family, target) {
            return Ok(End::On);
        }
        self.chain(&from.neighbour(target), reached)
    }

    /// Goes where the elements of a verdict map lead.
    fn map(
        &mut self,
        chain: &ChainId,
        rule: &Rule,
        map: &Value,
        holds: Holds,
        reached: Holds,
    ) -> Result<End> {
        let listed = matches::elements(&map["data"], &mut sets(self.ruleset, chain));
        let Some(elements) = listed else {
            self.report(chain, rule, Effect::Unknown, holds.and(reached));
            return Ok(End::On);
        };
        for element in &elements {
            let (key, verdict) = (&element[0], Verdict::parse(&element[1]));
            let here = matches::among(&map["key"], std::slice::from_ref(key), self.packets);
            let holds = holds.and(here);
            if holds == Holds::Never {
                continue;
            }
            let end = match verdict {
                Some(verdict) => self.verdict(chain, rule, &verdict, holds, reached)?,
                None => {
                    self.report(chain, rule, Effect::Unknown, holds.and(reached));
                    End::On
                }
            };
            if end != End::On {
                return Ok(end);
            }
        }
        Ok(End::On)
    }

    fn report(&mut self, chain: &ChainId, rule: &Rule, effect: Effect, holds: Holds) {
        if holds == Holds::Never || (self.nat && holds == Holds::Unknown) {
            return;
        }
        let harm = Harm {
            chain: chain.clone(),
            handle: rule.handle,
            effect,
        };
        if !self.harms.contains(&harm) {
            self.harms.push(harm);
        }
    }
}

fn only_if(holds: Holds, end: End) -> End {
    if holds == Holds::Always { end } else { End::On }
}

fn sets<'a>(
    ruleset: &'a mut dyn Ruleset,
    chain: &'a ChainId,
) -> impl FnMut(&str) -> Option<Vec<Value>> + 'a {
    move |name| ruleset.elements(&chain.family, &chain.table, name)
}
