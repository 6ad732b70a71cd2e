// CommandPad's behaviour: sign in, move by keys, follow the log, sign records.
// Nothing here decides anything: the gateway and the guard verify what is sent.
"use strict";

// HTML comes from this origin's own pages alone, and only through this policy.
const trusted = self.trustedTypes ? trustedTypes.createPolicy("kernelgate", { createHTML: (text) => text }) : { createHTML: (text) => text };
const parsePage = (text) => new DOMParser().parseFromString(trusted.createHTML(text), "text/html");

const utf8 = new TextEncoder();
const toBase64 = (bytes) => btoa(Array.from(new Uint8Array(bytes), (b) => String.fromCharCode(b)).join(""));
const fromBase64 = (text) => Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0));
const toBase64url = (bytes) => toBase64(bytes).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
const hex = (bytes) => Array.from(new Uint8Array(bytes), (b) => b.toString(16).padStart(2, "0")).join("");
const digest = async (bytes) => "sha256:" + hex(await crypto.subtle.digest("SHA-256", bytes));

// canonical is RFC 8785 for what records hold: objects, arrays, strings, whole
// numbers, true. Names are sorted by UTF-16 code units, as sort does.
function canonical(value) {
  if (Array.isArray(value)) return "[" + value.map(canonical).join(",") + "]";
  if (value && typeof value === "object")
    return "{" + Object.keys(value).sort().map((name) => JSON.stringify(name) + ":" + canonical(value[name])).join(",") + "}";
  return JSON.stringify(value);
}

function concat(...parts) {
  const all = new Uint8Array(parts.reduce((n, part) => n + part.length, 0));
  let at = 0;
  for (const part of parts) { all.set(part, at); at += part.length; }
  return all;
}

// preAuth is DSSE's pre-authentication encoding (PROTOCOL section 3).
const preAuth = (type, payload) => concat(utf8.encode(`DSSEv1 ${utf8.encode(type).length} ${type} ${payload.length} `), payload);

// assertion is a security key's signature object over a payload.
async function assertion(type, payload, key) {
  const got = await navigator.credentials.get({ publicKey: {
    challenge: await crypto.subtle.digest("SHA-256", preAuth(type, payload)), rpId: key.rpId, userVerification: "required", timeout: 120000,
    allowCredentials: [{ type: "public-key", id: fromBase64(key.credentialId) }],
  } });
  const { authenticatorData, clientDataJSON, signature } = got.response;
  const flags = new Uint8Array(authenticatorData)[32];
  if (flags & 0x18) throw new Error("This key is synced between devices, or may be, so its signature counts nowhere. Nothing was sent.");
  return { keyid: key.keyId, sig: toBase64(signature), webauthn: { authenticatorData: toBase64(authenticatorData), clientDataJSON: toBase64(clientDataJSON) } };
}

// sign has the security key sign a record, and returns its envelope.
async function sign(kind, record, key) {
  const payload = utf8.encode(canonical({ ...record, keyId: key.keyId }));
  const type = `application/vnd.kernelgate.${kind}.v1+json`;
  return { payload: toBase64(payload), payloadType: type, signatures: [await assertion(type, payload, key)] };
}

const sessionOver = "Your session is over. Sign in again and come back; nothing was sent.";

// call is one call of the gateway. Its problems say what to do, so they are shown as they are.
async function call(method, path, body, type = "application/json") {
  const answer = await fetch(path, { method, headers: body === undefined ? {} : { "Content-Type": type },
    body: body === undefined || typeof body === "string" || body instanceof Blob ? body : JSON.stringify(body) });
  const text = await answer.text();
  if (answer.ok) return text === "" ? null : JSON.parse(text);
  if (answer.status === 401 && path.startsWith("/v1/")) throw new Error(sessionOver);
  let problem = { detail: text };
  try { problem = JSON.parse(text); } catch { /* it was plain text */ }
  throw new Error(problem.detail || problem.title || `The gateway answered ${answer.status}.`);
}

// say tells how it goes, where a screen reader hears it.
function say(near, text, bad = false) {
  const place = (near.closest("form, section") || document).querySelector("[data-says]");
  if (!place) return;
  place.textContent = text;
  place.classList.toggle("bad", bad);
}

// attempt runs one action of the user, once at a time.
async function attempt(button, work) {
  button.disabled = true;
  try { await work(); } catch (error) {
    say(button, error.name === "NotAllowedError" ? "The key was not used: cancelled, timed out, or not the right one. Nothing was sent." : error.message, true);
  } finally { button.disabled = false; }
}

// here is where to go after signing in: a page of this origin, or the inbox. It
// is a whole address: a path alone may begin with //, and lead to another host.
function here() {
  const next = new URL(new URLSearchParams(location.search).get("next") || "/", location.origin);
  return next.origin === location.origin && next.protocol === location.protocol ? next.href : "/";
}

const actions = {
  async "sign-in"(button) {
    const options = await call("POST", "/session/begin", {});
    say(button, "Use your passkey now.");
    const got = await navigator.credentials.get({ publicKey: PublicKeyCredential.parseRequestOptionsFromJSON(options) });
    await call("POST", "/session/finish", got.toJSON());
    location.assign(here());
  },
  async "sign-out"() {
    await call("POST", "/session/end", {});
    location.assign("/sign-in");
  },
  async enrol(button) {
    const options = await call("POST", "/enrolment/begin", location.hash.slice(1), "text/plain");
    say(button, "Use the device that you want to enrol.");
    const made = await navigator.credentials.create({ publicKey: PublicKeyCredential.parseCreationOptionsFromJSON(options) });
    await call("POST", "/enrolment/finish", made.toJSON());
    location.assign("/");
  },
  async copy(button) {
    await navigator.clipboard.writeText(button.dataset.copy);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  },
  async "request-approvals"(button) {
    await call("POST", `/v1/upgrades/${button.dataset.id}/approval-request`, {});
    await refresh();
  },
};

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-do], [data-copy]");
  const action = button && actions[button.dataset.do || "copy"];
  if (action) attempt(button, () => action(button));
});

// refresh puts the page's newest content in place, but for what the user is
// filling in: nothing moves under a pointer that is about to sign.
async function refresh() {
  const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
  if (answer.redirected) { location.reload(); return; } // the session is over
  if (!answer.ok) return;
  const page = parsePage(await answer.text());
  replace(document.getElementById("alarm"), page.getElementById("alarm"));
  const main = document.querySelector("main");
  if (main.querySelector("form[data-sign], form[data-propose], form[data-enrol-key], form[data-review]")) { warnChanged(page); return; }
  replace(main, page.querySelector("main"));
}

// replace puts newer content in an element's place. What the user had opened
// stays open, and the focus where it was.
function replace(element, newer) {
  if (!element || !newer || element.innerHTML === newer.innerHTML) return;
  const places = "a[href], button, summary, [tabindex], input, select";
  const focused = [...element.querySelectorAll(places)].indexOf(document.activeElement);
  const opened = [...element.querySelectorAll("details")].map((details) => details.open);
  element.replaceChildren(...newer.childNodes);
  localTimes(element);
  element.querySelectorAll("details").forEach((details, i) => { if (i in opened) details.open = opened[i]; });
  if (focused >= 0) element.querySelectorAll(places)[focused]?.focus({ preventScroll: true });
}

// follow listens to the log from where the page has read it; a burst of events
// is one refresh.
function follow() {
  const { follow: types, from } = document.querySelector("main").dataset;
  if (!types) return;
  const events = new EventSource(`/v1/events?from=${from}`);
  let timer = 0;
  for (const type of types.split(" "))
    events.addEventListener(type, () => { clearTimeout(timer); timer = setTimeout(refresh, 250); });
  addEventListener("pagehide", () => events.close());
}

// localTimes shows times as the reader's clock has them; UTC stays in the title.
function localTimes(within) {
  for (const time of within.querySelectorAll("time[datetime]"))
    if (!("countdown" in time.dataset)) time.textContent = new Date(time.dateTime).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
  countDown();
}

// countDown says how long emergencies still have, to the second.
function countDown() {
  for (const time of document.querySelectorAll("[data-countdown]")) {
    const left = Math.max(0, Math.floor((new Date(time.dateTime) - Date.now()) / 1000));
    const two = (n) => String(n).padStart(2, "0");
    time.textContent = left === 0 ? "no time: it is over" : `${Math.floor(left / 3600)} h ${two(Math.floor(left / 60) % 60)} min ${two(left % 60)} s`;
  }
}

// warnChanged voids a ceremony when what it is about has changed, and says what.
function warnChanged(fresh) {
  const forms = document.querySelectorAll("form[data-sign]");
  const form = forms[0];
  if (!form) return false;
  const newer = fresh && fresh.querySelector("form[data-sign]");
  const before = JSON.parse(form.dataset.sign);
  const after = newer ? JSON.parse(newer.dataset.sign) : {};
  const changed = Object.keys(before.watch).filter((name) => JSON.stringify(before.watch[name]) !== JSON.stringify(after.watch?.[name]));
  if (changed.length === 0) return false;
  for (const each of forms) each.querySelector("fieldset").disabled = true;
  say(form, `While this page was open, this changed: ${changed.join(", ")}. Nothing was signed. Load the page again and read what is new.`, true);
  return true;
}

// words are the six words of what is about to be signed (kgctl fingerprint).
async function fingerprint(about, list) {
  const sum = new Uint8Array(await crypto.subtle.digest("SHA-256", utf8.encode(about.manifestDigest + "\n" + about.patchHash)));
  const bits = Array.from(sum.slice(0, 9), (b) => b.toString(2).padStart(8, "0")).join("");
  return Array.from({ length: 6 }, (_, i) => list[parseInt(bits.slice(11 * i, 11 * i + 11), 2)]).join(" ");
}

// decide signs what the form says about the upgrade, and sends it.
async function decide(form, kind, button) {
  const { about, keys, wordList } = JSON.parse(form.dataset.sign);
  const manifest = fromBase64(about.manifest);
  if (await digest(manifest) !== about.manifestDigest || JSON.parse(new TextDecoder().decode(manifest)).patchHash !== about.patchHash)
    throw new Error("The manifest on this page is not the one that its digest names. Do not sign; tell an operator.");
  const value = (name) => (form.elements[name]?.value || "").trim();
  if (kind === "approval") {
    const list = (await (await fetch(wordList)).text()).split("\n");
    const typed = value("words").toLowerCase().split(/[^a-z]+/).filter(Boolean).join(" ");
    if (typed !== await fingerprint(about, list))
      throw new Error("These are not the six words of this change. Compute them again on the other machine; if they still differ, do not sign.");
  }
  const answer = await fetch(location.href);
  if (answer.redirected) throw new Error(sessionOver);
  if (warnChanged(parsePage(await answer.text()))) return;
  const now = new Date().toISOString().slice(0, 19) + "Z";
  const common = { kernelId: about.kernelId, upgradeId: about.upgradeId, manifestDigest: about.manifestDigest, registryDigest: about.registryDigest };
  const records = {
    approval: () => ({ ...common, approverId: about.person, approvalTs: now, patchHash: about.patchHash,
      ...(value("notes") && { notes: value("notes") }), ...(form.elements.preapprove?.checked && { rollbackPreapproved: true }) }),
    rejection: () => ({ ...common, approverId: about.person, rejectionTs: now, reason: value("reason") }),
    "test-request": () => ({ ...common, approverId: about.person, requestTs: now, tests: value("tests").split(",").map((t) => t.trim()).filter(Boolean),
      ...(value("notes") && { notes: value("notes") }) }),
    "emergency-trigger": () => ({ ...common, triggeredBy: about.person, triggeredAt: now, patchHash: about.patchHash, reason: value("reason") }),
  };
  say(button, "Touch your key.");
  const envelope = await sign(kind, records[kind](), keys[0]);
  say(button, "Signed. Sending it.");
  await call("POST", "/v1/records", envelope);
  location.assign(`/upgrades/${about.upgradeId}`);
}

document.addEventListener("submit", (event) => {
  const form = event.target.closest("form[data-sign]");
  if (!form) return;
  event.preventDefault();
  attempt(event.submitter, () => decide(form, form.dataset.kind, event.submitter));
});

// What became of a request to the approver's own machine.
const sentStates = { waiting: "Sent. It waits for kgctl agent on your machine.", shown: "Your machine shows it. Decide there.", signed: "Signed there.",
  declined: "Declined there. Nothing was signed.", failed: "It failed there.", withdrawn: "A newer request took its place." };

// send asks the agent on the approver's machine. It carries no authority: the
// agent looks at everything itself and asks there.
async function send(form, button) {
  const value = (name) => form.elements[name].value.trim(), decision = value("decision");
  const body = { upgradeId: form.dataset.send, decision };
  if (value("text")) body[decision === "reject" ? "reason" : "notes"] = value("text");
  if (decision === "approve" && form.elements.preapprove.checked) body.preapproveRollback = true;
  if (decision === "request-tests") body.tests = listed(value("tests"));
  let request = await call("POST", "/v1/signing-requests", body);
  while (request && ["waiting", "shown"].includes(request.state)) {
    say(button, sentStates[request.state]);
    await new Promise((done) => setTimeout(done, 1500));
    request = (await call("GET", "/v1/signing-requests")).requests.find((r) => r.id === request.id);
  }
  if (!request) throw new Error("Your machine did not answer in time. Send it again.");
  if (request.state === "signed") { location.assign(`/upgrades/${form.dataset.send}`); return; }
  throw new Error([sentStates[request.state], request.detail].filter(Boolean).join(" "));
}

// agentThere says whether an agent of this person waits.
async function agentThere() {
  const form = document.querySelector("form[data-send]");
  if (!form) return;
  const place = form.querySelector("[data-agent]");
  try {
    const { agentConnected } = await call("GET", "/v1/signing-requests");
    place.textContent = agentConnected ? "Your agent is connected. It computes everything itself, shows it on that machine and asks there." : "No agent of yours is connected. Start kgctl agent on the machine that holds the key, or use the line below.";
  } catch (error) { place.textContent = error.message; }
}

document.addEventListener("change", (event) => {
  const form = event.target.closest("form[data-send]");
  if (!form || event.target.name !== "decision") return;
  for (const label of form.querySelectorAll("[data-for]")) label.hidden = label.dataset.for !== event.target.value;
  form.querySelector("[data-text]").textContent = event.target.value === "reject" ? "Why it should not be applied" : "Note";
  form.elements.text.required = event.target.value === "reject";
});

document.addEventListener("submit", (event) => {
  const form = event.target.closest("form[data-send]");
  if (!form) return;
  event.preventDefault();
  attempt(event.submitter, () => send(form, event.submitter));
});

const listed = (text) => text.split(",").map((part) => part.trim()).filter(Boolean);

// upload sends a file with progress, and has the gateway compare the digest.
function upload(file, expected, bar) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("PUT", `/v1/artifacts?digest=${encodeURIComponent(expected)}`);
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.upload.onprogress = (event) => { bar.value = event.loaded / event.total; };
    request.onload = () => {
      const answer = JSON.parse(request.responseText || "{}");
      request.status === 200 ? resolve(answer) : reject(new Error(answer.detail || `The gateway answered ${request.status}.`));
    };
    request.onerror = () => reject(new Error("The upload broke off. Try again."));
    request.send(file);
  });
}

// draft is the manifest that the form describes, but for what is signed.
function draft(form, about, patchHash) {
  const value = (name) => (form.elements[name]?.value || "").trim();
  const amount = value("amount");
  const manifest = { kernelId: about.kernelId, upgradeId: crypto.randomUUID(), proposedBy: about.person,
    impact: { components: listed(value("components")), downtime: value("downtime"),
      ...(amount && { cost: { minorUnits: Math.round(Number(amount) * 100), currency: value("currency").toUpperCase() } }) },
    preconditions: { approvals: 3, tests: listed(value("tests")) }, timestamp: new Date().toISOString().slice(0, 19) + "Z" };
  if (about.rollback) {
    const old = about.rollback;
    Object.assign(manifest, { type: "rollback", target: old.target, baseRevision: old.patchHash, patchHash: old.baseRevision,
      rationale: "Take back: " + old.rationale.split("\n")[0], rollback: { upgradeId: old.upgradeId, reason: value("reason") } });
  } else {
    const target = about.targets.find((t) => t.name === value("target"));
    const source = value("commit") ? { repository: value("repository"), path: value("path") || ".", commit: value("commit") } : { manifestId: value("repository") };
    Object.assign(manifest, { type: value("type"), target: { name: target.name, ...source }, baseRevision: target.live, patchHash, rationale: value("rationale") });
  }
  return manifest;
}

// store has the gateway keep the artifact, and compares what both have hashed.
async function store(form, button) {
  const file = form.elements.artifact.files[0];
  say(button, "Hashing the artifact.");
  const hash = await digest(await file.arrayBuffer());
  form.querySelector("[data-hash]").textContent = hash;
  form.querySelector("[data-upload]").hidden = false;
  say(button, "Uploading it.");
  const kept = await upload(file, hash, form.querySelector("progress"));
  if (kept.digest !== hash) throw new Error(`The gateway hashed ${kept.digest}, this browser ${hash}. Nothing was proposed; upload it again.`);
  return hash;
}

// propose makes, signs and sends a manifest: a new upgrade, or a rollback.
async function propose(form, button) {
  const about = JSON.parse(form.dataset.propose);
  const manifest = draft(form, about, about.rollback ? null : await store(form, button));
  say(button, "Touch your key.");
  const envelope = await sign("upgrade-manifest", manifest, about.keys[0]);
  await call("POST", "/v1/records", envelope);
  location.assign(`/upgrades/${manifest.upgradeId}`);
}

// foresee shows what the policy would say, before anything is signed.
async function foresee(form) {
  const about = JSON.parse(form.dataset.propose);
  const place = form.querySelector("[data-verdict]");
  if (!place || form.querySelector("fieldset").disabled) return;
  const required = [...form.elements].filter((e) => e.required && e.name !== "artifact" && !e.value.trim());
  if (required.length > 0) { verdict(place, "quiet", "The policy is asked as soon as the fields are filled in."); return; }
  try {
    const d = await call("POST", "/v1/policy/preview", draft(form, about, "sha256:" + "0".repeat(64)));
    if (d.allow) verdict(place, "good", "The policy would allow it.", d.violations);
    else verdict(place, "bad", "The policy would deny it. You may propose it all the same, but nobody could approve it as it is.", d.violations);
  } catch (error) { verdict(place, "warn", error.message); }
}

function verdict(place, tone, text, violations = []) {
  const line = (name, words) => Object.assign(document.createElement(name), { textContent: words });
  place.className = "note " + tone;
  place.replaceChildren(line("p", text), ...violations.map((v) => line("p", `${v.rule}: ${v.message}`)));
}

let foreseeing = 0;
document.addEventListener("input", (event) => {
  const form = event.target.closest("form[data-propose]");
  if (!form) return;
  clearTimeout(foreseeing);
  foreseeing = setTimeout(() => foresee(form), 400);
});

document.addEventListener("submit", (event) => {
  const form = event.target.closest("form[data-propose]");
  if (!form) return;
  event.preventDefault();
  attempt(event.submitter, () => propose(form, event.submitter));
});

// Keys: j and k move through rows, Enter opens (it is a link), / searches, ? helps.
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, select") || document.querySelector("dialog[open]")) return;
  const rows = [...document.querySelectorAll("[data-row]")];
  const at = rows.indexOf(document.activeElement);
  if (event.key === "j") rows[Math.min(at + 1, rows.length - 1)]?.focus();
  else if (event.key === "k") rows[Math.max(at - 1, 0)]?.focus();
  else if (event.key === "/") document.querySelector("input[type=search]")?.focus();
  else if (event.key === "g") location.assign("/");
  else if (event.key === "?") document.getElementById("keys")?.showModal();
  else return;
  event.preventDefault();
});

// What is folded is printed too.
let folded = [];
addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll("details:not([open])")];
  for (const details of folded) details.open = true;
});
addEventListener("afterprint", () => { for (const details of folded) details.open = false; });

localTimes(document);
setInterval(countDown, 1000);
agentThere();
follow();
