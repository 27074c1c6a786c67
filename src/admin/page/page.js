// Brings the page up to date every 3 s while someone looks at it.
"use strict";
async function refresh() {
  const old = document.getElementById("page");
  try {
    const answer = await fetch("/", { signal: AbortSignal.timeout(5000) });
    if (!answer.ok) throw new Error(answer.status);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    old.replaceWith(document.importNode(page.getElementById("page"), true));
    document.title = page.title;
  } catch {
    old.classList.add("stale");
    document.title = "no answer · gateway";
  }
}
setInterval(() => { if (!document.hidden && !String(getSelection())) refresh(); }, 3000);
