//! The iptables rules that kube-proxy keeps on each node, with two endpoints a Service.

use std::fmt::Write;

use anyhow::Result;

use crate::exec;
use crate::netns::Namespace;

/// Installs the rules for so many Services, at least one.
pub fn install(node: &Namespace, services: u32) -> Result<()> {
    exec::iptables(node, &rules(services))
}

/// Chains and rules as of kube-proxy 1.30, in its order; conntrack rules last.
fn rules(services: u32) -> String {
    let mut chains = String::new();
    let mut rules = String::new();
    for number in 0..services {
        service(number, &mut chains, &mut rules);
    }
    format!(
        "*nat\n:KUBE-SERVICES - [0:0]\n:KUBE-NODEPORTS - [0:0]\n:KUBE-POSTROUTING - [0:0]\n:KUBE-MARK-MASQ - [0:0]\n\
         {chains}\
         -I PREROUTING 1 -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
         -I OUTPUT 1 -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
         -I POSTROUTING 1 -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING\n\
         -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN\n\
         -A KUBE-POSTROUTING -j MARK --xor-mark 0x4000\n\
         -A KUBE-POSTROUTING -m comment --comment \"kubernetes service traffic requiring SNAT\" -j MASQUERADE --random-fully\n\
         -A KUBE-MARK-MASQ -j MARK --or-mark 0x4000\n\
         {rules}\
         -A KUBE-SERVICES -m comment --comment \"kubernetes service nodeports; NOTE: this must be the last rule in this chain\" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS\n\
         COMMIT\n\
         *filter\n:KUBE-FORWARD - [0:0]\n:KUBE-PROXY-FIREWALL - [0:0]\n:KUBE-SERVICES - [0:0]\n:KUBE-EXTERNAL-SERVICES - [0:0]\n:KUBE-NODEPORTS - [0:0]\n\
         -I INPUT 1 -m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL\n\
         -I INPUT 2 -m comment --comment \"kubernetes health check service ports\" -j KUBE-NODEPORTS\n\
         -I INPUT 3 -m conntrack --ctstate NEW -m comment --comment \"kubernetes externally-visible service portals\" -j KUBE-EXTERNAL-SERVICES\n\
         -I FORWARD 1 -m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL\n\
         -I FORWARD 2 -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD\n\
         -I FORWARD 3 -m conntrack --ctstate NEW -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
         -I FORWARD 4 -m conntrack --ctstate NEW -m comment --comment \"kubernetes externally-visible service portals\" -j KUBE-EXTERNAL-SERVICES\n\
         -I OUTPUT 1 -m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL\n\
         -I OUTPUT 2 -m conntrack --ctstate NEW -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
         -A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP\n\
         -A KUBE-FORWARD -m comment --comment \"kubernetes forwarding rules\" -m mark --mark 0x4000/0x4000 -j ACCEPT\n\
         -A KUBE-FORWARD -m comment --comment \"kubernetes forwarding conntrack rule\" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
         COMMIT\n"
    )
}

fn service(number: u32, chains: &mut String, rules: &mut String) {
    let (high, low) = (number / 250, number % 250 + 1);
    let (name, portal) = (
        format!("bench/s{number}:http"),
        format!("10.96.{high}.{low}"),
    );
    let service = format!("KUBE-SVC-{number:016X}");
    // The endpoints are no pods of the bench: its own traffic is pod to pod, and must match none.
    let endpoints = [0, 1].map(|index| {
        (
            format!("KUBE-SEP-{number:015X}{index}"),
            format!("10.250.{}.{low}", 2 * high + index),
        )
    });
    let mut write = |line: String| writeln!(rules, "{line}").expect("a string can be written");
    write(format!(
        "-A KUBE-SERVICES -d {portal}/32 -p tcp -m comment --comment \"{name} cluster IP\" -m tcp --dport 80 -j {service}"
    ));
    write(format!(
        "-A {service} ! -s 10.244.0.0/14 -d {portal}/32 -p tcp -m comment --comment \"{name} cluster IP\" -m tcp --dport 80 -j KUBE-MARK-MASQ"
    ));
    for (index, (chain, address)) in endpoints.iter().enumerate() {
        let chance = if index == 0 {
            " -m statistic --mode random --probability 0.50000000000"
        } else {
            ""
        };
        write(format!(
            "-A {service} -m comment --comment \"{name} -> {address}:8080\"{chance} -j {chain}"
        ));
        write(format!(
            "-A {chain} -s {address}/32 -m comment --comment \"{name}\" -j KUBE-MARK-MASQ"
        ));
        write(format!(
            "-A {chain} -p tcp -m comment --comment \"{name}\" -m tcp -j DNAT --to-destination {address}:8080"
        ));
    }
    let own = [&service, &endpoints[0].0, &endpoints[1].0];
    chains.extend(own.map(|chain| format!(":{chain} - [0:0]\n")));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_service_has_its_portal_and_two_endpoints_and_chain_names_fit() {
        let rules = rules(1000);
        let count = |part: &str| rules.matches(part).count();
        assert_eq!(count("cluster IP\" -m tcp --dport 80 -j KUBE-SVC-"), 1000);
        assert_eq!(count("-j DNAT"), 2000);
        let chains = rules.lines().filter_map(|line| line.strip_prefix(':'));
        let longest = chains
            .filter_map(|line| line.split(' ').next())
            .map(str::len)
            .max();
        assert!(longest.is_some_and(|length| length <= 28), "{longest:?}");
    }
}
