//! The environment in which a runtime calls the plugin.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context, Result as Anyhow, bail};

use super::error::{Code, Error, Result, WithCode};
use super::names::{check_identifier, check_ifname};
use crate::ipam::AttachmentId;
use crate::ipam::address::parse_ip_or_cidr;

/// What the runtime wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Attach an interface.
    Add,
    /// Detach an interface.
    Del,
    /// See that an attachment is as it should be.
    Check,
    /// Remove what belongs to attachments that are no more.
    Gc,
    /// Say whether ADD would work.
    Status,
    /// Say which versions are supported.
    Version,
}

impl Command {
    /// The value of `CNI_COMMAND`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
            Self::Version => "VERSION",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let all = [
            Self::Add,
            Self::Del,
            Self::Check,
            Self::Gc,
            Self::Status,
            Self::Version,
        ];
        all.into_iter().find(|command| command.as_str() == text)
    }

    /// The variables without which the command makes no sense, in the order in which a lack of them is reported.
    fn requires(self) -> &'static [&'static str] {
        match self {
            Self::Add | Self::Check => &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"],
            Self::Del => &["CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"],
            Self::Gc | Self::Status => &["CNI_PATH"],
            Self::Version => &[],
        }
    }
}

/// The variables of one call; what the command does not require may be empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Env {
    /// `CNI_COMMAND`.
    pub command: Command,
    /// `CNI_CONTAINERID`; valid if the command requires it.
    pub container_id: String,
    /// `CNI_NETNS`, verbatim; empty if unset.
    pub netns: String,
    /// `CNI_IFNAME`; valid if the command requires it.
    pub ifname: String,
    /// `CNI_ARGS`, verbatim; see [`Env::args`].
    pub raw_args: String,
    /// The absolute directories of `CNI_PATH`.
    pub path: Vec<PathBuf>,
    /// `CNI_NETNS_OVERRIDE`: do not insist on a namespace other than the plugin's own.
    pub netns_override: bool,
}

impl Env {
    /// Reads and checks the variables through `lookup`; an empty one is unset.
    pub fn parse(lookup: impl Fn(&str) -> Option<OsString>) -> Result<Self> {
        let text = |name: &str| -> Result<String> {
            let value = lookup(name).unwrap_or_default().into_string();
            value.map_err(|_| Error::new(Code::InvalidEnvironment, format!("{name}: not UTF-8")))
        };
        let command = text("CNI_COMMAND")?;
        let known = Command::parse(&command);
        let env = Self {
            command: known.unwrap_or(Command::Version),
            container_id: text("CNI_CONTAINERID")?,
            netns: text("CNI_NETNS")?,
            ifname: text("CNI_IFNAME")?,
            raw_args: text("CNI_ARGS")?,
            path: absolute(&text("CNI_PATH")?),
            netns_override: matches!(&*text("CNI_NETNS_OVERRIDE")?.to_lowercase(), "1" | "true"),
        };
        if known.is_none() && !command.is_empty() {
            return Err(Error::new(
                Code::InvalidEnvironment,
                format!("unknown CNI_COMMAND: {command}"),
            ));
        }

        let mut missing = Vec::from_iter(known.is_none().then_some("CNI_COMMAND"));
        for name in env.command.requires() {
            match (text(name)?, *name) {
                (value, _) if value.is_empty() => missing.push(name),
                (id, "CNI_CONTAINERID") => {
                    check_identifier(name, &id).code(Code::InvalidEnvironment)?
                }
                (ifname, "CNI_IFNAME") => {
                    check_ifname(name, &ifname).code(Code::InvalidEnvironment)?
                }
                _ => {}
            }
        }
        if !missing.is_empty() {
            let message = format!("required env variables [{}] missing", missing.join(","));
            return Err(Error::new(Code::InvalidEnvironment, message));
        }
        Ok(env)
    }

    /// The attachment that ADD, CHECK and DEL are about.
    pub fn attachment(&self) -> AttachmentId {
        AttachmentId::new(&*self.container_id, &*self.ifname)
    }

    /// What `CNI_ARGS` asks for. Only verbs that use it should fail on it.
    pub fn args(&self) -> Result<Args> {
        Args::parse(&self.raw_args).code(Code::InvalidEnvironment)
    }
}

/// An empty or relative element would be searched for in the runtime's working directory.
fn absolute(path: &str) -> Vec<PathBuf> {
    path.split(':')
        .map(PathBuf::from)
        .filter(|directory| directory.is_absolute())
        .collect()
}

/// What `CNI_ARGS` may ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Args {
    /// `MAC`: the address of the container's interface.
    pub mac: Option<String>,
    /// `IP`: addresses, or CIDRs for an IPAM plugin that takes them.
    pub ip: Option<String>,
    /// `K8S_POD_NAMESPACE` and `K8S_POD_NAME`, as `namespace/name`: what people call the pod.
    pub pod: Option<String>,
}

impl Args {
    fn parse(text: &str) -> Anyhow<Self> {
        let mut args = Self::default();
        let mut ignore_unknown = false;
        let mut unknown = Vec::new();
        let (mut pod_namespace, mut pod_name) = (None, None);
        if text.is_empty() {
            return Ok(args);
        }
        for pair in text.split(';') {
            let split = pair
                .split_once('=')
                .filter(|(_, value)| !value.contains('='));
            let (key, value) = split.with_context(|| format!("ARGS: invalid pair {pair:?}"))?;
            let set = (!value.is_empty()).then(|| value.to_owned());
            match key {
                "IgnoreUnknown" => {
                    ignore_unknown =
                        parse_bool(value).with_context(|| format!("ARGS: pair {pair:?}"))?
                }
                "MAC" => args.mac = set,
                "IP" => args.ip = set,
                _ => {
                    // Read where it is there, but of no more rights than any other that is not known.
                    match key {
                        "K8S_POD_NAMESPACE" => pod_namespace = set,
                        "K8S_POD_NAME" => pod_name = set,
                        _ => {}
                    }
                    unknown.push(pair);
                }
            }
        }
        if !ignore_unknown && !unknown.is_empty() {
            let unknown: Vec<_> = unknown.iter().map(|pair| format!("{pair:?}")).collect();
            bail!("ARGS: unknown args [{}]", unknown.join(" "));
        }
        // What is no name of Kubernetes' comes from elsewhere, and would be shown on terminals.
        let is_name = |name: &String| check_identifier("ARGS", name).is_ok();
        let pod = pod_namespace.filter(is_name).zip(pod_name.filter(is_name));
        args.pod = pod.map(|(namespace, name)| format!("{namespace}/{name}"));
        Ok(args)
    }

    /// The addresses in `IP`, without prefix lengths.
    pub fn ips(&self) -> Anyhow<Vec<IpAddr>> {
        let texts = self.ip.iter().flat_map(|ips| ips.split(','));
        texts
            .map(|ip| parse_ip_or_cidr(ip.trim()).context("ARGS: IP"))
            .collect()
    }
}

fn parse_bool(text: &str) -> Anyhow<bool> {
    match &*text.to_lowercase() {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => bail!("neither true nor false"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: [(&str, &str); 5] = [
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "pod-1"),
        ("CNI_NETNS", "/run/netns/x"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_PATH", "/opt/cni/bin"),
    ];

    /// A complete ADD with these variables changed.
    fn env(changes: &[(&str, &str)]) -> Result<Env> {
        Env::parse(|name| {
            let found = changes.iter().chain(&FULL).find(|(key, _)| *key == name);
            found.map(|(_, value)| value.into())
        })
    }

    #[track_caller]
    fn fails(changes: &[(&str, &str)], text: &str) {
        let error = env(changes).unwrap_err();
        assert_eq!(error.code(), Code::InvalidEnvironment);
        assert!(error.to_string().contains(text), "{error}");
    }

    fn args(text: &str) -> Anyhow<Args> {
        Args::parse(text)
    }

    #[test]
    fn a_complete_add_is_read() {
        let env = env(&[
            ("CNI_PATH", "relative::/a:/b:."),
            ("CNI_NETNS_OVERRIDE", "True"),
        ])
        .unwrap();
        assert_eq!(
            (env.command, env.attachment()),
            (Command::Add, AttachmentId::new("pod-1", "eth0"))
        );
        assert_eq!(env.path, [PathBuf::from("/a"), "/b".into()]);
        assert_eq!((&*env.netns, env.netns_override), ("/run/netns/x", true));
    }

    #[test]
    fn missing_variables_are_named_in_order() {
        let empty = [("CNI_NETNS", ""), ("CNI_PATH", ""), ("CNI_IFNAME", "")];
        fails(
            &empty,
            "required env variables [CNI_NETNS,CNI_IFNAME,CNI_PATH] missing",
        );
        let del = [&empty[..], &[("CNI_COMMAND", "DEL")]].concat();
        fails(&del, "required env variables [CNI_IFNAME,CNI_PATH] missing");
        fails(
            &[("CNI_COMMAND", "GC"), ("CNI_PATH", "")],
            "required env variables [CNI_PATH] missing",
        );
        fails(
            &[("CNI_COMMAND", "")],
            "required env variables [CNI_COMMAND] missing",
        );
    }

    #[test]
    fn each_command_needs_only_its_own_variables() {
        let bare = |command, path| {
            Env::parse(|name| match name {
                "CNI_COMMAND" => Some(OsString::from(command)),
                "CNI_PATH" => Some(OsString::from(path)),
                _ => None,
            })
        };
        assert_eq!(bare("VERSION", "").unwrap().command, Command::Version);
        assert_eq!(bare("GC", "/a").unwrap().command, Command::Gc);
        assert_eq!(bare("STATUS", "/a").unwrap().command, Command::Status);
        assert!(
            env(&[("CNI_COMMAND", "DEL"), ("CNI_NETNS", "")])
                .unwrap()
                .netns
                .is_empty()
        );
        assert!(env(&[("CNI_COMMAND", "VERSION"), ("CNI_NETNS", "dummy")]).is_ok());
    }

    #[test]
    fn commands_are_upper_case() {
        fails(&[("CNI_COMMAND", "add")], "unknown CNI_COMMAND: add");
        fails(
            &[("CNI_COMMAND", "x"), ("CNI_PATH", "")],
            "unknown CNI_COMMAND: x",
        );
    }

    #[test]
    fn invalid_container_ids_are_refused() {
        for id in ["../x", "-a", "a%b", "a\n"] {
            fails(&[("CNI_CONTAINERID", id)], "CNI_CONTAINERID");
        }
    }

    #[test]
    fn invalid_interface_names_are_refused() {
        for ifname in ["sixteen_bytes_xx", ".", "..", "a/b", "a:b", "a b"] {
            fails(&[("CNI_IFNAME", ifname)], "CNI_IFNAME");
        }
        assert!(env(&[("CNI_IFNAME", "exactly15bytes_")]).is_ok());
    }

    #[test]
    fn an_invalid_value_is_reported_before_a_missing_one() {
        fails(&[("CNI_NETNS", ""), ("CNI_IFNAME", "a/b")], "CNI_IFNAME");
    }

    #[test]
    fn args_are_pairs_with_exactly_one_equals_sign() {
        for bad in ["A", "A=b=c", "A=b;", ";", "IgnoreUnknown=1;A"] {
            assert!(
                args(bad)
                    .unwrap_err()
                    .to_string()
                    .contains("ARGS: invalid pair"),
                "{bad}"
            );
        }
    }

    #[test]
    fn unknown_args_are_refused_unless_told_otherwise() {
        let error = args("X=y;MAC=02:00:00:00:00:01;mac=z").unwrap_err();
        assert_eq!(error.to_string(), r#"ARGS: unknown args ["X=y" "mac=z"]"#);
        for place in [
            "IgnoreUnknown=1;X=y;MAC=m",
            "X=y;IgnoreUnknown=true;MAC=m",
            "MAC=m;X=y;IgnoreUnknown=True",
        ] {
            assert_eq!(args(place).unwrap().mac.as_deref(), Some("m"));
        }
        assert!(args("IgnoreUnknown=0;X=y").is_err());
        assert!(args("IgnoreUnknown=yes").is_err());
    }

    #[test]
    fn the_name_of_a_pod_is_read_where_unknown_args_are_ignored() {
        let name = "K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0";
        let named = args(&format!("IgnoreUnknown=1;{name}")).unwrap();
        assert_eq!(named.pod.as_deref(), Some("default/web-0"));
        assert!(args(name).is_err());
        let half = args("IgnoreUnknown=1;K8S_POD_NAME=web-0").unwrap();
        assert_eq!(half.pod, None);
        let odd = "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=\u{1b}]0;x\u{7}";
        assert_eq!(args(&odd.replace(";x", "x")).unwrap().pod, None);
    }

    #[test]
    fn the_requested_address_loses_its_prefix() {
        let ips = |text| args(text).unwrap().ips();
        assert_eq!(
            ips("IP=10.0.0.7/24").unwrap(),
            ["10.0.0.7".parse::<IpAddr>().unwrap()]
        );
        assert_eq!(ips("IP=10.0.0.7,fd00::7").unwrap().len(), 2);
        assert_eq!(ips("IP=").unwrap().len(), 0);
        assert!(ips("IP=x").is_err());
    }
}
