//! The qdisc that has a place for filters at both sides of a link.

use anyhow::{Context as _, Result};
use netlink_packet_core::NLM_F_DUMP;
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::errno::Errno;

use super::exchange::{Raw, exchange};

// linux/rtnetlink.h.
const RTM_DELQDISC: u16 = 37;
const RTM_GETTFILTER: u16 = 46;

/// `TC_H_CLSACT`, and with it `TC_H_MIN_INGRESS` and `TC_H_MIN_EGRESS`.
const CLSACT: u32 = 0xffff_fff1;
const HOOKS: [u32; 2] = [0xffff_fff2, 0xffff_fff3];
const HANDLE: u32 = 0xffff_0000;

/// Removes a link's clsact qdisc, unless a filter is on it; says whether it is gone. Not there is success.
pub fn remove_unused(index: u32) -> Result<bool> {
    let remove = || -> Result<bool, Errno> {
        for hook in HOOKS {
            if has_filters(index, hook)? {
                return Ok(false);
            }
        }
        delete(index)?;
        Ok(true)
    };
    remove().with_context(|| format!("link {index}: qdisc clsact: remove"))
}

fn has_filters(index: u32, hook: u32) -> Result<bool, Errno> {
    let request = request(RTM_GETTFILTER, index, [0, hook], &[]);
    // A filter that cannot be decoded is a filter.
    let filters = exchange(NETLINK_ROUTE, request, NLM_F_DUMP, |_: Raw| Some(()))?;
    Ok(!filters.is_empty())
}

fn delete(index: u32) -> Result<(), Errno> {
    // `TCA_KIND`, so that nothing else goes that has its place by now; eleven bytes, and one to align.
    let kind = b"\x0b\0\x01\0clsact\0\0";
    let request = request(RTM_DELQDISC, index, [HANDLE, CLSACT], kind);
    match exchange(NETLINK_ROUTE, request, 0, |_: Raw| None::<()>) {
        Err(Errno::ENOENT | Errno::EINVAL | Errno::ENODEV) => Ok(()),
        done => done.map(drop),
    }
}

/// `tcmsg`, then the attributes.
fn request(kind: u16, index: u32, [handle, parent]: [u32; 2], attributes: &[u8]) -> Raw {
    let header = [0, index, handle, parent, 0].map(u32::to_ne_bytes);
    Raw(kind, [header.as_flattened(), attributes].concat())
}
