package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer/envelope"
)

// defaultValidity is two years, in seconds.
const defaultValidity = 2 * 365 * 86400

type enrolFlags struct {
	key, id, name, role, kernel string
	requestor, ci               bool
	notBefore, notAfter, file   string
	attestation                 string
}

func (a *app) keyEnroll() *cobra.Command {
	var f enrolFlags
	cmd := &cobra.Command{
		Use:   "enroll --key URI --id ID --name NAME --role ROLE -f FILE",
		Short: "Write an enrolment file, signed by the key that it enrols",
		Example: `  kgctl key enroll --key "$URI" --id ryan --name Ryan --role superadmin -f ryan.json
  kgctl key enroll --key "$URI" --id ci-1 --name "Build farm" --ci -f ci.json
  kgctl key enroll --key "$URI" --kernel audit -f audit.json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := need(cmd, "key", "file"); err != nil {
				return err
			}
			return a.enroll(cmd.Context(), f)
		},
	}
	s := cmd.Flags()
	s.StringVar(&f.key, "key", "", "URI of the key")
	s.StringVar(&f.id, "id", "", "ID of the person or CI system")
	s.StringVar(&f.name, "name", "", "name for people")
	s.StringVar(&f.role, "role", "", "approver's role: superadmin, security-engineer, technical-lead or division-lead")
	s.BoolVar(&f.requestor, "requestor", false, "the key is a requestor's")
	s.BoolVar(&f.ci, "ci", false, "the key is a CI system's")
	s.StringVar(&f.kernel, "kernel", "", "the key is the Kernel's: records or audit")
	s.StringVar(&f.notBefore, "not-before", "", "first moment of validity (YYYY-MM-DDTHH:MM:SSZ; default now)")
	s.StringVar(&f.notAfter, "not-after", "", "last moment of validity (default two years later)")
	s.StringVar(&f.attestation, "attestation", "", "PEM file with the device maker's certificates for the key, to be recorded beside it")
	s.StringVarP(&f.file, "file", "f", "", "file to write")
	return cmd
}

func (f enrolFlags) holder() (enrolment, error) {
	kinds := 0
	e := enrolment{Name: f.name, Role: keyregistry.Role(f.role)}
	for _, c := range []struct {
		set  bool
		kind keyregistry.Kind
	}{{f.role != "", keyregistry.KindApprover}, {f.requestor, keyregistry.KindRequestor}, {f.ci, keyregistry.KindCI}, {f.kernel != "", keyregistry.Kind("kernel-" + f.kernel)}} {
		if c.set {
			kinds++
			e.Kind = c.kind
		}
	}
	if kinds != 1 {
		return e, usagef("say whose key it is by exactly one of --role, --requestor, --ci and --kernel")
	}
	switch e.Role {
	case "", keyregistry.SuperAdmin, keyregistry.SecurityEngineer, keyregistry.TechnicalLead, keyregistry.DivisionLead:
	default:
		return e, usagef("--role is superadmin, security-engineer, technical-lead or division-lead, not %q", f.role)
	}
	if f.kernel != "" {
		if f.kernel != "records" && f.kernel != "audit" {
			return e, usagef("--kernel is records or audit, not %q", f.kernel)
		}
		if f.id != "" || f.name != "" {
			return e, usagef("a Kernel's key has neither --id nor --name")
		}
		e.ID = keyregistry.KernelHolder
		return e, nil
	}
	if err := e.ID.UnmarshalText([]byte(f.id)); err != nil {
		return e, usagef("--id: %w", err)
	}
	if err := envelope.CheckText("--name", f.name, 80); err != nil {
		return e, usageError{err}
	}
	return e, nil
}

func (a *app) validity(f enrolFlags) (from, to envelope.Time, err error) {
	from = a.time()
	if f.notBefore != "" {
		if from, err = envelope.ParseTime(f.notBefore); err != nil {
			return from, to, usagef("--not-before: %w", err)
		}
	}
	to = from.Add(defaultValidity)
	if f.notAfter != "" {
		if to, err = envelope.ParseTime(f.notAfter); err != nil {
			return from, to, usagef("--not-after: %w", err)
		}
	}
	if to.Before(from) {
		return from, to, usagef("--not-after %s is before --not-before %s", to, from)
	}
	return from, to, nil
}

func (a *app) enroll(ctx context.Context, f enrolFlags) error {
	e, err := f.holder()
	if err != nil {
		return err
	}
	from, to, err := a.validity(f)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, signTimeout)
	defer cancel()
	s, err := a.openKey(ctx, f.key)
	if err != nil {
		return err
	}
	defer s.Close()
	origin := originOf(f.key)
	e.Key = keyregistry.NewKey(s.Public(), s.Algorithm(), origin, from, to)
	if f.attestation != "" {
		if e.Attestation, err = readAttestation(f.attestation, s.Public(), origin); err != nil {
			return err
		}
	}
	env, err := envelope.Seal(ctx, s, typeEnrolment, e)
	if err != nil {
		return err
	}
	if err := writeNew(f.file, env.Bytes()); err != nil {
		return err
	}
	days := int(to.Std().Sub(from.Std()) / (24 * time.Hour))
	a.say("Wrote %s; the key is to be valid for %d days. Give it to who proposes the registry.", f.file, days)
	return a.show(e, [][]string{{"HOLDER", "KIND", "ROLE", "KEY"}, {string(e.ID), string(e.Kind), string(e.Role), string(e.Key.KeyID)}})
}
