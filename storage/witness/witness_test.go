package witness_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/kernelgate/kernelgate/keyregistry/registrytest"
	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/storage/witness"
)

func vkeyOfWitness(w auditlog.Witness) string {
	return fmt.Sprintf("%s+%08x+%s", w.Name, w.KeyHash(), base64.StdEncoding.EncodeToString(append([]byte{4}, w.Key...)))
}

// fake is a witness that answers as the test wishes.
type fake struct {
	auditlog.Witness
	private ed25519.PrivateKey
	url     string
	asked   int
}

func newFake(t *testing.T, name string, answer func(f *fake, w http.ResponseWriter, note string)) *fake {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	check(t, err)
	f := &fake{Witness: auditlog.Witness{Name: name, Key: public}, private: private}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || r.Method != http.MethodPost || r.URL.Path != "/add-checkpoint" {
			t.Errorf("%s %s: %v", r.Method, r.URL, err)
		}
		_, note, _ := strings.Cut(string(body), "\n\n")
		f.asked++
		answer(f, w, note)
	}))
	t.Cleanup(server.Close)
	f.url = server.URL
	return f
}

func (f *fake) line(note string) string {
	text, _, _ := strings.Cut(note, "\n\n")
	blob := binary.BigEndian.AppendUint32(nil, f.KeyHash())
	blob = binary.BigEndian.AppendUint64(blob, 7)
	blob = append(blob, ed25519.Sign(f.private, fmt.Appendf(nil, "cosignature/v1\ntime 7\n%s\n", text))...)
	return "— " + f.Name + " " + base64.StdEncoding.EncodeToString(blob) + "\n"
}

func honest(f *fake, w http.ResponseWriter, note string) { _, _ = io.WriteString(w, f.line(note)) }

func policyFor(quorum string, fakes ...*fake) string {
	var names, text string
	for _, f := range fakes {
		names += " " + f.Name
		text += fmt.Sprintf("witness %s %s %s\n", f.Name, vkeyOfWitness(f.Witness), f.url)
	}
	return text + "group all-of-them " + quorum + names + "\nquorum all-of-them\n"
}

func TestQuorumOfWitnesses(t *testing.T) {
	dead := func(_ *fake, w http.ResponseWriter, _ string) { http.Error(w, "no", http.StatusInternalServerError) }
	a, b, c := newFake(t, "a.example", honest), newFake(t, "b.example", dead), newFake(t, "c.example", honest)
	log := newLog(t, registrytest.Key(signer.Ed25519))
	log.grow(t, 2)
	strict, err := witness.New(policyOf(t, policyFor("all", a, b, c)), log, nil)
	check(t, err)
	if err := strict.Cosign(t.Context()); err == nil || !strings.Contains(err.Error(), "b.example: it answered 500") {
		t.Errorf("with one of three dead: %v", err)
	}
	policy := policyOf(t, policyFor("2", a, b, c))
	two, err := witness.New(policy, log, nil)
	check(t, err)
	check(t, two.Cosign(t.Context()))
	if found, err := policy.Check(log.checkpoint(t)); err != nil || len(found) != 2 {
		t.Errorf("%v, %v", found, err)
	}
	asked := a.asked
	check(t, two.Cosign(t.Context()))
	if a.asked != asked {
		t.Error("what is cosigned is cosigned again")
	}
}

// A stricter policy is met at the same size, and what was cosigned before stays.
func TestStricterPolicy(t *testing.T) {
	a, b := newFake(t, "a.example", honest), newFake(t, "b.example", honest)
	log := newLog(t, registrytest.Key(signer.Ed25519))
	log.grow(t, 2)
	for _, fakes := range [][]*fake{{a}, {b}, {a, b}} {
		policy := policyOf(t, policyFor("all", fakes...))
		witnesses, err := witness.New(policy, log, nil)
		check(t, err)
		check(t, witnesses.Cosign(t.Context()))
		if _, err := policy.Check(log.checkpoint(t)); err != nil {
			t.Errorf("%d witnesses: %v", len(fakes), err)
		}
	}
	if a.asked != 1 || b.asked != 1 {
		t.Errorf("asked %d and %d times for the same checkpoint", a.asked, b.asked)
	}
}

// Nothing that a witness answers is believed, but its valid cosignature.
func TestWitnessAnswers(t *testing.T) {
	audit := registrytest.Key(signer.Ed25519)
	status := func(code int, media, body string) func(*fake, http.ResponseWriter, string) {
		return func(_ *fake, w http.ResponseWriter, _ string) {
			w.Header().Set("Content-Type", media)
			w.WriteHeader(code)
			_, _ = io.WriteString(w, body)
		}
	}
	const size = "text/x.tlog.size"
	for name, c := range map[string]struct {
		answer func(*fake, http.ResponseWriter, string)
		class  failure.Class
		says   string
	}{
		"of another checkpoint": {func(f *fake, w http.ResponseWriter, note string) {
			_, _ = io.WriteString(w, f.line(strings.Replace(note, "\n3\n", "\n4\n", 1)))
		}, "", "does not verify"},
		"of another key": {func(f *fake, w http.ResponseWriter, note string) {
			other := *f
			other.Key, other.private, _ = ed25519.GenerateKey(rand.Reader)
			_, _ = io.WriteString(w, other.line(note))
		}, "", "no cosignature by the key"},
		"with a carriage return": {func(f *fake, w http.ResponseWriter, note string) {
			_, _ = io.WriteString(w, strings.TrimSuffix(f.line(note), "\n")+"\r\n")
		}, "", "does not verify"},
		"a hundred of others": {func(f *fake, w http.ResponseWriter, note string) {
			_, _ = io.WriteString(w, strings.Repeat("— another.example AAAAAAAAAAAA\n", 100))
		}, "", "no cosignature by the key"},
		"empty": {status(200, "text/plain", ""), "", "no cosignature"},
		"without end of line": {func(f *fake, w http.ResponseWriter, note string) {
			_, _ = io.WriteString(w, strings.TrimSpace(f.line(note)))
		}, "", "no cosignature"},
		"endless": {status(200, "text/plain", strings.Repeat("— a b\n", 1<<14)), "", "more than"},
		"redirect": {func(_ *fake, w http.ResponseWriter, _ string) {
			w.Header().Set("Location", "http://127.0.0.1:1/")
			w.WriteHeader(307)
		}, "", "307"},
		"conflict, no size":  {status(409, "text/plain", "2\n"), "", "does not say which size"},
		"conflict, negative": {status(409, size, "-2\n"), "", "does not say which size"},
		"conflict, for ever": {status(409, size, "2\n"), "", "changes with each answer"},
		"conflict, larger":   {status(409, size, "4\n"), failure.AuditFork, "has seen 4 events"},
		"proof refused":      {status(422, "text/plain", "no"), failure.AuditFork, "does not continue"},
		"key refused":        {status(403, "text/plain", "no"), "", "audit key"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t, "w.example", c.answer)
			log := newLog(t, audit)
			log.grow(t, 3)
			witnesses, err := witness.New(policyOf(t, policyFor("any", f)), log, nil)
			check(t, err)
			before := log.checkpoint(t)
			err = witnesses.Cosign(t.Context())
			if err == nil || failure.ClassOf(err) != c.class || !strings.Contains(err.Error(), c.says) {
				t.Errorf("class %q and %q are wanted, not %v", c.class, c.says, err)
			}
			if log.checkpoint(t) != before || f.asked > 3 {
				t.Errorf("asked %d times; the checkpoint changed: %v", f.asked, log.checkpoint(t) != before)
			}
		})
	}
}

// One witness that saw another history is told, though enough others cosigned.
func TestForkIsNotOutvoted(t *testing.T) {
	a := newFake(t, "a.example", honest)
	b := newFake(t, "b.example", func(_ *fake, w http.ResponseWriter, _ string) { w.WriteHeader(http.StatusUnprocessableEntity) })
	log := newLog(t, registrytest.Key(signer.Ed25519))
	log.grow(t, 3)
	witnesses, err := witness.New(policyOf(t, policyFor("any", a, b)), log, nil)
	check(t, err)
	if err := witnesses.Cosign(t.Context()); failure.ClassOf(err) != failure.AuditFork {
		t.Error(err)
	}
}

func TestSilentWitness(t *testing.T) {
	release := make(chan struct{})
	silent := newFake(t, "s.example", func(*fake, http.ResponseWriter, string) { <-release })
	log := newLog(t, registrytest.Key(signer.Ed25519))
	log.grow(t, 3)
	witnesses, err := witness.New(policyOf(t, policyFor("any", silent)), log, &http.Client{Timeout: 50 * time.Millisecond})
	check(t, err)
	start := time.Now()
	if err := witnesses.Cosign(t.Context()); err == nil || failure.ClassOf(err) != "" || time.Since(start) > 5*time.Second {
		t.Errorf("after %s: %v", time.Since(start), err)
	}
	close(release)
}

func TestWitnessAddresses(t *testing.T) {
	f := newFake(t, "w.example", honest)
	for url, ok := range map[string]bool{"": false, "http://witness.example/": false, "https://witness.example/w1/": true, "http://localhost:1/": true, "ftp://witness.example": false, "witness.example": false} {
		text := fmt.Sprintf("witness w %s %s\nquorum w\n", vkeyOfWitness(f.Witness), url)
		if _, err := witness.New(policyOf(t, text), nil, nil); (err == nil) != ok {
			t.Errorf("%q: %v", url, err)
		}
	}
}
