package upgrade_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"slices"
	"sync"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/filekey"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

const kernelID envelope.ID = "test-kernel"

// people are everyone who holds a key; each signs with another algorithm.
var people = []struct {
	id        string
	role      keyregistry.Role
	algorithm signer.Algorithm
}{
	{"divlead-1", keyregistry.DivisionLead, signer.RSAPSSSHA256},
	{"divlead-2", keyregistry.DivisionLead, signer.RSAPKCS1SHA256},
	{"ryan", keyregistry.SuperAdmin, signer.ECDSAP256SHA256},
	{"sec-eng", keyregistry.SecurityEngineer, signer.Ed25519},
	{"tech-lead", keyregistry.TechnicalLead, signer.ECDSAP384SHA384},
}

// keys are made once: RSA keys take their time.
var keys = sync.OnceValue(func() map[string]signer.Signer {
	all := map[string]signer.Signer{
		"ops": newKey(signer.ECDSAP256SHA256), "ci": newKey(signer.ECDSAP256SHA256), "outsider": newKey(signer.ECDSAP256SHA256),
		"records": newKey(signer.ECDSAP256SHA256), "audit": newKey(signer.Ed25519), "event": newKey(signer.Ed25519),
		"ryan-2": newKey(signer.ECDSAP256SHA256), "audit-2": newKey(signer.Ed25519),
	}
	for _, p := range people {
		all[p.id] = newKey(p.algorithm)
	}
	return all
})

func newKey(algorithm signer.Algorithm) signer.Signer {
	var private crypto.Signer
	var err error
	switch algorithm {
	case signer.Ed25519:
		_, private, err = ed25519.GenerateKey(rand.Reader)
	case signer.ECDSAP256SHA256:
		private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case signer.ECDSAP384SHA384:
		private, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	default:
		private, err = rsa.GenerateKey(rand.Reader, 2048)
	}
	return must(filekey.New(private, algorithm))(err)
}

// must joins the errors of two steps; a world that cannot be built is a bug of the test.
func must[T any](v T, err error) func(...error) T {
	return func(more ...error) T {
		for _, e := range append(more, err) {
			if e != nil {
				panic(e)
			}
		}
		return v
	}
}

func when(s string) envelope.Time { return must(envelope.ParseTime(s))() }

var (
	issued    = when("2026-06-01T00:00:00Z")
	decided   = when("2026-06-02T12:00:00Z")
	patch     = envelope.DigestOf([]byte("the new release"))
	base      = envelope.DigestOf([]byte("the old release"))
	policy    = envelope.DigestOf([]byte("the policy"))
	upgradeID = envelope.UUID("0b7f1d5e-3c1a-4c57-9d0e-000000000042")
	undoID    = envelope.UUID("0b7f1d5e-3c1a-4c57-9d0e-000000000043")
)

// world is a Kernel with its people. Its hooks change what is about to be
// signed, so that a forgery is signed as an insider with the keys would sign it.
type world struct {
	t             testing.TB
	document      func(*keyregistry.Document)
	manifest      func(*upgrade.Manifest)
	undoManifest  func(*upgrade.Manifest) // the Kernel's own rollback's
	signManifest  string                  // who signs that one instead
	approval      func(string, *upgrade.Approval)
	trigger       func(*upgrade.EmergencyTrigger)
	decision      func(*upgrade.PolicyDecision)
	bundle        func(*upgrade.QuorumBundle)
	predicate     func(*upgrade.AppliedPredicate)
	event         func(*auditlog.Event)
	delegation    func(*auditlog.Delegation)
	rawDelegation func(*auditlog.Delegation) // likewise, signed without a check
	introduceLast bool                       // the event key, after what it signed
	registered    func()                     // once the registry is made
	ratifying     func()                     // before a ratification is
	audit         func(*upgrade.AuditProof)
	file          func(*upgrade.File)
	signAs        map[string]string // who signs for whom
	approvers     []string
	test          string
	browser       map[string]bool                   // who signs in a browser
	assertion     func(string, *envelope.Signature) // of those, before it is used
	rotations     []rotation
	entries       []keyregistry.SignedDocument
	root          envelope.Digest
	inForce       envelope.Digest // the document that records name
	regs          keyregistry.Chain
	decidedAt     envelope.Time
	extraEvents   []auditlog.Event
	undoID        envelope.UUID // of the Kernel's own rollback
}

func newWorld(t testing.TB) *world {
	return &world{
		t: t, approvers: []string{"divlead-1", "ryan", "sec-eng"}, decidedAt: decided, undoID: undoID, signAs: map[string]string{},
		test: `{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"release","digest":{"sha256":"` + patch.Hex() +
			`"}}],"predicateType":"https://in-toto.io/attestation/test-result/v0.1","predicate":{"result":"PASSED","configuration":[{"name":"unit"}],"Result":null,"seconds":1.5}}`,
	}
}

func call[T any](hook func(T), v T) {
	if hook != nil {
		hook(v)
	}
}

func (w *world) signer(name string) signer.Signer {
	if other, ok := w.signAs[name]; ok {
		name = other
	}
	return keys()[name]
}

func keyID(name string) envelope.KeyID { return envelope.KeyID(keys()[name].Public().KeyID()) }

func (w *world) seal(name, payloadType string, record any) envelope.Envelope {
	env := envelope.Envelope{Payload: must(envelope.Canonical(record))(), PayloadType: payloadType}
	env.Signatures = []envelope.Signature{w.sign(name, env)}
	return env
}

func entryOf(name string) keyregistry.Key {
	s := keys()[name]
	return keyregistry.NewKey(s.Public(), s.Algorithm(), keyregistry.OriginFile, when("2026-01-01T00:00:00Z"), when("2030-01-01T00:00:00Z"))
}

// register makes the root document, signed by all five.
func (w *world) register() {
	doc := keyregistry.Document{
		IssuedAt: issued, KernelID: kernelID, Rules: keyregistry.DefaultRules(), Test: true, Version: 1,
		CI:         []keyregistry.Person{{ID: "ci", Name: "CI", Keys: []keyregistry.Key{entryOf("ci")}}},
		Requestors: []keyregistry.Person{{ID: "ops", Name: "Operations", Keys: []keyregistry.Key{entryOf("ops")}}},
		Kernel:     keyregistry.KernelKeys{Records: []keyregistry.Key{entryOf("records")}, Audit: []keyregistry.Key{entryOf("audit")}},
	}
	for _, p := range people {
		doc.Approvers = append(doc.Approvers, keyregistry.Approver{ID: envelope.ID(p.id), Name: p.id, Role: p.role, Keys: []keyregistry.Key{w.entryOf(p.id)}})
	}
	call(w.document, &doc)
	w.entries = []keyregistry.SignedDocument{w.issue(&doc, holders(&doc)...)}
	w.root = envelope.DigestOf(w.entries[0].Document)
	w.rotate()
	w.inForce = envelope.DigestOf(w.entries[len(w.entries)-1].Document)
	for n := 1; n <= len(w.entries); n++ {
		regs, err := keyregistry.AcceptChain(w.root, w.entries[:n])
		if err != nil && n == 1 {
			w.t.Fatalf("the root of the test is refused: %v", err)
		}
		if err == nil {
			w.regs = regs
		}
	}
	if w.registered != nil {
		w.registered()
	}
}

func (w *world) newManifest(hook func(*upgrade.Manifest)) envelope.Envelope {
	m := upgrade.Manifest{
		BaseRevision: upgrade.RevisionOf(base), KernelID: kernelID, KeyID: keyID("tech-lead"), PatchHash: patch, ProposedBy: "tech-lead",
		Impact:        upgrade.Impact{Components: []string{"web"}, Downtime: "none"},
		Preconditions: upgrade.Preconditions{Approvals: 3, Tests: []string{"unit"}},
		Rationale:     "upgrade-42", Target: upgrade.Target{Name: "web", Repository: "git.example/web", Path: "site", Commit: "0123456789abcdef0123456789abcdef01234567"},
		Timestamp: w.decidedAt.Add(-3600), Type: upgrade.TypeCode, UpgradeID: upgradeID,
	}
	call(hook, &m)
	name := string(signerOf(&m))
	if m.Type == upgrade.TypeRollback && w.signManifest != "" {
		name = w.signManifest
	}
	return w.seal(name, envelope.TypeManifest, m)
}

// decodeManifest parses without a check, since forgers do not check.
func decodeManifest(env envelope.Envelope) *upgrade.Manifest {
	m := new(upgrade.Manifest)
	return must(m, json.Unmarshal(env.Payload, m))()
}

func signerOf(m *upgrade.Manifest) envelope.ID {
	if m.ProposedBy == upgrade.KernelID {
		return "records"
	}
	return m.ProposedBy
}

// newBundle is a quorum bundle before its case's own members.
func (w *world) newBundle(m envelope.Envelope, approvers []string) upgrade.QuorumBundle {
	parsed := decodeManifest(m)
	digest := m.PayloadDigest()
	b := upgrade.QuorumBundle{
		Approvals: []envelope.Envelope{}, TestResults: []envelope.Envelope{}, Manifest: m,
		PolicyDecision: &upgrade.PolicyDecision{
			Allow: true, Engine: "opa", EvaluatedAt: w.decidedAt, KernelID: kernelID, ManifestDigest: digest,
			OnCanaryFailure: upgrade.CanaryRollback, PolicyDigest: policy, UpgradeID: parsed.UpgradeID, Violations: []upgrade.Violation{},
		},
		Quorum: upgrade.QuorumInfo{Approvers: []envelope.ID{}, DecidedAt: w.decidedAt, KernelID: kernelID, ManifestDigest: digest, RegistryDigest: w.inForce, UpgradeID: parsed.UpgradeID},
	}
	for _, id := range approvers {
		a := upgrade.Approval{
			ApprovalTs: w.decidedAt.Add(-60), ApproverID: envelope.ID(id), KernelID: kernelID, KeyID: keyID(id),
			ManifestDigest: digest, PatchHash: parsed.PatchHash, RegistryDigest: w.inForce, RollbackPreapproved: true, UpgradeID: parsed.UpgradeID,
		}
		if w.approval != nil {
			w.approval(id, &a)
		}
		b.Approvals = append(b.Approvals, w.seal(id, envelope.TypeApproval, a))
		b.Quorum.Approvers = append(b.Quorum.Approvers, a.ApproverID)
	}
	return b
}

func (w *world) testResult() envelope.Envelope {
	env := envelope.Envelope{Payload: []byte(w.test), PayloadType: envelope.TypeInToto}
	env.Signatures = []envelope.Signature{must(envelope.Sign(context.Background(), w.signer("ci"), env))()}
	return env
}

func (w *world) quorum() upgrade.QuorumBundle {
	b := w.newBundle(w.newManifest(w.manifest), w.approvers)
	b.TestResults = append(b.TestResults, w.testResult())
	call(w.decision, b.PolicyDecision)
	return b
}

func (w *world) emergency() upgrade.QuorumBundle {
	b := w.newBundle(w.newManifest(w.manifest), nil)
	t := upgrade.EmergencyTrigger{
		KernelID: kernelID, KeyID: keyID("sec-eng"), ManifestDigest: b.Manifest.PayloadDigest(), PatchHash: patch, Reason: "it burns",
		RegistryDigest: w.inForce, TriggeredAt: w.decidedAt.Add(-30), TriggeredBy: "sec-eng", UpgradeID: upgradeID,
	}
	call(w.trigger, &t)
	env := w.seal(string(t.TriggeredBy), envelope.TypeEmergencyTrigger, t)
	b.EmergencyTrigger = &env
	call(w.decision, b.PolicyDecision)
	return b
}

// undo is a Kernel's own rollback of u, before its case's own members.
func (w *world) undo(hook func(*upgrade.Manifest)) upgrade.QuorumBundle {
	m := w.newManifest(func(m *upgrade.Manifest) {
		m.Type, m.UpgradeID, m.ProposedBy, m.KeyID = upgrade.TypeRollback, w.undoID, upgrade.KernelID, keyID("records")
		m.BaseRevision, m.PatchHash = upgrade.RevisionOf(patch), base
		m.Rollback = &upgrade.Rollback{Reason: "taken back", UpgradeID: upgradeID}
		m.Timestamp = w.decidedAt
		m.Preconditions.Tests = []string{}
		call(w.undoManifest, m)
		call(hook, m)
	})
	return w.newBundle(m, nil)
}

// record has the Kernel sign a bundle; an honest guard signs what verifies, a
// stolen key what the hook makes of it.
func (w *world) record(b *upgrade.QuorumBundle) envelope.Envelope {
	m := decodeManifest(b.Manifest)
	p := upgrade.AppliedPredicate{
		Approvers: b.Quorum.Approvers, BaseRevision: m.BaseRevision, BundleDigest: b.Digest(), DecidedAt: b.Quorum.DecidedAt, KernelID: kernelID,
		Emergency: b.EmergencyTrigger != nil, ManifestDigest: b.Manifest.PayloadDigest(), PatchHash: m.PatchHash, RegistryDigest: w.inForce, Type: m.Type, UpgradeID: m.UpgradeID,
	}
	switch {
	case b.EmergencyTrigger != nil:
		by := b.Quorum.DecidedAt.Add(w.regs.Last().Rules().RatificationWindowSeconds)
		p.RatifyBy = &by
	case b.Emergency != nil:
		p.Automatic = upgrade.CaseAutomatic
	case b.Preapproval != nil:
		p.Automatic = upgrade.CasePreapproved
	}
	call(w.predicate, &p)
	return w.seal("records", envelope.TypeInToto, statement(m, upgrade.AppliedRecordType, p))
}

func statement(m *upgrade.Manifest, predicateType string, predicate any) upgrade.Statement {
	s := upgrade.Subject{Name: m.Target.Name}
	s.Digest.SHA256 = m.PatchHash.Hex()
	return upgrade.Statement{Type: upgrade.StatementType, Predicate: predicate, PredicateType: predicateType, Subject: []upgrade.Subject{s}}
}

func (w *world) ratify(f *upgrade.File) {
	if w.ratifying != nil {
		w.ratifying()
	}
	b := w.newBundle(f.QuorumBundle.Manifest, w.approvers)
	b.PolicyDecision, b.TestResults = nil, nil
	call(w.bundle, &b)
	m := decodeManifest(b.Manifest)
	env := w.seal("records", envelope.TypeInToto, statement(m, upgrade.RatificationType, upgrade.RatificationPredicate{
		AppliedRecordDigest: f.AppliedRecord.PayloadDigest(), Approvers: b.Quorum.Approvers, BundleDigest: b.Digest(), DecidedAt: b.Quorum.DecidedAt,
		KernelID: kernelID, ManifestDigest: b.Manifest.PayloadDigest(), RegistryDigest: w.inForce, UpgradeID: m.UpgradeID,
	}))
	f.Ratification = &upgrade.Nested{QuorumBundle: b, Record: env}
}

// pack makes the bundle file, with a log that shows every decision in it.
func (w *world) pack(b upgrade.QuorumBundle) ([]byte, *upgrade.File) {
	call(w.bundle, &b)
	f := &upgrade.File{AppliedRecord: w.record(&b), MediaType: upgrade.MediaType, QuorumBundle: b, Registry: w.entries}
	return w.finish(f), f
}

func (w *world) finish(f *upgrade.File) []byte {
	w.log(f)
	call(w.file, f)
	return must(envelope.Canonical(f))()
}

func (w *world) log(f *upgrade.File) {
	announce := func(eventType string, b *upgrade.QuorumBundle) auditlog.Event {
		return auditlog.Event{Type: eventType, UpgradeID: b.Quorum.UpgradeID, Time: b.Quorum.DecidedAt.Add(1), Data: auditlog.Data{auditlog.DataBundleDigest: b.Digest().String()}}
	}
	first := f.QuorumBundle.Quorum.DecidedAt
	events := []auditlog.Event{{Type: auditlog.KeyDelegated}}
	for _, n := range []*upgrade.Nested{f.QuorumBundle.Emergency, f.QuorumBundle.Preapproval} {
		if n != nil {
			first = n.QuorumBundle.Quorum.DecidedAt
			events = append(events, announce(auditlog.UpgradeApplying, &n.QuorumBundle))
		}
	}
	events[0].Time = first.Add(-40000)
	events = append(events, w.extraEvents...)
	events = append(events, announce(auditlog.UpgradeApplying, &f.QuorumBundle))
	if w.introduceLast {
		events[0], events[1] = events[1], events[0]
		events[1].Time = events[0].Time
	}
	if f.Ratification != nil {
		events = append(events, announce(auditlog.UpgradeRatified, &f.Ratification.QuorumBundle))
	}
	f.Audit = w.prove(delegatedAnew(events))
}

// delegatedAnew adds delegations where the event key would have ended.
func delegatedAnew(events []auditlog.Event) []auditlog.Event {
	var out []auditlog.Event
	last := events[0].Time
	for _, e := range events {
		if e.Time.Sub(last) > auditlog.MaxEventKeySeconds {
			last = e.Time
			out = append(out, auditlog.Event{Type: auditlog.KeyDelegated, Time: last})
		}
		out = append(out, e)
	}
	return out
}

// delegate introduces the event key from a time on.
func (w *world) delegate(from envelope.Time) envelope.Envelope {
	d := auditlog.Delegation{
		EventKeyID: keyID("event"), Instance: "test", KernelID: kernelID, PublicKey: keys()["event"].Public().DER(),
		NotBefore: from, NotAfter: from.Add(auditlog.MaxEventKeySeconds),
	}
	call(w.delegation, &d)
	if w.rawDelegation == nil {
		return must(auditlog.SealDelegation(context.Background(), w.signer("audit"), d))()
	}
	d.KeyID = keyID("audit")
	w.rawDelegation(&d)
	return w.seal("audit", envelope.TypeEventKey, d)
}

// prove signs and chains events and makes the audit part that shows all of them.
func (w *world) prove(events []auditlog.Event) jsontext.Value {
	ctx := context.Background()
	var hashes []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		var out []tlog.Hash
		for _, i := range indexes {
			out = append(out, hashes[i])
		}
		return out, nil
	})
	var previous envelope.Digest
	proof := upgrade.AuditProof{Entries: []auditlog.Entry{}}
	for i, e := range events {
		e.Actor, e.KernelID, e.Seq, e.PrevHash = "kernel", kernelID, int64(i), previous
		if e.Type == auditlog.KeyDelegated {
			e.Data = auditlog.Data{auditlog.DataDelegation: base64.StdEncoding.EncodeToString(w.delegate(e.Time).Bytes())}
		}
		call(w.event, &e)
		e.KeyID = envelope.KeyID(w.signer("event").Public().KeyID())
		if e.Data == nil {
			e.Data = auditlog.Data{}
		}
		env := w.seal("event", envelope.TypeAuditEvent, e)
		previous = env.PayloadDigest()
		hashes = append(hashes, must(tlog.StoredHashes(int64(i), env.Bytes(), reader))()...)
		proof.Entries = append(proof.Entries, auditlog.Entry{Index: int64(i), Leaf: env.Bytes(), Proof: [][]byte{}})
	}
	size := int64(len(events))
	for i := range proof.Entries {
		for _, h := range must(tlog.ProveRecord(size, int64(i), reader))() {
			proof.Entries[i].Proof = append(proof.Entries[i].Proof, slices.Clone(h[:]))
		}
	}
	proof.Checkpoint = must(auditlog.SignCheckpoint(ctx, w.signer("audit"), kernelID, size, must(tlog.TreeHash(size, reader))()))()
	call(w.audit, &proof)
	return must(envelope.Canonical(proof))()
}
