//! Who the client is when proxies that we trust stand between.
//!
//! Pure. Source: the X-Forwarded-For convention (each hop appends the peer it saw); RFC 7239 §7.4 on why only the right end can be believed.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

/// The rightmost hop that no trusted proxy is: `peer` itself unless it is trusted, else the last untrusted element of `forwarded_for`.
///
/// Shape: an element that is no address ends the walk at the hop that sent it: what stands left of it cannot be believed.
///        Everything trusted: the leftmost element. Addresses come out canonical (an IPv4-mapped IPv6 address as IPv4).
pub fn client<'a>(peer: IpAddr, forwarded_for: impl DoubleEndedIterator<Item = &'a str>, trusted: &[IpNet]) -> IpAddr {
    let mut client = peer.to_canonical();
    if trusted.is_empty() {
        return client;
    }
    for hop in forwarded_for.rev() {
        if !is_trusted(client, trusted) {
            break;
        }
        match address(hop) {
            Some(ip) => client = ip.to_canonical(),
            None => break,
        }
    }
    client
}

/// Whether `ip` belongs to one of the nets.
#[must_use]
pub fn is_trusted(ip: IpAddr, trusted: &[IpNet]) -> bool {
    let ip = ip.to_canonical();
    trusted.iter().any(|net| net.contains(&ip))
}

/// The elements of all `X-Forwarded-For` values in order, for [`client`]. A value that is not ASCII text counts as one bad element.
pub fn elements<'a>(values: impl DoubleEndedIterator<Item = &'a http::HeaderValue>) -> impl DoubleEndedIterator<Item = &'a str> {
    values.flat_map(|value| value.to_str().unwrap_or("?").split(','))
}

/// Whether the trusted proxy next to us was asked over TLS, by all `X-Forwarded-Proto` values: the last word is its own.
pub fn came_by_tls<'a>(values: impl DoubleEndedIterator<Item = &'a http::HeaderValue>) -> bool {
    let last = elements(values).next_back().map(str::trim);
    last.is_some_and(|proto| proto.eq_ignore_ascii_case("https") || proto.eq_ignore_ascii_case("wss"))
}

/// `203.0.113.7`, `2001:db8::1`, `[2001:db8::1]`, each perhaps with a port as some balancers write it.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim_matches([' ', '\t']);
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(ip);
    }
    if let Ok(addr) = text.parse::<SocketAddr>() {
        return Some(addr.ip());
    }
    text.strip_prefix('[')?.strip_suffix(']')?.parse().ok().map(IpAddr::V6)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().expect("a net")).collect()
    }

    fn who(peer: &str, forwarded: &str, trusted: &[&str]) -> String {
        client(peer.parse().expect("an address"), forwarded.split(',').filter(|e| !e.is_empty()), &nets(trusted)).to_string()
    }

    #[test]
    fn an_untrusted_peer_is_the_client_whatever_it_claims() {
        assert_eq!(who("203.0.113.7", "1.1.1.1", &["10.0.0.0/8"]), "203.0.113.7");
        assert_eq!(who("203.0.113.7", "1.1.1.1", &[]), "203.0.113.7");
    }

    #[test]
    fn the_rightmost_untrusted_hop_is_the_client() {
        assert_eq!(who("10.0.0.1", "1.1.1.1, 198.51.100.9, 10.0.0.2", &["10.0.0.0/8"]), "198.51.100.9");
        assert_eq!(who("10.0.0.1", "", &["10.0.0.0/8"]), "10.0.0.1");
        assert_eq!(who("10.0.0.1", "10.0.0.3,10.0.0.2", &["10.0.0.0/8"]), "10.0.0.3");
    }

    #[test]
    fn garbage_ends_the_walk_where_it_stands() {
        assert_eq!(who("10.0.0.1", "1.1.1.1, unknown", &["10.0.0.0/8"]), "10.0.0.1");
        assert_eq!(who("10.0.0.1", "1.1.1.1, unknown, 10.0.0.2", &["10.0.0.0/8"]), "10.0.0.2");
    }

    #[test]
    fn several_fields_are_one_list() {
        let values = ["1.1.1.1, 2.2.2.2", "3.3.3.3"].map(http::HeaderValue::from_static);
        assert_eq!(elements(values.iter()).map(str::trim).collect::<Vec<_>>(), ["1.1.1.1", "2.2.2.2", "3.3.3.3"]);
        let bad = [http::HeaderValue::from_static("1.1.1.1"), http::HeaderValue::from_bytes(b"\xff").expect("a value")];
        assert_eq!(client(IpAddr::from([10, 0, 0, 1]), elements(bad.iter()), &nets(&["10.0.0.0/8"])), IpAddr::from([10, 0, 0, 1]));
    }

    #[test]
    fn ports_brackets_and_mapped_addresses_are_understood() {
        assert_eq!(who("::ffff:10.0.0.1", "198.51.100.9:4711", &["10.0.0.0/8"]), "198.51.100.9");
        assert_eq!(who("10.0.0.1", "[2001:db8::1]:443", &["10.0.0.0/8"]), "2001:db8::1");
        assert_eq!(who("10.0.0.1", "[2001:db8::1]", &["10.0.0.0/8"]), "2001:db8::1");
        assert_eq!(who("10.0.0.1", "::ffff:198.51.100.9", &["10.0.0.0/8"]), "198.51.100.9");
    }

    #[test]
    fn the_proxy_next_to_us_has_the_last_word_on_tls() {
        let tls = |values: &[&'static str]| {
            came_by_tls(values.iter().map(|text| http::HeaderValue::from_static(text)).collect::<Vec<_>>().iter())
        };
        assert!(tls(&["https"]) && tls(&["HTTPS "]) && tls(&["http", "https"]) && tls(&["http, https"]) && tls(&["wss"]));
        assert!(!tls(&[]) && !tls(&["http"]) && !tls(&["https, http"]) && !tls(&["https", "http"]) && !tls(&["on"]));
    }
}
