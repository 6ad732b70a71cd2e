package main

import (
	"context"
	"fmt"

	"github.com/go-json-experiment/json"

	"github.com/kernelgate/kernelgate/signer"
)

// joiner takes the place of divlead-2.
var joiner = holder{"divlead-3", "Division lead 3", []string{"--role", "division-lead"}, "approver", signer.ECDSAP256SHA256}

// rotated changes an approver while an upgrade is pending.
func (d *demo) rotated(ctx context.Context) (*proposal, error) {
	step("12. upgrade-48, and a new key registry while it is pending: division lead 2 leaves, division lead 3 comes.")
	p, err := d.propose(ctx, "upgrade-48", "version 48", "upgrade-48: the first one with the new division lead")
	if err != nil {
		return nil, err
	}
	if err := d.approve(ctx, p, "ryan", "sec-eng"); err != nil {
		return nil, err
	}
	say("Two of the three have approved. Now the registry changes. The newcomer makes a key on a token of their own and enrols it:")
	if err := d.rotate(ctx); err != nil {
		return nil, err
	}
	if err := d.void(ctx, p, "ryan", "sec-eng"); err != nil {
		return nil, err
	}
	say("The two approvals were given under the old registry, so they count no more; kgctl shows them as void. Nor can the one who left approve:")
	if err := d.refused(ctx, "key_unknown", "divlead-2", "approve", p.id, "--artifact", p.artifact, "--key", d.keys["divlead-2"]); err != nil {
		return nil, err
	}
	say("Three of the new five sign again:")
	return p, d.through(ctx, p, "version 48", "ryan", "sec-eng", joiner.id)
}

// rotate puts version 2 of the registry into force.
func (d *demo) rotate(ctx context.Context) error {
	if err := d.makeKey(joiner); err != nil {
		return err
	}
	if err := d.makeToken(ctx, joiner); err != nil {
		return err
	}
	file, enrol := d.enrolment(joiner)
	if _, err := d.kgctl(ctx, joiner.id, enrol...); err != nil {
		return err
	}
	old, next := d.path("registry.json"), d.path("registry-2.json")
	r, err := d.readRegistry(ctx, old)
	if err != nil {
		return err
	}
	leaving, err := r.keyOf("divlead-2")
	if err != nil {
		return err
	}
	if _, err := d.kgctl(ctx, "ryan", "registry", "propose", "--previous", old, "--remove-key", leaving, "--enrolment", file, "-f", next); err != nil {
		return err
	}
	say("It needs three of the old five and three of the new five, here the same people, and the newcomer's proof of holding the key:")
	for _, who := range []string{"ryan", "sec-eng", "tech-lead", joiner.id} {
		if _, err := d.kgctl(ctx, who, "registry", "sign", "--previous", old, "--key", d.keys[who], next); err != nil {
			return err
		}
	}
	_, err = d.kgctl(ctx, "ryan", "registry", "publish", next)
	return err
}

// void expects that these people's approvals of a proposal do not count any more.
func (d *demo) void(ctx context.Context, p *proposal, people ...string) error {
	out, err := d.kgctl(ctx, "ops", "upgrade", "show", p.id)
	if err != nil {
		return err
	}
	var shown struct {
		Approvals []struct {
			Person string `json:"person"`
			Status string `json:"status"`
		} `json:"approvals"`
	}
	if err := json.Unmarshal(out, &shown); err != nil {
		return err
	}
	status := map[string]string{}
	for _, seat := range shown.Approvals {
		status[seat.Person] = seat.Status
	}
	for _, who := range people {
		if status[who] != "void" {
			return fmt.Errorf("after the rotation %s's approval is %q, not void", who, status[who])
		}
	}
	return nil
}
