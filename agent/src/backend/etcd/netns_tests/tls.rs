//! Certificates: what they let through, and what is said where they do not fit.

use std::{path::PathBuf, sync::Arc};

use beeline_tests::etcd::{Cluster, Pki};

use super::node::{Node, Spec};

fn with(spec: Spec, option: &str, path: PathBuf) -> Spec {
    spec.with(option, path.to_str().unwrap())
}

#[test]
fn only_certificates_of_the_authority_are_let_through_and_what_is_wrong_is_said() {
    let (pki, foreign) = (Pki::new("ours"), Pki::new("foreign"));
    pki.sign("server", &["10.99.0.1"]);
    pki.sign("client", &[]);
    foreign.sign("client", &[]);
    let (ca, cert, key) = (pki.ca(), pki.cert("client"), pki.key("client"));
    let cluster = Cluster::start_with(1, Some(pki));
    let host = Arc::new(cluster.host());

    let good = with(
        with(
            with(Spec::new("a"), "--cacert", ca.clone()),
            "--cert",
            cert.clone(),
        ),
        "--key",
        key.clone(),
    );
    assert_eq!(Node::ready(&cluster, &host, &good).subnets().len(), 2);

    let lost = |spec: &Spec, words: &str| {
        let mut node = Node::start(&cluster, &host, spec);
        node.wait("a reason", Node::was_lost);
        let reason = node.lost.clone().unwrap();
        assert!(reason.contains("https://10.99.0.1:2379"), "{reason}");
        assert!(reason.contains(words), "{reason}");
        assert!(node.members.is_empty());
    };
    let anonymous = with(Spec::new("b"), "--cacert", ca.clone());
    lost(
        &anonymous,
        "it may want a certificate of clients (--cert, --key)",
    );
    let stranger = with(
        with(anonymous, "--cert", foreign.cert("client")),
        "--key",
        foreign.key("client"),
    );
    lost(&stranger, "it may not accept the certificate of --cert");
    let astray = with(Spec::new("c"), "--cacert", foreign.ca());
    lost(
        &with(with(astray, "--cert", cert.clone()), "--key", key),
        "UnknownIssuer",
    );

    // Key and certificate of different pairs are an option that is wrong.
    let mixed = with(
        with(with(Spec::new("d"), "--cacert", ca), "--cert", cert),
        "--key",
        foreign.key("client"),
    );
    let error = Node::start(&cluster, &host, &mixed).refused();
    assert!(error.contains("--key"), "{error}");
}
