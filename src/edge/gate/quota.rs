//! What answers say of what is left in a zone.
//!
//! Shape: `draft` has an item for each limit of each zone, beside those that the app sends; `legacy` tells the strictest of all, and the app's own wins.
//!        A pace is told as what it admits at one moment (burst and one), and the time in which all of that comes back; what is left counts this request.
//! Units: whole seconds, rounded up: a client that heeds them is not early.
//! Source: draft-ietf-httpapi-ratelimit-headers-10 (q, w, qu; r, t), structured fields of RFC 9651; `X-RateLimit-*` as GitHub and others began it, with seconds to go.

use std::{fmt::Write as _, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::{
    plan::RateHeaders,
    rules::limit::{Budget, Standing},
};

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LEFT: HeaderName = HeaderName::from_static("ratelimit");
const LEGACY: [HeaderName; 3] = [
    HeaderName::from_static("x-ratelimit-limit"),
    HeaderName::from_static("x-ratelimit-remaining"),
    HeaderName::from_static("x-ratelimit-reset"),
];

/// Says of each zone, by name, what is left.
pub fn tell<'a>(zones: impl Iterator<Item = (RateHeaders, &'a str, Standing)>, fields: &mut HeaderMap) {
    let (mut policy, mut left) = (String::new(), String::new());
    let mut strictest: Option<(u64, u64, u64)> = None;
    for (headers, name, standing) in zones {
        match headers {
            RateHeaders::Draft => draft(name, &standing, &mut policy, &mut left),
            RateHeaders::Legacy => {
                for (limit, left, reset) in legacy(&standing) {
                    if strictest.is_none_or(|(_, least, longest)| (left, longest) < (least, reset)) {
                        strictest = Some((limit, left, reset));
                    }
                }
            }
        }
    }
    for (name, text) in [(POLICY, policy), (LEFT, left)] {
        if let (false, Ok(value)) = (text.is_empty(), HeaderValue::try_from(text)) {
            fields.append(name, value);
        }
    }
    if let Some((limit, left, reset)) = strictest {
        for (name, value) in LEGACY.into_iter().zip([limit, left, reset]) {
            fields.entry(name).or_insert(value.into());
        }
    }
}

fn draft(name: &str, standing: &Standing, policy: &mut String, left: &mut String) {
    let Standing { pace, at_once } = standing;
    let say = |to: &mut String, suffix: &str, parameters: std::fmt::Arguments<'_>| {
        let comma = if to.is_empty() { "" } else { ", " };
        // Writing to a string cannot fail.
        let _ = write!(to, "{comma}\"{name}{suffix}\"{parameters}");
    };
    if let Some(Budget { limit, left: rest, back, whole }) = pace {
        say(policy, "", format_args!(";q={limit};w={}", seconds(*whole)));
        say(left, "", format_args!(";r={rest};t={}", seconds(*back)));
    }
    if let Some((limit, rest)) = at_once {
        // A zone's name has no dot in it.
        let suffix = if pace.is_some() { ".concurrent" } else { "" };
        say(policy, suffix, format_args!(";q={limit};qu=\"concurrent-requests\""));
        say(left, suffix, format_args!(";r={rest}"));
    }
}

/// Limit, what is left, and seconds until all is back.
fn legacy(standing: &Standing) -> impl Iterator<Item = (u64, u64, u64)> {
    let Standing { pace, at_once } = *standing;
    let pace = pace.map(|Budget { limit, left, back, whole: _ }| (limit, left, seconds(back)));
    // Until one is over, which nobody knows.
    let at_once = at_once.map(|(limit, left)| (limit.into(), left.into(), u64::from(left == 0)));
    [pace, at_once].into_iter().flatten()
}

fn seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn pace(limit: u64, left: u64, back: u64) -> Standing {
        let (back, whole) = (Duration::from_millis(back), Duration::from_millis(2100));
        Standing { pace: Some(Budget { limit, left, back, whole }), at_once: None }
    }

    fn told(zones: &[(RateHeaders, &str, Standing)], before: &[(&'static str, &'static str)]) -> Vec<(String, String)> {
        let mut fields = HeaderMap::new();
        for (name, value) in before {
            fields.insert(*name, HeaderValue::from_static(value));
        }
        tell(zones.iter().copied(), &mut fields);
        let mut all: Vec<_> = fields.iter().map(|(name, value)| (name.to_string(), value.to_str().expect("text").to_owned())).collect();
        all.sort();
        all
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_draft_has_an_item_for_each_limit() {
        let both = Standing { at_once: Some((10, 7)), ..pace(21, 20, 100) };
        let zones = [(RateHeaders::Draft, "api", both), (RateHeaders::Draft, "crowd", Standing { pace: None, at_once: Some((3, 0)) })];
        let policy = r#""api";q=21;w=3, "api.concurrent";q=10;qu="concurrent-requests", "crowd";q=3;qu="concurrent-requests""#;
        let left = r#""api";r=20;t=1, "api.concurrent";r=7, "crowd";r=0"#;
        assert_eq!(told(&zones, &[]), pairs(&[("ratelimit", left), ("ratelimit-policy", policy)]));
        let beside = told(&zones[1..], &[("ratelimit", "\"app\";r=1")]);
        assert!(beside.contains(&("ratelimit".into(), "\"app\";r=1".into())) && beside.len() == 3, "the app's own stays: {beside:?}");
    }

    #[test]
    fn the_legacy_form_tells_the_strictest_and_the_apps_own_wins() {
        let legacy = |standing| (RateHeaders::Legacy, "z", standing);
        let zones = [legacy(pace(21, 20, 100)), legacy(pace(5, 2, 2900)), legacy(pace(9, 2, 400))];
        let expected = [("x-ratelimit-limit", "5"), ("x-ratelimit-remaining", "2"), ("x-ratelimit-reset", "3")];
        assert_eq!(told(&zones, &[]), pairs(&expected));
        let own = [("x-ratelimit-limit", "9"), ("x-ratelimit-remaining", "8"), ("x-ratelimit-reset", "7")];
        assert_eq!(told(&zones, &own), pairs(&own));
        assert_eq!(told(&[], &[]), []);
    }
}
