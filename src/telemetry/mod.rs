//! What is measured and written down: metrics, access log, our own log, figures of the machine.

pub mod access;
pub mod accesslog;
pub mod cell;
pub mod exposition;
pub mod handle;
pub mod log;
pub mod metric;
pub mod node;
pub mod registry;
mod seldom;
pub mod series;

pub use handle::{
    AcmeMetrics, BanMetrics, BufferMetrics, ConnectionGuard, FieldMetrics, FilterMetrics, Handshake, HoldMetrics, InFlight,
    ListenerMetrics, Ordered, Refusal, ServerMetrics, SiteMetrics, TlsMetrics, UpstreamMetrics, ZoneCounts, ZoneMetrics,
};
pub use metric::NO_SITE;
pub use registry::{LookedAfter, Metrics, Totals};
pub use seldom::Seldom;
pub use series::Series;
