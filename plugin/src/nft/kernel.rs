//! Questions to nf_tables over netlink: one request and one answer each, with no child process and no dump.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use netlink_packet_core::{NLM_F_REQUEST, NLMSG_ERROR};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use nix::libc;

// linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h, linux/netfilter.h.
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFT_MSG_GETTABLE: u16 = 1;
const NFT_MSG_GETSETELEM: u16 = 13;
const NFTA_TABLE_NAME: u16 = 1;
const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
const NFTA_SET_ELEM_LIST_SET: u16 = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_DATA_VALUE: u16 = 1;
const NLA_F_NESTED: u16 = 1 << 15;
const NFPROTO_INET: u8 = 1;
const NLMSG_HEADER: usize = 16;

/// Whether there is a table of this name in the inet family.
pub(super) fn has_table(table: &str) -> io::Result<bool> {
    exists(
        NFT_MSG_GETTABLE,
        &attribute(NFTA_TABLE_NAME, &string(table)),
    )
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
    exists(NFT_MSG_GETSETELEM, &attributes)
}

/// Whether the kernel finds what a get request names.
fn exists(kind: u16, attributes: &[u8]) -> io::Result<bool> {
    let socket = match Socket::new(NETLINK_NETFILTER) {
        Ok(socket) => socket,
        // A kernel without netfilter's netlink has no table either.
        Err(error) if error.raw_os_error() == Some(libc::EPROTONOSUPPORT) => return Ok(false),
        Err(error) => return Err(error),
    };
    socket.send_to(&request(kind, attributes), &SocketAddr::new(0, 0), 0)?;
    // The kernel has answered by the time that sending returns.
    let (answer, _) = socket.recv_from_full()?;
    match error_of(answer.into())? {
        0 => Ok(true),
        libc::ENOENT => Ok(false),
        // A kernel without nf_tables, or one too old to get single elements of a set.
        libc::EINVAL | libc::EOPNOTSUPP => Ok(false),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

fn request(kind: u16, attributes: &[u8]) -> Bytes {
    const NFGENMSG: usize = 4;
    let mut request = BytesMut::new();
    let length = NLMSG_HEADER + NFGENMSG + attributes.len();
    request.put_u32_ne(length as u32);
    request.put_u16_ne(NFNL_SUBSYS_NFTABLES << 8 | kind);
    request.put_u16_ne(NLM_F_REQUEST);
    request.put_u32_ne(1);
    request.put_u32_ne(0);
    request.put_u8(NFPROTO_INET);
    request.put_u8(0);
    request.put_u16(0);
    request.put_slice(attributes);
    request.freeze()
}

/// The errno in an answer; 0 if it is not an error.
fn error_of(mut answer: Bytes) -> io::Result<i32> {
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
        .map(|errno| -errno)
        .map_err(|_| io::ErrorKind::UnexpectedEof.into())
}

fn attribute(kind: u16, value: &[u8]) -> BytesMut {
    const HEADER: usize = 4;
    let mut attribute = BytesMut::new();
    attribute.put_u16_ne((HEADER + value.len()) as u16);
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
    }
}
