//! Pictures of made-up values.

use serde_json::json;

use super::*;

fn picture(value: &Value) -> Picture {
    let (mut picture, mut roles) = (Picture::default(), Roles::default());
    roles.name("veth12ab", "<port>");
    picture.json("x", value, &roles);
    picture
}

#[test]
fn what_is_random_is_told_by_its_role_and_the_rest_as_it_is() {
    let told = picture(&json!({
        "mac": "02:00:00:00:0a:01", "port": "veth12ab", "list": ["fe80::1234/64", "fe80::/64", 5],
    }));
    let expected = [
        ("x.list.0", "<link-local>"),
        ("x.list.1", "fe80::/64"),
        ("x.list.2", "5"),
        ("x.list.length", "3"),
        ("x.mac", "<MAC>"),
        ("x.port", "<port>"),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(told.0, BTreeMap::from(expected));
}

#[test]
fn differences_are_what_only_one_has_and_what_they_have_otherwise() {
    let (one, two) = (
        json!({"a": 1, "b": 2, "c": 3}),
        json!({"b": 2, "c": 4, "d": 5}),
    );
    let found = picture(&one).differences(&picture(&two));
    let told: Vec<_> = found.iter().map(ToString::to_string).collect();
    assert_eq!(told, ["x.a: 1 | nothing", "x.c: 3 | 4", "x.d: nothing | 5"]);
}

#[test]
fn what_moves_with_the_carrier_is_left_out() {
    let link = json!({"ifindex": 7, "flags": ["UP", "LOWER_UP"], "linkinfo": {"hello_timer": 0.1, "mtu": 5}});
    let lean = Value::from(lean(&link));
    assert_eq!(lean, json!({"flags": ["UP"], "linkinfo": {"mtu": 5}}));
}
