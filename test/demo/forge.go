package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/signer/open"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow/client"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// forged has the holder of the ops key sign an approval in ryan's name. kgctl
// would not: this is the forger's own program.
func (d *demo) forged(ctx context.Context) error {
	step("7. upgrade-44: two real approvals, and one that is forged.")
	p, err := d.propose(ctx, "upgrade-44", "forged", "upgrade-44: ops is in a hurry")
	if err != nil {
		return err
	}
	if err := d.approve(ctx, p, "sec-eng", "divlead-1"); err != nil {
		return err
	}
	say("ops signs an approval in ryan's name with the ops token, by a program of its own.")
	// With a stolen API token, too: a requestor's may not post approvals at all.
	token, err := os.ReadFile(d.path("people", "divlead-1.token"))
	if err != nil {
		return err
	}
	gateway, err := client.New(d.url, strings.TrimSpace(string(token)), nil)
	if err != nil {
		return err
	}
	err = d.forge(ctx, gateway, p)
	var refused *client.Error
	if !errors.As(err, &refused) || refused.Code != string(failure.KeyNotOfPerson) {
		return fmt.Errorf("the forged approval was answered with: %v", err) //nolint:errorlint // nil is an answer too
	}
	say("Refused: %s.", refused.Detail)
	if err := d.wait(ctx, p, "pending_approval"); err != nil {
		return err
	}
	events, err := gateway.UpgradeEvents(ctx, envelope.UUID(p.id))
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(events, func(e client.Event) bool { return e.Type == auditlog.ApprovalInvalid }) {
		return errors.New("the log does not show the forged approval")
	}
	say("Only two approvals count; the page still shows %s. The attempt stands in the log.", d.page())
	return nil
}

func (d *demo) forge(ctx context.Context, gateway *client.Client, p *proposal) error {
	detail, err := gateway.Upgrade(ctx, envelope.UUID(p.id))
	if err != nil {
		return err
	}
	key, err := open.Open(ctx, d.keys["ops"], open.Options{})
	if err != nil {
		return err
	}
	defer key.Close()
	approval, err := approvalFor(detail.Upgrade.ManifestDigest, p, d.root)
	if err != nil {
		return err
	}
	approval.ApproverID, approval.KeyID = "ryan", envelope.KeyID(key.Public().KeyID())
	env, err := envelope.Seal(ctx, key, envelope.TypeApproval, approval)
	if err != nil {
		return err
	}
	_, err = gateway.Submit(ctx, env)
	return err
}

// approvalFor is all of an approval but who gives it.
func approvalFor(manifestDigest string, p *proposal, root string) (upgrade.Approval, error) {
	a := upgrade.Approval{KernelID: "demo", ApprovalTs: envelope.TimeOf(time.Now()), UpgradeID: envelope.UUID(p.id)}
	artifact, err := os.ReadFile(p.artifact)
	if err != nil {
		return a, err
	}
	a.PatchHash = envelope.DigestOf(artifact)
	if a.ManifestDigest, err = envelope.ParseDigest(manifestDigest); err != nil {
		return a, err
	}
	a.RegistryDigest, err = envelope.ParseDigest(root)
	return a, err
}
