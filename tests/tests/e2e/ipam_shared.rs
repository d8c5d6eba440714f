//! The reference allocator and ours on the same files, each taking over from the other at any moment.
//!
//! The distribution's host-local is of version 1.1.1, which makes its files readable by everybody; later ones, and ours,
//! do not.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::sync::Arc;
use std::thread;

use beeline_tests::config::NETWORK;
use beeline_tests::node::Node;
use beeline_tests::runtime::Attachment;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use serde_json::{Value, json};

use crate::call::Call;
use crate::fixture::one_node;
use crate::ipam::{file, files, ipam, ips, nth, put};
use crate::refusals::sandbox;

/// A container that only the allocator hears of.
fn only_allocated(node: &Node, name: impl std::fmt::Display) -> Attachment {
    Attachment::new(format!("{name}"), node.netns().path())
}

/// Has the reference allocator reserve an address.
#[track_caller]
fn reference_add(node: &Node, attachment: &Attachment) -> IpAddr {
    let call = Call::new(node, attachment).of("host-local");
    let result = call.run("ADD", &node.config().stdin()).expect_success();
    address(&result)
}

#[track_caller]
fn reference(node: &Node, attachment: &Attachment, verb: &str) -> bool {
    let call = Call::new(node, attachment).of("host-local");
    call.run(verb, &node.config().stdin()).is_success()
}

fn address(result: &Value) -> IpAddr {
    let (ip, _) = ips(result)[0].split_once('/').expect("a prefix length");
    ip.parse().expect("an address")
}

fn reserved(node: &Node) -> Vec<IpAddr> {
    let mut reserved = node.reserved();
    reserved.sort();
    reserved
}

#[test]
fn both_write_the_same_files() {
    let (_topology, node) = one_node();
    let contents = || -> Vec<_> {
        let content = |name: &String| fs::read_to_string(file(&node, name)).expect("content");
        let names = files(&node);
        names.iter().map(content).zip(names.clone()).collect()
    };
    let (_namespace, attachment) = sandbox(&node);
    let stdin = node.config().stdin();
    let ours = Call::new(&node, &attachment);
    ours.run("ADD", &stdin).expect_success();
    let by_us = contents();
    ours.run("DEL", &stdin).expect_success();
    fs::remove_dir_all(file(&node, "")).expect("remove");
    reference_add(&node, &attachment);
    assert_eq!(by_us, contents());
    assert!(reference(&node, &attachment, "DEL"));
}

#[test]
fn what_the_reference_reserved_ours_releases_and_the_other_way_round() {
    let (_topology, node) = one_node();
    let stdin = node.config().stdin();
    let theirs = only_allocated(&node, "theirs");
    assert_eq!(reference_add(&node, &theirs), nth(&node, 2));
    let pod = node.add_pod("pod");
    assert_eq!(pod.ip(), nth(&node, 3));
    let again = only_allocated(&node, "again");
    assert_eq!(reference_add(&node, &again), nth(&node, 4));

    // Each sees the other's.
    assert!(reference(&node, pod.attachment(), "CHECK"));
    assert!(!reference(&node, pod.attachment(), "ADD"), "a duplicate");
    let (_namespace, sandbox) = sandbox(&node);
    let duplicate = Attachment {
        container_id: "again".into(),
        ..sandbox
    };
    let ours = Call::new(&node, &duplicate);
    let message = ours.run("ADD", &stdin).expect_error(&[999]);
    let text = format!("{} has been allocated to again/eth0", nth(&node, 4));
    assert!(message.contains(&text), "{message}");

    ours.run("DEL", &stdin).expect_success();
    assert!(!reference(&node, &again, "CHECK"));
    assert!(reference(&node, pod.attachment(), "DEL"));
    assert!(!pod.check().expect("executed").is_success());
    assert_eq!(reserved(&node), [nth(&node, 2)]);
    assert!(reference(&node, &theirs, "DEL"));
    assert_eq!(files(&node), ["last_reserved_ip.0", "lock"]);
    // The reference goes on behind what ours gave last.
    let next = node.add_pod("next");
    assert_eq!(next.ip(), nth(&node, 5));
    assert_eq!(reference_add(&node, &theirs), nth(&node, 6));
}

#[test]
fn a_pod_of_the_reference_bridge_is_deleted_by_ours_with_its_address() {
    let (_topology, node) = one_node();
    let mut ours = node.config().stdin();
    // What either leaves of the other's masquerade is not the allocator's business.
    ours["ipMasq"] = json!(false);
    let mut theirs = ours.clone();
    theirs["type"] = json!("bridge");
    for [(adds, with), (deletes, without)] in [
        [("bridge", &theirs), ("beeline", &ours)],
        [("beeline", &ours), ("bridge", &theirs)],
    ] {
        let (_namespace, attachment) = sandbox(&node);
        let call = |plugin| match plugin {
            "bridge" => Call::new(&node, &attachment).of(plugin),
            _ => Call::new(&node, &attachment),
        };
        let result = call(adds).run("ADD", with).expect_success();
        assert_eq!(reserved(&node), [address(&result)]);
        call(deletes).run("DEL", without).expect_success();
        assert!(reserved(&node).is_empty(), "{deletes}");
    }
}

#[test]
fn fifty_adds_of_each_at_once_give_no_address_twice() {
    const OF_EACH: usize = 50;
    const AT_ONCE: usize = 5;
    let (_topology, node) = one_node();
    let theirs: Vec<_> = (0..OF_EACH)
        .map(|i| only_allocated(&node, format!("theirs{i}")))
        .collect();
    let ours = |thread: usize| {
        let add = |i| node.add_pod(&format!("pod{i}"));
        (thread..OF_EACH)
            .step_by(AT_ONCE)
            .map(add)
            .collect::<Vec<_>>()
    };
    let (pods, addresses) = thread::scope(|scope| {
        let ours: Vec<_> = (0..AT_ONCE).map(|i| scope.spawn(move || ours(i))).collect();
        let theirs = theirs.chunks(OF_EACH / AT_ONCE).map(|chunk| {
            let node = &node;
            let add = move || chunk.iter().map(|id| reference_add(node, id)).collect();
            scope.spawn(add)
        });
        let theirs: Vec<thread::ScopedJoinHandle<'_, Vec<IpAddr>>> = theirs.collect();
        let pods = ours
            .into_iter()
            .flat_map(|thread| thread.join().expect("ADD"));
        let pods: Vec<_> = pods.collect();
        let theirs = theirs
            .into_iter()
            .flat_map(|thread| thread.join().expect("ADD"));
        (pods, theirs.collect::<Vec<_>>())
    });
    let all: BTreeSet<IpAddr> = pods.iter().map(|pod| pod.ip()).chain(addresses).collect();
    assert_eq!(all.len(), 2 * OF_EACH);
    assert_eq!(reserved(&node), all.iter().copied().collect::<Vec<_>>());
    // And DELs at once, each of half of the other's.
    let stdin = node.config().stdin();
    let (half, rest) = theirs.split_at(OF_EACH / 2);
    let (our_half, their_half) = pods.split_at(OF_EACH / 2);
    thread::scope(|scope| {
        scope.spawn(|| {
            for id in half {
                Call::new(&node, id)
                    .of("host-local")
                    .run("DEL", &stdin)
                    .expect_success();
            }
        });
        scope.spawn(|| {
            for pod in their_half {
                assert!(reference(&node, pod.attachment(), "DEL"));
            }
        });
        scope.spawn(|| {
            for pod in our_half {
                let ours = Call::new(&node, pod.attachment());
                ours.run("DEL", &stdin).expect_success();
            }
        });
        scope.spawn(|| {
            for id in rest {
                // Gone from the runtime's view: no namespace any more.
                let gone = Attachment {
                    netns: "/run/netns/bl-never-there".into(),
                    ..id.clone()
                };
                Call::new(&node, &gone).run("DEL", &stdin).expect_success();
            }
        });
    });
    assert_eq!(files(&node), ["last_reserved_ip.0", "lock"]);
}

/// How many of the addresses' files are opened meanwhile, by whomever.
fn opened(node: &Arc<Node>, during: impl FnOnce()) -> usize {
    let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).expect("inotify");
    inotify
        .add_watch(&file(node, ""), AddWatchFlags::IN_OPEN)
        .expect("watch");
    during();
    let mut opened = 0;
    while let Ok(events) = inotify.read_events() {
        let names = events.into_iter().filter_map(|event| event.name);
        let is_address = |name: &std::ffi::OsString| {
            let name = name.to_string_lossy();
            name.parse::<IpAddr>().is_ok()
        };
        opened += names.filter(is_address).count();
    }
    opened
}

#[test]
fn among_a_thousand_addresses_add_check_del_and_status_open_only_their_own() {
    const OTHERS: usize = 1000;
    let (_topology, node) = one_node();
    let keys = json!({ "subnet": "10.77.0.0/16" });
    let config = node.config().version("1.1.0");
    let config = config.with(|plugin| plugin["ipam"]["subnet"] = keys["subnet"].clone());
    config.install().expect("install");
    for i in 0..OTHERS {
        let ip = format!("10.77.{}.{}", 100 + i / 250, i % 250);
        put(&node, &ip, &format!("other{i}\r\neth0"));
    }
    let first = opened(&node, || drop(node.add_pod("first")));
    assert!(first >= OTHERS, "they are looked at once: {first}");

    let mut pod = None;
    assert_eq!(opened(&node, || pod = Some(node.add_pod("pod"))), 0);
    let mut pod = pod.expect("pod");
    let checked = || drop(pod.check().expect("executed").expect_success());
    assert_eq!(opened(&node, checked), 1);
    let status = || drop(node.runtime().status().expect("executed").expect_success());
    assert_eq!(opened(&node, status), 0);
    let deleted = || drop(pod.detach().expect("executed").expect_success());
    assert_eq!(opened(&node, deleted), 1);
    // After one change of the reference's all are looked at again, and not again after that.
    let theirs = only_allocated(&node, "theirs");
    let stdin = ipam(&node, &keys);
    let reference = Call::new(&node, &theirs).of("host-local");
    reference.run("ADD", &stdin).expect_success();
    let released = || {
        let gone = Attachment {
            netns: "/run/netns/bl-never-there".into(),
            ..theirs.clone()
        };
        Call::new(&node, &gone).run("DEL", &stdin).expect_success();
    };
    assert!(opened(&node, released) > OTHERS);
    assert_eq!(opened(&node, || drop(node.add_pod("last"))), 1);
    assert!(file(&node, "10.77.100.0").exists());
}

#[test]
fn without_the_state_of_before_a_reboot_everything_is_still_found() {
    let (_topology, node) = one_node();
    let pod = node.add_pod("pod");
    let ip = pod.ip();
    // At once, as the watch over new pods may be writing.
    let state = node.state_dir().join(NETWORK);
    fs::rename(state, node.directory().join("before")).expect("rename");
    let (_namespace, attachment) = sandbox(&node);
    let duplicate = Attachment {
        container_id: pod.name().to_owned(),
        ..attachment
    };
    let message = Call::new(&node, &duplicate)
        .run("ADD", &node.config().stdin())
        .expect_error(&[999]);
    assert!(message.contains("exists already"), "{message}");
    pod.delete().expect("DEL");
    assert!(!file(&node, ip).exists());
    assert!(reserved(&node).is_empty());
}

#[test]
fn garbage_collection_and_status_see_what_the_reference_did() {
    let (_topology, node) = one_node();
    let subnet = format!("{}/29", node.pod_cidr().network());
    let config = node.config().version("1.1.0");
    let config = config.with(|plugin| plugin["ipam"]["subnet"] = json!(subnet));
    config.install().expect("install");
    let stdin = ipam(&node, &json!({ "subnet": subnet }));
    let kept = node.add_pod("kept");
    let theirs: Vec<_> = (0..4)
        .map(|i| only_allocated(&node, format!("theirs{i}")))
        .collect();
    for id in &theirs {
        let reference = Call::new(&node, id).of("host-local");
        reference.run("ADD", &stdin).expect_success();
    }
    let status = || node.runtime().status().expect("executed");
    status().expect_error(&[50]);
    let listed = [kept.attachment(), &theirs[0]];
    let collected = node.runtime().gc(&listed).expect("executed");
    collected.expect_success();
    assert_eq!(reserved(&node), [nth(&node, 2), nth(&node, 3)]);
    status().expect_success();
    kept.check().expect("executed").expect_success();
    // What GC released is found by nobody, and what it kept by its owner.
    let gone = Attachment {
        netns: "/run/netns/bl-never-there".into(),
        ..theirs[0].clone()
    };
    Call::new(&node, &gone).run("DEL", &stdin).expect_success();
    assert_eq!(reserved(&node), [nth(&node, 2)]);
    let again = node.add_pod("again");
    assert_eq!(again.ip(), nth(&node, 3), "round again, behind the last");
}
