//! The versions that tools report.

use std::fmt;

/// A tool's version, as far as choices depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version {
    /// The first number.
    pub(crate) major: u32,
    /// The second number.
    pub(crate) minor: u32,
}

impl Version {
    /// Reads `1.96.0-nightly`, `22.1` or `0.13.0`: whatever follows the second number is ignored.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.trim().split(['.', '-', '+', ' ']);
        let major = numbers.next()?.parse().ok()?;
        let minor = numbers.next()?.parse().ok()?;
        Some(Self { major, minor })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_without_their_tail() {
        let parse = |text| Version::parse(text).map(|v| (v.major, v.minor));
        assert_eq!(parse("1.96.0-nightly"), Some((1, 96)));
        assert_eq!(parse("22.1"), Some((22, 1)));
        assert_eq!(parse(" 0.13.0\n"), Some((0, 13)));
        assert_eq!(parse("unknown"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn versions_compare_by_number() {
        assert!(Version::parse("0.9.15") < Version::parse("0.10.0"));
    }
}
