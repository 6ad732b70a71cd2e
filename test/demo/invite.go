package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
)

// invite says what to try while the gateway keeps running.
func (d *demo) invite(ctx context.Context, o options) error {
	page, err := archive("my own page", true)
	if err != nil {
		return err
	}
	if err := d.leave("artifacts/mine.tar.gz", page, 0o644); err != nil {
		return err
	}
	link, err := d.run(ctx, nil, "kernelgate", "invite", "--config", d.path("kernelgate.yaml"), "--person", "ryan", "--role", "approver")
	if err != nil {
		return err
	}
	fmt.Printf(`
The gateway keeps running until Ctrl-C.

  The page    %[1]s
  CommandPad  %[7]s
              This link lets ryan in, once; the browser makes a passkey, which opens CommandPad and signs no upgrade:
              %[8]s
  The log     %[2]s/log/checkpoint      Health  %[2]s/readyz      Metrics  %[2]s/metrics

Try it in another shell, as tech-lead:

  export SOFTHSM2_CONF=%[3]s KGCTL_SERVER=%[2]s KGCTL_ROOT=%[4]s
  export KGCTL_TOKEN_FILE=%[5]s/people/tech-lead.token
  %[6]s/kgctl upgrade list
  %[6]s/kgctl upgrade create --type code --target web --manifest-id site --rationale "My own page" --component web --downtime none \
      --artifact %[5]s/artifacts/mine.tar.gz --key "$(cat %[5]s/people/tech-lead.uri)"
  %[6]s/kgctl upgrade submit ID

then three times, as ryan and with two other names (sec-eng, tech-lead, divlead-1, divlead-3): the page changes.

  KGCTL_TOKEN_FILE=%[5]s/people/ryan.token %[6]s/kgctl approve ID --key "$(cat %[5]s/people/ryan.uri)"

`, d.siteURL, d.url, d.hsm.Conf, d.root, d.dir, relative(o.bin), d.pad(), strings.TrimSpace(string(link)))
	return nil
}

// pad is CommandPad's address: browsers bind passkeys to names, not to numbers.
func (d *demo) pad() string { return strings.Replace(d.url, "127.0.0.1", "localhost", 1) }

// relative is the directory as it was named, such that a shell runs what is in it.
func relative(bin string) string {
	if filepath.IsAbs(bin) {
		return bin
	}
	return "." + string(filepath.Separator) + filepath.Clean(bin)
}
