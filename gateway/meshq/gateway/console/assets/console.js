"use strict";
// Puts a new status into the page every two seconds while the page is seen.
const PAUSE = 2000;
const status = document.getElementById("status");
const line = document.getElementById("refresh");

async function refresh() {
  try {
    const answer = await fetch("/console/status", { cache: "no-store", signal: AbortSignal.timeout(5000) });
    if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
    status.innerHTML = await answer.text();
    document.body.classList.remove("lost");
    line.textContent = `as of ${new Date().toLocaleTimeString()}`;
  } catch (error) {
    document.body.classList.add("lost");
    line.textContent = `The console does not answer (${error.message}); what you see is old.`;
  }
}

async function run() {
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, PAUSE));
    if (!document.hidden) await refresh();
  }
}

run();
