"""From samples to medians, ratios to nginx and tables."""

import statistics

# What the project set itself (ratio to nginx unless a unit is named).
TARGETS = [
    ("bare", "h1", "cpu", 1.5),
    ("full", "h1", "cpu", 1.6),
    ("bare", "h2", "cpu", 1.3),
    ("full", "h2", "cpu", 1.3),
    ("bare", "tls", "cpu", 0.7),
    ("full", "tls", "cpu", 0.7),
    ("bare", "tls-resumed", "cpu", 1.0),
    ("full", "tls-resumed", "cpu", 1.0),
    ("bare", "idle-connections", "rss_kib", 35),
    ("full", "idle-connections", "rss_kib", 35),
    ("bare", "idle", "rss_mb", 40),
    ("full", "idle", "rss_mb", 40),
]

# figure → (heading, decimals)
FIGURES = {
    "cpu": ("CPU µs/op", 1),
    "rate": ("op/s", 1),
    "p99": ("p99 ms", 2),
    "rss": ("RSS MB", 1),
    "rss_kib": ("RSS KiB/connection", 1),
    "pss_kib": ("PSS KiB/connection", 1),
    "rss_mb": ("RSS MB", 1),
    "pss_mb": ("PSS MB", 1),
}

TITLES = {
    "h1": "HTTP/1.1 keep-alive",
    "h1-tls": "HTTP/1.1 keep-alive over TLS",
    "h2": "HTTP/2 over TLS",
    "tls": "new TLS connections, full handshake",
    "tls-resumed": "new TLS connections, resumed",
    "download": "100 MB download",
    "download-tls": "100 MB download over TLS",
    "idle": "idle processes",
    "idle-connections": "idle connections",
}


def summarise(samples):
    """samples: list of {config, scenario, round, proxy, figures{}}. Returns {(config, scenario): {proxy: {figure: {...}}}}."""
    table = {}
    for s in samples:
        table.setdefault((s["config"], s["scenario"]), {}).setdefault(s["proxy"], {})[s["round"]] = s["figures"]
    result = {}
    for key, proxies in table.items():
        result[key] = {}
        for proxy, rounds in proxies.items():
            row = {}
            for figure in next(iter(rounds.values())):
                values = [r[figure] for r in rounds.values() if r.get(figure) is not None]
                ratios = [
                    r[figure] / proxies["nginx"][n][figure]
                    for n, r in rounds.items()
                    if r.get(figure) is not None and "nginx" in proxies and proxies["nginx"].get(n, {}).get(figure)
                ]
                if values:
                    row[figure] = {"median": statistics.median(values), "min": min(values), "max": max(values), "rounds": len(values)}
                    if ratios:
                        row[figure]["ratio"] = {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}
            result[key][proxy] = row
    return result


def shape(figure, scenario):
    """(heading, decimals, divisor): a download costs milliseconds where a request costs microseconds."""
    if figure == "cpu" and scenario.startswith("download"):
        return "CPU ms/op", 1, 1000
    heading, decimals = FIGURES[figure]
    return heading, decimals, 1


def cells(figure, scenario, entry):
    _, decimals, divisor = shape(figure, scenario)
    ratio = entry.get("ratio")
    return [f"{entry['median'] / divisor:.{decimals}f}", f"{ratio['median']:.2f} ({ratio['min']:.2f}–{ratio['max']:.2f})" if ratio else "–"]


def line(scenario, figures):
    """One sample on one line."""
    shapes = [(shape(f, scenario), v) for f, v in figures.items()]
    return "  ".join(f"{heading} {v / divisor:.{decimals}f}" for (heading, decimals, divisor), v in shapes)


def tables(summary, order):
    """(title, headings, rows) for every configuration and scenario."""
    for (config, scenario), proxies in summary.items():
        figures = [f for f in FIGURES if any(f in row for row in proxies.values())]
        headings = ["proxy"] + [c for f in figures for c in (shape(f, scenario)[0], "× nginx")]
        rows = []
        for proxy in order:
            if proxy in proxies:
                rows.append([proxy] + [c for f in figures for c in (cells(f, scenario, proxies[proxy][f]) if f in proxies[proxy] else ["–", "–"])])
        yield f"{config}: {TITLES[scenario]}", headings, rows


def text(summary, order):
    out = []
    for title, headings, rows in tables(summary, order):
        widths = [max(len(r[i]) for r in [headings, *rows]) for i in range(len(headings))]
        out.append(f"\n{title}")
        for row in [headings, *rows]:
            out.append("  " + "  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths))))
    return "\n".join(out)


def markdown(summary, order, facts):
    out = [f"- {name}: {value}" for name, value in facts.items()]
    for title, headings, rows in tables(summary, order):
        out += ["", f"### {title}", "", "| " + " | ".join(headings) + " |", "|" + " --- |" * len(headings)]
        out += ["| " + " | ".join(row) + " |" for row in rows]
    verdicts = targets(summary)
    if verdicts:
        out += ["", "### Targets", "", "| what | target | measured | |", "| --- | --- | --- | --- |"]
        out += ["| " + " | ".join(v) + " |" for v in verdicts]
    return "\n".join(out) + "\n"


def targets(summary):
    """Rows (what, target, measured, met or missed) of those targets that this run measured on gateway."""
    rows = []
    for config, scenario, figure, wanted in TARGETS:
        entry = summary.get((config, scenario), {}).get("gateway", {}).get(figure)
        if not entry:
            continue
        if figure == "cpu":
            if "ratio" not in entry:
                continue
            value, target, shown = entry["ratio"]["median"], f"≤ {wanted} × nginx's CPU", f"{entry['ratio']['median']:.2f} ×"
        else:
            unit = "KiB" if figure.endswith("kib") else "MB"
            value, target, shown = entry["median"], f"≤ {wanted} {unit}", f"{entry['median']:.1f} {unit}"
        rows.append([f"{config}: {TITLES[scenario]}", target, shown, "met" if value <= wanted else "**missed**"])
    return rows
