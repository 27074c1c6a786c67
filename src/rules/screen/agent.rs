//! Who asks, and how: the user agents of scanners, the methods of ordinary traffic.

use std::sync::LazyLock;

use http::Method;
use regex::bytes::{Regex, RegexBuilder};

/// The methods of ordinary traffic.
pub const METHODS: [Method; 7] = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS];

/// Whether a method is none of [`METHODS`]: TRACE, CONNECT, DEBUG, WebDAV's, anything made up. A route that wants one lists it.
#[must_use]
pub fn bad_method(method: &Method) -> bool {
    !METHODS.contains(method)
}

/// Whether a user agent is that of a scanner, by the names that scanners give themselves. None at all is honest: many small clients send none.
#[must_use]
pub fn scanner(agent: &[u8]) -> bool {
    SCANNERS.is_match(agent)
}

static SCANNERS: LazyLock<Regex> = LazyLock::new(|| {
    let names = [
        "absinthe",
        "acunetix",
        "bsqlbf",
        "cmsmap",
        "core-project/",
        "datacha0s",
        "detectify",
        "droopescan",
        "jaeles",
        "libredtail",
        "metasploit",
        r"\bmirai\b",
        r"\bmozi\.",
        "mysqloit",
        r"^hydra$",
        r"^vega/",
        "subgraph vega",
        "wapiti",
        "webcruiser",
        "webshag",
        r"\bzmap\b",
        r"^hello,? world",
        "sqlmate",
        "sqlibug",
        "katana",
        "httpx - open-source",
        "naabu",
        "interactsh",
        "nimbostratus",
        "gospider",
        "hakrawler",
        "photon/",
        "sn1per",
        "vbscan",
        "blackwidow",
        "cobalt strike",
        "dnsenum",
        "fierce",
        "t50",
        "slowhttptest",
        "goldeneye",
        "appscan",
        "arachni",
        "bbscan",
        "brutus",
        "burpsuite",
        "burp suite",
        "cgichk",
        "commix",
        "dalfox",
        "dirbuster",
        "dirsearch",
        "fimap",
        "feroxbuster",
        "ffuf",
        "fuzz faster",
        "gobuster",
        "golismero",
        "grabber",
        "grendel-scan",
        "havij",
        "joomscan",
        "jorgee",
        "l9explore",
        "l9tcpid",
        "leakix",
        "masscan",
        "morfeus",
        "muieblackcat",
        "nessus",
        "netsparker",
        "invicti",
        "nikto",
        "nmap",
        "nsauditor",
        "nuclei",
        "openvas",
        "owasp zap",
        "zaproxy",
        "pangolin",
        "paros/",
        "projectdiscovery",
        "qualys was",
        "rustscan",
        "skipfish",
        "sqlmap",
        "sqlninja",
        "sqlsus",
        "thc-hydra",
        r"\(hydra\)",
        "w3af",
        "webinspect",
        "webscarab",
        "wfuzz",
        "whatweb",
        "wpscan",
        "xsser",
        "xsstrike",
        "xspider",
        "zgrab",
        "zmeu",
        r"\$\{jndi",
        r"\(\) *\{",
    ];
    RegexBuilder::new(&names.join("|"))
        .unicode(false)
        .case_insensitive(true)
        .build()
        .expect("the names are right because a test builds them")
});
