//! Kernel parameters of the calling thread's network namespace.

use std::{
    fs::{self, OpenOptions},
    io::{ErrorKind, Write as _},
    path::Path,
};

use anyhow::{Context, Result};

const ROOT: &str = "/proc/sys";

/// Reads a parameter by its key, such as `net/ipv4/ip_forward`.
pub fn get(key: &str) -> Result<String> {
    let value = fs::read_to_string(Path::new(ROOT).join(key))
        .with_context(|| format!("sysctl {key}: read"))?;
    Ok(value.trim_end().to_owned())
}

/// Makes a parameter have a value, writing only if it has another.
///
/// A `/proc/sys` that is read-only, as in many containers, does not matter if the value is already right.
pub fn ensure(key: &str, value: &str) -> Result<()> {
    if get(key)? == value {
        return Ok(());
    }
    write(key, value).with_context(|| format!("sysctl {key}: write {value:?}"))
}

/// Makes a parameter of a new interface have a value, without a look at what it has: to find a parameter, the kernel goes
/// by those of the same name in all namespaces, hence once is better than twice.
///
/// A `/proc/sys` that is read-only does not matter here either if the value is already right.
pub fn set(key: &str, value: &str) -> Result<()> {
    match write(key, value) {
        Err(_) if get(key)? == value => Ok(()),
        written => written.with_context(|| format!("sysctl {key}: write {value:?}")),
    }
}

/// The same, if this kernel has the parameter: without IPv6 it has none of that family.
pub fn set_if_there(key: &str, value: &str) -> Result<()> {
    match write(key, value) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(_) => set(key, value),
        Ok(()) => Ok(()),
    }
}

fn write(key: &str, value: &str) -> std::io::Result<()> {
    let file = OpenOptions::new()
        .write(true)
        .open(Path::new(ROOT).join(key));
    file?.write_all(value.as_bytes())
}

/// Has an interface listen to no router advertisements: its routes are not for others to make.
pub fn refuse_router_advertisements(interface: &str) -> Result<()> {
    set_if_there(&format!("net/ipv6/conf/{interface}/accept_ra"), "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_right_value_is_not_written_and_a_missing_key_is_named() {
        // A constant of the kernel, which nobody can write.
        let value = get("kernel/ngroups_max").unwrap();
        ensure("kernel/ngroups_max", &value).unwrap();
        let error = ensure("net/no/such/key", "1").unwrap_err();
        assert_eq!(error.to_string(), "sysctl net/no/such/key: read");
        set_if_there("net/no/such/key", "1").unwrap();
        set("kernel/ngroups_max", &value).unwrap();
        set("kernel/ngroups_max", "1").unwrap_err();
        set_if_there("kernel/ngroups_max", "1").unwrap_err();
        let error = set("net/no/such/key", "1").unwrap_err();
        assert_eq!(error.to_string(), "sysctl net/no/such/key: read");
    }
}

#[cfg(test)]
mod netns_tests {
    use super::*;
    use crate::net::testing;

    #[test]
    fn a_parameter_changes_only_in_its_own_namespace() {
        let key = "net/ipv4/conf/lo/arp_notify";
        let outside = get(key).unwrap();
        let inside = testing::isolated(|| {
            ensure(key, "1")?;
            get(key)
        });
        assert_eq!(inside, "1");
        assert_eq!(get(key).unwrap(), outside);
    }

    #[test]
    fn interface_names_may_have_dots() {
        testing::netlink(async |netlink| {
            netlink
                .create_bridge("br.100", crate::net::mac::Mac::random(), None)
                .await?;
            ensure("net/ipv6/conf/br.100/accept_ra", "0")?;
            assert_eq!(get("net/ipv6/conf/br.100/accept_ra")?, "0");
            Ok(())
        });
    }
}
