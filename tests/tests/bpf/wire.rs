//! What no test run can provoke, sent to the attached programs: cut off IP headers and VLAN tags.

use std::{
    fs, io,
    mem::size_of,
    os::fd::{AsRawFd, OwnedFd},
    thread::sleep,
    time::{Duration, Instant},
};

use aya::programs::{TcAttachType, tc::qdisc_add_clsact};
use beeline_common::{
    Count, Hook, Outcome, Pass,
    ip::ETHERNET,
    stats,
    testing::{CLIENT, Frame, UPLINK, seeds},
};
use nix::{
    libc,
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
    unistd::write,
};

use crate::{
    lab::{Lab, lab, program},
    sandbox::{ip, peer_of},
};

/// A hook with its program attached, and the other end of its veth.
struct Wire<'a> {
    lab: &'a Lab,
    hook: Hook,
    socket: OwnedFd,
}

/// Attaches the program of `hook` to its interface, which nothing else uses.
fn wire(lab: &mut Lab, hook: Hook) -> Wire<'_> {
    let ifindex = match hook {
        Hook::FromPod => CLIENT.ifindex,
        Hook::FromUplink => UPLINK,
    };
    // Else the kernel greets the link's other routers, and is counted.
    fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").expect("turn IPv6 off");
    for index in [ifindex, peer_of(ifindex)] {
        ip(&format!("link set veth{index} up"));
    }
    let name = format!("veth{ifindex}");
    qdisc_add_clsact(&name).expect("add clsact");
    program(&mut lab.ebpf, hook)
        .attach(&name, TcAttachType::Ingress)
        .expect("attach");
    Wire {
        lab,
        hook,
        socket: packet_socket(peer_of(ifindex)).expect("open a packet socket"),
    }
}

/// A socket that sends whole frames out of the interface.
fn packet_socket(ifindex: u32) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Packet, SockType::Raw, flags, None)?;
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: 0,
        sll_ifindex: ifindex as i32,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: the address is of the size that is passed, and outlives the call.
    let failed = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as u32,
        )
    };
    match failed {
        0 => Ok(socket),
        _ => Err(io::Error::last_os_error()),
    }
}

impl Wire<'_> {
    /// Sends the frame and asserts that the program passes it for `reason`, and counts it as so many bytes.
    fn assert_passes(&self, frame: &Frame, reason: Pass, bytes: usize) {
        let before = self.lab.counts();
        write(&self.socket, &frame.bytes).expect("send a frame");
        let mut expected = before.clone();
        let count: &mut Count =
            &mut expected[stats::index(self.hook, Outcome::Passed(reason)) as usize];
        count.packets += 1;
        count.bytes += bytes as u64;
        // The receiving side runs when the kernel finds the time.
        let deadline = Instant::now() + Duration::from_secs(5);
        while self.lab.counts() == before && Instant::now() < deadline {
            sleep(Duration::from_micros(50));
        }
        let hook = self.hook;
        assert_eq!(self.lab.counts(), expected, "{hook:?}: {frame:02x?}");
    }
}

#[test]
fn packets_cut_off_within_their_ip_header_pass() {
    for hook in Hook::ALL {
        lab(|lab| {
            let wire = wire(lab, hook);
            for seed in seeds() {
                let headers = match seed.bytes[12] {
                    0x08 => ETHERNET + 20,
                    _ => ETHERNET + 40,
                };
                let (verdict, _) = wire.lab.judge(hook, &seed.clone().truncated(ETHERNET));
                let Outcome::Passed(reason) = verdict.outcome() else {
                    panic!("{verdict:?} on an empty packet");
                };
                for length in ETHERNET..headers {
                    wire.assert_passes(&seed.clone().truncated(length), reason, length);
                }
            }
        });
    }
}

#[test]
fn tagged_packets_pass() {
    for hook in Hook::ALL {
        lab(|lab| {
            let wire = wire(lab, hook);
            let ours = |frame: &Frame| match hook {
                Hook::FromPod => true,
                Hook::FromUplink => wire.lab.judge(hook, frame).0.outcome() == Outcome::ToPod,
            };
            for frame in seeds().into_iter().filter(ours) {
                for protocol in [[0x81, 0x00], [0x88, 0xa8]] {
                    let mut tagged = frame.clone();
                    let tag = [protocol[0], protocol[1], 0, 42];
                    tagged.bytes.splice(12..12, tag);
                    // The kernel takes the tag out before tc sees the packet.
                    wire.assert_passes(&tagged, Pass::Tagged, frame.bytes.len());
                }
            }
        });
    }
}
