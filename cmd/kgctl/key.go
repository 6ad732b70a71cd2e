package main

import "github.com/spf13/cobra"

func (a *app) keyCommand() *cobra.Command {
	cmd := group("key", "Make, list and enrol keys", `A key is named by a URI: pkcs11: (RFC 7512) for hardware, file: for development.
PINs are read from the URI's pin-source, or asked for at the terminal, unseen; they never stand on the command line.`)
	cmd.AddCommand(a.keyGenerate(), a.keyList(), a.keyEnroll(), a.keyDoctor())
	return cmd
}
