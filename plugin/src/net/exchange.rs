//! One request and all its answers, on a socket of its own in the calling thread's network namespace.
//!
//! It is for what rtnetlink does not speak, such as conntrack, and for answers that describe the work of others:
//! rtnetlink's connection drops an answer that it cannot decode, and whoever waits for it never learns of it.

use std::{io, iter};

use netlink_packet_core::{
    DecodeError, NLM_F_ACK, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer, NetlinkDeserializable,
    NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use netlink_sys::{Socket, SocketAddr};
use nix::{errno::Errno, libc};

/// Holds the largest datagram of a dump, and makes the kernel fill datagrams of up to 32 KiB.
const BUFFER: usize = 64 * 1024;

/// How often a dump is begun anew because its subject changed while it was read.
const TRIES: usize = 8;

/// Asks the kernel once, and collects what `read` makes of each answer.
pub(super) fn exchange<Q, A, T>(
    protocol: isize,
    request: Q,
    flags: u16,
    mut read: impl FnMut(A) -> Option<T>,
) -> Result<Vec<T>, Errno>
where
    Q: NetlinkSerializable,
    A: NetlinkDeserializable,
{
    let mut request = NetlinkMessage::new(
        NetlinkHeader::default(),
        NetlinkPayload::InnerMessage(request),
    );
    request.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    for _ in 0..TRIES {
        if let Some(answers) = attempt(protocol, &bytes, &mut read)? {
            return Ok(answers);
        }
    }
    Err(Errno::EINTR)
}

/// Sends a request and reads to the end; none if the kernel says that what it told does not fit together.
fn attempt<A: NetlinkDeserializable, T>(
    protocol: isize,
    request: &[u8],
    read: &mut impl FnMut(A) -> Option<T>,
) -> Result<Option<Vec<T>>, Errno> {
    let socket = Socket::new(protocol).map_err(errno)?;
    socket
        .send_to(request, &SocketAddr::new(0, 0), 0)
        .map_err(errno)?;
    let mut answers = Answers::default();
    let mut datagram = Vec::with_capacity(BUFFER);
    loop {
        datagram.clear();
        let received = socket.recv_from(&mut datagram, libc::MSG_TRUNC);
        if received.map_err(errno)?.0 > datagram.len() {
            return Err(Errno::EMSGSIZE);
        }
        if answers.take(&datagram, read)? {
            return Ok((!answers.torn).then_some(answers.read));
        }
    }
}

/// A message as it is: its type and payload.
#[derive(Debug)]
pub(crate) struct Raw(pub(crate) u16, pub(crate) Vec<u8>);

impl NetlinkSerializable for Raw {
    fn message_type(&self) -> u16 {
        self.0
    }

    fn buffer_len(&self) -> usize {
        self.1.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.1);
    }
}

impl NetlinkDeserializable for Raw {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        Ok(Self(header.message_type, payload.to_vec()))
    }
}

/// What the kernel has told so far.
pub(crate) struct Answers<T> {
    pub(crate) read: Vec<T>,
    /// Whether the kernel says that it does not fit together.
    pub(crate) torn: bool,
}

impl<T> Default for Answers<T> {
    fn default() -> Self {
        Self {
            read: Vec::new(),
            torn: false,
        }
    }
}

impl<T> Answers<T> {
    /// Takes a datagram, and says whether it is the last.
    pub(crate) fn take<A: NetlinkDeserializable>(
        &mut self,
        datagram: &[u8],
        read: &mut impl FnMut(A) -> Option<T>,
    ) -> Result<bool, Errno> {
        for message in messages::<A>(datagram) {
            let message = message?;
            self.torn |= message.header.flags & NLM_F_DUMP_INTR != 0;
            let code = match message.payload {
                NetlinkPayload::InnerMessage(answer) => {
                    self.read.extend(read(answer));
                    continue;
                }
                NetlinkPayload::Error(error) => error.raw_code(),
                NetlinkPayload::Done(done) => done.code.min(0),
                NetlinkPayload::Overrun(_) => -libc::ENOBUFS,
                _ => continue,
            };
            return match code {
                0 => Ok(true),
                code => Err(Errno::from_raw(code.saturating_neg())),
            };
        }
        Ok(false)
    }
}

/// The messages of one datagram; it ends at the first that is not one.
pub(crate) fn messages<A: NetlinkDeserializable>(
    mut datagram: &[u8],
) -> impl Iterator<Item = Result<NetlinkMessage<A>, Errno>> {
    iter::from_fn(move || {
        if datagram.is_empty() {
            return None;
        }
        let Ok(frame) = NetlinkBuffer::new_checked(datagram) else {
            datagram = &[];
            return Some(Err(Errno::EBADMSG));
        };
        let length = frame.length() as usize;
        let message = NetlinkMessage::deserialize(&datagram[..length]);
        datagram = datagram
            .get(length.next_multiple_of(4)..)
            .unwrap_or_default();
        Some(message.map_err(|_| Errno::EBADMSG))
    })
}

fn errno(error: io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::{DecodeError, NLMSG_NOOP};

    use super::*;

    /// A message that is its payload; an empty one cannot be decoded.
    #[derive(Debug, PartialEq)]
    struct Payload(Vec<u8>);

    impl NetlinkDeserializable for Payload {
        type Error = DecodeError;

        fn deserialize(_: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
            match payload {
                [] => Err(DecodeError::from("empty")),
                _ => Ok(Self(payload.to_vec())),
            }
        }
    }

    fn message(kind: u16, length: u32, payload: &[u8]) -> Vec<u8> {
        let mut message = length.to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend([0; 10]);
        message.extend(payload);
        message
    }

    fn read(datagram: &[u8]) -> Vec<Result<NetlinkPayload<Payload>, Errno>> {
        messages(datagram)
            .map(|message| message.map(|message| message.payload))
            .collect()
    }

    #[test]
    fn messages_of_a_datagram_are_told_apart() {
        let odd = message(16, 17, &[1, 0, 0, 0]);
        let noop = message(NLMSG_NOOP, 16, &[]);
        let last = message(16, 18, &[2, 3]);
        let expected = [
            Ok(NetlinkPayload::InnerMessage(Payload(vec![1]))),
            Ok(NetlinkPayload::Noop),
            Ok(NetlinkPayload::InnerMessage(Payload(vec![2, 3]))),
        ];
        assert_eq!(read(&[odd, noop, last].concat()), expected);
    }

    #[test]
    fn what_cannot_be_decoded_is_not_lost_silently() {
        let good = message(16, 20, &[1, 2, 3, 4]);
        let undecodable = message(16, 16, &[]);
        let answers = read(&[undecodable, good.clone()].concat());
        assert_eq!(answers[0], Err(Errno::EBADMSG));
        assert!(answers[1].is_ok());
        for wrong in [0, 15, 24] {
            let cut = message(16, wrong, &[1, 2, 3, 4]);
            let answers = read(&[good.clone(), cut].concat());
            assert_eq!(answers.len(), 2, "length {wrong}");
            assert_eq!(answers[1], Err(Errno::EBADMSG), "length {wrong}");
        }
    }
}
