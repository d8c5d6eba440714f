//! The kernels: which there are, and what Debian calls them.

use std::str::FromStr;

/// A kernel of one of Debian's releases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kernel {
    /// How its version begins.
    pub(super) version: &'static str,
    /// The release that has it.
    pub(super) suite: &'static str,
    /// Whether the release gets its newest only from the security archive.
    pub(super) security: bool,
}

/// All of them, the oldest first.
pub(super) const KERNELS: [Kernel; 4] = [
    Kernel {
        version: "5.10",
        suite: "bullseye",
        security: true,
    },
    Kernel {
        version: "6.1",
        suite: "bookworm",
        security: false,
    },
    Kernel {
        version: "6.12",
        suite: "trixie",
        security: false,
    },
    Kernel {
        version: "7",
        suite: "sid",
        security: false,
    },
];

impl Kernel {
    /// Whether a package of that version, as dpkg writes it, is of this kernel.
    pub(super) fn is(&self, package_version: &str) -> bool {
        package_version
            .strip_prefix(self.version)
            .is_some_and(|rest| rest.starts_with('.'))
    }
}

impl FromStr for Kernel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let version = text.strip_suffix(".x").unwrap_or(text);
        let found = KERNELS
            .iter()
            .find(|kernel| kernel.version == version || kernel.suite == version);
        found.copied().ok_or_else(|| {
            let known: Vec<_> = KERNELS.iter().map(|kernel| kernel.version).collect();
            format!("none of {}", known.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_named_by_its_version_or_its_release() {
        for (text, version) in [
            ("5.10", "5.10"),
            ("bookworm", "6.1"),
            ("7.x", "7"),
            ("sid", "7"),
        ] {
            assert_eq!(text.parse::<Kernel>().unwrap().version, version);
        }
        let error = "6".parse::<Kernel>().unwrap_err();
        assert_eq!(error, "none of 5.10, 6.1, 6.12, 7");
    }

    #[test]
    fn a_version_begins_with_whole_numbers() {
        let kernel: Kernel = "6.1".parse().unwrap();
        assert!(kernel.is("6.1.176-1"));
        assert!(!kernel.is("6.12.117-1"));
        assert!(!"7".parse::<Kernel>().unwrap().is("8.0.1-1"));
    }
}
