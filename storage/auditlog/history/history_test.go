package history_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/kernelgate/kernelgate/keyregistry/registrytest"
	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/storage/auditlog/history"
	"github.com/kernelgate/kernelgate/storage/auditlog/logtest"
)

var ctx = context.Background()

func TestValidLog(t *testing.T) {
	w := logtest.New(9000) // more than two blocks
	second := registrytest.Key(signer.Ed25519)
	w.Delegate(second, w.Audit())
	w.Append(w.Key, auditlog.UpgradeApplied, nil)
	w.Append(second, "upgrade.of_a_later_version", nil)
	var last int64
	trust := history.Trust{Root: w.Root, Kept: []string{w.Checkpoint(9003), w.Checkpoint(1), w.Checkpoint(4096), w.Checkpoint(4097)},
		Progress: func(done, size int64) {
			if done <= last || size != 9003 {
				t.Errorf("progress goes from %d to %d of %d", last, done, size)
			}
			last = done
		}}
	v, err := history.VerifyFile(ctx, trust, bytes.NewReader(w.File(w.Checkpoint(9003), w.Leaves)))
	if err != nil {
		t.Fatal(err)
	}
	if v.Size != 9003 || v.EventKeys != 2 || v.Unknown != 1 || v.Kept != 4 || last != 9003 || v.From != w.Start || v.To != w.Start.Add(9002) || v.Root != logtest.Root(w.Leaves) {
		t.Errorf("the verdict is %+v after progress %d", v, last)
	}
}

// Each way to change the rows, by who has no key: found, and named.
func TestChangedRows(t *testing.T) {
	w := logtest.New(20)
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
			v := w.Fork(20)
			v.Append(w.Key, auditlog.UpgradeCreated, nil)
			return v.Leaves
		}, 20, failure.AuditProofInvalid},
		"swapped":          {func(l [][]byte) [][]byte { l[3], l[4] = l[4], l[3]; return l }, 3, failure.AuditChainBroken},
		"a bit":            {func(l [][]byte) [][]byte { l[5] = flip(l[5]); return l }, 5, failure.SignatureInvalid},
		"a space":          {func(l [][]byte) [][]byte { l[5] = append(slices.Clone(l[5]), ' '); return l }, 5, failure.PayloadNotCanonical},
		"garbage":          {func(l [][]byte) [][]byte { l[5] = []byte("{}"); return l }, 5, failure.EnvelopeMalformed},
		"empty":            {func(l [][]byte) [][]byte { l[5] = nil; return l }, 5, failure.EnvelopeMalformed},
		"another's, chain": {func(l [][]byte) [][]byte { l[5] = logtest.New(6).Leaves[5]; return l }, 5, failure.AuditChainBroken},
	} {
		t.Run(name, func(t *testing.T) {
			leaves := c.change(slices.Clone(w.Leaves))
			_, err := history.VerifyFile(ctx, history.Trust{Root: w.Root}, bytes.NewReader(w.File(w.Checkpoint(20), leaves)))
			wantRow(t, err, c.row, c.class)
		})
	}
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
	for name, c := range map[string]struct {
		add   func(w *logtest.Log)
		class failure.Class
	}{
		"time goes back": {func(w *logtest.Log) { e := w.Next(); e.Time = w.Start.Add(1); w.Put(w.Key, e) }, failure.AuditChainBroken},
		"seq skips":      {func(w *logtest.Log) { e := w.Next(); e.Seq = 4; w.Put(w.Key, e) }, failure.AuditChainBroken},
		"other Kernel":   {func(w *logtest.Log) { e := w.Next(); e.KernelID = "other"; w.Put(w.Key, e) }, failure.AuditChainBroken},
		"other prevHash": {func(w *logtest.Log) { e := w.Next(); e.PrevHash[0] ^= 1; w.Put(w.Key, e) }, failure.AuditChainBroken},
		"key's day over": {func(w *logtest.Log) {
			e := w.Next()
			e.Time = w.Start.Add(auditlog.MaxEventKeySeconds + 1)
			w.Put(w.Key, e)
		}, failure.KeyOutsideValidity},
		"unknown key": {func(w *logtest.Log) { w.Put(registrytest.Key(signer.Ed25519), w.Next()) }, failure.AuditChainBroken},
		"delegated by itself": {func(w *logtest.Log) { key := registrytest.Key(signer.Ed25519); w.Delegate(key, key) },
			failure.AuditProofInvalid},
		"delegated by the records key's holder": {func(w *logtest.Log) { w.Delegate(registrytest.Key(signer.Ed25519), w.Signers["sec-eng"]) },
			failure.AuditProofInvalid},
		"delegation of another key": {func(w *logtest.Log) {
			other := registrytest.Key(signer.Ed25519)
			e := w.Next()
			e.Type, e.Data = auditlog.KeyDelegated, auditlog.Data{auditlog.DataDelegation: w.Delegation(other, w.Audit())}
			w.Put(w.Key, e)
		}, failure.AuditProofInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			w := logtest.New(3)
			c.add(w)
			w.Append(w.Key, auditlog.UpgradeCreated, nil)
			_, err := history.VerifyFile(ctx, history.Trust{Root: w.Root}, bytes.NewReader(w.File(w.Checkpoint(5), w.Leaves)))
			wantRow(t, err, 3, c.class)
		})
	}
}

// An event signed by a key that is delegated only later in the log is refused,
// however soon the delegation follows.
func TestDelegationDoesNotReachBack(t *testing.T) {
	w := logtest.New(3)
	late := registrytest.Key(signer.Ed25519)
	w.Append(late, auditlog.UpgradeCreated, nil)
	w.Delegate(late, w.Audit())
	_, err := history.VerifyFile(ctx, history.Trust{Root: w.Root}, bytes.NewReader(w.File(w.Checkpoint(5), w.Leaves)))
	wantRow(t, err, 3, failure.AuditChainBroken)
}

// A key that ended signs nothing, also where its successor is known.
func TestEndedKey(t *testing.T) {
	w := logtest.New(3)
	e := w.Next()
	e.Time = w.Start.Add(auditlog.MaxEventKeySeconds + 1)
	next := registrytest.Key(signer.Ed25519)
	w.Start = e.Time.Add(-3)
	w.Delegate(next, w.Audit())
	w.Append(w.Key, auditlog.UpgradeCreated, nil)
	_, err := history.VerifyFile(ctx, history.Trust{Root: w.Root}, bytes.NewReader(w.File(w.Checkpoint(5), w.Leaves)))
	wantRow(t, err, 4, failure.AuditChainBroken)
}

func TestForks(t *testing.T) {
	w := logtest.New(10)
	kept := w.Checkpoint(10)
	old := w.File(w.Checkpoint(6), w.Leaves[:6])

	fork := w.Fork(6)
	for range 10 {
		fork.Append(w.Key, auditlog.UpgradeRejected, nil)
	}
	for name, c := range map[string]struct {
		file  []byte
		kept  []string
		class failure.Class
	}{
		"restored from a backup":               {old, []string{kept}, failure.AuditFork},
		"an older one, without kept":           {old, nil, ""},
		"rewritten, and longer":                {fork.File(fork.Checkpoint(16), fork.Leaves), []string{kept}, failure.AuditFork},
		"rewritten, seen by the older only":    {fork.File(fork.Checkpoint(16), fork.Leaves), []string{w.Checkpoint(6)}, ""},
		"another at the same size":             {fork.File(fork.Checkpoint(10), fork.Leaves[:10]), []string{kept}, failure.AuditFork},
		"rows rewritten under the old note":    {fork.File(kept, fork.Leaves[:10]), nil, failure.AuditProofInvalid},
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

// A log whose newest event is too old is refused by who asks for a fresh one.
func TestSilence(t *testing.T) {
	w := logtest.New(4)
	file, newest := w.File(w.Checkpoint(4), w.Leaves), w.Start.Add(3)
	for since, class := range map[envelope.Time]failure.Class{{}: "", newest.Add(-1): "", newest: "", newest.Add(1): failure.TimeInvalid} {
		_, err := history.VerifyFile(ctx, history.Trust{Root: w.Root, Since: since}, bytes.NewReader(file))
		if failure.ClassOf(err) != class || (err == nil) != (class == "") {
			t.Errorf("since %s: %v", since, err)
		}
	}
}

func TestFileForm(t *testing.T) {
	w := logtest.New(3)
	good := w.File(w.Checkpoint(3), w.Leaves)
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

// Files that mean to cost: each is refused at its first bad row, and in memory
// that does not grow with it.
func TestHostileFiles(t *testing.T) {
	w := logtest.New(3)
	good := w.File(w.Checkpoint(3), w.Leaves)
	head := good[:bytes.IndexByte(good, '\n')+1]
	deep := strings.Repeat(`[`, 30_000) + strings.Repeat(`]`, 30_000)
	endless := func(text string) io.Reader { return io.LimitReader(repeat(text), 2<<30) }
	after := func(r io.Reader) io.Reader { return io.MultiReader(bytes.NewReader(head), r) }
	for name, c := range map[string]struct {
		file  io.Reader
		class failure.Class
	}{
		"a deep header":                {strings.NewReader(strings.Repeat(`[`, 1<<20) + "\n"), failure.PayloadMalformed},
		"a doubled member":             {strings.NewReader(`{"kernelId":"kernel-test",` + string(head[1:])), failure.PayloadMalformed},
		"an unknown member":            {strings.NewReader(`{"a":1,` + string(head[1:])), failure.PayloadMalformed},
		"an endless header":            {endless("x"), failure.PayloadMalformed},
		"a deep leaf":                  {after(strings.NewReader(deep + "\n")), failure.EnvelopeMalformed},
		"an endless leaf":              {after(endless("x")), failure.PayloadMalformed},
		"a leaf with a doubled member": {after(strings.NewReader(`{"payload":"e30=",` + string(w.Leaves[0][1:]) + "\n")), failure.EnvelopeMalformed},
		"endless empty lines":          {after(endless("\n")), failure.EnvelopeMalformed},
		"endless copies of one leaf":   {after(endless(string(w.Leaves[0]) + "\n")), failure.AuditChainBroken},
		"compressed":                   {strings.NewReader("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff\n"), failure.PayloadMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := history.VerifyFile(ctx, history.Trust{Root: w.Root}, c.file)
			runtime.ReadMemStats(&after)
			if failure.ClassOf(err) != c.class {
				t.Errorf("class %q is wanted, not %v", c.class, err)
			}
			// A header may have 64 MiB; a reader that goes on has two GiB to read.
			if made := after.TotalAlloc - before.TotalAlloc; made > 700<<20 {
				t.Errorf("%d MiB were allocated", made>>20)
			}
		})
	}
}

// repeat is a text without end.
type repeat string

func (r repeat) Read(b []byte) (n int, err error) {
	for n < len(b) {
		n += copy(b[n:], r)
	}
	return n, nil
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }
