"""The part of deny.toml that can be checked without cargo-deny: every crate is from crates.io and under a licence we accept."""
import json
import re
import subprocess
import sys
import tomllib

rules = tomllib.load(open("deny.toml", "rb"))
accepted = set(rules["licenses"]["allow"])
exceptions = {e["crate"]: set(e["allow"]) for e in rules["licenses"].get("exceptions", [])}
metadata = json.loads(subprocess.check_output(["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", "x86_64-unknown-linux-gnu"]))
used = {node["id"] for node in metadata["resolve"]["nodes"]}


def holds(expression: str, allowed: set[str]) -> bool:
    """Evaluates an SPDX expression; `/` is the old way to write OR."""
    words = re.findall(r"\(|\)|[^\s()/]+|/", expression.replace(" WITH ", "+WITH+"))
    python = {"AND": "and", "OR": "or", "/": "or", "(": "(", ")": ")"}
    return eval(" ".join(python.get(word) or str(word.replace("+WITH+", " WITH ") in allowed) for word in words))


bad = []
for package in metadata["packages"]:
    if package["id"] not in used:
        continue
    name = f'{package["name"]} {package["version"]}'
    source = package["source"]
    if source is not None and source != "registry+https://github.com/rust-lang/crates.io-index":
        bad.append(f"{name}: comes from {source}")
    licence = package["license"]
    if not licence or not holds(licence, accepted | exceptions.get(package["name"], set())):
        bad.append(f"{name}: licence {licence!r} is not accepted by deny.toml")
print("\n".join(bad) or f"{len(used)} crates: sources and licences are as deny.toml wants them")
sys.exit(bool(bad))
