package main

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/kernelgate/kernelgate/cmd/kernelgate/api"
)

func (a *app) tokenCommand() *cobra.Command {
	var name, role string
	create := a.command("create", "Make a token and print it, once",
		`A token lets its holder call the API. It gives no authority over upgrades:
that is only ever in signatures. The file keeps its hash alone, so the token is
shown now and never again. A running gateway knows it at once.

Roles: approver, requestor, ci, operator, auditor.`,
		`  kernelgate token create --config kernelgate.yaml --name tech-lead --role approver
  kernelgate token create --config kernelgate.yaml --name ci --role ci > ci.token`,
		func(_ context.Context, c *Config) error { return a.createToken(c, name, role) })
	create.Flags().StringVar(&name, "name", "", "whose it is: an id, as in the registry")
	create.Flags().StringVar(&role, "role", "", "approver, requestor, ci, operator or auditor")
	_ = create.MarkFlagRequired("name")
	_ = create.MarkFlagRequired("role")
	return group("token", "Tokens for the HTTP API", create)
}

func (a *app) createToken(c *Config, name, role string) error {
	if err := os.MkdirAll(c.DataDir, 0o700); err != nil {
		return err
	}
	token, err := api.CreateToken(c.tokens(), name, role)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(a.stdout, token)
	return err
}
