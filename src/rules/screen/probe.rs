//! Paths that only somebody asks for who looks whether a certain program, appliance or leftover is there.
//!
//! Shape: whole segments and the ends of paths; a first byte and a length decide for nearly all segments that none is meant.

use super::Watch;

/// Whoever looks around asks near the root; deeper, a name is somebody's file or article: a `Dockerfile` in a repository that is shown.
const DEEPEST: usize = 2;

/// Segments near the root of a path.
const SEGMENTS: &[&str] = &[
    // Files that a deployment leaves behind.
    "dockerfile",
    "composer.lock",
    "auth.json",
    "secrets.json",
    "secrets.yml",
    "secrets.yaml",
    "database.yml",
    "application.properties",
    "application.yml",
    "appsettings.json",
    "appsettings.development.json",
    "local_settings.py",
    "settings.py",
    "sftp-config.json",
    "sftp.json",
    "terraform.tfstate",
    "terraform.tfvars",
    "npm-debug.log",
    "yarn-error.log",
    "debug.log",
    "laravel.log",
    "error_log",
    "access_log",
    "id_dsa",
    "id_ecdsa",
    "desktop.ini",
    "web.config.txt",
    "parameters.yml",
    "parameters.yaml",
    "local.xml",
    "credentials.json",
    "service-account.json",
    "wp-config.txt",
    "wp-config",
    "config.inc",
    "docker-compose.yml",
    "docker-compose.yaml",
    "gruntfile.js",
    "vagrantfile",
    "ansible.cfg",
    "heapdump",
    "heapdump.hprof",
    "core.dump",
    "web-inf.",
    "private.pem",
    "server.key",
    "private.key",
    "privkey.pem",
    "ssl.key",
    "host.key",
    "key.pem",
    "passwd.txt",
    "users.sql",
    "phpinfo",
    "php_info",
    "phpinfo.txt",
    // Java servers.
    "jolokia",
    "jmx-console",
    "web-console",
    "admin-console",
    "jmxinvokerservlet",
    "invoker",
    "host-manager",
    "axis2",
    "axis2-admin",
    "wls-wsat",
    "_async",
    "bea_wls_internal",
    "struts2-showcase",
    "jbossws",
    "jbossmq-httpil",
    "uddiexplorer",
    "console-selfservice",
    "jmxproxy",
    "descriptorbyname",
    // PHP and its frameworks.
    "phpunit",
    "_ignition",
    "_profiler",
    "_wdt",
    "php-fpm_status",
    "fpm-status",
    "wlwmanifest.xml",
    "pearcmd",
    // Windows and Exchange.
    "_vti_bin",
    "_vti_pvt",
    "aspnet_client",
    "iissamples",
    "msadc",
    "exporttool",
    "trace.axd",
    "elmah.axd",
    // Appliances.
    "hnap1",
    "gponform",
    "boaform",
    "goform",
    "evox",
    "device.rsp",
    "currentsetting.htm",
    "+cscoe+",
    "+cscot+",
    "dana-na",
    "setup.cgi",
    "soap.cgi",
    "tmui",
    "sslvpn_websession",
    "global-protect",
    "ssl-vpn",
    // Status pages and interfaces that are not for the public.
    "server-status",
    "server-info",
    "nginx_status",
    "nginx-status",
    "_cat",
    "_cluster",
    "nmaplowercheck",
    "evil.txt",
    "nice ports",
    "wallet.dat",
    "id_rsa.pub",
    "privatekey.key",
    "keystore.jks",
    "db.mdf",
    "app_data",
    "client.ovpn",
    "configuration.php-dist",
    "joomla.xml",
    "cgi-bin-sdb",
    "asynchpeople",
    "hostcheck_validate",
    "vcdb.properties",
];

/// Administration of databases and of WordPress: where PHP is served, it may be one's own.
const OF_PHP: &[&str] =
    &["phpmyadmin", "phppgadmin", "myadmin", "pma", "sqladmin", "mysqladmin", "wp-admin", "adminer", "pgadmin", "dbadmin", "xmlrpc"];

/// The ends of paths, from a slash on.
const ENDS: &[&str] = &[
    "/actuator/env",
    "/actuator/mappings",
    "/actuator/threaddump",
    "/actuator/beans",
    "/actuator/configprops",
    "/actuator/loggers",
    "/actuator/shutdown",
    "/actuator/trace",
    "/actuator/httptrace",
    "/actuator/gateway/routes",
    "/actuator/logfile",
    "/actuator/dump",
    "/manage/env",
    "/manager/html",
    "/manager/status",
    "/manager/text/list",
    "/manager/text",
    "/jenkins/script",
    "/hudson/script",
    "/script/console",
    "/containers/json",
    "/images/json",
    "/debug/vars",
    "/debug/pprof",
    "/debug/default/view",
    "/mgmt/tm/util/bash",
    "/mgmt/shared/authn/login",
    "/solr/admin/cores",
    "/solr/admin/info/system",
    "/cvs/entries",
    "/cvs/root",
    "/invokefunction",
    "/evox/about",
    "/telescope/requests",
    "/app/etc/local.xml",
    "/storage/logs/laravel.log",
    "/pages/doenterpagevariables.action",
    "/pages/createpage-entervariables.action",
    "/self/environ",
    "/autodiscover/autodiscover.json",
    "/nacos/v1/auth/users",
    "/horizon/api/stats",
    "/administrator/index",
    "/admin/formlogin",
    "/logs/access.log",
    "/logs/error.log",
    "/log/access.log",
    "/log/error.log",
    "/var/log/app.log",
];

/// Names that are given to archives of a whole site or database.
const ARCHIVES: &[&str] = &[
    "users",
    "app",
    "prod",
    "production",
    "backup",
    "backups",
    "www",
    "wwwroot",
    "site",
    "web",
    "html",
    "htdocs",
    "public_html",
    "wp",
    "wordpress",
    "database",
    "db",
    "dump",
    "latest",
    "sql",
    "mysql",
    "data",
    "old",
    "website",
    "bak",
    "src",
    "source",
    "code",
];
const PACKED: &[&str] = &[
    "db", "sqlite", "sqlite3", "zip", "rar", "7z", "tgz", "tar", "gz", "bz2", "tar.gz", "tar.bz2", "tar.xz", "sql", "sql.gz", "sql.bz2",
    "sql.zip",
];

/// By first byte, which lengths a segment of the tables has.
const LENGTHS: [u32; 256] = {
    let mut lengths = [0; 256];
    let mut table = 0;
    while table < 2 {
        let names = if table == 0 { SEGMENTS } else { OF_PHP };
        let mut at = 0;
        while at < names.len() {
            let name = names[at].as_bytes();
            assert!(name.len() < 32, "a name has fewer than 32 bytes");
            lengths[name[0] as usize] |= 1 << name.len();
            lengths[name[0].to_ascii_uppercase() as usize] |= 1 << name.len();
            at += 1;
        }
        table += 1;
    }
    lengths
};

/// Whether a segment is one that is asked for by those who look around.
pub(super) fn segment(segment: &[u8], depth: usize, watch: &Watch<'_>) -> bool {
    let [first, ..] = segment else { return false };
    if depth > DEEPEST || segment.len() >= 32 || LENGTHS[usize::from(*first)] & 1 << segment.len() == 0 {
        return false;
    }
    let is = |name: &&str| segment.eq_ignore_ascii_case(name.as_bytes());
    SEGMENTS.iter().any(is) || OF_PHP.iter().any(is) && !watch.extensions.iter().any(|extension| extension == "php")
}

/// Whether a whole path is.
pub(super) fn path(path: &[u8]) -> bool {
    let path = path.strip_suffix(b"/").unwrap_or(path);
    let ends = |end: &&str| path.len() >= end.len() && path[path.len() - end.len()..].eq_ignore_ascii_case(end.as_bytes());
    if ENDS.iter().any(ends) {
        return true;
    }
    let Some((name, kind)) = path.iter().rposition(|byte| *byte == b'/').and_then(|slash| {
        let last = &path[slash + 1..];
        let dot = last.iter().position(|byte| *byte == b'.')?;
        Some((&last[..dot], &last[dot + 1..]))
    }) else {
        return false;
    };
    let one_of = |table: &[&str], text: &[u8]| table.iter().any(|name| text.eq_ignore_ascii_case(name.as_bytes()));
    // Archives in the root are leftovers; deeper they are downloads.
    path.iter().filter(|byte| **byte == b'/').count() == 1 && one_of(PACKED, kind) && one_of(ARCHIVES, name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Families;

    #[test]
    fn who_looks_around_is_known_and_who_runs_it_is_not() {
        let none = Watch { families: Families::ALL, extensions: &[], own: None };
        let extensions = ["php".to_owned()];
        let php = Watch { extensions: &extensions, ..none };
        for name in ["Dockerfile", "_ignition", "HNAP1", "+CSCOE+", "server-status", "phpMyAdmin"] {
            assert!(segment(name.as_bytes(), 1, &none), "{name}");
            assert!(!segment(name.as_bytes(), 3, &none), "{name}, deep");
        }
        assert!(!segment(b"phpmyadmin", 1, &php) && !segment(b"wp-admin", 1, &php) && segment(b"_ignition", 1, &php));
        for honest in ["", "docker", "status", "settings", "admin", "manager", "web", "wp-content", "health", "sdk", "telescope", "luci"] {
            assert!(!segment(honest.as_bytes(), 1, &none), "{honest}");
        }
        for probe in [
            "/actuator/env",
            "/app/actuator/heapdump/../env/..//actuator/env",
            "/manager/html",
            "/backup.tar.gz",
            "/www.zip",
            "/v1.24/containers/json",
            "/jenkins/script/",
        ] {
            assert!(path(probe.as_bytes()), "{probe}");
        }
        for honest in ["/actuator/health", "/actuator/prometheus", "/downloads/backup.zip", "/release-1.2.tar.gz", "/manager", "/", ""] {
            assert!(!path(honest.as_bytes()), "{honest}");
        }
    }
}
