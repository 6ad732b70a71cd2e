package upgrade_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// valid marks a file that stands just inside a bound and is accepted.
const valid failure.Class = ""

// Each bound of PROTOCOL is tried on both of its sides.
func TestEdges(t *testing.T) {
	for _, group := range [][]forgery{timeEdges(), caseEdges(), fieldEdges(), browserEdges(), auditEdges(), rotationEdges(), foreignEdges()} {
		for _, f := range group {
			t.Run(f.name, func(t *testing.T) {
				w := newWorld(t)
				f.spoil(w)
				_, err := upgrade.VerifyFile(f.build(w), w.root, true)
				if got := failure.ClassOf(err); got != f.want || (err == nil) != (f.want == valid) {
					t.Errorf("class is %q, not %q: %v", got, f.want, err)
				}
			})
		}
	}
}

// oldDocument makes room for old records.
func oldDocument(d *keyregistry.Document) { d.IssuedAt = when("2026-02-01T00:00:00Z") }

func approvalAt(manifestAge, approvalAge int64) func(*world) {
	return func(w *world) {
		w.document = oldDocument
		w.manifest = func(m *upgrade.Manifest) { m.Timestamp = decided.Add(-manifestAge) }
		w.approval = func(_ string, a *upgrade.Approval) { a.ApprovalTs = decided.Add(-approvalAge) }
	}
}

func keyEnds(who string, notBefore, notAfter int64) func(*world) {
	return func(w *world) {
		w.document = func(d *keyregistry.Document) {
			for i := range d.Approvers {
				if k := &d.Approvers[i].Keys[0]; k.KeyID == keyID(who) {
					k.NotBefore, k.NotAfter = issued.Add(notBefore), decided.Add(notAfter)
				}
			}
			for _, list := range [][]keyregistry.Key{d.Kernel.Records, d.Kernel.Audit, d.CI[0].Keys, d.Requestors[0].Keys} {
				if list[0].KeyID == keyID(who) {
					list[0].NotBefore, list[0].NotAfter = decided.Add(notBefore), decided.Add(notAfter)
				}
			}
		}
	}
}

func timeEdges() []forgery {
	byOps := func(f func(*world)) func(*world) {
		return func(w *world) {
			f(w)
			w.manifest = func(m *upgrade.Manifest) { m.ProposedBy, m.KeyID = "ops", keyID("ops") }
		}
	}
	return []forgery{
		{"approval 300 s before its manifest", quorumFile, approvalAt(3600, 3900), valid},
		{"approval 301 s before its manifest", quorumFile, approvalAt(3600, 3901), failure.TimeInvalid},
		{"approval 300 s ahead", quorumFile, approvalAt(3600, -300), valid},
		{"approval 301 s ahead", quorumFile, approvalAt(3600, -301), failure.TimeInvalid},
		{"approval as old as the TTL", quorumFile, approvalAt(1209600, 1209600), valid},
		{"approval a second older", quorumFile, approvalAt(1209600, 1209601), failure.ApprovalStale},
		{"a short TTL of a test registry", quorumFile, func(w *world) {
			w.document = func(d *keyregistry.Document) { d.Rules.ApprovalTTLSeconds = 59 }
		}, failure.ApprovalStale},
		{"manifest 300 s ahead", quorumFile, approvalAt(-300, 0), valid},
		{"manifest 301 s ahead", quorumFile, approvalAt(-301, -1), failure.TimeInvalid},
		{"policy 300 s old", quorumFile, func(w *world) {
			w.decision = func(d *upgrade.PolicyDecision) { d.EvaluatedAt = decided.Add(-300) }
		}, valid},
		{"decided in the registry's own second", quorumFile, func(w *world) {
			w.document = func(d *keyregistry.Document) { d.IssuedAt = decided }
		}, valid},
		{"approver's key ends at decidedAt", quorumFile, keyEnds("ryan", 0, 0), valid},
		{"approver's key ended a second before", quorumFile, keyEnds("ryan", 0, -1), failure.KeyOutsideValidity},
		{"requestor's key begins and ends at decidedAt", quorumFile, byOps(keyEnds("ops", 0, 0)), valid},
		{"requestor's key begins a second later", quorumFile, byOps(keyEnds("ops", 1, 1)), failure.KeyOutsideValidity},
		{"ci key at its one second", quorumFile, keyEnds("ci", 0, 0), valid},
		{"ci key a second too late", quorumFile, keyEnds("ci", -9, -1), failure.KeyOutsideValidity},
		{"record key at its one second", quorumFile, keyEnds("records", 0, 0), valid},
		{"record key a second too early", quorumFile, keyEnds("records", 1, 9), failure.KernelSignatureInvalid},
		{"trigger 900 s old", emergencyFile, triggerAt(-900), valid},
		{"trigger 901 s old", emergencyFile, triggerAt(-901), failure.TimeInvalid},
		{"trigger 300 s ahead", emergencyFile, triggerAt(300), valid},
		{"trigger 301 s ahead", emergencyFile, triggerAt(301), failure.TimeInvalid},
		{"ratified in the emergency's own second", ratifiedFile(0), func(*world) {}, valid},
		{"pre-approved in the upgrade's own second", preapprovedFile(0), func(*world) {}, valid},
		{"a short window of a test registry, kept", ratifiedFile(60), window(60), valid},
		{"a short window of a test registry, missed", ratifiedFile(61), window(60), failure.RatificationLate},
		{"ratification with approvals older than the emergency", ratifiedFile(120), func(w *world) {
			w.approval = func(_ string, a *upgrade.Approval) { a.ApprovalTs = decided.Add(-1200) }
		}, valid},
	}
}

func notes(text string) func(*world) {
	return func(w *world) {
		w.approval = func(id string, a *upgrade.Approval) {
			if id == "ryan" { // P-256: the filekey signer keeps to what an Ed25519 token could sign
				a.Notes = text
			}
		}
	}
}

func triggerAt(seconds int64) func(*world) {
	return func(w *world) {
		w.trigger = func(e *upgrade.EmergencyTrigger) { e.TriggeredAt = decided.Add(seconds) }
	}
}

func window(seconds int64) func(*world) {
	return func(w *world) {
		w.document = func(d *keyregistry.Document) { d.Rules.RatificationWindowSeconds = seconds }
	}
}

// soonAutomatic is an automatic rollback within the life of one event key.
func soonAutomatic(w *world) []byte {
	window(7200)(w)
	return automaticFile(1)(w)
}

func caseEdges() []forgery {
	undo := func(f func(*upgrade.Manifest)) func(*world) {
		return func(w *world) { w.undoManifest = f }
	}
	other := envelope.DigestOf([]byte("something else"))
	var list []forgery
	for name, b := range map[string]build{"automatic": soonAutomatic, "pre-approved": preapprovedFile(60)} {
		list = append(list,
			forgery{name + ": proposed by a person", b, undo(func(m *upgrade.Manifest) { m.ProposedBy, m.KeyID = "ryan", keyID("ryan") }), failure.RoleNotAllowed},
			forgery{name + ": no rollback", b, undo(func(m *upgrade.Manifest) {
				m.Type, m.Rollback, m.ProposedBy, m.KeyID = upgrade.TypeCode, nil, "ryan", keyID("ryan")
			}), failure.RoleNotAllowed},
			forgery{name + ": at another target", b, undo(func(m *upgrade.Manifest) { m.Target.Name = "db" }), failure.BindingMismatch},
			forgery{name + ": of another upgrade", b, undo(func(m *upgrade.Manifest) { m.Rollback.UpgradeID = "0b7f1d5e-3c1a-4c57-9d0e-000000000099" }), failure.BindingMismatch},
			forgery{name + ": from another base", b, undo(func(m *upgrade.Manifest) { m.BaseRevision = upgrade.RevisionOf(other) }), failure.BindingMismatch},
			forgery{name + ": to another patch", b, undo(func(m *upgrade.Manifest) { m.PatchHash = other }), failure.BindingMismatch},
			forgery{name + ": its tests are waived", b, undo(func(m *upgrade.Manifest) { m.Preconditions.Tests = []string{"unit"} }), valid},
			forgery{name + ": signed with the audit key", b, func(w *world) {
				w.undoManifest = func(m *upgrade.Manifest) { m.KeyID = keyID("audit") }
				w.signManifest = "audit"
			}, failure.RoleNotAllowed},
			forgery{name + ": no testResults member", b, func(w *world) { w.bundle = func(b *upgrade.QuorumBundle) { b.TestResults = nil } }, failure.BundleMismatch},
			forgery{name + ": a test result", b, func(w *world) {
				w.bundle = func(b *upgrade.QuorumBundle) { b.TestResults = []envelope.Envelope{w.testResult()} }
			}, failure.BundleMismatch},
			forgery{name + ": an approval of its own", b, func(w *world) {
				w.bundle = func(b *upgrade.QuorumBundle) { b.Approvals = []envelope.Envelope{b.Manifest} }
			}, failure.BundleMismatch},
		)
	}
	nested := func(name string, want failure.Class, f func(*upgrade.Nested)) forgery {
		return forgery{"nested: " + name, preapprovedFile(60), func(w *world) {
			w.bundle = func(b *upgrade.QuorumBundle) { f(b.Preapproval) }
		}, want}
	}
	return append(list,
		nested("record of the outer key, another upgrade", failure.BundleMismatch, func(n *upgrade.Nested) { n.Record.Payload = append([]byte{}, n.QuorumBundle.Manifest.Payload...) }),
		nested("a signature bit of the record", failure.KernelSignatureInvalid, func(n *upgrade.Nested) {
			n.Record.Signatures = slices.Clone(n.Record.Signatures)
			n.Record.Signatures[0].Sig = slices.Clone(n.Record.Signatures[0].Sig)
			n.Record.Signatures[0].Sig[20] ^= 1
		}),
		nested("an approval left out", failure.QuorumNotMet, func(n *upgrade.Nested) {
			n.QuorumBundle.Approvals, n.QuorumBundle.Quorum.Approvers = n.QuorumBundle.Approvals[:2], n.QuorumBundle.Quorum.Approvers[:2]
		}),
		nested("its policy denied", failure.PolicyDenied, func(n *upgrade.Nested) {
			d := *n.QuorumBundle.PolicyDecision
			d.Allow = false
			n.QuorumBundle.PolicyDecision = &d
		}),
		nested("its tests left out", failure.TestsNotMet, func(n *upgrade.Nested) { n.QuorumBundle.TestResults = []envelope.Envelope{} }),
		forgery{"pre-approved: policy denies", preapprovedFile(60), func(w *world) {
			w.bundle = func(b *upgrade.QuorumBundle) { b.PolicyDecision.Allow = false }
		}, failure.PolicyDenied},
		forgery{"pre-approved: policy left out", preapprovedFile(60), func(w *world) {
			w.bundle = func(b *upgrade.QuorumBundle) { b.PolicyDecision = nil }
		}, failure.BundleMismatch},
		forgery{"pre-approved: by three of five", preapprovedFile(60), func(w *world) {
			w.approvers = []string{"divlead-1", "divlead-2", "ryan", "sec-eng", "tech-lead"}
			w.approval = func(id string, a *upgrade.Approval) { a.RollbackPreapproved = id != "ryan" && id != "divlead-2" }
			w.bundle = func(b *upgrade.QuorumBundle) { b.Quorum.Approvers = []envelope.ID{"divlead-1", "sec-eng", "tech-lead"} }
		}, valid},
		forgery{"pre-approved: all approvers named, three of five marked", preapprovedFile(60), func(w *world) {
			w.approvers = []string{"divlead-1", "divlead-2", "ryan", "sec-eng", "tech-lead"}
			w.approval = func(id string, a *upgrade.Approval) { a.RollbackPreapproved = id != "ryan" && id != "divlead-2" }
		}, failure.BundleMismatch},
		forgery{"pre-approved: canary failed at another upgrade", preapprovedFile(60), func(w *world) {
			w.event = func(e *auditlog.Event) {
				if e.Type == auditlog.UpgradeCanaryFailed {
					e.UpgradeID = undoID
				}
			}
		}, failure.AuditProofInvalid},
		forgery{"automatic: of an emergency of type rollback", soonAutomatic, func(w *world) {
			w.manifest = func(m *upgrade.Manifest) {
				m.Type, m.Rollback = upgrade.TypeRollback, &upgrade.Rollback{Reason: "r", UpgradeID: "0b7f1d5e-3c1a-4c57-9d0e-000000000077"}
			}
		}, failure.EmergencyNotAllowed},
		forgery{"automatic: its emergency has a forged trigger", soonAutomatic, func(w *world) { w.signAs["sec-eng"] = "outsider" }, failure.BindingMismatch},
		forgery{"emergency of type rollback", emergencyFile, func(w *world) {
			w.manifest = func(m *upgrade.Manifest) {
				m.Type, m.Rollback = upgrade.TypeRollback, &upgrade.Rollback{Reason: "r", UpgradeID: undoID}
			}
		}, valid},
		forgery{"emergency by the superadmin", emergencyFile, func(w *world) {
			w.trigger = func(e *upgrade.EmergencyTrigger) { e.TriggeredBy, e.KeyID = "ryan", keyID("ryan") }
		}, valid},
		forgery{"emergency with a test result", emergencyFile, func(w *world) {
			w.bundle = func(b *upgrade.QuorumBundle) { b.TestResults = []envelope.Envelope{w.testResult()} }
		}, failure.BundleMismatch},
		forgery{"ratified by five", ratifiedFile(60), func(w *world) {
			w.approvers = []string{"divlead-1", "divlead-2", "ryan", "sec-eng", "tech-lead"}
		}, valid},
		forgery{"ratified by the proposer, duties separate", ratifiedFile(60), func(w *world) {
			w.approvers = []string{"ryan", "sec-eng", "tech-lead"}
			w.document = func(d *keyregistry.Document) { d.Rules.SeparationOfDuties = true }
		}, failure.RoleNotAllowed},
		forgery{"duties separate, others approve", quorumFile, func(w *world) {
			w.document = func(d *keyregistry.Document) { d.Rules.SeparationOfDuties = true }
		}, valid},
		forgery{"a rollback by the Kernel, approved by people", quorumFile, func(w *world) {
			w.manifest = func(m *upgrade.Manifest) {
				m.Type, m.Rollback = upgrade.TypeRollback, &upgrade.Rollback{Reason: "r", UpgradeID: undoID}
				m.ProposedBy, m.KeyID = upgrade.KernelID, keyID("records")
			}
		}, valid},
		forgery{"the pinned policy", quorumFile, func(w *world) {
			w.document = func(d *keyregistry.Document) { d.Rules.PolicyDigest = &policy }
		}, valid},
		forgery{"emergency: not the pinned policy", emergencyFile, func(w *world) {
			w.document = func(d *keyregistry.Document) { d.Rules.PolicyDigest = &other }
		}, failure.PolicyDenied},
		forgery{"pre-approved: not the pinned policy", preapprovedFile(60), func(w *world) {
			w.document = func(d *keyregistry.Document) { d.Rules.PolicyDigest = &policy }
			w.bundle = func(b *upgrade.QuorumBundle) { b.PolicyDecision.PolicyDigest = other }
		}, failure.PolicyDenied},
	)
}

func fieldEdges() []forgery {
	m := func(name string, want failure.Class, f func(*upgrade.Manifest)) forgery {
		return forgery{"manifest: " + name, quorumFile, func(w *world) { w.manifest = f }, want}
	}
	test := func(name string, want failure.Class, old, new string) forgery {
		return forgery{"test result: " + name, quorumFile, func(w *world) { w.test = strings.Replace(w.test, old, new, 1) }, want}
	}
	many := func(n int) []string {
		list := make([]string, n)
		for i := range list {
			list[i] = strings.Repeat("c", 80)
		}
		return list
	}
	const bad = failure.FieldInvalid
	config := `"configuration":[{"name":"unit"}]`
	return []forgery{
		m("rationale of 4000 code points", valid, func(m *upgrade.Manifest) { m.Rationale = strings.Repeat("𝄞", 4000) }),
		m("64 components of 80", valid, func(m *upgrade.Manifest) { m.Impact.Components = many(64) }),
		m("65 components", bad, func(m *upgrade.Manifest) { m.Impact.Components = many(65) }),
		m("a component of 81", bad, func(m *upgrade.Manifest) { m.Impact.Components = []string{strings.Repeat("c", 81)} }),
		m("an empty component", bad, func(m *upgrade.Manifest) { m.Impact.Components = []string{""} }),
		m("downtime of 401", bad, func(m *upgrade.Manifest) { m.Impact.Downtime = strings.Repeat("d", 401) }),
		m("downtime empty", bad, func(m *upgrade.Manifest) { m.Impact.Downtime = "" }),
		m("cost at 2^53-1", valid, func(m *upgrade.Manifest) { m.Impact.Cost = &upgrade.Cost{Currency: "EUR", MinorUnits: envelope.MaxInt} }),
		m("currency of four", bad, func(m *upgrade.Manifest) { m.Impact.Cost = &upgrade.Cost{Currency: "EURO"} }),
		m("commit of 64", valid, func(m *upgrade.Manifest) { m.Target.Commit = strings.Repeat("ab", 32) }),
		m("commit of 41", bad, func(m *upgrade.Manifest) { m.Target.Commit += "0" }),
		m("commit in capitals", bad, func(m *upgrade.Manifest) { m.Target.Commit = strings.ToUpper(m.Target.Commit) }),
		m("path of 401", bad, func(m *upgrade.Manifest) { m.Target.Path = strings.Repeat("p", 401) }),
		m("no path", bad, func(m *upgrade.Manifest) { m.Target.Path = "" }),
		m("a manifestId instead", valid, func(m *upgrade.Manifest) { m.Target = upgrade.Target{Name: "web", ManifestID: "m"} }),
		m("manifestId of 201", bad, func(m *upgrade.Manifest) {
			m.Target = upgrade.Target{Name: "web", ManifestID: strings.Repeat("m", 201)}
		}),
		m("65 tests", bad, func(m *upgrade.Manifest) { m.Preconditions.Tests = many(65) }),
		m("quorum of four", bad, func(m *upgrade.Manifest) { m.Preconditions.Approvals = 4 }),
		m("rationale with U+0085", bad, func(m *upgrade.Manifest) { m.Rationale = "a\u0085" }),
		m("rationale with U+061C", bad, func(m *upgrade.Manifest) { m.Rationale = "a\u061c" }),
		m("rationale with U+2069", bad, func(m *upgrade.Manifest) { m.Rationale = "a\u2069" }),
		m("rationale with U+2065 and newline", valid, func(m *upgrade.Manifest) { m.Rationale = "a\u2065\n\tb" }),
		m("payload over 64 KiB", failure.EnvelopeMalformed, func(m *upgrade.Manifest) { m.Rationale = strings.Repeat("x", 65<<10) }),
		test("WARNED", valid, "PASSED", "WARNED"),
		test("in small letters", bad, "PASSED", "passed"),
		test("the subject's name, no configuration", valid, `"release"`, `"unit"`),
		test("named by an empty configuration's subject", failure.TestsNotMet, config, `"configuration":[]`),
		test("the second configuration's name", failure.TestsNotMet, config, `"configuration":[{"name":"load"},{"name":"unit"}]`),
		test("a configuration without name", bad, config, `"configuration":[{"uri":"x"}]`),
		test("another predicate type", bad, "test-result/v0.1", "test-result/v0.2"),
		test("Statement v0.1", bad, "Statement/v1", "Statement/v0.1"),
		test("no subject", bad, `"subject":[{"name":"release","digest":{"sha256":"`+patch.Hex()+`"}}]`, `"subject":[]`),
		test("another digest beside", valid, `{"sha256":`, `{"sha512":"00","sha256":`),
		test("two values", failure.PayloadMalformed, `"seconds":1.5}}`, `"seconds":1.5}}{}`),
		test("over 64 KiB", failure.EnvelopeMalformed, `"seconds":1.5`, `"seconds":`+strings.Repeat("1", 65<<10)),
		{"violations that warn", quorumFile, func(w *world) {
			w.decision = func(d *upgrade.PolicyDecision) {
				d.Violations = []upgrade.Violation{{Rule: strings.Repeat("r", 120), Message: strings.Repeat("m", 1000)}}
			}
		}, valid},
		{"a violation without message", quorumFile, func(w *world) {
			w.decision = func(d *upgrade.PolicyDecision) { d.Violations = []upgrade.Violation{{Rule: "r"}} }
		}, bad},
		{"a rule of 121", quorumFile, func(w *world) {
			w.decision = func(d *upgrade.PolicyDecision) {
				d.Violations = []upgrade.Violation{{Rule: strings.Repeat("r", 121), Message: "m"}}
			}
		}, bad},
		{"engine of 81", quorumFile, func(w *world) {
			w.decision = func(d *upgrade.PolicyDecision) { d.Engine = strings.Repeat("e", 81) }
		}, bad},
		{"notes of 1000", quorumFile, notes(strings.Repeat("é", 1000)), valid},
		{"notes of 1001", quorumFile, notes(strings.Repeat("é", 1001)), bad},
		{"notes that turn their direction", quorumFile, notes("a\u202eb"), bad},
		{"five approvals", quorumFile, func(w *world) {
			w.approvers = []string{"divlead-1", "divlead-2", "ryan", "sec-eng", "tech-lead"}
		}, valid},
		{"approval by a requestor", quorumFile, func(w *world) {
			w.approvers = []string{"divlead-1", "ops", "ryan", "sec-eng"}
		}, failure.RoleNotAllowed},
		{"approval by the Kernel", quorumFile, func(w *world) {
			w.approvers = []string{"divlead-1", "records", "ryan", "sec-eng"}
			w.approval = func(id string, a *upgrade.Approval) {
				if id == "records" {
					a.ApproverID = upgrade.KernelID
				}
			}
		}, failure.RoleNotAllowed},
		{"approval by a stranger", quorumFile, func(w *world) {
			w.approvers = []string{"divlead-1", "outsider", "ryan", "sec-eng"}
		}, failure.KeyUnknown},
	}
}

// A bundle file has at most 16 MiB. What is not looked at fills it here.
func TestFileAtItsLimit(t *testing.T) {
	w := newWorld(t)
	var f *upgrade.File
	w.file = func(made *upgrade.File) { f = made }
	quorumFile(w)
	sized := func(n int) []byte {
		f.Audit = []byte(`{"x":""}`)
		f.Audit = []byte(`{"x":"` + strings.Repeat("x", n-len(must(envelope.Canonical(f))())) + `"}`)
		return must(envelope.Canonical(f))()
	}
	data := sized(upgrade.MaxBundle)
	if _, err := upgrade.VerifyFile(data, w.root, false); err != nil || len(data) != upgrade.MaxBundle {
		t.Errorf("%d bytes: %v", len(data), err)
	}
	data = sized(upgrade.MaxBundle + 1)
	if _, err := upgrade.VerifyFile(data, w.root, false); failure.ClassOf(err) != failure.PayloadMalformed {
		t.Errorf("%d bytes: %v", len(data), err)
	}
}
