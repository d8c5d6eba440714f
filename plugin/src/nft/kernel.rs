//! Questions to nf_tables over netlink: one request and one answer each, with no child process.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use nix::libc;

// linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h, linux/netfilter.h.
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFT_MSG_GETTABLE: u16 = 1;
const NFT_MSG_GETCHAIN: u16 = 4;
const NFT_MSG_GETSETELEM: u16 = 13;
const NFT_MSG_GETGEN: u16 = 16;
const NFTA_GEN_ID: u16 = 1;
const NFTA_TABLE_NAME: u16 = 1;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
const NFTA_SET_ELEM_LIST_SET: u16 = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_DATA_VALUE: u16 = 1;
const NLA_F_NESTED: u16 = 1 << 15;
const NFPROTO_UNSPEC: u8 = 0;
const NFPROTO_INET: u8 = 1;
pub(super) const NFPROTO_IPV4: u8 = 2;
pub(super) const NFPROTO_IPV6: u8 = 10;
const NFPROTO_BRIDGE: u8 = 7;
const NLMSG_HEADER: usize = 16;
const NFGENMSG: usize = 4;
const ATTRIBUTE: usize = 4;

/// Whether there is a table of this name in the inet family.
pub(super) fn has_table(table: &str) -> io::Result<bool> {
    exists(
        NFT_MSG_GETTABLE,
        NFPROTO_INET,
        &attribute(NFTA_TABLE_NAME, &string(table)),
    )
}

/// Whether a table of the bridge family has a chain of this name.
pub(super) fn has_bridge_chain(table: &str, chain: &str) -> io::Result<bool> {
    has_chain(NFPROTO_BRIDGE, table, chain)
}

/// Whether a table of a family has a chain of this name.
pub(super) fn has_chain(family: u8, table: &str, chain: &str) -> io::Result<bool> {
    let mut attributes = attribute(NFTA_CHAIN_TABLE, &string(table));
    attributes.extend(attribute(NFTA_CHAIN_NAME, &string(chain)));
    exists(NFT_MSG_GETCHAIN, family, &attributes)
}

/// Whether a table has a set of marks that has this one.
pub(super) fn has_mark(table: &str, set: &str, mark: u32) -> io::Result<bool> {
    let nested = |kind: u16, value: &[u8]| attribute(kind | NLA_F_NESTED, value);
    let key = nested(
        NFTA_SET_ELEM_KEY,
        &attribute(NFTA_DATA_VALUE, &mark.to_ne_bytes()),
    );
    let mut attributes = attribute(NFTA_SET_ELEM_LIST_TABLE, &string(table));
    attributes.extend(attribute(NFTA_SET_ELEM_LIST_SET, &string(set)));
    attributes.extend(nested(
        NFTA_SET_ELEM_LIST_ELEMENTS,
        &nested(NFTA_LIST_ELEM, &key),
    ));
    exists(NFT_MSG_GETSETELEM, NFPROTO_INET, &attributes)
}

/// Whether there is any table.
pub(super) fn has_tables() -> io::Result<bool> {
    let request = request(NFT_MSG_GETTABLE, NLM_F_DUMP, NFPROTO_UNSPEC, &[]);
    // The first message tells; the rest goes with the socket.
    let Some(answer) = ask(&request)? else {
        return Ok(false);
    };
    Ok(known(error_of(answer.clone())?)? && kind_of(&answer) != Some(NLMSG_DONE))
}

/// Counts the changes of the rule set; 0 if the kernel has no nf_tables.
pub(super) fn generation() -> io::Result<u32> {
    let Some(answer) = ask(&request(NFT_MSG_GETGEN, 0, NFPROTO_UNSPEC, &[]))? else {
        return Ok(0);
    };
    if !known(error_of(answer.clone())?)? {
        return Ok(0);
    }
    first_u32(answer, NFTA_GEN_ID).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Whether the kernel finds what a get request names.
fn exists(kind: u16, family: u8, attributes: &[u8]) -> io::Result<bool> {
    match ask(&request(kind, 0, family, attributes))? {
        Some(answer) => known(error_of(answer)?),
        None => Ok(false),
    }
}

/// The first answer to a request; `None` from a kernel without netfilter's netlink, which has no table either.
fn ask(request: &[u8]) -> io::Result<Option<Bytes>> {
    let socket = match Socket::new(NETLINK_NETFILTER) {
        Ok(socket) => socket,
        Err(error) if error.raw_os_error() == Some(libc::EPROTONOSUPPORT) => return Ok(None),
        Err(error) => return Err(error),
    };
    socket.send_to(request, &SocketAddr::new(0, 0), 0)?;
    // The kernel has answered by the time that sending returns.
    let (answer, _) = socket.recv_from_full()?;
    Ok(Some(answer.into()))
}

/// Whether an answer is no error; that nothing is there is none to the caller.
pub(crate) fn known(errno: i32) -> io::Result<bool> {
    match errno {
        0 => Ok(true),
        libc::ENOENT => Ok(false),
        // A kernel without nf_tables, or one too old to get single elements of a set.
        libc::EINVAL | libc::EOPNOTSUPP => Ok(false),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

fn request(kind: u16, flags: u16, family: u8, attributes: &[u8]) -> Bytes {
    let mut request = BytesMut::new();
    let length = NLMSG_HEADER + NFGENMSG + attributes.len();
    request.put_u32_ne(length as u32);
    request.put_u16_ne(NFNL_SUBSYS_NFTABLES << 8 | kind);
    request.put_u16_ne(NLM_F_REQUEST | flags);
    request.put_u32_ne(1);
    request.put_u32_ne(0);
    request.put_u8(family);
    request.put_u8(0);
    request.put_u16(0);
    request.put_slice(attributes);
    request.freeze()
}

pub(crate) fn kind_of(answer: &[u8]) -> Option<u16> {
    answer
        .get(4..)?
        .first_chunk()
        .copied()
        .map(u16::from_ne_bytes)
}

/// The number in a message's first attribute, in network order as nf_tables' are.
pub(crate) fn first_u32(answer: Bytes, kind: u16) -> Option<u32> {
    let attribute = answer.get(NLMSG_HEADER + NFGENMSG..)?;
    let (header, value) = attribute.split_at_checked(ATTRIBUTE)?;
    let found = u16::from_ne_bytes([header[2], header[3]]);
    (found == kind).then(|| value.first_chunk().copied().map(u32::from_be_bytes))?
}

/// The errno in an answer; 0 if it is not an error.
pub(crate) fn error_of(mut answer: Bytes) -> io::Result<i32> {
    if answer.len() < NLMSG_HEADER {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    answer.advance(4);
    if answer.get_u16_ne() != NLMSG_ERROR {
        return Ok(0);
    }
    answer.advance(10);
    answer
        .try_get_i32_ne()
        .map(i32::saturating_neg)
        .map_err(|_| io::ErrorKind::UnexpectedEof.into())
}

fn attribute(kind: u16, value: &[u8]) -> BytesMut {
    let mut attribute = BytesMut::new();
    attribute.put_u16_ne((ATTRIBUTE + value.len()) as u16);
    attribute.put_u16_ne(kind);
    attribute.put_slice(value);
    attribute.resize(attribute.len().next_multiple_of(4), 0);
    attribute
}

fn string(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_but_tell_their_own_length() {
        assert_eq!(attribute(1, &string("ab"))[..2], 7u16.to_ne_bytes());
        assert_eq!(attribute(1, &string("ab")).len(), 8);
        assert_eq!(attribute(1, &string("abc")).len(), 8);
    }

    #[test]
    fn a_cut_answer_is_an_error() {
        assert!(error_of(Bytes::from_static(&[0; 15])).is_err());
        let mut cut = BytesMut::zeroed(16);
        cut[4..6].copy_from_slice(&NLMSG_ERROR.to_ne_bytes());
        assert!(error_of(cut.freeze()).is_err());
        assert_eq!(error_of(Bytes::from_static(&[0; 16])).unwrap(), 0);
        for length in 0..NLMSG_HEADER + NFGENMSG + ATTRIBUTE + 4 {
            assert_eq!(first_u32(Bytes::from(vec![0; length]), 0), None, "{length}");
        }
    }
}
