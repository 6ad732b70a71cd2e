package upgrade_test

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// foreignEdges are those on which a second verifier, written from the text of
// PROTOCOL alone, judged otherwise, or could have.
func foreignEdges() []forgery {
	result := func(old, new string) func(*world) {
		return func(w *world) { w.test = replaceOnce(w.test, old, new) }
	}
	checkpoint := func(edit func(string) string) func(*world) {
		return func(w *world) {
			w.audit = func(p *upgrade.AuditProof) { p.Checkpoint = edit(p.Checkpoint) }
		}
	}
	return []forgery{
		{"ratification: the manifest signed anew", ratifiedFile(60), func(w *world) {
			w.bundle = func(b *upgrade.QuorumBundle) {
				b.Manifest.Signatures = []envelope.Signature{w.sign("tech-lead", b.Manifest)}
			}
		}, failure.BundleMismatch},
		{"delegation in another layout", quorumFile, func(w *world) {
			w.event = func(e *auditlog.Event) {
				if e.Type == auditlog.KeyDelegated {
					raw := must(base64.StdEncoding.DecodeString(e.Data.Text(auditlog.DataDelegation)))()
					e.Data[auditlog.DataDelegation] = base64.StdEncoding.EncodeToString(append(raw, '\n'))
				}
			}
		}, failure.PayloadNotCanonical},
		{"applying without upgradeId", quorumFile, aboutUpgrade(auditlog.UpgradeApplying, ""), valid},
		{"ratified without upgradeId", ratifiedFile(60), aboutUpgrade(auditlog.UpgradeRatified, ""), valid},
		{"applying of another upgradeId", quorumFile, aboutUpgrade(auditlog.UpgradeApplying, undoID), failure.AuditProofInvalid},
		{"canary failed without upgradeId", preapprovedFile(60), aboutUpgrade(auditlog.UpgradeCanaryFailed, ""), failure.AuditProofInvalid},
		{"test result: a subject's name that names nothing", quorumFile, result(`"name":"release"`, `"name":[1e5,null]`), valid},
		{"test result: no subject's name beside a configuration", quorumFile, result(`"name":"release",`, ``), valid},
		{"test result: no configuration, no subject's name", quorumFile, func(w *world) {
			result(`"name":"release",`, ``)(w)
			result(`"configuration":[{"name":"unit"}],`, ``)(w)
		}, failure.FieldInvalid},
		{"test result: a configuration without a name", quorumFile, result(`{"name":"unit"}`, `{"Name":"unit"}`), failure.FieldInvalid},
		{"checkpoint: an extension line that was not signed", quorumFile, checkpoint(func(s string) string {
			return strings.Replace(s, "\n\n", "\nextension\n\n", 1)
		}), failure.AuditProofInvalid},
		{"checkpoint: no signature", quorumFile, checkpoint(func(s string) string {
			text, _, _ := strings.Cut(s, "—")
			return text
		}), failure.AuditProofInvalid},
	}
}

// aboutUpgrade has the events of a type name this upgrade.
func aboutUpgrade(eventType string, id envelope.UUID) func(*world) {
	return func(w *world) {
		w.event = func(e *auditlog.Event) {
			if e.Type == eventType {
				e.UpgradeID = id
			}
		}
	}
}

// With --no-audit the audit part is no more than JSON of the file.
func TestAuditNotLookedAt(t *testing.T) {
	for content, want := range map[string]failure.Class{
		`"nothing"`: valid, `[]`: valid, `{"entries":5}`: valid, `7`: valid,
		`null`: failure.PayloadMalformed, `{"entries":null}`: failure.PayloadMalformed, `{"a":-1}`: failure.FieldInvalid,
	} {
		w := newWorld(t)
		w.file = func(f *upgrade.File) { f.Audit = jsontext.Value(content) }
		data := quorumFile(w)
		if _, err := upgrade.VerifyFile(data, w.root, false); failure.ClassOf(err) != want || (err == nil) != (want == valid) {
			t.Errorf("audit is %s: class is not %q: %v", content, want, err)
		}
		if _, err := upgrade.VerifyFile(data, w.root, true); err == nil {
			t.Errorf("audit is %s: accepted where it is asked for", content)
		}
	}
}
