//! All checks of one network.

use std::{collections::HashMap, thread, time::Duration};

use anyhow::Result;

use super::{
    addresses, cluster,
    finding::{Commands, Finding, Severity},
    known::Networks,
    mtu, overlay, peers, pods, programs,
    rp_filter::{self, Filtered},
    state::{self, Netfilter},
    sysctls::{self, Needs},
};
use crate::{
    datapath::config::Mode,
    net::{link::Link, with_netlink},
    nft::{self, Masquerade},
    node::{
        Plan, Record, Store,
        survey::{Kernel, Survey},
    },
};

/// Pods come and go while the node is looked at, so what is wrong must be so twice, with this in between.
const PAUSE: Duration = Duration::from_millis(700);

/// How often is looked before that is given up.
const LOOKS: usize = 4;

/// What was found of a network.
#[derive(Default)]
pub(super) struct Examined {
    pub(super) findings: Vec<Finding>,
    /// Whether its programs were translated to the processor's instructions, if any are loaded.
    pub(super) jitted: Option<bool>,
}

/// Runs all checks of a network.
pub(super) fn examine(plan: &Plan, networks: &Networks, commands: &Commands) -> Result<Examined> {
    let mut set_up = networks.set_up.iter();
    let found = set_up.find(|(_, record)| record.plan.network == plan.network);
    let mut examined = match found {
        Some((store, record)) => settled(store, record, networks, commands)
            .unwrap_or_else(|error| unreadable("network", &error, &commands.reload)),
        None => Examined {
            findings: vec![not_set_up(plan, commands)],
            jitted: None,
        },
    };
    let configured = networks.configured(&plan.network);
    if let Some(ipam) = configured.and_then(|configured| configured.ipam.as_ref()) {
        let attachments = match found {
            Some((store, _)) => store.attachments()?,
            None => Vec::new(),
        };
        examined
            .findings
            .extend(match addresses::read(ipam, &attachments) {
                Ok(facts) => addresses::judge(&facts),
                Err(error) => unreadable("addresses", &error, "ipam.dataDir").findings,
            });
    }
    for finding in &mut examined.findings {
        finding.network = Some(plan.network.clone());
    }
    Ok(examined)
}

/// Something without which nothing else can be told.
fn unreadable(check: &'static str, error: &anyhow::Error, fix: &str) -> Examined {
    let finding = Finding::new(
        check,
        Severity::Failure,
        "state",
        format!("cannot be read: {error:#}"),
        fix,
    );
    Examined {
        findings: vec![finding],
        jitted: None,
    }
}

fn not_set_up(plan: &Plan, commands: &Commands) -> Finding {
    Finding::new(
        "network",
        Severity::Note,
        format!("bridge {}", plan.bridge.name),
        "was not set up since boot; the first pod does that",
        &*commands.load,
    )
}

/// Looks until two looks agree, or all is well.
fn settled(
    store: &Store,
    record: &Record,
    networks: &Networks,
    commands: &Commands,
) -> Result<Examined> {
    let mut last = look(store, record, networks, commands)?;
    for _ in 1..LOOKS {
        if last.findings.iter().all(|f| f.severity == Severity::Ok) {
            break;
        }
        thread::sleep(PAUSE);
        let record = store.record().unwrap_or_else(|| record.clone());
        let next = look(store, &record, networks, commands)?;
        let agree = next.findings == last.findings;
        last = next;
        if agree {
            break;
        }
    }
    Ok(last)
}

fn look(
    store: &Store,
    record: &Record,
    networks: &Networks,
    commands: &Commands,
) -> Result<Examined> {
    let (kernel, survey) = with_netlink(async |netlink| {
        let kernel = Kernel::read(netlink).await?;
        let survey = Survey::read(netlink, &kernel, store, record).await?;
        Ok((kernel, survey))
    })?;
    let whole = &survey.whole;
    let (plan, ways, pinned) = (&whole.plan, &survey.ways, survey.pinned.as_ref());
    let configured = networks.configured(&plan.network);
    let cluster = cluster::Facts::read(store, record, whole, networks)?;
    let commands = &Commands {
        backend: whole.cluster.as_ref().map(|known| known.backend.clone()),
        agent: cluster.as_ref().is_some_and(|facts| facts.agent),
        ..commands.clone()
    };
    let configured = configured.map(|configured| (&configured.plan, &*configured.path));
    let mut findings = state::judge(record, configured, &ways.problems, commands);
    if let Some(facts) = cluster {
        findings.extend(cluster::judge(&facts, commands));
    }
    findings.extend(state::judge_netfilter(
        record,
        &netfilter(&survey),
        commands,
    ));
    let links = Links::find(&kernel, plan, &survey);
    let needs = Needs {
        flows: pinned.map(|pinned| pinned.flow_sizes),
        max_flows: plan.datapath.max_flows,
        ..Needs::read(&survey.forwarding, &links.named())
    };
    findings.extend(sysctls::judge_needs(&needs, commands));
    let all = rp_filter::of_all();
    findings.extend(rp_filter::judge(all, &links.filtered()));
    findings.extend(mtu::judge(&sizes(record, &survey, &links), commands));
    findings.extend(of_peers(&kernel, record, &survey, commands));
    let facts = pods::Facts {
        record,
        store: store.root(),
        attachments: &survey.attachments,
        pinned,
        watched: survey.watched,
    };
    findings.extend(pods::judge(&kernel, &facts, commands));
    findings.extend(programs::judge(
        &kernel,
        record,
        pinned,
        &survey.other_versions,
        commands,
    ));
    if let Some(pinned) = pinned.filter(|_| record.is_fast()) {
        findings.extend(programs::judge_peers(ways, pinned, commands));
    }
    Ok(Examined {
        findings,
        jitted: pinned.map(|pinned| pinned.jitted),
    })
}

/// The checks of what leads to the peers.
fn of_peers(
    kernel: &Kernel,
    record: &Record,
    survey: &Survey,
    commands: &Commands,
) -> Vec<Finding> {
    let (plan, ways) = (&survey.whole.plan, &survey.ways);
    let mut findings = Vec::new();
    if !plan.peers().is_empty() {
        let can_load = plan.datapath.mode != Mode::Bridge && !record.off;
        findings.extend(peers::judge_routes(kernel, ways, can_load, commands));
        findings.extend(peers::judge_neighbours(kernel, ways));
    }
    if let Some(conf) = plan.datapath.overlay {
        findings.extend(overlay::judge(kernel, ways, conf, commands));
    }
    findings
}

/// The links of a network.
struct Links<'a> {
    bridge: Option<&'a Link>,
    uplinks: &'a [Link],
    overlay: Option<&'a Link>,
    veths: Vec<&'a Link>,
}

impl<'a> Links<'a> {
    fn find(kernel: &'a Kernel, plan: &Plan, survey: &'a Survey) -> Self {
        let by_name: HashMap<&str, &Link> = kernel
            .links
            .iter()
            .map(|link| (&*link.name, link))
            .collect();
        let veths = survey.attachments.iter();
        Self {
            bridge: kernel.link(&plan.bridge.name),
            uplinks: &survey.ways.uplinks,
            overlay: survey.ways.overlay.as_ref(),
            veths: veths
                .filter_map(|attachment| by_name.get(&*attachment.host_veth).copied())
                .collect(),
        }
    }

    /// All but pods'.
    fn named(&self) -> Vec<&'a Link> {
        let named = self.bridge.into_iter().chain(self.uplinks);
        named.chain(self.overlay).collect()
    }

    fn filtered(&self) -> Vec<Filtered> {
        let bridge = self.bridge.map(|link| (Some("bridge"), link));
        let uplinks = self.uplinks.iter().map(|link| (Some("uplink"), link));
        let overlay = self.overlay.map(|link| (Some("overlay"), link));
        let veths = self.veths.iter().map(|link| (None, *link));
        let all = uplinks.chain(bridge).chain(overlay).chain(veths);
        all.filter_map(|(role, link)| Filtered::of(role, link))
            .collect()
    }
}

fn sizes(record: &Record, survey: &Survey, links: &Links<'_>) -> mtu::Facts {
    let ways = &survey.ways;
    let size = |link: &Link| (link.name.clone(), link.mtu);
    let overlay = links.overlay.zip(ways.overlay_mtu);
    mtu::Facts {
        configured: record.plan.bridge.mtu,
        path: ways.peers.iter().map(|(_, peer)| peer.mtu).min(),
        given: record.pod_mtu,
        to_give: ways.pod_mtu,
        bridge: links.bridge.map(size),
        overlay: overlay.map(|(link, wanted)| (link.name.clone(), link.mtu, wanted)),
        veths: links.veths.iter().map(|link| size(link)).collect(),
    }
}

fn netfilter(survey: &Survey) -> Netfilter {
    let whole = &survey.whole;
    let plan = &whole.plan;
    let looked = plan.datapath.mode != Mode::Bridge && plan.bars_fast_path().is_none();
    let masquerade = Masquerade {
        network: &plan.network,
    };
    let said = |error: anyhow::Error| format!("{error:#}");
    let mut masquerades = plan.masquerade.then(|| whole.masquerades().map_err(said));
    let nft = nft::is_installed();
    let mut cluster = None;
    // Of peers that come and go it does not tell whether all are there.
    if whole.is_clustered() && nft && masquerades == Some(Ok(true)) {
        match masquerade.compare_cluster(&plan.cluster_cidrs()) {
            Ok(differs) => cluster = differs,
            Err(error) => masquerades = Some(Err(said(error))),
        }
    }
    Netfilter {
        defeated: looked.then(|| survey.defeated()),
        nft,
        masquerades,
        cluster,
    }
}
