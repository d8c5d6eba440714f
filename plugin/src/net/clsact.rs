//! The qdisc that has a place for filters at both sides of a link.

use std::os::fd::{AsRawFd as _, OwnedFd};

use anyhow::{Context as _, Result};
use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto,
        socket,
    },
};

const RTM_DELQDISC: u16 = 37;
const RTM_NEWTFILTER: u16 = 44;
const RTM_GETTFILTER: u16 = 46;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;

/// `TC_H_CLSACT`, and with it `TC_H_MIN_INGRESS` and `TC_H_MIN_EGRESS`.
const CLSACT: u32 = 0xffff_fff1;
const HOOKS: [u32; 2] = [0xffff_fff2, 0xffff_fff3];
const HANDLE: u32 = 0xffff_0000;

/// Removes a link's clsact qdisc, unless a filter is on it; says whether it is gone. Not there is success.
///
/// The kernel's answers are told apart by their type alone: a filter that cannot be decoded is a filter.
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
    let answer = exchange(RTM_GETTFILTER, NLM_F_DUMP, index, [0, hook], &[])?;
    match answer {
        Answer::Error(0) | Answer::End => Ok(false),
        Answer::Filter => Ok(true),
        Answer::Error(code) => Err(Errno::from_raw(code.saturating_neg())),
    }
}

fn delete(index: u32) -> Result<(), Errno> {
    // `TCA_KIND`, so that nothing else goes that has its place by now; eleven bytes, and one to align.
    let kind = b"\x0b\0\x01\0clsact\0\0";
    match exchange(RTM_DELQDISC, NLM_F_ACK, index, [HANDLE, CLSACT], kind)? {
        Answer::Error(0) => Ok(()),
        Answer::Error(code) => match Errno::from_raw(code.saturating_neg()) {
            Errno::ENOENT | Errno::EINVAL | Errno::ENODEV => Ok(()),
            errno => Err(errno),
        },
        _ => Err(Errno::EBADMSG),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Filter,
    /// An error code, 0 for an acknowledgement.
    Error(i32),
    /// The end of a list, that is of an empty one.
    End,
}

/// Sends one traffic control request, and reads the first message of the answer.
fn exchange(
    kind: u16,
    flags: u16,
    index: u32,
    [handle, parent]: [u32; 2],
    attributes: &[u8],
) -> Result<Answer, Errno> {
    let socket: OwnedFd = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )?;
    // `nlmsghdr`, then `tcmsg`.
    let length = 16 + 20 + attributes.len() as u32;
    let mut request = length.to_ne_bytes().to_vec();
    request.extend(kind.to_ne_bytes());
    request.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    request.extend([0; 8]);
    for word in [0, index, handle, parent, 0] {
        request.extend(word.to_ne_bytes());
    }
    request.extend(attributes);
    let kernel = NetlinkAddr::new(0, 0);
    sendto(socket.as_raw_fd(), &request, &kernel, MsgFlags::empty())?;
    let mut answer = [0; 32 * 1024];
    let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    Ok(Answer::read(answer.get(..length).unwrap_or_default()))
}

impl Answer {
    const UNREADABLE: Self = Self::Error(-(Errno::EBADMSG as i32));

    /// What the first message of a datagram says.
    pub(crate) fn read(answer: &[u8]) -> Self {
        let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok());
        match kind.map(u16::from_ne_bytes) {
            Some(RTM_NEWTFILTER) => Self::Filter,
            Some(NLMSG_ERROR) => {
                let code = answer.get(16..20).and_then(|bytes| bytes.try_into().ok());
                code.map_or(Self::UNREADABLE, |code| {
                    Self::Error(i32::from_ne_bytes(code))
                })
            }
            Some(NLMSG_DONE) => Self::End,
            // Not to be taken for an empty list, as then the qdisc goes.
            _ => Self::UNREADABLE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_answer_is_not_taken_for_an_empty_list() {
        let message = |kind: u16| [&[20, 0, 0, 0], &kind.to_ne_bytes()[..], &[0; 14]].concat();
        assert_eq!(Answer::read(&message(NLMSG_DONE)), Answer::End);
        assert_eq!(Answer::read(&message(NLMSG_ERROR)), Answer::Error(0));
        for unreadable in [&[][..], &[0; 5], &message(1), &message(NLMSG_ERROR)[..19]] {
            assert_eq!(
                Answer::read(unreadable),
                Answer::UNREADABLE,
                "{unreadable:?}"
            );
        }
    }
}
