//! Which texts may name a container, a network or an interface.

use anyhow::{Result, ensure};

/// The most that a file name with it can have of an identifier, beside the name of an interface.
const MAX_IDENTIFIER: usize = 239;

/// Checks a container ID or the name of a network: both become parts of paths.
pub fn check_identifier(what: &str, text: &str) -> Result<()> {
    let mut bytes = text.bytes();
    let starts_well = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric());
    let goes_on_well = bytes.all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
    ensure!(
        starts_well && goes_on_well,
        "{what} {text:?}: must start with a letter or digit, and contain only these and \"_.-\""
    );
    ensure!(
        text.len() <= MAX_IDENTIFIER,
        "{what} {text:?}: longer than {MAX_IDENTIFIER} bytes"
    );
    Ok(())
}

/// Checks the name of an interface by the kernel's rules.
pub fn check_ifname(what: &str, text: &str) -> Result<()> {
    ensure!(!text.is_empty(), "{what}: interface name is empty");
    ensure!(
        text.len() <= 15,
        "{what} {text:?}: interface name is longer than 15 bytes"
    );
    ensure!(
        text != "." && text != "..",
        "{what} {text:?}: interface name is . or .."
    );
    let forbidden = |c: char| c == '/' || c == ':' || c.is_control() || c.is_whitespace();
    ensure!(
        !text.contains(forbidden),
        "{what} {text:?}: interface name contains / or : or white space or control characters"
    );
    // It makes "cni0" of "cni%d", and refuses any other.
    ensure!(
        !text.contains('%'),
        "{what} {text:?}: interface name contains %, which the kernel would replace"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_cannot_leave_their_directory() {
        for good in ["a", "0", "a-b_c.d", "cbr0", "A9"] {
            assert!(check_identifier("name", good).is_ok(), "{good}");
        }
        for bad in [
            "", "../x", "-a", "a%b", "a\n", ".", "_a", "a/b", "ä", "te%%st",
        ] {
            assert!(check_identifier("name", bad).is_err(), "{bad:?}");
        }
        assert!(check_identifier("name", &"a".repeat(MAX_IDENTIFIER)).is_ok());
        assert!(check_identifier("name", &"a".repeat(MAX_IDENTIFIER + 1)).is_err());
    }

    #[test]
    fn interface_names_follow_the_kernel() {
        for good in ["eth0", "a", "exactly15bytes_", "a-b.c", "..."] {
            assert!(check_ifname("bridge", good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "sixteen_bytes_xx",
            ".",
            "..",
            "a/b",
            "a:b",
            "a b",
            "a%d",
            "a\u{1b}[m",
            "a\0b",
            "a\u{2003}b",
            "äääääääb",
        ] {
            assert_eq!(
                check_ifname("bridge", bad).is_err(),
                bad != "äääääääb",
                "{bad:?}"
            );
        }
    }
}
