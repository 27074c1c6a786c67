//! Names and passwords: `auth = { basic = … }`.
//!
//! Shape: an unknown name costs what a wrong password costs: it is verified against the hash of somebody, always the same one for a name, and then refused.
//! Source: RFC 7617.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use ahash::RandomState;
use http::{HeaderMap, HeaderValue, header};
use subtle::{Choice, ConstantTimeEq as _};
use tokio::sync::oneshot;

use super::{Answer, GuardError, Question, Verifier};
use crate::{
    plan::{self, User},
    rules::{basic::Claim, password::Stored},
};

/// Those who may come in, and how others are asked.
pub struct Basic {
    people: Vec<Person>,
    /// Where in `people`; keyed, so that no name can be made to collide.
    by_name: HashMap<Box<[u8]>, usize, RandomState>,
    challenge: HeaderValue,
}

struct Person {
    name: HeaderValue,
    stored: Arc<Stored>,
    /// As the file has it.
    hash: Arc<str>,
}

/// What is known of a request at once.
pub enum Look {
    Admitted(HeaderValue),
    /// No name and password, or not the right ones.
    Refused,
    /// Too many passwords wait for their verification, of this client or of all.
    Busy,
    Waits(Waiting),
}

/// A password on its way to be verified. Dropped: nobody waits any more.
pub struct Waiting {
    name: HeaderValue,
    answer: oneshot::Receiver<bool>,
}

impl Waiting {
    /// Who it is; `None`: nobody.
    pub async fn done(self) -> Option<HeaderValue> {
        let Self { name, answer } = self;
        // Who was to verify it is gone: nobody comes in.
        answer.await.unwrap_or(false).then_some(name)
    }
}

impl Basic {
    /// Errors: [`GuardError`]
    pub fn new(plan: &plan::Basic, users: &[User]) -> Result<Self, GuardError> {
        let plan::Basic { file: _, realm } = plan;
        let quoted = realm.replace('\\', "\\\\").replace('"', "\\\"");
        let challenge = HeaderValue::try_from(format!("Basic realm=\"{quoted}\", charset=\"UTF-8\""));
        let person = |User { name, hash }: &User| {
            let stored = Stored::parse(hash.reveal()).map_err(|source| GuardError::Hash { name: name.clone(), source })?;
            let shown = HeaderValue::try_from(name.as_str()).map_err(|_| GuardError::Name(name.clone()))?;
            Ok(Person { name: shown, stored: Arc::new(stored), hash: hash.reveal().as_str().into() })
        };
        Ok(Self {
            people: users.iter().map(person).collect::<Result<_, _>>()?,
            by_name: users.iter().enumerate().map(|(at, user)| (user.name.as_bytes().into(), at)).collect(),
            challenge: challenge.map_err(|_| GuardError::Realm(realm.clone()))?,
        })
    }

    /// The `WWW-Authenticate` of a 401.
    #[must_use]
    pub fn challenge(&self) -> HeaderValue {
        self.challenge.clone()
    }

    /// What the request proves, as far as it is known at once.
    #[must_use]
    pub fn look(&self, headers: &HeaderMap, client: IpAddr, verifier: &Verifier) -> Look {
        let mut fields = headers.get_all(header::AUTHORIZATION).iter();
        // Two fields are two claims: it is not for us to choose.
        let (Some(field), None) = (fields.next(), fields.next()) else { return Look::Refused };
        let Some(claim) = Claim::parse(field.as_bytes()) else { return Look::Refused };
        let Some((person, known)) = self.person(claim.name()) else { return Look::Refused };
        let question =
            Question { name: claim.name(), password: claim.password(), stored: &person.stored, hash: &person.hash, known: known.into() };
        match verifier.ask(client, &question) {
            Answer::Known(true) => Look::Admitted(person.name.clone()),
            Answer::Known(false) => Look::Refused,
            Answer::Busy => Look::Busy,
            Answer::Waits(answer) => Look::Waits(Waiting { name: person.name.clone(), answer }),
        }
    }

    /// Whose hash it is to be, and whether that is who was named. `None`: there is nobody at all.
    fn person(&self, name: &[u8]) -> Option<(&Person, Choice)> {
        let anybody = usize::try_from(self.by_name.hasher().hash_one(name) % self.people.len().max(1) as u64).unwrap_or(0);
        let person = self.people.get(self.by_name.get(name).copied().unwrap_or(anybody))?;
        Some((person, person.name.as_bytes().ct_eq(name)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use base64::{Engine as _, engine::general_purpose::STANDARD};

    use super::*;
    use crate::vocab::Secret;

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 1));
    /// "correct horse"
    const HASH: &str = "$2y$04$CkBbF7bMdpwuSSQyFmmdXeZ4uf/Swi0BCocSc0sRshxdHAoxc6rHq";

    fn basic(users: &[(&str, &str)]) -> Basic {
        let users: Vec<_> =
            users.iter().map(|(name, hash)| User { name: (*name).to_owned(), hash: Secret::new((*hash).to_owned()) }).collect();
        Basic::new(&plan::Basic { file: "/users".into(), realm: "The \"inner\" \\ circle".into() }, &users).expect("good users")
    }

    fn claims(name: &str, password: &str) -> HeaderMap {
        let field = format!("Basic {}", STANDARD.encode(format!("{name}:{password}")));
        [(header::AUTHORIZATION, HeaderValue::try_from(field).expect("a field"))].into_iter().collect()
    }

    async fn who(basic: &Basic, verifier: &Verifier, headers: &HeaderMap) -> Option<String> {
        let found = match basic.look(headers, CLIENT, verifier) {
            Look::Admitted(name) => Some(name),
            Look::Refused => None,
            Look::Busy => panic!("nobody else asks"),
            Look::Waits(waiting) => waiting.done().await,
        };
        found.map(|name| String::from_utf8_lossy(name.as_bytes()).into_owned())
    }

    #[tokio::test]
    async fn the_right_name_with_its_password_comes_in_and_nobody_else() {
        let (basic, verifier) = (basic(&[("alice", HASH), ("j\u{f6}rg", "{SHA}L55TUjtiq8FBorTWAZ0jy6g129A=")]), Verifier::default());
        // Twice: the second time it is remembered.
        for _ in 0..2 {
            assert_eq!(who(&basic, &verifier, &claims("alice", "correct horse")).await.as_deref(), Some("alice"));
            assert_eq!(who(&basic, &verifier, &claims("j\u{f6}rg", "correct horse")).await.as_deref(), Some("j\u{f6}rg"));
            for (name, password) in [("alice", "wrong"), ("alice", ""), ("Alice", "correct horse"), ("bob", "correct horse"), ("", "")] {
                assert_eq!(who(&basic, &verifier, &claims(name, password)).await, None, "{name} {password}");
            }
        }
        let mut twice = claims("alice", "correct horse");
        twice.append(header::AUTHORIZATION, HeaderValue::from_static("Basic QQ=="));
        assert_eq!(who(&basic, &verifier, &twice).await, None);
        assert_eq!(who(&basic, &verifier, &HeaderMap::new()).await, None);
    }

    #[tokio::test]
    async fn what_was_verified_is_known_at_once_and_another_hash_is_another_question() {
        let (first, verifier) = (basic(&[("alice", HASH)]), Verifier::default());
        let headers = claims("alice", "correct horse");
        assert!(matches!(first.look(&headers, CLIENT, &verifier), Look::Waits(_)));
        assert_eq!(who(&first, &verifier, &headers).await.as_deref(), Some("alice"));
        assert!(matches!(first.look(&headers, CLIENT, &verifier), Look::Admitted(_)));
        let wrong = claims("alice", "wrong");
        assert_eq!(who(&first, &verifier, &wrong).await, None);
        assert!(matches!(first.look(&wrong, CLIENT, &verifier), Look::Refused));
        // The file was changed: what was right before is not known to be right now.
        let second = basic(&[("alice", "$2b$04$abcdefghijklmnopqrstuujydOTSfIH/d5oUHpsygqV5X9xJLRc6e")]);
        assert!(matches!(second.look(&headers, CLIENT, &verifier), Look::Waits(_)));
        assert_eq!(who(&second, &verifier, &headers).await, None);
    }

    #[tokio::test]
    async fn an_unknown_name_is_verified_as_a_known_one_is() {
        // A hash that takes long enough to be told from none.
        let hash = HASH.replace("$04$", "$10$");
        let (basic, verifier) = (basic(&[("alice", &hash)]), Verifier::default());
        let mut took = [Duration::MAX; 2];
        // The least of each: what the machine does beside it only adds. An answer without a look would stay the quicker one in every round.
        for round in 0..50 {
            for (at, name) in ["alice", "nobody"].iter().enumerate() {
                let began = Instant::now();
                assert_eq!(who(&basic, &verifier, &claims(name, &format!("wrong {round}"))).await, None);
                took[at] = took[at].min(began.elapsed());
            }
            let [known, unknown] = took;
            if round >= 4 && unknown > known / 2 && unknown < known * 2 {
                return;
            }
        }
        panic!("{took:?}");
    }

    #[test]
    fn a_realm_stays_in_its_quotes() {
        let challenge = basic(&[("a", HASH)]).challenge();
        assert_eq!(challenge, r#"Basic realm="The \"inner\" \\ circle", charset="UTF-8""#);
    }
}
