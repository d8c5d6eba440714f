//! IP addresses of both families in one type.

use core::net::{IpAddr, Ipv6Addr};

/// The two families of IP addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// An IP address: 16 bytes in network order, IPv4 as IPv4-mapped IPv6 (RFC 4291, section 2.5.5.2).
///
/// ```text
/// IPv4  00 00 00 00 00 00 00 00 | 00 00 ff ff aa bb cc dd
/// IPv6  xx xx xx xx xx xx xx xx | xx xx xx xx xx xx xx xx
///       words[0]                  words[1]
/// ```
///
/// The words keep the bytes in memory order, so that masking and comparing need no conversion.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    words: [u64; 2],
}

const _: () = assert!(size_of::<Address>() == 16);

/// What precedes the four bytes of a mapped IPv4 address in the second word.
const MAPPED: [u8; 4] = [0, 0, 0xff, 0xff];

/// The bits that precede an IPv4 address in its mapped form.
pub const MAPPED_BITS: u8 = 96;

impl Address {
    /// Makes an address of four bytes in network order.
    #[inline(always)]
    pub const fn from_v4([a, b, c, d]: [u8; 4]) -> Self {
        let [m, n, o, p] = MAPPED;
        Self {
            words: [0, u64::from_ne_bytes([m, n, o, p, a, b, c, d])],
        }
    }

    /// Makes an address of sixteen bytes in network order.
    #[inline(always)]
    pub const fn from_v6(bytes: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = bytes;
        Self {
            words: [
                u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
                u64::from_ne_bytes([i, j, k, l, m, n, o, p]),
            ],
        }
    }

    /// The sixteen bytes in network order.
    #[inline(always)]
    pub const fn octets(&self) -> [u8; 16] {
        let [a, b, c, d, e, f, g, h] = self.words[0].to_ne_bytes();
        let [i, j, k, l, m, n, o, p] = self.words[1].to_ne_bytes();
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
    }

    /// The four bytes of an IPv4 address in network order; of an IPv6 address, its last four.
    #[inline(always)]
    pub const fn v4_octets(&self) -> [u8; 4] {
        let [_, _, _, _, a, b, c, d] = self.words[1].to_ne_bytes();
        [a, b, c, d]
    }

    /// The sixteen bytes as two words that keep them in memory order.
    #[inline(always)]
    pub const fn words(&self) -> [u64; 2] {
        self.words
    }

    /// The family that the address belongs to.
    #[inline(always)]
    pub const fn family(&self) -> Family {
        let [a, b, c, d, ..] = self.words[1].to_ne_bytes();
        let mapped = u32::from_ne_bytes([a, b, c, d]) == u32::from_ne_bytes(MAPPED);
        if self.words[0] == 0 && mapped {
            Family::V4
        } else {
            Family::V6
        }
    }

    /// A total order, the same on all CPUs of a node; it means nothing else.
    #[inline(always)]
    pub const fn precedes(&self, other: &Self) -> bool {
        if self.words[1] == other.words[1] {
            self.words[0] < other.words[0]
        } else {
            self.words[1] < other.words[1]
        }
    }

    /// Whether it is `::`.
    #[inline(always)]
    pub const fn is_unspecified(&self) -> bool {
        self.words[0] == 0 && self.words[1] == 0
    }

    /// Whether it is in fe80::/10 (RFC 4291, section 2.5.6).
    #[inline(always)]
    pub const fn is_link_local(&self) -> bool {
        let [a, b, ..] = self.words[0].to_ne_bytes();
        a == 0xfe && b & 0xc0 == 0x80
    }

    /// The address with the bits outside `mask` cleared.
    #[inline(always)]
    pub const fn masked(&self, mask: &Self) -> Self {
        Self {
            words: [self.words[0] & mask.words[0], self.words[1] & mask.words[1]],
        }
    }

    /// The mask of the first `length` bits, at most 128.
    pub const fn mask(length: u8) -> Self {
        let bits = match length {
            0 => 0,
            1..=128 => u128::MAX << (128 - length),
            129.. => u128::MAX,
        };
        Self::from_v6(bits.to_be_bytes())
    }
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self::from_v4(v4.octets()),
            IpAddr::V6(v6) => Self::from_v6(v6.octets()),
        }
    }
}

impl From<Address> for IpAddr {
    fn from(address: Address) -> Self {
        Ipv6Addr::from(address.octets()).to_canonical()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_way_there_and_back() {
        for text in ["10.244.1.2", "0.0.0.0", "::1", "fd00:244::2", "::"] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(IpAddr::from(Address::from(address)), address);
        }
    }

    #[test]
    fn families_are_told_apart() {
        let family = |text: &str| Address::from(text.parse::<IpAddr>().unwrap()).family();
        assert_eq!(family("10.0.0.1"), Family::V4);
        assert_eq!(family("fd00::ffff:a00:1"), Family::V6);
        assert_eq!(family("::fffe:a00:1"), Family::V6);
    }

    #[test]
    fn masks_cut_at_every_length() {
        let all = Address::mask(128);
        for length in 0..=128u8 {
            let ones: u32 = Address::mask(length)
                .octets()
                .iter()
                .map(|byte| byte.count_ones())
                .sum();
            assert_eq!(ones, u32::from(length));
            assert_eq!(all.masked(&Address::mask(length)), Address::mask(length));
        }
        let address = Address::from_v4([10, 244, 1, 77]);
        let network = Address::from_v4([10, 244, 1, 0]);
        assert_eq!(address.masked(&Address::mask(MAPPED_BITS + 24)), network);
    }
}
