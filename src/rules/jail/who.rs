//! Whom a ban is for: a [`Network`] that a client may have.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
};

use ipnet::IpNet;
use thiserror::Error;

use crate::vocab::Network;

/// One client, in 64 bits: the upper half of an IPv6 address, or an IPv4 address below a prefix that is multicast and thus nobody's.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Who(pub(super) u64);

const V4: u64 = 0xFFFF_FFFF << 32;
/// Multicast: no client has such an address, so that other values may lie there.
const NOBODY: u64 = 0xFF << 56;

/// Why a text names nobody who can be banned.
#[derive(Clone, Debug, Error, Eq, PartialEq)]
pub enum WhoError {
    #[error("{0:?} is no IP address")]
    NoAddress(String),
    #[error("{0} is a network: addresses are banned one by one, and IPv6 by /64; `deny` of a site refuses networks")]
    Net(IpNet),
    #[error("{0} is no client's address")]
    Nobody(IpAddr),
}

impl Who {
    /// An IPv4-mapped address is IPv4. `None`: the unspecified address or a multicast one, which no client has.
    #[must_use]
    pub fn of(ip: IpAddr) -> Option<Self> {
        let ip = ip.to_canonical();
        if ip.is_unspecified() || ip.is_multicast() {
            return None;
        }
        match Network::of(ip) {
            Network::V4(bits) => Some(Self(V4 | u64::from(bits))),
            Network::V6(prefix) => (prefix & NOBODY != NOBODY).then_some(Self(prefix)),
        }
    }

    /// An address, or the whole of what one ban is for: `2001:db8::/64`.
    ///
    /// Errors: [`WhoError`]
    pub fn parse(text: &str) -> Result<Self, WhoError> {
        Self::parse_address(text).map(|(who, _)| who)
    }

    /// As [`Who::parse`], with the very address that was named: of a net its first that a client may have.
    ///
    /// Errors: [`WhoError`]
    pub fn parse_address(text: &str) -> Result<(Self, IpAddr), WhoError> {
        let ip = match text.parse::<IpAddr>() {
            Ok(ip) => ip,
            Err(_) => match text.parse::<IpNet>() {
                // That of the loopback address begins with the unspecified one.
                Ok(net) if net.prefix_len() == 64 && net.addr() == Ipv6Addr::UNSPECIFIED => Ipv6Addr::LOCALHOST.into(),
                Ok(net) if net.prefix_len() == if net.addr().is_ipv4() { 32 } else { 64 } => net.addr(),
                Ok(net) => return Err(WhoError::Net(net)),
                Err(_) => return Err(WhoError::NoAddress(text.chars().take(64).collect())),
            },
        };
        let who = Self::of(ip).ok_or(WhoError::Nobody(ip))?;
        Ok((who, ip))
    }

    /// The address, or the first of the /64.
    #[must_use]
    pub fn address(self) -> IpAddr {
        self.network().first()
    }

    fn network(self) -> Network {
        if self.0 & V4 == V4 { Network::V4(self.0 as u32) } else { Network::V6(self.0) }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.network().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    fn who(text: &str) -> Who {
        Who::parse(text).expect(text)
    }

    #[test]
    fn ipv6_is_one_client_by_its_64_and_a_mapped_address_is_ipv4() {
        assert_eq!(who("2001:db8:1:2::1"), who("2001:db8:1:2:ffff::9"));
        assert_eq!(who("2001:db8:1:2::1"), who("2001:db8:1:2::/64"));
        assert_ne!(who("2001:db8:1:2::1"), who("2001:db8:1:3::1"));
        assert_eq!(who("::ffff:1.2.3.4"), who("1.2.3.4/32"));
        assert_eq!(who("2001:db8:1:2::1").to_string(), "2001:db8:1:2::/64");
        assert_eq!(who("1.2.3.4").to_string(), "1.2.3.4");
    }

    #[test]
    fn networks_and_what_no_client_has_are_refused() {
        for net in ["10.0.0.0/8", "10.0.0.0/31", "2001:db8::/48", "2001:db8::1/128"] {
            assert!(matches!(Who::parse(net), Err(WhoError::Net(_))), "{net}");
        }
        for nobody in
            ["0.0.0.0", "0.0.0.0/32", "::", "::ffff:0.0.0.0", "ff02::1", "ff02::/64", "224.0.0.1", "239.1.2.3/32", "::ffff:224.0.0.1"]
        {
            assert!(matches!(Who::parse(nobody), Err(WhoError::Nobody(_))), "{nobody}");
        }
        for bad in ["", "x", "1.2.3", "1.2.3.4:80", "[::1]", "1.2.3.4/33"] {
            assert!(matches!(Who::parse(bad), Err(WhoError::NoAddress(_))), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn no_two_clients_are_one(a in any::<u32>(), b in any::<u64>()) {
            let Some(v4) = Who::of(Ipv4Addr::from_bits(a).into()) else { return Ok(()) };
            prop_assert_eq!(v4.address(), IpAddr::from(Ipv4Addr::from_bits(a)));
            prop_assert_eq!(Who::of(v4.address()), Some(v4));
            let ip = Ipv6Addr::from_bits(u128::from(b) << 64 | 7);
            if let Some(v6) = Who::of(ip.into()).filter(|_| ip.to_ipv4_mapped().is_none()) {
                prop_assert_ne!(v4, v6);
                prop_assert_eq!(Who::parse(&v6.to_string()), Ok(v6));
            }
        }

        #[test]
        fn whoever_can_be_banned_can_be_read_back_and_nobody_else(
            v4 in prop_oneof![any::<u32>(), 0xE000_0000..0xF100_0000_u32, Just(0)],
            v6 in prop_oneof![any::<u128>(), (0_u128..3), any::<u128>().prop_map(|bits| bits | 0xFF << 120), any::<u32>().prop_map(|v4| 0xFFFF << 32 | u128::from(v4))],
        ) {
            for ip in [IpAddr::from(Ipv4Addr::from_bits(v4)), Ipv6Addr::from_bits(v6).into()] {
                let who = Who::of(ip);
                prop_assert_eq!(Who::parse(&ip.to_string()).ok(), who, "{}", ip);
                if let Some(who) = who {
                    prop_assert_eq!(Who::parse(&who.to_string()), Ok(who), "{}", ip);
                    let named = Who::parse_address(&who.to_string()).map(|(_, ip)| Who::of(ip));
                    prop_assert_eq!(named, Ok(Some(who)), "{}", ip);
                }
            }
        }
    }
}
