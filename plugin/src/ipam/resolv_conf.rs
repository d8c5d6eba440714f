//! Reads a file in the form of `resolv.conf(5)`.

use std::path::Path;

use anyhow::{Context, Result};

use super::{Dns, path};

/// The resolver of the GNU C library has room for a search list and three servers; this is hundreds of each.
const MAX_LEN: u64 = 64 << 10;

/// Reads the four directives that CNI has a place for.
///
/// # Errors
///
/// There is no regular file of at most 64 KiB, or the way to it leads over somebody else's symbolic link.
pub fn read(path: &Path) -> Result<Dns> {
    let content = path::read_file(path, MAX_LEN)
        .with_context(|| format!("resolvConf {}: read", path.display()))?;
    Ok(parse(&String::from_utf8_lossy(&content)))
}

pub(crate) fn parse(text: &str) -> Dns {
    let mut dns = Dns::default();
    for line in text
        .lines()
        .map(str::trim)
        .filter(|line| !line.starts_with(['#', ';']))
    {
        let mut fields = line.split_whitespace().map(String::from);
        let directive = fields.next().unwrap_or_default();
        let mut fields = fields.peekable();
        if fields.peek().is_none() {
            continue;
        }
        match directive.as_str() {
            "nameserver" => dns.nameservers.extend(fields.next()),
            "domain" => dns.domain = fields.next().unwrap_or_default(),
            "search" => dns.search.extend(fields),
            "options" => dns.options.extend(fields),
            _ => {}
        }
    }
    dns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_four_directives_are_read_and_the_rest_is_not() {
        let dns = parse(
            "# comment\n; another\n\nnameserver 192.0.2.1 ignored\n\tnameserver 2001:db8::1\nnameserver\n\
             domain example.com\nsearch a.example b.example\nsearch c.example\noptions ndots:5 edns0\nsortlist x\n",
        );
        assert_eq!(dns.nameservers, ["192.0.2.1", "2001:db8::1"]);
        assert_eq!(dns.domain, "example.com");
        assert_eq!(dns.search, ["a.example", "b.example", "c.example"]);
        assert_eq!(dns.options, ["ndots:5", "edns0"]);
    }

    #[test]
    fn a_missing_file_is_an_error_that_names_it() {
        let error = read(Path::new("/nonexistent/resolv.conf")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/resolv.conf"));
    }
}
