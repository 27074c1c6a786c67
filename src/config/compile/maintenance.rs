//! `maintenance` of a site.

use super::Context;
use crate::{
    config::{
        complaint::Code,
        file,
        shape::{At, Field},
        tree::Text,
        value::FilePath,
    },
    plan::{self, maintenance::RETRY_AFTER},
    vocab::Secret,
};

/// Of a page, in bytes.
const LARGEST: usize = 256 << 10;

pub fn maintenance(field: Field<file::Maintenance>, c: &mut Context<'_>) -> plan::Maintenance {
    let Some(file::Maintenance { place: _, on, page, secret, retry_after }) = field.value() else { return plan::Maintenance::default() };
    plan::Maintenance {
        on: on.or(false),
        page: page.given().and_then(|at| self::page(at, c)),
        secret: secret.given().and_then(|at| self::secret(at, c)),
        retry_after: retry_after.value().map_or(RETRY_AFTER, |time| time.0),
    }
}

fn page(at: At<FilePath>, c: &mut Context<'_>) -> Option<plan::Page> {
    let file = c.absolute(&at.value.0);
    match c.outside.secrets(&file) {
        Ok(html) if html.len() <= LARGEST => Some(plan::Page { file, html }),
        Ok(html) => {
            let message = format!("{} has {} bytes: a page has at most 256KB", file.display(), html.len());
            c.out.add(Code::TooLarge, at.place, message);
            None
        }
        Err(reason) => {
            c.out.add(Code::UnreadableFile, at.place, format!("could not read {}: {reason}", file.display()));
            None
        }
    }
}

/// It stands in an address, so it has only what may stand there.
fn secret(at: At<Text>, c: &mut Context<'_>) -> Option<Secret<String>> {
    let text = at.value.value;
    let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.~".contains(&b));
    if plain && (8..=128).contains(&text.len()) {
        return Some(Secret::new(text));
    }
    let cure = "make one with `openssl rand -hex 16`";
    c.out.add_with_cure(Code::BadValue, at.place, "a secret is 8 to 128 letters, digits, '-', '_', '.' and '~'", cure);
    None
}
