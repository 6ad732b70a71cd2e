package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow/client"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

func (a *app) upgradeCommand() *cobra.Command {
	cmd := group("upgrade", "Propose upgrades and follow them", "An upgrade goes from a proposal over tests and 3 of 5 approvals to the Kernel's signature.")
	cmd.AddCommand(a.upgradeCreate(), a.upgradeList(), a.upgradeShow(), a.upgradeDiff(), a.upgradeSubmit(), a.upgradeWatch())
	return cmd
}

func (a *app) upgradeList() *cobra.Command {
	var states []string
	var target, cursor string
	var limit int32
	cmd := &cobra.Command{
		Use: "list", Short: "List upgrades, newest first", Args: noArgs,
		Example: "  kgctl upgrade list --state pending_approval --target web",
		RunE: func(cmd *cobra.Command, _ []string) error {
			p := client.ListUpgradesParams{Limit: &limit}
			if len(states) > 0 {
				list := make([]client.State, len(states))
				for i, s := range states {
					if list[i] = client.State(s); !list[i].Valid() {
						return usagef("--state %.40q is no state; the states are %s", s, stateNames())
					}
				}
				p.State = &list
			}
			if target != "" {
				p.Target = &target
			}
			if cursor != "" {
				p.Cursor = &cursor
			}
			return a.list(cmd, p)
		},
	}
	cmd.Flags().StringSliceVar(&states, "state", nil, "only upgrades in this state; may be repeated")
	cmd.Flags().StringVar(&target, "target", "", "only upgrades of this target")
	cmd.Flags().StringVar(&cursor, "cursor", "", "go on where the page before ended")
	cmd.Flags().Int32Var(&limit, "limit", 50, "at most so many, 1 to 200")
	return cmd
}

func (a *app) list(cmd *cobra.Command, p client.ListUpgradesParams) error {
	gateway, err := a.connect()
	if err != nil {
		return err
	}
	page, err := gateway.Upgrades(cmd.Context(), p)
	if err != nil {
		return err
	}
	rows := [][]string{{"ID", "STATE", "TYPE", "TARGET", "PROPOSED BY", "UPDATED"}}
	for _, u := range page.Upgrades {
		rows = append(rows, []string{foreign(u.Id), foreign(string(u.State)), foreign(u.Type), foreign(u.Target), foreign(u.ProposedBy), localText(u.UpdatedAt)})
	}
	if page.Next != nil {
		a.say("There are more: --cursor %s", foreign(*page.Next))
	}
	return a.show(page, rows)
}

// shownUpgrade is what upgrade show says, verified where it is signed.
type shownUpgrade struct {
	client.Upgrade
	Manifest  *upgrade.Manifest       `json:"manifest"`
	Words     string                  `json:"words"`
	Tests     map[string]string       `json:"tests"`
	Policy    *upgrade.PolicyDecision `json:"policy,omitzero"`
	Approvals []shownSeat             `json:"approvals"`
	Quorum    bool                    `json:"quorum"`
}

type shownSeat struct {
	Person   envelope.ID        `json:"person"`
	Status   upgrade.SeatStatus `json:"status"`
	SignedAt *envelope.Time     `json:"signedAt,omitzero"`
	KeyID    envelope.KeyID     `json:"keyId,omitzero"`
	Reason   string             `json:"reason,omitzero"`
}

func (a *app) upgradeShow() *cobra.Command {
	return &cobra.Command{
		Use: "show ID", Short: "Show one upgrade, its signatures verified here", Args: oneUpgrade,
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := a.open(cmd.Context())
			if err != nil {
				return err
			}
			r, err := a.look(cmd.Context(), s, envelope.UUID(args[0]))
			if err != nil {
				return err
			}
			return a.showUpgrade(r)
		},
	}
}

func (a *app) showUpgrade(r *reading) error {
	m, u := r.manifest, r.detail.Upgrade
	out := shownUpgrade{Upgrade: u, Manifest: m, Words: fingerprint(r.digest, m.PatchHash), Tests: map[string]string{}, Policy: r.policy, Quorum: r.count.Quorum}
	for name, t := range r.tests {
		out.Tests[name] = t.Result
	}
	rows := [][]string{
		{"upgrade", string(m.UpgradeID)}, {"state", foreign(string(u.State))},
		{"proposal", fmt.Sprintf("%s at %s by %s on %s", m.Type, m.Target.Name, m.ProposedBy, local(m.Timestamp))},
		{"why", foreign(m.Rationale)}, {"target", foreign(targetText(m))}, {"base", string(m.BaseRevision)}, {"patch", m.PatchHash.String()},
		{"manifest", r.digest.String()}, {"words", out.Words}, {"tests", testText(r)}, {"policy", policyText(r.policy)},
	}
	if r.open() && u.State != client.EmergencyApplied {
		rows = append(rows, []string{"expires", localText(u.ExpiresAt)})
	}
	if u.Reason != nil {
		rows = append(rows, []string{"reason", foreign(*u.Reason)})
	}
	for _, seat := range r.count.Seats {
		shown := shownSeat{Person: seat.Person, Status: seat.Status, KeyID: seat.KeyID, Reason: seat.Reason}
		text := string(seat.Status)
		if seat.Status != upgrade.SeatWaiting {
			at := seat.SignedAt
			shown.SignedAt = &at
			text += " on " + local(at)
		}
		if seat.Reason != "" {
			text += ": " + foreign(seat.Reason)
		}
		out.Approvals = append(out.Approvals, shown)
		rows = append(rows, []string{"  " + string(seat.Person), text})
	}
	return a.show(out, rows)
}

func (a *app) upgradeDiff() *cobra.Command {
	var artifact string
	var patch bool
	cmd := &cobra.Command{
		Use: "diff ID [--patch]", Short: "Compare an upgrade's artifact with what it replaces, file by file", Args: oneUpgrade,
		Long: `Compare an upgrade's artifact with what it replaces, file by file. Both are hashed and unpacked on
this machine; the gateway's word is taken for nothing.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := a.open(cmd.Context())
			if err != nil {
				return err
			}
			r, err := a.look(cmd.Context(), s, envelope.UUID(args[0]))
			if err != nil {
				return err
			}
			d, err := a.difference(cmd.Context(), s, r.manifest, artifact)
			if err != nil {
				return err
			}
			return a.showDifference(d, patch)
		},
	}
	cmd.Flags().StringVar(&artifact, "artifact", "", "the artifact, where you have it; else it is downloaded")
	cmd.Flags().BoolVar(&patch, "patch", false, "also show the lines that change")
	return cmd
}

func (a *app) upgradeSubmit() *cobra.Command {
	return &cobra.Command{
		Use: "submit ID", Short: "Open a draft for approvals", Args: oneUpgrade,
		RunE: func(cmd *cobra.Command, args []string) error {
			gateway, err := a.connect()
			if err != nil {
				return err
			}
			id := envelope.UUID(args[0])
			u, err := gateway.RequestApprovals(cmd.Context(), id)
			if err != nil {
				return unknownUpgrade(id, err)
			}
			rows := [][]string{{"upgrade", foreign(u.Id)}, {"state", foreign(string(u.State))}}
			if u.Reason != nil {
				rows = append(rows, []string{"reason", foreign(*u.Reason)})
			}
			return a.show(u, rows)
		},
	}
}
