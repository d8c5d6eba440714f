//! What a person sees who starts the plugin by hand.

use std::io::Write;

use crate::cni::Version;

const CONFIGURATION: &str = r#"
Save a network configuration such as this as /etc/cni/net.d/10-beeline.conflist:

  {
    "cniVersion": "1.0.0",
    "name": "pods",
    "plugins": [{
      "type": "beeline",
      "bridge": "cni0",
      "isGateway": true,
      "hairpinMode": true,
      "ipMasq": true,
      "ipam": {
        "type": "host-local",
        "ranges": [[{ "subnet": "10.244.1.0/24" }]],
        "routes": [{ "dst": "0.0.0.0/0" }]
      },
      "datapath": {
        "uplinks": ["eth0"],
        "peers": [{ "cidr": "10.244.2.0/24", "node": "192.168.1.12" }]
      }
    }]
  }

All keys of the bridge and host-local plugins keep their meaning; "datapath" is beeline's own, and may be left out.
`beeline status` shows the node, `beeline --help` the other commands.
"#;

/// Prints what beeline is and how to configure it. A reader that went away is no concern.
pub(super) fn print(out: &mut impl Write) {
    let versions = Version::SUPPORTED
        .map(|version| version.as_str())
        .join(", ");
    let _ = writeln!(
        out,
        "beeline {}: a CNI plugin that carries pod-to-pod packets past bridge and netfilter by eBPF\n\
         CNI protocol versions supported: {versions}\n\n\
         A container runtime runs it from /opt/cni/bin with CNI_COMMAND set; it is not set now.",
        env!("CARGO_PKG_VERSION"),
    );
    let _ = write!(out, "{CONFIGURATION}");
}
