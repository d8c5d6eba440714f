//! JSON as the reference's decoder understands it.
//!
//! Go matches keys whatever their case, lets the last of several win and passes over `null`; runtimes rely on it
//! (containerd writes `HostPort`). A document is brought into one form while it is parsed: keys in lower case, no
//! nulls. Types that decode from it spell their keys in lower case.

use std::fmt;

use anyhow::{Result, ensure};
use serde::de::{DeserializeOwned, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de};
use serde_json::{Map, Value};

/// The most a configuration may have.
pub const MAX_LEN: usize = 4 << 20;

/// The one key whose `null` means something: a garbage collection that keeps nothing.
pub const VALID_ATTACHMENTS: &str = "cni.dev/valid-attachments";

/// Parses one document, with nothing after it, and folds it.
pub fn parse(bytes: &[u8]) -> Result<Value> {
    ensure!(bytes.len() <= MAX_LEN, "more than {MAX_LEN} bytes");
    let Folded(value) = serde_json::from_slice(bytes)?;
    Ok(value)
}

/// Decodes a folded value; an error names the key it is about, below `what`.
pub fn decode<T: DeserializeOwned>(what: &str, value: Value) -> Result<T> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = match (what, error.path().to_string()) {
            (_, path) if path == "." => what.to_owned(),
            ("", path) => path,
            (what, path) => format!("{what}.{path}"),
        };
        let cause = anyhow::Error::new(error.into_inner());
        if path.is_empty() {
            cause
        } else {
            cause.context(path)
        }
    })
}

/// A value whose objects have keys in lower case and no nulls.
struct Folded(Value);

impl<'de> Deserialize<'de> for Folded {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FoldedVisitor)
    }
}

struct FoldedVisitor;

impl<'de> Visitor<'de> for FoldedVisitor {
    type Value = Folded;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Folded, E> {
        Ok(Folded(value.into()))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Folded, E> {
        Ok(Folded(value.into()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Folded, E> {
        Ok(Folded(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Folded, E> {
        Ok(Folded(value.into()))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Folded, E> {
        Ok(Folded(value.into()))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Folded, E> {
        Ok(Folded(Value::Null))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Folded, A::Error> {
        let mut list = Vec::new();
        while let Some(Folded(value)) = seq.next_element()? {
            list.push(value);
        }
        Ok(Folded(list.into()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Folded, A::Error> {
        let mut object = Map::new();
        while let Some((key, Folded(value))) = map.next_entry::<String, Folded>()? {
            // Go takes the long s for an s, which has no other letter in lower case.
            let key = key.to_lowercase().replace('ſ', "s");
            if !value.is_null() || key == VALID_ATTACHMENTS {
                object.insert(key, value);
            }
        }
        Ok(Folded(object.into()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn folded(text: &str) -> Value {
        parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn keys_are_folded_at_every_depth_and_values_are_not() {
        let value = folded(r#"{"IPAM":{"Subnet":"A"},"List":[{"HostPort":8080}],"x":"Y"}"#);
        assert_eq!(
            value,
            json!({"ipam": {"subnet": "A"}, "list": [{"hostport": 8080}], "x": "Y"})
        );
        // Unicode has two more letters that are these without regard to case: the Kelvin sign and the long s.
        let value = folded("{\"i\u{17f}Gateway\":1,\"\u{212a}ey\":2}");
        assert_eq!(value, json!({"isgateway": 1, "key": 2}));
    }

    #[test]
    fn the_last_of_several_keys_wins_whatever_their_case() {
        assert_eq!(folded(r#"{"mtu":1,"MTU":2}"#), json!({"mtu": 2}));
        assert_eq!(folded(r#"{"MTU":2,"mtu":1}"#), json!({"mtu": 1}));
        assert_eq!(folded(r#"{"mtu":1,"mtu":2,"mtu":null}"#), json!({"mtu": 2}));
    }

    #[test]
    fn nulls_are_dropped_but_for_the_attachments() {
        let text = r#"{"mtu":null,"a":{"b":null},"cni.dev/valid-attachments":null}"#;
        assert_eq!(
            folded(text),
            json!({"a": {}, "cni.dev/valid-attachments": null})
        );
    }

    #[test]
    fn anything_but_one_document_is_an_error() {
        for bad in [
            "",
            " ",
            "{",
            "{\"a\":",
            "{}x",
            "{} {}",
            "{a:1}",
            "\u{feff}{}",
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(parse(b"{\"a\":\"\xff\"}").is_err());
        assert!(parse(b" {} \n").is_ok());
    }

    #[test]
    fn depth_and_length_are_limited() {
        assert!(parse("[".repeat(10_000).as_bytes()).is_err());
        let deep = "[".repeat(200) + &"]".repeat(200);
        assert!(parse(deep.as_bytes()).is_err());
        let long = |len: usize| format!("{{}}{}", " ".repeat(len - 2));
        assert!(parse(long(MAX_LEN).as_bytes()).is_ok());
        assert!(parse(long(MAX_LEN + 1).as_bytes()).is_err());
    }

    #[test]
    fn an_error_names_its_key() {
        #[derive(Debug, Deserialize)]
        #[allow(dead_code, reason = "only its decoding matters")]
        struct Inner {
            mtu: u16,
        }
        let error = |what, value| format!("{:#}", decode::<Inner>(what, value).unwrap_err());
        assert!(error("", json!({"mtu": "1500"})).starts_with("mtu: invalid type: string"));
        assert!(
            error("a", json!({"mtu": 1500.0})).starts_with("a.mtu: invalid type: floating point")
        );
        assert!(error("a", json!([])).starts_with("a: "));
    }
}
