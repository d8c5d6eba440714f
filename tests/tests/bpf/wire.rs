//! What no test run can provoke, sent to the attached programs: cut off IP headers, VLAN tags, and what comes out of an
//! overlay.

use std::{
    fs,
    net::Ipv4Addr,
    os::fd::OwnedFd,
    thread::sleep,
    time::{Duration, Instant},
};

use aya::programs::{TcAttachType, tc::qdisc_add_clsact};
use beeline_common::{
    Count, Drop, Hook, Outcome, Pass,
    ip::ETHERNET,
    stats,
    testing::{
        CLIENT, FAR, FAR_MAC, Frame, GATEWAY, OVERLAY_MAC, PEER, Transport, UPLINK_MAC, VNI,
        packet, seeds,
    },
};
use beeline_tests::wire::packet_socket;
use nix::unistd::write;

use crate::{
    lab::{Lab, interface, lab, program},
    sandbox::{OVERLAY_NAME, VXLAN_PORT, ip, peer_of},
};
use beeline_tests::wait;

/// A hook with its program attached, and the other end of its veth.
struct Wire<'a> {
    lab: &'a Lab,
    hook: Hook,
    socket: OwnedFd,
}

/// Attaches the program of `hook` to its interface, which nothing else uses.
fn wire(lab: &mut Lab, hook: Hook) -> Wire<'_> {
    // Else the kernel greets the link's other routers, and is counted.
    fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").expect("turn IPv6 off");
    let underlay = interface(match hook {
        Hook::FromOverlay => Hook::FromUplink,
        other => other,
    });
    for index in [underlay, peer_of(underlay)] {
        ip(&format!("link set veth{index} up"));
    }
    let mut name = format!("veth{underlay}");
    if hook == Hook::FromOverlay {
        ip(&format!("address add {NODE}/24 dev {name}"));
        ip(&format!("link set {OVERLAY_NAME} up"));
        OVERLAY_NAME.clone_into(&mut name);
    }
    qdisc_add_clsact(&name).expect("add clsact");
    let (direction, sender) = if hook.is_egress() {
        (TcAttachType::Egress, underlay)
    } else {
        (TcAttachType::Ingress, peer_of(underlay))
    };
    program(&mut lab.ebpf, hook)
        .attach(&name, direction)
        .expect("attach");
    Wire {
        lab,
        hook,
        socket: packet_socket(sender, 0).expect("open a packet socket"),
    }
}

impl Wire<'_> {
    /// Sends the frame, to the overlay's device in what the network `vni` wraps it in.
    fn send(&self, frame: &Frame, vni: u32) {
        let sent = match self.hook {
            Hook::FromOverlay => wrapped(frame, vni),
            _ => frame.clone(),
        };
        write(&self.socket, &sent.bytes).expect("send a frame");
    }

    /// Sends the frame and asserts that the program counts it as this, and as so many bytes.
    #[track_caller]
    fn assert_counts(&self, frame: &Frame, vni: u32, outcome: Outcome, bytes: usize) {
        let before = self.lab.counts();
        self.send(frame, vni);
        let mut expected = before.clone();
        let count: &mut Count = &mut expected[stats::index(self.hook, outcome) as usize];
        count.packets += 1;
        count.bytes += bytes as u64;
        // The receiving side runs when the kernel finds the time.
        let deadline = wait::deadline(Duration::from_secs(5));
        while self.lab.counts() == before && Instant::now() < deadline {
            sleep(Duration::from_micros(50));
        }
        let hook = self.hook;
        assert_eq!(self.lab.counts(), expected, "{hook:?}: {frame:02x?}");
    }
}

/// The frame as a node sends it through the overlay (RFC 7348).
fn wrapped(frame: &Frame, vni: u32) -> Frame {
    let [_, a, b, c] = vni.to_be_bytes();
    let header = [8, 0, 0, 0, a, b, c, 0];
    packet(PEER.v4, NODE)
        .macs(GATEWAY, UPLINK_MAC)
        .transport(Transport::Udp)
        .ports(50_000, VXLAN_PORT)
        .carrying(&[&header[..], &frame.bytes].concat())
        .frame()
}

/// The node's address on the link.
const NODE: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 11);

#[test]
fn packets_cut_off_within_their_ip_header_pass_or_are_dropped_as_on_the_host() {
    // Out of the overlay no such packets come: its device drops them.
    let hooks = Hook::ALL.into_iter();
    for hook in hooks.filter(|&hook| hook != Hook::FromOverlay) {
        lab(|lab| {
            let wire = wire(lab, hook);
            // What follows the addresses is cut off.
            for seed in seeds().into_iter().step_by(14) {
                let headers = match seed.bytes[12..14] {
                    [0x08, 0x00] => ETHERNET + 20,
                    [0x86, 0xdd] => ETHERNET + 40,
                    _ => continue,
                };
                for length in ETHERNET..headers {
                    let frame = seed.clone().truncated(length);
                    let outcome = wire.lab.judge(hook, &frame).0.outcome();
                    wire.assert_counts(&frame, VNI, outcome, length);
                }
            }
        });
    }
}

#[test]
fn tagged_packets_pass_or_are_dropped_as_on_the_host() {
    for hook in [Hook::FromPod, Hook::FromUplink, Hook::FromOverlay] {
        lab(|lab| {
            let wire = wire(lab, hook);
            let carried = |frame: &Frame| {
                let frame = frame.clone().tunnelled(VNI);
                let outcome = wire.lab.judge(hook, &frame).0.outcome();
                matches!(outcome, Outcome::ToPod | Outcome::ToPeer)
            };
            let expected = match hook {
                Hook::FromPod => Outcome::Dropped(Drop::Spoofed),
                _ => Outcome::Passed(Pass::Tagged),
            };
            for frame in seeds().into_iter().filter(carried) {
                for protocol in [[0x81, 0x00], [0x88, 0xa8]] {
                    let mut tagged = frame.clone();
                    let tag = [protocol[0], protocol[1], 0, 42];
                    tagged.bytes.splice(12..12, tag);
                    // The kernel takes the tag out before tc sees the packet.
                    wire.assert_counts(&tagged, VNI, expected, frame.bytes.len());
                }
            }
        });
    }
}

#[test]
fn what_comes_out_of_the_overlay_is_judged_by_its_network() {
    lab(|lab| {
        let wire = wire(lab, Hook::FromOverlay);
        let deliver = [packet(FAR.pod_v4, CLIENT.v4), packet(FAR.pod_v6, CLIENT.v6)];
        for packet in deliver {
            let frame = packet.macs(FAR_MAC, OVERLAY_MAC).frame();
            let bytes = frame.bytes.len();
            wire.assert_counts(&frame, VNI, Outcome::ToPod, bytes);
            let foreign = Outcome::Dropped(Drop::ForeignVni);
            for vni in [0, VNI - 1, VNI + 1, 0x00ff_ffff] {
                wire.assert_counts(&frame, vni, foreign, bytes);
            }
            let elsewhere = frame.with(0, &UPLINK_MAC.0);
            wire.assert_counts(&elsewhere, VNI, Outcome::Passed(Pass::OtherMac), bytes);
        }
    });
}
