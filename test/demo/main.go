// Command demo plays upgrades for real, over the API: five people with
// SoftHSM2 tokens and kgctl, a gateway with its guard as processes of their
// own, a web page that changes. It plays a baseline, an upgrade that three people
// approve, one that is rejected, one whose forged approval is refused, and a
// rollback; one whose canary fails, an emergency that is ratified, one that the Kernel takes back, and a
// new registry while an upgrade is pending. It ends with 0 only if all of it held.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
)

func main() {
	var o options
	flag.StringVar(&o.dir, "dir", "demo", "the directory to play in; an earlier demo's is replaced")
	flag.StringVar(&o.bin, "bin", "bin", "where kernelgate, kgctl and kgverify are")
	flag.BoolVar(&o.keep, "keep", false, "keep serving until Ctrl-C")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := play(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1) //nolint:gocritic // stop only gives the signals back
	}
}

type options struct {
	dir, bin string
	keep     bool
}

func play(ctx context.Context, o options) (err error) {
	d := &demo{}
	if d.bin, err = filepath.Abs(o.bin); err != nil {
		return err
	}
	if d.dir, err = filepath.Abs(o.dir); err != nil {
		return err
	}
	if err := claim(d.dir); err != nil {
		return err
	}
	if err := d.provision(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.stop()) }()
	if err := d.start(ctx); err != nil {
		return err
	}
	if err := d.stories(ctx); err != nil {
		return err
	}
	say("All of it held. The directory %s has the pinned root, the bundles, the artifacts, the exported audit log and gateway.log.", o.dir)
	if o.keep {
		if err := d.invite(ctx, o); err != nil {
			return err
		}
		<-ctx.Done()
	}
	return nil
}

// say tells what happens; step begins a chapter of it.
func say(format string, args ...any) {
	fmt.Println(wrapped(strings.Fields(fmt.Sprintf(format, args...)), "  ", "", "  "))
}

func step(format string, args ...any) {
	fmt.Println("\n" + wrapped(strings.Fields(fmt.Sprintf(format, args...)), "", "", "   "))
}
