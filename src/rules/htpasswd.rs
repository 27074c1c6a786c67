//! An htpasswd file: names and stored passwords, one a line.
//!
//! Pure. Shape: `NAME:HASH`, what follows a second colon is a comment; empty lines and those that begin with `#` are passed over.
//! Errors: every bad line with its number; no hash is ever quoted.

use thiserror::Error;

use super::password::{HashError, Stored};

/// So many passwords stand in one file at most.
pub const MOST: usize = 10_000;
pub const LONGEST_NAME: usize = 255;

/// One good line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Line<'a> {
    pub name: &'a str,
    pub hash: &'a str,
}

/// Why a line, or the file, is not taken.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum LineError {
    #[error("is not NAME:HASH")]
    Shape,
    #[error("has a name that is empty, longer than {LONGEST_NAME} bytes, or holds a control character")]
    Name,
    #[error("has a name that line {0} has already")]
    Twice(usize),
    #[error("{0}")]
    Hash(#[from] HashError),
    #[error("is beyond {MOST} users")]
    Many,
}

impl LineError {
    /// What to do about it.
    #[must_use]
    pub fn cure(&self) -> &'static str {
        match self {
            Self::Hash(HashError::Bcrypt(_) | HashError::Argon2 { .. } | HashError::Rounds(_)) => "make it again with a lower cost",
            Self::Shape | Self::Hash(_) => "make it again with `htpasswd -B FILE NAME`",
            Self::Name | Self::Twice(_) => "give each user a name of his own",
            Self::Many => "ask a program of your own, by auth = { forward = \"http://…\" }",
        }
    }
}

/// Every good line in order, and every bad one by its number.
#[must_use]
pub fn read(text: &str) -> (Vec<Line<'_>>, Vec<(usize, LineError)>) {
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    let mut seen = std::collections::HashMap::new();
    for (number, line) in text.lines().enumerate().map(|(at, line)| (at + 1, line.trim_end())) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if good.len() >= MOST {
            bad.push((number, LineError::Many));
            break;
        }
        match self::line(line).and_then(|line| match seen.insert(line.name, number) {
            Some(first) => Err(LineError::Twice(first)),
            None => Ok(line),
        }) {
            Ok(line) => good.push(line),
            Err(error) => bad.push((number, error)),
        }
    }
    (good, bad)
}

fn line(line: &str) -> Result<Line<'_>, LineError> {
    let (name, rest) = line.split_once(':').ok_or(LineError::Shape)?;
    if name.is_empty() || name.len() > LONGEST_NAME || name.chars().any(char::is_control) {
        return Err(LineError::Name);
    }
    let hash = rest.split(':').next().unwrap_or_default();
    Stored::parse(hash)?;
    Ok(Line { name, hash })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "{SHA}L55TUjtiq8FBorTWAZ0jy6g129A=";

    #[test]
    fn every_good_line_is_read_and_every_bad_one_is_told() {
        let text = format!(
            "# staff\n\nalice:{HASH}\r\nbob:{HASH}:a comment\ncarol\n:{HASH}\ndave:secret\nalice:{HASH}\nj\u{f6}rg:{HASH}\nx\u{1}:{HASH}\n"
        );
        let (good, bad) = read(&text);
        assert_eq!(good.iter().map(|line| line.name).collect::<Vec<_>>(), ["alice", "bob", "j\u{f6}rg"]);
        assert!(good.iter().all(|line| line.hash == HASH));
        let wanted = [
            (5, LineError::Shape),
            (6, LineError::Name),
            (7, LineError::Hash(HashError::Unknown)),
            (8, LineError::Twice(3)),
            (10, LineError::Name),
        ];
        assert_eq!(bad, wanted);
        assert!(!bad.iter().any(|(_, error)| error.to_string().contains("secret")));
    }

    #[test]
    fn a_file_ends_somewhere() {
        let text: String = (0..MOST + 5).map(|n| format!("u{n}:{HASH}\n")).collect();
        let (good, bad) = read(&text);
        assert_eq!((good.len(), bad), (MOST, vec![(MOST + 1, LineError::Many)]));
    }
}
