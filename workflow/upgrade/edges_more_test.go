package upgrade_test

import (
	"slices"
	"strings"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// inBrowser has these people sign in a browser, and a registry that asks for n
// signatures from outside.
func inBrowser(n int64, names ...string) func(*world) {
	return func(w *world) {
		w.browser = map[string]bool{}
		for _, name := range names {
			w.browser[name] = true
		}
		w.document = func(d *keyregistry.Document) { d.Rules.MinNonBrowserApprovals = n }
	}
}

func browserEdges() []forgery {
	assertion := func(name string, want failure.Class, f func(*envelope.WebAuthn)) forgery {
		return forgery{"browser: " + name, quorumFile, func(w *world) {
			inBrowser(0, "ryan")(w)
			w.assertion = func(_ string, sig *envelope.Signature) { f(sig.WebAuthn) }
		}, want}
	}
	flags := func(f byte) func(*envelope.WebAuthn) {
		return func(a *envelope.WebAuthn) { a.AuthenticatorData = authenticatorDataOf(rpID, f) }
	}
	replace := func(a *envelope.WebAuthn, old, new string) {
		a.ClientDataJSON = []byte(replaceOnce(string(a.ClientDataJSON), old, new))
	}
	const bad = failure.WebAuthnInvalid
	return []forgery{
		assertion("as it should be", valid, func(*envelope.WebAuthn) {}),
		assertion("not verified", bad, flags(0x01)), assertion("not present", bad, flags(0x04)),
		assertion("backup eligible", bad, flags(0x0d)), assertion("backed up", bad, flags(0x15)),
		assertion("extension data", valid, func(a *envelope.WebAuthn) { a.AuthenticatorData = append(authenticatorDataOf(rpID, 0x85), 0xa0) }),
		assertion("another rpId", bad, func(a *envelope.WebAuthn) { a.AuthenticatorData = authenticatorDataOf("evil.example", 0x05) }),
		assertion("another origin", bad, func(a *envelope.WebAuthn) { replace(a, origin, "https://evil.example") }),
		assertion("cross origin", bad, func(a *envelope.WebAuthn) { replace(a, "false", "true") }),
		assertion("another type", bad, func(a *envelope.WebAuthn) { replace(a, "webauthn.get", "webauthn.create") }),
		assertion("padded challenge", bad, func(a *envelope.WebAuthn) { replace(a, `","origin"`, `=","origin"`) }),
		assertion("36 bytes", bad, func(a *envelope.WebAuthn) { a.AuthenticatorData = a.AuthenticatorData[:36] }),
		{"browser: a token's signature by its key", quorumFile, func(w *world) {
			inBrowser(0, "ryan")(w)
			w.registered = func() { w.browser = nil }
		}, bad},
		{"non-browser: two of two asked", quorumFile, inBrowser(2, "ryan"), valid},
		{"non-browser: one of two asked", quorumFile, inBrowser(2, "ryan", "sec-eng"), failure.QuorumNotMet},
		{"non-browser: three of five", quorumFile, func(w *world) {
			inBrowser(3, "ryan", "sec-eng")(w)
			w.approvers = []string{"divlead-1", "divlead-2", "ryan", "sec-eng", "tech-lead"}
		}, valid},
		{"non-browser: ratification short of it", ratifiedFile(60), inBrowser(3, "ryan"), failure.QuorumNotMet},
		{"non-browser: an emergency asks for none", emergencyFile, inBrowser(3, "sec-eng"), valid},
		{"non-browser: pre-approval short of it, the quorum not", preapprovedFile(60), func(w *world) {
			inBrowser(2, "ryan", "sec-eng")(w)
			w.approvers = []string{"divlead-1", "divlead-2", "ryan", "sec-eng"}
			w.approval = func(id string, a *upgrade.Approval) { a.RollbackPreapproved = id != "divlead-1" }
			w.bundle = func(b *upgrade.QuorumBundle) { b.Quorum.Approvers = []envelope.ID{"divlead-2", "ryan", "sec-eng"} }
		}, failure.QuorumNotMet},
		{"non-browser: pre-approval meets it", preapprovedFile(60), func(w *world) {
			inBrowser(2, "ryan", "sec-eng")(w)
			w.approvers = []string{"divlead-1", "divlead-2", "ryan", "sec-eng"}
			w.approval = func(id string, a *upgrade.Approval) { a.RollbackPreapproved = id != "ryan" }
			w.bundle = func(b *upgrade.QuorumBundle) { b.Quorum.Approvers = []envelope.ID{"divlead-1", "divlead-2", "sec-eng"} }
		}, valid},
	}
}

func auditEdges() []forgery {
	at := func(eventType string, seconds int64) func(*world) {
		return func(w *world) {
			w.event = func(e *auditlog.Event) {
				if e.Type == eventType {
					e.Time = decided.Add(seconds)
				}
			}
		}
	}
	const bad = failure.AuditProofInvalid
	return []forgery{
		{"applying 600 s late", quorumFile, at(auditlog.UpgradeApplying, 600), valid},
		{"applying 601 s late", quorumFile, at(auditlog.UpgradeApplying, 601), bad},
		{"applying 600 s early", quorumFile, at(auditlog.UpgradeApplying, -600), valid},
		{"applying 601 s early", quorumFile, at(auditlog.UpgradeApplying, -601), bad},
		{"ratified 601 s late", ratifiedFile(0), at(auditlog.UpgradeRatified, 601), bad},
		{"applying in place of ratified", ratifiedFile(60), func(w *world) {
			w.event = func(e *auditlog.Event) {
				if e.Type == auditlog.UpgradeRatified {
					e.Type = auditlog.UpgradeApplying
				}
			}
		}, bad},
		{"no applying of the nested decision", preapprovedFile(60), func(w *world) {
			seen := 0
			w.event = func(e *auditlog.Event) {
				if e.Type == auditlog.UpgradeApplying {
					if seen++; seen == 1 {
						e.Type = auditlog.UpgradeApplied
					}
				}
			}
		}, bad},
		{"event key for a day and a second", quorumFile, func(w *world) {
			w.rawDelegation = func(d *auditlog.Delegation) { d.NotAfter = d.NotBefore.Add(86401) }
		}, failure.FieldInvalid},
		{"event key ends before it begins", quorumFile, func(w *world) {
			w.rawDelegation = func(d *auditlog.Delegation) { d.NotAfter = d.NotBefore.Add(-1) }
		}, failure.FieldInvalid},
		{"delegation of another Kernel", quorumFile, func(w *world) {
			w.delegation = func(d *auditlog.Delegation) { d.KernelID = "other" }
		}, bad},
		{"event key of another name", quorumFile, func(w *world) {
			w.rawDelegation = func(d *auditlog.Delegation) { d.EventKeyID = keyID("audit") }
		}, failure.FieldInvalid},
		{"event key P-256", quorumFile, func(w *world) {
			w.signAs["event"] = "ryan-2"
			w.rawDelegation = func(d *auditlog.Delegation) {
				d.EventKeyID, d.PublicKey = keyID("ryan-2"), keys()["ryan-2"].Public().DER()
			}
		}, failure.FieldInvalid},
		{"time goes back", preapprovedFile(60), at(auditlog.UpgradeCanaryFailed, -100), bad},
		{"used before it is introduced", quorumFile, func(w *world) { w.introduceLast = true }, bad},
		{"index beyond 2^53-1 is no Int", quorumFile, func(w *world) {
			w.audit = func(p *upgrade.AuditProof) { p.Entries[1].Index = envelope.MaxInt + 1 }
		}, failure.FieldInvalid},
		{"a hash too many", quorumFile, func(w *world) {
			w.audit = func(p *upgrade.AuditProof) { p.Entries[1].Proof = append(p.Entries[1].Proof, make([]byte, 32)) }
		}, bad},
		{"a witness's line is not looked at", quorumFile, func(w *world) {
			w.audit = func(p *upgrade.AuditProof) { p.Checkpoint += "— witness.example AAAAAAAA\n" }
		}, valid},
	}
}

func person(d *keyregistry.Document, id envelope.ID) *keyregistry.Approver {
	i := slices.IndexFunc(d.Approvers, func(a keyregistry.Approver) bool { return a.ID == id })
	return &d.Approvers[i]
}

// swapKey gives a person another key and retires the old one.
func swapKey(id envelope.ID, name string) func(*keyregistry.Document) {
	return func(d *keyregistry.Document) {
		p := person(d, id)
		retire(d, p.Keys[0].KeyID, id)
		p.Keys = []keyregistry.Key{entryOf(name)}
	}
}

func retire(d *keyregistry.Document, key envelope.KeyID, holder envelope.ID) {
	d.Retired = append(d.Retired, keyregistry.RetiredKey{KeyID: key, Holder: holder})
	slices.SortFunc(d.Retired, func(a, b keyregistry.RetiredKey) int {
		if a.KeyID < b.KeyID {
			return -1
		}
		return 1
	})
}

func replaceOnce(s, old, new string) string {
	if !strings.Contains(s, old) {
		panic("no " + old + " in " + s)
	}
	return strings.Replace(s, old, new, 1)
}
