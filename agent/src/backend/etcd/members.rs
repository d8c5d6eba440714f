//! The members of the etcd take turns: which is tried next, and when all have failed.

use std::time::Duration;

use super::{connect::Endpoint, settings::Settings};

/// A session that has lasted so long was a good one: what failed before it does not count any more.
const STABLE: Duration = Duration::from_secs(10);

/// The members, which is tried next, and what was wrong with each.
pub(super) struct Members<'a> {
    endpoints: &'a [Endpoint],
    turn: usize,
    /// Since the last good session.
    count: usize,
    reasons: Vec<Option<String>>,
    told: Option<String>,
}

impl<'a> Members<'a> {
    pub(super) fn new(settings: &'a Settings) -> Self {
        let members = settings.endpoints.len();
        Self {
            endpoints: &settings.endpoints,
            // Nodes spread over the members.
            turn: settings.node.bytes().map(usize::from).sum::<usize>() % members,
            count: 0,
            reasons: vec![None; members],
            told: None,
        }
    }

    /// The one whose turn it is.
    pub(super) fn endpoint(&self) -> &'a Endpoint {
        &self.endpoints[self.turn]
    }

    /// Notes what was wrong with a member, after a session of so long if there was one, and turns to the next. When all have
    /// failed it returns how often they have, and what was wrong, unless that has been told.
    pub(super) fn note(
        &mut self,
        error: &anyhow::Error,
        lasted: Option<Duration>,
    ) -> Option<(Option<String>, u32)> {
        let members = self.reasons.len();
        if lasted.is_some() {
            self.told = None;
        }
        if lasted.is_some_and(|lasted| lasted >= STABLE) {
            self.count = 0;
            self.reasons.fill(None);
        }
        self.reasons[self.turn] = Some(format!("{}: {error:#}", self.endpoint()));
        self.turn = (self.turn + 1) % members;
        self.count += 1;
        if !self.count.is_multiple_of(members) {
            return None;
        }
        let reasons: Vec<_> = self.reasons.iter().flatten().cloned().collect();
        let reason = reasons.join("; ");
        let round = u32::try_from(self.count / members).unwrap_or(u32::MAX);
        let news = self.told.as_ref() != Some(&reason);
        self.told = Some(reason.clone());
        Some((news.then_some(reason), round))
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::{super::connect::Tls, *};

    fn endpoints() -> Vec<Endpoint> {
        let tls = Tls {
            cacert: None,
            identity: None,
        };
        let endpoint = |host: &str| Endpoint::new(host, &tls).unwrap();
        ["m1:1", "m2:1"].map(endpoint).to_vec()
    }

    fn members(endpoints: &[Endpoint]) -> Members<'_> {
        Members {
            endpoints,
            turn: 1,
            count: 0,
            reasons: vec![None; endpoints.len()],
            told: None,
        }
    }

    #[test]
    fn all_are_tried_before_it_counts_as_lost_and_a_reason_is_told_once() {
        let endpoints = endpoints();
        let mut members = members(&endpoints);
        let error = anyhow!("down");
        assert_eq!(members.note(&error, None), None);
        assert_eq!(members.endpoint().to_string(), "http://m1:1");
        let reason = "http://m1:1: down; http://m2:1: down".to_owned();
        assert_eq!(members.note(&error, None), Some((Some(reason), 1)));
        assert_eq!(members.note(&error, None), None);
        assert_eq!(members.note(&error, None), Some((None, 2)));
    }

    #[test]
    fn after_a_good_session_all_begins_anew() {
        let endpoints = endpoints();
        let mut members = members(&endpoints);
        let error = anyhow!("down");
        for _ in 0..4 {
            members.note(&error, None);
        }
        assert_eq!(members.note(&anyhow!("cut"), Some(STABLE)), None);
        let reason = "http://m1:1: down; http://m2:1: cut".to_owned();
        assert_eq!(members.note(&error, None), Some((Some(reason), 1)));
    }

    #[test]
    fn sessions_that_end_at_once_do_not_shorten_the_pauses_and_are_told_again() {
        let endpoints = endpoints();
        let mut members = members(&endpoints);
        let error = anyhow!("down");
        let told: Vec<_> = (0..6)
            .filter_map(|_| members.note(&error, Some(Duration::ZERO)))
            .collect();
        let rounds: Vec<_> = told
            .iter()
            .map(|(reason, round)| (reason.is_some(), *round))
            .collect();
        assert_eq!(rounds, [(true, 1), (true, 2), (true, 3)]);
    }
}
