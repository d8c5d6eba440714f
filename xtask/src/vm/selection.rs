//! Which tests run in a machine, as arguments of the standard test harness.

/// Modules of the end-to-end tests whose outcome depends on the kernel: programs loaded, attached and swapped, packets on
/// each of the paths, and what is said of it.
const OF_KERNELS: &[&str] = &[
    "kernel::",
    "connectivity::",
    "overlay::",
    "datapath::",
    "clsact::",
    "upgrade::",
    "foreign::",
    "shaping::",
    "masquerade::",
    "mtu::",
    "firewall::",
    "spoofing::",
    "isolation::",
    "status::status",
    "services::cluster_ips::",
    "bridge::vlan::",
    "_all_families",
];

/// So many tests at once: they wait much of the time, but not for each other's CPU.
const THREADS: &str = "--test-threads=3";

/// Tests that need what a machine has not: these are built apart, or run a container runtime.
const ELSEWHERE: &[&str] = &["faults::", "soak_", "measuring::"];

/// Those that depend on the kernel. A filter is part of a name, which the agent's modules have as well.
pub(super) fn of_kernels() -> Vec<String> {
    let mut arguments = arguments(OF_KERNELS);
    arguments.extend(["--skip", "agent::", "--skip", "chain::"].map(str::to_owned));
    arguments
}

/// All.
pub(super) fn all() -> Vec<String> {
    arguments::<&str>(&[])
}

/// Those of the plugin's that are about the kernel.
pub(super) fn plugin() -> Vec<String> {
    arguments(&["netns_tests"])
}

/// Those whose names contain one of `filters`.
pub(super) fn arguments<F: AsRef<str>>(filters: &[F]) -> Vec<String> {
    let filters = filters.iter().map(|filter| filter.as_ref().to_owned());
    let skips = ELSEWHERE.iter().flat_map(|skip| ["--skip", skip]);
    filters
        .chain(skips.chain([THREADS]).map(str::to_owned))
        .collect()
}
