//! Stored passwords: what an htpasswd file may hold, and whether a password is the one.
//!
//! Pure; [`Stored::fits`] takes as long as its cost says (milliseconds to seconds), so it is for threads that serve nobody meanwhile.
//! Shape: costs are bounded when a hash is read, so no file can make a verification run away. Comparisons are constant-time.
//! Source: RFC 7617; Apache's `htpasswd` (`$2y$`, `{SHA}`), RFC 2307 (`{SSHA}`), crypt(5) (`$5$`, `$6$`), the PHC string format (argon2).

use argon2::{Argon2, PasswordVerifier as _, password_hash::phc::PasswordHash};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha_crypt::ShaCrypt;
use sha1::{Digest as _, Sha1};
use subtle::ConstantTimeEq as _;
use thiserror::Error;

/// About 3 s on a small server.
pub const BCRYPT_COST: u32 = 15;
/// In KiB.
pub const ARGON2_MEMORY: u32 = 256 * 1024;
pub const ARGON2_PASSES: u32 = 10;
pub const ARGON2_LANES: u32 = 16;
pub const SHA_CRYPT_ROUNDS: u32 = 1_000_000;
/// A longer password is never right: SHA-crypt takes the square of its length.
pub const LONGEST_PASSWORD: usize = 512;

/// How a password is kept.
#[derive(Clone, Debug)]
pub enum Stored {
    /// `$2y$`, `$2b$`, `$2a$`. As everywhere, 72 bytes of a password count.
    Bcrypt(Box<str>),
    Argon2(Box<PasswordHash>),
    /// `$5$` and `$6$`
    ShaCrypt(Box<str>),
    /// `{SHA}` without a salt, `{SSHA}` with one.
    Sha1 {
        digest: [u8; 20],
        salt: Box<[u8]>,
    },
}

/// Why a hash is not taken.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum HashError {
    #[error("is no hash that is known here, or the password itself")]
    Unknown,
    #[error("is an MD5 hash (apr1), which is too weak")]
    Md5,
    #[error("is a DES hash (crypt), of which 8 characters count")]
    Des,
    #[error("is a broken {0} hash")]
    Broken(&'static str),
    #[error("costs too much to verify: bcrypt cost {0}, at most {BCRYPT_COST}")]
    Bcrypt(u32),
    #[error("costs too much to verify: argon2 with m={m},t={t},p={p}, at most m={ARGON2_MEMORY},t={ARGON2_PASSES},p={ARGON2_LANES}")]
    Argon2 { m: u32, t: u32, p: u32 },
    #[error("costs too much to verify: {0} rounds, at most {SHA_CRYPT_ROUNDS}")]
    Rounds(u32),
}

impl Stored {
    /// Errors: [`HashError`] says what is wrong, and never quotes.
    pub fn parse(text: &str) -> Result<Self, HashError> {
        if let Some(rest) = text.strip_prefix("$2") {
            return bcrypt(text, rest);
        }
        if text.starts_with("$argon2") {
            return argon2(text);
        }
        if text.starts_with("$5$") || text.starts_with("$6$") {
            return sha_crypt(text);
        }
        if let Some(rest) = text.strip_prefix("{SHA}") {
            return sha1(rest, "{SHA}").filter(|salt| salt.is_empty());
        }
        if let Some(rest) = text.strip_prefix("{SSHA}") {
            return sha1(rest, "{SSHA}").filter(|salt| !salt.is_empty());
        }
        if text.starts_with("$apr1$") || text.starts_with("$1$") {
            return Err(HashError::Md5);
        }
        let des = text.len() == 13 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'/');
        Err(if des { HashError::Des } else { HashError::Unknown })
    }

    /// Whether this is the password.
    #[must_use]
    pub fn fits(&self, password: &[u8]) -> bool {
        if password.len() > LONGEST_PASSWORD {
            return false;
        }
        match self {
            Self::Bcrypt(hash) => bcrypt::verify(password, hash).unwrap_or(false),
            Self::Argon2(hash) => Argon2::default().verify_password(password, &**hash).is_ok(),
            Self::ShaCrypt(hash) => ShaCrypt::default().verify_password(password, &**hash).is_ok(),
            Self::Sha1 { digest, salt } => {
                let got: [u8; 20] = Sha1::new().chain_update(password).chain_update(salt).finalize().into();
                got.ct_eq(digest).into()
            }
        }
    }
}

fn bcrypt(text: &str, rest: &str) -> Result<Stored, HashError> {
    let broken = || HashError::Broken("bcrypt");
    if !rest.starts_with(['a', 'b', 'y']) {
        return Err(HashError::Unknown);
    }
    let cost = text.parse::<bcrypt::HashParts>().map_err(|_| broken())?.get_cost();
    match cost {
        4..=BCRYPT_COST => Ok(Stored::Bcrypt(text.into())),
        0..4 => Err(broken()),
        _ => Err(HashError::Bcrypt(cost)),
    }
}

fn argon2(text: &str) -> Result<Stored, HashError> {
    let broken = || HashError::Broken("argon2");
    let hash = PasswordHash::new(text).map_err(|_| broken())?;
    argon2::Algorithm::new(hash.algorithm.as_str()).map_err(|_| broken())?;
    let version = hash.version.unwrap_or(0x13);
    if hash.salt.is_none() || hash.hash.is_none() || argon2::Version::try_from(version).is_err() {
        return Err(broken());
    }
    let params = argon2::Params::try_from(&hash).map_err(|_| broken())?;
    let (m, t, p) = (params.m_cost(), params.t_cost(), params.p_cost());
    if m > ARGON2_MEMORY || t > ARGON2_PASSES || p > ARGON2_LANES {
        return Err(HashError::Argon2 { m, t, p });
    }
    Ok(Stored::Argon2(Box::new(hash)))
}

fn sha_crypt(text: &str) -> Result<Stored, HashError> {
    let broken = || HashError::Broken("SHA-crypt");
    let fields: Vec<&str> = text.split('$').skip(2).collect();
    let (rounds, salt, digest) = match fields[..] {
        [rounds, salt, digest] => (Some(rounds), salt, digest),
        [salt, digest] => (None, salt, digest),
        _ => return Err(broken()),
    };
    if let Some(rounds) = rounds {
        let rounds: u32 = rounds.strip_prefix("rounds=").and_then(|n| n.parse().ok()).ok_or_else(broken)?;
        match rounds {
            1000..=SHA_CRYPT_ROUNDS => {}
            0..1000 => return Err(broken()),
            _ => return Err(HashError::Rounds(rounds)),
        }
    }
    let length = if text.starts_with("$5$") { 43 } else { 86 };
    let plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'/');
    if digest.len() != length || !plain(digest) || salt.is_empty() || salt.len() > 16 || !plain(salt) {
        return Err(broken());
    }
    Ok(Stored::ShaCrypt(text.into()))
}

/// A digest that is read already, or why not; the salt decides whether it is the kind that was written.
struct Read(Result<Stored, HashError>, &'static str);

impl Read {
    fn filter(self, good: impl FnOnce(&[u8]) -> bool) -> Result<Stored, HashError> {
        let Self(read, kind) = self;
        match read {
            Ok(Stored::Sha1 { digest, salt }) if good(&salt) => Ok(Stored::Sha1 { digest, salt }),
            Ok(_) => Err(HashError::Broken(kind)),
            Err(error) => Err(error),
        }
    }
}

fn sha1(text: &str, kind: &'static str) -> Read {
    let read = STANDARD.decode(text).ok().filter(|bytes| bytes.len() <= 20 + 64).and_then(|bytes| {
        let (digest, salt) = bytes.split_first_chunk::<20>()?;
        Some(Stored::Sha1 { digest: *digest, salt: salt.into() })
    });
    Read(read.ok_or(HashError::Broken(kind)), kind)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Made by Apache's htpasswd, crypt(3), openssl and the reference argon2; the password is "correct horse".
    const GOOD: [&str; 11] = [
        "$2y$04$CkBbF7bMdpwuSSQyFmmdXeZ4uf/Swi0BCocSc0sRshxdHAoxc6rHq",
        "$2b$04$abcdefghijklmnopqrstuujydOTSfIH/d5oUHpsygqV5X9xJLQc6e",
        "$2a$04$abcdefghijklmnopqrstuujydOTSfIH/d5oUHpsygqV5X9xJLQc6e",
        "$argon2id$v=19$m=64,t=2,p=2$c29tZXNhbHQxMjM0NTY3OA$HqfsbePhQ0iCjxxCv8RSOjxYwbqIqJUTetmvsCcFRxQ",
        "$argon2i$v=19$m=64,t=2,p=2$c29tZXNhbHQxMjM0NTY3OA$4IQR0V/PS4FqiDAhHrvfXgLF7vA4TryYll38fN4khAw",
        "$argon2d$v=19$m=64,t=2,p=2$c29tZXNhbHQxMjM0NTY3OA$J6cO2htfsbmXyNpDpCkCCfVr1zOilSTBQQD146wU/Ss",
        "$5$/RWSMlY3YHJbkfda$I3EatkMLY2sdpHFiijkaix0u0xZ.ROIMCQ/uJhIATD1",
        "$5$rounds=1000$abcdefgh$ue35C0ITbth1b5zVUjrjm2mMmsmMKiodEeH2UV/Hq10",
        "$6$abcdefgh$yIZAF3gQPvtKZO/9qOJKffAKKbtS3ef3qmwyugk4uWVjX8YZf/GV3A8SkFxEPY0T56CcilGrHKLffBsp6dLMG.",
        "{SHA}L55TUjtiq8FBorTWAZ0jy6g129A=",
        "{SSHA}awc/Cj0kafyFd5d8fGn07xoHBJJzYWx0c2FsdA==",
    ];

    #[test]
    fn every_kind_knows_its_password_and_no_other() {
        for hash in GOOD {
            let stored = Stored::parse(hash).unwrap_or_else(|error| panic!("{hash} {error}"));
            assert!(stored.fits(b"correct horse"), "{hash}");
            for wrong in [&b""[..], b"correct hors", b"correct horse ", b"Correct horse", &[b'x'; LONGEST_PASSWORD + 1]] {
                assert!(!stored.fits(wrong), "{hash} {wrong:?}");
            }
        }
    }

    #[test]
    fn what_costs_too_much_is_refused_when_it_is_read() {
        let error = |hash: &str| Stored::parse(hash).expect_err(hash);
        let bcrypt = |cost: &str| format!("$2y${cost}$CkBbF7bMdpwuSSQyFmmdXeZ4uf/Swi0BCocSc0sRshxdHAoxc6rHq");
        assert!(Stored::parse(&bcrypt("15")).is_ok());
        assert_eq!(error(&bcrypt("16")), HashError::Bcrypt(16));
        assert_eq!(error(&bcrypt("03")), HashError::Broken("bcrypt"));
        let argon2 = |params: &str| GOOD[3].replace("m=64,t=2,p=2", params);
        assert!(Stored::parse(&argon2("m=262144,t=10,p=16")).is_ok());
        for params in ["m=262145,t=1,p=1", "m=64,t=11,p=1", "m=4294967295,t=1,p=1", "m=256,t=1,p=17"] {
            assert!(matches!(error(&argon2(params)), HashError::Argon2 { .. }), "{params}");
        }
        let sha = |rounds: &str| GOOD[7].replace("1000", rounds);
        assert!(Stored::parse(&sha("1000000")).is_ok());
        assert_eq!(error(&sha("1000001")), HashError::Rounds(1_000_001));
        assert_eq!(error(&sha("999")), HashError::Broken("SHA-crypt"));
    }

    #[test]
    fn what_is_weak_or_no_hash_is_refused() {
        for (text, wanted) in [
            ("secret", HashError::Unknown),
            ("", HashError::Unknown),
            ("$2x$04$abcdefghijklmnopqrstuujydOTSfIH/d5oUHpsygqV5X9xJLQc6e", HashError::Unknown),
            ("{PLAIN}secret", HashError::Unknown),
            ("$apr1$abcdefgh$sIQmFnT1CuEXAsyjuXjUX/", HashError::Md5),
            ("atWx1gBv/UKM.", HashError::Des),
            ("$2y$10$short", HashError::Broken("bcrypt")),
            ("$argon2id$v=19$m=64,t=2,p=2$c29tZXNhbHQxMjM0NTY3OA", HashError::Broken("argon2")),
            ("$argon2x$v=19$m=64,t=2,p=2$c29tZXNhbHQxMjM0NTY3OA$4IQR0V", HashError::Broken("argon2")),
            ("{SHA}L55TUjtiq8FBorTWAZ0jy6g1", HashError::Broken("{SHA}")),
            ("{SHA}awc/Cj0kafyFd5d8fGn07xoHBJJzYWx0c2FsdA==", HashError::Broken("{SHA}")),
            ("{SSHA}L55TUjtiq8FBorTWAZ0jy6g129A=", HashError::Broken("{SSHA}")),
            ("$6$abcdefgh$yIZ", HashError::Broken("SHA-crypt")),
            ("$5$a$b$c$d$e", HashError::Broken("SHA-crypt")),
        ] {
            assert_eq!(Stored::parse(text).expect_err(text), wanted, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(\\$2y\\$|\\$argon2id\\$|\\$5\\$|\\{SHA\\}|\\{SSHA\\}|)[ -~\u{e4}]{0,70}", cut in 0_usize..80, which in 0..GOOD.len()) {
            let _ = Stored::parse(&text);
            // What is left of a good one is never taken for another.
            if let Some(cut) = GOOD[which].get(..cut).filter(|cut| cut.len() < GOOD[which].len())
                && let Ok(stored) = Stored::parse(cut)
            {
                prop_assert!(!stored.fits(b"correct horse"), "{cut}");
            }
        }
    }
}
