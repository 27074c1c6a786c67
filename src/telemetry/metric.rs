//! Every metric's name, labels and help in one table.
//!
//! Shape: label values come from the configuration, never from a request: an unknown host counts under [`NO_SITE`].
//! Source: naming after prometheus.io/docs/practices/naming.

/// The `site` of requests that no site is for. No host can be called that.
pub const NO_SITE: &str = "-";

/// One metric: what stands in the table below and nowhere else.
#[derive(Debug)]
pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

macro_rules! table {
    ($($id:ident $kind:ident $name:literal [$($label:literal)*] $help:literal;)*) => {
        $(pub(super) const $id: &Metric = &Metric { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help };)*
        /// Every metric of ours; `process_*` come from the prometheus crate.
        pub const TABLE: &[&Metric] = &[$($id),*];
    };
}

table! {
    HTTP_REQUESTS    Counter   "gateway_http_requests_total"               ["site" "code"] "Requests answered, by status.";
    HTTP_DURATION    Histogram "gateway_http_request_duration_seconds"     ["site"] "From the end of a request's headers to the last byte of its answer.";
    HTTP_RECEIVED    Counter   "gateway_http_received_bytes_total"         ["site"] "Bytes of request bodies.";
    HTTP_SENT        Counter   "gateway_http_sent_bytes_total"             ["site"] "Bytes of answers' bodies.";
    HTTP_IN_FLIGHT   Gauge     "gateway_http_in_flight"                    ["site"] "Requests that are being answered, tunnels included.";
    CONNECTIONS      Gauge     "gateway_connections"                       ["listener"] "Open connections.";
    CONNECTIONS_ALL  Counter   "gateway_connections_total"                 ["listener"] "Connections accepted.";
    REFUSED          Counter   "gateway_connections_refused_total"         ["listener" "reason"] "Connections closed before a request was read.";
    TLS_HANDSHAKES   Counter   "gateway_tls_handshakes_total"              ["result"] "TLS handshakes with clients.";
    TLS_DURATION     Histogram "gateway_tls_handshake_seconds"             [] "Time of complete TLS handshakes.";
    ZONE_REQUESTS    Counter   "gateway_zone_requests_total"               ["zone" "result"] "Requests that a zone judged.";
    ZONE_WAITING     Gauge     "gateway_zone_waiting"                      ["zone"] "Requests that wait for their turn in a zone.";
    ZONE_KEYS        Gauge     "gateway_zone_keys"                         ["zone"] "Keys that a zone keeps apart at the moment.";
    FILTER_HITS      Counter   "gateway_filter_hits_total"                 ["filter" "site" "result"] "Requests that a filter recognised.";
    FILTER_FAMILIES  Counter   "gateway_filter_families_total"             ["family" "site" "result"] "Requests that a family of bad-uri recognised.";
    BUFFERED         Gauge     "gateway_http_buffered_bytes"               [] "Of request bodies that no process was chosen for yet.";
    BUFFERS_REFUSED  Counter   "gateway_http_buffers_refused_total"        ["reason"] "Bodies that ended on their way in: no room for them (full, 503), the slowest when there was none (slow, 408), below the floor of pace (pace, 408).";
    FIELDS_DROPPED   Counter   "gateway_http_fields_dropped_total"         [] "Header fields of requests that were not passed on because of an underscore in their names.";
    BANS             Gauge     "gateway_bans"                              [] "Clients that are banned at the moment.";
    BANS_ALL         Counter   "gateway_bans_total"                        ["reason"] "Bans made since this edge started, those that are only observed too.";
    BAN_REQUESTS     Counter   "gateway_ban_requests_total"                ["result"] "Requests of banned clients.";
    UPSTREAM_UP      Gauge     "gateway_upstream_up"                       ["upstream" "server"] "1 where the server may be picked.";
    UPSTREAM_REQS    Counter   "gateway_upstream_requests_total"           ["upstream" "server" "code"] "Requests passed to a server; 502 and 504 where it gave no answer.";
    UPSTREAM_TIME    Histogram "gateway_upstream_duration_seconds"         ["upstream"] "From the pick of a server to the end of its answer.";
    UPSTREAM_FLIGHT  Gauge     "gateway_upstream_in_flight"                ["upstream" "server"] "Requests that wait for a server's answer.";
    UPSTREAM_RETRIES Counter   "gateway_upstream_retries_total"            ["upstream"] "Requests tried again on another server.";
    UPSTREAM_SUSPECT Counter   "gateway_upstream_suspected_total"          ["upstream" "server"] "How often a server hung: it was silent while another one answered.";
    UPSTREAM_PANIC   Gauge     "gateway_upstream_panic"                    ["upstream"] "1 while every server is down and the last ones are used all the same.";
    APP_UP           Gauge     "gateway_app_up"                            ["app" "process"] "1 where the process is ready.";
    APP_STATE        Gauge     "gateway_app_state"                         ["app" "process" "state"] "1 for the state that the process is in, 0 for the others.";
    APP_RESTARTS     Counter   "gateway_app_restarts_total"                ["app" "reason"] "Restarts of an app's instances.";
    APP_RUNS         Counter   "gateway_app_runs_total"                    ["app" "result"] "Runs of a scheduled app, and the times of its schedule without one.";
    APP_LAST_SUCCESS Gauge     "gateway_app_last_success_timestamp_seconds" ["app"] "When a run of a scheduled app succeeded last; 0: none has yet.";
    APP_CPU          Counter   "gateway_app_cpu_seconds_total"             ["app" "process"] "CPU time of the running process.";
    APP_MEMORY       Gauge     "gateway_app_memory_bytes"                  ["app" "process"] "Resident memory of the running process.";
    APP_HELD         Gauge     "gateway_app_held_requests"                 ["app"] "Requests that wait for an instance to be ready.";
    APP_HOLD         Histogram "gateway_app_hold_seconds"                  ["app"] "How long requests have waited for an instance.";
    CERT_NOT_AFTER   Gauge     "gateway_certificate_not_after_timestamp_seconds" ["host"] "When the certificate that is served ends.";
    CERT_AT_RISK     Gauge     "gateway_certificate_at_risk"               ["host"] "1 where a certificate that is looked after has a third of its life left or less, or is not there: somebody should look.";
    CERT_PROBLEM     Gauge     "gateway_certificate_problem"               ["host"] "1 where a certificate of one's own has ended or cannot be used: what is served instead is older, or stands in.";
    ACME_ORDERS      Counter   "gateway_acme_orders_total"                 ["result"] "Orders of certificates that came to an end.";
    RELOADS          Counter   "gateway_config_reloads_total"              ["result"] "Reloads of the configuration.";
    GENERATION       Gauge     "gateway_config_generation"                 [] "Counts the configurations that were put in force.";
    EDGE_RESTARTS    Counter   "gateway_edge_restarts_total"               [] "How often the master had to start a new edge.";
    ACCESS_DROPPED   Counter   "gateway_access_log_dropped_total"          [] "Access records lost: their reader was too slow, or the disk full.";
    BUILD            Gauge     "gateway_build_info"                        ["version"] "Always 1.";
    NODE_CPU         Gauge     "gateway_node_cpu_usage_ratio"              [] "Share of all cores in use.";
    NODE_MEMORY      Gauge     "gateway_node_memory_total_bytes"           [] "Memory of the machine.";
    NODE_AVAILABLE   Gauge     "gateway_node_memory_available_bytes"       [] "Memory that programs can still have.";
    NODE_DISK        Gauge     "gateway_node_disk_free_bytes"              ["mount"] "Space that is still free.";
    NODE_DISK_TOTAL  Gauge     "gateway_node_disk_total_bytes"             ["mount"] "Size of the file system.";
    NODE_LOAD        Gauge     "gateway_node_load1"                        [] "Processes that run or wait, averaged over a minute.";
}
