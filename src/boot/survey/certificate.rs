//! Certificates that can be served, and that some client would refuse all the same; pairs of a directory that cannot be served.

use std::path::Path;

use super::Survey;
use crate::{
    config::complaint::Code,
    master::materials,
    pki::{
        Pair,
        remark::{named, remarks},
    },
    plan::SiteTls,
    vocab::chain,
};

impl Survey<'_> {
    pub(super) fn certificates(&mut self) {
        let (materials, _) = materials::read(self.plan);
        let now = jiff::Timestamp::now().as_second();
        let pairs: Vec<(&Path, _)> = materials
            .pairs
            .iter()
            .map(|material| (&*material.cert, Pair::read(material).and_then(|pair| pair.valid(now).map(|()| pair))))
            .collect();
        for (n, site) in self.plan.sites.iter().enumerate() {
            let n = n.to_string();
            let is_own = |cert: &Path| match &site.tls {
                SiteTls::Files { cert: own, .. } => own == cert,
                SiteTls::Directory { dir } => cert.starts_with(dir),
                SiteTls::Off | SiteTls::Internal | SiteTls::Acme | SiteTls::OnDemand { .. } => false,
            };
            let own = || pairs.iter().filter(|(cert, _)| is_own(cert));
            let keys: [&[&str]; 4] =
                [&["site", &n, "tls", "cert"], &["site", &n, "tls", "dir"], &["site", &n, "tls"], &["defaults", "tls"]];
            for (cert, error) in own().filter_map(|(cert, pair)| Some((cert, pair.as_ref().err()?))) {
                let message = format!("could not use {}: could not {}", cert.display(), chain(error));
                self.warn(Code::BadCertificate, &keys, message, "renew it, or take it out of the directory");
            }
            let good: Vec<&Pair> = own().filter_map(|(_, pair)| pair.as_ref().ok()).collect();
            // One warning for the place that both stand at.
            let remarks = remarks(&good, &named(site));
            if !remarks.is_empty() {
                let message = format!("site {:?}: {}", site.name, remarks.join("; "));
                let cure = "put the server's own certificate and those that signed it into one file: cat server.pem intermediate.pem > chain.pem; have one issued for every host";
                self.warn(Code::BadCertificate, &keys, message, cure);
            }
        }
    }
}
