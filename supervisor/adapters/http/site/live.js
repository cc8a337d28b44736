// Keeps a page of the status page live: looks again when the server says that something has changed, and adds output as it comes.
// The server makes all HTML; here text only ever becomes text.
"use strict";
(() => {
  const main = document.querySelector("main[data-live]");
  const LOOK_MS = 5000, SETTLE_MS = 250, MOST_CHARACTERS = 300000;
  const log = document.getElementById("log");
  let streams = [], settling = 0, looking = false, timer = 0, shownRun = "";

  const say = (words, live) => {
    const place = document.getElementById("pulse");
    if (place) { place.textContent = words; place.classList.toggle("live", live); }
  };
  const look = async () => {
    if (looking || document.hidden) return;
    looking = true;
    try {
      const answer = await fetch(location.pathname + location.search, { headers: { Accept: "text/html" }, cache: "no-store" });
      if (!answer.ok) throw new Error(String(answer.status));
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const old of document.querySelectorAll("[data-swap]")) {
        const now = fresh.getElementById(old.id);
        if (!now || old.contains(document.activeElement) && document.activeElement.tagName === "BUTTON" && old.textContent === now.textContent) continue;
        if (old.innerHTML !== now.innerHTML) old.replaceWith(document.adoptNode(now));
      }
      document.title = fresh.title;
      say("live", true);
    } catch { say("not reachable, trying again", false); }
    looking = false;
  };
  const soon = () => { clearTimeout(settling); settling = setTimeout(look, SETTLE_MS); };
  const stream = (url, handlers) => {
    const source = new EventSource(url);
    for (const [name, handle] of Object.entries(handlers)) source.addEventListener(name, handle);
    source.addEventListener("open", () => say("live", true));
    source.addEventListener("error", () => say("reconnecting", false));
    streams.push(source);
  };
  const plain = (text) => text.replace(/\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(\x07|\x1b\\)?/g, "").replace(/[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]/g, "\ufffd");
  const write = (text) => {
    const follows = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
    log.append(plain(text));
    if (log.textContent.length > MOST_CHARACTERS) log.textContent = log.textContent.slice(-MOST_CHARACTERS / 2);
    if (follows) log.scrollTop = log.scrollHeight;
  };
  const onLog = (event) => {
    const piece = JSON.parse(event.data);
    if (piece.attempt === null) return;
    const of = `run ${piece.run}, attempt ${piece.attempt}`;
    if (shownRun && shownRun !== of) write(`\n--- ${of} ---\n`);
    shownRun = of;
    write(piece.text);
    const place = document.getElementById("log-of");
    if (place) place.textContent = of + (piece.live ? ", live" : "");
  };
  const open = () => {
    close();
    if (!main) return;
    stream(main.dataset.live, { job: soon, gone: soon, incident: soon });
    if (log && log.dataset.stream) {
      log.textContent = "";
      shownRun = "";
      stream(log.dataset.stream, { log: onLog, gap: () => write("\n--- some lines may be missing here ---\n") });
    }
    timer = setInterval(look, LOOK_MS);
  };
  const close = () => { for (const source of streams) source.close(); streams = []; clearInterval(timer); };
  document.addEventListener("visibilitychange", () => { if (document.hidden) close(); else { open(); look(); } });
  window.addEventListener("pagehide", close);
  window.addEventListener("pageshow", (event) => { if (event.persisted) open(); });
  if (log) log.scrollTop = log.scrollHeight;
  if (!document.hidden) open();
})();
