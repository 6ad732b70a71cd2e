package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/canary"
	"github.com/kernelgate/kernelgate/workflow/notify"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// Canary says how targets are watched after an apply, docs/canary.md.
type Canary canary.Config

func (k *Canary) settle(c *Config) error {
	for name := range *k {
		if _, known := c.Targets[name]; !known {
			return fmt.Errorf("%s is none of the targets", name)
		}
	}
	_, err := canary.New(canary.Config(*k))
	return err
}

// openCanary is nil where nothing is watched.
func openCanary(c *Config) (workflow.Canary, error) {
	if len(c.Canary) == 0 {
		return nil, nil
	}
	return canary.New(canary.Config(c.Canary))
}

// Notifications say who is told of what, docs/notifications.md.
type Notifications notify.Config

func (n *Notifications) settle(c *Config) error {
	for i := range n.Receivers {
		r := &n.Receivers[i]
		if r.Webhook != nil {
			c.paths(&r.Webhook.SecretFile, &r.Webhook.CAFile)
		}
		if r.Slack != nil {
			c.paths(&r.Slack.URLFile, &r.Slack.CAFile)
		}
		if r.SMTP != nil {
			c.paths(&r.SMTP.PasswordFile, &r.SMTP.CAFile)
		}
	}
	if n.Link == "" && !c.CommandPad.Off {
		n.Link = c.CommandPad.Origin
	}
	return nil
}

// openNotifier reads the receivers' secrets; nil where nobody is told.
func (g *gateway) openNotifier() (*notify.Notifier, error) {
	if len(g.config.Notifications.Receivers) == 0 {
		return nil, nil
	}
	config := notify.Config(g.config.Notifications)
	config.Receivers = slices.Clone(config.Receivers)
	return notify.New(config, g.store, g.seats, g.log)
}

func (g *gateway) seats(ctx context.Context, id envelope.UUID) ([]upgrade.Seat, error) {
	view, err := g.engine.Upgrade(ctx, id)
	return view.Seats, err
}
