package main

import (
	"fmt"

	p11 "github.com/miekg/pkcs11"
	"github.com/spf13/cobra"

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
			u, err := pkcs11.ParseURI(uri)
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
