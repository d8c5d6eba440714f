//! The addresses that the built-in IPAM has reserved.

use std::{net::IpAddr, path::PathBuf};

use anyhow::Result;

use super::finding::{Finding, Severity, commands, count, names, or_ok};
use crate::{
    ipam::{IpamConf, store::Store},
    node::Attachment,
    room,
};

const CHECK: &str = "addresses";

/// From how full a range is told, in hundredths.
const NEARLY: u128 = 90;

/// What was read of a network's addresses.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// The directory with a file an address.
    directory: PathBuf,
    /// Each range set: its name, how many of its addresses are reserved, and how many it has.
    sets: Vec<(String, u128, u128)>,
    /// Addresses that are reserved for attachments that nobody knows, with their container IDs.
    unknown: Vec<(IpAddr, String)>,
    reserved: usize,
    /// Why no file can be added.
    shortage: Option<&'static str>,
}

/// Reads them; takes no lock.
pub(super) fn read(conf: &IpamConf, attachments: &[Attachment]) -> Result<Facts> {
    let store = Store::open(&conf.data_dir, &conf.network)?;
    let reserved = match store {
        Some(store) => store.reserved()?,
        None => Vec::new(),
    };
    let known: std::collections::HashSet<_> = attachments
        .iter()
        .map(|attachment| &*attachment.container_id)
        .collect();
    let sets = conf.ranges.iter().map(|set| {
        let used = reserved.iter().filter(|(ip, _)| set.allocates(*ip)).count();
        (set.to_string(), used as u128, set.capacity())
    });
    let directory = conf.data_dir.join(&conf.network);
    Ok(Facts {
        shortage: room::shortage(&directory),
        directory,
        sets: sets.collect(),
        reserved: reserved.len(),
        unknown: reserved
            .into_iter()
            .filter(|(_, owner)| !known.contains(&*owner.container_id))
            .map(|(ip, owner)| (ip, owner.container_id))
            .collect(),
    })
}

/// Judges them.
pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    for (set, used, capacity) in &facts.sets {
        let severity = if used >= capacity {
            Severity::Failure
        } else if used * 100 >= capacity * NEARLY {
            Severity::Warning
        } else {
            continue;
        };
        found.push(Finding::new(
            CHECK,
            severity,
            format!("range {set}"),
            format!("{used} of {capacity} addresses are reserved"),
            "ipam.ranges: a larger subnet, or one more range in the set",
        ));
    }
    if let Some(why) = facts.shortage {
        found.push(Finding::new(
            CHECK,
            Severity::Failure,
            facts.directory.display().to_string(),
            format!("{why}: no address can be reserved"),
            "make room there, or have it mounted writable",
        ));
    }
    if !facts.unknown.is_empty() {
        let mut unknown = facts.unknown.clone();
        unknown.sort_unstable();
        let list: Vec<String> = unknown
            .iter()
            .map(|(ip, id)| format!("{ip} ({id})"))
            .collect();
        let files = unknown
            .iter()
            .map(|(ip, _)| format!("rm '{}'", facts.directory.join(ip.to_string()).display()));
        found.push(Finding::new(
            CHECK,
            Severity::Note,
            names(&list),
            "are reserved for containers that beeline did not attach since boot: the runtime's GC releases them; if it knows none of these, do so",
            commands(files),
        ));
    }
    let ok = format!(
        "{} of addresses in {}",
        count(facts.reserved, "file"),
        facts.directory.display()
    );
    or_ok(found, Finding::ok(CHECK, "ranges", ok))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(used: u128, unknown: &[&str]) -> Facts {
        Facts {
            directory: "/var/lib/cni/networks/pods".into(),
            sets: vec![("10.244.1.2-10.244.1.254".to_owned(), used, 253)],
            unknown: unknown
                .iter()
                .map(|ip| (ip.parse().unwrap(), "c1".to_owned()))
                .collect(),
            reserved: 1,
            shortage: None,
        }
    }

    #[test]
    fn a_full_disk_is_a_failure() {
        let full = Facts {
            shortage: Some("no space left on device"),
            ..facts(1, &[])
        };
        let found = judge(&full);
        assert_eq!(found[0].severity, Severity::Failure);
        assert_eq!(found[0].object, "/var/lib/cni/networks/pods");
    }

    #[test]
    fn a_range_is_told_from_nine_tenths_on_and_fails_when_it_is_full() {
        for (used, severity) in [
            (1, Severity::Ok),
            (227, Severity::Ok),
            (228, Severity::Warning),
            (253, Severity::Failure),
        ] {
            assert_eq!(judge(&facts(used, &[]))[0].severity, severity, "{used}");
        }
    }

    #[test]
    fn addresses_of_nobody_are_a_note_with_their_files() {
        let found = judge(&facts(2, &["10.244.1.9"]));
        assert_eq!(found[0].severity, Severity::Note);
        assert_eq!(found[0].object, "10.244.1.9 (c1)");
        assert_eq!(
            found[0].fix.as_deref(),
            Some("rm '/var/lib/cni/networks/pods/10.244.1.9'")
        );
    }
}
