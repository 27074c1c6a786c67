//! What is wrong with certificates that can be served all the same.
//!
//! Pure.

use super::{order, pair::Pair};
use crate::{plan::Site, vocab::HostPattern};

/// So many names are listed of more.
const SHOWN: usize = 3;

/// What some clients would take offence at, of all pairs that one site may serve. One sentence each.
#[must_use]
pub fn remarks(pairs: &[&Pair], hosts: &[HostPattern]) -> Vec<String> {
    if pairs.is_empty() {
        return Vec::new();
    }
    let mut all = Vec::new();
    for pair in pairs.iter().filter(|pair| lacks_what_signed_it(pair)) {
        let (names, issuer) = (listed(&pair.names), &pair.issuer);
        all.push(format!(
            "the certificate for {names} comes without the one that signed it ({issuer}): clients that do not know that one refuse it"
        ));
    }
    let missed: Vec<String> = hosts.iter().filter(|host| !pairs.iter().any(|pair| covers(pair, host))).map(ToString::to_string).collect();
    if !missed.is_empty() {
        let names: Vec<String> = pairs.iter().flat_map(|pair| pair.names.iter().cloned()).collect();
        let names = if names.is_empty() { "no name".to_owned() } else { listed(&names) };
        all.push(format!("there is no certificate for {}, only for {names}: clients refuse it", listed(&missed)));
    }
    all
}

/// All names that a site is asked for by, those included that only lead to another one.
#[must_use]
pub fn named(site: &Site) -> Vec<HostPattern> {
    site.hosts.iter().cloned().chain(site.redirected.iter().cloned().map(HostPattern::Exact)).collect()
}

fn lacks_what_signed_it(pair: &Pair) -> bool {
    match &*pair.certified.cert {
        _ if pair.signed_itself => false,
        [own, above, ..] => !order::signed(above, own),
        _ => true,
    }
}

fn covers(pair: &Pair, host: &HostPattern) -> bool {
    match host {
        HostPattern::Any => true,
        HostPattern::Exact(host) => pair.is_for(host.as_str()),
        HostPattern::Wildcard(parent) => pair.names.iter().any(|name| name.strip_prefix("*.") == Some(parent.as_str())),
    }
}

fn listed(names: &[String]) -> String {
    let shown = names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    // Of a certificate, and so of anybody's making.
    let shown: String = shown.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if names.len() > SHOWN { format!("{shown} and {} more", names.len() - SHOWN) } else { shown }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

    use super::*;

    #[test]
    fn a_missing_intermediate_and_names_that_do_not_fit_are_said() {
        let key = || KeyPair::generate().expect("a key");
        let mut ca = CertificateParams::new(["ca.test".to_owned()]).expect("names");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.distinguished_name.push(rcgen::DnType::CommonName, "Test CA");
        let ca = CertifiedIssuer::self_signed(ca, key()).expect("made");
        let own = key();
        let leaf = CertificateParams::new(["a.test".to_owned(), "*.b.test".to_owned()]).expect("names").signed_by(&own, &ca).expect("made");
        let alone = Pair::from_pem(leaf.pem().as_bytes(), own.serialize_pem().as_bytes()).expect("a pair");
        let whole = Pair::from_pem(format!("{}{}", leaf.pem(), ca.pem()).as_bytes(), own.serialize_pem().as_bytes()).expect("a pair");
        let host = |text: &str| HostPattern::parse(text).expect("a host");
        let good = [host("a.test"), host("x.b.test"), host("*.b.test")];
        assert_eq!(remarks(&[&whole], &good), Vec::<String>::new());
        let said = remarks(&[&alone], &good);
        assert!(said.len() == 1 && said[0].contains("Test CA"), "{said:?}");
        let said = remarks(&[&whole], &[host("a.test"), host("b.test"), host("*.a.test")]);
        assert!(said.len() == 1 && said[0].contains("for b.test, *.a.test, only for a.test, *.b.test"), "{said:?}");
    }
}
