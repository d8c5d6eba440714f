//! The demo's command line.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};

use crate::topology::Plugin;

/// Brings up nodes and pods, shows that pods reach each other by the fast path, and compares it with a plain bridge.
#[derive(Clone, Debug, Parser)]
#[command(name = "beeline-demo", version)]
pub struct Options {
    /// Number of nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=200))]
    pub nodes: u16,
    /// Number of pods on each node
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=200))]
    pub pods: u16,
    /// Directory of the plugin's binary [default: that of this program]
    #[arg(long, value_name = "DIR")]
    pub plugin_dir: Option<PathBuf>,
    /// Name of the plugin's binary
    #[arg(long, default_value = "beeline", hide = true)]
    pub plugin: String,
    /// What to compare with
    #[arg(long, value_enum, default_value_t = Baseline::Beeline)]
    pub baseline: Baseline,
    /// Seconds that each iperf3 run takes
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    pub duration: u32,
    /// Leave everything up and tell how to look around
    #[arg(long)]
    pub keep: bool,
    /// Only remove what an earlier demo or a killed test left
    #[arg(long, exclusive = true)]
    pub cleanup: bool,
}

/// The plain bridge to compare with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Baseline {
    /// beeline itself with its datapath off
    Beeline,
    /// The reference bridge plugin of the distribution
    Reference,
}

impl Options {
    /// The plugin to show.
    pub fn plugin(&self) -> Result<Plugin> {
        let directory = match &self.plugin_dir {
            Some(directory) => directory
                .canonicalize()
                .with_context(|| directory.display().to_string())?,
            None => {
                let program = std::env::current_exe().context("path of this program")?;
                program
                    .parent()
                    .context("directory of this program")?
                    .to_owned()
            }
        };
        Plugin::new(directory.join(&self.plugin))
    }

    /// What the baseline is called in tables.
    pub fn baseline_name(&self) -> &'static str {
        match self.baseline {
            Baseline::Beeline => "plain bridge",
            Baseline::Reference => "reference bridge",
        }
    }

    /// The plugin to compare with.
    pub fn baseline_plugin(&self) -> Result<Plugin> {
        match self.baseline {
            Baseline::Beeline => self.plugin(),
            Baseline::Reference => Plugin::new("/usr/lib/cni/bridge"),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Options::command().debug_assert();
    }
}
