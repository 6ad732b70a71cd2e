// Enrolling a security key, and signing a new version of the registry.
"use strict";

// The bits of authenticatorData's flags (WebAuthn section 6.1).
const backupEligible = 0x08, backupState = 0x10, userVerified = 0x04;
const second = (date) => date.toISOString().slice(0, 19) + "Z";

// offer shows a file to be downloaded.
function offer(place, name, content) {
  const link = place.querySelector("[data-file]");
  link.href = URL.createObjectURL(new Blob([content], { type: "application/json" }));
  link.download = name;
  place.hidden = false;
  link.focus();
}

const algorithms = { "-7": "ecdsa-p256-sha256", "-8": "ed25519" };

// createKey has a device make a key that stays in it.
async function createKey(about) {
  const made = await navigator.credentials.create({ publicKey: {
    rp: { id: about.rpId, name: "kernelgate" }, user: { id: utf8.encode("sign:" + about.person), name: `${about.person} (signing)`, displayName: about.name },
    challenge: crypto.getRandomValues(new Uint8Array(32)), pubKeyCredParams: [{ type: "public-key", alg: -7 }, { type: "public-key", alg: -8 }],
    authenticatorSelection: { userVerification: "required", residentKey: "discouraged" }, attestation: "none", timeout: 120000,
  } });
  const flags = new Uint8Array(made.response.getAuthenticatorData())[32];
  if (flags & (backupEligible | backupState)) throw new Error("This key is synced between devices, or may be, so it does not count here. Use one that stays in one device.");
  if (!(flags & userVerified)) throw new Error("The device did not ask for a PIN or a finger, so its key does not count here.");
  const algorithm = algorithms[made.response.getPublicKeyAlgorithm()], spki = made.response.getPublicKey();
  if (!algorithm || !spki) throw new Error("The device made a kind of key that is not used here. Use another one.");
  return { algorithm, spki, credentialId: toBase64url(made.rawId) };
}

async function enrolKey(form, button) {
  const about = JSON.parse(form.dataset.enrolKey);
  say(button, "Touch your key: it makes a new key pair.");
  const made = await createKey(about);
  const keyId = hex(await crypto.subtle.digest("SHA-256", made.spki));
  const now = new Date();
  const enrolment = { id: about.person, kind: about.kind, name: about.name, ...(about.role && { role: about.role }), key: {
    algorithm: made.algorithm, keyId, notBefore: second(now), notAfter: second(new Date(now.getTime() + Number(form.elements.days.value) * 86400000)),
    origin: "webauthn", publicKey: toBase64(made.spki), webauthn: { credentialId: made.credentialId, origins: [about.origin], rpId: about.rpId } } };
  say(button, "Touch it again: the new key signs, which proves that you hold it.");
  const type = "application/vnd.kernelgate.enrolment.v1+json", payload = utf8.encode(canonical(enrolment));
  const signature = await assertion(type, payload, { keyId, credentialId: made.credentialId, rpId: about.rpId });
  say(button, "");
  const result = form.querySelector("[data-result]");
  result.querySelector("[data-key-id]").textContent = keyId;
  offer(result, "key.json", canonical({ payload: toBase64(payload), payloadType: type, signatures: [signature] }));
}

let proposed = null;

async function review(form, button) {
  const file = form.elements.file.files[0];
  const text = file ? await file.text() : form.elements.text.value;
  const answer = await call("POST", "/registry/review", text, "application/json");
  proposed = { entry: JSON.parse(text), ...answer };
  const place = document.querySelector("[data-changes]");
  const fill = (name, words) => { place.querySelector(name).textContent = words; };
  const changes = answer.changes.length > 0 ? answer.changes : ["Nothing but its version and date."];
  place.querySelector("[data-list]").replaceChildren(...changes.map((words) => Object.assign(document.createElement("li"), { textContent: words })));
  fill("[data-voids]", answer.voids === 0 ? "No upgrade waits for approvals, so none would be voided." : `It voids the approvals of what is pending: ${answer.voids} to be signed again.`);
  fill("[data-signed]", (answer.signedBy.length > 0 ? `Signed by ${answer.signedBy.join(", ")}. ` : "Nobody has signed it yet. ") + answer.needed);
  fill("[data-digest]", answer.digest);
  place.querySelector("form button").disabled = answer.keys.length === 0;
  place.hidden = false;
  say(place.querySelector("form button"), answer.keys.length > 0 ? "" : "You have no key here that could sign it, or all of yours have.");
  say(button, "");
}

async function signRegistry(form, button) {
  const { entry, payload, type, keys } = proposed;
  say(button, "Touch your key.");
  const signature = await assertion(type, fromBase64(payload), keys[0]);
  entry.statement.signatures = [...(entry.statement.signatures || []), signature];
  keys.shift();
  say(button, keys.length > 0 ? "Signed. Another key of yours may sign as well: press again." : "");
  offer(document.querySelector("[data-changes] [data-result]"), "next.json", canonical(entry));
}

for (const [name, run] of Object.entries({ "data-enrol-key": enrolKey, "data-review": review, "data-sign-registry": signRegistry }))
  document.addEventListener("submit", (event) => {
    const form = event.target.closest(`form[${name}]`);
    if (!form) return;
    event.preventDefault();
    attempt(event.submitter, () => run(form, event.submitter));
  });
