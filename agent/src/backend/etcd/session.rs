//! One connection's life: the node takes its subnets, tells all members, then what changes, and keeps its lease alive.

use std::{convert::Infallible, net::IpAddr, time::Duration};

use anyhow::{Context, Result, anyhow};
use etcd_client::{Client, KeyValue, LeaseKeepAliveResponse, WatchOptions, WatchResponse};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, sleep_until};

use super::{
    Stop, backoff,
    claim::{Claim, Memory},
    connect::{self, Endpoint, REQUEST, explain},
    keys::{self, Key},
    settings::Settings,
    store,
};
use crate::backend::{Event, Events, Member};

/// The lease is renewed at a third of its time, and at least so often: a node that is cut off then keeps its subnets for
/// nearly the whole time that the operator gave it.
const RENEW: Duration = Duration::from_secs(300);

/// How often a node that has too few subnets looks for free ones, beside looking whenever one becomes free.
const RETRY: Duration = Duration::from_secs(30);

/// How long to gather changes that make the node look at everything again.
const SETTLE: Duration = Duration::from_millis(200);

/// What all sessions of a node share.
pub(super) struct Sessions<'a> {
    pub(super) settings: &'a Settings,
    pub(super) events: &'a Events,
    pub(super) memory: Memory,
    /// Since when the present session has told what there is.
    pub(super) told: Option<Instant>,
}

/// Why the watch ended well.
enum Pause {
    /// Something has changed that only looking at everything again makes good.
    Again,
}

impl Sessions<'_> {
    /// Goes on until something stops it.
    pub(super) async fn run(&mut self, endpoint: &Endpoint) -> Result<Infallible, Stop> {
        self.told = None;
        let mut client = endpoint.connect().await?;
        loop {
            let addresses = self.addresses().await?;
            let claim = self
                .memory
                .claim(&mut client, self.settings, &addresses)
                .await?;
            let revision = self.tell_all(&mut client).await?;
            self.told.get_or_insert_with(Instant::now);
            let Pause::Again = self.watch(&mut client, &claim, revision).await?;
            sleep(backoff::jittered(SETTLE)).await;
        }
    }

    async fn addresses(&self) -> Result<Vec<IpAddr>> {
        match self.settings.addresses.as_slice() {
            [] => Ok(vec![
                connect::local_address(&self.settings.endpoints).await?,
            ]),
            given => Ok(given.to_vec()),
        }
    }

    async fn tell(&self, event: Event) -> Result<(), Stop> {
        self.events.send(event).await.map_err(|_| Stop::Closed)
    }

    /// Tells all members; returns the revision that they were read at.
    async fn tell_all(&self, client: &mut Client) -> Result<i64, Stop> {
        let (pairs, revision) = store::list(client, &self.settings.keys.nodes()).await?;
        let members = pairs.iter().filter_map(|pair| self.member(pair)).collect();
        self.tell(Event::All(members)).await?;
        Ok(revision)
    }

    /// The member that a key and its value tell of; nothing, and a line in the log, if they are none of beeline's.
    fn member(&self, pair: &KeyValue) -> Option<Member> {
        let settings = self.settings;
        let member = settings.keys.parse(pair.key()).and_then(|key| match key {
            Key::Node(name) => {
                let member =
                    keys::member(name, pair.value(), pair.create_revision(), &settings.ranges);
                member.map(Some)
            }
            Key::Config | Key::Subnet(_) => Ok(None),
        });
        member.unwrap_or_else(|error| {
            store::skip(pair, &error);
            None
        })
    }

    async fn watch(
        &self,
        client: &mut Client,
        claim: &Claim,
        revision: i64,
    ) -> Result<Pause, Stop> {
        let lease = client.lease_keep_alive(claim.lease).await;
        let (mut keeper, mut answers) = match lease {
            // It ended since it was looked at.
            Err(etcd_client::Error::LeaseKeepAliveError(_)) => return Ok(Pause::Again),
            lease => lease.map_err(explain).context("lease: keep alive")?,
        };
        let options = WatchOptions::new()
            .with_prefix()
            .with_fragment()
            .with_start_revision(revision + 1);
        let watch = client.watch(self.settings.keys.root(), Some(options)).await;
        let mut watch = watch.map_err(explain).context("watch")?;

        let renew = renewal(self.settings.ttl);
        let mut ticks = interval_at(Instant::now() + renew, renew);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let retry = Instant::now() + backoff::jittered(RETRY);
        let mut answer_by: Option<Instant> = None;
        loop {
            tokio::select! {
                () = self.events.closed() => return Err(Stop::Closed),
                response = watch.message() => {
                    let response = response.map_err(explain).context("watch")?;
                    let response = response.context("watch: the member has ended it")?;
                    if let Some(pause) = self.heard(&response, claim).await? {
                        return Ok(pause);
                    }
                }
                answer = answers.message() => {
                    answer_by = None;
                    let answer = answer.map_err(explain).context("lease: keep alive")?;
                    if let Some(pause) = renewed(answer, claim.lease)? {
                        return Ok(pause);
                    }
                }
                _ = ticks.tick() => {
                    keeper.keep_alive().await.map_err(explain).context("lease: keep alive")?;
                    answer_by.get_or_insert_with(|| Instant::now() + REQUEST);
                }
                () = sleep_until(answer_by.unwrap_or(retry)), if answer_by.is_some() => {
                    return Err(anyhow!("lease {:x}: no answer for {} s", claim.lease, REQUEST.as_secs()).into());
                }
                () = sleep_until(retry), if !claim.complete => return Ok(Pause::Again),
            }
        }
    }

    /// Tells what a response of the watch says.
    async fn heard(&self, response: &WatchResponse, claim: &Claim) -> Result<Option<Pause>, Stop> {
        if response.compact_revision() > 0 {
            tracing::info!(
                "watch: too far behind, what was missed is compacted; reading everything again"
            );
            return Ok(Some(Pause::Again));
        }
        if response.canceled() {
            return Err(anyhow!("watch: canceled: {}", response.cancel_reason()).into());
        }
        for pair in response.events().iter().filter_map(etcd_client::Event::kv) {
            // A deleted key has no revision of its creation any more.
            let deleted = pair.create_revision() == 0;
            let key = match self.settings.keys.parse(pair.key()) {
                Ok(key) => key,
                Err(error) => {
                    store::skip(pair, &error);
                    continue;
                }
            };
            match key {
                // Not told: that it has no subnets would only be true until it has taken them again.
                Key::Node(name) if name == self.settings.node => return Ok(Some(Pause::Again)),
                Key::Config => return Ok(Some(Pause::Again)),
                Key::Subnet(subnet) if claim.subnets.contains(&subnet) => {
                    return Ok(Some(Pause::Again));
                }
                Key::Subnet(_) if deleted && !claim.complete => return Ok(Some(Pause::Again)),
                Key::Subnet(_) => {}
                Key::Node(name) if deleted => self.tell(Event::Gone(name)).await?,
                Key::Node(_) => {
                    if let Some(member) = self.member(pair) {
                        self.tell(Event::Changed(member)).await?;
                    }
                }
            }
        }
        Ok(None)
    }
}

/// What the answer to a renewal means.
fn renewed(answer: Option<LeaseKeepAliveResponse>, lease: i64) -> Result<Option<Pause>> {
    let answer =
        answer.with_context(|| format!("lease {lease:x}: the member has ended its renewal"))?;
    if answer.ttl() > 0 {
        return Ok(None);
    }
    tracing::warn!("lease {lease:x}: has ended");
    Ok(Some(Pause::Again))
}

/// How often a lease of so many seconds is renewed.
fn renewal(ttl: i64) -> Duration {
    let ttl = Duration::from_secs(ttl.unsigned_abs());
    (ttl / 3).clamp(Duration::from_millis(300), RENEW)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_renewed_at_a_third_of_its_time_and_at_least_every_five_minutes() {
        assert_eq!(renewal(30), Duration::from_secs(10));
        assert_eq!(renewal(86_400), RENEW);
        assert!(renewal(1) < Duration::from_secs(1));
    }
}
