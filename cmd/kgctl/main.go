// Command kgctl is the command line of approvers, proposers, CI and operators.
// It trusts no gateway: whatever it signs it has computed from the artifact's
// bytes and verified from a pinned root. Keys, the registry's ceremony and
// signing on a machine without a network need no gateway at all.
package main

import (
	"context"
	"os"
	"os/signal"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
