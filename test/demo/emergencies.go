package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
)

// ratification is the window of the demo's emergencies, which the registry
// fixes: time for three people on a slow machine.
const ratification = 15 * time.Second

// ratified plays an emergency that three people ratify.
func (d *demo) ratified(ctx context.Context) (*proposal, error) {
	step("10. upgrade-46: an emergency. It is live before anyone has approved it, and three ratify it afterwards.")
	p, err := d.propose(ctx, "upgrade-46", "version 46", "upgrade-46: close a hole that is being used")
	if err != nil {
		return nil, err
	}
	say("A division lead tries to apply it alone, and is refused:")
	if err := d.refused(ctx, "role_not_allowed", "divlead-1", "emergency", "trigger", p.id, "--reason", "No time to lose",
		"--artifact", p.artifact, "--key", d.keys["divlead-1"]); err != nil {
		return nil, err
	}
	say("The superadmin and the security engineer may do it, each alone. They have to say why:")
	if err := d.breakGlass(ctx, p, "sec-eng", "version 46"); err != nil {
		return nil, err
	}
	say("It counts as an emergency until three have ratified it, for which they have %d seconds:", int(ratification.Seconds()))
	if err := d.approve(ctx, p, "ryan", "tech-lead", "divlead-2"); err != nil {
		return nil, err
	}
	if err := d.wait(ctx, p, "completed"); err != nil {
		return nil, err
	}
	if err := d.expect("version 46"); err != nil {
		return nil, err
	}
	say("Three have ratified it, so it stays. Afterwards anyone may read what happened:")
	if err := d.report(ctx, p); err != nil {
		return nil, err
	}
	return p, d.prove(ctx, p)
}

// breakGlass applies a proposal as an emergency.
func (d *demo) breakGlass(ctx context.Context, p *proposal, who, title string) error {
	before := d.page()
	if _, err := d.kgctl(ctx, who, "emergency", "trigger", p.id, "--reason", "Somebody is using the hole now", "--artifact", p.artifact, "--key", d.keys[who]); err != nil {
		return err
	}
	if err := d.wait(ctx, p, "emergency_applied"); err != nil {
		return err
	}
	if err := d.expect(title); err != nil {
		return err
	}
	say("The page showed %s and shows %s now, without a single approval.", before, quoted(title))
	return nil
}

// report shows the rows of the emergency's report that say who, why and what.
func (d *demo) report(ctx context.Context, p *proposal) error {
	d.show("kgctl", "emergency", "report", p.id)
	out, err := d.run(ctx, d.environment("ops"), "kgctl", "emergency", "report", p.id)
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(out)) {
		if words := strings.Fields(line); len(words) > 0 && slices.Contains([]string{"who", "why", "triggered", "ratified", "approver"}, words[0]) {
			fmt.Print("        " + line)
		}
	}
	return nil
}

// unratified plays an emergency that the Kernel takes back.
func (d *demo) unratified(ctx context.Context, base *proposal) error {
	step("11. upgrade-47: an emergency that too few ratify. The Kernel takes it back by itself.")
	p, err := d.propose(ctx, "upgrade-47", "version 47", "upgrade-47: no time to ask")
	if err != nil {
		return err
	}
	if err := d.breakGlass(ctx, p, "ryan", "version 47"); err != nil {
		return err
	}
	say("Two ratify it. A third is asked, and does not:")
	if err := d.approve(ctx, p, "ryan", "tech-lead"); err != nil {
		return err
	}
	say("Now nobody does anything. We wait until the %d seconds have passed.", int(ratification.Seconds()))
	if err := d.wait(ctx, p, "rolled_back"); err != nil {
		return err
	}
	if err := d.expect("version 46"); err != nil {
		return err
	}
	undo, err := d.kernels(ctx, "rollback-of-47", base.artifact)
	if err != nil {
		return err
	}
	say("The window has closed. The guard has seen that by its own clock and signed the way back: the page shows %s again.", d.page())
	say("Both bundles stay, the emergency's and its rollback's:")
	if err := d.prove(ctx, p); err != nil {
		return err
	}
	return d.prove(ctx, undo)
}

// kernels waits for a rollback by the Kernel itself, as the newest upgrade.
func (d *demo) kernels(ctx context.Context, name, artifact string) (*proposal, error) {
	var p *proposal
	var failed error
	err := d.until(ctx, "the Kernel's "+name, func() bool {
		p, failed = d.newestIfKernels(ctx)
		return failed != nil || p != nil
	})
	if err = errors.Join(failed, err); err != nil {
		return nil, err
	}
	p.name, p.artifact = name, artifact
	return p, nil
}

func (d *demo) newestIfKernels(ctx context.Context) (*proposal, error) {
	out, err := d.quietly(ctx, "ops", "upgrade", "list", "--target", "web", "--limit", "1")
	if err != nil {
		return nil, err
	}
	var list struct {
		Upgrades []struct {
			ID         string `json:"id"`
			ProposedBy string `json:"proposedBy"`
			Type       string `json:"type"`
		} `json:"upgrades"`
	}
	if err := json.Unmarshal(out, &list); err != nil {
		return nil, err
	}
	for _, u := range list.Upgrades {
		if u.ProposedBy == "kernel" && u.Type == "rollback" {
			return &proposal{id: u.ID}, nil
		}
	}
	return nil, nil
}
