package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kernelgate/kernelgate/signer/pkcs11"
)

func (a *app) keyDoctor() *cobra.Command {
	return &cobra.Command{
		Use:   "doctor URI",
		Short: "Say what keeps a key from signing, and what to do",
		Long: `Look at everything that a signature needs, in its order: the module, the token,
its PIN, the clock, the key, and one test signature over a text that is good for
nothing; of a key in a cloud: the credentials, the service, the key's state, the
permission to sign, and such a signature. The PIN is sent once at most, and not to a token that has one try left.
The exit code is 8 where something is wrong.`,
		Example: `  kgctl key doctor 'pkcs11:token=ryan;object=key?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/run/pin'`,
		Args:    oneURI,
		RunE:    func(cmd *cobra.Command, args []string) error { return a.doctor(cmd.Context(), args[0]) },
	}
}

func oneURI(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return usagef("%s takes one URI; see %s --help", cmd.CommandPath(), cmd.CommandPath())
	}
	return nil
}

func (a *app) doctor(ctx context.Context, uri string) error {
	name, err := redacted(uri)
	if err != nil {
		return err
	}
	a.say("Looking at %s", name)
	ctx, cancel := context.WithTimeout(ctx, signTimeout)
	defer cancel()
	found, err := a.diagnose(ctx, uri)
	if err != nil {
		return err
	}
	rows, problems := [][]string{{"CHECK", "STATE", "FINDING"}}, 0
	for _, f := range found {
		rows = append(rows, []string{f.Check, string(f.State), f.Says})
		if f.Do != "" {
			rows = append(rows, []string{"", "", "-> " + f.Do})
		}
		if f.State == pkcs11.StateProblem {
			problems++
		}
	}
	if err := a.show(found, rows); err != nil {
		return err
	}
	if problems > 0 {
		return hardwareError{errors.New("the key cannot be used as it is")}
	}
	return nil
}

// diagnose looks into a token; of other kinds of keys it can say only whether
// they open and sign.
func (a *app) diagnose(ctx context.Context, uri string) ([]pkcs11.Finding, error) {
	if strings.HasPrefix(uri, pkcs11.Scheme) {
		u, err := pkcs11.ParseURI(uri)
		if err != nil {
			return nil, usageError{err}
		}
		return pkcs11.Diagnose(ctx, u, a.now(), pkcs11.Options{PIN: a.askPIN}), nil
	}
	wrong := func(check string, err error) []pkcs11.Finding {
		return []pkcs11.Finding{{Check: check, State: pkcs11.StateProblem, Says: err.Error()}} // which says what to do
	}
	s, err := a.openKey(ctx, uri)
	if err != nil {
		return wrong("key", err), nil
	}
	defer s.Close()
	key := pkcs11.Finding{Check: "key", State: pkcs11.StateOK, Says: fmt.Sprintf("%s, %s, origin %s", s.Public().KeyID(), s.Algorithm(), originOf(uri))}
	if _, err := s.Sign(ctx, []byte(pkcs11.TestMessage)); err != nil {
		return append([]pkcs11.Finding{key}, wrong("signature", err)...), nil
	}
	return []pkcs11.Finding{key, {Check: "signature", State: pkcs11.StateOK, Says: "signed and verified"}}, nil
}
