//! What all nodes of a cluster must agree on.

use anyhow::{Context, Result, anyhow};
use etcd_client::{Client, Txn, TxnOp};

use super::{Stop, connect::explain, keys::Config, settings::Settings, store};

/// Writes the configuration if there is none, else compares it with the options; returns its revision.
pub(super) async fn agree(client: &mut Client, settings: &Settings) -> Result<i64, Stop> {
    let key = settings.keys.config();
    let mine = Config {
        ranges: settings.ranges.clone(),
    };
    loop {
        if let Some(pair) = store::get(client, &key).await? {
            let said = String::from_utf8_lossy(pair.value());
            let theirs: Config = serde_json::from_slice(pair.value()).map_err(|error| {
                Stop::Refused(anyhow!(
                    "key {key}: holds {said:?}, which beeline has not written: {error}"
                ))
            })?;
            if theirs == mine {
                return Ok(pair.mod_revision());
            }
            return Err(Stop::Refused(anyhow!(
                "--cluster-cidr and subnet length: here {}, in the etcd {} (key {key}); all nodes must agree; to change it for all, end all agents and delete the key",
                list(&mine),
                list(&theirs)
            )));
        }
        let txn = Txn::new()
            .when(vec![store::unchanged(key.clone(), None)])
            .and_then(vec![TxnOp::put(
                key.clone(),
                serde_json::to_string(&mine).map_err(anyhow::Error::from)?,
                None,
            )]);
        client
            .txn(txn)
            .await
            .map_err(explain)
            .context("configuration: transaction")?;
    }
}

fn list(config: &Config) -> String {
    let ranges: Vec<_> = config.ranges.iter().map(ToString::to_string).collect();
    ranges.join(" and ")
}
