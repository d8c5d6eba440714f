//! A container runtime as far as CNI sees one: it reads the node's list and executes its plugins.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::config::{CONFLIST, single};
use crate::datapath;
use crate::exec;
use crate::inject::{self, Injected, Injection};
use crate::node::Node;
use crate::outcome::Outcome;

/// What CNI knows of a pod's interface.
#[derive(Clone, Debug)]
pub struct Attachment {
    /// `CNI_CONTAINERID`
    pub container_id: String,
    /// `CNI_IFNAME`
    pub ifname: String,
    /// `CNI_NETNS`
    pub netns: PathBuf,
    /// What plugins get that declare the capability, by its name, such as `portMappings`; null if nothing.
    pub capabilities: Value,
}

impl Attachment {
    /// An `eth0` without capabilities.
    pub fn new(container_id: impl Into<String>, netns: impl Into<PathBuf>) -> Self {
        Self {
            container_id: container_id.into(),
            ifname: "eth0".to_owned(),
            netns: netns.into(),
            capabilities: Value::Null,
        }
    }

    /// What a plugin gets as `runtimeConfig`; null if nothing.
    fn runtime_config(&self, plugin: &Value) -> Value {
        let declared = plugin["capabilities"].as_object().into_iter().flatten();
        let mut config = Value::Null;
        for (name, _) in declared.filter(|(_, declared)| **declared == true) {
            if !self.capabilities[name].is_null() {
                config[name] = self.capabilities[name].clone();
            }
        }
        config
    }
}

/// Executes what is installed on a node.
#[derive(Debug)]
pub struct Runtime<'a> {
    node: &'a Node,
    settles: bool,
    log: Option<&'static str>,
    first: Option<PathBuf>,
}

impl<'a> Runtime<'a> {
    pub(crate) fn new(node: &'a Node) -> Self {
        Self {
            node,
            settles: true,
            log: None,
            first: None,
        }
    }

    /// Has plugins log what this filter names.
    pub fn log(self, filter: &'static str) -> Self {
        Self {
            log: Some(filter),
            ..self
        }
    }

    /// Looks for plugins in this directory first.
    pub fn searching(self, first: PathBuf) -> Self {
        Self {
            first: Some(first),
            ..self
        }
    }

    /// Returns from ADDs at once, and leaves pods on the path that these left them on; by default it waits until they are
    /// on the path that they are to stay on.
    pub fn at_once(self) -> Self {
        Self {
            settles: false,
            ..self
        }
    }

    /// Attaches: each plugin in order gets the result of the one before. Stops at the first failure.
    pub fn add(&self, attachment: &Attachment) -> Result<Outcome> {
        let list = self.list()?;
        let (mut result, mut elapsed) = (Value::Null, Duration::ZERO);
        let mut last = None;
        for plugin in plugins(&list)? {
            let mut stdin = single(&list, plugin);
            if !result.is_null() {
                stdin["prevResult"] = result;
            }
            let mut outcome = self.verb("ADD", Some(attachment), plugin, &stdin)?;
            elapsed += outcome.elapsed;
            outcome.elapsed = elapsed;
            if !outcome.is_success() {
                return Ok(outcome);
            }
            result = outcome.stdout.clone();
            last = Some(outcome);
        }
        self.settle(&attachment.container_id, &attachment.ifname)?;
        last.context("a list without plugins")
    }

    /// Detaches: plugins in reverse order, with the result of ADD if that is known.
    pub fn del(&self, attachment: &Attachment, result: Option<&Value>) -> Result<Outcome> {
        self.each("DEL", Some(attachment), result, true)
    }

    /// Checks an attachment against the result of its ADD.
    pub fn check(&self, attachment: &Attachment, result: &Value) -> Result<Outcome> {
        self.each("CHECK", Some(attachment), Some(result), false)
    }

    /// Asks whether ADD would work.
    pub fn status(&self) -> Result<Outcome> {
        self.each("STATUS", None, None, false)
    }

    /// Has everything removed that belongs to none of these attachments.
    pub fn gc(&self, valid: &[&Attachment]) -> Result<Outcome> {
        let list = self.list()?;
        let valid = valid
            .iter()
            .map(|a| json!({ "containerID": a.container_id, "ifname": a.ifname }));
        let valid = Value::from(valid.collect::<Vec<_>>());
        self.sequence(plugins(&list)?.iter(), |plugin| {
            let mut stdin = single(&list, plugin);
            stdin["cni.dev/valid-attachments"] = valid.clone();
            self.verb("GC", None, plugin, &stdin)
        })
    }

    /// Asks the node's own plugin which versions it speaks.
    pub fn version(&self) -> Result<Outcome> {
        self.exec(
            self.node.plugin().path(),
            &[("CNI_COMMAND", "VERSION")],
            br#"{"cniVersion":"1.0.0"}"#,
        )
    }

    /// Executes one plugin for one verb, with a configuration of the caller's.
    pub fn call(&self, verb: &str, attachment: &Attachment, stdin: &[u8]) -> Result<Outcome> {
        let line = [self.node.plugin().path().as_os_str()];
        self.call_line(&line, verb, attachment, stdin)
    }

    /// The same by a whole command line.
    pub fn call_line(
        &self,
        line: &[&OsStr],
        verb: &str,
        attachment: &Attachment,
        stdin: &[u8],
    ) -> Result<Outcome> {
        let environment = environment(verb, Some(attachment), &self.search_path());
        self.exec_line(line, &borrowed(&environment), stdin)
    }

    /// Executes the node's own plugin for one verb, with a configuration of the caller's, and has something go wrong.
    pub fn inject(
        &self,
        verb: &str,
        attachment: Option<&Attachment>,
        stdin: &Value,
        injection: &Injection,
    ) -> Result<Injected<Outcome>> {
        let environment = environment(verb, attachment, &self.search_path());
        self.exec_injected(
            &borrowed(&environment),
            stdin.to_string().as_bytes(),
            injection,
        )
    }

    /// Executes the node's own plugin with exactly this environment, and PATH, and has something go wrong.
    pub fn exec_injected(
        &self,
        environment: &[(&str, &str)],
        stdin: &[u8],
        injection: &Injection,
    ) -> Result<Injected<Outcome>> {
        let program = self.node.plugin().path().as_os_str();
        let (what, mut command) = self.command(program, environment);
        let start = Instant::now();
        let output = inject::output(&mut command, stdin, injection)?;
        output.map(|output| outcome(what, output, start.elapsed()))
    }

    /// Executes a plugin in the node's namespace with exactly this environment, and PATH.
    pub fn exec(
        &self,
        program: &Path,
        environment: &[(&str, &str)],
        stdin: &[u8],
    ) -> Result<Outcome> {
        self.exec_line(&[program.as_os_str()], environment, stdin)
    }

    /// Executes a plugin by a whole command line, such as one that first takes something away from it.
    pub fn exec_line(
        &self,
        line: &[&OsStr],
        environment: &[(&str, &str)],
        stdin: &[u8],
    ) -> Result<Outcome> {
        let outcome = self.execute(line, environment, stdin)?;
        let variable = |wanted| {
            let mut variables = environment.iter().filter(|(name, _)| *name == wanted);
            variables.next().map_or("", |(_, value)| value)
        };
        if variable("CNI_COMMAND") == "ADD" && outcome.is_success() {
            self.settle(variable("CNI_CONTAINERID"), variable("CNI_IFNAME"))?;
        }
        Ok(outcome)
    }

    fn settle(&self, container_id: &str, ifname: &str) -> Result<()> {
        if self.settles {
            datapath::settle(self.node, container_id, ifname)?;
        }
        Ok(())
    }

    fn execute(
        &self,
        line: &[&OsStr],
        environment: &[(&str, &str)],
        stdin: &[u8],
    ) -> Result<Outcome> {
        let (program, arguments) = line.split_first().context("an empty command line")?;
        let (what, mut command) = self.command(program, environment);
        command.args(arguments);
        let start = Instant::now();
        let output = exec::output(&mut command, stdin)?;
        outcome(what, output, start.elapsed())
    }

    /// A command in the node's namespace, and what to call it.
    fn command(&self, program: &OsStr, environment: &[(&str, &str)]) -> (String, Command) {
        let verb = environment
            .iter()
            .find(|(key, _)| *key == "CNI_COMMAND")
            .map_or("no command", |(_, verb)| verb);
        let what = format!("{}: {} {verb}", self.node.name(), self.node.plugin().kind());
        let mut command = self.node.netns().command(program);
        // Without a C locale the reference plugin may read translated messages of iptables.
        let base = [("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"), ("LC_ALL", "C")];
        command
            .env_clear()
            .envs(base)
            .envs(self.log.map(|filter| ("BEELINE_LOG", filter)))
            .envs(environment.iter().copied());
        (what, command)
    }

    /// `CNI_PATH`.
    fn search_path(&self) -> String {
        let plugins = self.node.plugin().search_path();
        match &self.first {
            Some(first) => format!("{}:{plugins}", first.display()),
            None => plugins,
        }
    }

    fn each(
        &self,
        verb: &str,
        who: Option<&Attachment>,
        result: Option<&Value>,
        reverse: bool,
    ) -> Result<Outcome> {
        let list = self.list()?;
        let run = |plugin: &Value| {
            let mut stdin = single(&list, plugin);
            if let Some(result) = result {
                stdin["prevResult"] = result.clone();
            }
            self.verb(verb, who, plugin, &stdin)
        };
        let plugins = plugins(&list)?;
        if reverse {
            self.sequence(plugins.iter().rev(), run)
        } else {
            self.sequence(plugins.iter(), run)
        }
    }

    /// Runs plugins until one fails; returns the last outcome.
    fn sequence<'p>(
        &self,
        plugins: impl Iterator<Item = &'p Value>,
        run: impl Fn(&Value) -> Result<Outcome>,
    ) -> Result<Outcome> {
        let mut last = None;
        for plugin in plugins {
            let outcome = run(plugin)?;
            if !outcome.is_success() {
                return Ok(outcome);
            }
            last = Some(outcome);
        }
        last.context("a list without plugins")
    }

    fn verb(
        &self,
        verb: &str,
        who: Option<&Attachment>,
        plugin: &Value,
        stdin: &Value,
    ) -> Result<Outcome> {
        let search = self.search_path();
        let program = find(
            plugin["type"].as_str().context("a plugin without a type")?,
            &search,
        )?;
        let environment = environment(verb, who, &search);
        let mut stdin = stdin.clone();
        let config = who.map_or(Value::Null, |who| who.runtime_config(plugin));
        if !config.is_null() {
            stdin["runtimeConfig"] = config;
        }
        let line = [program.as_os_str()];
        self.execute(&line, &borrowed(&environment), stdin.to_string().as_bytes())
    }

    fn list(&self) -> Result<Value> {
        let path = self.node.conf_dir().join(CONFLIST);
        let text =
            fs::read_to_string(&path).with_context(|| format!("{}: read", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{}: parse", path.display()))
    }
}

fn outcome(what: String, output: Output, elapsed: Duration) -> Result<Outcome> {
    let stdout = if output.stdout.is_empty() {
        Value::Null
    } else {
        let text = String::from_utf8_lossy(&output.stdout);
        serde_json::from_str(&text)
            .with_context(|| format!("{what}: not one JSON document: {text}"))?
    };
    Ok(Outcome {
        what,
        status: output.status,
        stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        elapsed,
    })
}

fn plugins(list: &Value) -> Result<&Vec<Value>> {
    list["plugins"].as_array().context("a list without plugins")
}

fn environment(verb: &str, who: Option<&Attachment>, search: &str) -> Vec<(&'static str, String)> {
    let mut environment = vec![
        ("CNI_COMMAND", verb.to_owned()),
        ("CNI_PATH", search.to_owned()),
    ];
    if let Some(who) = who {
        environment.push(("CNI_CONTAINERID", who.container_id.clone()));
        environment.push(("CNI_IFNAME", who.ifname.clone()));
        environment.push(("CNI_NETNS", who.netns.display().to_string()));
    }
    environment
}

fn borrowed<'e>(environment: &'e [(&'e str, String)]) -> Vec<(&'e str, &'e str)> {
    let variables = environment.iter();
    variables.map(|(name, value)| (*name, &**value)).collect()
}

fn find(kind: &str, search: &str) -> Result<PathBuf> {
    let candidates = search
        .split(':')
        .map(|directory| Path::new(directory).join(kind));
    candidates
        .into_iter()
        .find(|path| path.is_file())
        .with_context(|| format!("no plugin {kind} in {search}"))
}
