//! Arithmetic and text forms of addresses, one path for both families.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result, bail};
use ipnetwork::IpNetwork;

/// The family of an address, which says how a `u128` becomes an address again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of `ip`.
    pub fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// The number of bits in an address.
    pub fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }

    /// The address with this number, or none past the end of the family.
    pub fn address(self, number: u128) -> Option<IpAddr> {
        match self {
            Self::V4 => u32::try_from(number).ok().map(|n| Ipv4Addr::from(n).into()),
            Self::V6 => Some(Ipv6Addr::from(number).into()),
        }
    }

    /// The bits of a host in a network of this prefix length, all set.
    pub fn host_mask(self, prefix: u8) -> u128 {
        match self.bits().saturating_sub(prefix) {
            128.. => u128::MAX,
            host_bits => (1 << host_bits) - 1,
        }
    }
}

/// The address as a number.
pub fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u32::from(ip).into(),
        IpAddr::V6(ip) => ip.into(),
    }
}

/// Parses an address; an IPv4-mapped IPv6 address is its IPv4 address, as it is in Go.
pub fn parse_ip(text: &str) -> Result<IpAddr> {
    let ip: IpAddr = text
        .parse()
        .with_context(|| format!("invalid IP address {text:?}"))?;
    Ok(ip.to_canonical())
}

/// Parses `address/prefix length`, keeping the host bits; neither a bare address nor a netmask will do.
pub fn parse_cidr(text: &str) -> Result<IpNetwork> {
    let invalid = || format!("invalid CIDR address {text:?}");
    let (ip, prefix) = text.split_once('/').with_context(invalid)?;
    if prefix.is_empty() || !prefix.bytes().all(|b| b.is_ascii_digit()) {
        bail!(invalid());
    }
    let ip: IpAddr = ip.parse().with_context(invalid)?;
    let prefix: u8 = prefix.parse().with_context(invalid)?;
    IpNetwork::new(ip, prefix).with_context(invalid)
}

/// Parses an address that may carry a prefix length, which is dropped.
pub fn parse_ip_or_cidr(text: &str) -> Result<IpAddr> {
    if text.contains('/') {
        Ok(parse_cidr(text)?.ip().to_canonical())
    } else {
        parse_ip(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_addresses_are_inverse() {
        for text in [
            "0.0.0.0",
            "10.1.2.3",
            "255.255.255.255",
            "::",
            "fd00::1",
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        ] {
            let ip = parse_ip(text).unwrap();
            assert_eq!(Family::of(ip).address(number(ip)), Some(ip));
        }
        assert_eq!(Family::V4.address(1 << 32), None);
    }

    #[test]
    fn host_masks_reach_from_none_to_all_bits() {
        assert_eq!(Family::V4.host_mask(32), 0);
        assert_eq!(Family::V4.host_mask(24), 0xff);
        assert_eq!(Family::V4.host_mask(0), u32::MAX.into());
        assert_eq!(Family::V6.host_mask(0), u128::MAX);
        assert_eq!(Family::V6.host_mask(127), 1);
    }

    #[test]
    fn mapped_addresses_are_ipv4() {
        assert_eq!(parse_ip("::ffff:10.0.0.1").unwrap().to_string(), "10.0.0.1");
    }

    #[test]
    fn a_cidr_needs_a_decimal_prefix_length_in_range() {
        for bad in [
            "10.0.0.0",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0.0.0/33",
            "10.0.0.0/255.0.0.0",
            "fd00::/129",
            "/24",
            "10.0.0/8",
        ] {
            assert!(parse_cidr(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_cidr("10.0.0.7/8").unwrap().to_string(), "10.0.0.7/8");
    }

    #[test]
    fn a_requested_address_may_carry_a_prefix() {
        assert_eq!(
            parse_ip_or_cidr("10.0.0.7/24").unwrap(),
            parse_ip_or_cidr("10.0.0.7").unwrap()
        );
    }
}
