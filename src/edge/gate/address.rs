//! Who may come at all: `allow` and `deny`.

use std::net::IpAddr;

use http::StatusCode;
use ipnet::IpNet;

use super::{Ask, GateRoute, Verdict};
use crate::edge::refused;

/// `deny` wins over `allow`; an empty `allow` is everyone. Else 403.
pub(super) fn admit(ask: &Ask, route: &GateRoute) -> Verdict {
    if route.deny.contains(ask.client) {
        return ask.refuse(StatusCode::FORBIDDEN, refused::DENY);
    }
    if !(route.allow.is_empty() || route.allow.contains(ask.client)) {
        return ask.refuse(StatusCode::FORBIDDEN, refused::ALLOW);
    }
    Verdict::Pass
}

/// A set of nets as sorted, disjoint ranges: a look-up is a binary search, so a list of ten thousand costs no more than one of ten.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Nets {
    v4: Box<[(u32, u32)]>,
    v6: Box<[(u128, u128)]>,
}

impl Nets {
    #[must_use]
    pub fn new(nets: &[IpNet]) -> Self {
        let mut v4 = Vec::new();
        let mut v6 = Vec::new();
        for net in nets {
            match net {
                IpNet::V4(net) => v4.push((net.network().to_bits(), net.broadcast().to_bits())),
                // A v4-mapped net means the IPv4 addresses: that is how clients are looked up.
                IpNet::V6(net) => match (net.network().to_ipv4_mapped(), net.broadcast().to_ipv4_mapped()) {
                    (Some(first), Some(last)) => v4.push((first.to_bits(), last.to_bits())),
                    _ => v6.push((net.network().to_bits(), net.broadcast().to_bits())),
                },
            }
        }
        Self { v4: merge(v4), v6: merge(v6) }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        match ip.to_canonical() {
            IpAddr::V4(ip) => within(&self.v4, ip.to_bits()),
            IpAddr::V6(ip) => within(&self.v6, ip.to_bits()),
        }
    }
}

fn within<T: Ord + Copy>(ranges: &[(T, T)], at: T) -> bool {
    match ranges.partition_point(|(first, _)| *first <= at) {
        0 => false,
        n => at <= ranges[n - 1].1,
    }
}

/// Nets either nest or are apart, so after sorting a range that begins inside its forerunner lies inside it.
fn merge<T: Ord + Copy>(mut ranges: Vec<(T, T)>) -> Box<[(T, T)]> {
    ranges.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
    ranges.dedup_by(|next, kept| next.0 <= kept.1);
    ranges.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn addresses_are_found_in_the_net_they_belong_to() {
        let nets = Nets::new(
            &["203.0.113.0/24", "10.0.0.0/8", "10.1.0.0/16", "2001:db8::/32", "198.51.100.7/32"].map(|n| n.parse().expect("a net")),
        );
        for inside in ["203.0.113.0", "203.0.113.255", "10.1.2.3", "10.255.255.255", "2001:db8:ffff::1", "198.51.100.7", "::ffff:10.0.0.1"]
        {
            assert!(nets.contains(ip(inside)), "{inside}");
        }
        for outside in ["203.0.112.255", "203.0.114.0", "11.0.0.0", "2001:db9::", "198.51.100.8", "::1"] {
            assert!(!nets.contains(ip(outside)), "{outside}");
        }
        assert!(Nets::new(&[]).is_empty() && !Nets::new(&[]).contains(ip("1.2.3.4")));
    }

    proptest! {
        #[test]
        fn the_sorted_ranges_say_what_a_scan_of_the_nets_says(
            nets in prop::collection::vec((any::<u32>(), 0u8..=32), 0..20),
            near in any::<prop::sample::Index>(),
            ip in any::<u32>(),
            offset in 0u32..4,
        ) {
            let nets: Vec<IpNet> = nets.into_iter().map(|(bits, len)| ipnet::Ipv4Net::new(bits.into(), len).expect("a length of at most 32").into()).collect();
            let compiled = Nets::new(&nets);
            let edge = if nets.is_empty() { ip } else {
                match nets[near.index(nets.len())] { IpNet::V4(net) => net.broadcast().to_bits().wrapping_add(offset).wrapping_sub(2), IpNet::V6(_) => ip }
            };
            for ip in [ip, edge] {
                let ip = IpAddr::V4(ip.into());
                prop_assert_eq!(compiled.contains(ip), nets.iter().any(|net| net.contains(&ip)));
            }
        }
    }
}
