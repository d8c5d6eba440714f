//! What beeline has in nftables: the masquerading of each network, and the check of MACs of each pod that has one. And
//! the look at what others have there.
//!
//! Masquerading is one table a network, for what pods send out of the cluster. What the table says depends on the network's CIDRs only, not on its pods, so an ADD on a node that is set up
//! finds it in place with one netlink request. Only changes run a child process, `nft`, each as one transaction.

use anyhow::{Context, Result};
use ipnetwork::IpNetwork;
use serde_json::json;

pub mod audit;
mod batch;
pub(crate) mod command;
pub(crate) mod kernel;
mod mac_check;
#[cfg(test)]
mod netns_tests;
pub(crate) mod reference;

use audit::addresses::Addresses;
use batch::Batch;
use command::run;
pub use mac_check::MacCheck;
pub use reference::{Owner, ReferenceMasquerade};

/// The masquerading of a network in the calling thread's network namespace.
///
/// New connections from a pod to outside the cluster, except to multicast groups, leave with the node's address.
#[derive(Clone, Copy, Debug)]
pub struct Masquerade<'a> {
    /// The network's name.
    pub network: &'a str,
}

/// How a table differs from a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// What is masqueraded towards and should not be. If that is nothing, the table has more than the cluster.
    pub missing: Vec<IpNetwork>,
}

/// The name of the set of CIDRs of a family towards which nothing is masqueraded.
pub fn cluster_set(v4: bool) -> &'static str {
    if v4 { "cluster4" } else { "cluster6" }
}

/// Whether `nft` is installed, which every change needs, and every look at the rules of others.
pub fn is_installed() -> bool {
    command::program("nft").is_some()
}

impl Masquerade<'_> {
    /// Whether there is a table for the network, whatever it says. Runs no child process.
    pub fn exists(&self) -> Result<bool> {
        let table = self.table();
        kernel::has_table(&table).with_context(|| format!("nftables table {table:?}: get"))
    }

    /// Whether what [`apply`](Self::apply) would do with the same CIDRs has been done. Runs no child process.
    pub fn is_applied(&self, pods: &[IpNetwork], cluster: &[IpNetwork]) -> Result<bool> {
        let table = self.table();
        let fingerprint = batch::fingerprint(pods, cluster);
        kernel::has_mark(&table, batch::FINGERPRINT_SET, fingerprint)
            .with_context(|| format!("nftables table {table:?}: get fingerprint"))
    }

    /// Masquerades what `pods` send to anywhere but `cluster`; replaces what was applied before.
    ///
    /// The addresses of [`add_pod`](Self::add_pod) stay.
    pub fn apply(&self, pods: &[IpNetwork], cluster: &[IpNetwork]) -> Result<()> {
        let table = self.table();
        let fingerprint = batch::fingerprint(pods, cluster);
        run(Batch::new(&table)
            .replace(pods, cluster, fingerprint)
            .into_objects())
        .with_context(|| format!("nftables table {table:?}: apply"))
    }

    /// Whether what [`apply_changing`](Self::apply_changing) would do with the same pods has been done, whatever the
    /// cluster was. Runs no child process.
    pub fn is_applied_changing(&self, pods: &[IpNetwork]) -> Result<bool> {
        let table = self.table();
        kernel::has_mark(
            &table,
            batch::FINGERPRINT_SET,
            batch::fingerprint_of_pods(pods),
        )
        .with_context(|| format!("nftables table {table:?}: get fingerprint"))
    }

    /// Does as [`apply`](Self::apply), for a cluster that [changes](Self::change_cluster).
    pub fn apply_changing(&self, pods: &[IpNetwork], cluster: &[IpNetwork]) -> Result<()> {
        let table = self.table();
        let fingerprint = batch::fingerprint_of_pods(pods);
        run(Batch::new(&table)
            .replace(pods, cluster, fingerprint)
            .into_objects())
        .with_context(|| format!("nftables table {table:?}: apply"))
    }

    /// How the table differs from these in what nothing is masqueraded towards; `None` if it does not. Needs a table, and
    /// runs `nft`.
    pub fn compare_cluster(&self, cluster: &[IpNetwork]) -> Result<Option<Difference>> {
        let mut differs = false;
        let mut missing = Vec::new();
        for v4 in [true, false] {
            let held = self.cluster_of_family(v4)?;
            differs |= held != Addresses::of_cidrs(v4, cluster);
            let of_family = cluster.iter().filter(|cidr| cidr.is_ipv4() == v4);
            missing.extend(of_family.filter(|cidr| !held.cover(cidr)));
        }
        Ok(differs.then_some(Difference { missing }))
    }

    fn cluster_of_family(&self, v4: bool) -> Result<Addresses> {
        let (table, name) = (self.table(), cluster_set(v4));
        let context = || format!("nftables table {table:?}: set {name}: list");
        let set = json!({"set": {"family": "inet", "table": table, "name": name}});
        let listed = command::list(&set).with_context(context)?;
        let mut sets = listed.iter().map(|object| &object["set"]);
        let set = sets.find(|set| set.is_object()).with_context(context)?;
        let elements = set["elem"].as_array();
        let elements = elements.map_or(&[][..], Vec::as_slice);
        Addresses::parse(elements).with_context(context)
    }

    /// Changes towards what nothing is masqueraded; no CIDR may overlap one that stays. Needs an applied table.
    pub fn change_cluster(&self, added: &[IpNetwork], removed: &[IpNetwork]) -> Result<()> {
        if added.is_empty() && removed.is_empty() {
            return Ok(());
        }
        let table = self.table();
        run(Batch::new(&table)
            .change_cluster(added, removed)
            .into_objects())
        .with_context(|| format!("nftables table {table:?}: change cluster"))
    }

    /// Masquerades a pod outside the CIDRs, as external IPAM may give it any address, except towards its own subnet;
    /// needs an applied table.
    pub fn add_pod(&self, address: IpNetwork) -> Result<()> {
        let table = self.table();
        run(Batch::new(&table).add_address(address).into_objects())
            .with_context(|| format!("nftables table {table:?}: add {address}"))
    }

    /// Undoes [`add_pod`](Self::add_pod); not added, or no table, is success.
    pub fn remove_pod(&self, address: IpNetwork) -> Result<()> {
        if !self.exists()? {
            return Ok(());
        }
        let table = self.table();
        run(Batch::new(&table).remove_address(address).into_objects())
            .with_context(|| format!("nftables table {table:?}: remove {address}"))
    }

    /// Deletes the network's table; already gone is success.
    pub fn delete(&self) -> Result<()> {
        if !self.exists()? {
            return Ok(());
        }
        let table = self.table();
        run(Batch::new(&table).delete().into_objects())
            .with_context(|| format!("nftables table {table:?}: delete"))
    }

    /// CNI allows nothing in a network's name that the kernel, or nft's JSON, would not allow in a table's.
    fn table(&self) -> String {
        format!("beeline-{}", self.network)
    }
}
