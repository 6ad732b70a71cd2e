package workflow_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"
	"pgregory.net/rapid"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// soakVariable names how long TestChaos goes on, such as 10m, or how many runs
// it makes, such as 2000; without it, a few seconds.
const soakVariable = "KERNELGATE_SOAK"

// pace is when to stop: after a number of runs, where one is set, or at a time.
type pace struct {
	runs   int
	budget time.Duration
}

func readPace(t *testing.T) (p pace) {
	t.Helper()
	p.budget = 6 * time.Second
	text := os.Getenv(soakVariable)
	if text == "" {
		return p
	}
	var err error
	if p.runs, err = strconv.Atoi(text); err == nil && p.runs > 0 {
		p.budget = 24 * time.Hour
		return p
	}
	if p.budget, err = time.ParseDuration(text); err != nil {
		t.Fatalf("%s is a duration or a number of runs: %v", soakVariable, err)
	}
	return p
}

// TestChaos plays many upgrades with lost, doubled and reordered records,
// restarts, a guard and targets whose answers are lost, rotations and clock
// steps, on the real store and guard, against a model of who has agreed to
// what. Nothing is applied without three whose agreement counts, or a trigger
// that may be; nothing twice or by half; what was acknowledged is never lost; and
// once the faults end, everything comes to rest. Each lane prints the seed that it
// starts from, and of a failure rapid prints that of the run (CONTRIBUTING.md).
func TestChaos(t *testing.T) {
	p := readPace(t)
	lanes := runtime.GOMAXPROCS(0)
	checks := 1000000 // the budget ends it
	if p.runs > 0 {
		checks = (p.runs + lanes - 1) / lanes
	}
	for name, value := range map[string]int{"rapid.checks": checks, "rapid.steps": 50} {
		if err := flag.Set(name, strconv.Itoa(value)); err != nil {
			t.Fatal(err)
		}
	}
	seed := seeds(t)
	begin := time.Now()
	var mu sync.Mutex
	runs, met := 0, map[string]int{}
	t.Run("lanes", func(t *testing.T) {
		for i := range lanes {
			t.Run(strconv.Itoa(i), func(t *testing.T) {
				t.Parallel()
				started := seed(t)
				defer started()
				first := true
				rapid.Check(t, func(rt *rapid.T) {
					started()
					if !first && time.Since(begin) > p.budget {
						return
					}
					first = false
					seen := playChaos(t, rt)
					mu.Lock()
					defer mu.Unlock()
					runs++
					for _, what := range seen {
						met[what]++
					}
				})
			})
		}
	})
	t.Logf("%d runs in %s met %v", runs, time.Since(begin).Round(time.Second), met)
	for what, atLeast := range map[string]int{"completed": 5, "applied": 5, "quorum": 5, "emergency": 100, "guard.denied": 100, "apply_failed": 100} {
		if met[what] == 0 && runs > atLeast {
			t.Errorf("no run met %s: the test tests nothing", what)
		}
	}
}

// seeds starts each lane from a seed of its own, and prints it; where -rapid.seed
// is given, from that one. rapid reads the flag once, before a lane's first run,
// which says by calling started that the next lane may set it.
func seeds(t *testing.T) func(*testing.T) (started func()) {
	t.Helper()
	const name = "rapid.seed"
	given := flag.Lookup(name).Value.String()
	t.Cleanup(func() { _ = flag.Set(name, given) })
	var mu sync.Mutex
	return func(t *testing.T) func() {
		seed := given
		if seed == "0" {
			seed = strconv.FormatUint(rand.Uint64N(math.MaxUint64)+1, 10)
		}
		mu.Lock()
		started := sync.OnceFunc(mu.Unlock)
		if err := flag.Set(name, seed); err != nil {
			started()
			t.Fatal(err)
		}
		t.Logf("from -rapid.seed=%s", seed)
		return started
	}
}

// playChaos is one run; it returns what the run met.
func playChaos(t *testing.T, rt *rapid.T) []string {
	c := newChaos(t, rt)
	defer c.close()
	rt.Repeat(map[string]func(*rapid.T){
		"propose": c.propose, "decide": c.decide, "deliver": c.deliver, "deliver more": c.deliver, "decide more": c.decide, "drive": c.drive, "drive again": c.drive,
		"restart": c.restart, "clock": c.tick, "rotate": c.rotate, "emergency": c.emergency, "faults": c.faults,
		"": func(*rapid.T) { c.check() },
	})
	c.settle()
	return c.met()
}

// chaosDir is where a run's files are: in memory where the system has that, for
// nothing here is about what a disk keeps when the power goes.
func chaosDir() (string, error) {
	if dir, err := os.MkdirTemp("/dev/shm", "kernelgate-chaos"); err == nil {
		return dir, nil
	}
	return os.MkdirTemp("", "kernelgate-chaos")
}

// rapidTB is the outer test, but that failures are rapid's, which shrinks them.
type rapidTB struct {
	testing.TB
	rt       *rapid.T
	dir      string
	cleanups []func()
}

func (r *rapidTB) Helper()                   {}
func (r *rapidTB) Cleanup(f func())          { r.cleanups = append(r.cleanups, f) }
func (r *rapidTB) TempDir() string           { return r.dir }
func (r *rapidTB) Fatal(args ...any)         { r.rt.Fatal(args...) }
func (r *rapidTB) Fatalf(f string, a ...any) { r.rt.Fatalf(f, a...) }
func (r *rapidTB) Errorf(f string, a ...any) { r.rt.Errorf(f, a...) }
func (r *rapidTB) Context() context.Context  { return context.Background() }

// flaky loses the guard's questions and answers.
type flaky struct {
	workflow.Guard
	lose func() (before, after bool)
}

func (f flaky) through(call func() error) error {
	before, after := f.lose()
	if before {
		return workflow.ErrGuardUnavailable
	}
	err := call()
	if after {
		return workflow.ErrGuardUnavailable
	}
	return err
}

func (f flaky) SignRecord(ctx context.Context, b upgrade.QuorumBundle, p workflow.LogProof) (env envelope.Envelope, err error) {
	err = f.through(func() (err error) { env, err = f.Guard.SignRecord(ctx, b, p); return err })
	return env, err
}

func (f flaky) SignRatification(ctx context.Context, b upgrade.QuorumBundle, p workflow.LogProof) (env envelope.Envelope, err error) {
	err = f.through(func() (err error) { env, err = f.Guard.SignRatification(ctx, b, p); return err })
	return env, err
}

func (f flaky) SignRollback(ctx context.Context, m upgrade.Manifest, p *workflow.LogProof) (env envelope.Envelope, err error) {
	err = f.through(func() (err error) { env, err = f.Guard.SignRollback(ctx, m, p); return err })
	return env, err
}

func (f flaky) SignCheckpoint(ctx context.Context, size int64, root tlog.Hash, consistency [][]byte) (note string, err error) {
	err = f.through(func() (err error) { note, err = f.Guard.SignCheckpoint(ctx, size, root, consistency); return err })
	return note, err
}

func (f flaky) Outcome(ctx context.Context, p workflow.LogProof) error {
	return f.through(func() error { return f.Guard.Outcome(ctx, p) })
}

// said is one person's decision, as the model knows it.
type said struct {
	kind     string
	person   string
	upgrade  envelope.UUID
	at       envelope.Time
	registry envelope.Digest
	env      envelope.Envelope
}

type chaos struct {
	*house
	tb      *rapidTB
	faulty  bool
	diceMu  sync.Mutex
	dice    uint32
	open    []*proposal
	mail    []said
	acked   []said
	bundles map[envelope.Digest]bool // that were checked
	trigger map[envelope.UUID]bool   // acknowledged triggers
}

func newChaos(t *testing.T, rt *rapid.T) *chaos {
	dir, err := chaosDir()
	if err != nil {
		rt.Fatal(err)
	}
	tb := &rapidTB{TB: t, rt: rt, dir: dir}
	c := &chaos{house: newHouse(tb), tb: tb, bundles: map[envelope.Digest]bool{}, trigger: map[envelope.UUID]bool{}}
	c.dice = rapid.Uint32().Draw(rt, "dice")
	c.guard = flaky{c.guard, func() (bool, bool) { return c.roll(5), c.roll(5) }}
	c.depot.fault = func(workflow.Change) error {
		if c.roll(12) {
			return errors.New("the target is away")
		}
		return nil
	}
	c.depot.lost = func() bool { return c.roll(4) }
	c.engine = c.newEngine()
	c.faulty = c.dice%2 == 0
	// Something is live, so that there is something to go back to.
	base := c.house.propose(c.draft(nil))
	for _, who := range []string{"bob", "cleo", "dan"} {
		env := c.approval(base, who, false)
		c.submit(workflow.KindApproval, env)
		c.acked = append(c.acked, said{workflow.KindApproval, who, base.UpgradeID, c.now(), c.reg, env})
	}
	for range 4 {
		_ = c.engine.Drive(context.Background())
	}
	return c
}

func (c *chaos) close() {
	for _, f := range slices.Backward(c.tb.cleanups) {
		f()
	}
	_ = os.RemoveAll(c.tb.dir)
}

// roll is true about once in n, while there are faults.
func (c *chaos) roll(n uint32) bool {
	c.diceMu.Lock() // steps of several upgrades run at once
	defer c.diceMu.Unlock()
	c.dice = c.dice*1664525 + 1013904223
	return c.faulty && (c.dice>>16)%n == 0
}

func (c *chaos) faults(*rapid.T) { c.faulty = !c.faulty }

func (c *chaos) propose(rt *rapid.T) {
	if len(c.open) >= 8 {
		return
	}
	m := c.draft(nil)
	m.Target.Name = rapid.SampledFrom([]envelope.ID{"web", "api"}).Draw(rt, "target")
	m.BaseRevision, _ = c.depot.Live(context.Background(), m.Target.Name)
	env := c.seal("ann", envelope.TypeManifest, m)
	if _, err := c.engine.Submit(context.Background(), workflow.KindManifest, env); err != nil {
		return // the proposer's clock is ahead, say
	}
	if _, err := c.engine.RequestApprovals(context.Background(), m.UpgradeID, "ann"); err != nil {
		rt.Fatal(err)
	}
	c.open = append(c.open, &proposal{m, env.PayloadDigest()})
}

func (c *chaos) decide(rt *rapid.T) {
	if len(c.open) == 0 {
		return
	}
	p := c.open[rapid.IntRange(0, len(c.open)-1).Draw(rt, "upgrade")]
	for _, who := range people {
		switch rapid.IntRange(0, 11).Draw(rt, who) {
		case 0:
			env := c.seal(who, envelope.TypeRejection, upgrade.Rejection{ApproverID: envelope.ID(who), KernelID: "k1", KeyID: c.id(who),
				ManifestDigest: p.digest, Reason: "no", RegistryDigest: c.reg, RejectionTs: c.now(), UpgradeID: p.UpgradeID})
			c.mail = append(c.mail, said{workflow.KindRejection, who, p.UpgradeID, c.now(), c.reg, env})
		case 1, 2, 3, 4, 5, 6, 7, 8:
			at := c.now()
			env := c.approval(p, who, false)
			c.mail = append(c.mail, said{workflow.KindApproval, who, p.UpgradeID, at, c.reg, env})
		}
	}
}

// deliver hands over some letters in any order; each is then lost or, as it
// may come again, kept.
func (c *chaos) deliver(rt *rapid.T) {
	for range min(6, len(c.mail)) {
		i := rapid.IntRange(0, len(c.mail)-1).Draw(rt, "letter")
		l := c.mail[i]
		again := rapid.IntRange(0, 3).Draw(rt, "again") == 0
		if !again {
			c.mail = slices.Delete(c.mail, i, i+1)
		}
		if rapid.IntRange(0, 9).Draw(rt, "lost") == 0 {
			continue
		}
		res, err := c.engine.Submit(context.Background(), l.kind, l.env)
		if err == nil && res.Added {
			c.acked = append(c.acked, l)
		}
		if len(c.mail) == 0 {
			return
		}
	}
}

func (c *chaos) drive(*rapid.T) {
	for range 3 {
		_ = c.engine.Drive(context.Background()) // faults are what it is for
		c.check()
	}
}

func (c *chaos) restart(*rapid.T) {
	if err := c.store.Close(); err != nil {
		c.tb.Fatal(err)
	}
	c.openStore()
	c.engine = c.newEngine()
	c.engine.GiveUpClaims(context.Background())
}

func (c *chaos) tick(rt *rapid.T) {
	far := rapid.IntRange(0, 9).Draw(rt, "far") == 0
	steps := []int64{1, 1, 2, 5, 31, 61, 301, -2, -60}
	if far {
		steps = []int64{window + 1, ttl / 2, ttl + 1, -1000}
	}
	c.clock.step(rapid.SampledFrom(steps).Draw(rt, "seconds"))
}

func (c *chaos) rotate(rt *rapid.T) {
	if rapid.IntRange(0, 11).Draw(rt, "rotate") != 0 {
		return
	}
	c.clock.step(1)
	old := c.keys["eve"]
	doc, entry := c.successor()
	if err := c.engine.AcceptRegistry(context.Background(), entry); err != nil {
		c.keys["eve"] = old // the guard's clock is ahead, say
		return
	}
	c.doc, c.reg = doc, envelope.DigestOf(entry.Document)
}

func (c *chaos) emergency(rt *rapid.T) {
	if len(c.open) == 0 || rapid.IntRange(0, 1).Draw(rt, "really") != 0 {
		return
	}
	p := c.open[rapid.IntRange(0, len(c.open)-1).Draw(rt, "upgrade")]
	who := rapid.SampledFrom([]string{"ann", "ann", "bob", "cleo"}).Draw(rt, "who")
	if _, err := c.engine.Submit(context.Background(), workflow.KindTrigger, c.triggerBy(p, who)); err == nil {
		if who != "ann" && who != "bob" {
			c.tb.Fatalf("%s triggered an emergency", who)
		}
		c.trigger[p.UpgradeID] = true
	}
}

// agreed is who counts for an upgrade now, by what was acknowledged.
func (c *chaos) agreed(id envelope.UUID, reg envelope.Digest, at envelope.Time) (who []envelope.ID) {
	for _, person := range people {
		var newest *said
		for i, s := range c.acked {
			if s.upgrade != id || s.person != person {
				continue
			}
			if newest == nil || s.at.After(newest.at) || s.at == newest.at && (s.kind == workflow.KindRejection || newest.kind != workflow.KindRejection) {
				newest = &c.acked[i]
			}
		}
		if newest != nil && newest.kind == workflow.KindApproval && newest.registry == reg && at.Sub(newest.at) <= ttl && at.Sub(newest.at) >= -300 {
			who = append(who, envelope.ID(person))
		}
	}
	return who
}

// check holds what must hold at any moment.
func (c *chaos) check() {
	ctx := context.Background()
	err := c.store.View(ctx, func(r workflow.Reader) error {
		for _, s := range c.acked {
			if _, err := r.Record(s.env.PayloadDigest()); err != nil {
				return fmt.Errorf("an acknowledged %s of %s is lost: %w", s.kind, s.person, err)
			}
		}
		list, _, err := r.Upgrades(workflow.Page{Limit: 1000})
		for _, u := range list {
			if err == nil {
				err = c.checkUpgrade(r, u)
			}
		}
		return err
	})
	if err != nil {
		c.tb.Fatal(err)
	}
}

func (c *chaos) checkUpgrade(r workflow.Reader, u workflow.Upgrade) error {
	records, err := r.Records(u.ID)
	if err != nil {
		return err
	}
	signed := 0
	for _, rec := range records {
		switch rec.Kind {
		case workflow.KindAppliedRecord:
			signed++
		case workflow.KindQuorumBundle:
			if err := c.checkBundle(rec.Body); err != nil {
				return fmt.Errorf("upgrade %s: %w", u.ID, err)
			}
		}
	}
	if n := c.depot.applied[u.ID]; n > 1 || n > signed {
		return fmt.Errorf("upgrade %s was applied %d times with %d records", u.ID, n, signed)
	}
	return nil
}

// checkBundle compares a new bundle with the model, which knows what was
// acknowledged when it was made: nothing comes in while the engine is driven.
func (c *chaos) checkBundle(body []byte) error {
	b, err := upgrade.ParseQuorumBundle(body)
	if err != nil || c.bundles[b.Digest()] {
		return err
	}
	c.bundles[b.Digest()] = true
	kind, err := b.Case()
	if err != nil {
		return err
	}
	switch kind {
	case upgrade.CaseQuorum:
		want := c.agreed(b.Quorum.UpgradeID, b.Quorum.RegistryDigest, b.Quorum.DecidedAt)
		if len(want) < 3 || !slices.Equal(want, b.Quorum.Approvers) || b.Quorum.RegistryDigest != c.reg {
			return fmt.Errorf("decided by %v, where %v agree", b.Quorum.Approvers, want)
		}
	case upgrade.CaseEmergency:
		// The trigger's bundle is made before Submit returns.
		if t := b.EmergencyTrigger; t == nil {
			return errors.New("an emergency without a trigger")
		}
	case upgrade.CaseAutomatic:
		n := b.Emergency.QuorumBundle.Quorum
		if !c.trigger[n.UpgradeID] || b.Quorum.DecidedAt.Sub(n.DecidedAt) <= window {
			return errors.New("taken back too early, or what was no emergency")
		}
	default:
		return fmt.Errorf("a decision of case %s, which nothing leads to here", kind)
	}
	return nil
}

// met is what a run has seen: states, cases and the log's events.
func (c *chaos) met() (out []string) {
	err := c.store.View(context.Background(), func(r workflow.Reader) error {
		list, _, err := r.Upgrades(workflow.Page{Limit: 1000})
		for _, u := range list {
			out = append(out, string(u.State), string(u.Case))
			if c.depot.applied[u.ID] > 0 {
				out = append(out, "applied")
			}
			if u.Case == "" && u.BundleDigest != (envelope.Digest{}) {
				out = append(out, "quorum")
			}
		}
		events, err2 := r.Events(0, 100000)
		for _, ev := range events {
			out = append(out, ev.Event.Type)
		}
		return errors.Join(err, err2)
	})
	if err != nil {
		c.tb.Fatal(err)
	}
	return out
}

// settle ends the faults and lets time pass: all must come to rest, with what
// the store says live at each target.
func (c *chaos) settle() {
	c.faulty = false
	c.clock.step(200) // past what the clock was set back
	for i := range 40 {
		_ = c.engine.Drive(context.Background())
		c.check()
		if i%4 == 3 {
			c.clock.step(ttl/4 + 1)
		}
	}
	err := c.store.View(context.Background(), func(r workflow.Reader) error {
		list, _, err := r.Upgrades(workflow.Page{Limit: 1000})
		if err != nil {
			return err
		}
		for _, u := range list {
			switch u.State {
			case workflow.StateCompleted, workflow.StateRejected, workflow.StateExpired, workflow.StateRolledBack, workflow.StateApplyFailed:
			case workflow.StateRollbackScheduled:
				if u.NextAt != nil {
					return fmt.Errorf("upgrade %s is still %s: %s", u.ID, u.State, u.Reason)
				}
			case workflow.StateEmergencyApplied:
				events, err := r.UpgradeEvents(u.ID)
				if err != nil {
					return err
				}
				if !slices.ContainsFunc(events, func(e workflow.StoredEvent) bool { return e.Event.Type == auditlog.UpgradeRatificationFailed }) {
					return fmt.Errorf("emergency %s was forgotten", u.ID)
				}
			default:
				return fmt.Errorf("upgrade %s came to no rest: %s, %s", u.ID, u.State, u.Reason)
			}
		}
		for name, live := range c.depot.live {
			t, err := r.Target(name)
			if err != nil || t.Live != live || t.Applying != "" {
				return fmt.Errorf("%s is live at %s, the store says %s, applying %q: %w", live, name, t.Live, t.Applying, err)
			}
		}
		return nil
	})
	if err != nil {
		c.tb.Fatal(err)
	}
	c.checkAll()
}
