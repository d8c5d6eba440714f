//! Connections to members of the etcd: one at a time and to one member, so that what is wrong can be said of it.

use std::{
    error::Error as StdError,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use etcd_client::{Channel, Client, ConnectOptions, GetOptions};
use tokio::net::{UdpSocket, lookup_host};
use tonic::transport::{self, Certificate, ClientTlsConfig, Identity, Uri};

use super::keys;

const CONNECT: Duration = Duration::from_secs(2);

/// How long one request may take.
pub(super) const REQUEST: Duration = Duration::from_secs(5);

/// A connection over which nothing comes is given up after both of these. Less than 5 s between pings, which others may
/// squeeze together on the way, and etcd hangs up (`--grpc-keepalive-min-time`).
const PING: Duration = Duration::from_secs(7);
const PONG: Duration = Duration::from_secs(3);

/// Where certificates are.
#[derive(Clone, Debug)]
pub(super) struct Tls {
    pub(super) cacert: Option<PathBuf>,
    pub(super) identity: Option<(PathBuf, PathBuf)>,
}

impl Tls {
    /// Reads the certificates.
    pub(super) fn read(&self) -> Result<ClientTlsConfig> {
        let config = ClientTlsConfig::new();
        let config = match &self.cacert {
            Some(path) => {
                config.ca_certificate(Certificate::from_pem(pem("--cacert", "CERTIFICATE", path)?))
            }
            None => config.with_native_roots(),
        };
        let Some((cert, key)) = &self.identity else {
            return Ok(config);
        };
        let cert = pem("--cert", "CERTIFICATE", cert)?;
        Ok(config.identity(Identity::from_pem(cert, pem("--key", "PRIVATE KEY", key)?)))
    }
}

fn pem(option: &str, kind: &str, path: &Path) -> Result<Vec<u8>> {
    let text = fs::read(path).with_context(|| format!("{option} {}: read", path.display()))?;
    let end = format!("{kind}-----");
    let found = text
        .windows(end.len())
        .any(|window| window == end.as_bytes());
    ensure!(
        found,
        "{option} {}: no {} in PEM",
        path.display(),
        kind.to_lowercase()
    );
    Ok(text)
}

/// A member of the etcd.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    uri: Uri,
    tls: Option<Tls>,
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.uri.to_string().trim_end_matches('/'))
    }
}

impl Endpoint {
    /// Parses an endpoint as etcd's own tools have it; without a scheme it is `http://`.
    pub(super) fn new(text: &str, tls: &Tls) -> Result<Self> {
        let text = match text.contains("://") {
            true => text.to_owned(),
            false => format!("http://{text}"),
        };
        let uri: Uri = text.parse()?;
        let tls = match uri.scheme_str() {
            Some("http") => None,
            Some("https") => Some(tls.clone()),
            _ => bail!("neither http:// nor https://"),
        };
        let host = uri.host().filter(|host| !host.is_empty());
        let host = host.context("names no host")?.to_owned();
        let plain = match uri.port_u16() {
            Some(port) => format!("{host}:{port}"),
            None => host,
        };
        // Neither a user nor a port that is none.
        let authority = uri.authority().map(|authority| authority.as_str());
        ensure!(authority == Some(&plain), "not a host and a port");
        ensure!(matches!(uri.path(), "" | "/"), "has a path");
        Ok(Self { uri, tls })
    }

    pub(super) fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// What connects to it, with the certificates as they are now.
    pub(super) fn prepare(&self) -> Result<transport::Endpoint> {
        let endpoint = transport::Endpoint::from(self.uri.clone())
            .connect_timeout(CONNECT)
            .timeout(REQUEST)
            .http2_keep_alive_interval(PING)
            .keep_alive_timeout(PONG);
        let Some(tls) = &self.tls else {
            return Ok(endpoint);
        };
        let endpoint = endpoint.tls_config(tls.read()?.timeout(CONNECT));
        endpoint.map_err(|error| anyhow!("--cacert, --cert, --key: {}", chain(&error)))
    }

    /// Connects. The member answers only as long as it is with the majority of the etcd.
    pub(super) async fn connect(&self) -> Result<Client> {
        let channel = self.prepare()?.connect().await;
        let channel = channel.map_err(|error| anyhow!("connect: {}", chain(&error)))?;
        let options = ConnectOptions::new().with_require_leader(true);
        let client = Client::from_channel(Channel::Tonic(channel), Some(options)).await;
        let mut client = client.map_err(explain)?;
        self.greet(&mut client).await?;
        Ok(client)
    }

    /// Makes a first request. With TLS 1.3 a server tells only after the client's handshake that it does not like the
    /// client's certificate, and the connection may break before that is read.
    async fn greet(&self, client: &mut Client) -> Result<()> {
        let Some(tls) = &self.tls else { return Ok(()) };
        let options = GetOptions::new().with_serializable().with_count_only();
        match client.get("/", Some(options)).await {
            Err(etcd_client::Error::GRpcStatus(status)) if status.source().is_some() => {
                let hint = match tls.identity {
                    Some(_) => "it may not accept the certificate of --cert",
                    None => "it may want a certificate of clients (--cert, --key)",
                };
                let error = explain(status.into());
                Err(anyhow!(
                    "the member has ended the connection after the handshake; {hint}: {error:#}"
                ))
            }
            // Whether that key may be read does not matter here.
            _ => Ok(()),
        }
    }

    /// The address that this node has towards the member, if it is one that others can reach.
    async fn local_address(&self) -> Result<Option<IpAddr>> {
        let host = self.uri.host().unwrap_or_default().trim_matches(['[', ']']);
        // Nothing is sent.
        let mut remotes = lookup_host((host, self.uri.port_u16().unwrap_or(2379))).await?;
        let remote: SocketAddr = remotes.next().context("has no address")?;
        let any: IpAddr = match remote {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0)).await?;
        socket.connect(remote).await?;
        let address = socket.local_addr()?.ip();
        Ok(keys::usable(&address).then_some(address))
    }
}

/// Finds the address of this node that the members see. A member on this node itself may be reached by loopback, hence
/// any of them will do.
pub(super) async fn local_address(endpoints: &[Endpoint]) -> Result<IpAddr> {
    let mut failure = anyhow!("all endpoints are reached by loopback");
    for endpoint in endpoints {
        match endpoint.local_address().await {
            Ok(Some(address)) => return Ok(address),
            Ok(None) => {}
            Err(error) => failure = error.context(endpoint.to_string()),
        }
    }
    Err(failure.context("--node-address: not given, and not to be found out"))
}

/// What an error of the client's means, with what caused it, once each.
pub(super) fn explain(error: etcd_client::Error) -> anyhow::Error {
    match error {
        etcd_client::Error::GRpcStatus(status) => match status.source() {
            Some(source) => anyhow!("{}", chain(source)),
            None => anyhow!("{}", status.message()),
        },
        etcd_client::Error::TransportError(error) => anyhow!("{}", chain(&error)),
        error => anyhow!("{error}"),
    }
}

fn chain(error: &dyn StdError) -> String {
    let mut said: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        // Many repeat what they were caused by.
        if !said.iter().any(|before| before.contains(&text)) {
            said.push(text);
        }
        next = error.source();
    }
    said.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(text: &str) -> Result<Endpoint> {
        let tls = Tls {
            cacert: None,
            identity: None,
        };
        Endpoint::new(text, &tls)
    }

    #[test]
    fn endpoints_are_taken_as_etcdctl_takes_them() {
        assert_eq!(
            endpoint("10.0.0.1:2379").unwrap().to_string(),
            "http://10.0.0.1:2379"
        );
        assert_eq!(
            endpoint("http://[fd00::1]:2379/").unwrap().to_string(),
            "http://[fd00::1]:2379"
        );
        assert!(endpoint("https://etcd.example:2379").unwrap().is_tls());
        for text in [
            "",
            "http://",
            "unix:///run/etcd",
            "http://a:2379/path",
            "http://a:x",
            "http://a:99999",
            "http://u:p@a:2379",
            "http://a b",
        ] {
            assert!(endpoint(text).is_err(), "{text:?}");
        }
    }

    #[tokio::test]
    async fn an_etcd_on_this_node_alone_does_not_tell_the_nodes_address() {
        let endpoints = [
            endpoint("http://127.0.0.1:2379").unwrap(),
            endpoint("http://[::1]:2379").unwrap(),
        ];
        let error = format!("{:#}", local_address(&endpoints).await.unwrap_err());
        assert!(error.contains("--node-address"), "{error}");
    }

    #[test]
    fn causes_are_told_once() {
        let inner = std::io::Error::other("inner");
        let outer = std::io::Error::other(inner);
        assert_eq!(chain(&outer), "inner");
    }
}
