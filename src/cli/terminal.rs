//! What may be written to a terminal: plain text, and colours where they are wanted.

use std::{
    error::Error,
    fmt::Write as _,
    io::{self, IsTerminal, Write},
};

use super::exit::Exit;
use crate::vocab::chain;

/// Text of others without anything that a terminal would obey: control bytes, and marks that turn the direction of writing, are spelled out.
///
/// Shape: a line stays a line; escaping twice is escaping once.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if hostile(c) {
            // Writing to a String cannot fail.
            let _ = write!(safe, "\\u{{{:x}}}", u32::from(c));
        } else {
            safe.push(c);
        }
    }
    safe
}

/// JSON stays the same JSON: the hostile characters that may stand raw in its strings are written as `\uXXXX`.
#[must_use]
pub fn escape_json(json: &str) -> String {
    let mut safe = String::with_capacity(json.len());
    for c in json.chars() {
        if hostile(c) && c != '\n' {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                let _ = write!(safe, "\\u{unit:04x}");
            }
        } else {
            safe.push(c);
        }
    }
    safe
}

fn hostile(c: char) -> bool {
    // Cc, and the invisible ones of Cf: zero width, bidirectional, line and paragraph separators, tags.
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Whether colours are shown: on a terminal that has them, unless NO_COLOR is set.
///
/// Source: no-color.org.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Paint {
    Colours,
    Plain,
}

impl Paint {
    #[must_use]
    pub fn stdout() -> Self {
        Self::of(io::stdout().is_terminal())
    }

    #[must_use]
    pub fn stderr() -> Self {
        Self::of(io::stderr().is_terminal())
    }

    fn of(terminal: bool) -> Self {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        if terminal && !dumb && !set("NO_COLOR") { Self::Colours } else { Self::Plain }
    }

    #[must_use]
    pub fn with(self, tone: Tone, text: &str) -> String {
        match self {
            Self::Colours => format!("\x1b[{}m{text}\x1b[0m", tone.sgr()),
            Self::Plain => text.to_owned(),
        }
    }
}

/// What a piece of text means.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Tone {
    Good,
    Wait,
    Bad,
    Bold,
}

impl Tone {
    pub(super) fn sgr(self) -> &'static str {
        match self {
            Self::Good => "32",
            Self::Wait => "33",
            Self::Bad => "1;31",
            Self::Bold => "1",
        }
    }
}

/// Writes to standard output. A reader that has gone away (`| head`) is not an error.
pub fn print(text: &str) -> Exit {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Exit::Done,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
        Err(error) => {
            say(&format!("error: could not write to standard output: {error}"));
            Exit::Failed
        }
    }
}

/// A line on standard error.
pub fn say(line: &str) {
    // If standard error is closed there is nobody left to tell.
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// `error: could not …`, its causes, and what can be done about it.
pub fn complain(error: &(dyn Error + 'static), advice: Option<&str>) {
    let paint = Paint::stderr();
    say(&format!("{} could not {}", paint.with(Tone::Bad, "error:"), escape(&chain(error))));
    if let Some(advice) = advice {
        say(&format!("{} {advice}", paint.with(Tone::Bold, "help:")));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn nothing_that_a_terminal_obeys_comes_through(text: String) {
            let safe = escape(&text);
            prop_assert!(!safe.chars().any(hostile));
            prop_assert_eq!(escape(&safe), safe);
        }

        #[test]
        fn json_stays_the_same_json(text: String) {
            let json = serde_json::to_string_pretty(&serde_json::json!({ "a": [&text], text.as_str(): 1 })).expect("json");
            let safe = escape_json(&json);
            prop_assert!(!safe.chars().any(|c| hostile(c) && c != '\n'));
            prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&safe).expect("still json"), serde_json::from_str::<serde_json::Value>(&json).expect("json"));
        }
    }

    #[test]
    fn a_title_sequence_is_shown_not_obeyed() {
        assert_eq!(escape("a\x1b]0;x\x07b\nc"), "a\\u{1b}]0;x\\u{7}b\\u{a}c");
        assert_eq!(escape("größe 日本"), "größe 日本");
    }
}
