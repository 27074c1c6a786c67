//! The screen against the clock: whatever is sent, the time is linear in its length.

use std::time::{Duration, Instant};

use gateway::rules::screen::Screen;

/// Fragments of attacks in an order that `seed` fixes.
fn fragments(parts: &[&str], length: usize, mut seed: u64) -> Vec<u8> {
    let mut target = b"/?q=".to_vec();
    while target.len() < length {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        target.extend_from_slice(parts[(seed >> 33) as usize % parts.len()].as_bytes());
    }
    target.truncate(length);
    target
}

/// The mean of twenty targets that the engine has not seen: it builds its tables as it goes, and the first time is the dearest.
fn took(screen: &Screen, parts: &[&str], length: usize) -> Duration {
    let targets: Vec<_> = (0..20).map(|seed| fragments(parts, length, seed)).collect();
    let start = Instant::now();
    for target in &targets {
        let _ = screen.judge(target, &[]);
    }
    start.elapsed() / 20
}

#[test]
fn a_long_hostile_target_takes_bounded_time() {
    let start = Instant::now();
    let screen = Screen::new();
    println!("built in {:?}", start.elapsed());
    let repeated = [
        "%25",
        "%2525",
        "'",
        "' or ",
        "(",
        "((select",
        "<a ",
        "<a b=",
        "a'b\"c`",
        ";cat ",
        "../",
        "..%2f",
        "%27%20or%20",
        "{{",
        "${",
        "union ",
        "/*",
        "*/",
        "&#x",
        ";",
        "%c0%ae",
        "x=1 and ",
        "select(",
        "%00%",
        "a b c ",
        "<on",
        "\u{e9}",
        "case when ",
        "from ",
        "select 1,",
        "a,",
        "`a`.`b`,",
        "<a/",
        "/a=",
        "data:",
        "\n a-b",
    ];
    let mixed: [&[&str]; 2] = [
        &[
            "union ", "select(", "from ", "a'b ", "\"c ", "(x ", "<y ", "on=z", ";w ", "{{v ", "${u ", "..t/", "or 1 ", "case ", "when ",
            "then ", "/*s", "*/r", "=q", "&p=", "--o ", "java ", "data: ", "php:", "like ", "and (", "char(", "|n ", "\\m", "%0al ",
        ],
        &["a", "e", "i", "o", "s", "l", "t", "c", "u", "n", " ", "'", "(", "=", ",", "1"],
    ];
    for parts in repeated.iter().map(std::slice::from_ref).chain(mixed) {
        let (short, long) = (took(&screen, parts, 2048), took(&screen, parts, 8192));
        println!("{short:>12?} {long:>12?} {:?}", parts[0]);
        // In release some 100 µs; loose because test machines are busy and the build is not optimised. A quadratic step would take a second.
        assert!(long < Duration::from_millis(50), "{parts:?} took {long:?}");
    }
}
