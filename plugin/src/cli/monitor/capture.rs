//! Packets as a file that tcpdump and Wireshark read (pcapng): with the interface that each was seen at, and the verdict
//! as its comment.

use std::{
    borrow::Cow,
    collections::HashMap,
    io::{self, Write},
};

use anyhow::{Context as _, Result};
use pcap_file::{
    DataLink, PcapError,
    pcapng::{
        PcapNgWriter,
        blocks::{
            enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption},
            interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption},
        },
    },
};

use super::interfaces::Interfaces;
use crate::datapath::Sighting;

/// Timestamps count nanoseconds.
const RESOLUTION: u8 = 9;

/// A capture in the making.
pub(super) struct Capture<W: Write> {
    writer: PcapNgWriter<W>,
    /// The numbers that interfaces have in the file, by name.
    numbers: HashMap<String, u32>,
    snaplen: u32,
}

impl<W: Write> Capture<W> {
    /// Begins a file.
    pub(super) fn new(out: W, snaplen: u32) -> Result<Self> {
        Ok(Self {
            writer: PcapNgWriter::new(out).map_err(plain)?,
            numbers: HashMap::new(),
            snaplen,
        })
    }

    /// Adds a packet.
    pub(super) fn add(&mut self, sighting: &Sighting, interfaces: &mut Interfaces) -> Result<()> {
        let number = self.number_of(interfaces.name(sighting.ifindex))?;
        let mut comment = format!("{} {}", sighting.hook.name(), sighting.outcome.name());
        if let Some(target) = sighting.target {
            comment += " > ";
            comment += interfaces.name(target);
        }
        let packet = EnhancedPacketBlock {
            interface_id: number,
            timestamp: sighting.time,
            original_len: sighting.length,
            data: Cow::Borrowed(&sighting.bytes),
            options: vec![EnhancedPacketOption::Comment(comment.into())],
        };
        let written = self.writer.write_pcapng_block(packet);
        written.map(drop).map_err(plain)
    }

    /// Hands on what is written so far.
    pub(super) fn flush(&mut self) -> Result<()> {
        self.writer.get_mut().flush().context("flush")
    }

    fn number_of(&mut self, name: &str) -> Result<u32> {
        if let Some(number) = self.numbers.get(name) {
            return Ok(*number);
        }
        let number = self.numbers.len() as u32;
        let interface = InterfaceDescriptionBlock {
            linktype: DataLink::ETHERNET,
            // The same for all, as libpcap demands.
            snaplen: self.snaplen,
            options: vec![
                InterfaceDescriptionOption::IfName(name.to_owned().into()),
                InterfaceDescriptionOption::IfTsResol(RESOLUTION),
            ],
        };
        let written = self.writer.write_pcapng_block(interface);
        written.map_err(plain)?;
        self.numbers.insert(name.to_owned(), number);
        Ok(number)
    }
}

/// The error of the writer below, if it is one, so that callers find a reader that went away.
fn plain(error: PcapError) -> anyhow::Error {
    match error {
        PcapError::IoError(error) => io::Error::into(error),
        error => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use beeline_common::{Hook, Outcome};
    use pcap_file::pcapng::{Block, PcapNgReader};

    use super::*;

    fn sighting(ifindex: u32, target: Option<u32>) -> Sighting {
        Sighting {
            time: Duration::new(1_700_000_000, 5),
            hook: Hook::FromPod,
            outcome: Outcome::ToPod,
            ifindex,
            target,
            length: 1_000,
            bytes: vec![7; 61],
        }
    }

    #[test]
    fn each_packet_has_its_interface_time_length_and_verdict() {
        let mut file = Vec::new();
        let mut capture = Capture::new(&mut file, 128).unwrap();
        let mut interfaces = Interfaces::default();
        let gone = u32::MAX;
        for (ifindex, target) in [(gone, Some(gone - 1)), (gone - 2, None), (gone, None)] {
            let sighting = sighting(ifindex, target);
            capture.add(&sighting, &mut interfaces).unwrap();
        }
        capture.flush().unwrap();
        drop(capture);

        let mut reader = PcapNgReader::new(&file[..]).unwrap();
        let mut packets = Vec::new();
        while let Some(block) = reader.next_block() {
            if let Block::EnhancedPacket(packet) = block.unwrap().into_owned() {
                packets.push(packet);
            }
        }
        let numbers: Vec<u32> = packets.iter().map(|packet| packet.interface_id).collect();
        assert_eq!(numbers, [0, 1, 0]);
        assert_eq!(packets[0].timestamp, Duration::new(1_700_000_000, 5));
        assert_eq!(
            (packets[0].original_len, packets[0].data.len()),
            (1_000, 61)
        );
        let comment = EnhancedPacketOption::Comment("from_pod to_pod > 4294967294".into());
        assert_eq!(packets[0].options, [comment]);
    }
}
