// Sends an update with a bar that moves, and waits for a box that restarts. The
// page works without: then the browser sends the form itself.
"use strict";

function send(form) {
  const [bar, fault, button] = ["progress", ".problem", "button"].map((what) => form.querySelector(what));
  const file = form.querySelector("input[type=file]").files[0];
  const fail = (text) => {
    bar.hidden = true;
    button.disabled = fault.hidden = false;
    fault.textContent = text;
  };
  const request = new XMLHttpRequest();
  request.upload.onprogress = (event) => { bar.value = (event.loaded * 100) / event.total; };
  request.upload.onload = () => bar.removeAttribute("value"); // it is proved and written
  request.onerror = () => fail("The connection to the box broke. Nothing was changed unless it restarts now; try again.");
  request.onload = () => {
    if (request.status === 200) {
      location.assign("/system?done=update");
      return;
    }
    let detail = "";
    try {
      detail = JSON.parse(request.responseText).detail;
    } catch {
      detail = `The box answered ${request.status}.`;
    }
    fail(request.status === 401 ? "The login has ended: load this page again." : detail);
  };
  button.disabled = fault.hidden = true;
  bar.hidden = false;
  request.open("POST", form.dataset.upload);
  request.setRequestHeader("Content-Type", "application/octet-stream");
  request.send(file);
}

// A box that restarts first answers on for a moment, then not at all.
async function wait(address) {
  for (let gone = false; ; ) {
    await new Promise((resume) => setTimeout(resume, 2000));
    const answer = await fetch(address, { cache: "no-store", signal: AbortSignal.timeout(5000) }).catch(() => null);
    if (answer && gone) break;
    gone = gone || !answer;
  }
  location.assign(address);
}

for (const form of document.querySelectorAll("form[data-upload]")) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send(form);
  });
}
if (document.body.dataset.wait) wait(document.body.dataset.wait);
