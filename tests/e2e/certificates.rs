//! Pairs of one's own that are not as they should be: who is served with what, and who is told. Made by openssl, as people make them.

use std::{path::Path, process::Command, time::SystemTime};

use crate::harness::{
    Gateway,
    gateway::workdir,
    get,
    tls::{TlsClient, write_certificate, write_certificate_of},
    wait::secs,
};

const RESPOND: &str = "[site.route.\"/\"]\nrespond = { status = 200, body = \"ok\" }\n";

fn site(dir: &Path, name: &str) -> String {
    format!("[[site]]\nhost = \"{name}.test\"\ntls = {{ cert = \"{0}/{name}.pem\", key = \"{0}/{name}.key\" }}\n{RESPOND}", dir.display())
}

/// Errors end the test with what openssl said.
fn openssl(dir: &Path, words: &str) {
    let done = Command::new("openssl").args(words.split_whitespace()).current_dir(dir).output().expect("openssl is installed");
    assert!(done.status.success(), "openssl {words}: {}", String::from_utf8_lossy(&done.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expired_broken_and_missing_pairs_keep_no_other_site_down_at_a_start() {
    let certs = workdir();
    let dir = certs.path();
    let good = write_certificate(dir, "good", &["good.test"]);
    let day = secs(86_400);
    let old = write_certificate_of(dir, "old", &["old.test"], SystemTime::now() - 3 * day, SystemTime::now() - day);
    write_certificate(dir, "broken", &["broken.test"]);
    std::fs::write(dir.join("broken.pem"), "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n").expect("written");
    write_certificate(dir, "other", &["mismatch.test"]);
    write_certificate(dir, "mismatch", &["mismatch.test"]);
    std::fs::rename(dir.join("other.key"), dir.join("mismatch.key")).expect("put in place");
    let names = ["good", "old", "broken", "mismatch", "gone"];
    let text: String = names.iter().map(|name| site(dir, name)).collect();
    let club = format!("[[site]]\nhost = \"club.test\"\ntls = \"internal\"\nclient_ca = \"{}/no-ca.pem\"\n{RESPOND}", dir.display());
    let gateway = Gateway::start(&format!("{text}{club}"));
    let client = TlsClient::gullible();
    assert_eq!(client.shown(gateway.https(), "good.test").await.expect("a handshake"), good);
    assert_eq!(client.shown(gateway.https(), "old.test").await.expect("a handshake"), old);
    for name in ["broken.test", "mismatch.test", "gone.test"] {
        let shown = client.shown(gateway.https(), name).await.expect("a stand-in");
        assert!(shown != good && shown != old, "{name}");
    }
    let health = get(gateway.admin(), "localhost", "/health").await.expect("an answer");
    let health = String::from_utf8_lossy(&health.body).into_owned();
    let metrics = get(gateway.admin(), "localhost", "/metrics").await.expect("an answer");
    let metrics = String::from_utf8_lossy(&metrics.body).into_owned();
    for name in ["old", "broken", "mismatch", "gone"] {
        assert!(health.contains(&format!("certificate of {name}.test")), "{name}: {health}");
        assert!(metrics.contains(&format!("gateway_certificate_problem{{host=\"{name}.test\"}} 1")), "{name}: {metrics}");
        assert!(gateway.output().contains(&format!("{name}.pem")), "{name}");
    }
    let checked = gateway.cli(&["check"]);
    assert_eq!(checked.status.code(), Some(78));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_as_people_glue_them_together_are_read_and_what_is_missing_is_said() {
    let certs = workdir();
    let dir = certs.path();
    openssl(dir, "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout root.key -out root.pem -subj /CN=Root -days 30");
    std::fs::write(dir.join("ca.ext"), "basicConstraints=critical,CA:TRUE\n").expect("written");
    std::fs::write(dir.join("a.ext"), "subjectAltName=DNS:a.test\n").expect("written");
    let signed = |name: &str, by: &str, ext: &str| {
        openssl(
            dir,
            &format!("req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {name}.key -out {name}.csr -subj /CN={name}"),
        );
        openssl(
            dir,
            &format!("x509 -req -in {name}.csr -CA {by}.pem -CAkey {by}.key -CAcreateserial -out {name}.pem -days 30 -extfile {ext}"),
        );
    };
    signed("middle", "root", "ca.ext");
    signed("a", "middle", "a.ext");
    let read = |name: &str| std::fs::read_to_string(dir.join(format!("{name}.pem"))).expect("made");
    let (leaf, middle, root) = (read("a"), read("middle"), read("root"));
    let gateway = Gateway::start(&site(dir, "a"));
    assert!(gateway.output().contains("without the one that signed it"), "{}", gateway.output());
    let forms = [
        format!("{}{}", leaf.trim_end(), middle.trim_end()),
        format!("{root}{middle}{leaf}"),
        format!("{middle}{leaf}{root}"),
        format!("\u{feff}{leaf}{middle}"),
    ];
    for form in forms {
        std::fs::write(dir.join("a.pem"), form).expect("written");
        let checked = gateway.cli(&["check"]);
        let said = format!("{}{}", String::from_utf8_lossy(&checked.stdout), String::from_utf8_lossy(&checked.stderr));
        assert!(checked.status.success() && !said.contains("bad-certificate"), "{said}");
        gateway.reload(&site(dir, "a")).expect("in order");
    }
    std::fs::write(dir.join("a.pem"), &leaf).expect("written");
    gateway.write_config(&site(dir, "a").replace("host = \"a.test\"", "host = [\"a.test\", \"b.test\"]"));
    let checked = gateway.cli(&["check"]);
    let said = String::from_utf8_lossy(&checked.stderr);
    assert!(
        said.contains("without the one that signed it (middle)") && said.contains("no certificate for b.test, only for a.test"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_certificate_of_version_1_is_refused_with_that_reason() {
    let certs = workdir();
    let dir = certs.path();
    openssl(dir, "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -subj /CN=Club -days 30");
    openssl(dir, "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ann.key -out ann.csr -subj /CN=Ann");
    std::fs::write(dir.join("none.ext"), "").expect("written");
    openssl(dir, "x509 -req -in ann.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out ann.pem -days 30 -extfile none.ext");
    let text = std::fs::read_to_string(dir.join("ann.pem")).expect("made");
    assert!(text.contains("BEGIN CERTIFICATE"));
    let gateway =
        Gateway::start(&format!("[[site]]\nhost = \"club.test\"\ntls = \"internal\"\nclient_ca = \"{}/ca.pem\"\n{RESPOND}", dir.display()));
    let https = gateway.https();
    let done = Command::new("curl")
        .args(["-sk", "--max-time", "10", "--cert", "ann.pem", "--key", "ann.key", "--resolve"])
        .arg(format!("club.test:{}:{}", https.port(), https.ip()))
        .arg(format!("https://club.test:{}/", https.port()))
        .current_dir(dir)
        .output()
        .expect("curl is installed");
    assert!(!done.status.success(), "{done:?}");
    crate::harness::wait::eventually_async("the log says why", secs(10), || async {
        if gateway.output().contains("X.509 version 1") { Ok(()) } else { Err(gateway.output()) }
    })
    .await;
}
