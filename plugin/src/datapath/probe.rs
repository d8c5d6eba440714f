//! What this kernel can do for the fast path, found out without changing anything.

use aya::{
    programs::ProgramType,
    sys::{BpfHelper, is_helper_supported},
    util::KernelVersion,
};

use super::{OLDEST_KERNEL, attach};

/// The helpers that not every kernel has, or not every program may call.
const HELPERS: [(&str, BpfHelper); 5] = [
    ("bpf_redirect_peer", BpfHelper::BPF_FUNC_redirect_peer),
    ("bpf_redirect_neigh", BpfHelper::BPF_FUNC_redirect_neigh),
    ("bpf_skb_change_type", BpfHelper::BPF_FUNC_skb_change_type),
    (
        "bpf_skb_set_tunnel_key",
        BpfHelper::BPF_FUNC_skb_set_tunnel_key,
    ),
    (
        "bpf_skb_get_tunnel_key",
        BpfHelper::BPF_FUNC_skb_get_tunnel_key,
    ),
];

/// What was found out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Probe {
    /// The oldest kernel that will do, if this one is older.
    pub too_old: Option<String>,
    /// Whether programs are attached by tcx; else they are classic filters.
    pub tcx: bool,
    /// The helpers that this kernel has not.
    pub missing: Vec<&'static str>,
    /// Why no program can be loaded.
    pub refused: Option<String>,
}

/// Looks at the kernel.
pub fn probe() -> Probe {
    let at_least = |(major, minor, patch): (u8, u8, u16)| {
        KernelVersion::current()
            .is_ok_and(|kernel| kernel >= KernelVersion::new(major, minor, patch))
    };
    let (major, minor, _) = OLDEST_KERNEL;
    let mut probe = Probe {
        too_old: (!at_least(OLDEST_KERNEL)).then(|| format!("{major}.{minor}")),
        tcx: at_least(attach::TCX),
        ..Probe::default()
    };
    for (name, helper) in HELPERS {
        match is_helper_supported(ProgramType::SchedClassifier, helper) {
            Ok(true) => {}
            Ok(false) => probe.missing.push(name),
            Err(error) => {
                probe.refused = Some(format!("{:#}", anyhow::Error::from(error)));
                break;
            }
        }
    }
    probe
}

#[cfg(test)]
mod netns_tests {
    use super::*;

    #[test]
    fn the_kernel_that_tests_run_on_can_do_all() {
        let probe = probe();
        assert_eq!(probe.too_old, None);
        assert_eq!(probe.missing, [""; 0]);
        assert_eq!(probe.refused, None);
    }
}
