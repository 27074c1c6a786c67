//! `[tls]`, and `tls` and `client_ca` of a site.

use std::path::PathBuf;

use super::{
    Context, acme,
    certificates::{certificates, file_of},
};
use crate::{
    config::{
        complaint::{Code, Place},
        file,
        shape::{At, Either, Field},
        tree::{Half, Kind, PairFault},
        value::{FilePath, Mail},
    },
    plan,
};

pub fn policy(table: file::Tls, email: Field<Mail>, c: &mut Context<'_>) -> plan::TlsPolicy {
    let file::Tls { place: _, min, ca, challenges, profile } = table;
    plan::TlsPolicy {
        min: match min.or(file::MinTls::V1_2) {
            file::MinTls::V1_2 => plan::TlsVersion::V1_2,
            file::MinTls::V1_3 => plan::TlsVersion::V1_3,
        },
        acme: acme::policy(email, ca, challenges, profile, c),
    }
}

/// Where a site's certificate comes from; ACME where it does not say.
pub fn of_site(
    field: Field<Either<file::TlsWord, file::TlsTable>>,
    owner: Place,
    name: &str,
    listen: &plan::Listen,
    policy: &plan::TlsPolicy,
    c: &mut Context<'_>,
) -> Option<plan::SiteTls> {
    let (tls, place) = match field {
        Field::Absent => (plan::SiteTls::Acme, owner),
        Field::Bad(_) => return None,
        Field::Given(At { value: Either::This(word), place }) => {
            let tls = match word {
                file::TlsWord::Acme => plan::SiteTls::Acme,
                file::TlsWord::Internal => plan::SiteTls::Internal,
                file::TlsWord::Off => plan::SiteTls::Off,
            };
            (tls, place)
        }
        Field::Given(At { value: Either::That(table), place }) => (self::table(table, c)?, place),
    };
    listeners(&tls, place, name, listen, &policy.acme.challenges, c);
    Some(tls)
}

/// What a site is served and proven on is listened on.
fn listeners(tls: &plan::SiteTls, place: Place, name: &str, listen: &plan::Listen, challenges: &[plan::Challenge], c: &mut Context<'_>) {
    if c.out.is_incomplete() {
        return;
    }
    let (list, role) = if *tls == plan::SiteTls::Off { (&listen.http, "http") } else { (&listen.https, "https") };
    if list.is_empty() {
        let message = format!("site {name:?} is served over {role}, and [listen] has no {role} address");
        let cure = if role == "http" {
            "add http = \"0.0.0.0:80\" to [listen], or give the site a certificate"
        } else {
            "add https = \"0.0.0.0:443\" to [listen], or write tls = \"off\""
        };
        c.out.add_with_cure(Code::MissingListener, place, message, cure);
        return;
    }
    let by_acme = matches!(tls, plan::SiteTls::Acme | plan::SiteTls::OnDemand { .. });
    // Without a listener for http, http-01 alone proves nothing. No challenge at all has its complaint already.
    if by_acme && listen.http.is_empty() && challenges == [plan::Challenge::Http01] {
        let message = format!("site {name:?} would be proven by http-01 alone, and [listen] has no http address");
        let cure = "add http = \"0.0.0.0:80\" to [listen], or \"tls-alpn-01\" to challenges of [tls]";
        c.out.add_with_cure(Code::MissingListener, place, message, cure);
    }
}

fn table(table: file::TlsTable, c: &mut Context<'_>) -> Option<plan::SiteTls> {
    let file::TlsTable { place, cert, key, dir, on_demand } = table;
    let pair = !cert.is_absent() || !key.is_absent();
    let clash = match (on_demand.place(), dir.place()) {
        (Some(other), Some(_)) => Some((other, "on_demand and dir")),
        (Some(other), None) if pair => Some((other, "on_demand and cert or key")),
        (None, Some(other)) if pair => Some((other, "dir and cert or key")),
        (Some(_), None) | (None, Some(_) | None) => None,
    };
    if let Some((other, what)) = clash {
        let cure = "write { cert, key } for one pair, { dir } for many, or { on_demand } for certificates by ACME";
        c.out.add_with_cure(Code::Conflict, other, format!("tls has both {what}"), cure);
        return None;
    }
    if !on_demand.is_absent() {
        return on_demand.value().map(|ask| plan::SiteTls::OnDemand { ask: ask.0 });
    }
    if !dir.is_absent() {
        let dir = dir.given()?;
        let dir = if c.outside.takes_any_certificate() { c.absolute(&dir.value.0) } else { file_of(dir, Kind::Directory, c)? };
        return Some(plan::SiteTls::Directory { dir });
    }
    let cert = cert.required("tls has no cert", place, "add cert = \"chain.pem\"", c.out);
    let key = key.required("tls has no key", place, "add key = \"key.pem\"", c.out);
    if c.outside.takes_any_certificate() {
        return Some(plan::SiteTls::Files { cert: c.absolute(&cert?.value.0), key: c.absolute(&key?.value.0) });
    }
    let places = cert.as_ref().map(|at| at.place).zip(key.as_ref().map(|at| at.place));
    let cert = cert.and_then(|at| file_of(at, Kind::File, c));
    let key = key.and_then(|at| {
        let place = at.place;
        let path = file_of(at, Kind::File, c)?;
        if c.outside.facts(&path).is_ok_and(|facts| facts.open_to_all) {
            let message = format!("the key {} can be read by every user of this machine", path.display());
            c.out.add_with_cure(Code::InsecureFile, place, message, format!("chmod 0600 {}", path.display()));
            return None;
        }
        Some(path)
    });
    let (cert, key) = (cert?, key?);
    if let (Some((of_cert, of_key)), Err(PairFault { half, reason })) = (places, c.outside.pair(&cert, &key)) {
        let (place, path) = match half {
            Half::Cert => (of_cert, &cert),
            Half::Key => (of_key, &key),
        };
        c.out.add(Code::BadCertificate, place, format!("could not use {}: {reason}", path.display()));
        return None;
    }
    Some(plan::SiteTls::Files { cert, key })
}

/// The CAs of a site's clients.
pub fn client_ca(field: Field<FilePath>, tls: Option<&plan::SiteTls>, c: &mut Context<'_>) -> Option<PathBuf> {
    let at = field.given()?;
    let place = at.place;
    if tls == Some(&plan::SiteTls::Off) {
        let cure = "take it out, or give the site a certificate; one in [defaults] is for every site";
        c.out.add_with_cure(Code::Conflict, place, "client_ca wants certificates of clients, and without TLS they show none", cure);
    }
    certificates(at, c)
}
