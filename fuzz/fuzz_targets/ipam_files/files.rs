//! What is in the directory, as a model has it: every question reads all files.

use std::{collections::BTreeMap, net::IpAddr};

use beeline::ipam::AttachmentId;

/// What is in the directory, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum File {
    Regular(Vec<u8>),
    Other,
}

pub(crate) type Files = BTreeMap<Vec<u8>, File>;
pub(crate) type Owner = (String, Option<String>);

pub(crate) fn name(ip: IpAddr) -> Vec<u8> {
    ip.to_string().into_bytes()
}

/// The addresses that something is named as, in their one form.
pub(crate) fn addresses(files: &Files) -> Vec<IpAddr> {
    let names = files
        .keys()
        .filter_map(|name| std::str::from_utf8(name).ok());
    let address = |name: &str| {
        let ip: IpAddr = name.parse().ok()?;
        (ip.to_canonical().to_string() == name).then_some(ip)
    };
    names.filter_map(address).collect()
}

pub(crate) fn owner(files: &Files, ip: IpAddr) -> Option<Owner> {
    let File::Regular(content) = &files[&name(ip)] else {
        return None;
    };
    let content = String::from_utf8_lossy(content).trim().to_owned();
    let (container, ifname) = match content.split_once('\n') {
        Some((container, ifname)) => (container.trim(), Some(ifname.trim().to_owned())),
        None => (&*content, None),
    };
    (!content.is_empty()).then(|| (container.to_owned(), ifname))
}

pub(crate) fn reserved(files: &Files) -> BTreeMap<IpAddr, Owner> {
    let addresses = addresses(files).into_iter();
    addresses
        .filter_map(|ip| Some((ip, owner(files, ip)?)))
        .collect()
}

/// The addresses that name the attachment; if none does, those that name its container.
pub(crate) fn held(files: &Files, id: &AttachmentId) -> Vec<IpAddr> {
    let of = |ifname: Option<&String>| {
        let wanted = (id.container_id.clone(), ifname.cloned());
        let all = reserved(files).into_iter();
        all.filter(|(_, owner)| *owner == wanted)
            .map(|(ip, _)| ip)
            .collect::<Vec<_>>()
    };
    let own = of(Some(&id.ifname));
    if own.is_empty() { of(None) } else { own }
}

/// Whether nobody has the address: there is no file, or an empty one.
pub(crate) fn is_free(files: &Files, ip: IpAddr) -> bool {
    let file = files.get(&name(ip));
    file.is_none_or(|file| matches!(file, File::Regular(content) if content.is_empty()))
}

pub(crate) fn last(files: &Files, set: usize) -> Option<IpAddr> {
    let name = format!("last_reserved_ip.{set}").into_bytes();
    let File::Regular(content) = files.get(&name)? else {
        return None;
    };
    let text = String::from_utf8_lossy(content);
    let ip: IpAddr = text.trim().parse().ok()?;
    Some(ip.to_canonical())
}

/// Whether what the allocator keeps beside addresses are files.
pub(crate) fn is_sound(files: &Files) -> bool {
    let kept = |name: &[u8]| {
        name == b"lock" || name == b".beeline.tmp" || name.starts_with(b"last_reserved_ip.")
    };
    files
        .iter()
        .all(|(name, file)| !kept(name) || *file != File::Other)
}

/// The same files, but for those that come and go with any change.
pub(crate) fn assert_same(expected: Files, found: &Files) {
    let without = |mut files: Files| {
        files.remove(&b"lock"[..]);
        files.remove(&b".beeline.tmp"[..]);
        files
    };
    assert_eq!(without(found.clone()), without(expected));
}
