//! What is shown while gateway works: a line that lives on a terminal, plain lines elsewhere.
//!
//! Shape: words are facts, which stay, or the beginning of something that takes time, which moves until the next word. On a terminal the latter is one line at the
//!        bottom, with its time; when it is over it stays as a fact. Without colours where they are not wanted; a terminal that knows no codes gets plain lines.

use std::{
    io::{IsTerminal, stderr},
    sync::Mutex,
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::terminal::{Paint, Tone, escape, say};
use crate::vocab::{
    lock,
    units::{duration_text, parse_duration},
};

const TICK: Duration = Duration::from_millis(100);

/// How progress is shown.
pub enum Display {
    Plain,
    Live { bar: ProgressBar, paint: Paint, now: Mutex<Option<String>> },
}

/// What a word of gateway's means for the line at the bottom.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Meaning {
    /// It takes time from here on.
    Begins,
    /// A fact, after which what goes on takes as long as this.
    Guards(Duration),
    /// What goes on is over.
    Ends,
    Fact,
}

impl Meaning {
    fn of(text: &str) -> Self {
        let guard = text.strip_prefix("switched: ").and_then(|text| parse_duration(text.rsplit_once(" stands by for ")?.1).ok());
        if let Some(guard) = guard {
            return Self::Guards(guard);
        }
        let is_begin = |text: &str| text.starts_with("starting ") || text.starts_with("waiting ");
        match text.strip_prefix("before ").map(|text| text.contains(": ")) {
            Some(true) => Self::Begins,
            Some(false) => Self::Ends,
            None if is_begin(text) => Self::Begins,
            None => Self::Fact,
        }
    }
}

impl Display {
    /// For whoever reads standard error.
    #[must_use]
    pub fn stderr() -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        if dumb || !stderr().is_terminal() {
            return Self::Plain;
        }
        let paint = Paint::stderr();
        let template = match paint {
            Paint::Colours => "{spinner:.yellow} {wide_msg} {elapsed}{prefix}",
            Paint::Plain => "{spinner} {wide_msg} {elapsed}{prefix}",
        };
        // A template that it does not understand is shown as its own default.
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner());
        let bar = ProgressBar::new_spinner().with_style(style);
        bar.set_draw_target(ProgressDrawTarget::stderr());
        bar.enable_steady_tick(TICK);
        Self::Live { bar, paint, now: Mutex::new(None) }
    }

    /// A word of gateway's.
    pub fn word(&self, text: &str) {
        let text = escape(text);
        let Self::Live { bar, paint, now } = self else { return say(&text) };
        let mut now = lock(now);
        let fact = |text: &str| bar.println(format!("{} {text}", paint.with(Tone::Good, "✓")));
        let mut begin = |next: Option<String>, most: Option<Duration>| {
            bar.set_message(next.clone().unwrap_or_default());
            bar.set_prefix(most.map(|most| format!("/{}", duration_text(most))).unwrap_or_default());
            bar.reset_elapsed();
            std::mem::replace(&mut *now, next)
        };
        match Meaning::of(&text) {
            Meaning::Begins => {
                if let Some(over) = begin(Some(text), None) {
                    fact(&over);
                }
            }
            Meaning::Guards(guard) => {
                begin(Some("guarding: the old release takes over again if the new one fails".to_owned()), Some(guard));
                fact(&text);
            }
            Meaning::Ends => {
                begin(None, None);
                fact(&text);
            }
            Meaning::Fact => fact(&text),
        }
    }

    /// Takes the line at the bottom away.
    pub fn end(&self) {
        match self {
            Self::Plain => {}
            Self::Live { bar, .. } => bar.finish_and_clear(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_time_is_told_from_what_is_done() {
        for (text, meaning) in [
            ("before 1/2: python manage.py migrate", Meaning::Begins),
            ("before 1/2 is done after 812ms", Meaning::Ends),
            ("starting release 20260115-103000-0 from /srv/web/2 beside the one before", Meaning::Begins),
            ("waiting for a reload to end", Meaning::Begins),
            ("web.0 is ready after 812 ms", Meaning::Fact),
            ("switched: the new release of web serves, the old one stands by for 30s", Meaning::Guards(Duration::from_secs(30))),
            ("switched: the new release of web serves", Meaning::Fact),
            ("", Meaning::Fact),
        ] {
            assert_eq!(Meaning::of(text), meaning, "{text}");
        }
    }
}
