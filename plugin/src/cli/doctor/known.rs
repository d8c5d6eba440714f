//! The networks of a node, and what is installed for them.

use std::collections::HashSet;

use anyhow::Result;
use ipnetwork::IpNetwork;

use super::{
    Options,
    binaries::Programs,
    conflists::{self, Configured, File},
};
use crate::{
    cli::{load, networks},
    node::{Plan, Record, Store, Whole},
};

/// The networks of a node: those that were set up, and those that are configured.
pub(super) struct Networks {
    pub(super) set_up: Vec<(Store, Record)>,
    configured: Vec<Configured>,
    pub(super) files: Vec<File>,
    /// The agent's template, if it can be read.
    template: Option<File>,
    pub(super) programs: Programs,
    /// The type by which configurations name this plugin.
    pub(super) own: String,
}

impl Networks {
    /// Reads them.
    pub(super) fn read(options: &Options) -> Result<Self> {
        let all = networks::Options {
            network: None,
            ..options.networks.clone()
        };
        let (files, configured) = conflists::read(&options.conf_dir)?;
        let own = load::own_type().unwrap_or_else(|| "beeline".to_owned());
        Ok(Self {
            set_up: all.networks()?,
            configured,
            files,
            template: File::read(&options.template),
            programs: Programs::read(&options.bin_dir, &own)?,
            own,
        })
    }

    /// The peers of all of them.
    pub(super) fn peers(&self) -> HashSet<IpNetwork> {
        let is_set_up = |plan: &Plan| {
            let mut set_up = self.set_up.iter();
            set_up.any(|(_, record)| record.plan.network == plan.network)
        };
        let set_up = self.set_up.iter();
        let set_up = set_up.map(|(store, record)| Whole::of(&record.plan, store));
        let new = self.configured.iter().map(|configured| &configured.plan);
        let new = new.filter(|plan| !is_set_up(plan));
        let new = new.map(|plan| Whole::of(plan, &Store::new(plan)));
        let peers = |whole: Whole| whole.plan.datapath.peers.into_iter();
        let peers = set_up.chain(new).flat_map(peers);
        peers.map(|peer| peer.cidr).collect()
    }

    /// Whether an agent keeps one of them.
    pub(super) fn has_agent(&self) -> Result<bool> {
        let agents = self.set_up.iter().map(|(store, _)| store.has_agent());
        Ok(agents.collect::<Result<Vec<_>>>()?.contains(&true))
    }

    /// Plugins of the agent's template that are not in a network's configuration, as the node does not have them.
    pub(super) fn left_out(&self, configured: &Configured) -> Vec<String> {
        let network = &configured.plan.network;
        let template = self.template.as_ref();
        let template = template.filter(|template| template.network == *network);
        let file = self.files.iter().find(|file| file.path == configured.path);
        let (Some(template), Some(file)) = (template, file) else {
            return Vec::new();
        };
        let is_there = |kind: &str| self.programs.there.iter().any(|name| name == kind);
        let kinds = template.types().into_iter();
        let left = kinds.filter(|kind| !file.is_of(kind) && !is_there(kind));
        left.map(str::to_owned).collect()
    }

    /// A network as it is configured, if it is.
    pub(super) fn configured(&self, name: &str) -> Option<&Configured> {
        let mut configured = self.configured.iter();
        configured.find(|configured| configured.plan.network == name)
    }

    /// What nodes shall look like, as they were set up or else as they are configured.
    pub(super) fn plans(&self) -> Vec<&Plan> {
        let set_up: Vec<&Plan> = self.set_up.iter().map(|(_, record)| &record.plan).collect();
        let is_new = |plan: &&Plan| !set_up.iter().any(|known| known.network == plan.network);
        let new = self.configured.iter().map(|configured| &configured.plan);
        let new: Vec<&Plan> = new.filter(is_new).collect();
        [set_up, new].concat()
    }
}
