//! Pods that another plugin attached, as libcni's cache of results tells (libcni/api.go, `cniCacheV1`).

use std::{fs, io::ErrorKind, path::Path};

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    cni::{CniResult, Version},
    node::Attachment,
};

/// A file of the cache, as far as it matters.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Cached {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    network_name: String,
    #[serde(default)]
    container_id: String,
    #[serde(default)]
    if_name: String,
    #[serde(default)]
    result: Value,
}

/// The attachments to a network; files that are something else are passed over.
pub(super) fn attachments(cache: &Path, network: &str) -> Result<Vec<Attachment>> {
    let entries = match fs::read_dir(cache) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("{}: read", cache.display()))?,
    };
    let mut attachments = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let cached = fs::read(&path).ok();
        let cached = cached.and_then(|text| serde_json::from_slice::<Cached>(&text).ok());
        let ours = |cached: &Cached| cached.kind == "cniCacheV1" && cached.network_name == network;
        if let Some(cached) = cached.filter(ours) {
            let attachment = attachment(cached);
            attachments.extend(attachment.with_context(|| path.display().to_string())?);
        }
    }
    Ok(attachments)
}

/// The attachment, if its result names a host veth, the container's interface and addresses.
fn attachment(cached: Cached) -> Result<Option<Attachment>> {
    let text = cached.result["cniVersion"].as_str().unwrap_or_default();
    let version = Version::parse(text).with_context(|| format!("cniVersion {text:?}: unknown"))?;
    let result = CniResult::parse(cached.result.to_string().as_bytes(), version)?;
    let interfaces = result.interfaces();
    let inside = interfaces
        .iter()
        .find(|interface| !interface.sandbox.is_empty() && interface.name == cached.if_name);
    // The bridge plugin names the bridge, then the host veth.
    let host_veth = interfaces
        .iter()
        .filter(|interface| interface.sandbox.is_empty())
        .nth(1);
    let (Some(inside), Some(host_veth)) = (inside, host_veth) else {
        return Ok(None);
    };
    Ok(Some(Attachment {
        container_id: cached.container_id,
        ifname: cached.if_name,
        host_veth: host_veth.name.clone(),
        ifindex: 0,
        addresses: result.ips().iter().map(|ip| ip.address).collect(),
        netns: inside.sandbox.clone(),
        complete: true,
        fast_path: false,
        mac: inside.mac.parse().ok(),
        isolated: false,
        pod_name: None,
        slow: None,
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn cached(result: Value) -> Value {
        json!({
            "kind": "cniCacheV1", "containerId": "c1", "config": "e30=", "ifName": "eth0",
            "networkName": "pods", "result": result,
        })
    }

    #[test]
    fn attachments_of_the_network_are_read_and_others_passed_over() {
        let directory = tempfile::tempdir().unwrap();
        let result = json!({
            "cniVersion": "0.4.0",
            "interfaces": [
                {"name": "cni0", "mac": "02:00:00:00:00:01"},
                {"name": "veth12ab", "mac": "02:00:00:00:00:02"},
                {"name": "eth0", "mac": "02:00:00:00:00:03", "sandbox": "/run/netns/c1"},
            ],
            "ips": [{"version": "4", "interface": 2, "address": "10.1.2.3/24", "gateway": "10.1.2.1"}],
            "dns": {},
        });
        let write = |name: &str, value: &Value| {
            fs::write(directory.path().join(name), value.to_string()).unwrap();
        };
        write("pods-c1-eth0", &cached(result.clone()));
        write("pods-c2-eth0", &cached(json!({"cniVersion": "1.0.0"})));
        let mut other = cached(result);
        other["networkName"] = "others".into();
        write("others-c1-eth0", &other);
        fs::write(directory.path().join("garbage"), "{").unwrap();

        let found = attachments(directory.path(), "pods").unwrap();
        let [attachment] = &found[..] else {
            panic!("{found:?}");
        };
        assert_eq!(attachment.host_veth, "veth12ab");
        assert_eq!(attachment.netns, "/run/netns/c1");
        assert_eq!(attachment.addresses, ["10.1.2.3/24".parse().unwrap()]);
        assert_eq!(attachment.mac.unwrap().to_string(), "02:00:00:00:00:03");
    }

    #[test]
    fn no_cache_is_no_attachments() {
        assert!(
            attachments(Path::new("/nonexistent"), "pods")
                .unwrap()
                .is_empty()
        );
    }
}
