//! Netlink requests of a program that is stopped: naming them, and making them ones that the kernel refuses.

use nix::libc;
use nix::unistd::Pid;

use super::memory;

/// No message can be shorter: length, type, flags, sequence number and sender.
const HEADER: usize = 16;

/// The first type that is not of netlink itself.
const FIRST: u16 = 16;

/// What begins and ends a batch of nfnetlink's.
const BATCH: [u16; 2] = [16, 17];

/// The bytes that a call sends, and where they are.
#[derive(Debug)]
pub(super) struct Request {
    protocol: i32,
    messages: Vec<Message>,
}

#[derive(Debug)]
struct Message {
    address: u64,
    kind: u16,
}

impl Request {
    /// Reads what is sent to a netlink socket of this protocol.
    pub(super) fn read(pid: Pid, protocol: i32, address: u64, len: u64) -> Self {
        let bytes = memory::read(pid, address, len as usize);
        Self {
            protocol,
            messages: messages(&bytes, address),
        }
    }

    /// Whether a refusal says nothing else. A question to netfilter that the kernel does not know is what one without
    /// nf_tables answers with the same error, and that is no failure.
    pub(super) fn can_be_refused(&self) -> bool {
        let is_batch = |first: &Message| BATCH.contains(&first.kind);
        self.protocol != libc::NETLINK_NETFILTER || self.messages.first().is_some_and(is_batch)
    }

    /// Makes all of it unknown to the kernel; a batch stays one.
    pub(super) fn spoil(&self, pid: Pid) -> nix::Result<()> {
        for message in self.messages.iter().filter(|message| self.asks(message)) {
            let unknown: u16 = match self.protocol {
                libc::NETLINK_ROUTE => 0x0fff,
                libc::NETLINK_NETFILTER => message.kind | 0xff,
                _ => 0xffff,
            };
            memory::write(pid, message.address + 4, &unknown.to_ne_bytes())?;
        }
        Ok(())
    }

    fn asks(&self, message: &Message) -> bool {
        let framing = self.protocol == libc::NETLINK_NETFILTER && BATCH.contains(&message.kind);
        message.kind >= FIRST && !framing
    }
}

impl std::fmt::Display for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.protocol {
            libc::NETLINK_ROUTE => write!(f, "netlink route")?,
            libc::NETLINK_NETFILTER => write!(f, "netlink netfilter")?,
            other => write!(f, "netlink protocol {other}")?,
        }
        for message in self.messages.iter().filter(|message| self.asks(message)) {
            match self.protocol {
                libc::NETLINK_ROUTE => write!(f, " {}", route(message.kind))?,
                _ => write!(f, " {}.{}", message.kind >> 8, message.kind & 0xff)?,
            }
        }
        Ok(())
    }
}

fn messages(bytes: &[u8], address: u64) -> Vec<Message> {
    let mut messages = Vec::new();
    let mut offset = 0;
    while let Some(header) = bytes.get(offset..offset + HEADER) {
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        messages.push(Message {
            address: address + offset as u64,
            kind: u16::from_ne_bytes([header[4], header[5]]),
        });
        offset += length.max(HEADER).next_multiple_of(4);
    }
    messages
}

fn route(kind: u16) -> String {
    let object = match (kind - FIRST) / 4 {
        0 => "LINK",
        1 => "ADDR",
        2 => "ROUTE",
        3 => "NEIGH",
        4 => "RULE",
        5 => "QDISC",
        6 => "TCLASS",
        7 => "TFILTER",
        _ => return format!("type {kind}"),
    };
    let verb = ["NEW", "DEL", "GET", "SET"][usize::from(kind % 4)];
    format!("RTM_{verb}{object}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_found_one_behind_the_other_and_named() {
        let message = |length: u32, kind: u16| {
            let mut bytes = length.to_ne_bytes().to_vec();
            bytes.extend(kind.to_ne_bytes());
            bytes.resize((length as usize).next_multiple_of(4), 0);
            bytes
        };
        let bytes = [message(18, 10 << 8), message(16, 17)].concat();
        let request = Request {
            protocol: libc::NETLINK_NETFILTER,
            messages: messages(&bytes, 1000),
        };
        assert_eq!(request.messages[1].address, 1020);
        assert_eq!(request.to_string(), "netlink netfilter 10.0");
        assert_eq!(route(libc::RTM_DELLINK), "RTM_DELLINK");
        assert_eq!(route(libc::RTM_GETTFILTER), "RTM_GETTFILTER");
    }
}
