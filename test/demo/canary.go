package main

import (
	"context"
	"fmt"
)

// canaryConfig is the part of the gateway's configuration that says how the
// page is watched after an apply: by its style sheet, for a moment.
const canaryConfig = `canary:
  web:
    window: 700ms
    baselineWindow: 300ms
    http:
      - name: style sheet
        url: %s/style.css
        interval: 20ms
        sla: { errorRate: 0.01, minSamples: 3 }
`

// broken plays an upgrade whose canary fails, and the rollback that the Kernel
// then proposes. base is what was live before.
func (d *demo) broken(ctx context.Context, base *proposal) error {
	step("9. upgrade-45: three approve it, but it is broken. The canary notices, and the Kernel proposes the way back.")
	p, err := d.proposeArchive(ctx, "upgrade-45", "version 45", "upgrade-45: tidied up", false)
	if err != nil {
		return err
	}
	say("The new page has lost its style sheet. Nobody sees it in time:")
	if err := d.approve(ctx, p, "sec-eng", "divlead-1", "divlead-2"); err != nil {
		return err
	}
	if err := d.wait(ctx, p, "rollback_scheduled"); err != nil {
		return err
	}
	if err := d.expect("version 45"); err != nil {
		return err
	}
	undo, err := d.kernels(ctx, "rollback-of-45", base.artifact)
	if err != nil {
		return err
	}
	say("After an apply the gateway asks for %s/style.css for a while. Before this apply it was there; now it is not: the canary "+
		"has failed. The Kernel has proposed a rollback, but may not decide alone. Until three have approved it, the page shows %s.", d.siteURL, d.page())
	if err := d.through(ctx, undo, "version 1", "ryan", "sec-eng", "divlead-2"); err != nil {
		return err
	}
	if err := d.wait(ctx, p, "rolled_back"); err != nil {
		return err
	}
	return d.prove(ctx, p)
}

func (d *demo) canaryConfig() string { return fmt.Sprintf(canaryConfig, d.siteURL) }
