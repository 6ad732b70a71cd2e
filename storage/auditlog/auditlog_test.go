package auditlog_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/signer/filekey"
	"github.com/kernelgate/kernelgate/storage/auditlog"
)

const kernelID envelope.ID = "k1"

func newKey(t testing.TB) signer.Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := filekey.New(private, signer.Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func at(t testing.TB, s string) envelope.Time {
	t.Helper()
	moment, err := envelope.ParseTime(s)
	if err != nil {
		t.Fatal(err)
	}
	return moment
}

func event(t testing.TB) auditlog.Event {
	return auditlog.Event{
		Actor: "ryan", Data: auditlog.Data{"a": "text", "b": int64(7), "c": true, "d": []string{"x", "y"}},
		KernelID: kernelID, Seq: 0, Time: at(t, "2026-06-01T00:00:00Z"), Type: auditlog.UpgradeCreated,
	}
}

func TestLeafSaysWhatWasSealed(t *testing.T) {
	key := newKey(t)
	env, err := auditlog.SealEvent(context.Background(), key, event(t))
	if err != nil {
		t.Fatal(err)
	}
	got, parsed, err := auditlog.ParseLeaf(env.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if got.Data.Text("a") != "text" || got.Data["b"] != int64(7) || got.Data["c"] != true || len(got.Data["d"].([]string)) != 2 {
		t.Errorf("data came back as %v", got.Data)
	}
	if parsed.PayloadDigest() != env.PayloadDigest() {
		t.Error("the event's hash changed")
	}
	if _, _, err := auditlog.ParseLeaf([]byte(" " + string(env.Bytes()))); failure.ClassOf(err) != failure.PayloadNotCanonical {
		t.Errorf("a leaf with a space before it: %v", err)
	}
}

func TestEventDataKinds(t *testing.T) {
	key := newKey(t)
	good, err := auditlog.SealEvent(context.Background(), key, event(t))
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string][2]string{
		"null":              {`"b":7`, `"b":null`},
		"a fraction":        {`"b":7`, `"b":7.5`},
		"negative":          {`"b":7`, `"b":-7`},
		"over 2^53-1":       {`"b":7`, `"b":9007199254740992`},
		"an object":         {`"b":7`, `"b":{}`},
		"a list of numbers": {`["x","y"]`, `[1,2]`},
		"a nested list":     {`["x","y"]`, `[["x"]]`},
		"no object at all":  {`{"a":"text","b":7,"c":true,"d":["x","y"]}`, `[]`},
		"another type":      {`upgrade.created`, `Upgrade`},
		"a first with prev": {`sha256:0`, `sha256:1`},
		"an unknown member": {`"kernelId"`, `"extra":1,"kernelId"`},
	} {
		t.Run(name, func(t *testing.T) {
			forged := envelope.Envelope{PayloadType: good.PayloadType, Signatures: good.Signatures}
			forged.Payload = []byte(strings.Replace(string(good.Payload), change[0], change[1], 1))
			if string(forged.Payload) == string(good.Payload) {
				t.Fatal("the test changes nothing")
			}
			if _, _, err := auditlog.ParseLeaf(forged.Bytes()); err == nil {
				t.Error("accepted")
			}
		})
	}
}

func TestEventKey(t *testing.T) {
	ctx, audit, key := context.Background(), newKey(t), newKey(t)
	start := at(t, "2026-06-01T00:00:00Z")
	d := auditlog.Delegation{
		EventKeyID: envelope.KeyID(key.Public().KeyID()), Instance: "gateway-1", KernelID: kernelID,
		NotBefore: start, NotAfter: start.Add(auditlog.MaxEventKeySeconds), PublicKey: key.Public().DER(),
	}
	env, err := auditlog.SealDelegation(ctx, audit, d)
	if err != nil {
		t.Fatal(err)
	}
	eventKey, err := auditlog.OpenDelegation(env)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		signer signer.Signer
		change func(*auditlog.Event)
		want   failure.Class
	}{
		"valid":                 {key, func(*auditlog.Event) {}, ""},
		"its last second":       {key, func(e *auditlog.Event) { e.Time = d.NotAfter }, ""},
		"a second too late":     {key, func(e *auditlog.Event) { e.Time = d.NotAfter.Add(1) }, failure.KeyOutsideValidity},
		"a second too early":    {key, func(e *auditlog.Event) { e.Time = start.Add(-1) }, failure.KeyOutsideValidity},
		"of another Kernel":     {key, func(e *auditlog.Event) { e.KernelID = "k2" }, failure.BindingMismatch},
		"signed by another key": {audit, func(*auditlog.Event) {}, failure.BindingMismatch},
	} {
		t.Run(name, func(t *testing.T) {
			e := event(t)
			c.change(&e)
			sealed, err := auditlog.SealEvent(ctx, c.signer, e)
			if err != nil {
				t.Fatal(err)
			}
			parsed, env, err := auditlog.ParseLeaf(sealed.Bytes())
			if err != nil {
				t.Fatal(err)
			}
			if got := failure.ClassOf(auditlog.VerifyEvent(parsed, env, eventKey)); got != c.want {
				t.Errorf("class is %q, not %q", got, c.want)
			}
		})
	}
	d.NotAfter = d.NotAfter.Add(1)
	if _, err := auditlog.SealDelegation(ctx, audit, d); err == nil {
		t.Error("an event key for more than a day is delegated")
	}
}

func TestCheckpoint(t *testing.T) {
	key := newKey(t)
	entry := keyregistry.NewKey(key.Public(), signer.Ed25519, keyregistry.OriginFile, envelope.Time{}, envelope.Time{})
	text, err := auditlog.SignCheckpoint(context.Background(), key, kernelID, 5, tlog.Hash{1, 2, 3})
	if err != nil {
		t.Fatal(err)
	}
	c, err := auditlog.OpenCheckpoint(text, kernelID, []keyregistry.Key{entry})
	if err != nil {
		t.Fatal(err)
	}
	if c.Size != 5 || c.Root != (tlog.Hash{1, 2, 3}) || c.Origin != "kernelgate/k1" {
		t.Errorf("the checkpoint came back as %+v", c)
	}
	stranger := newKey(t)
	other := keyregistry.NewKey(stranger.Public(), signer.Ed25519, keyregistry.OriginFile, envelope.Time{}, envelope.Time{})
	if _, err := auditlog.OpenCheckpoint(text, kernelID, []keyregistry.Key{other}); failure.ClassOf(err) != failure.AuditProofInvalid {
		t.Errorf("another key: %v", err)
	}
	if _, err := auditlog.OpenCheckpoint(text, "k2", []keyregistry.Key{entry}); failure.ClassOf(err) != failure.AuditProofInvalid {
		t.Errorf("another Kernel: %v", err)
	}
	for i := range len(text) {
		changed := []byte(text)
		changed[i] ^= 1
		if _, err := auditlog.OpenCheckpoint(string(changed), kernelID, []keyregistry.Key{entry}); err == nil {
			t.Fatalf("a change of byte %d is accepted: %q", i, changed)
		}
	}
	body, line, _ := strings.Cut(text, "\n\n")
	forged := strings.Replace(line, line[len(line)-20:len(line)-16], "AAAA", 1)
	for name, c := range map[string]struct {
		lines string
		ok    bool
	}{
		"a key's line twice":            {line + line, true},
		"a key's second line is forged": {line + forged, false},
		"a key's first line is forged":  {forged + line, false},
		"of the name, by another key":   {line + strings.Replace(line, "k1 ", "k1 AAAA", 1), true},
	} {
		if _, err := auditlog.OpenCheckpoint(body+"\n\n"+c.lines, kernelID, []keyregistry.Key{entry}); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A tree continues another only with a proof, and never shrinks.
func TestConsistency(t *testing.T) {
	var hashes []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		var out []tlog.Hash
		for _, i := range indexes {
			out = append(out, hashes[i])
		}
		return out, nil
	})
	checkpoints := []auditlog.Checkpoint{{}}
	for i := range int64(20) {
		stored, err := tlog.StoredHashes(i, []byte{byte(i)}, reader)
		if err != nil {
			t.Fatal(err)
		}
		hashes = append(hashes, stored...)
		root, err := tlog.TreeHash(i+1, reader)
		if err != nil {
			t.Fatal(err)
		}
		checkpoints = append(checkpoints, auditlog.Checkpoint{Size: i + 1, Root: root})
	}
	for last := range int64(21) {
		for next := last; next <= 20; next++ {
			var proof [][]byte
			if last > 0 && next > last {
				p, err := tlog.ProveTree(next, last, reader)
				if err != nil {
					t.Fatal(err)
				}
				for _, h := range p {
					proof = append(proof, h[:])
				}
			}
			if err := auditlog.CheckConsistency(checkpoints[last], checkpoints[next], proof); err != nil {
				t.Fatalf("%d to %d: %v", last, next, err)
			}
			if next > last && last > 0 {
				fork := checkpoints[next]
				fork.Root[0] ^= 1
				if failure.ClassOf(auditlog.CheckConsistency(checkpoints[last], fork, proof)) != failure.AuditFork {
					t.Fatalf("%d to %d: a fork is accepted", last, next)
				}
				if failure.ClassOf(auditlog.CheckConsistency(checkpoints[next], checkpoints[last], proof)) != failure.AuditFork {
					t.Fatalf("%d to %d: a shrunk tree is accepted", next, last)
				}
			}
		}
	}
	fork := checkpoints[9]
	fork.Root[0] ^= 1
	if failure.ClassOf(auditlog.CheckConsistency(checkpoints[9], fork, nil)) != failure.AuditFork {
		t.Error("two roots at one size are accepted")
	}
}
