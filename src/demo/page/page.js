"use strict";
const at = (id) => document.getElementById(id);

// Who answers: one small request after the other.
const processes = [];
let answered = 0, failed = 0;
async function ask() {
  const square = document.createElement("i");
  try {
    const answer = await fetch("/pid", { cache: "no-store" });
    if (!answer.ok) throw new Error(answer.status);
    const pid = (await answer.text()).trim();
    if (!processes.includes(pid)) processes.push(pid);
    square.className = "p" + processes.indexOf(pid) % 7;
    square.title = "process " + pid;
    answered++;
  } catch (error) {
    square.className = "failed";
    square.title = String(error);
    failed++;
  }
  at("answers").append(square);
  while (at("answers").children.length > 84) at("answers").firstChild.remove();
  at("count").textContent = `${answered} answers from ${processes.length} processes, ${failed} failed`;
  setTimeout(ask, document.hidden ? 2000 : 150);
}
ask();

at("crash").onclick = async () => {
  at("crashed").textContent = "crashing…";
  try {
    const answer = await fetch("/crash", { method: "POST" });
    at("crashed").textContent = `its request got ${answer.status}, as it must: the process died with it`;
  } catch {
    at("crashed").textContent = "the connection broke";
  }
};

// WebSocket: comes back by itself, as one in an app should.
let socket;
function connect() {
  socket = new WebSocket((location.protocol === "https:" ? "wss://" : "ws://") + location.host + "/ws");
  socket.onopen = () => { at("heard").textContent = "connected"; };
  socket.onmessage = (message) => { at("heard").textContent = "came back: " + message.data; };
  socket.onclose = () => { at("heard").textContent = "closed, connecting again…"; setTimeout(connect, 1000); };
}
connect();
at("talk").onsubmit = (event) => {
  event.preventDefault();
  if (socket.readyState === WebSocket.OPEN) socket.send(at("word").value);
};

new EventSource("/sse?n=1000000&ms=1000").onmessage = (message) => { at("event").textContent = message.data; };
