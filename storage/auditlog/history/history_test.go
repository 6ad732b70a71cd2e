package history_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/kernelgate/kernelgate/keyregistry/registrytest"
	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/storage/auditlog/history"
)

var (
	ctx   = context.Background()
	start = must(envelope.ParseTime("2026-06-01T00:00:00Z"))
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// world is a log that can be built right, and wrong.
type world struct {
	*registrytest.Fixture
	key    signer.Signer
	leaves [][]byte
	hash   envelope.Digest
}

func newWorld(t testing.TB, events int) *world {
	t.Helper()
	w := &world{Fixture: registrytest.New(start), key: registrytest.Key(signer.Ed25519)}
	w.delegate(w.key, w.Signers[registrytest.KernelAudit])
	for i := len(w.leaves); i < events; i++ {
		w.append(w.key, auditlog.UpgradeCreated, auditlog.Data{"n": int64(i)})
	}
	return w
}

func (w *world) delegation(key, by signer.Signer) string {
	env := must(auditlog.SealDelegation(ctx, by, auditlog.Delegation{
		EventKeyID: envelope.KeyID(key.Public().KeyID()), Instance: "gateway-1", KernelID: registrytest.KernelID,
		NotBefore: start, NotAfter: start.Add(auditlog.MaxEventKeySeconds), PublicKey: key.Public().DER(),
	}))
	return base64.StdEncoding.EncodeToString(env.Bytes())
}

func (w *world) delegate(key, by signer.Signer) {
	w.append(key, auditlog.KeyDelegated, auditlog.Data{auditlog.DataDelegation: w.delegation(key, by)})
}

func (w *world) append(key signer.Signer, eventType string, data auditlog.Data) {
	w.put(key, auditlog.Event{Type: eventType, Data: data, Seq: int64(len(w.leaves)), Time: start.Add(int64(len(w.leaves))), KernelID: registrytest.KernelID, PrevHash: w.hash, Actor: "kernel"})
}

func (w *world) put(key signer.Signer, e auditlog.Event) {
	env := must(auditlog.SealEvent(ctx, key, e))
	w.leaves, w.hash = append(w.leaves, env.Bytes()), env.PayloadDigest()
}

func root(leaves [][]byte) tlog.Hash {
	var stored []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(indexes))
		for i, index := range indexes {
			out[i] = stored[index]
		}
		return out, nil
	})
	for i, leaf := range leaves {
		stored = append(stored, must(tlog.StoredHashes(int64(i), leaf, reader))...)
	}
	return must(tlog.TreeHash(int64(len(leaves)), reader))
}

func (w *world) checkpoint(n int) string {
	return must(auditlog.SignCheckpoint(ctx, w.Signers[registrytest.KernelAudit], registrytest.KernelID, int64(n), root(w.leaves[:n])))
}

func (w *world) file(t testing.TB, checkpoint string, leaves [][]byte) []byte {
	t.Helper()
	h := must(history.NewHeader(registrytest.KernelID, w.Entries, checkpoint))
	h.Size = int64(len(leaves))
	var out bytes.Buffer
	if err := history.Write(&out, h, all(leaves)); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func all(leaves [][]byte) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for _, leaf := range leaves {
			if !yield(leaf, nil) {
				return
			}
		}
	}
}

func TestValidLog(t *testing.T) {
	w := newWorld(t, 9000) // more than two blocks
	second := registrytest.Key(signer.Ed25519)
	w.delegate(second, w.Signers[registrytest.KernelAudit])
	w.append(w.key, auditlog.UpgradeApplied, nil)
	w.append(second, "upgrade.of_a_later_version", nil)
	var last int64
	trust := history.Trust{Root: w.Root, Kept: []string{w.checkpoint(9003), w.checkpoint(1), w.checkpoint(4096), w.checkpoint(4097)},
		Progress: func(done, size int64) {
			if done <= last || size != 9003 {
				t.Errorf("progress goes from %d to %d of %d", last, done, size)
			}
			last = done
		}}
	v, err := history.VerifyFile(ctx, trust, bytes.NewReader(w.file(t, w.checkpoint(9003), w.leaves)))
	if err != nil {
		t.Fatal(err)
	}
	if v.Size != 9003 || v.EventKeys != 2 || v.Unknown != 1 || v.Kept != 4 || last != 9003 || v.From != start || v.To != start.Add(9002) || v.Root != root(w.leaves) {
		t.Errorf("the verdict is %+v after progress %d", v, last)
	}
}

// Each way to change the rows, by who has no key: found, and named.
func TestChangedRows(t *testing.T) {
	w := newWorld(t, 20)
	for name, c := range map[string]struct {
		change func(leaves [][]byte) [][]byte
		row    int64
		class  failure.Class
	}{
		"deleted first":   {func(l [][]byte) [][]byte { return l[1:] }, 0, failure.AuditChainBroken},
		"deleted":         {func(l [][]byte) [][]byte { return slices.Delete(l, 7, 8) }, 7, failure.AuditChainBroken},
		"deleted last":    {func(l [][]byte) [][]byte { return l[:19] }, 19, failure.AuditProofInvalid},
		"all deleted":     {func(l [][]byte) [][]byte { return nil }, 0, failure.AuditProofInvalid},
		"duplicated":      {func(l [][]byte) [][]byte { return slices.Insert(l, 7, l[7]) }, 8, failure.AuditChainBroken},
		"duplicated last": {func(l [][]byte) [][]byte { return append(l, l[19]) }, 20, failure.AuditProofInvalid},
		"one more": {func(l [][]byte) [][]byte {
			v := newWorldOf(w)
			v.append(w.key, auditlog.UpgradeCreated, nil)
			return v.leaves
		}, 20, failure.AuditProofInvalid},
		"swapped":          {func(l [][]byte) [][]byte { l[3], l[4] = l[4], l[3]; return l }, 3, failure.AuditChainBroken},
		"a bit":            {func(l [][]byte) [][]byte { l[5] = flip(l[5]); return l }, 5, failure.SignatureInvalid},
		"a space":          {func(l [][]byte) [][]byte { l[5] = append(slices.Clone(l[5]), ' '); return l }, 5, failure.PayloadNotCanonical},
		"garbage":          {func(l [][]byte) [][]byte { l[5] = []byte("{}"); return l }, 5, failure.EnvelopeMalformed},
		"empty":            {func(l [][]byte) [][]byte { l[5] = nil; return l }, 5, failure.EnvelopeMalformed},
		"another's, chain": {func(l [][]byte) [][]byte { l[5] = newWorld(t, 6).leaves[5]; return l }, 5, failure.AuditChainBroken},
	} {
		t.Run(name, func(t *testing.T) {
			leaves := c.change(slices.Clone(w.leaves))
			_, err := history.VerifyFile(ctx, history.Trust{Root: w.Root}, bytes.NewReader(w.file(t, w.checkpoint(20), leaves)))
			wantRow(t, err, c.row, c.class)
		})
	}
}

func newWorldOf(w *world) *world {
	v := *w
	v.leaves = slices.Clone(w.leaves)
	return &v
}

// flip changes one bit of the signature.
func flip(leaf []byte) []byte {
	_, env, err := auditlog.ParseLeaf(leaf)
	if err != nil {
		panic(err)
	}
	env.Signatures[0].Sig[40] ^= 1
	return env.Bytes()
}

func wantRow(t *testing.T, err error, row int64, class failure.Class) {
	t.Helper()
	got, ok := history.BadRow(err)
	if !ok || got != row || failure.ClassOf(err) != class {
		t.Errorf("row %d of class %s is wanted, not %v", row, class, err)
	}
	if err != nil && !strings.Contains(failure.DetailOf(err), fmt.Sprintf("event %d:", row)) {
		t.Errorf("people are not told the row: %v", err)
	}
}

// Rows that somebody with an event key of the log made, but wrong.
func TestWrongRows(t *testing.T) {
	event := func(w *world) auditlog.Event {
		return auditlog.Event{Type: auditlog.UpgradeCreated, Seq: 3, Time: start.Add(3), KernelID: registrytest.KernelID, PrevHash: w.hash, Actor: "kernel"}
	}
	for name, c := range map[string]struct {
		add   func(w *world)
		class failure.Class
	}{
		"time goes back": {func(w *world) { e := event(w); e.Time = start.Add(1); w.put(w.key, e) }, failure.AuditChainBroken},
		"seq skips":      {func(w *world) { e := event(w); e.Seq = 4; w.put(w.key, e) }, failure.AuditChainBroken},
		"other Kernel":   {func(w *world) { e := event(w); e.KernelID = "other"; w.put(w.key, e) }, failure.AuditChainBroken},
		"other prevHash": {func(w *world) { e := event(w); e.PrevHash[0] ^= 1; w.put(w.key, e) }, failure.AuditChainBroken},
		"key's day over": {func(w *world) { e := event(w); e.Time = start.Add(auditlog.MaxEventKeySeconds + 1); w.put(w.key, e) }, failure.KeyOutsideValidity},
		"unknown key":    {func(w *world) { w.put(registrytest.Key(signer.Ed25519), event(w)) }, failure.AuditChainBroken},
		"delegated by itself": {func(w *world) { key := registrytest.Key(signer.Ed25519); w.delegate(key, key) },
			failure.AuditProofInvalid},
		"delegated by the records key's holder": {func(w *world) { w.delegate(registrytest.Key(signer.Ed25519), w.Signers["sec-eng"]) },
			failure.AuditProofInvalid},
		"delegation of another key": {func(w *world) {
			other := registrytest.Key(signer.Ed25519)
			e := event(w)
			e.Type, e.Data = auditlog.KeyDelegated, auditlog.Data{auditlog.DataDelegation: w.delegation(other, w.Signers[registrytest.KernelAudit])}
			w.put(w.key, e)
		}, failure.AuditProofInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 3)
			c.add(w)
			w.append(w.key, auditlog.UpgradeCreated, nil)
			_, err := history.VerifyFile(ctx, history.Trust{Root: w.Root}, bytes.NewReader(w.file(t, w.checkpoint(5), w.leaves)))
			wantRow(t, err, 3, c.class)
		})
	}
}

// An event signed by a key that is delegated only later in the log is refused,
// however soon the delegation follows.
func TestDelegationDoesNotReachBack(t *testing.T) {
	w := newWorld(t, 3)
	late := registrytest.Key(signer.Ed25519)
	w.append(late, auditlog.UpgradeCreated, nil)
	w.delegate(late, w.Signers[registrytest.KernelAudit])
	_, err := history.VerifyFile(ctx, history.Trust{Root: w.Root}, bytes.NewReader(w.file(t, w.checkpoint(5), w.leaves)))
	wantRow(t, err, 3, failure.AuditChainBroken)
}

func TestForks(t *testing.T) {
	w := newWorld(t, 10)
	kept := w.checkpoint(10)
	old := w.file(t, w.checkpoint(6), w.leaves[:6])

	fork := newWorldOf(w)
	fork.leaves, fork.hash = fork.leaves[:6:6], hashOf(w.leaves[5])
	for range 10 {
		fork.append(w.key, auditlog.UpgradeRejected, nil)
	}
	for name, c := range map[string]struct {
		file  []byte
		kept  []string
		class failure.Class
	}{
		"restored from a backup":               {old, []string{kept}, failure.AuditFork},
		"an older one, without kept":           {old, nil, ""},
		"rewritten, and longer":                {fork.file(t, fork.checkpoint(16), fork.leaves), []string{kept}, failure.AuditFork},
		"rewritten, seen by the older only":    {fork.file(t, fork.checkpoint(16), fork.leaves), []string{w.checkpoint(6)}, ""},
		"another at the same size":             {fork.file(t, fork.checkpoint(10), fork.leaves[:10]), []string{kept}, failure.AuditFork},
		"rows rewritten under the old note":    {fork.file(t, kept, fork.leaves[:10]), nil, failure.AuditProofInvalid},
		"a kept checkpoint that nobody signed": {old, []string{strings.Replace(kept, "10\n", "11\n", 1)}, failure.AuditProofInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := history.VerifyFile(ctx, history.Trust{Root: w.Root, Kept: c.kept}, bytes.NewReader(c.file))
			if failure.ClassOf(err) != c.class || (err == nil) != (c.class == "") {
				t.Errorf("class %q is wanted, not %v", c.class, err)
			}
		})
	}
}

func hashOf(leaf []byte) envelope.Digest {
	_, env, err := auditlog.ParseLeaf(leaf)
	if err != nil {
		panic(err)
	}
	return env.PayloadDigest()
}

func TestFileForm(t *testing.T) {
	w := newWorld(t, 3)
	good := w.file(t, w.checkpoint(3), w.leaves)
	trust := history.Trust{Root: w.Root}
	for name, c := range map[string]struct {
		file  []byte
		class failure.Class
	}{
		"empty":                 {nil, failure.PayloadMalformed},
		"cut in the header":     {good[:100], failure.PayloadMalformed},
		"cut in a leaf":         {good[:len(good)-10], failure.PayloadMalformed},
		"no newline at the end": {good[:len(good)-1], failure.PayloadMalformed},
		"an empty line":         {append(slices.Clone(good), '\n'), failure.AuditProofInvalid},
		"another media type":    {bytes.Replace(good, []byte("audit-log.v1"), []byte("audit-log.v2"), 1), failure.PayloadMalformed},
		"another Kernel":        {bytes.Replace(good, []byte(`"kernelId":"kernel-test"`), []byte(`"kernelId":"kernel-prod"`), 1), failure.BindingMismatch},
		"another size":          {bytes.Replace(good, []byte(`"size":3`), []byte(`"size":4`), 1), failure.BindingMismatch},
		"a space":               {append([]byte{' '}, good...), failure.PayloadNotCanonical},
		"an endless line":       {bytes.Repeat([]byte("a"), 70<<20), failure.PayloadMalformed},
		"an endless leaf":       {append(slices.Clone(good[:bytes.IndexByte(good, '\n')+1]), bytes.Repeat([]byte("a"), 1<<20)...), failure.PayloadMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := history.VerifyFile(ctx, trust, bytes.NewReader(c.file)); failure.ClassOf(err) != c.class {
				t.Errorf("class %q is wanted, not %v", c.class, err)
			}
		})
	}
	if _, err := history.VerifyFile(ctx, history.Trust{}, bytes.NewReader(good)); failure.ClassOf(err) != failure.RegistryRootMismatch {
		t.Errorf("another root: %v", err)
	}
	broke := errors.New("the disk broke")
	r := io.MultiReader(bytes.NewReader(good[:len(good)-10]), errReader{broke})
	if _, err := history.VerifyFile(ctx, trust, r); !errors.Is(err, broke) || failure.ClassOf(err) != "" {
		t.Errorf("a reading error is told as %v", err)
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := history.VerifyFile(cancelled, trust, bytes.NewReader(good)); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }
