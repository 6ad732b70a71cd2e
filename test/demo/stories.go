package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
)

// proposal is an upgrade as the demo knows it.
type proposal struct {
	name, id string
	artifact string // the file whose bytes become live
}

// stories plays the requirement's example, and then what it says of rollbacks,
// emergencies and approvers who leave.
func (d *demo) stories(ctx context.Context) error {
	base, err := d.ordinary(ctx)
	if err != nil {
		return err
	}
	if err := d.broken(ctx, base); err != nil {
		return err
	}
	ratified, err := d.ratified(ctx)
	if err != nil {
		return err
	}
	if err := d.unratified(ctx, ratified); err != nil {
		return err
	}
	last, err := d.rotated(ctx)
	if err != nil {
		return err
	}
	return d.audited(ctx, last)
}

// ordinary plays what goes its way by three of five, and returns what is live
// at the end.
func (d *demo) ordinary(ctx context.Context) (*proposal, error) {
	step("4. A baseline release. Nothing is live yet: the page shows %s.", d.page())
	base, err := d.propose(ctx, "baseline", "version 1", "The first page")
	if err != nil {
		return nil, err
	}
	if err := d.through(ctx, base, "version 1", "ryan", "divlead-2", "tech-lead"); err != nil {
		return nil, err
	}
	say("The last command needs no network: the bundle proves by itself, from the pinned root, that the upgrade was authorised.")
	if err := d.keepCheckpoint(); err != nil {
		return nil, err
	}
	step("5. upgrade-42: three of five approve, the change goes live.")
	next, err := d.propose(ctx, "upgrade-42", "version 42", "upgrade-42: the page that everybody waits for", "--test", "smoke")
	if err != nil {
		return nil, err
	}
	say("It needs the test \"smoke\"; without its result it waits. The build farm signs that it passed.")
	if _, err := d.kgctl(ctx, "ci", "test", "submit", next.id, "--name", "smoke", "--result", "passed", "--key", d.keys["ci"]); err != nil {
		return nil, err
	}
	if err := d.through(ctx, next, "version 42", "ryan", "divlead-1", "sec-eng"); err != nil {
		return nil, err
	}
	if err := d.rejected(ctx); err != nil {
		return nil, err
	}
	if err := d.forged(ctx); err != nil {
		return nil, err
	}
	return base, d.takenBack(ctx, base, next)
}

// propose has the technical lead sign and submit an upgrade to a new page.
func (d *demo) propose(ctx context.Context, name, title, why string, more ...string) (*proposal, error) {
	return d.proposeArchive(ctx, name, title, why, true, more...)
}

func (d *demo) proposeArchive(ctx context.Context, name, title, why string, styled bool, more ...string) (*proposal, error) {
	data, err := archive(title, styled)
	if err != nil {
		return nil, err
	}
	p := &proposal{name: name, artifact: d.path("artifacts", name+".tar.gz")}
	if err := d.leave("artifacts/"+name+".tar.gz", data, 0o644); err != nil {
		return nil, err
	}
	say("tech-lead proposes %q; kgctl hashes the artifact, shows the manifest and signs it on the token.", title)
	args := append([]string{"upgrade", "create", "--type", "code", "--target", "web", "--manifest-id", "site", "--rationale", why,
		"--component", "web", "--downtime", "none", "--artifact", p.artifact, "--key", d.keys["tech-lead"]}, more...)
	if err := d.submit(ctx, p, args...); err != nil {
		return nil, err
	}
	return p, nil
}

// submit runs the command that proposes, and opens the draft for approvals.
func (d *demo) submit(ctx context.Context, p *proposal, args ...string) error {
	out, err := d.kgctl(ctx, "tech-lead", args...)
	if err != nil {
		return err
	}
	var receipt struct {
		ID string `json:"upgradeId"`
	}
	if err := json.Unmarshal(out, &receipt); err != nil || receipt.ID == "" {
		return fmt.Errorf("kgctl %s %s: %w: %s", args[0], args[1], err, out)
	}
	p.id = receipt.ID
	_, err = d.kgctl(ctx, "tech-lead", "upgrade", "submit", p.id)
	return err
}

// through takes a proposal to completion, and looks at the page before the
// third approval and after it.
func (d *demo) through(ctx context.Context, p *proposal, title string, approvers ...string) error {
	before := d.page()
	for i, who := range approvers {
		if i == len(approvers)-1 {
			if err := d.wait(ctx, p, "pending_approval"); err != nil {
				return err
			}
			if now := d.page(); now != before {
				return fmt.Errorf("%s: the page changed to %q before there was a quorum", p.name, now)
			}
			say("Two approvals change nothing: the page still shows %s.", before)
		}
		if err := d.approve(ctx, p, who); err != nil {
			return err
		}
	}
	if err := d.wait(ctx, p, "completed"); err != nil {
		return err
	}
	if err := d.expect(title); err != nil {
		return err
	}
	say("The guard has checked the three signatures itself; only then did the Kernel's token sign. The page showed %s and shows %s now.", before, quoted(title))
	return d.prove(ctx, p)
}

// approve has people approve a proposal, one after the other.
func (d *demo) approve(ctx context.Context, p *proposal, people ...string) error {
	for _, who := range people {
		if _, err := d.kgctl(ctx, who, "approve", p.id, "--artifact", p.artifact, "--key", d.keys[who]); err != nil {
			return err
		}
	}
	return nil
}

// prove leaves the bundle and checks it as an outsider does: offline, from the
// pinned root alone.
func (d *demo) prove(ctx context.Context, p *proposal) error {
	bundle := d.path("bundles", p.name+".bundle.json")
	if err := os.MkdirAll(filepath.Dir(bundle), 0o755); err != nil {
		return err
	}
	if _, err := d.kgctl(ctx, "ops", "bundle", "get", p.id, "-f", bundle); err != nil {
		return err
	}
	check := []string{"--root", d.root, "--artifact", p.artifact, bundle}
	d.show(append([]string{"kgverify"}, check...)...)
	out, err := d.run(ctx, nil, "kgverify", check...)
	if err != nil {
		return err
	}
	verdict, _, _ := strings.Cut(string(out), "\n")
	fmt.Println("        " + verdict)
	return nil
}

// state is the upgrade's, as kgctl shows it.
func (d *demo) state(ctx context.Context, p *proposal) (state, reason string, err error) {
	out, err := d.run(ctx, d.environment("ops"), "kgctl", "upgrade", "show", p.id, "-o", "json")
	if err != nil {
		return "", "", err
	}
	var shown struct {
		State  string `json:"state"`
		Reason string `json:"reason"`
	}
	err = json.Unmarshal(out, &shown)
	return shown.State, shown.Reason, err
}

// ends are the states that nothing leads out of.
var ends = []string{"completed", "rejected", "expired", "rolled_back", "apply_failed"}

func (d *demo) wait(ctx context.Context, p *proposal, want string) error {
	var state, reason string
	var failed error
	err := d.until(ctx, p.name+" is "+want, func() bool {
		state, reason, failed = d.state(ctx, p)
		return failed != nil || state == want || slices.Contains(ends, state)
	})
	switch {
	case failed != nil:
		return failed
	case state != want:
		return fmt.Errorf("%s is %s, not %s: %s: %w", p.name, state, want, reason, err)
	}
	return nil
}

func (d *demo) rejected(ctx context.Context) error {
	step("6. upgrade-43: three of five reject.")
	p, err := d.propose(ctx, "upgrade-43", "nobody wants this", "upgrade-43: a page that nobody wants")
	if err != nil {
		return err
	}
	for _, who := range []string{"ryan", "sec-eng", "divlead-2"} {
		if _, err := d.kgctl(ctx, who, "reject", p.id, "--reason", "Not this one", "--artifact", p.artifact, "--key", d.keys[who]); err != nil {
			return err
		}
	}
	if err := d.wait(ctx, p, "rejected"); err != nil {
		return err
	}
	say("It is rejected, for good. The page still shows %s.", d.page())
	return nil
}

func (d *demo) takenBack(ctx context.Context, base, next *proposal) error {
	step("8. The rollback. Taking upgrade-42 back needs three of five as well.")
	undo := &proposal{name: "rollback-of-42", artifact: base.artifact}
	if err := d.submit(ctx, undo, "rollback", "create", next.id, "--reason", "The old page was nicer", "--key", d.keys["tech-lead"]); err != nil {
		return err
	}
	if err := d.through(ctx, undo, "version 1", "divlead-1", "sec-eng", "tech-lead"); err != nil {
		return err
	}
	return d.wait(ctx, next, "rolled_back")
}
