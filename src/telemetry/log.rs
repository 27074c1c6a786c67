//! Our own log: one line an event, text or JSON, whatever a client or a server put into it.
//!
//! Shape: every value is escaped where it is written; a control byte never reaches the log. Crates of others speak from `warn` up, and what pingora says of
//!        clients that went away is dropped: a hang-up is not an error.

use std::{
    error::Error as StdError,
    fmt::{self, Debug},
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use jiff::Timestamp;
use thiserror::Error;
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
};
use tracing_subscriber::{
    Registry,
    filter::Targets,
    fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter, format::Writer},
    layer::SubscriberExt as _,
    registry::LookupSpan,
    reload,
    util::SubscriberInitExt as _,
};

use super::access::quoted;
use crate::{
    plan::{LogFormat, LogLevel},
    vocab::chain,
};

/// Why the log could not be set up.
#[derive(Debug, Error)]
pub enum InstallError {
    #[error("set up the log: another one is there")]
    Twice,
}

/// Changes the log of this process at a reload.
#[derive(Clone)]
pub struct LogHandle {
    level: reload::Handle<Targets, Registry>,
    format: Arc<AtomicU8>,
}

impl LogHandle {
    pub fn set(&self, level: LogLevel, format: LogFormat) {
        // Errs only where the subscriber is gone, and with it the log.
        drop(self.level.reload(targets(level)));
        self.format.store(format as u8, Relaxed);
    }
}

/// The master's log. `writer` gets each event as one call and may choose a file by its level.
pub fn install_master<W>(level: LogLevel, format: LogFormat, writer: W) -> Result<LogHandle, InstallError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    install(Process::Master, level, format, writer)
}

/// The edge's log: stderr, each line led by its priority (`<4>`), by which the master chooses the file.
pub fn install_edge(level: LogLevel, format: LogFormat) -> Result<LogHandle, InstallError> {
    install(Process::Edge, level, format, std::io::stderr)
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Process {
    Master,
    Edge,
}

fn install<W>(process: Process, level: LogLevel, format: LogFormat, writer: W) -> Result<LogHandle, InstallError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let (filter, level) = reload::Layer::new(targets(level));
    let format = Arc::new(AtomicU8::new(format as u8));
    let lines =
        tracing_subscriber::fmt::layer().with_ansi(false).with_writer(writer).event_format(Lines { process, format: format.clone() });
    tracing_subscriber::registry().with(filter).with(lines).try_init().map_err(|_| InstallError::Twice)?;
    static BRIDGE: Bridge = Bridge { pace: Pace::new() };
    log::set_logger(&BRIDGE).map_err(|_| InstallError::Twice)?;
    log::set_max_level(log::LevelFilter::Warn);
    std::panic::set_hook(Box::new(|panic| {
        let what = panic.payload_as_str().unwrap_or("no message");
        let at = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(what, at, "panicked");
    }));
    Ok(LogHandle { level, format })
}

fn targets(level: LogLevel) -> Targets {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    Targets::new().with_default(level.min(LevelFilter::WARN)).with_target("gateway", level)
}

/// Writes an event as a line.
struct Lines {
    process: Process,
    format: Arc<AtomicU8>,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let (level, target) = (*event.metadata().level(), event.metadata().target());
        if self.process == Process::Edge {
            write!(out, "<{}>", priority(level))?;
        }
        let line = Line { at: Timestamp::now(), level, target, process: self.process, fields: &fields };
        if self.format.load(Relaxed) == LogFormat::Json as u8 { line.json(&mut out) } else { line.text(&mut out) }
    }
}

/// Source: sd-daemon(3).
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

struct Line<'a> {
    at: Timestamp,
    level: Level,
    target: &'a str,
    process: Process,
    fields: &'a Fields,
}

impl Line<'_> {
    /// Where in the code, for those who look that close.
    fn module(&self) -> Option<&str> {
        (self.level > Level::INFO).then_some(self.target)
    }

    fn process(&self) -> &'static str {
        match self.process {
            Process::Master => "master",
            Process::Edge => "edge",
        }
    }

    fn level(&self) -> &'static str {
        match self.level {
            Level::ERROR => "error",
            Level::WARN => "warn",
            Level::INFO => "info",
            Level::DEBUG => "debug",
            Level::TRACE => "trace",
        }
    }

    fn text(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        write!(out, "{:.3} {:5} {}: ", self.at, self.level(), self.process())?;
        escape(&self.fields.message, out)?;
        for (name, value) in &self.fields.rest {
            match value {
                Value::Text(text) => {
                    write!(out, " {name}=")?;
                    if text.is_empty() || text.chars().any(|c| c.is_whitespace() || matches!(c, '"' | '=' | '\\') || c.is_control()) {
                        write!(out, "\"{}\"", Quoted(text))?;
                    } else {
                        out.write_str(text)?;
                    }
                }
                Value::Plain(text) => write!(out, " {name}={text}")?,
            }
        }
        if let Some(module) = self.module() {
            write!(out, " module={module}")?;
        }
        out.write_char('\n')
    }

    fn json(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        write!(out, "{{\"time\":\"{:.3}\",\"level\":\"{}\",\"process\":\"{}\",", self.at, self.level(), self.process())?;
        write!(out, "\"message\":\"{}\"", Quoted(&self.fields.message))?;
        for (name, value) in &self.fields.rest {
            match value {
                Value::Text(text) => write!(out, ",\"{name}\":\"{}\"", Quoted(text))?,
                Value::Plain(text) => write!(out, ",\"{name}\":{text}")?,
            }
        }
        if let Some(module) = self.module() {
            write!(out, ",\"module\":\"{}\"", Quoted(module))?;
        }
        out.write_str("}\n")
    }
}

/// The inside of a JSON string.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = Vec::with_capacity(self.0.len());
        quoted(self.0.as_bytes(), &mut bytes);
        f.write_str(&String::from_utf8_lossy(&bytes))
    }
}

fn escape(text: &str, out: &mut dyn fmt::Write) -> fmt::Result {
    text.chars().try_for_each(|c| if c.is_control() { write!(out, "{}", c.escape_default()) } else { out.write_char(c) })
}

#[derive(Default)]
struct Fields {
    message: String,
    rest: Vec<(&'static str, Value)>,
}

enum Value {
    Text(String),
    /// A number or a bool: needs no quotes.
    Plain(String),
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // `%value` comes here too, as a Debug that displays.
        self.record_str(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => value.clone_into(&mut self.message),
            name => self.rest.push((name, Value::Text(value.to_owned()))),
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn StdError + 'static)) {
        self.rest.push((field.name(), Value::Text(chain(value))));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.rest.push((field.name(), Value::Plain(value.to_string())));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.rest.push((field.name(), Value::Plain(value.to_string())));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.rest.push((field.name(), Value::Plain(value.to_string())));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        let text = value.to_string();
        self.rest.push((field.name(), if value.is_finite() { Value::Plain(text) } else { Value::Text(text) }));
    }
}

/// Lines of other crates that pass in a second: a server that is down makes pingora say so at each request.
const FOREIGN_LINES: u64 = 10;

/// Characters of such a line that are kept.
const FOREIGN_LINE: usize = 300;

fn clipped(text: &str) -> &str {
    text.char_indices().nth(FOREIGN_LINE).map_or(text, |(end, _)| &text[..end])
}

/// Brings what other crates say by the `log` crate into our log.
struct Bridge {
    pace: Pace,
}

impl log::Log for Bridge {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Warn
    }

    fn log(&self, record: &log::Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let text = record.args().to_string();
        if is_hang_up(record.target(), &text) {
            return;
        }
        // What a stranger has sent may stand in it, as long as that was.
        let text = clipped(&text);
        static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        let second = START.get_or_init(Instant::now).elapsed().as_secs();
        let Some(suppressed) = self.pace.pass(second) else { return };
        // What they call an error heals or is answered with a 5xx: for us it is a warning.
        tracing::warn!(from = record.target(), text, suppressed, "a library warned");
    }

    fn flush(&self) {}
}

/// Whether pingora only says that a client went away or was too slow.
fn is_hang_up(target: &str, text: &str) -> bool {
    const STARTS: [&str; 5] = [
        "Downstream",
        "H2 handshake error",
        "tearing down downstream h2 connection",
        "failed to send error response to downstream",
        "Error finish sending body to downstream",
    ];
    // `Fail to proxy: Downstream ReadError context: …`; the source is followed by a space, and led by one where it is the head of a chain.
    let cause = text.strip_prefix("Fail to proxy:").map(str::trim_start);
    target.starts_with("pingora")
        && (STARTS.iter().any(|start| text.starts_with(start))
            || cause.is_some_and(|cause| cause.starts_with("Downstream ") || cause.contains(", downstream session type: ")))
}

/// So many a second.
struct Pace {
    /// The second, and how many passed or wanted to in it.
    second: AtomicU64,
    seen: AtomicU64,
}

impl Pace {
    const fn new() -> Self {
        Self { second: AtomicU64::new(0), seen: AtomicU64::new(0) }
    }

    /// `None`: too many. Else how many were too many in the second that had any before.
    fn pass(&self, second: u64) -> Option<u64> {
        if self.second.swap(second, Relaxed) != second {
            return Some(self.seen.swap(1, Relaxed).saturating_sub(FOREIGN_LINES));
        }
        (self.seen.fetch_add(1, Relaxed) < FOREIGN_LINES).then_some(0)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn what_a_stranger_sent_fills_no_log_through_a_library() {
        assert_eq!(clipped("short"), "short");
        assert_eq!(clipped(&"ä".repeat(5000)), "ä".repeat(FOREIGN_LINE));
    }

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("whole").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// What is logged in `work`, without the times.
    fn logged(process: Process, format: LogFormat, work: impl FnOnce()) -> Vec<String> {
        let kept = Kept::default();
        let writer = kept.clone();
        let lines = Lines { process, format: Arc::new(AtomicU8::new(format as u8)) };
        let layer = tracing_subscriber::fmt::layer().with_writer(move || writer.clone()).event_format(lines);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(targets(LogLevel::Info)).with(layer), work);
        let text = String::from_utf8(kept.0.lock().expect("whole").clone()).expect("utf-8");
        text.lines().map(|line| line.to_owned()).collect()
    }

    #[derive(Debug, Error)]
    #[error("read the file")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn text_reads_as_a_sentence_with_facts() {
        let lines = logged(Process::Master, LogFormat::Text, || {
            let error = Outer(std::io::Error::other("disk on fire"));
            tracing::warn!(site = "shop", took_ms = 12, ok = false, error = &error as &dyn StdError, "could not reload");
        });
        let (time, rest) = lines[0].split_once(' ').expect("a time");
        assert!(time.parse::<Timestamp>().is_ok() && time.ends_with('Z') && time.len() == 24, "{time}");
        assert_eq!(rest, r#"warn  master: could not reload site=shop took_ms=12 ok=false error="read the file: disk on fire""#);
    }

    #[test]
    fn a_client_cannot_write_into_the_log() {
        let evil = "x\n<3>forged \x1b[31m\"\u{9b}";
        let text = logged(Process::Edge, LogFormat::Text, || tracing::info!(agent = evil, path = ?evil, error = %evil, "said {evil}"));
        assert_eq!(text.len(), 1, "{text:?}");
        assert!(text[0].starts_with("<6>") && !text[0].chars().any(char::is_control), "{text:?}");
        assert!(text[0].contains(r#"agent="x\n<3>forged \u001b[31m\"\u009b""#), "{text:?}");
        let json = logged(Process::Edge, LogFormat::Json, || tracing::error!(agent = evil, n = 1.5, nan = f64::NAN, "said {evil}"));
        let value: serde_json::Value = serde_json::from_str(json[0].strip_prefix("<3>").expect("an error")).expect("json");
        assert_eq!((value["agent"].as_str(), value["n"].as_f64(), value["process"].as_str()), (Some(evil), Some(1.5), Some("edge")));
        assert!(!json[0].chars().any(char::is_control));
    }

    #[test]
    fn others_speak_from_warn_up_and_we_at_the_level_that_is_set() {
        let lines = logged(Process::Master, LogFormat::Text, || {
            tracing::debug!("ours, below");
            tracing::info!("ours");
            tracing::info!(target: "h2", "theirs, below");
            tracing::warn!(target: "h2", "theirs");
        });
        assert_eq!(lines.len(), 2, "{lines:?}");
    }

    #[test]
    fn a_client_that_hangs_up_is_no_news() {
        assert!(is_hang_up("pingora_proxy", "Fail to proxy: Downstream ReadError context: peer gone, status: 0, tries: 0"));
        assert!(is_hang_up("pingora_proxy", "Fail to proxy:  Downstream ConnectionClosed, status: 0"));
        assert!(is_hang_up("pingora_proxy", "Fail to proxy:  InvalidHTTPHeader, downstream session type: h1"));
        assert!(is_hang_up("pingora_proxy", "failed to send error response to downstream:  Downstream WriteError"));
        assert!(!is_hang_up("pingora_proxy", "Fail to proxy: Upstream ConnectRefused context: Peer: 127.0.0.1:1, status: 502"));
        assert!(!is_hang_up("rustls", "Downstream something"));
    }

    #[test]
    fn a_flood_from_a_library_is_cut_and_counted() {
        let pace = Pace::new();
        assert_eq!((0..25).filter(|_| pace.pass(7).is_some()).count(), 10);
        assert_eq!(pace.pass(8), Some(15));
        assert_eq!(pace.pass(8), Some(0));
    }
}
