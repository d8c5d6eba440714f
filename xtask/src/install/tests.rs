//! Files put in place, and the uplink found.

use super::*;

const ROUTES: &str = "\
Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT
wlan0	00000000	0101A8C0	0003	0	0	600	00000000	0	0	0
eth0	00000000	0101A8C0	0003	0	0	100	00000000	0	0	0
eth0	0001A8C0	00000000	0001	0	0	0	00FFFFFF	0	0	0
";

#[test]
fn the_uplink_is_the_default_routes_of_lowest_metric() {
    assert_eq!(default_interface(ROUTES), Some("eth0".into()));
    let without: Vec<_> = ROUTES
        .lines()
        .filter(|line| !line.contains("\t00000000\t0101"))
        .collect();
    assert_eq!(default_interface(&without.join("\n")), None);
    assert_eq!(default_interface(""), None);
}

#[test]
fn a_different_configuration_is_kept_unless_forced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(CONFLIST);
    configure(&path, "{\"name\": \"a\"}", false).unwrap();
    configure(&path, "{\"name\": \"b\"}", false).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "{\"name\": \"a\"}");
    configure(&path, "{\"name\": \"b\"}", true).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "{\"name\": \"b\"}");
}

#[test]
fn layout_does_not_make_a_configuration_different() {
    assert!(same(
        "{\"a\":1,\"b\":[]}",
        "{\n  \"b\": [],\n  \"a\": 1\n}\n"
    ));
    assert!(!same("{\"a\":1}", "{\"a\":2}"));
    assert!(!same("not JSON", "not JSON"));
}
