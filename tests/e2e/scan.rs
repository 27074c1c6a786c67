//! What two scanners that people trust find on a default site: nothing above LOW, and the rest on record.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use crate::harness::{Gateway, eventually, heavy, wait::secs};

const TEXT: &str = "[[site]]\nhost = \"localhost\"\ntls = \"internal\"\n[site.route.\"/\"]\nrespond = { status = 200, body = \"ok\" }\n";
/// A scan takes a minute; on a busy machine some.
const PATIENCE: Duration = Duration::from_secs(400);
/// Scans until each check got through once.
const MOST_SCANS: usize = 4;
/// What is not the server's doing, by testssl's name: our own CA, which only this test trusts, keeps no list of what it revoked.
const OF_THE_CA: [&str; 1] = ["cert_revocation"];

/// Runs to its end; what it wrote to stdout.
fn run(dir: &Path, program: &str, arguments: &[&str]) -> String {
    let output = std::fs::File::create(dir.join(program)).expect("a file");
    let mut child = Command::new(program)
        .args(arguments)
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("{program} (./dev tools installs it): {error}"));
    let begun = std::time::Instant::now();
    let end = loop {
        match child.try_wait().expect("our child") {
            Some(end) => break Some(end),
            None if begun.elapsed() > PATIENCE => {
                child.kill().expect("our child");
                break child.wait().ok().filter(|_| false);
            }
            None => std::thread::sleep(Duration::from_millis(50)),
        }
    };
    let said = std::fs::read_to_string(dir.join(program)).expect("text");
    assert!(end.is_some(), "{program} did not end in time:\n{said}");
    said
}

/// What testssl says of the openssl that it runs, on some machines.
const OF_ITSELF: &str = "engine_problem";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn testssl_finds_nothing_above_low() {
    let _turn = heavy().await;
    let gateway = Gateway::start(TEXT);
    let work = crate::harness::gateway::workdir();
    let ca = gateway.state().join("edge/internal-ca.pem");
    let ca = eventually("the internal CA is on disk", secs(10), || ca.canonicalize());
    let (ca, target) = (ca.display().to_string(), format!("localhost:{}", gateway.https().port()));
    let quiet = ["--quiet", "--warnings", "batch", "--color", "0", "--ip", "127.0.0.1", "--nodns", "none"];
    let bounds = ["--connect-timeout", "5", "--openssl-timeout", "5", "--add-ca", &ca, "--jsonfile", "found.json"];
    // Protocols, categories of ciphers, forward secrecy, preferences, each cipher, vulnerabilities, certificate and defaults.
    let sections = ["-p", "-s", "-f", "-P", "-E", "-U", "-S", &target];
    // A check that did not get through says nothing of us: on a machine with much to do testssl's own openssl leaves before the ticket has come. What one scan did
    // not hear, the next one may.
    let unheard = |finding: &serde_json::Value| finding["finding"].as_str().is_some_and(|text| text.contains("check failed"));
    let mut found: Vec<serde_json::Value> = Vec::new();
    let mut said = String::new();
    for _ in 0..MOST_SCANS {
        drop(std::fs::remove_file(work.path().join("found.json")));
        said = run(work.path(), "testssl", &[&quiet[..], &bounds[..], &sections[..]].concat());
        let text = std::fs::read_to_string(work.path().join("found.json")).unwrap_or_else(|error| panic!("{error}: {said}"));
        let scan: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {said}"));
        if found.is_empty() {
            found = scan;
        } else {
            for finding in found.iter_mut().filter(|finding| unheard(finding)) {
                if let Some(heard) = scan.iter().find(|other| other["id"] == finding["id"] && !unheard(other)) {
                    *finding = heard.clone();
                }
            }
        }
        if !found.iter().any(unheard) {
            break;
        }
    }
    let text = |finding: &serde_json::Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    let bad = |finding: &&serde_json::Value| {
        let severity = text(finding, "severity");
        let id = text(finding, "id");
        !matches!(&*severity, "OK" | "INFO" | "LOW") && !OF_THE_CA.contains(&&*id) && id != OF_ITSELF
    };
    assert_eq!(found.iter().find(bad), None);
    let mut lines: Vec<_> = found.iter().map(|finding| format!("{} {}", text(finding, "severity"), text(finding, "id"))).collect();
    lines.retain(|line| !line.ends_with(" scanTime") && !line.ends_with(OF_ITSELF));
    lines.sort();
    assert!(lines.len() > 50, "{said}");
    insta::assert_snapshot!("testssl", lines.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sslscan_finds_strong_ciphers_alone() {
    let _turn = heavy().await;
    let gateway = Gateway::start(TEXT);
    let work = crate::harness::gateway::workdir();
    let said = run(work.path(), "sslscan", &["--xml=-", "--no-colour", &format!("localhost:{}", gateway.https().port())]);
    let of = |element: &str| -> Vec<String> {
        let start = format!("<{element} ");
        said.lines().map(str::trim).filter(|line| line.starts_with(&start)).map(str::to_owned).collect()
    };
    let (protocols, ciphers) = (of("protocol"), of("cipher"));
    assert!(protocols.len() >= 6 && ciphers.len() >= 6, "{said}");
    let enabled: Vec<_> = protocols.iter().filter(|line| line.contains("enabled=\"1\"")).collect();
    assert!(enabled.iter().all(|line| line.contains("\"tls\" version=\"1.2\"") || line.contains("\"tls\" version=\"1.3\"")), "{enabled:?}");
    // It looks for ECDHE in the name, which no suite of TLS 1.3 has: they count as acceptable.
    let good =
        |line: &String| line.contains("strength=\"strong\"") || line.contains("sslversion=\"TLSv1.3\"") && line.contains("\"acceptable\"");
    assert!(ciphers.iter().all(good), "{ciphers:?}");
    insta::assert_snapshot!("sslscan", [protocols, ciphers, of("heartbleed"), of("group")].concat().join("\n"));
}
