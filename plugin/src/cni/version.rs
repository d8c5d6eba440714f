//! The versions of the specification, and what each one allows.

use std::fmt;

use serde::{Serialize, Serializer};
use serde_json::{Value, json};

/// A version of the CNI specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names say it all")]
pub enum Version {
    V0_1_0,
    V0_2_0,
    V0_3_0,
    V0_3_1,
    V0_4_0,
    V1_0_0,
    V1_1_0,
}

/// The shape of results, which several versions share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schema {
    /// 0.1.0 and 0.2.0: `ip4` and `ip6`.
    IpPerFamily,
    /// 0.3.0 to 0.4.0: lists, whose addresses name their family.
    FamilyInIps,
    /// From 1.0.0.
    Current,
}

impl Version {
    /// Every version, oldest first.
    pub const SUPPORTED: [Self; 7] = [
        Self::V0_1_0,
        Self::V0_2_0,
        Self::V0_3_0,
        Self::V0_3_1,
        Self::V0_4_0,
        Self::V1_0_0,
        Self::V1_1_0,
    ];
    /// The newest version.
    pub const LATEST: Self = Self::V1_1_0;

    /// The version with this text, if it is supported; no text at all is 0.1.0.
    pub fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self::V0_1_0);
        }
        Self::SUPPORTED
            .into_iter()
            .find(|version| version.as_str() == text)
    }

    /// The text in `cniVersion`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V0_1_0 => "0.1.0",
            Self::V0_2_0 => "0.2.0",
            Self::V0_3_0 => "0.3.0",
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// The shape of results in this version.
    pub fn schema(self) -> Schema {
        match self {
            Self::V0_1_0 | Self::V0_2_0 => Schema::IpPerFamily,
            Self::V0_3_0 | Self::V0_3_1 | Self::V0_4_0 => Schema::FamilyInIps,
            Self::V1_0_0 | Self::V1_1_0 => Schema::Current,
        }
    }

    /// The answer to VERSION.
    pub fn document() -> Value {
        json!({"cniVersion": Self::LATEST, "supportedVersions": Self::SUPPORTED})
    }
}

/// Whether a text has the form of a version, `major.minor.patch`, supported or not.
pub fn is_version(text: &str) -> bool {
    let parts: Vec<_> = text.split('.').collect();
    text.is_empty() || parts.len() == 3 && parts.iter().all(|part| part.parse::<u32>().is_ok())
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_document_is_the_references_own() {
        let expected = r#"{"cniVersion":"1.1.0","supportedVersions":["0.1.0","0.2.0","0.3.0","0.3.1","0.4.0","1.0.0","1.1.0"]}"#;
        assert_eq!(Version::document().to_string(), expected);
    }

    #[test]
    fn versions_are_ordered_and_read_back() {
        assert!(Version::SUPPORTED.is_sorted());
        for version in Version::SUPPORTED {
            assert_eq!(Version::parse(version.as_str()), Some(version));
        }
        assert_eq!(Version::parse(""), Some(Version::V0_1_0));
        assert_eq!(Version::parse("9.9.9"), None);
        assert_eq!(Version::parse("1.0"), None);
    }

    #[test]
    fn an_unsupported_version_is_still_a_version() {
        assert!(is_version("") && is_version("9.9.9"));
        assert!(!is_version("1.0") && !is_version("x.y.z") && !is_version("1.0.0.0"));
    }
}
