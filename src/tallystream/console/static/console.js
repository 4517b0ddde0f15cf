// Live updates: when the ledger changes, the live parts of this page are fetched again and replaced. Forms and links
// work without this file.
"use strict";
(() => {
  const state = document.getElementById("live-state");
  const say = (text, name) => { if (state) { state.textContent = text; state.className = "live " + name; } };
  let busy = false, again = false;
  async function refresh() {
    if (busy) { again = true; return; }
    busy = true;
    try {
      // The answer to a form has another address than the page that it shows.
      const address = document.querySelector("[data-live]").dataset.live || location.href;
      const answer = await fetch(address, { headers: { "X-Live": "1" }, redirect: "error" });
      if (answer.ok) {
        const page = new DOMParser().parseFromString(await answer.text(), "text/html");
        for (const now of document.querySelectorAll("[data-live]")) {
          const next = page.getElementById(now.id);
          if (next && next.innerHTML !== now.innerHTML && !now.contains(document.activeElement)) {
            now.replaceChildren(...document.importNode(next, true).childNodes);
          }
        }
        say("live", "on");
      } else if (answer.status === 401) {
        say("logged out", "off");
        return;
      }
    } catch { say("not reachable", "off"); }
    busy = false;
    if (again) { again = false; setTimeout(refresh, 250); }
  }
  if (document.querySelector("[data-live]") && "EventSource" in window) {
    const source = new EventSource("/live");
    source.addEventListener("open", () => say("live", "on"));
    source.addEventListener("change", refresh);
    source.addEventListener("error", () => say("reconnecting", "off"));
  }
  for (const button of document.querySelectorAll("button[data-copy]")) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
      button.textContent = "Copied";
    });
  }
})();
