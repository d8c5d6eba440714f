//! Ethernet addresses.

use std::{
    collections::hash_map::RandomState,
    fmt,
    hash::{BuildHasher, Hasher},
    net::Ipv6Addr,
    str::FromStr,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// An Ethernet address, written as six colon-separated hexadecimal octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

/// The text is not six colon-separated hexadecimal octets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidMac(String);

impl Mac {
    /// Draws a locally administered unicast address at random.
    pub fn random() -> Self {
        // The keys of a `RandomState` come from the operating system, and need neither `unsafe` nor a file.
        let [mut first, rest @ .., _, _] = RandomState::new().build_hasher().finish().to_ne_bytes();
        first = (first & !0b01) | 0b10;
        let [b, c, d, e, f] = rest;
        Self([first, b, c, d, e, f])
    }

    /// The link-local IPv6 address that an interface with this address has (RFC 4291, appendix A).
    pub fn link_local(&self) -> Ipv6Addr {
        let [a, b, c, d, e, f] = self.0;
        let id = [a ^ 0b10, b, c, 0xff, 0xfe, d, e, f];
        Ipv6Addr::from_bits(0xfe80 << 112 | u128::from(u64::from_be_bytes(id)))
    }

    /// Whether this is a group address, which no interface can have.
    pub fn is_multicast(&self) -> bool {
        self.0[0] & 1 == 1
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = InvalidMac;

    fn from_str(text: &str) -> Result<Self, InvalidMac> {
        let octet = |part: &str| match part.as_bytes() {
            [a, b] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => {
                u8::from_str_radix(part, 16).ok()
            }
            _ => None,
        };
        let octets: Option<Vec<u8>> = text.split(':').map(octet).collect();
        octets
            .and_then(|octets| octets.try_into().ok())
            .map(Self)
            .ok_or_else(|| InvalidMac(text.to_owned()))
    }
}

impl fmt::Display for InvalidMac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "mac address {:?}: expected six octets such as 02:00:00:00:00:01",
            self.0
        )
    }
}

impl std::error::Error for InvalidMac {}

impl Serialize for Mac {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Mac {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_octets_are_the_same_address() {
        let mac: Mac = "02:AB:00:ff:10:01".parse().unwrap();
        assert_eq!(mac, Mac([0x02, 0xab, 0x00, 0xff, 0x10, 0x01]));
        assert_eq!(mac.to_string(), "02:ab:00:ff:10:01");
        assert_eq!(
            serde_json::from_str::<Mac>(&serde_json::to_string(&mac).unwrap()).unwrap(),
            mac
        );
    }

    #[test]
    fn anything_but_six_octets_is_refused() {
        for text in [
            "",
            "02",
            "02:00:00:00:00",
            "02:00:00:00:00:00:00",
            "2:0:0:0:0:0",
            "+2:00:00:00:00:00",
        ] {
            assert!(text.parse::<Mac>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_link_local_address_is_made_of_the_octets() {
        let mac: Mac = "1e:7d:bb:19:ee:80".parse().unwrap();
        assert_eq!(mac.link_local().to_string(), "fe80::1c7d:bbff:fe19:ee80");
    }

    #[test]
    fn random_addresses_are_local_unicast_and_differ() {
        let (a, b) = (Mac::random(), Mac::random());
        assert_ne!(a, b);
        for mac in [a, b] {
            assert!(!mac.is_multicast());
            assert_eq!(mac.0[0] & 0b10, 0b10);
        }
    }
}
