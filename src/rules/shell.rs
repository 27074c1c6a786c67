//! Words of a command that only a shell would read: no shell stands between gateway and a program, so they reach it as they are, or are taken for it.
//!
//! Pure. Looks at the text as it is written, because quotes are gone once it is split: what is quoted or escaped is meant as it stands.
//! Shape: only what can hardly be meant. A lone `*`, an `&` inside an address, `$1` for awk, anything behind `sh -c` or `perl -e`: none of it is a fault.

/// What a shell would have made of a word.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ShellWord {
    /// `FOO=1` in the place of the program.
    Assignment { name: String, value: String },
    /// `&&`, `||`, `|`, `;`, `&`
    Operator(String),
    /// `>out.log`, `2>&1`
    Redirection(String),
    /// `$HOME`, `${HOME}`
    Variable { name: String },
    /// `$(…)` or backquotes.
    Substitution,
    /// `~` or `~/x`
    Home(String),
    /// `src/*.js`: a fault only where files match it.
    Glob(String),
    /// `cd`, `exec`: a shell's own command in the place of the program.
    Builtin(String),
}

/// A word of the text and how it was written.
#[derive(Debug, Default)]
struct Word {
    text: String,
    /// Of each byte of `text`: nothing stood around it.
    bare: Vec<Quote>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Quote {
    None,
    Double,
    /// Single quotes, or a backslash before it.
    Literal,
}

/// Every such word, in order.
#[must_use]
pub fn shell_words(text: &str) -> Vec<ShellWord> {
    let words = split(text);
    let mut found = Vec::new();
    let assigned = words.iter().take_while(|word| assignment(word).is_some()).count();
    if assigned < words.len() || words.len() == 1 {
        found.extend(words.iter().take(assigned).filter_map(assignment));
    }
    if let Some(word) = words.get(assigned).filter(|word| word.is_bare() && is_builtin(&word.text)) {
        found.push(ShellWord::Builtin(word.text.clone()));
    }
    for (at, word) in words.iter().enumerate().skip(assigned) {
        let before = at.checked_sub(1).and_then(|at| words.get(at));
        if before.is_some_and(|before| is_program_text(before, &words[..at])) {
            continue;
        }
        if let Some(operator) = operator(word) {
            found.push(ShellWord::Operator(operator));
        } else if let Some(redirection) = redirection(word) {
            found.push(ShellWord::Redirection(redirection));
        } else if word.quote(0) == Some(Quote::None) && (word.text == "~" || word.text.starts_with("~/")) {
            found.push(ShellWord::Home(word.text.clone()));
        } else if is_substitution(word) {
            found.push(ShellWord::Substitution);
        } else if let Some(name) = variable(word) {
            found.push(ShellWord::Variable { name });
        } else if at > 0 && is_glob(word) && !before.is_some_and(takes_pattern) {
            found.push(ShellWord::Glob(word.text.clone()));
        }
    }
    found
}

/// As shlex splits, keeping how each byte was quoted. A quote that is not closed is another complaint's.
fn split(text: &str) -> Vec<Word> {
    let (mut words, mut word, mut open) = (Vec::new(), Word::default(), false);
    let mut chars = text.chars().peekable();
    let mut quote = Quote::None;
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Quote::None, c) if c.is_whitespace() => {
                if std::mem::take(&mut open) {
                    words.push(std::mem::take(&mut word));
                }
            }
            // A comment runs to the end of its line, as for shlex.
            (Quote::None, '#') if !open => while chars.next_if(|c| *c != '\n').is_some() {},
            (Quote::None, '\'') => (quote, open) = (Quote::Literal, true),
            (Quote::None, '"') => (quote, open) = (Quote::Double, true),
            (Quote::Literal, '\'') | (Quote::Double, '"') => quote = Quote::None,
            (Quote::None, '\\') => {
                open = true;
                word.push(chars.next().unwrap_or('\\'), Quote::Literal);
            }
            (Quote::Double, '\\') if chars.peek().is_some_and(|c| matches!(c, '"' | '\\' | '$' | '`')) => {
                word.push(chars.next().unwrap_or('\\'), Quote::Literal);
            }
            (quote, c) => {
                open = true;
                word.push(c, quote);
            }
        }
    }
    if open {
        words.push(word);
    }
    words
}

impl Word {
    fn push(&mut self, c: char, quote: Quote) {
        self.text.push(c);
        self.bare.resize(self.text.len(), quote);
    }

    fn quote(&self, at: usize) -> Option<Quote> {
        self.bare.get(at).copied()
    }

    fn is_bare(&self) -> bool {
        self.bare.iter().all(|quote| *quote == Quote::None)
    }
}

fn assignment(word: &Word) -> Option<ShellWord> {
    let (name, value) = word.text.split_once('=')?;
    let is_name = is_variable(name) && word.bare[..=name.len()].iter().all(|quote| *quote == Quote::None);
    is_name.then(|| ShellWord::Assignment { name: name.to_owned(), value: value.to_owned() })
}

fn is_variable(name: &str) -> bool {
    name.starts_with(|c: char| c == '_' || c.is_ascii_alphabetic()) && name.bytes().all(|b| b == b'_' || b.is_ascii_alphanumeric())
}

fn operator(word: &Word) -> Option<String> {
    if !word.is_bare() {
        return None;
    }
    let text = word.text.as_str();
    let whole = matches!(text, "&&" | "||" | "|" | "|&" | ";" | "&");
    if whole { Some(text.to_owned()) } else { text.strip_suffix(';').filter(|rest| !rest.is_empty()).map(|_| ";".to_owned()) }
}

/// `>`, `>>`, `<`, `2>`, `&>`, alone or before a name; `>=` compares.
fn redirection(word: &Word) -> Option<String> {
    let text = word.text.as_str();
    let rest = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '&');
    let ahead = text.len() - rest.len();
    let sign = rest.starts_with(['>', '<']) && ahead <= 1 && word.bare[..=ahead].iter().all(|quote| *quote == Quote::None);
    let after = rest.trim_start_matches(['>', '<']);
    // `<name>` is a placeholder of a manual, or a tag.
    (sign && !after.starts_with('=') && !after.ends_with('>')).then(|| text.to_owned())
}

/// `$NAME` in capitals, as the environment has it. In small letters it belongs to the languages of programs.
fn variable(word: &Word) -> Option<String> {
    word.text.match_indices('$').find_map(|(at, _)| {
        if word.quote(at) == Some(Quote::Literal) {
            return None;
        }
        let rest = &word.text[at + 1..];
        let rest = rest.strip_prefix('{').unwrap_or(rest);
        let name: String = rest.chars().take_while(|c| *c == '_' || c.is_ascii_uppercase() || c.is_ascii_digit()).collect();
        let ends = rest[name.len()..].chars().next().is_none_or(|c| !c.is_ascii_lowercase());
        (ends && name.starts_with(|c: char| c == '_' || c.is_ascii_uppercase())).then_some(name)
    })
}

fn is_substitution(word: &Word) -> bool {
    let dollar = word.text.match_indices("$(").any(|(at, _)| word.quote(at) != Some(Quote::Literal));
    let ticks: Vec<_> = word.text.match_indices('`').filter(|(at, _)| word.quote(*at) == Some(Quote::None)).collect();
    dollar || ticks.len() > 1
}

/// A star in what looks like the name of a file: not `*`, not an address, not a regex's `.*`, not an option.
fn is_glob(word: &Word) -> bool {
    let text = word.text.as_str();
    let star = text.match_indices('*').any(|(at, _)| word.quote(at) == Some(Quote::None) && (at == 0 || !text[..at].ends_with('.')));
    star && text.contains(['/', '.']) && !text.contains(':') && !text.starts_with('-')
}

/// An option whose value the program itself reads: nobody writes files behind a long one, and java knows `lib/*`.
fn takes_pattern(option: &Word) -> bool {
    let text = option.text.as_str();
    (text.starts_with("--") && !text.contains('=')) || matches!(text, "-cp" | "-classpath")
}

fn is_builtin(program: &str) -> bool {
    matches!(program, "cd" | "exec" | "source" | "." | "export" | "ulimit" | "umask" | "eval" | "set" | "alias" | "trap" | "unset")
}

/// Whether the word after `option` is a text in some language: of a shell, of perl, of node. `before`: up to and with `option`.
fn is_program_text(option: &Word, before: &[Word]) -> bool {
    let language = |word: &Word| {
        let name = word.text.rsplit('/').next().unwrap_or_default();
        let name = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
        matches!(
            name,
            "sh" | "bash"
                | "dash"
                | "ash"
                | "zsh"
                | "ksh"
                | "fish"
                | "su"
                | "perl"
                | "python"
                | "ruby"
                | "node"
                | "php"
                | "lua"
                | "psql"
                | "mysql"
                | "mariadb"
                | "elixir"
                | "R"
        )
    };
    let short = option.text.strip_prefix('-').is_some_and(|flags| flags.len() <= 4 && flags.ends_with(['c', 'e', 'E', 'r']));
    let long = matches!(option.text.as_str(), "--eval" | "--command" | "--execute" | "--run" | "--expression");
    let pattern = before.iter().any(|word| ["awk", "sed", "jq"].iter().any(|name| word.text.ends_with(name)));
    long || pattern || (short && before.iter().any(language))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(text: &str) -> Option<ShellWord> {
        shell_words(text).into_iter().next()
    }

    #[test]
    fn what_only_a_shell_reads_is_found() {
        let assignment = |name: &str, value: &str| Some(ShellWord::Assignment { name: name.into(), value: value.into() });
        assert_eq!(first("FOO=1 node server.js"), assignment("FOO", "1"));
        assert_eq!(first("NODE_ENV='a b' node x"), assignment("NODE_ENV", "a b"));
        for text in ["cd /srv && ./run", "a || b", "cat x | grep y", "./run &", "a ; b", "a; b"] {
            assert!(shell_words(text).iter().any(|word| matches!(word, ShellWord::Operator(_))), "{text}");
        }
        for text in ["./run > out.log", "./run >>out.log", "./run 2>&1", "./run &>x", "./run < in", "./run 2>/dev/null"] {
            assert!(matches!(first(text), Some(ShellWord::Redirection(_))), "{text}: {:?}", shell_words(text));
        }
        for text in ["serve --dir $HOME/www", "serve ${HOME}", "serve \"$HOME/x\"", "serve --port=$PORT"] {
            assert!(matches!(first(text), Some(ShellWord::Variable { .. })), "{text}: {:?}", shell_words(text));
        }
        assert_eq!(first("~/bin/serve"), Some(ShellWord::Home("~/bin/serve".into())));
        assert_eq!(first("serve ~"), Some(ShellWord::Home("~".into())));
        assert_eq!(first("serve $(hostname)"), Some(ShellWord::Substitution));
        assert_eq!(first("serve `hostname`"), Some(ShellWord::Substitution));
        assert_eq!(first("node src/*.js"), Some(ShellWord::Glob("src/*.js".into())));
        assert_eq!(first("rm -rf *.tmp"), Some(ShellWord::Glob("*.tmp".into())));
        assert_eq!(first("cd /srv"), Some(ShellWord::Builtin("cd".into())));
        assert_eq!(first("exec node x"), Some(ShellWord::Builtin("exec".into())));
    }

    #[test]
    fn nothing_honest_is_found() {
        for text in [
            "uvicorn main:app --uds {socket} --forwarded-allow-ips *",
            "uvicorn main:app --forwarded-allow-ips='*'",
            "gunicorn -b 0.0.0.0:{port} 'app:create(\"x\")'",
            "sh -c 'cd /srv && FOO=1 exec ./run > log 2>&1'",
            "bash -lc \"echo $HOME && run\"",
            "sudo -u web sh -ec \"$HOME/x | y\"",
            "env FOO=1 node server.js",
            "awk '{print $1}' x",
            "awk \"{print $NF}\" x",
            "perl -e \"print $ENV{HOME}\"",
            "php -r \"echo $_SERVER['x'];\"",
            "php artisan queue:work --queue=a,b",
            "nginx -g 'daemon off;'",
            "nginx -g \"daemon off;\"",
            "find . -name '*.py' -exec rm {} \\;",
            "curl http://127.0.0.1/x?a=1&b=2",
            "java -Dx=y -jar app.jar",
            "java -cp lib/* Main",
            "mysql -e 'select * from t'",
            "php -S *:8000",
            "python -m http.server --bind [::]",
            "grep a.*b file.txt",
            "nodemon --watch src/*.ts",
            "celery -A proj worker -Q 'a.*'",
            "serve a|b",
            "serve x=1",
            "pip install x>=1.0 >=2",
            "serve '$HOME' \\$HOME '~' '>' '&&'",
            "serve $lower $1 $$",
            "serve a~b ~user-name~",
            "awk -F: \"{print $NF}\" x",
        ] {
            assert_eq!(shell_words(text), [], "{text}");
        }
    }

    #[test]
    fn any_text_is_survived() {
        for text in
            ["", " ", "\"", "'", "\\", "a\\", "$", "${", "`", "~", "=", "=x", "ä=1 ö", "\u{1f600}>x $Ä *.\u{1f600}", "# x", "&", ";"]
        {
            drop(shell_words(text));
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "[a-zA-Z0-9 $&|;<>~*'\"\\\\={}()`#.:/äß-]{0,40}") {
            drop(shell_words(&text));
        }

        /// Whoever quotes a word means it as it stands.
        #[test]
        fn a_quoted_word_is_never_a_fault(word in "[a-zA-Z0-9 $&|;<>~*={}()`#.:/-]{1,20}") {
            proptest::prop_assert_eq!(shell_words(&format!("serve '{word}'")), Vec::new());
        }
    }
}
