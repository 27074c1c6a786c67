//! What it costs to find the site of the name in a handshake: the same for one name and for ten thousand.

use divan::{Bencher, black_box};
use gateway::{
    plan::{FilterMode, Filters, Site, SiteTls},
    rules::route::Router,
    vocab::HostPattern,
};

fn main() {
    divan::main();
}

fn site(n: usize) -> Site {
    let host = format!("site-{n}.test");
    Site {
        name: host.clone(),
        hosts: vec![HostPattern::parse(&host).expect("a host")],
        redirected: vec![],
        canonical: None,
        tls: SiteTls::Internal,
        client_ca: None,
        headers: gateway::plan::HeaderBase::Off.into(),
        filters: Filters::new(FilterMode::Off, FilterMode::Off, FilterMode::Off),
        allow: vec![],
        deny: vec![],
        maintenance: Default::default(),
        routes: vec![],
    }
}

#[divan::bench(args = [1, 100, 1000, 10_000])]
fn exact(bencher: Bencher, names: usize) {
    let sites: Vec<_> = (0..names).map(site).collect();
    let router = Router::new(&sites);
    let sni = format!("site-{}.test", names / 2);
    bencher.bench(|| router.site(black_box(&sni)));
}
