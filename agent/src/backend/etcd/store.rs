//! Requests to the etcd, in the words of the backend.

use anyhow::{Context, Result};
use etcd_client::{Client, Compare, CompareOp, GetOptions, KeyValue, LeaseGrantOptions};

use super::{
    connect::explain,
    keys::{Key, SubnetValue},
    plan::{Holder, Taken},
    settings::Settings,
};

/// How many keys come in one answer, to stay far below gRPC's limit of 4 MB.
const PAGE: i64 = 2000;

/// Gets one key.
pub(super) async fn get(client: &mut Client, key: &str) -> Result<Option<KeyValue>> {
    let answer = client.get(key, None).await.map_err(explain);
    let mut answer = answer.with_context(|| format!("key {key}: get"))?;
    Ok(answer.take_kvs().pop())
}

/// Gets all keys that begin with a prefix, as they were at one revision, and that revision.
pub(super) async fn list(client: &mut Client, prefix: &str) -> Result<(Vec<KeyValue>, i64)> {
    let mut all: Vec<KeyValue> = Vec::new();
    let mut revision = 0;
    let end = end_of(prefix);
    loop {
        let from = match all.last() {
            Some(last) => [last.key(), b"\0"].concat(),
            None => prefix.into(),
        };
        let options = GetOptions::new()
            .with_range(end.clone())
            .with_limit(PAGE)
            .with_revision(revision);
        let answer = client.get(from, Some(options)).await.map_err(explain);
        let mut answer = answer.with_context(|| format!("keys {prefix}: get"))?;
        if revision == 0 {
            revision = answer
                .header()
                .context("an answer without header")?
                .revision();
        }
        let more = answer.more();
        let page = answer.take_kvs();
        let last = page.is_empty() || !more;
        all.extend(page);
        if last {
            return Ok((all, revision));
        }
    }
}

/// The first key after all those that begin with a prefix, which ends with a slash.
fn end_of(prefix: &str) -> String {
    let stem = prefix.strip_suffix('/').unwrap_or(prefix);
    format!("{stem}0")
}

/// Whose subnet a key is; nothing, and a line in the log, if it is none of beeline's.
pub(super) fn taken(settings: &Settings, pair: &KeyValue) -> Option<Taken> {
    let subnet = match settings.keys.parse(pair.key()) {
        Ok(Key::Subnet(subnet)) => subnet,
        Ok(_) => return None,
        Err(error) => {
            skip(pair, &error);
            return None;
        }
    };
    let holder = match serde_json::from_slice::<SubnetValue>(pair.value()) {
        Ok(value) if value.node == settings.node && value.machine == settings.machine => Holder::Me,
        Ok(value) => Holder::Other(value.node),
        Err(error) => {
            // Whoever has it, it is not free.
            skip(pair, &error.into());
            Holder::Other("?".to_owned())
        }
    };
    Some(Taken {
        subnet,
        holder,
        revision: pair.mod_revision(),
        lease: pair.lease(),
    })
}

/// Says that a key or what it holds is not understood.
pub(super) fn skip(pair: &KeyValue, error: &anyhow::Error) {
    let key = String::from_utf8_lossy(pair.key());
    tracing::warn!(%key, "key {key}: skipped: {error:#}");
}

/// Holds as long as a key is as it was seen: at this revision, or not there.
pub(super) fn unchanged(key: String, seen: Option<i64>) -> Compare {
    match seen {
        Some(revision) => Compare::mod_revision(key, CompareOp::Equal, revision),
        None => Compare::create_revision(key, CompareOp::Equal, 0),
    }
}

/// Whether a lease lives, and for as long as wanted.
pub(super) async fn lives(client: &mut Client, lease: i64, ttl: i64) -> Result<bool> {
    match client.lease_time_to_live(lease, None).await {
        Ok(answer) => Ok(answer.ttl() > 0 && answer.granted_ttl() == ttl),
        Err(etcd_client::Error::GRpcStatus(status)) if status.code() == tonic::Code::NotFound => {
            Ok(false)
        }
        Err(error) => Err(explain(error)).with_context(|| format!("lease {lease:x}: time to live")),
    }
}

/// Begins a lease.
pub(super) async fn grant(client: &mut Client, ttl: i64) -> Result<i64> {
    let granted = client
        .lease_grant(ttl, Some(LeaseGrantOptions::new()))
        .await;
    let granted = granted.map_err(explain).context("lease: grant")?;
    tracing::info!("lease {:x}: granted for {} s", granted.id(), granted.ttl());
    Ok(granted.id())
}

/// Ends a lease, and with it the keys that hang on it; one that has ended is fine.
pub(super) async fn revoke(client: &mut Client, lease: i64) -> Result<()> {
    match client.lease_revoke(lease).await {
        Ok(_) => Ok(()),
        Err(etcd_client::Error::GRpcStatus(status)) if status.code() == tonic::Code::NotFound => {
            Ok(())
        }
        Err(error) => Err(explain(error)).with_context(|| format!("lease {lease:x}: revoke")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_keys_ends_behind_the_last_that_can_be_in_it() {
        let end = end_of("/beeline/v1/nodes/");
        assert_eq!(end, "/beeline/v1/nodes0");
        assert!("/beeline/v1/nodes/\u{10ffff}" < end.as_str());
    }
}
