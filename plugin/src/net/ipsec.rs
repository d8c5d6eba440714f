//! IPsec policies of the calling thread's network namespace: what the kernel's xfrm transforms, or refuses, as it forwards.

use std::{fmt, net::IpAddr, os::raw::c_int};

use anyhow::{Context, Result};
use ipnetwork::IpNetwork;
use netlink_packet_core::{NLM_F_DUMP, NlasIterator};
use nix::{errno::Errno, libc};

use super::exchange::{Raw, exchange};

// linux/netlink.h, linux/xfrm.h.
const NETLINK_XFRM: isize = 6;
const XFRM_MSG_GETPOLICY: u16 = 0x15;
const XFRM_MSG_GETSPDINFO: u16 = 0x25;
const XFRM_MSG_GETDEFAULT: u16 = 0x28;
const XFRMA_SPD_INFO: u16 = 1;
const XFRMA_TMPL: u16 = 5;
const XFRM_POLICY_OUT: u8 = 1;
const XFRM_POLICY_FWD: u8 = 2;
const XFRM_POLICY_ALLOW: u8 = 0;
const XFRM_USERPOLICY_BLOCK: u8 = 1;
/// The size of `struct xfrm_userpolicy_info`, attributes follow.
const POLICY: usize = 168;

/// A policy that transforms or refuses what the node forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Where packets come from.
    pub source: IpNetwork,
    /// Where they go.
    pub destination: IpNetwork,
    /// Whether it is about what leaves, rather than what comes in.
    pub is_out: bool,
}

/// Lists the policies that transform or refuse what the node forwards; none from a kernel without IPsec.
pub fn policies() -> Result<Vec<Policy>> {
    // Both structs of a request, which the kernel takes for a dump and ignores: the policy's id, 64 bytes.
    let request = Raw(XFRM_MSG_GETPOLICY, vec![0; 64]);
    ask(request, NLM_F_DUMP, |answer| Policy::read(&answer)).context("ipsec: list policies")
}

/// Whether what the node forwards is dropped if no policy is about it (`ip xfrm policy setdefault`, Linux 5.15).
pub fn blocks_by_default() -> Result<bool> {
    let request = Raw(XFRM_MSG_GETDEFAULT, vec![0; 3]);
    match ask(request, 0, |answer| Some(drops_unmatched(&answer))) {
        // A kernel without defaults.
        Err(Errno::EINVAL) => Ok(false),
        drops => Ok(drops
            .context("ipsec: ask for the default policy")?
            .contains(&true)),
    }
}

/// What changes with the policies of what the node forwards, and costs little to ask for: how many they are, and whether
/// all else is dropped.
pub fn generation() -> Result<(u32, bool)> {
    let flags = vec![0; size_of::<u32>()];
    let counts = ask(Raw(XFRM_MSG_GETSPDINFO, flags), 0, |answer| {
        spd_info(&answer)
    });
    let count = counts.context("ipsec: count policies")?.iter().sum();
    Ok((count, blocks_by_default()?))
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = if self.is_out { "out" } else { "fwd" };
        write!(
            f,
            "ipsec policy src {} dst {} dir {direction} can encrypt or drop pods' packets",
            self.source, self.destination
        )
    }
}

fn ask<T>(request: Raw, flags: u16, read: impl FnMut(Raw) -> Option<T>) -> Result<Vec<T>, Errno> {
    match exchange(NETLINK_XFRM, request, flags, read) {
        Err(Errno::EPROTONOSUPPORT) => Ok(Vec::new()),
        done => done,
    }
}

impl Policy {
    /// Reads `struct xfrm_userpolicy_info` and its attributes; none if it lets packets pass as they are.
    pub(crate) fn read(Raw(_, bytes): &Raw) -> Option<Self> {
        let (info, attributes) = bytes.split_at_checked(POLICY)?;
        let [direction, action] = [info[160], info[161]];
        let transforms = NlasIterator::new(attributes)
            .flatten()
            .any(|attribute| attribute.kind() == XFRMA_TMPL);
        let forwards = matches!(direction, XFRM_POLICY_OUT | XFRM_POLICY_FWD);
        if !forwards || (action == XFRM_POLICY_ALLOW && !transforms) {
            return None;
        }
        let family = u16::from_ne_bytes([info[40], info[41]]);
        let network = |start: usize, prefix: u8| {
            let octets: [u8; 16] = info[start..start + 16].try_into().ok()?;
            let address = match c_int::from(family) {
                libc::AF_INET => IpAddr::from([octets[0], octets[1], octets[2], octets[3]]),
                libc::AF_INET6 => IpAddr::from(octets),
                _ => return None,
            };
            IpNetwork::new(address, prefix).ok()
        };
        Some(Self {
            destination: network(0, info[42])?,
            source: network(16, info[43])?,
            is_out: direction == XFRM_POLICY_OUT,
        })
    }
}

/// The numbers of policies out and forward in an answer: after flags, the attribute `struct xfrmu_spdinfo`.
pub(crate) fn spd_info(Raw(_, bytes): &Raw) -> Option<u32> {
    let attributes = bytes.get(size_of::<u32>()..)?;
    let mut attributes = NlasIterator::new(attributes).flatten();
    let counts = attributes.find(|attribute| attribute.kind() == XFRMA_SPD_INFO)?;
    let [_in, out, forward, ..] = counts.value().as_chunks().0 else {
        return None;
    };
    Some(u32::from_ne_bytes(*out).wrapping_add(u32::from_ne_bytes(*forward)))
}

/// Whether an answer, `struct xfrm_userpolicy_default`, has what is forwarded dropped: in, fwd, out.
pub(crate) fn drops_unmatched(Raw(_, bytes): &Raw) -> bool {
    let forwarded = bytes.get(1..3);
    forwarded.is_some_and(|actions| actions.contains(&XFRM_USERPOLICY_BLOCK))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_default_about_what_is_forwarded_matters() {
        let drops = |defaults: &[u8]| drops_unmatched(&Raw(XFRM_MSG_GETDEFAULT, defaults.to_vec()));
        // As Linux 6.18 answers after `setdefault in block`, `fwd block` and `out block`.
        let told = [[1, 2, 2, 0], [2, 1, 2, 0], [2, 2, 1, 0]].map(|defaults| drops(&defaults));
        assert_eq!(told, [false, true, true]);
        assert!(!drops(&[1, 1]));
    }
}

#[cfg(test)]
mod netns_tests {
    use std::process::Command;

    use super::{super::testing::isolated, *};

    fn ip(arguments: &str) {
        let status = Command::new("ip").args(arguments.split(' ')).status();
        assert!(status.expect("ip").success(), "ip {arguments}");
    }

    #[test]
    fn policies_that_transform_or_refuse_what_is_forwarded_are_told() {
        let found = isolated(|| {
            assert_eq!(generation()?.0, 0);
            assert_eq!(policies()?, []);
            let esp = "tmpl src 192.0.2.1 dst 192.0.2.2 proto esp mode tunnel";
            ip(&format!(
                "xfrm policy add src 10.1.0.0/24 dst 10.2.0.0/16 dir out {esp}"
            ));
            ip(&format!(
                "xfrm policy add src 10.2.0.0/16 dst 10.1.0.0/24 dir fwd {esp}"
            ));
            ip("xfrm policy add src ::/0 dst fd00:2::/64 dir out action block");
            // As it is, or for the node itself.
            ip("xfrm policy add src 10.1.0.0/24 dst 10.1.0.0/24 dir out");
            ip(&format!(
                "xfrm policy add src 10.2.0.0/16 dst 10.1.0.0/24 dir in {esp}"
            ));
            let mut found = policies()?;
            found.sort_by_key(|policy| policy.source);
            Ok((generation()?.0, found))
        });
        let policy = |source: &str, destination: &str, is_out| Policy {
            source: source.parse().expect("CIDR"),
            destination: destination.parse().expect("CIDR"),
            is_out,
        };
        let expected = [
            policy("10.1.0.0/24", "10.2.0.0/16", true),
            policy("10.2.0.0/16", "10.1.0.0/24", false),
            policy("::/0", "fd00:2::/64", true),
        ];
        assert_eq!(found, (4, expected.to_vec()));
    }
}
