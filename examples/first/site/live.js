// SPDX-License-Identifier: Apache-2.0
// Asks each of the three in turn and shows who answered, and how fast.
"use strict";

const SAMPLES = 24;
const EVERY_MS = 1500;
const find = (id) => document.getElementById(id);

function show(id, ok, text, ms) {
  const card = find(id);
  card.querySelector(".now").textContent = text;
  card.querySelector(".lamp").className = "lamp " + (ok ? "good" : "bad");
  const wire = find("wire-" + id);
  wire.classList.remove("live");
  void wire.getBoundingClientRect(); // so that the animation begins anew
  if (ok) wire.classList.add("live");
  const spark = card.querySelector(".spark");
  const bar = document.createElement("i");
  bar.dataset.ms = ms;
  spark.append(bar);
  while (spark.children.length > SAMPLES) spark.firstChild.remove();
  const bars = [...spark.children];
  const height = (b) => Math.sqrt(Number(b.dataset.ms)); // so that one slow answer hides no others
  const top = Math.max(2, ...bars.map(height));
  for (const b of bars) b.style.height = Math.max(5, (height(b) / top) * 100) + "%";
}

async function ask(id, path, tell) {
  const began = performance.now();
  try {
    const answer = await fetch(path, { cache: "no-store" });
    const ms = performance.now() - began;
    if (!answer.ok) throw new Error("status " + answer.status);
    const text = await tell(answer);
    show(id, true, text + " · " + ms.toFixed(1) + " ms", ms);
  } catch (e) {
    show(id, false, "no answer: " + e.message, 0);
  }
}

function round() {
  ask("files", "/library/columns.txt", async (a) =>
    `${a.headers.get("X-Served-By") || "portico"} answered, ${(await a.text()).length} bytes`);
  ask("api", "/api/hello", async (a) => {
    const v = await a.json();
    return `port ${v.port} answered, pid ${v.pid}, saw ${v.path}`;
  });
  ask("time", "/time/now", async (a) => {
    const v = await a.json();
    return `port ${v.port} answered, pid ${v.pid}, up ${Math.floor(v.up)} s`;
  });
}

function showNotes(notes) {
  find("notes").replaceChildren(...notes.map((text) => {
    const item = document.createElement("li");
    item.textContent = text;
    return item;
  }));
}

async function readNotes() {
  try {
    showNotes((await (await fetch("/api/notes", { cache: "no-store" })).json()).notes);
  } catch {
    showNotes(["The service on port 3000 does not answer."]);
  }
}

find("note-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = find("note").value.trim();
  if (!text) return;
  const answer = await fetch("/api/notes", {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ text }),
  });
  if (answer.ok) {
    find("note").value = "";
    showNotes((await answer.json()).notes);
  }
});

function listen() {
  const stream = new EventSource("/time/stream");
  stream.onmessage = (event) => {
    const v = JSON.parse(event.data);
    find("clock").textContent = v.time.slice(11, 19);
    find("clock-note").textContent =
      `Port ${v.port}, pid ${v.pid}: one connection, an event each second, straight through the gate.`;
  };
  stream.onerror = () => { find("clock-note").textContent = "The stream is gone; trying again."; };
}

async function list() {
  const out = find("listing");
  try {
    const answer = await fetch(`http://${location.hostname}:8081/`, { headers: { Accept: "application/json" } });
    const entries = await answer.json();
    out.replaceChildren(...entries.map((e) => {
      const item = document.createElement("li");
      const link = document.createElement("a");
      link.href = `http://${location.hostname}:8081/${encodeURIComponent(e.name.replace(/\/$/, ""))}` +
        (e.is_dir ? "/" : "");
      link.textContent = e.name;
      const size = document.createElement("small");
      size.textContent = e.is_dir ? "" : e.size < 1024 ? e.size + " B" : (e.size / 1024).toFixed(1) + " KiB";
      if (!e.is_dir) link.append(size);
      item.append(link);
      return item;
    }));
  } catch {
    const item = document.createElement("li");
    const text = document.createElement("span");
    text.textContent = "port 8081 does not answer";
    item.append(text);
    out.replaceChildren(item);
  }
}

round();
setInterval(round, EVERY_MS);
readNotes();
listen();
list();
