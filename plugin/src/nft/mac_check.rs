//! `macspoofchk`: a pod's frames leave its port only with the MAC that the pod was given.
//!
//! Table, chains and comments are named as the reference plugin names them, so each finds what the other made:
//!
//! ```text
//! table bridge nat
//!   chain PREROUTING               iifname <host veth> jump cni-br-iface-<id>    all with the
//!   chain cni-br-iface-<id>        jump cni-br-iface-<id>-mac                    comment
//!   chain cni-br-iface-<id>-mac    ether saddr <mac> return; drop                macspoofchk-<id>
//! ```
//!
//! As with the reference plugin, the table and its base chain stay when the last pod goes: others may just be adding.

use anyhow::{Context, Result};
use nftables::{
    expr::{Expression, Meta, MetaKey, NamedExpression, Payload, PayloadField},
    schema::{Chain, FlushObject, NfCmd, NfListObject, NfObject, Rule, Table},
    stmt::{JumpTarget, Match, Operator, Statement},
    types::{NfChainPolicy, NfChainType, NfFamily, NfHook},
};
use serde_json::{Value, json};

use super::{batch::hash, command, kernel};

const TABLE: &str = "nat";
const BASE: &str = "PREROUTING";

/// The most of an ID that fits: the kernel allows nft 128 bytes for a comment, with its end.
const MAX_ID: usize = 128 - "macspoofchk-".len() - 1;

/// The check of one attachment's frames, in the calling thread's network namespace.
#[derive(Clone, Copy, Debug)]
pub struct MacCheck<'a> {
    /// The runtime's container ID.
    pub container_id: &'a str,
    /// The interface's name inside the pod.
    pub ifname: &'a str,
}

impl MacCheck<'_> {
    /// Whether there is a check of the attachment, whatever it says. Runs no child process.
    pub fn exists(&self) -> Result<bool> {
        let chain = self.port_chain();
        kernel::has_bridge_chain(TABLE, &chain)
            .with_context(|| format!("nftables chain {chain:?}: get"))
    }

    /// Whether what [`apply`](Self::apply) would do with the same names has been done.
    pub fn is_applied(&self, host_veth: &str, mac: &str) -> Result<bool> {
        if !self.exists()? {
            return Ok(false);
        }
        let [jump, own @ ..] = self.rules(host_veth, mac);
        let base = listed(BASE)?;
        let (port, macs) = (listed(&self.port_chain())?, listed(&self.mac_chain())?);
        let found: Vec<_> = port.iter().chain(&macs).map(expressions).collect();
        let expected = own.iter().map(|rule| json!(rule.expr));
        let jump = json!(jump.expr);
        Ok(base.iter().any(|rule| expressions(rule) == jump) && expected.eq(found))
    }

    /// Lets only frames with this source MAC pass from the host veth; replaces what was applied before.
    pub fn apply(&self, host_veth: &str, mac: &str) -> Result<()> {
        self.delete()?;
        let base = Chain {
            _type: Some(NfChainType::Filter),
            hook: Some(NfHook::Prerouting),
            prio: Some(-300),
            policy: Some(NfChainPolicy::Accept),
            ..chain(BASE.to_owned())
        };
        let table = Table {
            family: NfFamily::Bridge,
            name: TABLE.into(),
            handle: None,
        };
        let mut objects = vec![NfListObject::Table(table), NfListObject::Chain(base)];
        objects.extend(
            [self.port_chain(), self.mac_chain()].map(|name| NfListObject::Chain(chain(name))),
        );
        objects.extend(self.rules(host_veth, mac).map(NfListObject::Rule));
        let commands = objects.into_iter().map(NfCmd::Add);
        command::run(commands.map(NfObject::CmdObject).collect())
            .with_context(|| format!("nftables chain {:?}: apply", self.port_chain()))
    }

    /// Deletes the check; already gone is success.
    pub fn delete(&self) -> Result<()> {
        if !self.exists()? {
            return Ok(());
        }
        let deleted = self.try_delete();
        match deleted {
            // Another process was faster.
            Err(_) if !self.exists()? => Ok(()),
            deleted => {
                deleted.with_context(|| format!("nftables chain {:?}: delete", self.port_chain()))
            }
        }
    }

    fn try_delete(&self) -> Result<()> {
        let comment = self.comment();
        let jumps = listed(BASE)?;
        let jumps = jumps.iter().filter(|rule| rule["comment"] == *comment);
        let handles = jumps.filter_map(|rule| u32::try_from(rule["handle"].as_u64()?).ok());
        let mut commands: Vec<_> = handles
            .map(|handle| {
                NfCmd::Delete(NfListObject::Rule(Rule {
                    handle: Some(handle),
                    ..rule(BASE.to_owned(), Vec::new())
                }))
            })
            .collect();
        // The first chain leads to the second.
        for name in [self.port_chain(), self.mac_chain()] {
            // One that only the other process made, or that is gone, is no failure.
            commands.push(NfCmd::Add(NfListObject::Chain(chain(name.clone()))));
            commands.push(NfCmd::Flush(FlushObject::Chain(chain(name.clone()))));
            commands.push(NfCmd::Delete(NfListObject::Chain(chain(name))));
        }
        command::run(commands.into_iter().map(NfObject::CmdObject).collect())
    }

    /// The jump from the base chain, and the rules of both chains in their order.
    fn rules(&self, host_veth: &str, mac: &str) -> [Rule<'static>; 4] {
        let jump = |target: String| {
            Statement::Jump(JumpTarget {
                target: target.into(),
            })
        };
        let comes_from = equal(
            NamedExpression::Meta(Meta {
                key: MetaKey::Iifname,
            }),
            host_veth,
        );
        let says = equal(
            NamedExpression::Payload(Payload::PayloadField(PayloadField {
                protocol: "ether".into(),
                field: "saddr".into(),
            })),
            mac,
        );
        let rules = [
            rule(BASE.to_owned(), vec![comes_from, jump(self.port_chain())]),
            rule(self.port_chain(), vec![jump(self.mac_chain())]),
            rule(self.mac_chain(), vec![says, Statement::Return(None)]),
            rule(self.mac_chain(), vec![Statement::Drop(None)]),
        ];
        rules.map(|rule| Rule {
            comment: Some(self.comment().into()),
            ..rule
        })
    }

    fn port_chain(&self) -> String {
        format!("cni-br-iface-{}", self.id())
    }

    fn mac_chain(&self) -> String {
        format!("{}-mac", self.port_chain())
    }

    fn comment(&self) -> String {
        format!("macspoofchk-{}", self.id())
    }

    /// The reference plugin's, unless that is longer than it could add, or would break what `nft list` prints for
    /// others to read back: interfaces may have braces, quotes and semicolons in their names.
    fn id(&self) -> String {
        let id = format!("{}-{}", self.container_id, self.ifname);
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        if id.len() <= MAX_ID && id.chars().all(is_plain) {
            return id;
        }
        let digest = format!("-{:08x}", hash(&id));
        let plain = id.chars().map(|c| if is_plain(c) { c } else { '_' });
        let kept: String = plain.take(MAX_ID - digest.len()).collect();
        kept + &digest
    }
}

fn chain(name: String) -> Chain<'static> {
    Chain {
        family: NfFamily::Bridge,
        table: TABLE.into(),
        name: name.into(),
        ..Chain::default()
    }
}

fn rule(chain: String, expr: Vec<Statement<'static>>) -> Rule<'static> {
    Rule {
        family: NfFamily::Bridge,
        table: TABLE.into(),
        chain: chain.into(),
        expr: expr.into(),
        ..Rule::default()
    }
}

fn equal(left: NamedExpression<'static>, right: &str) -> Statement<'static> {
    Statement::Match(Match {
        left: Expression::Named(left),
        right: Expression::String(right.to_owned().into()),
        op: Operator::EQ,
    })
}

/// The rules of a chain.
fn listed(chain: &str) -> Result<Vec<Value>> {
    let chain = json!({"chain": {"family": "bridge", "table": TABLE, "name": chain}});
    let objects = command::list(&chain)?.into_iter();
    Ok(objects
        .filter_map(|mut object| object.get_mut("rule").map(Value::take))
        .collect())
}

fn expressions(rule: &Value) -> Value {
    rule["expr"].clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_reference_plugins_as_far_as_they_fit() {
        let check = MacCheck {
            container_id: "abc",
            ifname: "eth0",
        };
        assert_eq!(check.mac_chain(), "cni-br-iface-abc-eth0-mac");
        assert_eq!(check.comment(), "macspoofchk-abc-eth0");
    }

    #[test]
    fn long_ids_are_cut_to_what_a_comment_may_have_and_stay_apart() {
        let long = "c".repeat(200);
        let id = |container_id: &str, ifname| {
            MacCheck {
                container_id,
                ifname,
            }
            .id()
        };
        let one = id(&long, "eth0");
        assert_eq!(one.len(), MAX_ID);
        assert_ne!(one, id(&long, "eth1"));
        let fits = "c".repeat(MAX_ID - 5);
        assert_eq!(id(&fits, "eth0"), format!("{fits}-eth0"));
        let odd = "c".repeat(MAX_ID - 13);
        assert!(id(&odd, "ééééééé").len() <= MAX_ID);
    }

    #[test]
    fn characters_that_mean_something_to_nft_are_in_no_name() {
        let id = |ifname| {
            MacCheck {
                container_id: "abc",
                ifname,
            }
            .id()
        };
        let odd = ["a;b", "a}b", "a{b", "a\"b", "a#b", "@ab", "a*b", "ä"].map(id);
        for (at, one) in odd.iter().enumerate() {
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
            assert!(one.bytes().all(is_plain), "{one}");
            assert!(!odd[..at].contains(one), "{one} is of two names");
        }
    }
}
