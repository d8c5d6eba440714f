//! TCP and UDP between namespaces: small exchanges that show who asked, and transfers large enough to break.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::netns::Namespace;
use crate::wait;

/// How long any step may take before it counts as lost.
pub fn timeout() -> Duration {
    wait::patient(Duration::from_secs(5))
}

/// How often an echo goes to and fro: the first packets of a flow are not like the rest.
pub const ROUNDS: u64 = 3;

/// The address of the same family that stands for all.
pub const fn any(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

/// Listens on a free TCP port in a namespace, at all addresses of the family of `ip`.
pub fn listen(namespace: &Namespace, ip: IpAddr) -> Result<TcpListener> {
    namespace
        .within(|| TcpListener::bind((any(ip), 0)))
        .with_context(|| format!("{}: listen", namespace.name()))
}

/// Opens a UDP socket on a free port in a namespace; a server names its address, so that replies come from there.
pub fn udp_socket(namespace: &Namespace, ip: IpAddr) -> Result<UdpSocket> {
    let socket = namespace.within(|| UdpSocket::bind((ip, 0)));
    let socket = socket.with_context(|| format!("{}: UDP socket", namespace.name()))?;
    socket.set_read_timeout(Some(timeout()))?;
    Ok(socket)
}

/// Connects from inside a namespace.
pub fn connect(namespace: &Namespace, to: SocketAddr) -> Result<TcpStream> {
    let stream = namespace.within(|| TcpStream::connect_timeout(&to, timeout()));
    let stream = stream.with_context(|| format!("{}: connect to {to}", namespace.name()))?;
    stream.set_read_timeout(Some(timeout()))?;
    stream.set_write_timeout(Some(timeout()))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Sends a payload over TCP to a server at `ip` and back; returns the client's address as the server saw it.
pub fn tcp_echo(
    client: &Namespace,
    server: &Namespace,
    ip: IpAddr,
    payload: &[u8],
) -> Result<SocketAddr> {
    let listener = listen(server, ip)?;
    let to = SocketAddr::from((ip, listener.local_addr()?.port()));
    tcp_echo_by(client, &listener, to, payload)
}

/// The same with a listener that the client reaches as `to`.
pub fn tcp_echo_by(
    client: &Namespace,
    listener: &TcpListener,
    to: SocketAddr,
    payload: &[u8],
) -> Result<SocketAddr> {
    let mut stream = connect(client, to)?;
    let mut accepted = accept(listener)?;
    let mut buffer = vec![0; payload.len()];
    for _ in 0..ROUNDS {
        stream.write_all(payload)?;
        accepted
            .read_exact(&mut buffer)
            .with_context(|| format!("request to {to}"))?;
        accepted.write_all(&buffer)?;
        stream
            .read_exact(&mut buffer)
            .with_context(|| format!("reply of {to}"))?;
        ensure!(
            buffer == payload,
            "{to}: the echo differs from what was sent"
        );
    }
    Ok(accepted.peer_addr()?)
}

/// Sends a payload in one UDP datagram to a server at `ip` and back; returns the client's address as the server saw it.
pub fn udp_echo(
    client: &Namespace,
    server: &Namespace,
    ip: IpAddr,
    payload: &[u8],
) -> Result<SocketAddr> {
    let server = udp_socket(server, ip)?;
    udp_echo_by(client, &server, server.local_addr()?, payload)
}

/// The same with a server's socket that the client reaches as `to`.
pub fn udp_echo_by(
    client: &Namespace,
    server: &UdpSocket,
    to: SocketAddr,
    payload: &[u8],
) -> Result<SocketAddr> {
    let client = udp_socket(client, any(to.ip()))?;
    let mut buffer = vec![0; payload.len() + 1];
    let mut seen = None;
    for _ in 0..ROUNDS {
        client
            .send_to(payload, to)
            .with_context(|| format!("send to {to}"))?;
        let (length, asked) = server
            .recv_from(&mut buffer)
            .with_context(|| format!("request to {to}"))?;
        server
            .send_to(&buffer[..length], asked)
            .with_context(|| format!("send to {asked}"))?;
        let (length, from) = client
            .recv_from(&mut buffer)
            .with_context(|| format!("reply of {to}"))?;
        ensure!(from == to, "asked {to}, but {from} replied");
        ensure!(
            &buffer[..length] == payload,
            "{to}: the echo differs from what was sent"
        );
        seen = Some(asked);
    }
    seen.context("no rounds")
}

/// Sends `size` bytes over TCP to a server at `ip`, which must receive exactly these.
pub fn tcp_transfer(client: &Namespace, server: &Namespace, ip: IpAddr, size: usize) -> Result<()> {
    let [stream, accepted] = tcp_pair(client, server, ip)?;
    transfer(&stream, &accepted, size)
}

/// Connects to a server at `ip`; returns the client's and the server's end.
pub fn tcp_pair(client: &Namespace, server: &Namespace, ip: IpAddr) -> Result<[TcpStream; 2]> {
    let listener = listen(server, ip)?;
    let to = SocketAddr::from((ip, listener.local_addr()?.port()));
    let stream = connect(client, to)?;
    Ok([stream, accept(&listener)?])
}

/// Accepts a connection that has been made.
pub fn accept(listener: &TcpListener) -> Result<TcpStream> {
    let (accepted, _) = listener.accept().context("accept")?;
    accepted.set_read_timeout(Some(timeout()))?;
    Ok(accepted)
}

/// Sends `size` bytes from one end of a connection to the other, which must receive exactly these; both stay open.
pub fn transfer(mut from: &TcpStream, mut to: &TcpStream, size: usize) -> Result<()> {
    thread::scope(|scope| {
        let sender = scope.spawn(move || -> Result<u64> {
            let mut pattern = Pattern::default();
            let mut left = size;
            while left > 0 {
                let chunk = pattern.next_chunk(left.min(64 * 1024));
                from.write_all(&chunk).context("transfer: send")?;
                left -= chunk.len();
            }
            Ok(pattern.sum.value)
        });
        let mut received = Checksum::default();
        let mut buffer = vec![0; 64 * 1024];
        while received.length < size {
            let length = to.read(&mut buffer).context("transfer: receive")?;
            ensure!(
                length > 0,
                "transfer: {} of {size} bytes arrived",
                received.length
            );
            received.update(&buffer[..length]);
        }
        let sent = sender.join().expect("the sender does not panic")?;
        ensure!(
            received.length == size && received.value == sent,
            "transfer: the bytes that arrived are not those that were sent"
        );
        Ok(())
    })
}

/// FNV-1a over a stream.
struct Checksum {
    value: u64,
    length: usize,
}

impl Default for Checksum {
    fn default() -> Self {
        Self {
            value: 0xcbf2_9ce4_8422_2325,
            length: 0,
        }
    }
}

impl Checksum {
    fn update(&mut self, bytes: &[u8]) {
        self.length += bytes.len();
        for byte in bytes {
            self.value = (self.value ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

/// Bytes that do not repeat, so that a lost or doubled segment shows.
struct Pattern {
    state: u64,
    sum: Checksum,
}

impl Default for Pattern {
    fn default() -> Self {
        Self {
            state: 0x9e37_79b9_7f4a_7c15,
            sum: Checksum::default(),
        }
    }
}

impl Pattern {
    fn next_chunk(&mut self, length: usize) -> Vec<u8> {
        let mut chunk = Vec::with_capacity(length + 8);
        while chunk.len() < length {
            self.state ^= self.state << 13;
            self.state ^= self.state >> 7;
            self.state ^= self.state << 17;
            chunk.extend(self.state.to_le_bytes());
        }
        chunk.truncate(length);
        self.sum.update(&chunk);
        chunk
    }
}
