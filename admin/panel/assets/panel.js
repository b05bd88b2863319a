// Keeps the panel alive: the server renders its parts anew each second and
// sends those that have changed; this puts them where they belong.
"use strict";

const live = document.getElementById("live");
let timer = 0;

function say(text, state) {
  if (live.textContent !== text) live.textContent = text;
  live.dataset.state = state;
}

// A box that is silent for five seconds is not live, whatever the connection
// says of itself.
function heard() {
  say("live", "live");
  clearTimeout(timer);
  timer = setTimeout(() => say("no answer from the box; figures are old", "lost"), 5000);
}

function replace({ id, html }) {
  const element = document.getElementById(id);
  if (!element) return;
  // Nobody's selection or keyboard focus is pulled away under their hands.
  const selection = document.getSelection();
  if (selection && !selection.isCollapsed && element.contains(selection.anchorNode)) return;
  const focused = [...element.querySelectorAll("button, [tabindex]")].indexOf(document.activeElement);
  const scrolled = [...element.querySelectorAll(".scroll")].map((box) => [box.scrollLeft, box.scrollTop]);
  element.innerHTML = html;
  element.querySelectorAll(".scroll").forEach((box, i) => {
    if (scrolled[i]) [box.scrollLeft, box.scrollTop] = scrolled[i];
  });
  if (focused >= 0) element.querySelectorAll("button, [tabindex]")[focused]?.focus({ preventScroll: true });
}

function listen() {
  const source = new EventSource("/events");
  source.addEventListener("fragment", (event) => replace(JSON.parse(event.data)));
  source.addEventListener("alive", heard);
  source.onerror = () => {
    clearTimeout(timer);
    say("no answer from the box; trying again", "lost");
    // The browser gives up on a refusal (the login has ended, or too many pages
    // are open); loading the page again leads to the login if need be.
    if (source.readyState === EventSource.CLOSED) setTimeout(() => location.reload(), 5000);
  };
}

// navigator.clipboard exists on https and localhost only; elsewhere the line is
// selected, ready for the keyboard.
async function copy(button) {
  const line = button.parentElement.querySelector("code");
  try {
    await navigator.clipboard.writeText(line.textContent);
    button.textContent = "Copied";
  } catch {
    document.getSelection().selectAllChildren(line);
    button.textContent = "Press Ctrl+C";
  }
  setTimeout(() => { button.textContent = "Copy"; }, 2000);
}

// What a button does is a call of the API; the page then shows what came of it.
async function call(button) {
  const { method, call, body, ask } = button.dataset;
  if (ask && !confirm(ask)) return;
  button.disabled = true;
  const answer = await fetch(call, { method, body, headers: body ? { "Content-Type": "application/json" } : {} }).catch((err) => err);
  button.disabled = false;
  if (answer.ok) return;
  const problem = answer.json ? await answer.json().catch(() => ({})) : {};
  alert(problem.detail || "The box did not answer.");
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button?.matches(".copy")) copy(button);
  if (button?.dataset.call) call(button);
});

listen();
