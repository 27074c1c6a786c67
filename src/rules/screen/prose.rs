//! Prose: texts in which honest people write anything, a working attack in its quotes included.
//!
//! Pure. What is found in such a text alone is no more than likely an attack: posts, tickets, titles, searches in whole sentences. An attack needs few words, and
//! whoever wraps it in a sentence is still seen.
//!
//! Shape: a parameter is prose that has [`ENOUGH`] plain words which are none of a language that attacks are written in; one of several paragraphs needs [`FEW`].

/// So many words are a sentence.
const ENOUGH: usize = 5;
const FEW: usize = 2;
/// Of SQL and shells, in order: who chains them writes no sentence.
const OF_LANGUAGES: [&[u8]; 64] = [
    b"all",
    b"alter",
    b"and",
    b"as",
    b"asc",
    b"avg",
    b"bash",
    b"between",
    b"by",
    b"case",
    b"cat",
    b"column",
    b"concat",
    b"count",
    b"create",
    b"curl",
    b"database",
    b"delay",
    b"delete",
    b"desc",
    b"distinct",
    b"drop",
    b"dumpfile",
    b"echo",
    b"else",
    b"end",
    b"exec",
    b"execute",
    b"exists",
    b"from",
    b"group",
    b"having",
    b"id",
    b"if",
    b"in",
    b"information",
    b"insert",
    b"into",
    b"is",
    b"join",
    b"like",
    b"limit",
    b"ls",
    b"name",
    b"not",
    b"null",
    b"or",
    b"order",
    b"outfile",
    b"password",
    b"ping",
    b"schema",
    b"select",
    b"set",
    b"sleep",
    b"table",
    b"then",
    b"union",
    b"update",
    b"user",
    b"users",
    b"values",
    b"when",
    b"where",
];

/// `text` without its parameters that are prose; `None`: none is. `text` is in the normal form, its parameters divided as in a query.
pub(super) fn without(text: &[u8]) -> Option<Vec<u8>> {
    let query = text.iter().position(|byte| *byte == b'?')? + 1;
    let mut out = text[..query].to_vec();
    for pair in text[query..].split(|byte| *byte == b'&').filter(|pair| !is_prose(pair)) {
        if out.len() > query {
            out.push(b'&');
        }
        out.extend_from_slice(pair);
    }
    (out.len() < text.len()).then_some(out)
}

fn is_prose(pair: &[u8]) -> bool {
    let value = pair.iter().position(|byte| *byte == b'=').map_or(pair, |at| &pair[at + 1..]);
    let words = value.split(|byte| matches!(byte, b' ' | b'\n')).map(bare).filter(|word| is_word(word));
    let enough = if value.windows(2).any(|two| two == b"\n\n") { FEW } else { ENOUGH };
    words.take(enough).count() == enough
}

/// Without the marks of sentences around it.
fn bare(word: &[u8]) -> &[u8] {
    let mark = |byte: &u8| matches!(byte, b'.' | b',' | b':' | b'!' | b'?');
    let end = word.iter().rposition(|byte| !mark(byte)).map_or(0, |at| at + 1);
    &word[..end]
}

fn is_word(word: &[u8]) -> bool {
    word.len() >= 2 && word.iter().all(|byte| byte.is_ascii_lowercase() || *byte >= 0x80) && OF_LANGUAGES.binary_search(&word).is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_is_prose_and_a_chain_of_keywords_is_none() {
        let is = |value: &str| is_prose(format!("q={value}").as_bytes());
        assert!(is("what does <script>alert(1)</script> really do in old browsers?") && is("na de zomer gaan we weer eens 'or' 1=1"));
        assert!(!is("' union all select name, password from users where id = 1 or 1=1 order by 1 limit 1 into outfile '/x'"));
        assert!(is("```sql\nexec sp_helpdb; waitfor delay '00:00:05'\n```\n\nversion 2.0; open it in your browser."), "paragraphs");
        assert!(!is("<script>alert(1)</script>") && !is("") && !is("; cat /etc/passwd"));
        assert!(OF_LANGUAGES.is_sorted());
    }

    #[test]
    fn only_the_parameters_of_prose_are_left_out() {
        let text = b"/p?a=1&t=a long title that somebody wrote&b=<x";
        assert_eq!(without(text).as_deref(), Some(&b"/p?a=1&b=<x"[..]));
        assert_eq!((without(b"/p?a=1"), without(b"/p")), (None, None));
    }
}
