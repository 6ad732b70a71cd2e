package upgrade_test

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// build makes one case's bundle file in a world that was registered.
type build func(w *world) []byte

func quorumFile(w *world) []byte {
	w.register()
	data, _ := w.pack(w.quorum())
	return data
}

func emergencyFile(w *world) []byte {
	w.register()
	data, _ := w.pack(w.emergency())
	return data
}

// ratifiedFile decides the ratification `after` seconds after the emergency.
func ratifiedFile(after int64) build {
	return func(w *world) []byte {
		w.register()
		hook := w.bundle
		w.bundle = nil
		_, f := w.pack(w.emergency())
		w.bundle, w.decidedAt = hook, w.decidedAt.Add(after)
		w.ratify(f)
		return w.finish(f)
	}
}

// automaticFile decides the rollback `after` seconds after ratifyBy.
func automaticFile(after int64) build {
	return func(w *world) []byte {
		w.register()
		e := w.emergency()
		nested := &upgrade.Nested{QuorumBundle: e, Record: w.record(&e)}
		w.decidedAt = w.decidedAt.Add(w.regs.Last().Rules().RatificationWindowSeconds + after)
		b := w.undo(nil)
		b.PolicyDecision, b.Emergency = nil, nested
		data, _ := w.pack(b)
		return data
	}
}

func preapprovedFile(after int64) build {
	return func(w *world) []byte {
		w.register()
		q := w.quorum()
		nested := &upgrade.Nested{QuorumBundle: q, Record: w.record(&q)}
		w.decidedAt = w.decidedAt.Add(after)
		b := w.undo(nil)
		b.Preapproval = nested
		for _, a := range w.approvers {
			b.Quorum.Approvers = append(b.Quorum.Approvers, envelope.ID(a))
		}
		w.extraEvents = []auditlog.Event{{Type: auditlog.UpgradeCanaryFailed, UpgradeID: upgradeID, Time: decided.Add(1)}}
		data, _ := w.pack(b)
		return data
	}
}

// write makes the examples anew that kgverify is tested with. Their keys are
// forgotten at the end of the run.
var write = flag.String("write", "", "directory to write the valid bundle files to")

func writeExample(t *testing.T, name string, w *world, data []byte) {
	t.Helper()
	if *write == "" {
		return
	}
	name = filepath.Join(*write, strings.NewReplacer(" ", "-", ",", "").Replace(name))
	for suffix, content := range map[string][]byte{".bundle.json": data, ".root.txt": []byte(w.root.String() + "\n")} {
		if err := os.WriteFile(name+suffix, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestValidFiles(t *testing.T) {
	for name, c := range map[string]struct {
		build build
		want  upgrade.Case
	}{
		"quorum":                      {quorumFile, upgrade.CaseQuorum},
		"emergency":                   {emergencyFile, upgrade.CaseEmergency},
		"ratified emergency":          {ratifiedFile(7200), upgrade.CaseEmergency},
		"ratified at the last moment": {ratifiedFile(172800), upgrade.CaseEmergency},
		"automatic rollback":          {automaticFile(1), upgrade.CaseAutomatic},
		"pre-approved rollback":       {preapprovedFile(3600), upgrade.CasePreapproved},
		"pre-approved, last moment":   {preapprovedFile(86400), upgrade.CasePreapproved},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			data := c.build(w)
			writeExample(t, name, w, data)
			v, err := upgrade.VerifyFile(data, w.root, true)
			if err != nil {
				t.Fatal(err)
			}
			if v.Case != c.want {
				t.Errorf("case is %s, not %s", v.Case, c.want)
			}
		})
	}
}

// forgery breaks one sentence of PROTOCOL. Accept or refuse is normative; the
// class is what we name first.
type forgery struct {
	name  string
	build build
	spoil func(*world)
	want  failure.Class
}

func TestForgedFiles(t *testing.T) {
	for _, f := range forgeries() {
		t.Run(f.name, func(t *testing.T) {
			w := newWorld(t)
			f.spoil(w)
			_, err := upgrade.VerifyFile(f.build(w), w.root, true)
			if err == nil {
				t.Fatal("accepted")
			}
			if got := failure.ClassOf(err); got != f.want {
				t.Errorf("class is %s, not %s: %v", got, f.want, err)
			}
		})
	}
}

func forgeries() []forgery {
	manifest := func(name string, want failure.Class, f func(*upgrade.Manifest)) forgery {
		return forgery{"manifest: " + name, quorumFile, func(w *world) { w.manifest = f }, want}
	}
	approval := func(name string, want failure.Class, f func(*upgrade.Approval)) forgery {
		return forgery{"approval: " + name, quorumFile, func(w *world) {
			w.approval = func(id string, a *upgrade.Approval) {
				if id == "ryan" {
					f(a)
				}
			}
		}, want}
	}
	decision := func(name string, want failure.Class, f func(*upgrade.PolicyDecision)) forgery {
		return forgery{"policy: " + name, quorumFile, func(w *world) { w.decision = f }, want}
	}
	trigger := func(name string, want failure.Class, f func(*upgrade.EmergencyTrigger)) forgery {
		return forgery{"trigger: " + name, emergencyFile, func(w *world) { w.trigger = f }, want}
	}
	bundle := func(name string, b build, want failure.Class, f func(*upgrade.QuorumBundle)) forgery {
		return forgery{"bundle: " + name, b, func(w *world) { w.bundle = f }, want}
	}
	record := func(name string, f func(*upgrade.AppliedPredicate)) forgery {
		return forgery{"record: " + name, quorumFile, func(w *world) { w.predicate = f }, failure.BundleMismatch}
	}
	event := func(name string, want failure.Class, f func(*auditlog.Event)) forgery {
		return forgery{"event: " + name, quorumFile, func(w *world) { w.event = f }, want}
	}
	audit := func(name string, want failure.Class, f func(*upgrade.AuditProof)) forgery {
		return forgery{"audit: " + name, quorumFile, func(w *world) { w.audit = f }, want}
	}
	file := func(name string, want failure.Class, f func(*upgrade.File)) forgery {
		return forgery{"file: " + name, quorumFile, func(w *world) { w.file = f }, want}
	}
	swap := func(name, who, with string, b build, want failure.Class) forgery {
		return forgery{name, b, func(w *world) { w.signAs[who] = with }, want}
	}
	other := envelope.DigestOf([]byte("something else"))
	return []forgery{
		manifest("of another Kernel", failure.BindingMismatch, func(m *upgrade.Manifest) { m.KernelID = "other" }),
		manifest("by a CI system", failure.RoleNotAllowed, func(m *upgrade.Manifest) { m.ProposedBy, m.KeyID = "ci", keyID("ci") }),
		manifest("by the Kernel, no rollback", failure.RoleNotAllowed, func(m *upgrade.Manifest) { m.ProposedBy, m.KeyID = "kernel", keyID("records") }),
		manifest("too far ahead", failure.TimeInvalid, func(m *upgrade.Manifest) { m.Timestamp = decided.Add(301) }),
		manifest("quorum of two", failure.FieldInvalid, func(m *upgrade.Manifest) { m.Preconditions.Approvals = 2 }),
		manifest("a test twice", failure.FieldInvalid, func(m *upgrade.Manifest) { m.Preconditions.Tests = []string{"unit", "unit"} }),
		manifest("more tests than results", failure.TestsNotMet, func(m *upgrade.Manifest) { m.Preconditions.Tests = []string{"unit", "load"} }),
		manifest("another test", failure.TestsNotMet, func(m *upgrade.Manifest) { m.Preconditions.Tests = []string{"load"} }),
		manifest("no components", failure.FieldInvalid, func(m *upgrade.Manifest) { m.Impact.Components = nil }),
		manifest("currency in lower case", failure.FieldInvalid, func(m *upgrade.Manifest) { m.Impact.Cost = &upgrade.Cost{Currency: "eur"} }),
		manifest("negative cost", failure.FieldInvalid, func(m *upgrade.Manifest) { m.Impact.Cost = &upgrade.Cost{Currency: "EUR", MinorUnits: -1} }),
		manifest("two kinds of target", failure.FieldInvalid, func(m *upgrade.Manifest) { m.Target.ManifestID = "x" }),
		manifest("a short commit", failure.FieldInvalid, func(m *upgrade.Manifest) { m.Target.Commit = "0123456" }),
		manifest("unknown type", failure.FieldInvalid, func(m *upgrade.Manifest) { m.Type = "config" }),
		manifest("a rollback without what", failure.FieldInvalid, func(m *upgrade.Manifest) { m.Type = upgrade.TypeRollback }),
		manifest("a rollback member in code", failure.FieldInvalid, func(m *upgrade.Manifest) { m.Rollback = &upgrade.Rollback{Reason: "r", UpgradeID: undoID} }),
		manifest("a rollback to nothing", failure.FieldInvalid, func(m *upgrade.Manifest) {
			m.Type, m.BaseRevision, m.Rollback = upgrade.TypeRollback, upgrade.None, &upgrade.Rollback{Reason: "r", UpgradeID: undoID}
		}),
		manifest("text turned around", failure.FieldInvalid, func(m *upgrade.Manifest) { m.Rationale = "safe\u202e" }),
		manifest("text too long", failure.FieldInvalid, func(m *upgrade.Manifest) { m.Rationale = strings.Repeat("é", 4001) }),
		manifest("keyId of another", failure.BindingMismatch, func(m *upgrade.Manifest) { m.KeyID = keyID("ryan") }),
		swap("manifest: key of another", "tech-lead", "ryan", quorumFile, failure.BindingMismatch),

		approval("of another upgrade", failure.BindingMismatch, func(a *upgrade.Approval) { a.UpgradeID = undoID }),
		approval("of another Kernel", failure.BindingMismatch, func(a *upgrade.Approval) { a.KernelID = "other" }),
		approval("of another manifest", failure.BindingMismatch, func(a *upgrade.Approval) { a.ManifestDigest = other }),
		approval("of another patch", failure.BindingMismatch, func(a *upgrade.Approval) { a.PatchHash = other }),
		approval("under another registry", failure.BindingMismatch, func(a *upgrade.Approval) { a.RegistryDigest = other }),
		approval("stale by a second", failure.TimeInvalid, func(a *upgrade.Approval) { a.ApprovalTs = decided.Add(-1209601) }),
		approval("before the manifest", failure.TimeInvalid, func(a *upgrade.Approval) { a.ApprovalTs = decided.Add(-3600 - 301) }),
		approval("ahead", failure.TimeInvalid, func(a *upgrade.Approval) { a.ApprovalTs = decided.Add(301) }),
		approval("keyId of another", failure.BindingMismatch, func(a *upgrade.Approval) { a.KeyID = keyID("tech-lead") }),
		approval("in another's name", failure.KeyNotOfPerson, func(a *upgrade.Approval) { a.ApproverID = "tech-lead" }),
		approval("notes too long", failure.FieldInvalid, func(a *upgrade.Approval) { a.Notes = strings.Repeat("x", 1001) }),
		swap("approval: signed by another", "ryan", "tech-lead", quorumFile, failure.BindingMismatch),
		{"approval: stale", quorumFile, func(w *world) {
			w.manifest = func(m *upgrade.Manifest) { m.Timestamp = decided.Add(-1300000) }
			w.document = func(d *keyregistry.Document) { d.IssuedAt = when("2026-02-01T00:00:00Z") }
			w.approval = func(_ string, a *upgrade.Approval) { a.ApprovalTs = decided.Add(-1209601) }
		}, failure.ApprovalStale},
		{"approvals: two", quorumFile, func(w *world) { w.approvers = []string{"ryan", "sec-eng"} }, failure.QuorumNotMet},
		{"approvals: one person thrice", quorumFile, func(w *world) { w.approvers = []string{"ryan", "ryan", "ryan"} }, failure.DuplicatePerson},
		{"approvals: one person with two keys", quorumFile, func(w *world) {
			w.document = func(d *keyregistry.Document) {
				for i := range d.Approvers {
					if a := &d.Approvers[i]; a.ID == "ryan" {
						a.Keys = append(a.Keys, entryOf("ryan-2"))
						if a.Keys[0].KeyID > a.Keys[1].KeyID {
							a.Keys[0], a.Keys[1] = a.Keys[1], a.Keys[0]
						}
					}
				}
			}
			w.approvers = []string{"divlead-1", "ryan", "ryan-2"}
			w.approval = func(_ string, a *upgrade.Approval) {
				if a.ApproverID == "ryan-2" {
					a.ApproverID = "ryan"
				}
			}
		}, failure.DuplicatePerson},
		{"approvals: unsorted", quorumFile, func(w *world) { w.approvers = []string{"sec-eng", "ryan", "divlead-1"} }, failure.BundleMismatch},
		{"approvals: the proposer's, duties separate", quorumFile, func(w *world) {
			w.approvers = []string{"ryan", "sec-eng", "tech-lead"}
			w.document = func(d *keyregistry.Document) { d.Rules.SeparationOfDuties = true }
		}, failure.RoleNotAllowed},
		{"approvals: key not yet valid", quorumFile, func(w *world) {
			w.document = func(d *keyregistry.Document) { d.Approvers[2].Keys[0].NotAfter = decided.Add(-1) }
		}, failure.KeyOutsideValidity},
		{"proposer's key expired", quorumFile, func(w *world) {
			w.document = func(d *keyregistry.Document) { d.Approvers[4].Keys[0].NotAfter = decided.Add(-1) }
		}, failure.KeyOutsideValidity},
		{"record key expired", quorumFile, func(w *world) {
			w.document = func(d *keyregistry.Document) { d.Kernel.Records[0].NotAfter = decided.Add(-1) }
		}, failure.KernelSignatureInvalid},
		{"decided before the registry", quorumFile, func(w *world) {
			w.document = func(d *keyregistry.Document) { d.IssuedAt = decided.Add(1) }
		}, failure.TimeInvalid},

		decision("denies", failure.PolicyDenied, func(d *upgrade.PolicyDecision) { d.Allow = false }),
		decision("too old", failure.TimeInvalid, func(d *upgrade.PolicyDecision) { d.EvaluatedAt = decided.Add(-301) }),
		decision("later", failure.TimeInvalid, func(d *upgrade.PolicyDecision) { d.EvaluatedAt = decided.Add(1) }),
		decision("of another upgrade", failure.BundleMismatch, func(d *upgrade.PolicyDecision) { d.UpgradeID = undoID }),
		decision("of another manifest", failure.BundleMismatch, func(d *upgrade.PolicyDecision) { d.ManifestDigest = other }),
		decision("unknown action", failure.FieldInvalid, func(d *upgrade.PolicyDecision) { d.OnCanaryFailure = "ignore" }),
		decision("no engine", failure.FieldInvalid, func(d *upgrade.PolicyDecision) { d.Engine = "" }),
		{"policy: not the pinned one", quorumFile, func(w *world) {
			w.document = func(d *keyregistry.Document) { d.Rules.PolicyDigest = &other }
		}, failure.PolicyDenied},

		{"test: failed", quorumFile, func(w *world) { w.test = strings.Replace(w.test, "PASSED", "FAILED", 1) }, failure.TestsNotMet},
		{"test: of another patch", quorumFile, func(w *world) { w.test = strings.Replace(w.test, patch.Hex(), base.Hex(), 1) }, failure.BindingMismatch},
		{"test: hex in upper case", quorumFile, func(w *world) { w.test = strings.Replace(w.test, patch.Hex(), strings.ToUpper(patch.Hex()), 1) }, failure.FieldInvalid},
		{"test: two subjects", quorumFile, func(w *world) {
			w.test = strings.Replace(w.test, `"subject":[`, `"subject":[{"name":"x","digest":{"sha256":"`+patch.Hex()+`"}},`, 1)
		}, failure.FieldInvalid},
		{"test: duplicate name", quorumFile, func(w *world) {
			w.test = strings.Replace(w.test, `"result":"PASSED"`, `"result":"PASSED","result":"PASSED"`, 1)
		}, failure.PayloadMalformed},
		{"test: other letter case", quorumFile, func(w *world) { w.test = strings.Replace(w.test, `"result":`, `"RESULT":`, 1) }, failure.FieldInvalid},
		{"test: BOM", quorumFile, func(w *world) { w.test = "\ufeff" + w.test }, failure.PayloadMalformed},
		{"test: nested too deep", quorumFile, func(w *world) {
			w.test = strings.Replace(w.test, `"seconds":1.5`, `"seconds":`+strings.Repeat("[", 15)+strings.Repeat("]", 15), 1)
		}, failure.PayloadMalformed},
		swap("test: by an approver", "ci", "ryan", quorumFile, failure.RoleNotAllowed),

		trigger("by another role", failure.RoleNotAllowed, func(e *upgrade.EmergencyTrigger) { e.TriggeredBy, e.KeyID = "tech-lead", keyID("tech-lead") }),
		trigger("too old", failure.TimeInvalid, func(e *upgrade.EmergencyTrigger) { e.TriggeredAt = decided.Add(-901) }),
		trigger("ahead", failure.TimeInvalid, func(e *upgrade.EmergencyTrigger) { e.TriggeredAt = decided.Add(301) }),
		trigger("of another patch", failure.BindingMismatch, func(e *upgrade.EmergencyTrigger) { e.PatchHash = other }),
		trigger("without reason", failure.FieldInvalid, func(e *upgrade.EmergencyTrigger) { e.Reason = "" }),
		{"emergency: nothing to go back to", emergencyFile, func(w *world) { w.manifest = func(m *upgrade.Manifest) { m.BaseRevision = upgrade.None } }, failure.EmergencyNotAllowed},
		{"emergency: policy denies", emergencyFile, func(w *world) { w.decision = func(d *upgrade.PolicyDecision) { d.Allow = false } }, failure.PolicyDenied},
		bundle("emergency without policy", emergencyFile, failure.BundleMismatch, func(b *upgrade.QuorumBundle) { b.PolicyDecision = nil }),
		bundle("emergency with approvers", emergencyFile, failure.BundleMismatch, func(b *upgrade.QuorumBundle) { b.Quorum.Approvers = []envelope.ID{"ryan"} }),
		bundle("approvers beside approvals", quorumFile, failure.BundleMismatch, func(b *upgrade.QuorumBundle) { b.Quorum.Approvers = append(b.Quorum.Approvers, "tech-lead") }),
		bundle("quorum of another upgrade", quorumFile, failure.BundleMismatch, func(b *upgrade.QuorumBundle) { b.Quorum.UpgradeID = undoID }),
		bundle("unknown registry", quorumFile, failure.RegistryChainBroken, func(b *upgrade.QuorumBundle) { b.Quorum.RegistryDigest = other }),
		bundle("no test results", quorumFile, failure.BundleMismatch, func(b *upgrade.QuorumBundle) { b.TestResults = nil }),
		bundle("no approvals at all", quorumFile, failure.QuorumNotMet, func(b *upgrade.QuorumBundle) {
			b.Approvals, b.Quorum.Approvers = []envelope.Envelope{}, []envelope.ID{}
		}),

		{"ratification: late", ratifiedFile(172801), func(*world) {}, failure.RatificationLate},
		{"ratification: before", ratifiedFile(-1), func(*world) {}, failure.TimeInvalid},
		{"ratification: two approvals", ratifiedFile(60), func(w *world) { w.approvers = w.approvers[:2] }, failure.QuorumNotMet},
		bundle("ratification with a policy decision", ratifiedFile(60), failure.BundleMismatch, func(b *upgrade.QuorumBundle) {
			b.PolicyDecision = &upgrade.PolicyDecision{Allow: true, Engine: "x", KernelID: kernelID, OnCanaryFailure: "rollback", UpgradeID: undoID}
		}),
		{"ratification: of no emergency", func(w *world) []byte {
			w.register()
			_, f := w.pack(w.quorum())
			w.ratify(f)
			return w.finish(f)
		}, func(*world) {}, failure.EmergencyNotAllowed},

		{"automatic: not yet due", automaticFile(0), func(*world) {}, failure.NotYetDue},
		bundle("automatic with a policy decision", automaticFile(1), failure.BundleMismatch, func(b *upgrade.QuorumBundle) {
			b.PolicyDecision = &upgrade.PolicyDecision{Allow: true, Engine: "x", KernelID: kernelID, OnCanaryFailure: "rollback", UpgradeID: undoID}
		}),
		{"pre-approved: a day and a second", preapprovedFile(86401), func(*world) {}, failure.TimeInvalid},
		{"pre-approved: before", preapprovedFile(-1), func(*world) {}, failure.TimeInvalid},
		{"pre-approved: by two", preapprovedFile(60), func(w *world) {
			w.approval = func(id string, a *upgrade.Approval) { a.RollbackPreapproved = id != "ryan" }
		}, failure.QuorumNotMet},
		bundle("pre-approved in others' names", preapprovedFile(60), failure.BundleMismatch, func(b *upgrade.QuorumBundle) { b.Quorum.Approvers[0] = "divlead-2" }),
		bundle("of two cases", preapprovedFile(60), failure.BundleMismatch, func(b *upgrade.QuorumBundle) { b.Emergency = b.Preapproval }),
		bundle("an emergency as pre-approval", preapprovedFile(60), failure.BundleMismatch, func(b *upgrade.QuorumBundle) { b.Preapproval.QuorumBundle.EmergencyTrigger = &b.Manifest }),

		{"rollback: with the upgradeId that it takes back, pre-approved", preapprovedFile(60), func(w *world) { w.undoID = upgradeID }, failure.FieldInvalid},
		{"rollback: with the upgradeId that it takes back, automatic", automaticFile(1), func(w *world) { w.undoID = upgradeID }, failure.FieldInvalid},
		manifest("a rollback of itself", failure.FieldInvalid, func(m *upgrade.Manifest) {
			m.Type, m.Rollback = upgrade.TypeRollback, &upgrade.Rollback{Reason: "r", UpgradeID: m.UpgradeID}
		}),
		{"emergency: ratifyBy after the year 9999", emergencyFile, func(w *world) {
			w.decidedAt = when("9999-12-31T12:00:00Z")
			w.trigger = func(e *upgrade.EmergencyTrigger) { e.TriggeredAt = w.decidedAt }
			w.document = func(d *keyregistry.Document) {
				end := when("9999-12-31T23:59:59Z")
				for i := range d.Approvers {
					d.Approvers[i].Keys[0].NotAfter = end
				}
				d.Kernel.Records[0].NotAfter, d.Kernel.Audit[0].NotAfter = end, end
			}
		}, failure.TimeInvalid},
		record("approvers", func(p *upgrade.AppliedPredicate) { p.Approvers = p.Approvers[:2] }),
		record("base", func(p *upgrade.AppliedPredicate) { p.BaseRevision = upgrade.None }),
		record("patch", func(p *upgrade.AppliedPredicate) { p.PatchHash = other }),
		record("bundle", func(p *upgrade.AppliedPredicate) { p.BundleDigest = other }),
		record("registry", func(p *upgrade.AppliedPredicate) { p.RegistryDigest = other }),
		record("time", func(p *upgrade.AppliedPredicate) { p.DecidedAt = p.DecidedAt.Add(1) }),
		record("emergency", func(p *upgrade.AppliedPredicate) { p.Emergency = true }),
		record("ratifyBy", func(p *upgrade.AppliedPredicate) { p.RatifyBy = &p.DecidedAt }),
		record("automatic", func(p *upgrade.AppliedPredicate) { p.Automatic = upgrade.CaseAutomatic }),
		record("type", func(p *upgrade.AppliedPredicate) { p.Type = upgrade.TypePolicy }),
		swap("record: by the audit key", "records", "audit", quorumFile, failure.KernelSignatureInvalid),
		swap("record: by an approver", "records", "ryan", quorumFile, failure.KernelSignatureInvalid),
		swap("record: by a stranger", "records", "outsider", quorumFile, failure.KernelSignatureInvalid),

		event("of another bundle", failure.AuditProofInvalid, func(e *auditlog.Event) {
			if e.Type == auditlog.UpgradeApplying {
				e.Data = auditlog.Data{auditlog.DataBundleDigest: other.String()}
			}
		}),
		event("of another Kernel", failure.AuditProofInvalid, func(e *auditlog.Event) { e.KernelID = "other" }),
		event("of another type", failure.AuditProofInvalid, func(e *auditlog.Event) {
			if e.Type == auditlog.UpgradeApplying {
				e.Type = auditlog.UpgradeApplied
			}
		}),
		event("too late", failure.AuditProofInvalid, func(e *auditlog.Event) {
			if e.Type == auditlog.UpgradeApplying {
				e.Time = decided.Add(601)
			}
		}),
		event("of another seq", failure.AuditProofInvalid, func(e *auditlog.Event) { e.Seq += 5 }),
		{"event: key expired", quorumFile, func(w *world) {
			w.delegation = func(d *auditlog.Delegation) { d.NotAfter = decided }
		}, failure.AuditProofInvalid},
		swap("event: by another key", "event", "audit", quorumFile, failure.AuditProofInvalid),
		swap("delegation and checkpoint: by a records key's stranger", "audit", "event", quorumFile, failure.AuditProofInvalid),
		audit("no delegation", failure.AuditProofInvalid, func(p *upgrade.AuditProof) { p.Entries = p.Entries[1:] }),
		audit("no applying", failure.AuditProofInvalid, func(p *upgrade.AuditProof) { p.Entries = p.Entries[:1] }),
		audit("twice", failure.AuditProofInvalid, func(p *upgrade.AuditProof) { p.Entries = append(p.Entries, p.Entries[1]) }),
		audit("unsorted", failure.AuditProofInvalid, func(p *upgrade.AuditProof) { p.Entries[0], p.Entries[1] = p.Entries[1], p.Entries[0] }),
		audit("proof of another leaf", failure.AuditProofInvalid, func(p *upgrade.AuditProof) { p.Entries[1].Proof = p.Entries[0].Proof }),
		audit("short hash", failure.AuditProofInvalid, func(p *upgrade.AuditProof) { p.Entries[1].Proof[0] = p.Entries[1].Proof[0][:31] }),
		audit("beyond the tree", failure.AuditProofInvalid, func(p *upgrade.AuditProof) { p.Entries[1].Index = 7 }),
		audit("checkpoint of another size", failure.AuditProofInvalid, func(p *upgrade.AuditProof) { p.Checkpoint = strings.Replace(p.Checkpoint, "\n2\n", "\n3\n", 1) }),

		file("no audit", failure.AuditProofInvalid, func(f *upgrade.File) { f.Audit = nil }),
		file("audit null", failure.PayloadMalformed, func(f *upgrade.File) { f.Audit = []byte("null") }),
		file("media type", failure.BundleMismatch, func(f *upgrade.File) { f.MediaType = "application/json" }),
		file("no registry", failure.RegistryRootMismatch, func(f *upgrade.File) { f.Registry = nil }),
		file("registry twice", failure.RegistryChainBroken, func(f *upgrade.File) { f.Registry = append(f.Registry, f.Registry[0]) }),
		file("record with two signatures", failure.EnvelopeMalformed, func(f *upgrade.File) {
			f.AppliedRecord.Signatures = append(f.AppliedRecord.Signatures, f.QuorumBundle.Manifest.Signatures[0])
		}),
		file("record of another type", failure.WrongPayloadType, func(f *upgrade.File) { f.AppliedRecord.PayloadType = envelope.TypeApproval }),
		file("another registry signature", failure.RegistryThresholdNotMet, func(f *upgrade.File) {
			f.Registry[0].Statement.Signatures = f.Registry[0].Statement.Signatures[:4]
		}),
		file("a webauthn member on a token's key", failure.WebAuthnInvalid, func(f *upgrade.File) {
			f.QuorumBundle.Manifest.Signatures[0].WebAuthn = &envelope.WebAuthn{AuthenticatorData: []byte{1}, ClientDataJSON: []byte{1}}
		}),
	}
}

// Every byte of a bundle file counts: none can be changed unnoticed.
func TestNoByteIsFree(t *testing.T) {
	w := newWorld(t)
	data := quorumFile(w)
	for i := 0; i < len(data); i += 11 {
		changed := bytes.Clone(data)
		changed[i] ^= 1
		if _, err := upgrade.VerifyFile(changed, w.root, true); err == nil {
			t.Fatalf("a change of byte %d is accepted: %s", i, changed[max(0, i-40):min(len(changed), i+20)])
		}
	}
	for _, appended := range []string{"\n", " ", "x", "{}"} {
		if _, err := upgrade.VerifyFile([]byte(string(data)+appended), w.root, true); err == nil {
			t.Fatalf("%q behind the file is accepted", appended)
		}
	}
	if _, err := upgrade.VerifyFile(data, envelope.DigestOf(nil), true); failure.ClassOf(err) != failure.RegistryRootMismatch {
		t.Fatalf("another root: %v", err)
	}
}

func TestWithoutAudit(t *testing.T) {
	w := newWorld(t)
	w.file = func(f *upgrade.File) { f.Audit = nil }
	data := quorumFile(w)
	if _, err := upgrade.VerifyFile(data, w.root, false); err != nil {
		t.Fatal(err)
	}
}
