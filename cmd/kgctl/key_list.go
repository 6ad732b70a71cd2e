package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kernelgate/kernelgate/signer/awskms"
	"github.com/kernelgate/kernelgate/signer/filekey"
	"github.com/kernelgate/kernelgate/signer/gcpkms"
	"github.com/kernelgate/kernelgate/signer/pkcs11"
)

type listedKey struct {
	Label string `json:"label"`
	ID    string `json:"id"` // hexadecimal
}

func (a *app) keyList() *cobra.Command {
	var uri string
	cmd := &cobra.Command{
		Use:     "list --token URI",
		Short:   "List the private keys in a token",
		Example: `  kgctl key list --token 'pkcs11:token=ryan?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=env:PIN'`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := need(cmd, "token"); err != nil {
				return err
			}
			u, err := tokenURI(uri)
			if err != nil {
				return usageError{err}
			}
			a.say("Reading token %s", u)
			ctx, cancel := context.WithTimeout(cmd.Context(), signTimeout)
			defer cancel()
			found, err := pkcs11.ListKeys(ctx, u, pkcs11.Options{PIN: a.askPIN})
			if err != nil {
				return err
			}
			keys, rows := []listedKey{}, [][]string{{"LABEL", "ID"}}
			for _, k := range found {
				keys = append(keys, listedKey{fmt.Sprintf("%q", k.Label), fmt.Sprintf("%x", k.ID)})
				rows = append(rows, []string{keys[len(keys)-1].Label, keys[len(keys)-1].ID})
			}
			return a.show(keys, rows)
		},
	}
	cmd.Flags().StringVar(&uri, "token", "", "PKCS#11 URI of the token")
	return cmd
}

// tokenURI refuses what has no token to look into.
func tokenURI(text string) (u pkcs11.URI, err error) {
	switch {
	case strings.HasPrefix(text, awskms.Scheme):
		return u, errors.New("a URI names one key of AWS KMS; aws kms list-keys and list-aliases show which there are, and kgctl key doctor URI looks at one")
	case strings.HasPrefix(text, gcpkms.Scheme):
		return u, errors.New("a URI names one key version of Cloud KMS; gcloud kms keys versions list shows which there are, and kgctl key doctor URI looks at one")
	case strings.HasPrefix(text, filekey.Scheme):
		return u, errors.New("a file holds one key; kgctl key doctor URI looks at it")
	}
	return pkcs11.ParseURI(text)
}
