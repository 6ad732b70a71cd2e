// Command kgctl is the command line of approvers, proposers and operators. The
// commands here need no server: keys, the registry's ceremony, and signing on
// a machine without a network.
package main

import (
	"context"
	"os"
	"os/signal"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
