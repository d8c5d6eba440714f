//! Masquerading of what pods send out of the cluster: one nftables table a network.
//!
//! What the table says depends on the network's CIDRs only, not on its pods, so an ADD on a node that is set up
//! finds it in place with one netlink request. Only changes run a child process, `nft`, each as one transaction.

use std::{
    env,
    ffi::OsStr,
    io::Write,
    net::IpAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use ipnetwork::IpNetwork;
use nftables::schema::Nftables;

mod batch;
mod kernel;
#[cfg(test)]
mod netns_tests;

use batch::Batch;

/// Runtimes start plugins with a thin PATH.
const FALLBACK_PATH: &str = "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin";

/// The masquerading of a network in the calling thread's network namespace.
///
/// New connections from a pod to outside the cluster, except to multicast groups, leave with the node's address.
#[derive(Clone, Copy, Debug)]
pub struct Masquerade<'a> {
    /// The network's name.
    pub network: &'a str,
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
        run(Batch::new(&table).replace(pods, cluster))
            .with_context(|| format!("nftables table {table:?}: apply"))
    }

    /// Masquerades a pod outside the CIDRs, as external IPAM may give it any address; needs an applied table.
    pub fn add_pod(&self, ip: IpAddr) -> Result<()> {
        let table = self.table();
        run(Batch::new(&table).add_address(ip))
            .with_context(|| format!("nftables table {table:?}: add {ip}"))
    }

    /// Undoes [`add_pod`](Self::add_pod); not added, or no table, is success.
    pub fn remove_pod(&self, ip: IpAddr) -> Result<()> {
        if !self.exists()? {
            return Ok(());
        }
        let table = self.table();
        run(Batch::new(&table).remove_address(ip))
            .with_context(|| format!("nftables table {table:?}: remove {ip}"))
    }

    /// Deletes the network's table; already gone is success.
    pub fn delete(&self) -> Result<()> {
        if !self.exists()? {
            return Ok(());
        }
        let table = self.table();
        run(Batch::new(&table).delete())
            .with_context(|| format!("nftables table {table:?}: delete"))
    }

    /// CNI allows nothing in a network's name that the kernel, or nft's JSON, would not allow in a table's.
    fn table(&self) -> String {
        format!("beeline-{}", self.network)
    }
}

/// Has `nft` make all the changes of a batch, or none.
///
/// The `nftables` crate's own helper leaves standard error, and so the reason of a failure, to the runtime's log.
fn run(batch: Batch<'_>) -> Result<()> {
    let path = env::var_os("PATH").unwrap_or_default();
    let program = find("nft", [path.as_os_str(), OsStr::new(FALLBACK_PATH)])
        .context("nft: not found in PATH; install nftables")?;
    let input = serde_json::to_vec(&Nftables {
        objects: batch.into_objects().into(),
    })
    .context("nft: encode batch")?;
    let mut nft = Command::new(&program)
        .args(["-j", "-f", "-"])
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{program:?}: run"))?;
    // The handle is dropped here, which ends the input; if nft did not want all of it, its status says why.
    let written = nft
        .stdin
        .take()
        .map_or(Ok(()), |mut stdin| stdin.write_all(&input));
    let output = nft
        .wait_with_output()
        .with_context(|| format!("{program:?}: wait"))?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr)
            .trim()
            .replace('\n', "; ");
        bail!("nft: {}: {reason}", output.status);
    }
    written.with_context(|| format!("{program:?}: write"))
}

fn find<'a>(program: &str, paths: impl IntoIterator<Item = &'a OsStr>) -> Option<PathBuf> {
    let executable = |path: &Path| {
        path.metadata()
            .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    };
    let folders = paths.into_iter().flat_map(env::split_paths);
    // An empty entry means the working directory, where nothing should be run from.
    folders
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(program))
        .find(|path| executable(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_in_absolute_folders_only() {
        assert_eq!(
            find("sh", [OsStr::new("/nonexistent:/bin")]),
            Some(PathBuf::from("/bin/sh"))
        );
        assert_eq!(find("passwd", [OsStr::new("/etc")]), None, "not executable");
        assert_eq!(find("Cargo.toml", [OsStr::new(""), OsStr::new(".")]), None);
    }
}
