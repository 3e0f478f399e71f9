// Asks for the page again and puts in what has changed, so that a reader keeps place, opened parts
// and enlarged charts. The more work a page is for the server, the less often it is asked for.
const SHORTEST_MS = 2000;
const SHARE = 4; // at most a fifth of the server's time
const parts = "header[id], section[id]";
const sources = new Map(); // of each part, as the server sent it
const told = document.getElementById("live");
let tag = null;

const say = (text, lost) => {
  if (told === null) return;
  const shown = document.getElementById("live");
  shown.textContent = text;
  shown.classList.toggle("lost", lost);
};

const linked = (chart) => {
  // A point whose text says `candidate 7` leads to that candidate.
  const base = location.pathname.match(/^\/campaigns\/[^/]+/);
  if (base === null || chart.dataset.linked) return;
  chart.dataset.linked = "yes";
  chart.on("plotly_click", (event) => {
    const text = event.points[0].text ?? "";
    const found = /^candidate (\d+)/.exec(text);
    if (found) location.href = `${base[0]}/candidates/${found[1]}`;
  });
};

const kept = (old, fresh) => {
  // The part `fresh` in place of `old`, with its opened details and its drawn charts.
  for (const each of fresh.querySelectorAll("details[id]")) {
    const before = document.getElementById(each.id);
    if (before !== null) each.open = before.open;
  }
  const drawn = [];
  for (const each of fresh.querySelectorAll(".chart")) {
    const before = document.getElementById(each.id);
    if (before !== null && old.contains(before)) each.replaceWith(before);
    drawn.push(each.id);
  }
  old.replaceWith(fresh);
  for (const id of drawn) {
    const chart = document.getElementById(id);
    draw(chart);
    linked(chart);
  }
};

const put = (page) => {
  const wanted = [...page.querySelectorAll(parts)];
  const ids = new Set(wanted.map((each) => each.id));
  for (const old of document.querySelectorAll(parts)) {
    if (!ids.has(old.id)) old.remove();
  }
  let previous = null;
  for (const fresh of wanted) {
    const source = fresh.outerHTML;
    let own = document.getElementById(fresh.id);
    if (own === null) {
      own = document.createElement(fresh.localName);
      own.id = fresh.id;
      if (previous === null) document.querySelector("main").prepend(own);
      else previous.after(own);
    }
    if (sources.get(fresh.id) !== source) {
      sources.set(fresh.id, source);
      const focused = own.contains(document.activeElement) && own.querySelector("input:focus");
      if (!focused) kept(own, document.adoptNode(fresh));
      else sources.delete(fresh.id); // later, when nobody is typing there
    }
    const now = document.getElementById(fresh.id);
    previous = now.localName === "section" ? now : null;
  }
};

const look = async () => {
  let wait = SHORTEST_MS;
  if (!document.hidden) {
    const began = performance.now();
    try {
      const headers = tag === null ? {} : { "If-None-Match": tag };
      const answer = await fetch(location.pathname, { headers, cache: "no-store" });
      if (answer.status === 200) {
        tag = answer.headers.get("etag");
        put(new DOMParser().parseFromString(await answer.text(), "text/html"));
      }
      const fine = answer.status === 200 || answer.status === 304;
      say(fine ? "live" : `not live: the server answers ${answer.status}`, !fine);
    } catch (error) {
      say("not live: the server does not answer", true);
    }
    wait = Math.max(SHORTEST_MS, SHARE * (performance.now() - began));
  }
  setTimeout(look, wait);
};

// This script comes before the one that draws: the parts are as the server sent them.
for (const each of document.querySelectorAll(parts)) sources.set(each.id, each.outerHTML);
addEventListener("load", () => {
  for (const chart of charts()) linked(chart);
  if (document.body.hasAttribute("data-live")) setTimeout(look, SHORTEST_MS);
});
