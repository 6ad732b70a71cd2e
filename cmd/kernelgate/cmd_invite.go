package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/kernelgate/kernelgate/cmd/kernelgate/api"
	"github.com/kernelgate/kernelgate/cmd/kernelgate/commandpad"
	"github.com/kernelgate/kernelgate/signer/envelope"
)

func (a *app) inviteCommand() *cobra.Command {
	var person, role string
	var life time.Duration
	var shut bool
	cmd := a.command("invite", "Make a one-time link to enrol a passkey for CommandPad",
		`The link is printed once; hand it to the person it is for. Whoever opens it
first enrols a passkey in that person's name, which lets them read and act in
CommandPad. It gives no authority over upgrades: that is in the keys of the
registry alone.

Roles: approver, requestor, ci, operator, auditor.`,
		`  kernelgate invite --config kernelgate.yaml --person ryan --role approver
  kernelgate invite --config kernelgate.yaml --person ryan --close`,
		func(ctx context.Context, c *Config) error {
			if shut {
				return a.closeAccount(ctx, c, person)
			}
			return a.invite(ctx, c, person, role, life)
		})
	cmd.Flags().StringVar(&person, "person", "", "whose link it is: an id, as in the registry")
	cmd.Flags().StringVar(&role, "role", "", "approver, requestor, ci, operator or auditor")
	cmd.Flags().DurationVar(&life, "for", 24*time.Hour, "how long the link works")
	_ = cmd.MarkFlagRequired("person")
	cmd.Flags().BoolVar(&shut, "close", false, "instead of a link: close the person's account, and with it all their sessions")
	cmd.MarkFlagsOneRequired("role", "close")
	cmd.MarkFlagsMutuallyExclusive("role", "close")
	return cmd
}

// closeAccount ends a person's access to CommandPad. Their keys are the
// registry's matter.
func (a *app) closeAccount(ctx context.Context, c *Config, person string) (err error) {
	accounts, err := openAccounts(ctx, c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, accounts.Close()) }()
	id := envelope.ID(person)
	_, unknown := accounts.Account(ctx, id)
	if err := accounts.DropAccount(ctx, id); err != nil {
		return err
	}
	if unknown != nil {
		return fmt.Errorf("--person: nobody is enrolled as %q (links made for them open nothing any more): %w", person, unknown)
	}
	_, err = fmt.Fprintf(a.stderr, "The account of %s is closed; its sessions are over, and links that it has not used open nothing. Keys in the registry are not touched: kgctl registry suspend.\n", person)
	return err
}

func (a *app) invite(ctx context.Context, c *Config, person, role string, life time.Duration) (err error) {
	var id envelope.ID
	if err := id.UnmarshalText([]byte(person)); err != nil {
		return usage(fmt.Errorf("--person: %w", err))
	}
	if !slices.Contains(api.Roles(), api.Role(role)) {
		return usage(fmt.Errorf("--role: %q is none of %v", role, api.Roles()))
	}
	if c.CommandPad.Off {
		return errors.New("CommandPad is off: set commandPad.origin in the configuration")
	}
	accounts, err := openAccounts(ctx, c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, accounts.Close()) }()
	link, err := commandpad.Invite(ctx, accounts, c.CommandPad.Origin, id, role, time.Now().Add(life))
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(a.stdout, link)
	return err
}
