//! A file of `NAME=value` lines, as systemd's EnvironmentFile= and Docker Compose's env_file agree on it.
//!
//! Pure.
//!
//! Shape: what both read alike is read so; what they read differently is refused, with its line and how to write it instead. Neither has a grammar of its own in
//!        a crate that keeps to both, and to guess which one a file was written for would put a wrong secret into a program.
//!        Both: `#` lines, `export ` before a name, blanks around the `=`, a byte order mark and CRLF; text in single quotes as it stands, over lines too; in double
//!        quotes `\\`, `\"` and `\$`; without quotes as it stands, without the blanks around it.
//! Source: systemd.exec(5) EnvironmentFile= and the states of its parser; the Compose specification, "env_file format", and its reader of .env files.

/// What is wrong with a line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Fault {
    pub line: usize,
    pub what: &'static str,
    pub cure: &'static str,
}

/// More of them tell nothing new.
const FAULTS: usize = 20;

const SINGLE: &str = "put the value in single quotes";
const OWN_LINE: &str = "put the comment on a line of its own, or the whole value in single quotes";

/// The variables in their order, and what is wrong.
pub fn variables(text: &str) -> (Vec<(String, String)>, Vec<Fault>) {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).replace("\r\n", "\n");
    let mut reader = Reader { rest: &text, line: 0, found: Vec::new(), faults: Vec::new() };
    while reader.faults.len() < FAULTS && reader.statement().is_some() {}
    (reader.found, reader.faults)
}

#[must_use]
pub fn is_variable(name: &str) -> bool {
    !name.is_empty() && !name.contains(['=', '\0']) && !name.contains(char::is_whitespace)
}

struct Reader<'t> {
    rest: &'t str,
    line: usize,
    found: Vec<(String, String)>,
    faults: Vec<Fault>,
}

impl<'t> Reader<'t> {
    /// One line, or all those of a quoted value. `None`: that was the last.
    fn statement(&mut self) -> Option<()> {
        if self.rest.is_empty() {
            return None;
        }
        let line = self.take_line();
        let bare = line.trim_matches(BLANKS);
        if bare.is_empty() {
            return Some(());
        }
        if bare.starts_with('#') {
            if bare.ends_with('\\') {
                self.fault(
                    "a comment that ends in a backslash takes in the next line for systemd, and not for Docker",
                    "take the backslash off",
                );
            }
            return Some(());
        }
        if bare.starts_with(';') {
            self.fault("a line with a semicolon at its beginning is a comment for systemd alone", "begin it with #");
            return Some(());
        }
        let Some((name, value)) = bare.split_once('=') else {
            self.fault("this is not NAME=value", "write one, or take the line out");
            return Some(());
        };
        let name = name.trim_end_matches(BLANKS);
        let name = name.strip_prefix("export").filter(|rest| rest.starts_with(BLANKS)).map_or(name, |rest| rest.trim_start_matches(BLANKS));
        if !is_variable(name) || name.contains([':', '\'', '"', '\\', '#', '$']) {
            self.fault("this is not NAME=value: the name holds what no name may hold", "use letters, digits and _");
            return Some(());
        }
        let value = value.trim_start_matches(BLANKS);
        let read = match value.chars().next() {
            Some(quote @ ('\'' | '"')) => {
                // From the quote on, as it may end on another line.
                let at = value.as_ptr() as usize - line.as_ptr() as usize;
                self.quoted(&line[at..], quote)?
            }
            Some(_) | None => self.plain(value),
        };
        if let Some(value) = read {
            self.found.push((name.to_owned(), value));
        }
        Some(())
    }

    fn take_line(&mut self) -> &'t str {
        let (line, rest) = self.rest.split_once('\n').unwrap_or((self.rest, ""));
        self.rest = rest;
        self.line += 1;
        line
    }

    fn fault(&mut self, what: &'static str, cure: &'static str) {
        self.faults.push(Fault { line: self.line, what, cure });
    }

    /// Without quotes.
    fn plain(&mut self, value: &str) -> Option<String> {
        let mut before = '=';
        let mut fault = None;
        for c in value.chars() {
            fault = fault.or(match (before, c) {
                (_, '\\') => Some(("a backslash outside quotes is taken away by systemd and kept by Docker", SINGLE)),
                ('=' | ' ' | '\t', '#') => {
                    Some(("what follows the # is a comment for Docker and a part of the value for systemd", OWN_LINE))
                }
                _ => strange(before, c),
            });
            before = c;
        }
        if value.trim() != value {
            fault = fault
                .or(Some(("a blank that is no plain one stands at an end of the value: Docker takes it off, systemd keeps it", SINGLE)));
        }
        self.checked(fault, value.to_owned())
    }

    /// `first`: its first line, from the opening quote on. `None`: the quote is never closed.
    fn quoted(&mut self, first: &'t str, quote: char) -> Option<Option<String>> {
        let begins = self.line;
        let mut value = String::new();
        let mut fault = None;
        let mut line = &first[1..];
        loop {
            let mut chars = line.char_indices();
            let mut before = quote;
            while let Some((at, c)) = chars.next() {
                match (quote, c) {
                    ('\'', '\'') if before == '\\' => {
                        fault = fault.or(Some((
                            "a backslash before a single quote ends the value for systemd, and not for Docker",
                            "put the value in double quotes, with \\\\ for a backslash",
                        )));
                        return Some(self.checked(fault, value));
                    }
                    (_, c) if c == quote => return Some(self.closed(fault, value, &line[at + 1..])),
                    ('"', '\\') => match chars.next() {
                        Some((_, c @ ('\\' | '"' | '$'))) => {
                            value.push(c);
                            before = '\\';
                            continue;
                        }
                        Some(_) => {
                            fault = fault.or(Some((
                                "an escape other than \\\\, \\\" and \\$ means one thing to systemd and another to Docker",
                                "put the value in single quotes; a line break may stand in them as it is",
                            )));
                        }
                        None => {
                            fault = fault.or(Some((
                                "a line that is continued by a backslash is joined by systemd and not by Docker",
                                "write it on one line",
                            )))
                        }
                    },
                    ('"', c) => fault = fault.or(strange(before, c)),
                    (_, '\0') => fault = fault.or(strange(before, c)),
                    (_, _) => {}
                }
                value.push(c);
                before = c;
            }
            if self.rest.is_empty() {
                self.faults.push(Fault { line: begins, what: "a quote is not closed", cure: "close it" });
                return None;
            }
            value.push('\n');
            line = self.take_line();
        }
    }

    /// After the closing quote.
    fn closed(&mut self, fault: Option<Words>, value: String, rest: &str) -> Option<String> {
        let rest = rest.trim_matches(BLANKS);
        let after = if rest.is_empty() {
            None
        } else if rest.starts_with('#') {
            Some((
                "a comment after quotes becomes a part of the value for systemd, and not for Docker",
                "put the comment on a line of its own",
            ))
        } else {
            Some((
                "something follows the closing quote: systemd joins the two, Docker does not",
                "put the whole value in one pair of quotes",
            ))
        };
        self.checked(fault.or(after), value)
    }

    fn checked(&mut self, fault: Option<Words>, value: String) -> Option<String> {
        match fault {
            Some((what, cure)) => {
                self.fault(what, cure);
                None
            }
            None => Some(value),
        }
    }
}

type Words = (&'static str, &'static str);

const BLANKS: [char; 2] = [' ', '\t'];

/// What is as strange in double quotes as without any.
fn strange(before: char, c: char) -> Option<Words> {
    match (before, c) {
        (_, '\0') => Some(("it holds a zero byte", "take it out")),
        (_, '\r') => Some(("it holds a carriage return that ends no line", "take it out")),
        ('$', c) if c.is_ascii_alphabetic() || matches!(c, '_' | '{' | '$') => {
            Some(("Docker fills in what follows the $, systemd does not", "put the value in single quotes, or write \\$ in double quotes"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn good(text: &str) -> Vec<(String, String)> {
        let (found, faults) = variables(text);
        assert_eq!(faults, [], "{text:?}");
        found
    }

    fn value(text: &str) -> String {
        let found = good(&format!("A={text}"));
        assert_eq!(found.len(), 1, "{text:?}: {found:?}");
        found[0].1.clone()
    }

    #[test]
    fn what_both_read_alike_is_read_so() {
        for (text, wanted) in [
            ("", ""),
            ("plain", "plain"),
            (" with blanks around \t", "with blanks around"),
            ("it's", "it's"),
            ("say \"hi\"", "say \"hi\""),
            ("a#b", "a#b"),
            ("a=b=c", "a=b=c"),
            ("https://example.com/?a=1&b=2#part", "https://example.com/?a=1&b=2#part"),
            ("cost: 5$", "cost: 5$"),
            ("$5", "$5"),
            ("''", ""),
            ("'single $HOME \\n # \"quoted\"'", "single $HOME \\n # \"quoted\""),
            ("\"\"", ""),
            ("\"double # it's\"", "double # it's"),
            (r#""say \"hi\" for \$5 in C:\\dir""#, r#"say "hi" for $5 in C:\dir"#),
            ("'over\ntwo lines'", "over\ntwo lines"),
            ("\"over\ntwo lines\"", "over\ntwo lines"),
            ("'quoted'  ", "quoted"),
        ] {
            assert_eq!(value(text), wanted, "{text:?}");
        }
    }

    #[test]
    fn names_comments_and_marks_go_in_as_both_take_them() {
        let text =
            "\u{feff}A=1\r\n\r\n  # a comment # of its own\r\nexport B=2\n\tC = 3\nA=4\nexported=5\nspring.datasource.url=jdbc:x\n#\n";
        let found = good(text);
        let found: Vec<(&str, &str)> = found.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(found, [("A", "1"), ("B", "2"), ("C", "3"), ("A", "4"), ("exported", "5"), ("spring.datasource.url", "jdbc:x")]);
    }

    #[test]
    fn what_they_read_differently_is_refused_with_its_line() {
        for (text, line, word) in [
            ("A=1\nB=two # words", 2, "comment"),
            ("A=1\nB= # nothing", 2, "comment"),
            ("A=#nothing", 1, "comment"),
            ("A=\"x\" # y", 1, "comment after quotes"),
            ("A='x'y", 1, "follows the closing quote"),
            ("A=\"x\"'y'", 1, "follows the closing quote"),
            ("A=C:\\dir", 1, "backslash outside quotes"),
            ("A=one\\\nB=two", 1, "backslash outside quotes"),
            ("A=\"one\\\ntwo\"", 2, "continued"),
            ("A=\"one\\ntwo\"", 1, "escape"),
            ("A=\"\\d\"", 1, "escape"),
            ("A='it\\'s'", 1, "before a single quote"),
            ("A=$HOME", 1, "fills in"),
            ("A=${HOME}", 1, "fills in"),
            ("A=a$$b", 1, "fills in"),
            ("A=\"$HOME\"", 1, "fills in"),
            ("A=x\u{a0}", 1, "blank"),
            ("A=a\rb", 1, "carriage return"),
            ("A=\0", 1, "zero byte"),
            ("A='\0'", 1, "zero byte"),
            ("A=1\n\n'B'=2", 3, "name"),
            ("A: 1", 1, "NAME=value"),
            ("A:B=1", 1, "name"),
            ("just words", 1, "NAME=value"),
            ("A", 1, "NAME=value"),
            ("=1", 1, "name"),
            ("A B=1", 1, "name"),
            ("; old style", 1, "semicolon"),
            ("# C:\\\nA=1", 1, "backslash"),
            ("A=1\nB=\"open\nC=2\n", 2, "not closed"),
        ] {
            let (_, faults) = variables(text);
            assert_eq!(faults.len(), 1, "{text:?}: {faults:?}");
            assert!(faults[0].line == line && faults[0].what.contains(word), "{text:?}: {faults:?}");
        }
    }

    #[test]
    fn every_bad_line_is_told_and_no_end_of_them() {
        let (found, faults) = variables("A=$HOME\nB=2\nC=x # y\n");
        assert_eq!(faults.iter().map(|fault| fault.line).collect::<Vec<_>>(), [1, 3]);
        assert_eq!(found, [("B".to_owned(), "2".to_owned())]);
        assert_eq!(variables(&"A=$HOME\n".repeat(1000)).1.len(), FAULTS);
    }

    /// systemd's states, one character after the other.
    fn systemd(text: &str) -> Vec<(String, String)> {
        #[derive(Clone, Copy, PartialEq)]
        enum At {
            Key,
            Before,
            Plain,
            Single,
            Double,
            Comment,
        }
        let (mut at, mut escaped, mut found) = (At::Key, false, Vec::new());
        let (mut key, mut value, mut kept) = (String::new(), String::new(), 0);
        for c in text.chars().chain(['\n']) {
            let ends = matches!(c, '\n' | '\r');
            match at {
                At::Comment => match (escaped, c) {
                    (false, '\\') => escaped = true,
                    (was, _) => {
                        escaped = false;
                        at = if ends && !was { At::Key } else { At::Comment };
                    }
                },
                At::Key if ends => key.clear(),
                At::Key if key.is_empty() && matches!(c, '#' | ';') => at = At::Comment,
                At::Key if key.is_empty() && matches!(c, ' ' | '\t') => {}
                At::Key if c == '=' => at = At::Before,
                At::Key => key.push(c),
                At::Before | At::Plain if escaped => {
                    escaped = false;
                    at = At::Plain;
                    if !ends {
                        value.push(c);
                        kept = value.len();
                    }
                }
                At::Before | At::Plain if ends => {
                    let name = key.trim_end_matches([' ', '\t']).to_owned();
                    let name = name.strip_prefix("export ").map(|rest| rest.trim_start_matches([' ', '\t']).to_owned()).unwrap_or(name);
                    value.truncate(kept);
                    found.push((name, std::mem::take(&mut value)));
                    (at, kept) = (At::Key, 0);
                    key.clear();
                }
                At::Before | At::Plain if c == '\\' => escaped = true,
                At::Before if c == '\'' => at = At::Single,
                At::Before if c == '"' => at = At::Double,
                At::Before if matches!(c, ' ' | '\t') => {}
                At::Before | At::Plain => {
                    at = At::Plain;
                    value.push(c);
                    if !matches!(c, ' ' | '\t') {
                        kept = value.len();
                    }
                }
                At::Single | At::Double => {
                    let quote = if at == At::Single { '\'' } else { '"' };
                    match (escaped, c) {
                        (true, '"' | '\\' | '`' | '$') => value.push(c),
                        (true, '\n') => {}
                        (true, c) => value.extend(['\\', c]),
                        (false, '\\') if at == At::Double => {
                            escaped = true;
                            continue;
                        }
                        (false, c) if c == quote => at = At::Before,
                        (false, c) => value.push(c),
                    }
                    escaped = false;
                    kept = value.len();
                }
            }
        }
        found
    }

    /// As the Compose specification has it: comments after a blank, escapes in double quotes, `$` outside single ones (which stands here for what it would become).
    fn compose(text: &str) -> Vec<(String, String)> {
        let text = text.replace("\r\n", "\n");
        let (mut rest, mut found) = (text.as_str(), Vec::new());
        let filled =
            |text: &str| if text.contains('$') { text.replace("\u{1}", "$").replace('$', "?$") } else { text.replace('\u{1}', "?$") };
        loop {
            rest = rest.trim_start();
            if rest.is_empty() {
                return found;
            }
            let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
            if line.starts_with('#') {
                rest = after;
                continue;
            }
            let Some((name, value)) = line.split_once('=') else { return found };
            let name = name.trim();
            let name = name.strip_prefix("export ").unwrap_or(name).trim().to_owned();
            let value = value.trim_start_matches([' ', '\t']);
            let Some(quote) = value.chars().next().filter(|c| matches!(c, '\'' | '"')) else {
                let end = [" #", "\t#"].iter().filter_map(|mark| value.find(mark)).min().unwrap_or(value.len());
                found.push((name, filled(value[..end].trim())));
                rest = after;
                continue;
            };
            let mut chars = rest[value.as_ptr() as usize - rest.as_ptr() as usize + 1..].chars();
            let mut read = String::new();
            while let Some(c) = chars.next() {
                match (c, quote) {
                    (c, quote) if c == quote => break,
                    ('\\', _) => match (chars.next(), quote) {
                        (Some('\''), '\'') => read.push('\''),
                        (Some(c), '\'') => {
                            read.push('\\');
                            if c == '\'' {
                                break;
                            }
                            read.push(c);
                        }
                        (Some('n'), _) => read.push('\n'),
                        (Some('$'), _) => read.push('\u{2}'),
                        (Some(c), _) => read.push(c),
                        (None, _) => {}
                    },
                    (c, _) => read.push(c),
                }
            }
            found.push((name, if quote == '\'' { read } else { filled(&read).replace('\u{2}', "$") }));
            let left = chars.as_str();
            rest = left.split_once('\n').map_or("", |(_, rest)| rest);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn what_is_not_refused_is_read_by_both_as_by_us(text in prop_oneof![
            "([AB]|export B)?[ \t]?=?([ab#$'\"\\\\ \t\n{;=]|\\\\n|\\\\\"|\\\\\\\\){0,12}(\nC=[ab'\"]{0,4})?",
            "(A|export B)[ \t]?= ?(['\"]?([ab=;]{0,3}|#| #|\n)(\\\\[\"\\\\n']|it's)?[ab ]{0,2}['\"]?)[ \t]?(\n(#c|C=[ab'\"]{0,4}))?",
        ]) {
            let (found, faults) = variables(&text);
            // A $ that names nothing is an error to one of them, and goes in as it stands with the other.
            if !faults.is_empty() || found.iter().any(|(_, value)| value.contains('$')) {
                return Ok(());
            }
            prop_assert_eq!(&systemd(&text), &found, "systemd: {:?}", text);
            prop_assert_eq!(&compose(&text), &found, "compose: {:?}", text);
        }

        #[test]
        fn no_text_panics(text in any::<String>()) {
            let _ = variables(&text);
        }
    }
}
