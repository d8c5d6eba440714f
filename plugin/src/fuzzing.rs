//! What fuzz targets reach that is nobody else's business: thin, and only there with the feature `fuzzing`.

use std::{os::unix::process::ExitStatusExt as _, process::ExitStatus, rc::Rc, time::Duration};

use anyhow::Result;
use bytes::Bytes;
use netlink_packet_core::NetlinkDeserializable;
use netlink_packet_route::RouteNetlinkMessage;
use serde_json::Value;

pub use crate::net::{link::inside::Change as LinkChange, tc::Change as TcChange};
use crate::{
    cni::{self, NetConf},
    datapath::{Sighting, tap},
    ipam::{Dns, Lease, delegate, resolv_conf},
    net::{
        address, conntrack,
        exchange::{Answers, Raw, messages},
        ipsec,
        link::{self, inside, traffic},
        neighbour,
        route::{Route, RouteTo},
        tc::{
            message::Described,
            watch::{self, Notice},
        },
    },
    nft::{
        audit::{
            self, Finding, Scope, extensions, legacy,
            listing::{self, Text},
            walk::{ChainId, Rule, Ruleset},
        },
        command, kernel, reference,
    },
};

/// What an IPAM plugin has said that ended with this status of wait(2).
pub fn answer(status: i32, output: &[u8]) -> Result<Vec<u8>> {
    delegate::answer(ExitStatus::from_raw(status), output.to_vec())
}

/// What an IPAM plugin grants with its result, with what the configuration adds.
pub fn leased(conf: &NetConf, kind: &str, document: &[u8]) -> Result<Lease> {
    let mut lease = cni::add::leased(kind, document, conf.version)?;
    cni::container::complete(conf, &mut lease)?;
    Ok(lease)
}

/// What asks the kernel.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the names say it all")]
pub enum Asked {
    Route,
    Conntrack,
    Tc,
    Ipsec,
}

/// Which messages of a datagram can be decoded.
pub fn decodable(asked: Asked, datagram: &[u8]) -> Vec<bool> {
    fn of<A: NetlinkDeserializable>(datagram: &[u8]) -> Vec<bool> {
        messages::<A>(datagram).map(|read| read.is_ok()).collect()
    }
    match asked {
        Asked::Route => of::<RouteNetlinkMessage>(datagram),
        Asked::Conntrack => of::<conntrack::Answer>(datagram),
        Asked::Tc => of::<Described>(datagram),
        Asked::Ipsec => of::<Raw>(datagram),
    }
}

/// Takes a datagram of an answer: how many things it tells of, and whether the answer ends with it; else the errno.
pub fn exchange(asked: Asked, datagram: &[u8]) -> Result<(usize, bool), i32> {
    fn take<A: NetlinkDeserializable, T>(
        datagram: &[u8],
        mut read: impl FnMut(A) -> Option<T>,
    ) -> Result<(usize, bool), i32> {
        let mut answers = Answers::default();
        let ended = answers.take(datagram, &mut read);
        let ended = ended.map_err(|errno| errno as i32)?;
        Ok((answers.read.len(), ended))
    }
    match asked {
        Asked::Route => take(datagram, reported),
        Asked::Conntrack => take(datagram, |conntrack::Answer(connection)| connection),
        Asked::Tc => take(datagram, |described: Described| {
            described.filter().map(|filter| drop(filter.to_string()))
        }),
        Asked::Ipsec => take(datagram, |answer: Raw| {
            let _ = (ipsec::spd_info(&answer), ipsec::drops_unmatched(&answer));
            ipsec::Policy::read(&answer).map(|policy| drop(policy.to_string()))
        }),
    }
}

/// Whether a message tells of a link, an address, a neighbour or a route.
fn reported(message: RouteNetlinkMessage) -> Option<()> {
    match message {
        RouteNetlinkMessage::NewLink(_) => {
            drop(traffic::read(message.clone()));
            link::reported(message).map(drop)
        }
        RouteNetlinkMessage::NewAddress(message) => address::read(message).map(drop),
        RouteNetlinkMessage::NewNeighbour(_) => neighbour::entry(message).map(drop),
        RouteNetlinkMessage::NewRoute(message) => {
            drop(RouteTo::from(message.clone()));
            Route::read(message).map(drop)
        }
        _ => None,
    }
}

/// What a datagram says of traffic control, and of links inside of pods; and which of its messages can be decoded as the
/// former.
pub fn changes(datagram: &[u8]) -> (Vec<TcChange>, Vec<LinkChange>, Vec<bool>) {
    (
        watch::changes(datagram).collect(),
        inside::changes(datagram).collect(),
        messages::<Notice>(datagram)
            .map(|read| read.is_ok())
            .collect(),
    )
}

/// What a datagram of nf_tables' says: whether what was asked for is there, the kind of message, and a number.
pub fn nf_tables(datagram: &[u8]) -> (std::io::Result<bool>, Option<u16>, Option<u32>) {
    let datagram = Bytes::copy_from_slice(datagram);
    (
        kernel::error_of(datagram.clone()).and_then(kernel::known),
        kernel::kind_of(&datagram),
        kernel::first_u32(datagram, 1),
    )
}

/// What a file in the form of `resolv.conf` says.
pub fn dns(text: &str) -> Dns {
    resolv_conf::parse(text)
}

/// What a record of the programs' says.
pub fn sighting(record: &[u8]) -> Option<Sighting> {
    tap::decode(record.to_vec(), Duration::ZERO)
}

/// What a table as `iptables-save` writes it does to the packets of pods.
pub fn iptables(table: &str, saved: &str, scope: &Scope<'_>) -> Result<Vec<Finding>> {
    audit::in_table(legacy::Table::parse("ip", table, saved), scope)
}

/// What iptables-restore has to be told to delete the reference plugin's masquerading.
pub fn deletion(saved: &str) -> Option<String> {
    reference::deletion(saved, |_| true)
}

/// How many rules harm the packets of pods, of those that nft lists in JSON; and in its own language, which tells more.
pub fn nftables(listed: &[u8], text: &str, scope: &Scope<'_>) -> Result<usize> {
    let listed = command::objects(listed)?;
    let text = Text::parse(text);
    drop(text.devices());
    let mut rules = listing::parse_rules(&listed);
    for rule in &mut rules {
        if extensions::are_hidden(rule)
            && let Some(text) = text.rule(rule.handle)
        {
            extensions::reveal(rule, text);
        }
    }
    let mut ruleset = Listed {
        rules: Rc::new(rules),
        elements: listing::parse_elements(&listed),
    };
    let mut harms = 0;
    for base in listing::parse_bases(&listed) {
        harms += audit::look(&base, scope, &mut ruleset)?.0.len();
    }
    Ok(harms)
}

/// The same rules in each chain.
struct Listed {
    rules: Rc<Vec<Rule>>,
    elements: Option<Vec<Value>>,
}

impl Ruleset for Listed {
    fn rules(&mut self, _: &ChainId) -> Result<Rc<Vec<Rule>>> {
        Ok(self.rules.clone())
    }

    fn elements(&mut self, _: &str, _: &str, _: &str) -> Option<Vec<Value>> {
        self.elements.clone()
    }
}
