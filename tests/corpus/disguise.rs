//! Disguises: how a payload is written otherwise and still works somewhere.

use super::dice::Dice;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Disguise {
    /// As typed, with the percent-encoding that its place demands.
    Bare,
    /// Every byte percent-encoded; in JSON every sign.
    Full,
    Double,
    /// `%uXXXX`.
    Unicode,
    Overlong,
    /// Mixed case where nobody minds it.
    Case,
    /// Comments of SQL for blanks.
    Comment,
    /// Other white space for blanks.
    Blank,
    /// What a shell splits at, for blanks.
    Shell,
    /// Character references in an attribute.
    Entity,
    /// Look-ups within look-ups of log4j.
    Lookup,
}

impl Disguise {
    /// Whether it is an encoding of the place rather than another text.
    pub fn is_of_the_wire(self) -> bool {
        matches!(self, Self::Full | Self::Double | Self::Unicode | Self::Overlong)
    }
}

pub fn parse(word: &str) -> Disguise {
    match word {
        "full" => Disguise::Full,
        "double" => Disguise::Double,
        "unicode" => Disguise::Unicode,
        "overlong" => Disguise::Overlong,
        "case" => Disguise::Case,
        "comment" => Disguise::Comment,
        "blank" => Disguise::Blank,
        "blanksh" => Disguise::Shell,
        "entity" => Disguise::Entity,
        "jndi" => Disguise::Lookup,
        other => panic!("no disguise is called {other}"),
    }
}

/// What a disguise does to the text; those of the wire do nothing here.
pub fn mutate(family: &str, text: &str, disguise: Disguise, dice: &mut Dice) -> String {
    match disguise {
        Disguise::Bare | Disguise::Full | Disguise::Double | Disguise::Unicode | Disguise::Overlong => text.to_owned(),
        Disguise::Case => match family {
            "xss" => tag_case(text, dice),
            "include-ssrf" => scheme_case(text, dice),
            _ => word_case(text, dice),
        },
        Disguise::Comment => blanks(text, dice, &["/**/", "/*x*/", "/**//**/", "/*!*/", "/*a b*/"]),
        Disguise::Blank if family == "xss" => tag_blank(text, dice),
        Disguise::Blank => blanks(text, dice, &["\t", "\n", "\x0b", "\x0c", "\r\n", "  ", "\t\t"]),
        Disguise::Shell if text.starts_with([';', '|', '`', '$', '\n']) && !text.contains(['\'', '\\']) => {
            text.replace(' ', dice.pick(&["${IFS}", "$IFS$9", "\t", "${IFS%??}"]))
        }
        Disguise::Shell => text.replace(' ', "\t"),
        Disguise::Entity => entity(text, dice),
        Disguise::Lookup => lookup(text, dice),
    }
}

fn flip(letter: char, dice: &mut Dice) -> char {
    if dice.chance(50) { letter.to_ascii_uppercase() } else { letter.to_ascii_lowercase() }
}

/// Words of SQL in any case; a word that begins with a digit (0x…) stays.
fn word_case(text: &str, dice: &mut Dice) -> String {
    let mut out = String::new();
    let (mut number, mut previous) = (false, ' ');
    for letter in text.chars() {
        if !previous.is_ascii_alphanumeric() {
            number = letter.is_ascii_digit();
        }
        out.push(if number { letter } else { flip(letter, dice) });
        previous = letter;
    }
    out
}

/// Names of tags and handlers and the scheme, but not JavaScript.
fn tag_case(text: &str, dice: &mut Dice) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        let word: usize = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let script = out.to_ascii_lowercase().contains("<script");
        if word == 0 {
            out.push(letter);
            rest = &rest[letter.len_utf8()..];
            continue;
        }
        let (name, tail) = rest.split_at(word);
        let tag = out.ends_with('<') || out.ends_with("</");
        let handler = name.starts_with("on") && tail.trim_start().starts_with('=') && !script && out.contains(['<', '"', '\'']);
        let scheme = matches!(name, "javascript" | "vbscript") && tail.starts_with(':');
        if tag || handler || scheme {
            out.extend(name.chars().map(|letter| flip(letter, dice)));
        } else {
            out.push_str(name);
        }
        rest = tail;
    }
    out
}

fn scheme_case(text: &str, dice: &mut Dice) -> String {
    match text.split_once(':') {
        Some((scheme, rest)) => format!("{}:{rest}", scheme.chars().map(|letter| flip(letter, dice)).collect::<String>()),
        None => text.to_owned(),
    }
}

/// Blanks replaced, but for the one that a `-- ` needs.
fn blanks(text: &str, dice: &mut Dice, with: &[&str]) -> String {
    let mut out = String::new();
    for (at, letter) in text.char_indices() {
        let needed = out.ends_with("--") || text[at..].trim().is_empty();
        if letter == ' ' && !needed { out.push_str(dice.pick(with)) } else { out.push(letter) }
    }
    out
}

/// The blank after the name of a tag.
fn tag_blank(text: &str, dice: &mut Dice) -> String {
    let Some(open) = text.find('<') else { return text.to_owned() };
    let Some(blank) = text[open..].find(' ') else { return text.to_owned() };
    let (head, tail) = text.split_at(open + blank);
    format!("{head}{}{}", dice.pick(&["/", "\t", "\n", "\x0c", "\r\n", "//", "/~/", "  "]), &tail[1..])
}

/// The value of the first quoted attribute as character references.
fn entity(text: &str, dice: &mut Dice) -> String {
    let Some(start) = text.find("=\"").map(|at| at + 2) else { return text.to_owned() };
    let Some(end) = text[start..].find('"').map(|at| start + at) else { return text.to_owned() };
    let mut out = text[..start].to_owned();
    let all = dice.chance(30);
    for letter in text[start..end].chars() {
        let code = letter as u32;
        if !all && dice.chance(50) {
            out.push(letter);
            continue;
        }
        match (letter, dice.below(4)) {
            ('(', 0) => out.push_str("&lpar;"),
            (')', 0) => out.push_str("&rpar;"),
            (':', 0) => out.push_str("&colon;"),
            (_, 1) => out.push_str(&format!("&#{code};")),
            (_, 2) => out.push_str(&format!("&#{code:07};")),
            _ => out.push_str(&format!("&#x{code:x};")),
        }
    }
    out + &text[end..]
}

/// Letters of `jndi:scheme` by nested look-ups.
fn lookup(text: &str, dice: &mut Dice) -> String {
    let Some(rest) = text.strip_prefix("${jndi:") else { return text.to_owned() };
    let (scheme, rest) = rest.split_once(':').unwrap_or((rest, ""));
    let mut out = String::from("${");
    for letter in format!("jndi:{scheme}").chars() {
        match dice.below(7) {
            0 => out.push_str(&format!("${{lower:{letter}}}")),
            1 => out.push_str(&format!("${{::-{letter}}}")),
            2 => out.push_str(&format!("${{env:{}:-{letter}}}", dice.id(3))),
            3 => out.push_str(&format!("${{sys:a{}:-{letter}}}", dice.digits(1))),
            _ => out.push(letter),
        }
    }
    out + ":" + rest
}
