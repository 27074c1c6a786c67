//! Header fields whose names hold an underscore: which of them pass.
//!
//! Pure. CGI, WSGI and PHP apps see `X_Real_IP` and `X-Real-IP` as one variable, so whoever may send the one can pretend the other.
//! Shape: by default none passes, as behind nginx. Where they pass, one that reads as a field which we set or vouch for does not, nor one that reads as another
//!        field of the same request.

use std::collections::BTreeSet;

use http::{HeaderMap, HeaderName, header};

use crate::plan::{Auth, Plan, Underscores};

/// Of these families every name is ours to say.
const FAMILIES: [&str; 2] = ["x-forwarded-", "x-client-cert-"];

/// Which fields with an underscore are dropped.
#[derive(Clone, Debug, Default)]
pub struct Sieve {
    /// Names that nobody else may seem to say, with `-` for `_`; `None`: none passes.
    ours: Option<BTreeSet<String>>,
}

impl Sieve {
    /// `said` are the fields that the edge itself sets or takes from those whom it trusts alone.
    #[must_use]
    pub fn new<'a>(plan: &Plan, said: impl IntoIterator<Item = &'a HeaderName>) -> Self {
        if plan.limits.underscores == Underscores::Drop {
            return Self::default();
        }
        let framing = [header::CONTENT_LENGTH, header::CONTENT_TYPE, header::CONTENT_ENCODING, header::TRANSFER_ENCODING];
        let routes = || plan.sites.iter().flat_map(|site| &site.routes);
        let edited = routes().flat_map(|route| &route.request_headers).map(|edit| &edit.name);
        let vouched = routes().filter_map(|route| route.auth.as_ref()).flat_map(|auth| match auth {
            Auth::Forward(forward) => forward.headers.as_slice(),
            Auth::Basic(_) => &[],
        });
        let mut ours: BTreeSet<String> = said.into_iter().map(folded).collect();
        ours.extend(framing.iter().chain(&super::header::HOP_BY_HOP).map(folded));
        ours.extend(edited.chain(vouched).map(folded));
        Self { ours: Some(ours) }
    }

    /// The fields of a request that are not to be passed on. Costs a look at each name where there is no underscore.
    #[must_use]
    pub fn dropped(&self, headers: &HeaderMap) -> Vec<HeaderName> {
        let underscored = |name: &&HeaderName| name.as_str().as_bytes().contains(&b'_');
        headers.keys().filter(underscored).filter(|name| !self.passes(name, headers)).cloned().collect()
    }

    fn passes(&self, name: &HeaderName, headers: &HeaderMap) -> bool {
        let Some(ours) = &self.ours else { return false };
        let read = folded(name);
        let ours = FAMILIES.iter().any(|family| read.starts_with(family)) || ours.contains(&read);
        !ours && !headers.keys().any(|other| other != name && alike(other, name))
    }
}

fn folded(name: &HeaderName) -> String {
    name.as_str().replace('_', "-")
}

/// Whether an app cannot tell them apart; their case is the same already.
fn alike(one: &HeaderName, other: &HeaderName) -> bool {
    let fold = |byte: u8| if byte == b'_' { b'-' } else { byte };
    let (one, other) = (one.as_str().as_bytes(), other.as_str().as_bytes());
    one.len() == other.len() && one.iter().zip(other).all(|(a, b)| fold(*a) == fold(*b))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;
    use crate::plan::{HeaderEdit, testing};

    fn sieve(underscores: Underscores) -> Sieve {
        let mut plan = testing::plan();
        plan.limits.underscores = underscores;
        let edit = HeaderEdit { name: HeaderName::from_static("x-env_name"), value: None, tls_only: false };
        let route = crate::plan::Route { request_headers: vec![edit], ..testing::route() };
        plan.sites = vec![crate::plan::Site { routes: vec![route], ..testing::site("a.test") }];
        Sieve::new(&plan, &[HeaderName::from_static("x-real-ip")])
    }

    fn dropped(sieve: &Sieve, names: &[&str]) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for name in names {
            headers.append(HeaderName::from_bytes(name.as_bytes()).expect("a name"), HeaderValue::from_static("1"));
        }
        let mut dropped: Vec<String> = sieve.dropped(&headers).iter().map(ToString::to_string).collect();
        dropped.sort();
        dropped
    }

    #[test]
    fn by_default_none_passes() {
        assert_eq!(dropped(&sieve(Underscores::Drop), &["X_A", "X-B", "_"]), ["_", "x_a"]);
    }

    #[test]
    fn what_passes_reads_as_nothing_else() {
        let sieve = sieve(Underscores::Pass);
        assert!(dropped(&sieve, &["X_A", "X-B", "api_key", "api_key", "_"]).is_empty());
        for ours in [
            "X_Real_IP",
            "x-real_ip",
            "X_Forwarded_For",
            "x_forwarded-user",
            "X_Client_Cert_Subject",
            "Content_Length",
            "Transfer_Encoding",
            "Keep_Alive",
            "X_Env_Name",
            "x-env_name",
        ] {
            assert_eq!(dropped(&sieve, &[ours]), [ours.to_lowercase()], "{ours}");
        }
        assert_eq!(dropped(&sieve, &["X-User", "X_User"]), ["x_user"], "the one with the hyphen stays");
        assert_eq!(dropped(&sieve, &["X_User-Id", "X-User_Id"]), ["x-user_id", "x_user-id"], "neither is the right one");
    }

    proptest! {
        #[test]
        fn no_two_fields_that_pass_are_alike(names in prop::collection::vec("[ab][-_][ab][-_]?", 0..8)) {
            let sieve = sieve(Underscores::Pass);
            let mut headers = HeaderMap::new();
            for name in &names {
                headers.append(HeaderName::from_bytes(name.as_bytes()).expect("a name"), HeaderValue::from_static("1"));
            }
            for name in sieve.dropped(&headers) {
                headers.remove(name);
            }
            let all: Vec<_> = headers.keys().collect();
            for (at, one) in all.iter().enumerate() {
                prop_assert!(all[at + 1..].iter().all(|other| !alike(one, other)), "{all:?}");
            }
        }
    }
}
