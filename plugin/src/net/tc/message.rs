//! Traffic control as the kernel describes it.

use netlink_packet_core::{
    DecodeError, Emitable, NetlinkDeserializable, NetlinkHeader, NlasIterator,
};
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcFilterBpf, TcHeader, TcMessage},
};

use super::{Filter, Hook, Qdisc};

// linux/rtnetlink.h, linux/pkt_cls.h.
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_NAME: u16 = 7;

/// A qdisc or a filter.
///
/// Of the options only the name of a BPF program is read: there are many kinds, and all of them are others'.
#[derive(Debug)]
pub(crate) struct Described {
    header: TcHeader,
    kind: String,
    program: Option<String>,
}

impl NetlinkDeserializable for Described {
    type Error = DecodeError;

    fn deserialize(_: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        let mut described = Self {
            header: TcHeader::parse(payload)?,
            kind: String::new(),
            program: None,
        };
        for attribute in NlasIterator::new(&payload[described.header.buffer_len()..]) {
            let attribute = attribute?;
            match attribute.kind() {
                TCA_KIND => described.kind = text(attribute.value()),
                // The kind comes first.
                TCA_OPTIONS if described.kind == TcFilterBpf::KIND => {
                    described.program = program(attribute.value());
                }
                _ => {}
            }
        }
        Ok(described)
    }
}

impl Described {
    /// The qdisc, if it is one of this interface.
    pub(crate) fn qdisc(self, index: u32) -> Option<Qdisc> {
        (self.header.index.cast_unsigned() == index).then(|| Qdisc {
            kind: self.kind,
            handle: self.header.handle.into(),
            parent: self.header.parent.into(),
        })
    }

    /// The filter; none for the head of a priority's filters, which has no handle.
    pub(crate) fn filter(self) -> Option<Filter> {
        let handle = u32::from(self.header.handle);
        (handle != 0).then_some(Filter {
            kind: self.kind,
            priority: (self.header.info >> 16) as u16,
            handle,
            program: self.program,
        })
    }
}

/// The request for all qdiscs of the namespace: the kernel filters by interface for nobody.
///
/// Before Linux 6.8 a request for one would be announced to everyone who watches, as if the qdisc were new.
pub(super) fn list_qdiscs() -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default())
}

/// The request for the filters at a hook.
pub(super) fn list_filters(index: u32, hook: Hook) -> RouteNetlinkMessage {
    let mut query = TcMessage::with_index(index.cast_signed());
    query.header.parent = hook.parent().into();
    RouteNetlinkMessage::GetTrafficFilter(query)
}

fn program(options: &[u8]) -> Option<String> {
    NlasIterator::new(options)
        .filter_map(Result::ok)
        .find(|option| option.kind() == TCA_BPF_NAME)
        .map(|name| text(name.value()))
}

/// The text up to its NUL; names that are not UTF-8 are no reason to overlook what has them.
fn text(bytes: &[u8]) -> String {
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::DefaultNla;

    use super::*;

    fn described(attributes: &[DefaultNla]) -> Result<Described, DecodeError> {
        let header = TcHeader {
            handle: 1.into(),
            info: 9 << 16,
            ..TcHeader::default()
        };
        let mut payload = vec![0; header.buffer_len() + attributes.buffer_len()];
        header.emit(&mut payload);
        attributes.emit(&mut payload[header.buffer_len()..]);
        Described::deserialize(&NetlinkHeader::default(), &payload)
    }

    fn attribute(kind: u16, value: &[u8]) -> DefaultNla {
        DefaultNla::new(kind, value.to_vec())
    }

    #[test]
    fn a_bpf_filter_has_the_name_of_its_program() {
        let mut options = vec![0; 12];
        attribute(TCA_BPF_NAME, b"meter\0").emit(&mut options);
        let filter = described(&[
            attribute(TCA_KIND, b"bpf\0"),
            attribute(TCA_OPTIONS, &options),
        ]);
        let filter = filter.unwrap().filter().unwrap();
        assert_eq!(filter.to_string(), "bpf \"meter\" with priority 9");
    }

    #[test]
    fn options_of_a_kind_that_is_not_known_do_not_matter() {
        let filter = described(&[
            attribute(TCA_KIND, b"\xffodd\0"),
            attribute(TCA_OPTIONS, &[255; 7]),
        ]);
        let filter = filter.unwrap().filter().unwrap();
        assert_eq!(filter.kind, "\u{fffd}odd");
        assert!(Described::deserialize(&NetlinkHeader::default(), &[0; 19]).is_err());
    }
}
