package main

import (
	"errors"
	"fmt"
	"strings"

	p11 "github.com/miekg/pkcs11"
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
			keys, err := listKeys(u)
			if err != nil {
				return err
			}
			rows := [][]string{{"LABEL", "ID"}}
			for _, k := range keys {
				rows = append(rows, []string{k.Label, k.ID})
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

func listKeys(u pkcs11.URI) ([]listedKey, error) {
	keys := []listedKey{}
	err := withToken(u, true, func(c *p11.Ctx, session p11.SessionHandle) error {
		found, err := objects(c, session, p11.NewAttribute(p11.CKA_CLASS, p11.CKO_PRIVATE_KEY))
		if err != nil {
			return err
		}
		for _, o := range found {
			got, err := c.GetAttributeValue(session, o, []*p11.Attribute{p11.NewAttribute(p11.CKA_LABEL, nil), p11.NewAttribute(p11.CKA_ID, nil)})
			if err != nil {
				return err
			}
			keys = append(keys, listedKey{fmt.Sprintf("%q", got[0].Value), fmt.Sprintf("%x", got[1].Value)})
		}
		return nil
	})
	return keys, err
}
