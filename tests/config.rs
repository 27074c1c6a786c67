//! The configuration from the outside: every file of tests/config/bad with its complaints, good ones, includes, placeholders, and that no text panics.
//!
//! A changed complaint: `INSTA_UPDATE=always cargo test --test config`, then read the diff. In CI a missing or different snapshot fails.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    num::NonZeroUsize,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use gateway::{
    config::{
        compile::Surroundings,
        complaint::{Colours, Complaints},
        load::{load_in, load_running, load_to_show},
        schema, show,
    },
    plan::{self, Plan},
};
use proptest::prelude::*;

fn here() -> Surroundings {
    Surroundings { root: false, cores: NonZeroUsize::new(2).expect("two"), dir: "/srv".into() }
}

const SECRET: &str = "hush-hush";

fn env(name: &str) -> Option<String> {
    match name {
        "GATEWAY_TOKEN" => Some(SECRET.into()),
        "PORT_TEXT" => Some("8443".into()),
        _ => None,
    }
}

fn load(path: &Path) -> Result<Plan, Complaints> {
    load_in(path, &env, &here())
}

/// A text as the file `gateway.toml` of a directory of its own.
fn load_text(text: &[u8]) -> Result<Plan, Complaints> {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("gateway.toml");
    fs::write(&path, text).expect("written");
    load(&path)
}

fn good(text: &str) -> Plan {
    load_text(text.as_bytes()).unwrap_or_else(|complaints| panic!("{complaints}\n\n{text}"))
}

fn report(path: &str) -> String {
    load(Path::new(path)).expect_err(path).to_string()
}

fn snapshots() -> insta::Settings {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("config/snapshots");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings
}

#[test]
fn every_bad_configuration_is_refused_with_all_its_complaints() {
    let files = toml_files(Path::new("tests/config/bad"));
    assert!(files.len() >= 45, "{} files", files.len());
    let mut failed = Vec::new();
    for path in &files {
        let name = path.file_stem().expect("a name").to_str().expect("UTF-8").to_owned();
        let complaints = load(path).expect_err(&name);
        let report = complaints.to_string();
        assert!(!report.contains(SECRET), "{name}: a secret shows\n{report}");
        assert!(report.ends_with("nothing was changed"), "{name}: {report}");
        assert!(!complaints.is_empty(), "{name}");
        // Every snapshot is looked at, also after one that differs.
        let compare = || snapshots().bind(|| insta::assert_snapshot!(name.as_str(), report));
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(compare)).is_err() {
            failed.push(name);
        }
    }
    assert!(failed.is_empty(), "differ: {failed:?}");
}

#[test]
fn no_snapshot_is_left_over() {
    let stems = |dir: &str, suffix: &str| -> BTreeSet<String> {
        let names = fs::read_dir(dir).expect(dir).map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"));
        names.filter_map(|name| name.strip_suffix(suffix).map(str::to_owned)).collect()
    };
    let snapshots = stems("tests/config/snapshots", ".snap");
    let mut wanted = stems("tests/config/bad", ".toml");
    wanted.extend(["include-twice", "include-broken", "include-cycle", "schema-keys"].map(str::to_owned));
    assert_eq!(snapshots, wanted);
}

#[test]
fn every_configuration_that_we_ship_is_good() {
    let files = toml_files(Path::new("conf"));
    assert!(files.len() >= 5, "conf/ holds {} files", files.len());
    for path in files {
        if let Err(complaints) = load(&path) {
            panic!("{complaints}");
        }
    }
}

#[test]
fn includes_merge_tables_and_append_sites() {
    let plan = load(Path::new("tests/config/include/good.toml")).unwrap_or_else(|complaints| panic!("{complaints}"));
    let names: Vec<&str> = plan.sites.iter().map(|site| site.name.as_str()).collect();
    assert_eq!(names, ["first", "second", "third"]);
    assert_eq!(plan.listen.http, ["127.0.0.1:8080".parse().expect("an address")]);
    assert_eq!(plan.listen.https, ["127.0.0.1:8443".parse().expect("an address")]);
    assert_eq!(plan.apps.len(), 2);
    assert_eq!(plan.zones.len(), 1);
    // Relative to the file that names them.
    assert_eq!(plan.log.dir.as_deref(), Some(Path::new("/srv/tests/config/include/logs")));
    let dirs: Vec<_> = plan.apps.values().filter_map(|app| app.dir.clone()).collect();
    assert_eq!(dirs, [PathBuf::from("/srv/tests/config/include/sites/data"), PathBuf::from("/srv/tests/config/include")]);
    assert_eq!(plan.files.len(), 4);
    assert_eq!(plan.files[0], Path::new("/srv/tests/config/include/good.toml"));
}

#[test]
fn a_name_or_a_key_in_two_files_is_an_error_that_names_both() {
    snapshots().bind(|| insta::assert_snapshot!("include-twice", report("tests/config/include/twice.toml")));
}

#[test]
fn a_broken_file_does_not_hide_the_faults_of_the_others() {
    snapshots().bind(|| insta::assert_snapshot!("include-broken", report("tests/config/include/broken.toml")));
}

#[test]
fn a_cycle_of_includes_is_an_error() {
    snapshots().bind(|| insta::assert_snapshot!("include-cycle", report("tests/config/include/cycle.toml")));
}

#[test]
fn includes_are_bounded() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = |name: &str| dir.path().join(name);
    for n in 0..300 {
        fs::write(at(&format!("x{n}.toml")), "").expect("written");
    }
    fs::write(at("many.toml"), "include = \"x*.toml\"").expect("written");
    assert!(load(&at("many.toml")).expect_err("too many").to_string().contains("error[too-many-files]"));
    for n in 0..20 {
        fs::write(at(&format!("d{n}.toml")), format!("include = \"d{}.toml\"", n + 1)).expect("written");
    }
    assert!(load(&at("d0.toml")).expect_err("too deep").to_string().contains("error[include-depth]"));
    fs::write(at("big.toml"), vec![b'#'; (1 << 20) + 1]).expect("written");
    assert!(load(&at("big.toml")).expect_err("too big").to_string().contains("larger than 1MB"));
    fs::write(at("device.toml"), "user = \"{file:/dev/zero}\"\ninclude = \"/dev/zero\"").expect("written");
    assert!(load(&at("device.toml")).expect_err("a device").to_string().matches("not a regular file").count() == 2);
    // A glob that matches the file it stands in does not mean that file.
    fs::create_dir(at("self")).expect("made");
    fs::write(at("self/a.toml"), "include = \"*.toml\"").expect("written");
    assert!(load(&at("self/a.toml")).is_ok());
}

#[test]
fn variables_and_files_fill_in_any_string() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("token"), "from-a-file\n").expect("written");
    let text = r#"
        user = "{env.NO_SUCH:web}-{env.PORT_TEXT}"
        [admin]
        token = "{file:token}"
        [app.web]
        command = "serve {port} {other} {env.NO_SUCH:}"
        env = { A = "{env.GATEWAY_TOKEN}" }
    "#;
    let path = dir.path().join("gateway.toml");
    fs::write(&path, text).expect("written");
    let plan = load(&path).unwrap_or_else(|complaints| panic!("{complaints}"));
    assert_eq!(plan.user, "web-8443");
    assert_eq!(plan.admin.as_ref().and_then(|admin| admin.token.as_ref()).map(|token| token.reveal().as_str()), Some("from-a-file"));
    let app = plan.apps.values().next().expect("an app");
    assert_eq!(app.command, ["serve", "{port}", "{other}"]);
    assert_eq!(app.env["A"].reveal(), SECRET);
    let shown = show::effective(&plan);
    assert!(!shown.contains(SECRET) && !shown.contains("from-a-file"), "{shown}");
}

#[test]
fn an_environment_file_is_read_and_env_wins() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("web.env"), "# a comment\nexport A=1\nB=\"two words\"\n\nC='x=y'\n").expect("written");
    let path = dir.path().join("gateway.toml");
    fs::write(&path, "[app.web]\ncommand = \"serve\"\nenv = { A = \"2\" }\nenv_file = \"web.env\"\n").expect("written");
    let plan = load(&path).unwrap_or_else(|complaints| panic!("{complaints}"));
    let app = plan.apps.values().next().expect("an app");
    let all = |of: &BTreeMap<String, gateway::vocab::Secret<String>>| -> Vec<(String, String)> {
        of.iter().map(|(name, value)| (name.clone(), value.reveal().clone())).collect()
    };
    let pairs = |of: &[(&str, &str)]| of.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<Vec<_>>();
    assert_eq!(all(&app.env), pairs(&[("A", "2")]));
    assert_eq!(all(&app.env_file), pairs(&[("A", "1"), ("B", "two words"), ("C", "x=y")]));
}

#[test]
fn a_key_that_everyone_may_read_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = |name: &str| dir.path().join(name);
    fs::write(
        at("gateway.toml"),
        "[[site]]\nhost = \"a\"\ntls = { cert = \"c.pem\", key = \"k.pem\" }\n[site.route.\"/\"]\nrespond = \"x\"\n",
    )
    .expect("written");
    write_pair(dir.path(), 0, 1);
    let mode = |mode| fs::set_permissions(at("k.pem"), fs::Permissions::from_mode(mode)).expect("changed");
    mode(0o644);
    assert!(load(&at("gateway.toml")).expect_err("open to all").to_string().contains("error[insecure-file]"));
    mode(0o640);
    let plan = load(&at("gateway.toml")).unwrap_or_else(|complaints| panic!("{complaints}"));
    assert_eq!(plan.sites[0].tls, plan::SiteTls::Files { cert: at("c.pem"), key: at("k.pem") });
}

/// `c.pem` and `k.pem`, valid from and to so many days from now.
fn write_pair(dir: &Path, from: i64, to: i64) {
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::new(["a".to_owned()]).expect("names");
    let day = |days: i64| {
        let (now, away) = (std::time::SystemTime::now(), std::time::Duration::from_secs(days.unsigned_abs() * 86_400));
        if days < 0 { now - away } else { now + away }
    };
    (params.not_before, params.not_after) = (day(from).into(), day(to).into());
    fs::write(dir.join("c.pem"), params.self_signed(&key).expect("signed").pem()).expect("written");
    fs::write(dir.join("k.pem"), key.serialize_pem()).expect("written");
    fs::set_permissions(dir.join("k.pem"), fs::Permissions::from_mode(0o600)).expect("changed");
}

#[test]
fn a_pair_that_cannot_be_served_is_refused_with_its_reason_and_left_to_the_edge_of_a_running_gateway() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = |name: &str| dir.path().join(name);
    let text = "[[site]]\nhost = \"a\"\ntls = { cert = \"c.pem\", key = \"k.pem\" }\nroute = { \"/\" = { respond = \"x\" } }\n";
    fs::write(at("gateway.toml"), text).expect("written");
    let refused = |column: usize, file: &str, reason: &str| {
        let report = load(&at("gateway.toml")).expect_err(reason).to_string();
        let place = format!("error[bad-certificate] {}:3:{column}:", at("gateway.toml").display());
        assert!(report.contains(&place) && report.contains(&format!("could not use {}: {reason}", at(file).display())), "{report}");
        assert!(report.ends_with("\n1 error; nothing was changed"), "{report}");
        load_running(&at("gateway.toml"), &env).unwrap_or_else(|complaints| panic!("{complaints}"));
    };
    write_pair(dir.path(), -3, -1);
    refused(16, "c.pem", "it expired at 20");
    write_pair(dir.path(), 1, 3);
    refused(16, "c.pem", "it is not valid before 20");
    write_pair(dir.path(), -1, 3);
    let (chain, key) = (fs::read(at("c.pem")).expect("read"), fs::read(at("k.pem")).expect("read"));
    write_pair(dir.path(), -1, 3);
    fs::write(at("c.pem"), &chain).expect("written");
    refused(31, "k.pem", "it is not the key of the certificate");
    fs::write(at("k.pem"), &chain).expect("written");
    refused(31, "k.pem", "it holds no private key in PEM");
    fs::write(at("k.pem"), &key).expect("written");
    fs::write(at("c.pem"), &key).expect("written");
    refused(16, "c.pem", "it holds no certificate in PEM");
    fs::write(at("c.pem"), "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n").expect("written");
    refused(16, "c.pem", "the certificate in it cannot be understood");
    fs::write(at("c.pem"), &chain).expect("written");
    load(&at("gateway.toml")).unwrap_or_else(|complaints| panic!("{complaints}"));
}

#[test]
fn a_file_that_is_not_there_is_said_so() {
    let complaints = load(Path::new("tests/config/no-such.toml")).expect_err("missing").to_string();
    assert_eq!(complaints, "error[unreadable-file] could not read tests/config/no-such.toml: no such file\n1 error; nothing was changed");
}

#[test]
fn an_empty_file_is_a_configuration_of_defaults() {
    let plan = good("");
    assert_eq!(plan.listen.http.len(), 2);
    assert_eq!(plan.state, Path::new("/srv/gateway-state"));
    assert_eq!(plan.run, Path::new("/srv/gateway-state/run"));
    assert_eq!(plan.admin.as_ref().map(|admin| admin.listen.to_string()).as_deref(), Some("127.0.0.1:9900"));
    assert_eq!(plan.workers.get(), 2);
    let root = Surroundings { root: true, ..here() };
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("g.toml"), "").expect("written");
    let plan = load_in(&dir.path().join("g.toml"), &env, &root).unwrap_or_else(|complaints| panic!("{complaints}"));
    assert_eq!((plan.state.as_path(), plan.run.as_path()), (Path::new("/var/lib/gateway"), Path::new("/run/gateway")));
}

#[test]
fn the_demo_means_what_it_says() {
    let plan = load(Path::new("conf/demo.toml")).unwrap_or_else(|complaints| panic!("{complaints}"));
    let ports: Vec<_> = plan.apps.iter().map(|(name, app)| (name.as_str(), app.port.clone(), app.procs.get())).collect();
    assert_eq!(ports, [("api", plan::AppPort::Socket, 1), ("web", plan::AppPort::Allotted, 2)]);
    let site = &plan.sites[0];
    assert_eq!(site.name, "localhost");
    assert_eq!(site.redirected.iter().map(ToString::to_string).collect::<Vec<_>>(), ["www.localhost"]);
    assert_eq!(site.hosts.len(), 2);
    assert_eq!(site.headers, plan::HeaderBase::Strict.into());
    assert!(matches!(site.routes.last().expect("a route").path, plan::PathMatch::Prefix(ref path) if path == "/"));
}

#[test]
fn a_mail_address_and_a_host_are_all_that_a_certificate_needs() {
    let plan = good(
        "email = \"ops@example.com\"\n[[site]]\nhost = [\"example.com\", \"www.example.com\"]\nroute = { \"/\" = { respond = \"x\" } }",
    );
    assert_eq!(plan.sites[0].tls, plan::SiteTls::Acme);
    let plan::Acme { email, cas, challenges, profile } = &plan.tls.acme;
    assert_eq!((email.as_deref(), profile), (Some("ops@example.com"), &None));
    assert_eq!(challenges, &[plan::Challenge::TlsAlpn01, plan::Challenge::Http01]);
    let plan::Ca { name, directory, staging, root, eab } = &cas[0];
    assert_eq!((cas.len(), name.as_str(), directory.as_str()), (1, "letsencrypt", "https://acme-v02.api.letsencrypt.org/directory"));
    assert_eq!(staging.as_deref(), Some("https://acme-staging-v02.api.letsencrypt.org/directory"));
    assert_eq!((root, eab), (&None, &None));
}

#[test]
fn authorities_of_ones_own_and_names_on_demand_mean_what_is_written() {
    let dir = tempfile::tempdir().expect("a directory");
    let made = rcgen::generate_simple_self_signed(["ca.lan".to_owned()]).expect("made");
    fs::write(dir.path().join("root.pem"), made.cert.pem()).expect("written");
    fs::write(dir.path().join("key"), "-_-_aGk=\n").expect("written");
    let text = r#"
        [tls]
        ca = [
            { directory = "https://CA.lan:14000/dir", root = "root.pem" },
            "letsencrypt-staging",
            { name = "zero", directory = "https://acme.zerossl.com/v2/DV90", eab_kid = "kid-1", eab_key = "{file:key}" },
            { directory = "https://ca.example.com/a", staging = "https://ca.example.com/b", eab_kid = "kid-2", eab_key = "+/+/aGk" },
        ]
        challenges = ["http-01"]
        profile = "shortlived"
        [[site]]
        host = ["nas.lan", "127.0.0.1"]
        client_ca = "root.pem"
        route = { "/" = { respond = "x" } }
        [[site]]
        host = "*.shops.example.com"
        aliases = "_"
        tls = { on_demand = "http://127.0.0.1:9000/ask" }
        route = { "/" = { respond = "x" } }
    "#;
    let path = dir.path().join("gateway.toml");
    fs::write(&path, text).expect("written");
    let plan = load(&path).unwrap_or_else(|complaints| panic!("{complaints}"));
    let plan::Acme { email, cas, challenges, profile } = &plan.tls.acme;
    assert_eq!((email, profile.as_deref()), (&None, Some("shortlived")));
    assert_eq!(challenges, &[plan::Challenge::Http01]);
    assert_eq!(
        cas.iter().map(|ca| ca.name.as_str()).collect::<Vec<_>>(),
        ["ca.lan:14000", "letsencrypt-staging", "zero", "ca.example.com"]
    );
    assert_eq!(cas[0].root, Some(dir.path().join("root.pem")));
    assert_eq!(cas[3].staging.as_deref(), Some("https://ca.example.com/b"));
    let keys: Vec<_> = cas.iter().filter_map(|ca| ca.eab.as_ref()).map(|eab| (eab.kid.as_str(), eab.key.reveal().as_slice())).collect();
    assert_eq!(keys, [("kid-1", &b"\xfb\xff\xbfhi"[..]), ("kid-2", &b"\xfb\xff\xbfhi"[..])]);
    assert_eq!((&plan.sites[0].tls, &plan.sites[0].client_ca), (&plan::SiteTls::Acme, &Some(dir.path().join("root.pem"))));
    assert_eq!(plan.sites[1].tls, plan::SiteTls::OnDemand { ask: "http://127.0.0.1:9000/ask".into() });

    let shown = show::effective(&plan);
    assert!(!shown.contains("aGk") && !format!("{plan:?}").contains("[251"), "{shown}");
    let again = good(&shown);
    let open = |plan: &Plan| {
        let mut acme = plan.tls.acme.clone();
        acme.cas.iter_mut().for_each(|ca| ca.eab = None);
        (acme, plan.sites.clone())
    };
    assert_eq!(open(&again), open(&plan), "{shown}");
    assert_eq!(again.tls.acme.cas[2].eab.as_ref().map(|eab| eab.kid.as_str()), Some("kid-1"));
}

#[test]
fn filters_are_what_a_list_names_or_what_a_table_says_beside_the_default() {
    use plan::{
        Family,
        FilterMode::{Certain, Enforce, Observe, Off},
        Filters, HeaderFields,
    };
    let filters = |written: &str| {
        let plan = good(&format!("[[site]]\nhost = \"a\"\ntls = \"off\"\n{written}\nroute = {{ \"/\" = {{ respond = \"x\" }} }}"));
        shows_itself(&plan);
        plan.sites[0].filters.clone()
    };
    let modes = |filters: &plan::Filters| {
        let of = |family| filters.families.of(family);
        (of(Family::Sql), of(Family::Xss), of(Family::Traversal), filters.bad_method)
    };
    for (written, expected) in [
        ("", (Certain, Certain, Certain, Observe)),
        ("filters = \"balanced\"", (Certain, Certain, Certain, Observe)),
        ("filters = \"strict\"", (Enforce, Enforce, Enforce, Enforce)),
        ("filters = \"observe\"", (Observe, Observe, Observe, Observe)),
        ("filters = \"off\"", (Off, Off, Off, Off)),
        ("filters = { base = \"strict\", sql = \"certain\" }", (Certain, Enforce, Enforce, Enforce)),
        ("filters = []", (Off, Off, Off, Off)),
        ("filters = [\"bad-uri\", \"bad-method\"]", (Enforce, Enforce, Enforce, Enforce)),
        ("filters = [\"sql\", \"bad-method\"]", (Enforce, Off, Off, Enforce)),
        ("filters = [\"traversal\", \"xss\"]", (Off, Enforce, Enforce, Off)),
        ("filters = { sql = \"observe\" }", (Observe, Certain, Certain, Observe)),
        ("filters = { bad-uri = \"off\", xss = \"observe\" }", (Off, Observe, Off, Observe)),
        ("filters = { body = \"64KB\", patterns = [\"^/x\"], own = \"observe\", headers = false }", (Certain, Certain, Certain, Observe)),
    ] {
        assert_eq!(modes(&filters(written)), expected, "{written}");
    }
    for (written, headers, name) in [
        ("", HeaderFields::Unusual, Some("balanced")),
        ("filters = \"strict\"", HeaderFields::All, Some("strict")),
        ("filters = { base = \"strict\", body = \"64KB\" }", HeaderFields::All, Some("strict")),
        ("filters = { headers = true }", HeaderFields::All, None),
        ("filters = { headers = false }", HeaderFields::None, None),
    ] {
        let filters: Filters = filters(written);
        assert_eq!((filters.headers, filters.name()), (headers, name), "{written}");
    }
}

#[test]
fn headers_lie_over_the_standard_set_or_over_the_one_that_is_named() {
    let of = |headers: &str| {
        let plan = good(&format!("[[site]]\nhost = \"a\"\ntls = \"off\"\n{headers}\nroute = {{ \"/\" = {{ respond = \"x\" }} }}"));
        plan.sites[0].headers.clone()
    };
    let table = "X-Frame-Options = \"SAMEORIGIN\", X-XSS-Protection = \"\", X-New = \"1\"";
    let plan::HeaderSet { base, own } = of(&format!("headers = {{ {table} }}"));
    let own: Vec<_> = own.iter().map(|edit| (edit.name.as_str(), edit.value.as_ref().map(|v| v.to_str().expect("text")))).collect();
    assert_eq!(base, plan::HeaderBase::Standard);
    assert_eq!(own, [("x-frame-options", Some("SAMEORIGIN")), ("x-xss-protection", None), ("x-new", Some("1"))]);
    for (word, wanted) in [("standard", plan::HeaderBase::Standard), ("strict", plan::HeaderBase::Strict), ("off", plan::HeaderBase::Off)] {
        assert_eq!(of(&format!("headers = \"{word}\"")), wanted.into());
        let set = of(&format!("headers = {{ base = \"{word}\", {table} }}"));
        assert_eq!((set.base, set.own.len()), (wanted, 3));
    }
    assert_eq!(of(""), plan::HeaderSet::default());
}

#[test]
fn a_route_takes_from_its_site_what_it_does_not_say() {
    let plan = good(
        "[zone.a]\nrate = \"1r/s\"\n[zone.b]\nrate = \"1r/s\"\n[app.web]\ncommand = \"serve {port}\"\n[defaults]\ntls = \"off\"\nzone = \"a\"\ndeny = \"10.0.0.1\"\n\
         [[site]]\nhost = \"a\"\napp = \"web\"\nlimits.body = \"1MB\"\n[site.route.\"/b\"]\napp = \"web\"\nzone = \"b\"\n[site.route.\"/none\"]\napp = \"web\"\nzone = []\nlimits.body = \"2MB\"\ndeny = []",
    );
    let routes: Vec<_> = plan.sites[0]
        .routes
        .iter()
        .map(|route| (route.zones.iter().map(|zone| zone.as_str()).collect::<Vec<_>>(), route.body_limit.to_string(), route.deny.len()))
        .collect();
    assert_eq!(routes, [(vec!["b"], "1MB".into(), 1), (vec![], "2MB".into(), 0), (vec!["a"], "1MB".into(), 1)]);
}

#[test]
fn colours_are_shown_only_where_asked() {
    let complaints = load(Path::new("tests/config/bad/serves-nothing.toml")).expect_err("bad");
    assert!(!complaints.to_string().contains('\x1b'));
    assert!(complaints.report(Colours::On).contains("\x1b[1;31merror[missing-key]\x1b[0m"));
}

/// The effective configuration is a configuration, and means the same.
fn shows_itself(plan: &Plan) {
    let shown = show::effective(plan);
    let again = good(&shown);
    let files = plan.files.clone();
    assert_eq!(Plan { files: files.clone(), ..again }, Plan { files, ..plan.clone() }, "{shown}");
}

#[test]
fn what_is_shown_compiles_to_the_same_plan() {
    for path in toml_files(Path::new("conf")) {
        let mut plan = load(&path).unwrap_or_else(|complaints| panic!("{complaints}"));
        for app in plan.apps.values_mut() {
            app.env.clear();
        }
        shows_itself(&plan);
    }
}

#[test]
fn the_signal_that_stops_a_program_is_its_own_where_none_is_written_and_shows() {
    let text = "[app.a]\ncommand = \"nginx -g 'daemon off;'\"\n[app.b]\ncommand = \"env A=b php-fpm8.2 -F\"\nstop = { timeout = \"5s\" }\n[app.c]\ncommand = \"nginx\"\nstop = { signal = \"TERM\" }\n[app.d]\ncommand = \"httpd\"\n";
    let shown = show::effective(&good(text));
    let signals: Vec<&str> = shown.lines().filter_map(|line| line.strip_prefix("stop = { signal = \"")?.split('"').next()).collect();
    assert_eq!(signals, ["QUIT", "QUIT", "TERM", "WINCH"], "{shown}");
}

#[test]
fn what_is_shown_masks_secrets_and_is_still_good() {
    let plan =
        good("[admin]\nlisten = \"0.0.0.0:9900\"\ntoken = \"hush-hush\"\n[app.web]\ncommand = \"serve\"\nenv = { A = \"hush-hush\" }");
    let shown = show::effective(&plan);
    assert!(!shown.contains(SECRET), "{shown}");
    good(&shown);
}

#[test]
fn a_secret_in_a_command_or_a_header_does_not_show() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("gateway.toml");
    fs::write(dir.path().join("key"), "from\\a \"file\"\n").expect("written");
    let text = concat!(
        "[app.web]\nuser = \"root\"\ncommand = [\"serve\", \"--port\", \"{port}\", \"--password={env.PASSWORD}\"]\n",
        "[[site]]\nhost = \"example.com\"\ntls = \"internal\"\n",
        "[site.route.\"/\"]\napp = \"web\"\nrequest_headers = { Authorization = \"Bearer {file:key}\" }\n",
    );
    fs::write(&path, text).expect("written");
    let env = |name: &str| (name == "PASSWORD").then(|| SECRET.to_owned());
    let (plan, filled) = load_to_show(&path, &env).unwrap_or_else(|complaints| panic!("{complaints}"));
    let shown = show::without(&plan, &filled);
    assert!(show::effective(&plan).contains(SECRET) && !shown.contains(SECRET) && !shown.contains("file\\\""), "{shown}");
    assert!(shown.contains("--password=***") && shown.contains("Bearer ***"), "{shown}");
    good(&shown);
}

/// The keys of the schema: `site.route.*.strip`, with whether they say that they are not supported yet.
fn keys() -> Vec<(String, bool)> {
    fn walk(schema: &serde_json::Value, root: &serde_json::Value, path: &str, keys: &mut Vec<(String, bool)>) {
        if let Some(reference) = schema.get("$ref").and_then(|r| r.as_str()) {
            walk(root.pointer(reference.trim_start_matches('#')).expect(reference), root, path, keys);
        }
        for part in schema.get("anyOf").and_then(|any| any.as_array()).into_iter().flatten() {
            walk(part, root, path, keys);
        }
        if let Some(items) = schema.get("items") {
            walk(items, root, path, keys);
        }
        if let Some(names) = schema.get("additionalProperties").filter(|names| names.is_object()) {
            walk(names, root, &format!("{path}*."), keys);
        }
        for (key, value) in schema.get("properties").and_then(|p| p.as_object()).into_iter().flatten() {
            let refused = value.get("description").and_then(|d| d.as_str()).is_some_and(|d| d.ends_with("Not supported yet."));
            keys.push((format!("{path}{key}"), refused));
            if !refused {
                walk(value, root, &format!("{path}{key}."), keys);
            }
        }
    }
    let schema = schema::schema();
    let mut keys = Vec::new();
    walk(&schema, &schema, "", &mut keys);
    keys.sort();
    keys.dedup();
    keys
}

#[test]
fn the_schema_has_every_key_and_says_which_wait() {
    let listed: Vec<String> =
        keys().into_iter().map(|(key, refused)| format!("{key}{}", if refused { "  (not supported yet)" } else { "" })).collect();
    snapshots().bind(|| insta::assert_snapshot!("schema-keys", listed.join("\n")));
}

#[test]
fn every_key_of_the_contract_is_in_the_schema() {
    let known: BTreeSet<String> = keys().into_iter().map(|(key, _)| key).collect();
    // The contract, key by key, without what stands inside of keys that wait.
    let contract = "email include state run user workers trusted_proxies listen.http listen.https listen.proxy_protocol listen.max_connections \
        timeouts.header timeouts.idle timeouts.body timeouts.send timeouts.drain limits.headers limits.header_count limits.uri limits.body limits.streams limits.resets \
        email tls.min tls.ca tls.ca.name tls.ca.directory tls.ca.staging tls.ca.root tls.ca.eab_kid tls.ca.eab_key tls.challenges tls.profile admin.listen admin.token log.level log.format log.dir log.access log.access.format log.access.sample \
        log.rotate.size log.rotate.age log.rotate.keep log.rotate.compress alerts app.*.command app.*.dir app.*.user app.*.group app.*.env app.*.env_file app.*.procs \
        app.*.port app.*.ready.http app.*.ready.log app.*.ready.notify app.*.ready.tcp app.*.ready.timeout app.*.live.http app.*.live.interval app.*.live.timeout \
        app.*.live.fail app.*.live.pass app.*.health app.*.restart.policy app.*.restart.delay app.*.restart.max_delay app.*.restart.budget app.*.stop.signal \
        app.*.stop.timeout app.*.stop.drain app.*.recycle app.*.hold app.*.memory_max app.*.limits.nofile app.*.after app.*.schedule app.*.before app.*.log.rotate.size \
        upstream.*.servers upstream.*.servers.addr upstream.*.servers.weight upstream.*.servers.backup upstream.*.servers.max_conns upstream.*.balance upstream.*.balance.hash \
        upstream.*.sticky upstream.*.health.path upstream.*.health.interval upstream.*.health.timeout upstream.*.health.fail upstream.*.health.pass upstream.*.health.expect \
        upstream.*.health.type upstream.*.passive.fails upstream.*.passive.within upstream.*.passive.for upstream.*.retry.tries upstream.*.retry.on upstream.*.retry.budget \
        upstream.*.timeouts.connect upstream.*.timeouts.read upstream.*.timeouts.send upstream.*.timeouts.idle upstream.*.slow_start upstream.*.tls upstream.*.http \
        zone.*.key zone.*.rate zone.*.burst zone.*.nodelay zone.*.concurrent zone.*.status zone.*.count zone.*.mode zone.*.headers zone.*.max_keys ban.points ban.max ban.find_time ban.ban_time ban.grow ban.ignore ban.mode \
        site.host site.aliases site.tls site.tls.cert site.tls.key site.tls.on_demand site.client_ca site.headers site.filters site.zone site.auth site.allow site.deny site.compress \
        site.maintenance site.errors site.app site.upstream site.root site.route.*.root site.route.*.cache site.route.*.upstream site.route.*.app site.route.*.strip \
        site.route.*.rewrite site.route.*.zone site.route.*.methods site.route.*.request_headers site.route.*.response_headers site.route.*.redirect.to \
        site.route.*.redirect.status site.route.*.fastcgi site.route.*.try site.route.*.respond.status site.route.*.respond.body site.limits.body site.route.*.limits.body defaults.tls";
    let missing: Vec<&str> = contract.split_whitespace().filter(|key| !known.contains(*key)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// A key that the schema calls unsupported is refused; every other one is read.
#[test]
fn every_key_that_waits_is_refused_and_no_other() {
    // What belongs to a [[site]] is refused in [defaults] as a whole.
    for (key, refused) in keys().into_iter().filter(|(key, _)| !key.starts_with("defaults.route.")) {
        let mut parts: Vec<String> = key.split('.').map(|part| if part == "*" { "/x".into() } else { part.to_owned() }).collect();
        if ["app", "upstream", "zone"].contains(&parts[0].as_str()) && parts.len() > 1 {
            parts[1] = "x".into();
        }
        let last = parts.pop().expect("a key");
        let mut text = if parts.is_empty() { String::new() } else { header(&parts) };
        text.push_str(&format!("{last:?} = {{ zzz = 1 }}\n"));
        let report = match load_text(text.as_bytes()) {
            Ok(_) => String::new(),
            Err(complaints) => complaints.to_string(),
        };
        assert!(!report.contains(&format!("unknown key {last:?}")), "{key} is not read:\n{report}");
        let waits = report.contains("is not supported yet") && !key.ends_with("procs");
        assert!(waits == refused, "{key}: {report}");
        if refused {
            let line = text.lines().count();
            assert!(report.contains(&format!("gateway.toml:{line}:")), "{key}: {report}");
        }
    }
}

/// `[[site]]` for sites and for servers an inline table is not needed: tables of the schema are reached by headers alone.
fn header(parts: &[String]) -> String {
    let quoted = |parts: &[String]| parts.iter().map(|part| format!("{part:?}")).collect::<Vec<_>>().join(".");
    match parts {
        [site, rest @ ..] if site == "site" => {
            let rest = if rest.is_empty() { String::new() } else { format!("[site.{}]\n", quoted(rest)) };
            format!("[[site]]\n{rest}")
        }
        parts => format!("[{}]\n", quoted(parts)),
    }
}

/// Every text that we have, to be mutated.
fn corpus() -> Vec<String> {
    let dirs = ["conf", "tests/config/bad", "tests/config/include"];
    let files = dirs.iter().flat_map(|dir| toml_files(Path::new(dir)));
    files.map(|path| fs::read_to_string(path).expect("read")).collect()
}

fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let bit = prop_oneof![
        Just(b"\"".to_vec()),
        Just(b"[".to_vec()),
        Just(b"]".to_vec()),
        Just(b"{".to_vec()),
        Just(b"}".to_vec()),
        Just(b"\n".to_vec()),
        Just(b"= ".to_vec()),
        Just(b"0".to_vec()),
        Just(b"-1".to_vec()),
        Just(b"{env.".to_vec()),
        Just(b"{file:".to_vec()),
        Just(b"\"\"\"".to_vec()),
        Just("…ß\u{1f600}".as_bytes().to_vec()),
        Just(vec![0xff]),
        Just(vec![0]),
    ];
    let edits = prop::collection::vec((any::<prop::sample::Index>(), 0_usize..6, bit), 1..6);
    (prop::sample::select(corpus()), edits).prop_map(|(text, edits)| {
        let mut bytes = text.into_bytes();
        for (at, cut, bit) in edits {
            let at = at.index(bytes.len() + 1);
            let end = (at + cut).min(bytes.len());
            bytes.splice(at..end, bit);
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_panic_the_loader(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        if let Err(complaints) = load_text(&bytes) {
            prop_assert!(complaints.report(Colours::On).contains("nothing was changed"));
        }
    }

    #[test]
    fn no_mutation_of_a_configuration_panics_the_loader(bytes in mutated()) {
        match load_text(&bytes) {
            // What is accepted can be shown, and what is shown is good again.
            Ok(mut plan) => {
                for app in plan.apps.values_mut() {
                    app.env.clear();
                }
                let secrets = plan.admin.as_ref().is_some_and(|admin| admin.token.is_some()) || plan.tls.acme.cas.iter().any(|ca| ca.eab.is_some());
                if !secrets {
                    shows_itself(&plan);
                }
            }
            Err(complaints) => {
                let report = complaints.to_string();
                prop_assert!(report.contains("nothing was changed"));
                prop_assert!(!report.chars().any(|c| c.is_control() && c != '\n'), "{report:?}");
            }
        }
    }
}

/// Found by chance in a mutation of `conf/gateway.toml`: what no route fits was shown as a `respond`, which reads back as one.
#[test]
fn a_site_without_a_route_for_the_rest_shows_itself() {
    for site in [
        "",
        "zone = \"z\"\nlimits = { body = \"1MB\", buffer = \"off\" }\nextensions = \"php\"\ncors = [\"https://b.test\"]\nallow = [\"192.0.2.0/24\"]\n",
    ] {
        let text = format!(
            "[zone.z]\nrate = \"1r/s\"\n[[site]]\nhost = \"a.test\"\ntls = \"internal\"\n{site}[site.route.\"/x\"]\nrespond = {{ status = 404 }}\nzone = []\n"
        );
        shows_itself(&load_text(text.as_bytes()).expect("good"));
    }
}

#[test]
fn what_is_held_of_bodies_shows_itself() {
    let site = "[[site]]\nhost = \"a.test\"\ntls = \"internal\"\nlimits = { buffer = \"8KB\" }\n[site.route.\"/s/\"]\nrespond = \"x\"\nlimits = { buffer = \"off\" }\n[site.route.\"/\"]\nrespond = \"x\"\n";
    for limits in ["", "[limits]\nbuffer = \"off\"\nbuffers = \"1MB\"\n", "[limits]\nbuffer = \"off\"\nbuffers = \"64KB\"\n"] {
        let plan = load_text(format!("{limits}{site}").as_bytes()).expect("good");
        let buffers: Vec<_> = plan.sites[0].routes.iter().map(|route| route.buffer.map(|size| size.0)).collect();
        assert_eq!(buffers, [None, Some(8 << 10)]);
        assert_eq!(plan.limits.buffer.map(|size| size.0), if limits.is_empty() { Some(64 << 10) } else { None });
        shows_itself(&plan);
    }
}

fn toml_files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap_or_else(|error| panic!("{}: {error}", dir.display()))
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "toml"))
        .collect();
    files.sort();
    files
}

#[test]
fn a_bad_line_of_a_file_of_users_is_told_by_its_number_and_not_by_what_it_holds() {
    let dir = tempfile::tempdir().expect("a directory");
    let (users, config) = (dir.path().join("users"), dir.path().join("gateway.toml"));
    let site =
        |users: &Path| format!("[[site]]\nhost = \"a\"\ntls = \"internal\"\nauth = {{ basic = {users:?} }}\nroute.\"/\".respond = \"x\"\n");
    fs::write(&config, site(&users)).expect("written");
    let good = "alice:{SHA}L55TUjtiq8FBorTWAZ0jy6g129A=\n";
    fs::write(&users, format!("# staff\n{good}bob:hush-hush\ncarol:$apr1$abcdefgh$sIQmFnT1CuEXAsyjuXjUX/\nnobody\n{good}"))
        .expect("written");
    let report = load(&config).expect_err("bad lines").to_string();
    for told in
        ["users:3 is no hash", "users:4 is an MD5 hash", "users:5 is not NAME:HASH", "users:6 has a name that line 2", "htpasswd -B"]
    {
        assert!(report.contains(told), "{told}\n{report}");
    }
    assert!(!report.contains("hush") && !report.contains("sIQmF") && !report.contains("L55T"), "{report}");
    fs::write(&users, "# nobody yet\n").expect("written");
    assert!(load(&config).expect_err("nobody").to_string().contains("names nobody"));
    fs::write(&users, good).expect("written");
    let plan = load(&config).unwrap_or_else(|complaints| panic!("{complaints}"));
    assert_eq!(plan.users.values().map(Vec::len).collect::<Vec<_>>(), [1]);
    assert!(!format!("{plan:?}").contains("L55T"));
    shows_itself(&plan);
}

#[test]
fn passwords_in_the_clear_are_noticed_where_others_than_this_machine_can_come() {
    let dir = tempfile::tempdir().expect("a directory");
    let users = dir.path().join("users");
    fs::write(&users, "alice:{SHA}L55TUjtiq8FBorTWAZ0jy6g129A=\n").expect("written");
    let site = |host: &str, tls: &str, auth: &str| {
        format!("[[site]]\nhost = \"{host}\"\ntls = \"{tls}\"\nauth = {auth}\n[site.route.\"/\"]\nrespond = \"x\"\n")
    };
    let basic = format!("{{ basic = {users:?} }}");
    let sites = [
        site("plain", "off", &basic),
        site("tls", "internal", &basic),
        site("open", "off", "\"off\""),
        site("asked", "off", "{ forward = \"http://127.0.0.1:9000/\" }"),
    ]
    .concat();
    let told = |listen: &str| {
        let plan = good(&format!("[listen]\nhttp = {listen}\n{sites}"));
        plan::clear::in_the_clear(&plan).map(|site| site.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(told(r#"["127.0.0.1:8080", "[::1]:8080"]"#), Vec::<String>::new());
    assert_eq!(told(r#"["127.0.0.1:8080", "0.0.0.0:80"]"#), ["plain"]);
}

/// A file beside nothing, by its own path.
fn with_env_file(text: &[u8]) -> Result<Plan, Complaints> {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("web.env");
    fs::write(&file, text).expect("written");
    let config = format!("[app.web]\ncommand = \"serve\"\nenv_file = \"{}\"\nenv = {{ A = \"of env\" }}\n", file.display());
    load_text(config.as_bytes())
}

#[test]
fn an_env_file_goes_in_as_systemd_and_docker_agree_on_it() {
    let text =
        "\u{feff}A=of the file\r\nNAME=\"say \\\"hi\\\" to {n} and {port}\"\r\n# a comment\nexport KEY='-----BEGIN\nEND-----'\nEMPTY=\n";
    let plan = with_env_file(text.as_bytes()).unwrap_or_else(|complaints| panic!("{complaints}"));
    let app = &plan.apps["web"];
    let found: Vec<(&str, &str)> = app.env_file.iter().map(|(name, value)| (name.as_str(), value.reveal().as_str())).collect();
    assert_eq!(found, [("A", "of the file"), ("EMPTY", ""), ("KEY", "-----BEGIN\nEND-----"), ("NAME", "say \"hi\" to {n} and {port}")]);
    assert_eq!(app.env["A"].reveal(), "of env");
    assert_eq!(app.port, plan::AppPort::None, "a file is nobody's template");
}

#[test]
fn an_env_file_that_means_two_things_is_refused_with_its_lines_and_the_cure() {
    let text = "A=1\nTOKEN=ab#c # the old one\nDIR=C:\\srv\nURL=\"postgres://u:$PW@db\"\n";
    let report = with_env_file(text.as_bytes()).expect_err("ambiguous").to_string();
    for line in ["web.env:2: ", "web.env:3: ", "web.env:4: "] {
        assert!(report.contains(line), "{report}");
    }
    assert!(report.contains("put the comment on a line of its own") && report.contains("put the value in single quotes"), "{report}");
    assert!(!report.contains("ab#c") && !report.contains("postgres"), "no value shows: {report}");
}

fn port_of(text: &str) -> plan::AppPort {
    let plan = good(text);
    let again = good(&show::effective(&plan));
    assert_eq!(plan.apps["web"].port, again.apps["web"].port, "as it shows itself: {}", show::effective(&plan));
    plan.apps["web"].port.clone()
}

#[test]
fn an_app_that_a_site_or_a_route_names_has_an_address_whatever_its_command() {
    use plan::AppPort::{Allotted, None, Socket};
    let site = "[[site]]\nhost = \"a\"\ntls = \"internal\"\n";
    let node = "[app.web]\ncommand = \"node server.js\"\n";
    assert_eq!(port_of(node), None);
    for named in [
        "app = \"web\"",
        "upstream = \"web\"",
        "[site.route.\"/\"]\napp = \"web\"",
        "[site.route.\"/x/\"]\nupstream = \"web\"\n[site.route.\"/\"]\nrespond = \"x\"",
    ] {
        assert_eq!(port_of(&format!("{node}{site}{named}\n")), Allotted, "{named}");
    }
    assert_eq!(port_of(&format!("{node}[defaults]\napp = \"web\"\n{site}")), Allotted);
    for (env, port) in [
        ("{ BIND = \"127.0.0.1:{port}\" }", Allotted),
        ("{ SOCKET = \"{socket}\", X = \"y\" }", Socket),
        ("{ PORT = \"{port}\" }", Allotted),
        ("{ X = \"{ports}\" }", None),
    ] {
        assert_eq!(port_of(&format!("{node}env = {env}\n")), port, "{env}");
    }
    // What is about requests may stand there now.
    let plan = good(&format!("{node}health = \"/healthz\"\nhttp = \"2\"\nhold = \"off\"\n{site}app = \"web\"\n"));
    assert_eq!(plan.apps["web"].http, plan::UpstreamHttp::V2);
    shows_itself(&plan);
    let report =
        load_text(format!("{node}env = {{ PORT = \"3000\" }}\n{site}app = \"web\"\n").as_bytes()).expect_err("two masters").to_string();
    assert!(report.contains("PORT is set by gateway for each instance") && report.contains("`port` chooses the port"), "{report}");
}

#[test]
fn the_keys_of_a_start_are_read_and_show_themselves() {
    let text = "[app.web]\ncommand = \"serve {port}\"\nautostart = false\nnice = -5\nbefore_start = [\"npm ci\", \"bin/migrate --now 'a b'\"]\nready = { http = \"/r\", host = \"example.com\" }\nlive = { http = \"/l\", host = \"example.com:8080\" }\n[app.other]\ncommand = \"serve {port}\"\nbefore_start = { run = \"make\", timeout = \"5m\" }\nhealth = { path = \"/h\", host = \"b.example\" }\n[app.job]\ncommand = \"x\"\nschedule = \"@daily\"\nnice = 19\n";
    let plan = good(text);
    shows_itself(&plan);
    let web = &plan.apps["web"];
    assert_eq!((web.autostart, web.nice), (false, Some(-5)));
    assert_eq!(web.before_start.commands, [vec!["npm", "ci"], vec!["bin/migrate", "--now", "a b"]]);
    assert_eq!(web.before_start.timeout.as_secs(), 60);
    assert!(matches!(&web.ready, plan::Ready::Http { host: Some(host), .. } if host == "example.com"));
    let other = &plan.apps["other"];
    assert_eq!((other.before_start.timeout.as_secs(), other.autostart), (300, true));
    assert_eq!(other.live.as_ref().and_then(|live| live.host.as_deref()), Some("b.example"));
}

#[test]
fn methods_of_the_registry_and_own_tokens_may_be_listed() {
    let methods = "\"PROPPATCH\", \"MKCOL\", \"REPORT\", \"VERSION-CONTROL\", \"LOCK\", \"M-SEARCH\", \"FOOBAR\", \"LIST\", \"BaseFoo\"";
    let plan =
        good(&format!("[[site]]\nhost = \"a.test\"\ntls = \"internal\"\n[site.route.\"/x\"]\nrespond = \"x\"\nmethods = [{methods}]\n"));
    assert_eq!(plan.sites[0].routes[0].methods.len(), 9);
}

#[test]
fn extensions_of_a_site_are_those_of_its_routes_unless_they_say_otherwise() {
    let plan = good(
        "[[site]]\nhost = \"a.test\"\ntls = \"internal\"\nextensions = [\".PHP\"]\n[site.route.\"/\"]\nrespond = \"x\"\n[site.route.\"/own\"]\nrespond = \"x\"\nextensions = \"asp\"\n[site.route.\"/none\"]\nrespond = \"x\"\nextensions = []\n",
    );
    let own: Vec<String> = plan.sites[0].routes.iter().map(|route| route.extensions.join(",")).collect();
    assert_eq!(own, ["php", "asp", ""]);
    let plan = good(
        "[defaults]\nextensions = \"php\"\n[app.web]\ncommand = \"serve {port}\"\n[[site]]\nhost = \"a.test\"\ntls = \"internal\"\napp = \"web\"\n",
    );
    assert_eq!(plan.sites[0].routes[0].extensions, ["php"]);
}

#[test]
fn names_in_other_scripts_are_as_browsers_send_them_wherever_a_host_stands() {
    let plan = good(
        "[upstream.u]\nservers = \"b\u{fc}cher.test:80\"\n[[site]]\nhost = [\"B\u{fc}cher.test\", \"www.b\u{fc}cher.test\"]\naliases = \"*.b\u{fc}cher.test\"\ntls = \"internal\"\nupstream = \"u\"\ncors = [\"https://*.b\u{fc}cher.test:8443\", \"https://b\u{fc}cher.test\"]\n[site.route.\"/old\"]\nredirect = \"https://b\u{fc}cher.test:8443/stra\u{df}e?q=\u{fc}\"\n",
    );
    let site = &plan.sites[0];
    assert_eq!(site.name, "xn--bcher-kva.test");
    assert_eq!(site.hosts.iter().map(ToString::to_string).collect::<Vec<_>>(), ["xn--bcher-kva.test", "*.xn--bcher-kva.test"]);
    assert_eq!(site.redirected[0].to_string(), "www.xn--bcher-kva.test");
    assert!(format!("{:?}", plan.upstreams).contains("xn--bcher-kva.test"));
    let plan::Action::Redirect { to, .. } = &site.routes[0].action else { panic!("{:?}", site.routes) };
    assert_eq!(to, "https://xn--bcher-kva.test:8443/stra%C3%9Fe?q=%C3%BC");
    let origins: Vec<String> = site.routes[1].cors.as_ref().expect("cors").origins.iter().map(ToString::to_string).collect();
    assert_eq!(origins, ["https://*.xn--bcher-kva.test:8443", "https://xn--bcher-kva.test"]);
}
