//! A word on standard output.

use std::io::{self, Write as _};

/// Unlike `println!`, does not panic where stdout is closed.
pub fn say(text: &str) {
    drop(writeln!(io::stdout(), "{text}"));
}
