//! `filters` of a site or a route.

use super::Context;
use crate::{
    config::{
        complaint::Code,
        file,
        shape::{At, Either, Field, List, OneOrMore},
        tree::Text,
        value::regex,
    },
    plan::{Family, FamilyModes, FilterMode, Filters, HeaderFields},
    rules::screen::own_patterns,
    vocab::ByteSize,
};

/// More of a body would be held in memory for every request under way.
const MOST_BODY: u64 = 1 << 20;
/// Patterns of a route.
const MOST_PATTERNS: usize = 200;

/// What a site has that says nothing.
pub const SAFE: Filters = Filters::BALANCED;

/// What `filters` may be.
pub type Written = Either<file::FilterSet, Either<List<file::FilterWord>, file::FilterTable>>;

/// The names of a list are enforced, all others are off.
pub fn compile(value: Written, c: &mut Context<'_>) -> Filters {
    match value {
        Either::This(word) => set(word),
        Either::That(Either::This(words)) => {
            let mut filters = Filters::new(FilterMode::Off, FilterMode::Off, FilterMode::Off);
            for At { value, .. } in words.0 {
                let family = match value {
                    file::FilterWord::BadUri => {
                        filters.families = FamilyModes::all(FilterMode::Enforce);
                        continue;
                    }
                    file::FilterWord::BadMethod => {
                        filters.bad_method = FilterMode::Enforce;
                        continue;
                    }
                    file::FilterWord::ScannerUa => {
                        filters.scanner_ua = FilterMode::Enforce;
                        continue;
                    }
                    file::FilterWord::Traversal => Family::Traversal,
                    file::FilterWord::DotFile => Family::DotFile,
                    file::FilterWord::Extension => Family::Extension,
                    file::FilterWord::Probe => Family::Probe,
                    file::FilterWord::Sql => Family::Sql,
                    file::FilterWord::Xss => Family::Xss,
                    file::FilterWord::Command => Family::Command,
                    file::FilterWord::Template => Family::Template,
                    file::FilterWord::Code => Family::Code,
                    file::FilterWord::Inclusion => Family::Inclusion,
                    file::FilterWord::Splitting => Family::Splitting,
                };
                filters.families.set(family, FilterMode::Enforce);
            }
            filters
        }
        Either::That(Either::That(table)) => self::table(table, c),
    }
}

fn table(table: file::FilterTable, c: &mut Context<'_>) -> Filters {
    let file::FilterTable {
        place: _,
        base,
        bad_uri,
        bad_method,
        scanner_ua,
        traversal,
        dot_file,
        extension,
        probe,
        sql,
        xss,
        command,
        template,
        code,
        inclusion,
        splitting,
        own,
        patterns,
        headers,
        body,
    } = table;
    // What a table does not name is as without one: `{ body = "64KB" }` adds to what is there.
    let mut filters = base.value().map_or(SAFE, set);
    if let Some(word) = bad_uri.value() {
        filters.families = FamilyModes::all(mode(word));
    }
    for (field, of) in [(bad_method, &mut filters.bad_method), (scanner_ua, &mut filters.scanner_ua)] {
        if let Some(word) = field.value() {
            *of = mode(word);
        }
    }
    for (family, field) in [
        (Family::Traversal, traversal),
        (Family::DotFile, dot_file),
        (Family::Extension, extension),
        (Family::Probe, probe),
        (Family::Sql, sql),
        (Family::Xss, xss),
        (Family::Command, command),
        (Family::Template, template),
        (Family::Code, code),
        (Family::Inclusion, inclusion),
        (Family::Splitting, splitting),
    ] {
        if let Some(word) = field.value() {
            filters.families.set(family, mode(word));
        }
    }
    if let Some(place) = own.place().filter(|_| patterns.is_absent()) {
        c.out.add_with_cure(
            Code::MissingKey,
            place,
            "`own` says what a hit of `patterns` does, and there are none",
            "add patterns = [\"…\"]",
        );
    }
    let place = patterns.place();
    filters.patterns = self::patterns(patterns, c);
    if let (Some(place), Err(_)) = (place, own_patterns(&filters.patterns)) {
        c.out.add(Code::TooLarge, place, "these patterns are too big together");
    }
    let own = own.value().map_or(FilterMode::Enforce, mode);
    if !filters.patterns.is_empty() {
        filters.families.set(Family::Own, own);
    }
    if let Some(all) = headers.value() {
        filters.headers = if all { HeaderFields::All } else { HeaderFields::None };
    }
    filters.body = body.given().and_then(|at| body_limit(at.value.0, at.place, c));
    filters
}

fn body_limit(size: ByteSize, place: crate::config::complaint::Place, c: &mut Context<'_>) -> Option<ByteSize> {
    if size.0 > MOST_BODY {
        c.out.add(Code::TooLarge, place, format!("{size} of a body are more than can be looked at: at most 1MB"));
        return None;
    }
    (size.0 > 0).then_some(size)
}

fn patterns(field: Field<OneOrMore<Text>>, c: &mut Context<'_>) -> Vec<String> {
    let mut all = Vec::new();
    for At { value, place } in field.value().map(|list| list.0).unwrap_or_default() {
        match regex(&value.value) {
            Ok(pattern) if pattern.is_match("") => {
                c.out.add(Code::BadRegex, place, "a pattern that matches nothing at all refuses every request");
            }
            Ok(_) if all.len() == MOST_PATTERNS => c.out.add(Code::TooLarge, place, format!("more than {MOST_PATTERNS} patterns")),
            Ok(_) => all.push(value.value),
            Err(message) => c.out.add(Code::BadRegex, place, message),
        }
    }
    all
}

fn set(word: file::FilterSet) -> Filters {
    match word {
        file::FilterSet::Balanced => Filters::BALANCED,
        file::FilterSet::Strict => Filters::STRICT,
        file::FilterSet::Observe => Filters::OBSERVE,
        file::FilterSet::Off => Filters::OFF,
    }
}

fn mode(word: file::FilterMode) -> FilterMode {
    match word {
        file::FilterMode::Off => FilterMode::Off,
        file::FilterMode::Observe => FilterMode::Observe,
        file::FilterMode::Certain => FilterMode::Certain,
        file::FilterMode::Enforce => FilterMode::Enforce,
    }
}
