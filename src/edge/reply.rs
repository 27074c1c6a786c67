//! Our own answers: error pages, redirects, small texts; and the headers that every answer gets.
//!
//! Shape: a page is small and self-contained, without style or script, so it shows under the strict Content-Security-Policy as well.
//!        Whatever is hostile in it (a request id that a trusted peer sent on) is escaped.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use super::refused::By;
use crate::plan::{HeaderEdit, ban::Offence};

/// An answer that no upstream gave. `Content-Length` and `Date` are the engine's to add; a HEAD request gets the headers alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub body: Bytes,
    /// What the client is answered so for, where that may count against it.
    pub offence: Option<Offence>,
    /// What refuses the request, where that is what the answer says.
    pub refused: Option<By>,
    /// The connection ends with it.
    pub last: bool,
}

impl Reply {
    /// A page that names the status: HTML, JSON or plain text, whichever `accept` names first; never cached.
    #[must_use]
    pub fn page(status: StatusCode, accept: Option<&HeaderValue>, request_id: &str) -> Self {
        let title = status.canonical_reason().unwrap_or("Error");
        let (code, say) = (status.as_u16(), explain(status));
        let (kind, body) = match Kind::of(accept) {
            Kind::Html => ("text/html; charset=utf-8", html(code, title, say, request_id)),
            Kind::Json => ("application/json", json(code, title, say, request_id)),
            Kind::Plain => ("text/plain; charset=utf-8", plain(code, title, say, request_id)),
        };
        Self::bare(status)
            .with(header::CONTENT_TYPE, HeaderValue::from_static(kind))
            .with(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))
            .body(body)
    }

    /// Sends the client to `to`.
    #[must_use]
    pub fn redirect(status: StatusCode, to: HeaderValue) -> Self {
        Self::bare(status).with(header::LOCATION, to)
    }

    /// A body of the user's own, as `respond` has it.
    #[must_use]
    pub fn text(status: StatusCode, content_type: HeaderValue, body: impl Into<Bytes>) -> Self {
        Self::bare(status).with(header::CONTENT_TYPE, content_type).body(body)
    }

    /// Without headers or body.
    #[must_use]
    pub fn bare(status: StatusCode) -> Self {
        Self { status, headers: Vec::with_capacity(4), body: Bytes::new(), offence: None, refused: None, last: false }
    }

    #[must_use]
    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// `Retry-After` in whole seconds, rounded up, at least one: a client that waits so long is not early.
    #[must_use]
    pub fn with_retry_after(self, wait: Duration) -> Self {
        let seconds = wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0)).max(1);
        self.with(header::RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// It is for this that the client is refused: points for a ban.
    #[must_use]
    pub fn blame(mut self, offence: Offence) -> Self {
        self.offence = Some(offence);
        self
    }

    /// It refuses the request, for this.
    #[must_use]
    pub fn by(mut self, by: By) -> Self {
        self.refused = Some(by);
        self
    }

    /// Nothing is answered on this connection after it.
    #[must_use]
    pub fn last(mut self) -> Self {
        self.last = true;
        self
    }

    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }
}

/// Applies a route's `response_headers` or `request_headers`: wins over what is there, an edit without value removes.
pub fn edit(headers: &mut HeaderMap, edits: &[HeaderEdit], tls: bool) {
    for HeaderEdit { name, value, tls_only } in edits {
        match value {
            Some(_) if *tls_only && !tls => {}
            Some(value) => {
                headers.insert(name.clone(), value.clone());
            }
            None => {
                headers.remove(name);
            }
        }
    }
}

/// What a page is written as.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Html,
    Json,
    Plain,
}

impl Kind {
    /// The first that `accept` names and does not rule out by `q=0`. Browsers name `text/html` first; curl's `*/*` gets plain text.
    fn of(accept: Option<&HeaderValue>) -> Self {
        let Some(accept) = accept.and_then(|value| value.to_str().ok()) else { return Self::Plain };
        for range in accept.split(',').take(32) {
            let (kind, parameters) = range.split_once(';').unwrap_or((range, ""));
            let refused = parameters.split(';').any(|p| matches!(p.trim(), "q=0" | "q=0.0" | "q=0.00" | "q=0.000"));
            let kind = kind.trim();
            if refused {
                continue;
            }
            if kind.eq_ignore_ascii_case("text/html") || kind.eq_ignore_ascii_case("application/xhtml+xml") {
                return Self::Html;
            }
            if kind.eq_ignore_ascii_case("application/json") || kind.to_ascii_lowercase().ends_with("+json") {
                return Self::Json;
            }
            if kind.eq_ignore_ascii_case("text/plain") {
                return Self::Plain;
            }
        }
        Self::Plain
    }
}

fn html(code: u16, title: &str, say: &str, request_id: &str) -> String {
    let mut page = String::with_capacity(512);
    page.push_str(
        "<!doctype html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\"><title>",
    );
    page.push_str(&format!("{code} {title}</title></head>\n<body>\n<h1>{code} {title}</h1>\n<p>{say}</p>\n"));
    if !request_id.is_empty() {
        page.push_str("<p><small>Request id: <code>");
        escape_html(request_id, &mut page);
        page.push_str("</code></small></p>\n");
    }
    page.push_str("</body>\n</html>\n");
    page
}

fn json(code: u16, title: &str, say: &str, request_id: &str) -> String {
    serde_json::json!({ "status": code, "error": title, "message": say, "request_id": request_id }).to_string() + "\n"
}

fn plain(code: u16, title: &str, say: &str, request_id: &str) -> String {
    // `nosniff` is not on where a user turned the strict set off: then nothing a sniffing browser could take for markup may stand here either.
    let mut page = format!("{code} {title}\n{say}\n");
    if !request_id.is_empty() {
        page.push_str("Request id: ");
        page.extend(request_id.chars().filter(|c| c.is_ascii_graphic() && !matches!(c, '<' | '>' | '&' | '"' | '\'')));
        page.push('\n');
    }
    page
}

fn escape_html(text: &str, to: &mut String) {
    for c in text.chars() {
        match c {
            '<' => to.push_str("&lt;"),
            '>' => to.push_str("&gt;"),
            '&' => to.push_str("&amp;"),
            '"' => to.push_str("&quot;"),
            '\'' => to.push_str("&#39;"),
            _ => to.push(c),
        }
    }
}

/// One sentence for whoever sees the page; it gives no rule away.
fn explain(status: StatusCode) -> &'static str {
    match status.as_u16() {
        400 => "The request could not be understood.",
        401 => "This page is for those who have a name and a password for it.",
        403 => "You may not see this page.",
        404 => "There is nothing here.",
        405 => "This page does not answer to that method.",
        408 => "The request took too long to arrive.",
        413 => "The request is larger than this server accepts.",
        414 => "The address is longer than this server accepts.",
        421 => "This server does not answer for that name on this connection.",
        429 => "Too many requests. Please wait a moment and try again.",
        431 => "The request has more or larger headers than this server accepts.",
        500 => "Something went wrong on this server.",
        501 => "This server does not know how to do that.",
        502 => "The application behind this page gave no valid answer. Please try again.",
        503 => "The application behind this page is not available at the moment. Please try again soon.",
        504 => "The application behind this page took too long to answer.",
        _ => "The request could not be answered.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(text: &'static str) -> Option<HeaderValue> {
        Some(HeaderValue::from_static(text))
    }

    fn content_type(reply: &Reply) -> &str {
        let (_, value) = reply.headers.iter().find(|(name, _)| name == header::CONTENT_TYPE).expect("pages have a type");
        value.to_str().expect("ascii")
    }

    #[test]
    fn a_page_comes_as_the_client_asks() {
        for (asked, kind) in [
            (accept("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"), "text/html; charset=utf-8"),
            (accept("application/json"), "application/json"),
            (accept("application/problem+json, text/html"), "application/json"),
            (accept("text/html;q=0, application/json"), "application/json"),
            (accept("*/*"), "text/plain; charset=utf-8"),
            (None, "text/plain; charset=utf-8"),
        ] {
            assert_eq!(content_type(&Reply::page(StatusCode::NOT_FOUND, asked.as_ref(), "id")), kind, "{asked:?}");
        }
    }

    #[test]
    fn hostile_text_cannot_leave_its_place_in_a_page() {
        let id = "<script>alert(1)</script>\"'&";
        for asked in ["text/html", "application/json", "text/plain"] {
            let reply = Reply::page(StatusCode::BAD_GATEWAY, accept(asked).as_ref(), id);
            let body = String::from_utf8(reply.body.to_vec()).expect("text");
            if asked == "application/json" {
                let value: serde_json::Value = serde_json::from_str(&body).expect("valid JSON");
                assert_eq!(value["request_id"], id);
            } else {
                assert!(!body.contains("<script>"), "{body}");
            }
        }
    }

    #[test]
    fn a_page_holds_under_the_strict_policy() {
        for code in [400, 403, 404, 405, 413, 414, 429, 431, 500, 502, 503, 504, 418, 599] {
            let status = StatusCode::from_u16(code).expect("a status");
            let reply = Reply::page(status, accept("text/html").as_ref(), "0123456789abcdef");
            let body = String::from_utf8(reply.body.to_vec()).expect("text");
            assert!(body.contains(&code.to_string()) && body.contains("0123456789abcdef"));
            assert!(!body.contains("style") && !body.contains("<script") && !body.contains("=\"javascript") && body.len() < 1024, "{body}");
        }
    }

    #[test]
    fn retry_after_is_rounded_up_and_at_least_one() {
        for (wait, seconds) in [(0, "1"), (1, "1"), (1000, "1"), (1001, "2"), (59_999, "60")] {
            let reply = Reply::bare(StatusCode::TOO_MANY_REQUESTS).with_retry_after(Duration::from_millis(wait));
            assert_eq!(reply.headers, [(header::RETRY_AFTER, HeaderValue::from_static(seconds))]);
        }
    }

    #[test]
    fn a_route_wins_over_the_app() {
        let mut headers = HeaderMap::new();
        headers.insert(header::SERVER, HeaderValue::from_static("mine"));
        let edits = [HeaderEdit::new(header::SERVER, Some(HeaderValue::from_static("route"))), HeaderEdit::new(header::AGE, None)];
        edit(&mut headers, &edits, true);
        assert_eq!(headers[header::SERVER], "route");
    }
}
