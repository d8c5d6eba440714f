//! The engines that know the cluster, and what they all tell.

pub(crate) mod etcd;
pub(crate) mod kubernetes;

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use tokio::sync::mpsc;

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    /// Its name, which no other has.
    pub(crate) name: String,
    /// What its pods' addresses are of; empty until it has been given some.
    pub(crate) pod_cidrs: Vec<IpNetwork>,
    /// Where other nodes reach it, the preferred ones first.
    pub(crate) addresses: Vec<IpAddr>,
    /// Orders members by age: the older has the smaller number.
    pub(crate) since: i64,
}

/// What a backend tells, in the order in which it happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// These are all members; what was told before is void.
    All(Vec<Member>),
    /// One is new or has changed.
    Changed(Member),
    /// The one of this name is none any more.
    Gone(String),
    /// The engine cannot be reached, for this reason; what was told before is the best that is known. The backend goes
    /// on trying, and tells `All` when it is back.
    Lost(String),
    /// The engine is reached again, and what was told before still holds.
    Back,
    /// The agent's installation was deleted from the cluster (`true`), or is there again.
    Uninstalled(bool),
}

/// Where backends tell.
pub(crate) type Events = mpsc::Sender<Event>;
