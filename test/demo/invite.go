package main

import (
	"fmt"
	"path/filepath"
)

// invite says what to try while the gateway keeps running.
func (d *demo) invite(o options) {
	page, err := archive("my own page")
	if err == nil {
		err = d.leave("artifacts/mine.tar.gz", page, 0o644)
	}
	if err != nil {
		say("%v", err)
	}
	fmt.Printf(`
The gateway keeps running until Ctrl-C.

  The page       %[1]s
  Metrics        %[2]s/metrics    Health  %[2]s/readyz    The log  %[2]s/log/checkpoint

Try it in another shell, as tech-lead:

  export SOFTHSM2_CONF=%[3]s KGCTL_SERVER=%[2]s KGCTL_ROOT=%[4]s
  export KGCTL_TOKEN_FILE=%[5]s/people/tech-lead.token
  %[6]s/kgctl upgrade list
  %[6]s/kgctl upgrade create --type code --target web --manifest-id site --rationale "My own page" --component web --downtime none \
      --artifact %[5]s/artifacts/mine.tar.gz --key "$(cat %[5]s/people/tech-lead.uri)"
  %[6]s/kgctl upgrade submit ID

then three times, with other names: the page changes.

  KGCTL_TOKEN_FILE=%[5]s/people/ryan.token %[6]s/kgctl approve ID --key "$(cat %[5]s/people/ryan.uri)"

`, d.siteURL, d.url, d.hsm.Conf, d.root, d.dir, relative(o.bin))
}

// relative is the directory as it was named, such that a shell runs what is in it.
func relative(bin string) string {
	if filepath.IsAbs(bin) {
		return bin
	}
	return "." + string(filepath.Separator) + filepath.Clean(bin)
}
