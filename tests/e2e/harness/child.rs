//! Commands of apps with a vice, as TOML values.

fn sh(script: &str) -> String {
    assert!(!script.contains("'''"), "the script stands in a TOML literal");
    format!("[\"sh\", \"-c\", '''{script}''']")
}

pub fn exits_with(code: u8) -> String {
    sh(&format!("exit {code}"))
}

pub fn segfaults() -> String {
    sh("kill -SEGV $$")
}

pub fn kills_itself() -> String {
    sh("kill -KILL $$")
}

/// Runs out of memory at once: an allocation beyond its limit fails.
pub fn runs_out_of_memory() -> String {
    "[\"python3\", \"-c\", '''import resource; resource.setrlimit(resource.RLIMIT_AS, (200 << 20, 200 << 20)); x = bytearray(400 << 20)''']"
        .into()
}

/// Grows by 10 MB each 100 ms, up to 300 MB, then stays.
pub fn leaks() -> String {
    "[\"python3\", \"-c\", '''\nimport time\nx = []\nwhile True:\n  if len(x) < 30: x.append(b\"x\" * (10 << 20))\n  time.sleep(0.1)\n''']"
        .into()
}

pub fn ignores_term() -> String {
    sh("trap '' TERM; while :; do sleep 0.1; done")
}

/// Its leader goes at TERM, its children stay.
pub fn leaves_grandchildren() -> String {
    sh("(trap '' TERM; sleep 1000) & (trap '' TERM HUP; sleep 1000) & trap 'exit 0' TERM; while :; do sleep 0.1; done")
}

/// Forks twice and lets its parent go: the daemon of old.
pub fn double_forks() -> String {
    sh("(sleep 1000 & ) & wait; exit 0")
}

pub fn closes_its_output() -> String {
    sh("exec >&- 2>&-; exec sleep 1000")
}

/// As much output as the pipe takes.
pub fn floods_stdout() -> String {
    sh("exec yes 'a line of some length, again and again, as fast as the pipe takes it'")
}

pub fn writes_one_endless_line() -> String {
    sh("exec head -c 20000000 /dev/zero; ")
}

/// Alive for 1.5 s each time: what supervisord calls started.
pub fn flaps() -> String {
    sh("sleep 1.5; exit 1")
}
