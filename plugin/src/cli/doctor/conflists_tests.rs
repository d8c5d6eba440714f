use serde_json::json;

use super::*;

pub(in super::super) fn file(name: &str, network: &str, plugins: Value) -> File {
    let list = json!({"cniVersion": "1.0.0", "name": network, "plugins": plugins});
    File::parse(
        Path::new("/etc/cni/net.d").join(name),
        list.to_string().as_bytes(),
    )
}

pub(in super::super) fn ours() -> File {
    let plugins = json!([
        {"type": "beeline", "bridge": "br0", "ipam": {"type": "host-local"}},
        {"type": "portmap"},
    ]);
    file("10-beeline.conflist", "pods", plugins)
}

fn judged(files: &[File]) -> Vec<(Severity, String)> {
    let found = judge(Path::new("/etc/cni/net.d"), files, "beeline");
    found.into_iter().map(|f| (f.severity, f.object)).collect()
}

#[test]
fn only_files_that_sort_before_ours_are_rivals() {
    let other = |name| file(name, "other", json!([{"type": "flannel"}]));
    assert_eq!(
        judged(&[ours(), other("99-flannel.conflist")]),
        [(Severity::Ok, "10-beeline.conflist".to_owned())]
    );
    let files = [other("05-flannel.conflist"), ours()];
    assert_eq!(
        judged(&files),
        [(Severity::Failure, "05-flannel.conflist".to_owned())]
    );
    let found = judge(Path::new("/etc/cni/net.d"), &files, "beeline");
    assert_eq!(
        found[0].fix.as_deref(),
        Some("mv /etc/cni/net.d/05-flannel.conflist /etc/cni/net.d/05-flannel.conflist.disabled")
    );
    let multus = file("00-multus.conf", "multus", json!([{"type": "multus"}]));
    assert_eq!(judged(&[multus, ours()])[0].0, Severity::Note);
}

#[test]
fn two_lists_with_one_bridge_or_name_are_told() {
    let bridge = json!([{"type": "bridge", "bridge": "br0"}]);
    let found = judged(&[ours(), file("20-other.conflist", "other", bridge.clone())]);
    let both = "10-beeline.conflist, 20-other.conflist".to_owned();
    assert_eq!(found, [(Severity::Warning, both)]);
    // Others may share what they like.
    let third = json!([{"type": "bridge", "bridge": "br1"}]);
    let one = file("30-one.conflist", "one", third.clone());
    let two = file("40-two.conflist", "two", third);
    assert_eq!(judged(&[ours(), one, two])[0].0, Severity::Ok);
    assert_eq!(
        judged(&[
            ours(),
            file("20-b.conflist", "pods", json!([{"type": "ptp"}]))
        ])[0]
            .0,
        Severity::Warning
    );
}

#[test]
fn what_cannot_be_parsed_and_a_directory_without_ours_are_told() {
    let broken = File::parse("/etc/cni/net.d/20-broken.conf".into(), b"{");
    let found = judged(&[ours(), broken]);
    assert_eq!(found, [(Severity::Warning, "20-broken.conf".to_owned())]);
    assert_eq!(judged(&[])[0].0, Severity::Warning);
}

#[test]
fn interfaces_of_others_are_left_over_unless_they_are_ours() {
    let link = |name: &str| Link {
        name: name.to_owned(),
        ..Link::default()
    };
    let links = [link("eth0"), link("flannel.1"), link("weave")];
    let found = judge_leftovers(&links, &["weave"]);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].fix.as_deref(), Some("ip link delete flannel.1"));
}
