use rcgen::{CertificateParams, KeyPair};
use rustls::{NamedGroup, SupportedCipherSuite, crypto::KeyExchangeAlgorithm};

use super::*;

const NOW: i64 = 1_000_000;

fn pair(from: i64, to: i64) -> Pair {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(["a.test".to_owned()]).expect("names");
    let at = |seconds: i64| std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds.unsigned_abs());
    (params.not_before, params.not_after) = (at(from).into(), at(to).into());
    let chain = params.self_signed(&key).expect("signed").pem();
    Pair::from_pem(chain.as_bytes(), key.serialize_pem().as_bytes()).expect("a pair")
}

fn again(pair: &Pair) -> Pair {
    let Pair { certified, names, not_before, not_after, issuer, serial, signed_itself } = pair;
    let (certified, names, issuer, serial) = (certified.clone(), names.clone(), issuer.clone(), serial.clone());
    Pair { certified, names, not_before: *not_before, not_after: *not_after, issuer, serial, signed_itself: *signed_itself }
}

#[test]
fn only_a_pair_that_can_be_served_now_replaces_one() {
    let old = Arc::new(pair(NOW - 10, NOW + 10));
    for bad in [OnBadPair::Refuse, OnBadPair::Keep] {
        let chosen = choose(Ok(pair(NOW, NOW + 20)), Some(&old), NOW, bad).expect("taken");
        assert!(chosen.problem.is_none() && !chosen.pair.expect("one").is(&old));
    }
    let late = || Ok(pair(NOW - 10, NOW - 1));
    let early = || Ok(pair(NOW + 1, NOW + 10));
    let broken = || Err(PairError::Mismatch);
    let faults: [&dyn Fn() -> Result<Pair, PairError>; 3] = [&late, &early, &broken];
    for read in faults {
        assert!(choose(read(), Some(&old), NOW, OnBadPair::Refuse).is_err());
        let chosen = choose(read(), Some(&old), NOW, OnBadPair::Keep).expect("kept");
        assert!(chosen.problem.is_some() && chosen.pair.expect("one").is(&old));
    }
}

#[test]
fn a_pair_that_ran_out_in_service_is_no_obstacle_to_a_reload() {
    let old = Arc::new(pair(NOW - 10, NOW - 1));
    for bad in [OnBadPair::Refuse, OnBadPair::Keep] {
        let chosen = choose(Ok(again(&old)), Some(&old), NOW, bad).expect("kept");
        assert!(matches!(chosen.problem, Some(PairError::Expired { .. })));
        assert!(chosen.pair.expect("one").is(&old));
    }
}

#[test]
fn an_old_date_is_served_where_there_is_nothing_better() {
    let chosen = choose(Ok(pair(NOW - 10, NOW - 1)), None, NOW, OnBadPair::Keep).expect("served");
    assert!(chosen.pair.is_some() && matches!(chosen.problem, Some(PairError::Expired { .. })));
    let chosen = choose(Err(PairError::NoKey), None, NOW, OnBadPair::Keep).expect("said");
    assert!(chosen.pair.is_none() && chosen.problem.is_some());
}

#[test]
fn every_suite_is_aead_with_ecdhe_and_the_hybrid_group_comes_first() {
    let provider = provider();
    for suite in &provider.cipher_suites {
        let name = format!("{:?}", suite.suite());
        assert!(name.contains("GCM") || name.contains("CHACHA20_POLY1305"), "{name}");
        match suite {
            SupportedCipherSuite::Tls12(suite) => assert_eq!(suite.kx, KeyExchangeAlgorithm::ECDHE, "{name}"),
            SupportedCipherSuite::Tls13(_) => {}
        }
    }
    assert_eq!(provider.kx_groups[0].name(), NamedGroup::X25519MLKEM768);
}
