//! The `Authorization: Basic` field: a name and a password out of base64.
//!
//! Pure. Source: RFC 7617 §2; RFC 9110 §11.1 (the scheme's case does not matter).

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

use super::{htpasswd::LONGEST_NAME, password::LONGEST_PASSWORD};

/// A longer field names nobody who could be here.
const LONGEST: usize = (LONGEST_NAME + 1 + LONGEST_PASSWORD) * 4 / 3 + 16;
const BASE64: GeneralPurpose =
    GeneralPurpose::new(&alphabet::STANDARD, GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent));

/// What a client claims.
#[derive(Clone, Eq, PartialEq)]
pub struct Claim {
    bytes: Vec<u8>,
    colon: usize,
}

impl Claim {
    /// `None`: the field is of another scheme, or no claim that could be good.
    #[must_use]
    pub fn parse(field: &[u8]) -> Option<Self> {
        if field.len() > LONGEST {
            return None;
        }
        let (scheme, rest) = field.split_at_checked(6)?;
        if !scheme.eq_ignore_ascii_case(b"basic ") {
            return None;
        }
        let bytes = BASE64.decode(rest.trim_ascii()).ok()?;
        let colon = bytes.iter().position(|byte| *byte == b':')?;
        Some(Self { bytes, colon })
    }

    #[must_use]
    pub fn name(&self) -> &[u8] {
        &self.bytes[..self.colon]
    }

    /// Everything after the first colon, colons too.
    #[must_use]
    pub fn password(&self) -> &[u8] {
        &self.bytes[self.colon + 1..]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parts(field: &str) -> Option<(String, String)> {
        let claim = Claim::parse(field.as_bytes())?;
        Some((String::from_utf8_lossy(claim.name()).into(), String::from_utf8_lossy(claim.password()).into()))
    }

    #[test]
    fn a_claim_is_read_as_the_rfc_writes_it() {
        let pair = |name: &str, password: &str| Some((name.to_owned(), password.to_owned()));
        assert_eq!(parts("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="), pair("Aladdin", "open sesame"));
        assert_eq!(parts("basic  QWxhZGRpbjpvcGVuIHNlc2FtZQ"), pair("Aladdin", "open sesame"));
        assert_eq!(parts("BASIC dGVzdDoxMjPCow=="), pair("test", "123\u{a3}"));
        // "a:b:c" and ":"
        assert_eq!(parts("Basic YTpiOmM="), pair("a", "b:c"));
        assert_eq!(parts("Basic Og=="), pair("", ""));
        for bad in
            ["", "Basic", "Basic ", "Bearer QWxhZGRpbjpvcGVuIHNlc2FtZQ==", "Basic !!!!", "Basic YQ==", "BasicYTpi", "Basic YTpi YTpi"]
        {
            assert_eq!(parts(bad), None, "{bad}");
        }
        assert_eq!(parts(&format!("Basic {}", "YTph".repeat(1000))), None);
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_read(name in "[^:]{0,80}", password in ".{0,100}") {
            let field = format!("Basic {}", BASE64.encode(format!("{name}:{password}")));
            prop_assert_eq!(parts(&field), Some((name, password)));
        }

        #[test]
        fn no_bytes_panic(field in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = Claim::parse(&field);
        }
    }
}
