//! Posts of forums, blogs, chats and trackers: prose around a piece of code, in every way that programs send them.

use super::{fill, pick, post};
use crate::corpus::{
    Body, Request,
    attack::held_out,
    honest::{Honest, Site},
    wire::{self, Style},
};

const SNIPPETS: &str = include_str!("../honest/snippets.txt");
const PROSE: &str = include_str!("../honest/prose.txt");

/// What people name a fence after, apart from the language itself.
const FENCES: &[&str] = &[
    "sh",
    "bash",
    "zsh",
    "fish",
    "shell",
    "console",
    "terminal",
    "cmd",
    "powershell",
    "ps1",
    "php",
    "node",
    "python",
    "python3",
    "py",
    "perl",
    "ruby",
    "lua",
    "awk",
    "sed",
    "curl",
    "wget",
    "git",
    "make",
    "docker",
    "nc",
    "cat",
    "id",
    "ls",
    "sql",
    "mysql",
    "psql",
    "js",
    "jsx",
    "ts",
    "tsx",
    "json",
    "yaml",
    "xml",
    "html",
    "vue",
    "diff",
    "ini",
    "toml",
    "text",
    "txt",
    "log",
    "output",
    "none",
    "env",
    "vim",
    "gcc",
    "java",
    "kotlin",
    "go",
    "rust",
    "{.bash}",
    "sh title=\"run\"",
    "js {1,3-5}",
    "php?",
];

pub fn all(count: usize) -> Vec<Honest> {
    let mut site = Site::new(0x9057);
    let snippets = snippets();
    let prose: Vec<_> = PROSE.lines().collect();
    let mut all = Vec::new();
    for turn in 0..count {
        let (language, snippet) = snippets[turn % snippets.len()];
        let (before, after) = (site.dice.below(prose.len()), site.dice.below(prose.len()));
        let (before, after) = (fill(&mut site, pick(&prose, before)), fill(&mut site, pick(&prose, after)));
        let code = shown(language, snippet, &mut site);
        let text = match site.dice.below(4) {
            0 => format!("{code}\n\n{after}"),
            1 => format!("{before}\n\n{code}"),
            _ => format!("{before}\n\n{code}\n\n{after}\n"),
        };
        let (kind, request) = sent(&text, &mut site);
        all.push(Honest { kind, held_out: held_out(snippet), request });
    }
    all
}

/// Each with its language.
fn snippets() -> Vec<(&'static str, &'static str)> {
    let section = |section: &'static str| section.split_once('\n').expect("a section has a language and a snippet");
    let of = |(language, code): (&'static str, &'static str)| code.split("\n%%\n").map(move |code| (language, code.trim_end_matches('\n')));
    let body = SNIPPETS.strip_prefix("@@ ").expect("the file begins with a section");
    body.split("\n@@ ").map(section).flat_map(of).collect()
}

/// A piece of code as people put it into a text.
fn shown(language: &str, snippet: &str, site: &mut Site) -> String {
    let dice = &mut site.dice;
    let first = snippet.lines().next().unwrap_or(snippet);
    match dice.below(12) {
        0 => format!("```\n{snippet}\n```"),
        1 => format!("```{}\n{snippet}\n```", dice.pick(FENCES)),
        2 => format!("~~~{language}\n{snippet}\n~~~"),
        3 => snippet.lines().map(|line| format!("    {line}\n")).collect(),
        4 => snippet.lines().map(|line| format!("> {line}\n")).collect(),
        5 => format!("[code={language}]{snippet}[/code]"),
        6 => format!("{{code:{language}}}\n{snippet}\n{{code}}"),
        7 => format!("<pre><code class=\"language-{language}\">{}</code></pre>", escaped(snippet)),
        8 => format!("`{first}`"),
        9 => format!("{snippet}\n"),
        _ => format!("```{language}\n{snippet}\n```"),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn quoted(text: &str) -> String {
    String::from_utf8_lossy(&wire::json(text.as_bytes(), false)).into_owned()
}

/// The request that brings a text, and what its body is.
fn sent(text: &str, site: &mut Site) -> (&'static str, Request) {
    let json = quoted(text);
    let title = quoted(&fill(site, "‹title›"));
    let id = site.dice.uuid();
    let shape = site.dice.below(16);
    match shape {
        0 => ("post json", post("/api/posts", "application/json", format!("{{\"title\":{title},\"body\":{json},\"tags\":[\"help\"]}}"))),
        1 => {
            ("post json", post("/api/v4/projects/7/issues/3/notes", "application/json", format!("{{\"body\":{json},\"internal\":false}}")))
        }
        2 => (
            "post json",
            post(
                "/api/v4/posts",
                "application/json;charset=UTF-8",
                format!("{{\"channel_id\":\"{id}\",\"message\":{json},\"create_at\":0}}"),
            ),
        ),
        3 => (
            "post json",
            post("/v1/chat", "application/json", format!("{{\"messages\":[{{\"role\":\"user\",\"content\":{json}}}],\"stream\":true}}")),
        ),
        4 => (
            "post json",
            post(
                "/api/contents/a.ipynb",
                "application/json",
                format!("{{\"cells\":[{{\"cell_type\":\"markdown\",\"source\":[{json}]}}],\"nbformat\":4}}"),
            ),
        ),
        5 => (
            "post json",
            post(
                "/logs",
                "application/json",
                format!("{{\"streams\":[{{\"stream\":{{\"job\":\"ci\"}},\"values\":[[\"17000\",{json}]]}}]}}"),
            ),
        ),
        6 => {
            let query = "mutation Add($input: Note!) { add(input: $input) { id } }";
            (
                "post graphql",
                post("/graphql", "application/json", format!("{{\"query\":\"{query}\",\"variables\":{{\"input\":{{\"text\":{json}}}}}}}")),
            )
        }
        7 => {
            ("post ndjson", post("/_bulk", "application/x-ndjson", format!("{{\"index\":{{\"_id\":\"{id}\"}}}}\n{{\"message\":{json}}}\n")))
        }
        8 => ("post text", post("/raw", "text/plain;charset=UTF-8", text)),
        9 => ("post text", post("/wiki/page", "text/markdown", text)),
        10 => (
            "post xml",
            post(
                "/atom",
                "application/atom+xml",
                format!("<?xml version=\"1.0\"?><entry><title>a</title><content type=\"html\">{}</content></entry>", escaped(text)),
            ),
        ),
        11 => {
            let file = wire::part("file", Some(("notes.md", "text/markdown")), text.as_bytes());
            let parts = [wire::part("title", None, b"Notes"), file, wire::last()].concat();
            ("post multipart", Request { method: "POST".into(), body: Body::Parts(parts), ..Request::get("/upload") })
        }
        12 => {
            let parts = [wire::part("message", None, text.as_bytes()), wire::part("quick_reply", None, b"1"), wire::last()].concat();
            ("post multipart", Request { method: "POST".into(), body: Body::Parts(parts), ..Request::get("/newreply.php") })
        }
        _ => {
            let style = [Style::Browser, Style::Component, Style::Strict][site.dice.below(3)];
            let value = wire::value(text.replace('\n', "\r\n").as_bytes(), style, &mut site.dice);
            let body = [b"subject=Re%3A+help&message=".as_slice(), &value, b"&post=Submit"].concat();
            ("post form", Request { method: "POST".into(), body: Body::Form(body), ..Request::get("/posting.php") })
        }
    }
}
