//! Which tests run in a machine, as arguments of the standard test harness.

/// Modules of the end-to-end tests whose outcome depends on the kernel: programs loaded, attached and swapped, packets on
/// each of the paths, and what is said of it.
const OF_KERNELS: &[&str] = &[
    "kernel::",
    "connectivity::pods_on",
    "connectivity::a_large_transfer",
    "overlay::pods_behind",
    "overlay::nodes_of_ipv6",
    "overlay::the_slow_path",
    "datapath::packets",
    "clsact::",
    "upgrade::programs_are_swapped",
    "upgrade::the_fast_path_goes",
    "upgrade::maps_of_another",
    "foreign::",
    "shaping::the_bandwidth",
    "masquerade::",
    "mtu::what_does_not_fit",
    "firewall::",
    "spoofing::what_a_pod_forges",
    "isolation::",
    "status::status",
    "services::cluster_ips::a_service",
    "services::cluster_ips::one_socket",
];

/// So many tests at once: they wait much of the time, but not for each other's CPU.
const THREADS: &str = "--test-threads=3";

/// Tests that need what a machine has not: these are built apart, or run a container runtime.
const ELSEWHERE: &[&str] = &["faults::", "soak_", "measuring::", "hardship::"];

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
