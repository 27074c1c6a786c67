//! Values with a unit or a form of their own, as keys of the configuration hold them.
//!
//! Pure. Errors: a bare number where a unit belongs says which unit it lacks; nothing is rounded or clamped.

use std::{borrow::Cow, net::SocketAddr, path::PathBuf, time::Duration};

use base64::{Engine as _, alphabet, engine};
use http::{StatusCode, Uri};
use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::{
    complaint::{Code, Complaints},
    shape::{Shape, parsed, written},
    tree::{Node, Value},
};
use crate::rules::schedule;
use crate::vocab::{ByteSize, Host, HostPattern, OriginPattern, Pace, Secret, ServerAddr, UnitError, parse_bytes, parse_duration};

/// No wait is longer: clocks must be able to add it to a point in time.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// No buffer, body or file is larger.
const LARGEST: u64 = 1 << 40;

/// How much a process lets others go first.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Nice(pub i8);

impl Shape for Nice {
    fn expects() -> String {
        "a whole number from -20 to 19".into()
    }

    fn fits(node: &Node) -> bool {
        matches!(node.value, Value::Integer(_))
    }

    fn read(node: Node, out: &mut Complaints) -> Option<Self> {
        let Value::Integer(number) = node.value else { return None };
        let nice = number.and_then(|n| i8::try_from(n).ok()).filter(|n| (-20..=19).contains(n)).map(Self);
        if nice.is_none() {
            let found = number.map_or("one beyond 64 bits".to_owned(), |n| n.to_string());
            out.add(Code::BadValue, node.place, format!("expected {}, found {found}", Self::expects()));
        }
        nice
    }
}

impl JsonSchema for Nice {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Nice".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": -20, "maximum": 19 })
    }
}

macro_rules! quantity {
    ($(#[doc = $about:literal])* $name:ident($inner:ty) = $expects:literal, $example:literal, $pattern:literal, $parse:expr) => {
        $(#[doc = $about])*
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub struct $name(pub $inner);

        impl Shape for $name {
            fn expects() -> String {
                $expects.into()
            }

            fn fits(node: &Node) -> bool {
                matches!(node.value, Value::Text(_) | Value::Integer(_) | Value::Float(_))
            }

            fn read(node: Node, out: &mut Complaints) -> Option<Self> {
                let text = match node.value {
                    Value::Text(text) => text,
                    Value::Integer(Some(number)) => {
                        // Somebody who writes 10485760 means bytes.
                        let unit = if $example == "MB" && number >= 4096 { "B" } else { $example };
                        let cure = format!("write it as a string with its unit: \"{number}{unit}\"");
                        out.add_with_cure(Code::MissingUnit, node.place, format!("{number} has no unit: expected {}", $expects), cure);
                        return None;
                    }
                    _ => {
                        out.add(Code::MissingUnit, node.place, format!("expected {}, a whole number with its unit in a string", $expects));
                        return None;
                    }
                };
                let parse: fn(&str) -> Result<$inner, (Code, String)> = $parse;
                match parse(&text.value) {
                    Ok(value) => Some(Self(value)),
                    Err((code, _)) if text.is_hidden() => {
                        out.add(code, node.place, format!("what {} stands for (not shown) is not {}", text.shown(), $expects));
                        None
                    }
                    Err((code, message)) => {
                        out.add(code, node.place, message);
                        None
                    }
                }
            }
        }

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern })
            }
        }
    };
}

fn unit(error: UnitError) -> (Code, String) {
    let code = match error {
        UnitError::Bare { .. } => Code::MissingUnit,
        UnitError::Unknown { .. } | UnitError::Number(_) | UnitError::Large(_) => Code::BadUnit,
    };
    (code, error.to_string())
}

fn duration(text: &str) -> Result<Duration, (Code, String)> {
    let duration = parse_duration(text).map_err(unit)?;
    if duration > LONGEST { Err((Code::BadValue, format!("{text:?} is too long: at most 10y"))) } else { Ok(duration) }
}

quantity! {
    /// A time that passes: never zero.
    Time(Duration) = "a duration such as \"30s\"", "s", r"^[0-9]+ ?(ms|s|m|h|d|w|y)$", |text| {
        let time = duration(text)?;
        if time.is_zero() { Err((Code::BadValue, format!("{text:?} is no time at all: write a duration above zero"))) } else { Ok(time) }
    }
}
quantity! {
    /// A time that may be zero.
    Pause(Duration) = "a duration such as \"15s\"", "s", r"^[0-9]+ ?(ms|s|m|h|d|w|y)$", duration
}
quantity! {
    /// A number of bytes: never zero.
    Size(ByteSize) = "a size such as \"10MB\"", "MB", r"^[0-9]+ ?(B|KB|MB|GB)$", |text| {
        let size = parse_bytes(text).map_err(unit)?;
        match size.0 {
            0 => Err((Code::BadValue, format!("{text:?} is nothing at all: write a size above zero"))),
            n if n > LARGEST => Err((Code::BadValue, format!("{text:?} is too large: at most 1024GB"))),
            _ => Ok(size),
        }
    }
}
quantity! {
    /// A number of bytes that may be zero.
    MaybeSize(ByteSize) = "a size such as \"10MB\"", "MB", r"^[0-9]+ ?(B|KB|MB|GB)$", |text| {
        let size = parse_bytes(text).map_err(unit)?;
        if size.0 > LARGEST { Err((Code::BadValue, format!("{text:?} is too large: at most 1024GB"))) } else { Ok(size) }
    }
}
quantity! {
    /// So many in such a time.
    Rate(Pace) = "a pace such as \"10r/s\"", "r/s", r"^[0-9]+r?/[0-9]*(ms|s|m|h|d|w|y)$", |text| {
        let pace = Pace::parse(text).map_err(|error| (Code::BadUnit, error.to_string()))?;
        if pace.per() > LONGEST { Err((Code::BadValue, format!("{text:?} is too long: at most 10y"))) } else { Ok(pace) }
    }
}

written! {
    /// An address to listen on, such as `127.0.0.1:8080` or `[::]:443`.
    Address(SocketAddr) = "an address such as \"127.0.0.1:8080\"", BadAddress, |text| text.parse().map_err(|_| {
        let advice = if let Some(port) = text.strip_prefix(':').or_else(|| text.strip_prefix("*:")) {
            format!(": write \"0.0.0.0:{port}\" and \"[::]:{port}\" for every address of this machine")
        } else if let Some(port) = text.strip_prefix("localhost:") {
            format!(": write \"127.0.0.1:{port}\", names are not looked up here")
        } else if text.bytes().all(|b| b.is_ascii_digit()) && !text.is_empty() {
            format!(": write \"0.0.0.0:{text}\" for every address of this machine, or \"127.0.0.1:{text}\" for itself alone")
        } else {
            ": write IP:PORT, as in \"127.0.0.1:8080\" or \"[::1]:8080\"".to_owned()
        };
        format!("{text:?} is not an address to listen on{advice}")
    })
}
written! {
    /// An address or a network, such as `203.0.113.7` or `10.0.0.0/8`.
    Net(IpNet) = "an address or a network such as \"10.0.0.0/8\"", BadAddress, |text| {
        let one = text.parse::<std::net::IpAddr>().map(IpNet::from).ok();
        let net: IpNet = one.or_else(|| text.parse().ok()).ok_or_else(|| format!("{text:?} is neither an IP address nor a network such as \"10.0.0.0/8\""))?;
        if net.addr() == net.network() { Ok(net) } else { Err(format!("{text:?} has bits beyond its prefix: write \"{}\" for the network", net.trunc())) }
    }
}
written! {
    /// A host name, `*.example.com`, or `_` for any other name.
    Hosts(HostPattern) = "a host such as \"example.com\"", BadHost, |text| HostPattern::parse(text).map_err(|error| error.to_string())
}
written! {
    /// Where a server listens: `10.0.0.5:8000`, `api.internal:8000` or `unix:/run/api.sock`.
    Peer(ServerAddr) = "an address such as \"10.0.0.5:8000\" or \"unix:/run/api.sock\"", BadAddress, |text| ServerAddr::parse(text).map_err(|error| error.to_string())
}
written! {
    /// A path of a URL that a probe asks for; it starts with `/`.
    ProbePath(String) = "a path such as \"/healthz\"", BadPath, |text| {
        let good = text.starts_with('/') && text.bytes().all(|b| b.is_ascii_graphic()) && !text.contains('#');
        let inner = text.split_once("://").map(|(_, rest)| rest.split_once('/').map_or("/".to_owned(), |(_, path)| format!("/{path}")));
        match inner {
            _ if good => Ok(text.to_owned()),
            Some(path) => Err(format!("{text:?} is a URL: write {path:?}, which is asked of the app or server itself")),
            None => Err(format!("{text:?} is not a path: write it as in \"/healthz\", with %20 for a space")),
        }
    }
}
written! {
    /// A regular expression (Rust's `regex` crate: linear time, no look-around).
    Pattern(String) = "a regular expression", BadRegex, |text| regex(text).map(|_| text.to_owned())
}

written! {
    /// Mode bits in octal.
    Umask(u32) = "mode bits such as \"027\"", BadValue, |text| {
        let bits = (text.len() <= 4).then(|| u32::from_str_radix(text, 8).ok()).flatten().filter(|bits| *bits <= 0o777);
        bits.ok_or_else(|| format!("{text:?} is not a umask: write it in octal, as in \"027\""))
    }
}
written! {
    /// When, as cron writes it.
    Cron(String) = "a cron expression such as \"0 2 * * *\"", BadValue, |text| match schedule::Crontab::parse(text, None) {
        Ok(times) if !times.comes() => Err(format!("{text:?} never comes: no month that it names has such a day; write a day that one of them has, or \"*\" for any month")),
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!("{text:?} is not a cron expression: {error}; write minute, hour, day, month, weekday, as in \"0 2 * * *\", or @daily")),
    }
}
written! {
    /// A time zone.
    Zone(String) = "a time zone such as \"Europe/Rome\"", BadValue, |text| match schedule::Crontab::parse("0 0 * * *", Some(text)) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err(format!("{text:?} is not a time zone: write a name of the IANA list, as in \"Europe/Rome\" or \"UTC\"")),
    }
}

written! {
    /// One mail address.
    Mail(String) = "a mail address such as \"ops@example.com\"", BadMail, |text| {
        let domain = text.split_once('@').filter(|(local, _)| !local.is_empty()).map(|(_, domain)| domain);
        // A comma would be a second address, and the others have a meaning in the mailto URL that a CA gets.
        let good = text.len() <= 254 && text.bytes().all(|b| b.is_ascii_graphic() && !b"\"(),:;<>?&#%[\\]".contains(&b));
        match domain.map(Host::parse) {
            Some(Ok(_)) if good => Ok(text.to_owned()),
            _ => Err(format!("{text:?} is not one mail address: write it as in \"ops@example.com\"")),
        }
    }
}
written! {
    /// The URL of an ACME directory.
    DirectoryUrl(String) = "a URL such as \"https://ca.example.com/directory\"", BadUrl, |text| {
        url(text, "https", "a directory is read over https: write it as in \"https://ca.example.com/directory\"")
    }
}
written! {
    /// The URL of somebody near who says which names may have a certificate.
    AskUrl(String) = "a URL such as \"http://127.0.0.1:9000/ask\"", BadUrl, |text| {
        let whole = url(text, "http", "who is asked is a neighbour: write it as in \"http://127.0.0.1:9000/ask\"")?;
        if text.contains('?') { Err(format!("{text:?}: ?domain=NAME is added to it, so it may have no query of its own")) } else { Ok(whole) }
    }
}
written! {
    /// The URL of a server that says who may come in, or its unix socket and the path there.
    DoorUrl(DoorServer) = "a URL such as \"http://127.0.0.1:9000/verify\" or \"unix:/run/auth.sock:/verify\"", BadUrl, |text| DoorServer::parse(text)
}
written! {
    /// Where pages come from: `https://app.example.com`, `https://*.example.com`, or `*`.
    Origins(OriginPattern) = "an origin such as \"https://app.example.com\"", BadHost, |text| OriginPattern::parse(text).map_err(|error| error.to_string())
}
written! {
    /// What a certificate authority is called in status and logs.
    CaName(String) = "a name such as \"own-ca\"", BadName, |text| {
        let good = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        if (1..=64).contains(&text.len()) && text.bytes().all(good) { Ok(text.to_owned()) } else { Err(format!("{text:?} is not a name: 1 to 64 of letters, digits, '-', '_' and '.'")) }
    }
}
written! {
    /// An ACME profile.
    Profile(String) = "a profile such as \"tlsserver\"", BadValue, |text| {
        let good = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
        if (1..=64).contains(&text.len()) && text.bytes().all(good) { Ok(text.to_owned()) } else { Err(format!("{text:?} is not a profile: 1 to 64 of letters, digits, '-' and '_'")) }
    }
}
written! {
    /// A key in base64url, with or without padding; plain base64 too.
    EabKey(Secret<Vec<u8>>) = "a key in base64url", BadValue, |text| {
        let config = engine::GeneralPurposeConfig::new().with_decode_padding_mode(engine::DecodePaddingMode::Indifferent);
        let bytes = engine::GeneralPurpose::new(&alphabet::URL_SAFE, config).decode(text.replace('+', "-").replace('/', "_"));
        bytes.ok().filter(|bytes| !bytes.is_empty()).map(Secret::new).ok_or_else(|| "this is not a key in base64url".to_owned())
    }
}

/// Where it is asked who may come in.
#[derive(Clone, Debug, PartialEq)]
pub struct DoorServer {
    pub server: ServerAddr,
    /// What it is called there.
    pub host: String,
    /// Path and query.
    pub path: String,
}

impl DoorServer {
    fn parse(text: &str) -> Result<Self, String> {
        let advice = "who is asked is a neighbour: write it as in \"http://127.0.0.1:9000/verify\" or \"unix:/run/auth.sock:/verify\"";
        if let Some(rest) = text.strip_prefix("unix:") {
            let (socket, path) = rest.split_once(':').unwrap_or((rest, "/"));
            let good = text.len() <= 2048 && path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
            let server = ServerAddr::parse(&format!("unix:{socket}")).map_err(|error| error.to_string())?;
            return if good {
                Ok(Self { server, host: "localhost".into(), path: path.into() })
            } else {
                Err(format!("{text:?}: {advice}"))
            };
        }
        let text = url(text, "http", advice)?;
        let uri: Uri = text.parse().map_err(|_| advice.to_owned())?;
        let host = uri.authority().map_or_else(String::new, |authority| authority.as_str().to_ascii_lowercase());
        let reached = if uri.port_u16().is_some() { host.clone() } else { format!("{host}:80") };
        let server = ServerAddr::parse(&reached).map_err(|error| error.to_string())?;
        Ok(Self { server, host, path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned() })
    }
}

/// A URL of this scheme with a host, and nothing in it that would be lost or misread.
fn url(text: &str, scheme: &str, advice: &str) -> Result<String, String> {
    let refused = || format!("{text:?} will not do: {advice}");
    if text.len() > 2048 || text.contains('#') || !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(refused());
    }
    let uri: Uri = text.parse().map_err(|_| refused())?;
    let authority = uri.authority().filter(|_| uri.scheme_str() == Some(scheme)).ok_or_else(refused)?;
    let rest = authority.as_str().strip_prefix(authority.host()).ok_or_else(refused)?;
    let port = rest.is_empty() || rest.strip_prefix(':').and_then(|port| port.parse::<u16>().ok()).is_some_and(|port| port > 0);
    if port && Host::parse(authority.host()).is_ok() { Ok(text.to_owned()) } else { Err(refused()) }
}

/// `host[:port]` of a URL that was checked, in lower case.
#[must_use]
pub fn host_of(url: &str) -> String {
    url.split(['/', '?']).nth(2).unwrap_or(url).to_ascii_lowercase()
}

/// At most 1 MB when compiled: enough for hundreds of words, not for a bomb.
pub fn regex(text: &str) -> Result<regex::Regex, String> {
    regex::RegexBuilder::new(text).size_limit(1 << 20).dfa_size_limit(1 << 21).build().map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => "this regular expression is too big: at most 1 MB when compiled".to_owned(),
        error => {
            let text = error.to_string();
            let last = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default().trim();
            format!("this regular expression does not compile: {}", last.trim_start_matches("error: "))
        }
    })
}

/// A status code of an answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Status<const MIN: u16, const MAX: u16>(pub StatusCode);

impl<const MIN: u16, const MAX: u16> Shape for Status<MIN, MAX> {
    fn expects() -> String {
        format!("a status code from {MIN} to {MAX}")
    }

    fn fits(node: &Node) -> bool {
        matches!(node.value, Value::Integer(_))
    }

    fn read(node: Node, out: &mut Complaints) -> Option<Self> {
        let Value::Integer(number) = node.value else { return None };
        let code =
            number.and_then(|n| u16::try_from(n).ok()).filter(|n| (MIN..=MAX).contains(n)).and_then(|n| StatusCode::from_u16(n).ok());
        if code.is_none() {
            out.add(Code::BadValue, node.place, format!("expected {}, found {}", Self::expects(), number.unwrap_or(i64::MAX)));
        }
        code.map(Self)
    }
}

impl<const MIN: u16, const MAX: u16> JsonSchema for Status<MIN, MAX> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Status_{MIN}_{MAX}").into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": MIN, "maximum": MAX })
    }
}

/// A path in the file system, relative to the file that names it.
#[derive(Clone, Debug, PartialEq)]
pub struct FilePath(pub PathBuf);

impl Shape for FilePath {
    fn expects() -> String {
        "a path".into()
    }

    fn fits(node: &Node) -> bool {
        matches!(node.value, Value::Text(_))
    }

    fn read(node: Node, out: &mut Complaints) -> Option<Self> {
        let Value::Text(text) = node.value else { return None };
        let path = parsed(&text, node.place, Code::BadPath, "a path", path, out)?;
        Some(Self(out.dir(node.place.file).join(path)))
    }
}

fn path(text: &str) -> Result<PathBuf, String> {
    match text {
        "" => Err("a path may not be empty".into()),
        _ if text.contains('\0') => Err("a path may not hold a zero byte".into()),
        _ if text.starts_with('~') => Err(format!("{text:?}: '~' is a shell's word for home; write the whole path")),
        _ if text.len() > 4095 => Err("a path may have at most 4095 bytes".into()),
        _ => Ok(text.into()),
    }
}

impl JsonSchema for FilePath {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "FilePath".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "minLength": 1 })
    }
}
