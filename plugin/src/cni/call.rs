//! One call by a runtime: reading it, running its verb, and answering with one JSON document.

use std::{
    env,
    ffi::OsString,
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use serde_json::Value;

use super::{
    Code, Command, Env, Error, NetConf, Result, Version, WithCode as _, add, check, config::Ipam,
    del, gc, json, plan, status, tell::Report,
};
use crate::{
    ipam::{AttachmentId, Delegate, IpamConf, host_local},
    net::netns::Netns,
    node::Plan,
};

/// A call that is in order, with its configuration.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) env: Env,
    pub(super) conf: NetConf,
}

impl Call {
    /// The attachment that the call is about.
    pub(super) fn id(&self) -> AttachmentId {
        self.env.attachment()
    }

    /// The configuration of the built-in IPAM, if that is what the network uses.
    pub(super) fn host_local(&self) -> Result<Option<IpamConf>> {
        let built_in = self.conf.ipam.as_ref().is_some_and(Ipam::is_host_local);
        built_in.then(|| self.conf.host_local()).transpose()
    }

    /// The type of the IPAM plugin to run, if that is what the network uses.
    pub(super) fn external_ipam(&self) -> Option<&str> {
        let ipam = self.conf.ipam.as_ref()?;
        (!ipam.is_host_local()).then_some(&ipam.kind)
    }

    /// Whether IPAM talks to others through the pod's interface, as a DHCP client does: the interface must work before an
    /// address is asked for, and until it is given back.
    pub(super) fn ipam_uses_interface(&self) -> bool {
        self.external_ipam() == Some("dhcp")
    }

    /// What the node shall look like. For DEL and GC, which must work with ranges that became invalid, those are none.
    pub(super) fn plan(&self) -> Plan {
        plan::plan(&self.conf, self.host_local().ok().flatten().as_ref())
    }

    /// Where the built-in IPAM may remember who has which addresses until the node reboots.
    pub(super) fn ipam_index(&self) -> PathBuf {
        let state = &self.conf.datapath.state_dir;
        state.join(&self.conf.name).join("ipam")
    }

    /// Gives back what IPAM holds for an attachment; nothing held is success.
    pub(super) fn release(&self, id: &AttachmentId) -> anyhow::Result<()> {
        match &self.conf.ipam {
            None => Ok(()),
            Some(ipam) if ipam.is_host_local() => {
                host_local::release(&ipam.data_dir()?, &self.conf.name, &self.ipam_index(), id)
            }
            // GC is not about one attachment, as DEL is, and goes to the plugin as GC.
            Some(_) if self.env.command == Command::Gc => Ok(()),
            Some(ipam) => self.delegate(&ipam.kind, "DEL").map(drop),
        }
    }

    /// Runs the delegated IPAM plugin with this call's configuration and environment.
    pub(super) fn delegate(&self, kind: &str, command: &str) -> anyhow::Result<Vec<u8>> {
        let plugin = Delegate::find(kind, &self.env.path)?;
        plugin.run(command, &self.conf.raw, env::vars_os())
    }
}

/// What a node with this configuration shall look like.
pub fn plan_of(conf: &Value) -> Result<Plan> {
    plan_and_ipam_of(conf).map(|(plan, _)| plan)
}

/// The same, with the configuration of the built-in IPAM, if that is what the network uses.
pub fn plan_and_ipam_of(conf: &Value) -> Result<(Plan, Option<IpamConf>)> {
    let conf = NetConf::parse(conf.to_string().into(), Command::Add)?;
    let built_in = conf.ipam.as_ref().is_some_and(Ipam::is_host_local);
    let host_local = built_in.then(|| conf.host_local()).transpose()?;
    Ok((plan::plan(&conf, host_local.as_ref()), host_local))
}

/// The part of a list of plugins that is of a type, as the runtime hands it to that plugin.
pub fn part_of(list: &Value, kind: &str) -> Option<Value> {
    let mut plugins = list["plugins"].as_array()?.iter();
    let mut part = plugins.find(|plugin| plugin["type"] == kind)?.clone();
    part["name"] = list["name"].clone();
    part["cniVersion"] = list["cniVersion"].clone();
    Some(part)
}

/// What a network may have left on a node.
#[derive(Clone, Debug)]
pub struct Remains {
    /// What the node looks like; without pod CIDRs, if those of the configuration are none or not valid.
    pub plan: Plan,
    /// The directory of the built-in IPAM, if that is what the network uses.
    pub data_dir: Option<PathBuf>,
}

/// What a network with this configuration may have left on a node: as DEL, it does not mind what only ADD needs.
pub fn remains_of(conf: &Value) -> Result<Remains> {
    let conf = NetConf::parse(conf.to_string().into(), Command::Del)?;
    let built_in = conf.ipam.as_ref().filter(|ipam| ipam.is_host_local());
    let host_local = built_in.and_then(|_| conf.host_local().ok());
    Ok(Remains {
        plan: plan::plan(&conf, host_local.as_ref()),
        data_dir: built_in.map(Ipam::data_dir).transpose()?,
    })
}

/// What the answer to a call needs to know of it, as far as it could be read.
#[derive(Debug)]
struct Asked {
    version: Version,
    report: Option<Report>,
    /// An ADD that went well, until the runtime knows of it.
    added: Option<Call>,
}

/// Serves the call that the process's environment and standard input make. Prints one document if there is anything to
/// say, whatever happens.
pub fn main() -> ExitCode {
    let start = Instant::now();
    let mut asked = Asked {
        // Until the configuration is read, errors are of the newest version.
        version: Version::LATEST,
        report: None,
        added: None,
    };
    let answer = serve(|name| env::var_os(name), &mut asked);
    let (took, failed) = (start.elapsed(), answer.is_err());
    let document = answer.unwrap_or_else(|error| Some(error.to_json(asked.version)));
    let printed = match document {
        Some(document) => writeln!(io::stdout(), "{document}"),
        None => Ok(()),
    };
    if let (Err(error), Some(added)) = (&printed, &asked.added) {
        forget(added, error);
    }
    // After the answer, which must not wait for it.
    if let Some(report) = asked.report {
        report.send(took, failed);
    }
    match failed || printed.is_err() {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    }
}

fn serve(lookup: impl Fn(&str) -> Option<OsString>, asked: &mut Asked) -> Result<Option<Value>> {
    let env = Env::parse(lookup)?;
    // VERSION must not wait for an input that may never end.
    if env.command == Command::Version {
        return Ok(Some(Version::document()));
    }
    let mut stdin = Vec::new();
    io::stdin()
        .take(json::MAX_LEN as u64 + 1)
        .read_to_end(&mut stdin)
        .map_err(|error| anyhow::Error::new(error).context("standard input: read"))
        .code(Code::Io)?;
    let conf = NetConf::parse(stdin.into(), env.command)?;
    asked.version = conf.version;
    asked.report = Report::of(env.command, &conf);
    let call = Call { env, conf };
    match call.env.command {
        Command::Add => {
            let result = add::add(&call)?;
            asked.added = Some(call);
            Ok(Some(result))
        }
        Command::Check => check::check(&call).map(|()| None),
        Command::Del => del::del(&call).map(|()| None),
        Command::Gc => gc::gc(&call).map(|()| None),
        Command::Status => status::status(&call).map(|()| None),
        Command::Version => Ok(None),
    }
}

/// Takes back an ADD whose result nobody can read: the runtime that wanted it is gone, and nobody would delete the pod.
fn forget(added: &Call, error: &io::Error) {
    let id = added.id();
    tracing::warn!("attachment {id}: taken back, as its result cannot be written: {error}");
    if let Err(error) = del::del(added) {
        tracing::warn!("attachment {id}: {:#}", anyhow::Error::from(error));
    }
}

/// Opens the pod's namespace.
///
/// # Errors
///
/// It is missing or no network namespace.
pub(super) fn open_netns(env: &Env) -> Result<Netns> {
    Netns::open(Path::new(&env.netns))
        .map_err(anyhow::Error::new)
        .map_err(|error| error.context(format!("CNI_NETNS {:?}", env.netns)))
        .code(Code::InvalidNetns)
}

/// Refuses the plugin's own namespace, unless the runtime insists: the runtime has confused something, and acting would
/// change the host.
pub(super) fn refuse_own(env: &Env, netns: &Netns) -> Result<()> {
    if !env.netns_override && netns.is_current()? {
        return Err(Error::new(
            Code::InvalidNetns,
            format!("CNI_NETNS {:?}: is the plugin's own namespace", env.netns),
        ));
    }
    Ok(())
}
